"""Parts shared by the control tasks and the adapters: weighted rewards, progress rewards, checks of settings."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

from reward_design._names import suggestion
from reward_design.constructors import pointwise
from reward_design.core import Reward, Transition

PerTransition = Callable[[Transition], Any]


def weighted(name: str, fn: PerTransition, weight: float = 1.0) -> Reward:
    """Reward r = w f(s, a, s'), with the weight in ``params``.

    Keeps the optimal policy: only if the events that ``fn`` pays for are the task's own.

    Args:
        name: name of the reward and of its term.
        fn: ``transition -> [B]``, float or bool.
        weight: initial value of ``params["weight"]``.

    Returns:
        A reward of kind ``POINTWISE``.

    Example:
        >>> from reward_design.envs.control import weighted
        >>> weighted("goal", lambda t: t.terminated, 2.0).settings["weight"]
        2.0
    """
    return pointwise(
        name,
        lambda params, transition: params["weight"] * fn(transition),
        params={"weight": weight},
        settings={"weight": weight},
    )


def no_reward() -> Reward:
    """Auxiliary reward r = 0: the condition in which a study gives no heuristic.

    Keeps the optimal policy: yes.

    Returns:
        A reward of kind ``POINTWISE``.

    Example:
        >>> from reward_design.envs.control import no_reward
        >>> no_reward().name
        'none'
    """
    return pointwise("none", lambda transition: jnp.zeros(jnp.shape(transition.terminated), jnp.float32))


def progress(
    potential: Callable[[Any], Any], event: PerTransition, *, weight: float, bonus: float, step_cost: float
) -> Reward:
    """Hand-made dense reward r = w (φ(s') − φ(s)) + b event − c: gain of potential, a bonus, a cost per step.

    The gain has no discount and keeps φ of the last state, so that its sum over an episode is φ(s_N) − φ(s_0): walking
    in circles earns nothing.

    Keeps the optimal policy: only if the bonus and the cost per step outweigh w (φ(s_N) − φ(s_0)).

    Args:
        potential: ``obs -> [B]``.
        event: ``transition -> [B]`` bool, the transition that earns the bonus.
        weight: price of one unit of potential.
        bonus: paid on the event.
        step_cost: paid (taken) on every step.

    Returns:
        A reward of kind ``POINTWISE`` with the terms ``progress``, ``event`` and ``step_cost``.
    """
    values = {"weight": weight, "bonus": bonus, "step_cost": step_cost}

    def fn(params: Any, transition: Transition) -> Any:
        terms = {
            "progress": params["weight"] * (potential(transition.next_obs) - potential(transition.obs)),
            "event": params["bonus"] * event(transition),
            "step_cost": jnp.broadcast_to(-params["step_cost"], jnp.shape(transition.terminated)),
        }
        return terms["progress"] + terms["event"] + terms["step_cost"], terms

    return pointwise("dense", fn, params=values, settings=values)


def check_settings(name: str, *, horizon: int, gamma: float) -> None:
    """Refuse an impossible time limit or discount.

    Raises:
        ValueError: if ``horizon`` is not a positive integer, or ``gamma`` not in [0, 1].
    """
    if isinstance(horizon, bool) or not isinstance(horizon, int) or horizon < 1:
        raise ValueError(f"{name}: horizon must be a positive integer, got {horizon!r}.")
    if not 0.0 <= gamma <= 1.0:
        raise ValueError(f"{name}: gamma must be in [0, 1], got {gamma!r}.")


def check_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a name that does not exist, and offer the nearest one.

    Raises:
        ValueError: if ``name`` is not among ``known``.
    """
    names = sorted(known)
    if name not in names:
        raise ValueError(f"unknown {what} {name!r}{suggestion(name, names, cutoff=0.0)}")


def strongly_typed(tree: Any) -> Any:
    """Leaves as arrays without JAX's weak types, so that ``reset`` and ``step`` agree and nothing compiles twice."""

    def strong(leaf: Any) -> Any:
        leaf = jnp.asarray(leaf)
        key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return leaf if key else jax.lax.convert_element_type(leaf, leaf.dtype)

    return jax.tree.map(strong, tree)
