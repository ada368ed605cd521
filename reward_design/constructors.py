"""The three ways to make a reward: of one transition, step by step with memory, or of whole episodes."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, PyTree

from reward_design.core import ApplyFn, Kind, Output, Params, Reward, State, Transition, as_state, guard


def pointwise(
    name: str,
    fn: Callable[..., Any],
    *,
    params: Params | Callable[[Any, Transition], Params] = (),
    settings: Mapping[str, Any] | None = None,
    children: Mapping[str, Reward] | None = None,
) -> Reward:
    """Reward that depends on the transition alone: r_t = f(params, s_t, a_t, s_{t+1}).

    In ``unroll`` time is folded into the batch, so ``fn`` only ever sees leaves ``[B, ...]``.

    Args:
        name: name of the reward and of its term.
        fn: ``fn(transition)`` or ``fn(params, transition)``, returning ``[B]`` or ``([B], {term: [B]})``.
        params: pytree of initial values, or ``(key, example) -> params``. Whatever someone may want to sweep, train or
            differentiate belongs here and not in a closure.
        settings: shown by :func:`reward_design.describe`.
        children: parts shown by :func:`reward_design.describe`.

    Returns:
        A :class:`Reward` of kind ``POINTWISE``.

    Raises:
        ValueError: at trace time, if ``fn`` returns another shape than ``[B]``.
        TypeError: at trace time, if ``fn`` returns values that are not floating point.

    Example:
        >>> import jax, jax.numpy as jnp, reward_design as rd
        >>> energy = rd.pointwise("energy", lambda p, t: -p["w"] * jnp.sum(t.action**2, -1), params={"w": 0.1})
        >>> batch = rd.Transition(
        ...     obs=jnp.zeros((2, 3)), action=jnp.ones((2, 4)), next_obs=jnp.zeros((2, 3)), reward=jnp.zeros(2),
        ...     terminated=jnp.zeros(2, bool), truncated=jnp.zeros(2, bool), mask=jnp.array([True, False]))
        >>> params, state = energy.init(jax.random.key(0), batch)
        >>> output, state = energy.step(params, state, batch)
        >>> [f"{r:.1f}" for r in output.reward]
        ['-0.4', '0.0']
    """
    call = fn if _num_positional(fn) >= 2 else lambda params, transition: fn(transition)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        values = params(key, example) if callable(params) else params
        return strong_types(values), as_state(State())

    def step(params: Params, state: State, transition: Transition) -> tuple[Any, State]:
        return call(params, transition), state

    guarded = guard(name, step)

    def unroll(params: Params, state: State, trajectory: Transition) -> tuple[Output, State]:
        time, batch = jnp.shape(trajectory.mask)
        flat = jax.tree.map(lambda x: jnp.reshape(x, (time * batch, *jnp.shape(x)[2:])), trajectory)
        output, state = guarded(params, state, flat)
        return jax.tree.map(lambda x: x.reshape(time, batch), output), state

    return Reward(name, Kind.POINTWISE, init, guarded, unroll, settings or {}, children or {})


def from_step(
    name: str,
    init: Callable[[Any, Transition], tuple[Params, Any]],
    step: Callable[[Params, Any, Transition], tuple[Any, Any]],
    *,
    kind: Kind = Kind.CAUSAL,
    settings: Mapping[str, Any] | None = None,
    children: Mapping[str, Reward] | None = None,
) -> Reward:
    """Reward with memory, written as one step; ``unroll`` is ``lax.scan`` of it.

    The episode protocol is not the author's business: masked rows leave the lane's ``episode`` state untouched and earn
    0, ended lanes get ``fresh`` back. Updates of ``running`` must weigh rows by ``transition.mask``, and a step scores
    with ``running`` as it was *before* the step, so that :func:`reward_design.freeze_running` is exact.

    Args:
        name: name of the reward and of its term.
        init: ``(key, example) -> (params, State(episode=..., running=...))``; ``fresh`` defaults to ``episode``.
        step: ``(params, state, transition) -> ([B] | ([B], terms), state)``.
        kind: ``CAUSAL``, or ``POINTWISE`` where the state only carries parts that are pointwise.
        settings: shown by :func:`reward_design.describe`.
        children: parts shown by :func:`reward_design.describe`.

    Returns:
        A :class:`Reward`.

    Example:
        >>> import jax.numpy as jnp, reward_design as rd
        >>> def init(key, example):
        ...     return (), rd.State(episode=jnp.zeros_like(example.reward))
        >>> def step(params, state, t):
        ...     return -state.episode, state._replace(episode=state.episode + 1)
        >>> rd.from_step("time_penalty", init, step).kind.name
        'CAUSAL'
    """

    def init_state(key: Any, example: Transition) -> tuple[Params, State]:
        params, state = init(key, example)
        return strong_types(params), strong_types(as_state(state))

    guarded = guard(name, step)
    return Reward(name, kind, init_state, guarded, scan_step(guarded), settings or {}, children or {})


def from_trajectory(
    name: str,
    init: Callable[[Any, Transition], tuple[Params, Any]],
    unroll: Callable[[Params, Any, Transition], tuple[Any, Any]],
    *,
    settings: Mapping[str, Any] | None = None,
    children: Mapping[str, Reward] | None = None,
) -> Reward:
    """Reward that needs whole episodes. Wrap it in :func:`reward_design.delayed` to use it step by step.

    Args:
        name: name of the reward and of its term.
        init: ``(key, example) -> (params, state)``; ``example`` has leading axis ``B``.
        unroll: ``(params, state, trajectory) -> ([T, B] | ([T, B], terms), state)``.
        settings: shown by :func:`reward_design.describe`.
        children: parts shown by :func:`reward_design.describe`.

    Returns:
        A :class:`Reward` of kind ``TRAJECTORY``.
    """

    def init_state(key: Any, example: Transition) -> tuple[Params, State]:
        params, state = init(key, example)
        return strong_types(params), strong_types(as_state(state))

    return Reward(name, Kind.TRAJECTORY, init_state, None, guard(name, unroll), settings or {}, children or {})


def scan_step(step: ApplyFn) -> ApplyFn:
    """``unroll`` of a guarded ``step`` by ``lax.scan`` over the time axis."""

    def unroll(params: Params, state: State, trajectory: Transition) -> tuple[Output, State]:
        def body(carry: State, transition: Transition) -> tuple[State, Output]:
            output, carry = step(params, carry, transition)
            return carry, output

        state, output = jax.lax.scan(body, state, trajectory)
        return output, state

    return unroll


def strong_types(tree: PyTree) -> PyTree:
    """Every leaf as an array without a weak type, so that a value and its update have one type and one compilation."""

    def strong(x: Any) -> Array:
        x = jnp.asarray(x)
        return jax.lax.convert_element_type(x, x.dtype) if x.weak_type else x

    return jax.tree.map(strong, tree)


def checked_gamma(gamma: float | int, name: str = "gamma") -> float:
    """The discount as a plain float in [0, 1].

    Raises:
        ValueError: if it is outside [0, 1], under the ``name`` of the argument.
        TypeError: if it is no number.
    """
    try:
        fits = 0.0 <= gamma <= 1.0
    except TypeError:
        raise TypeError(f"{name} must be a number in [0, 1], got {gamma!r}.") from None
    if not fits:
        raise ValueError(f"{name} must be in [0, 1], got {gamma}.")
    return float(gamma)


def _num_positional(fn: Callable[..., Any]) -> int:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(fn).parameters.values()
    return sum(p.kind in kinds and p.default is p.empty for p in parameters)
