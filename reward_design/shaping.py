"""Potential-based shaping: extra reward that leaves the optimal policy alone."""

from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import jax.numpy as jnp
from jaxtyping import Array, Float

from reward_design.constructors import checked_gamma, from_step, pointwise
from reward_design.core import Params, Reward, State, Transition


@runtime_checkable
class Potential(Protocol):
    """A potential with parameters; flax modules are potentials."""

    def init(self, key: Any, *inputs: Any) -> Any:
        """Parameters for inputs like these."""
        ...

    def apply(self, params: Any, *inputs: Any) -> Any:
        """``[B]`` potentials."""
        ...


def potential_shaping(
    phi: Callable[..., Any] | Potential,
    *,
    gamma: float | int,
    dynamic: bool = False,
    time_limit_is_terminal: bool = False,
    add: bool = True,
    name: str = "potential_shaping",
) -> Reward:
    """Potential-based shaping: F_t = γ·Φ(s_{t+1})·[not terminal] - Φ(s_t), added to the incoming reward.

    The potential of a terminal state is 0 (the potential, not the reward: -Φ(s_t) is still paid), and ``terminated``
    wins where both flags are true. On truncation γ·Φ(s_{t+1}) is kept, which is right for agents that bootstrap with
    their (shaped) critic there; agents that treat the time limit as a terminal state need
    ``time_limit_is_terminal=True``.

    With ``dynamic=True`` the potential of a state is evaluated once, when the state is entered, and that number is
    subtracted on the next step, so that ``params`` may change from step to step (a potential that is being learned).

    Keeps the optimal policy: yes, if ``gamma`` equals the agent's and the agent's handling of time limits is the one
    above.

    Args:
        phi: ``phi(obs) -> [B]``, or a parametric potential with ``init(key, obs)`` and ``apply(params, obs) -> [B]``
            (a flax module, for example), whose parameters are then ``params["potential"]``.
        gamma: discount per environment step, in [0, 1]; must equal the agent's.
        dynamic: store the potential when a state is entered; makes the kind CAUSAL instead of POINTWISE.
        time_limit_is_terminal: also zero the potential on truncation.
        add: False returns F alone, for :func:`reward_design.weighted_sum`.
        name: name of the reward and of its term.

    Returns:
        A :class:`Reward` with params ``{"gamma", "potential"}``.

    Raises:
        ValueError: if ``gamma`` is outside [0, 1]; at trace time, if ``phi`` returns another shape than ``[B]``.
        TypeError: if ``phi`` is neither callable nor a parametric potential.

    Example:
        >>> import jax, jax.numpy as jnp, reward_design as rd
        >>> shaped = rd.potential_shaping(lambda obs: obs[:, 0], gamma=0.5)
        >>> t = rd.Transition(
        ...     obs=jnp.ones((2, 1)), action=jnp.zeros(2), next_obs=4 * jnp.ones((2, 1)), reward=jnp.zeros(2),
        ...     terminated=jnp.array([False, True]), truncated=jnp.zeros(2, bool), mask=jnp.ones(2, bool))
        >>> params, state = shaped.init(jax.random.key(0), t)
        >>> shaped.step(params, state, t)[0].reward.tolist()
        [1.0, -1.0]

    Source: Ng, Harada, Russell, "Policy invariance under reward transformations", ICML 1999; Grzes, "Reward Shaping in
    Episodic Reinforcement Learning", AAMAS 2017 (terminal potential 0); Devlin, Kudenko, "Dynamic Potential-Based
    Reward Shaping", AAMAS 2012 (``dynamic``).
    """
    gamma = checked_gamma(gamma)
    init_phi, value = _potential(phi)
    settings = {"phi": _label(phi), "gamma": gamma, "dynamic": dynamic}
    settings |= {"time_limit_is_terminal": time_limit_is_terminal, "add": add}

    def init_params(key: Any, example: Transition) -> Params:
        return {"gamma": gamma, "potential": init_phi(key, example.obs)}

    def entered(params: Params, t: Transition) -> Float[Array, " batch"]:
        zero = t.done if time_limit_is_terminal else t.terminated
        return jnp.where(zero, 0.0, value(params["potential"], t, t.next_obs))

    def advice(params: Params, t: Transition) -> Any:
        shaping = params["gamma"] * entered(params, t) - value(params["potential"], t, t.obs)
        return _with_incoming(t, name, shaping, add)

    if not dynamic:
        return pointwise(name, advice, params=init_params, settings=settings)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        stored = {"potential": jnp.zeros_like(example.reward), "stored": jnp.zeros_like(example.mask, bool)}
        return init_params(key, example), State(episode=stored)

    def step(params: Params, state: State, t: Transition) -> tuple[Any, State]:
        first = value(params["potential"], t, t.obs)
        current = jnp.where(state.episode["stored"], state.episode["potential"], first)
        following = entered(params, t)
        stored = {"potential": following.astype(current.dtype), "stored": jnp.ones_like(t.mask)}
        shaping = params["gamma"] * following - current
        return _with_incoming(t, name, shaping, add), state._replace(episode=stored)

    return from_step(name, init, step, settings=settings)


def look_ahead_advice(phi: Callable[..., Any] | Potential, *, gamma: float | int, add: bool = True) -> Reward:
    """Advice on state-action pairs: F_t = γ·Φ(s_{t+1}, a_{t+1})·[not terminal] - Φ(s_t, a_t).

    a_{t+1} is the action that is really taken next. The action values that are learned from r + F are Q - Φ, so the
    agent must act with **argmax_a (Q(s, a) + Φ(s, a))**; a policy-gradient agent must add Φ(s, a) back to the
    advantage. Without that correction the advice changes the greedy policy of most problems.

    Keeps the optimal policy: only if actions are chosen with argmax(Q + Φ) and ``gamma`` equals the agent's.

    Args:
        phi: ``phi(obs, action) -> [B]``, or a parametric potential with ``init(key, obs, action)`` and
            ``apply(params, obs, action) -> [B]``.
        gamma: discount per environment step, in [0, 1]; must equal the agent's.
        add: False returns F alone, for :func:`reward_design.weighted_sum`.

    Returns:
        A :class:`Reward` of kind ``POINTWISE``; transitions need ``info["next_action"]``, which the agents on
        functional environments supply.

    Raises:
        ValueError: if ``gamma`` is outside [0, 1]; at trace time, without ``info["next_action"]``.
        TypeError: if ``phi`` is neither callable nor a parametric potential.

    Example:
        >>> import reward_design as rd
        >>> rd.look_ahead_advice(lambda obs, action: obs[:, 0] * action, gamma=0.9).settings["gamma"]
        0.9

    Source: Wiewiora, Cottrell, Elkan, "Principled Methods for Advising Reinforcement Learning Agents", ICML 2003.
    """
    gamma = checked_gamma(gamma)
    init_phi, value = _potential(phi)

    def init_params(key: Any, example: Transition) -> Params:
        return {"gamma": gamma, "potential": init_phi(key, example.obs, example.action)}

    def advice(params: Params, t: Transition) -> Any:
        if "next_action" not in t.info:
            raise ValueError(
                f"look_ahead_advice needs info['next_action'], the action taken in next_obs, got {sorted(t.info)}; "
                "use an agent that supplies it, or potential_shaping on states."
            )
        following = value(params["potential"], t, t.next_obs, t.info["next_action"])
        following = jnp.where(t.terminated, 0.0, following)
        shaping = params["gamma"] * following - value(params["potential"], t, t.obs, t.action)
        return _with_incoming(t, "look_ahead_advice", shaping, add)

    settings = {"phi": _label(phi), "gamma": gamma, "add": add}
    return pointwise("look_ahead_advice", advice, params=init_params, settings=settings)


def _with_incoming(t: Transition, name: str, own: Float[Array, " batch"], add: bool) -> Any:
    return (t.reward + own, {"environment": t.reward, name: own}) if add else own


def _potential(phi: Any) -> tuple[Callable[..., Params], Callable[..., Float[Array, " batch"]]]:
    """``init(key, *inputs)`` and ``value(params, transition, *inputs) -> [B]`` of a potential of either form."""
    parametric = isinstance(phi, Potential)
    if not parametric and not callable(phi):
        raise TypeError(
            f"phi must be a function of observations or an object with init and apply, got {type(phi).__name__}."
        )

    def value(params: Params, transition: Transition, *inputs: Any) -> Float[Array, " batch"]:
        values = jnp.asarray(phi.apply(params, *inputs) if parametric else phi(*inputs))
        expected = jnp.shape(transition.mask)
        if values.shape != expected:
            raise ValueError(
                f"the potential must return shape [B] = {expected}, got {values.shape}; squeeze the extra axes."
            )
        return values.astype(jnp.asarray(transition.reward).dtype)

    return (phi.init if parametric else lambda *_: ()), value


def _label(phi: Any) -> str:
    return getattr(phi, "__name__", type(phi).__name__)
