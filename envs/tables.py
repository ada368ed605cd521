"""Rewards as arrays: every transition of a finite MDP scored at once."""

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from reward_design.core import Kind, Output, Reward, Transition
from reward_design.describe import missing_entry
from reward_design.envs.base import Tabular
from reward_design.envs.exact import is_traced

_CHUNK = 2**18
"""Transitions scored at a time, so that temporary arrays stay small."""


def reward_table(
    reward: Reward, tabular: Tabular, *, params: Any = None, key: Any = None
) -> Float[np.ndarray, "S A S"] | Float[Array, "S A S"]:
    """Score every transition of a finite MDP: R[s, a, s'] = reward(s, a, s').

    ``terminated`` is true where s' is terminal, the incoming ``reward`` is the environment's, and rows out of terminal
    states are 0. Transitions of probability 0 are scored like all others.

    Concrete calls are computed in float64 whatever ``jax_enable_x64`` says; parameters that are float32 are widened, so
    leave ``params`` out (the reward then initialises its own in float64) where exactness matters. To score many
    parameter values at once, ``jax.vmap(lambda p: reward_table(reward, tabular, params=p))(params)``.

    Args:
        reward: a reward of kind POINTWISE.
        tabular: the MDP, ``task.tabular()``.
        params: parameters of the reward; by default those that ``reward.init`` gives.
        key: random key for ``reward.init``, default ``jax.random.key(0)``.

    Returns:
        ``[S, A, S]``: NumPy float64, or a JAX array in its own dtype under a transformation.

    Raises:
        TypeError: if the reward depends on more than one transition.
        ValueError: if it reads what transitions of tables do not have, such as an entry of ``info``.

    Example:
        >>> import reward_design as rd
        >>> from reward_design.envs import task
        >>> model = task("chain").tabular()
        >>> bool((reward_table(rd.environment_reward(), model) == model.reward).all())
        True
    """
    return reward_output(reward, tabular, params=params, key=key).reward


def reward_output(reward: Reward, tabular: Tabular, *, params: Any = None, key: Any = None) -> Output:
    """Like :func:`reward_table`, with the named terms: an ``Output`` of ``[S, A, S]`` arrays."""
    _require_pointwise(reward)
    if is_traced(params, key):
        model = jax.lax.optimization_barrier(_arrays(tabular))  # or XLA would fold the whole table while compiling
        return _score(reward, params, jax.random.key(0) if key is None else key, model)
    with jax.ensure_compile_time_eval(), jax.enable_x64(True):  # at once, even while something else is being traced
        model = _arrays(tabular)
        try:
            output = _compiled(reward, _widen(params), jax.random.key(0) if key is None else key, model)
        except (KeyError, TypeError) as error:
            seen, no = model[0][:1], np.zeros(1, bool)
            raise missing_entry(reward, error, Transition(seen, no, seen, no, no, no, no)) from error
    return jax.tree.map(np.array, output)


def reward_tables(rewards: Mapping[str, Reward] | Iterable[Reward], tabular: Tabular) -> Float[np.ndarray, "M S A S"]:
    """Tables of many rewards, stacked in their order, for :func:`reward_design.distance.distance_matrix`.

    Args:
        rewards: rewards of kind POINTWISE, in a mapping or a sequence.
        tabular: the MDP.

    Returns:
        ``[M, S, A, S]`` in float64.

    Raises:
        TypeError: if a reward depends on more than one transition.
    """
    each = rewards.values() if isinstance(rewards, Mapping) else rewards
    return np.stack([np.asarray(reward_table(reward, tabular)) for reward in each])


def _require_pointwise(reward: Reward) -> None:
    if reward.kind is Kind.POINTWISE:
        return
    needs = "the past of the episode" if reward.kind is Kind.CAUSAL else "whole episodes"
    raise TypeError(
        f"{reward.name!r} has kind {reward.kind.name}: it depends on {needs}, so it has no table [S, A, S]. Give a "
        "reward of kind POINTWISE, or make what it remembers a part of the task's state."
    )


def _score(reward: Reward, params: Any, key: Any, model: tuple[Any, ...]) -> Output:
    """The output for all transitions, state by state in chunks."""
    observations, paid, terminal = model
    num_states, num_actions = paid.shape[:2]
    size = num_actions * num_states
    action, successor = (x.reshape(-1) for x in np.mgrid[:num_actions, :num_states].astype(np.int32))
    no, yes = np.zeros(size, bool), np.ones(size, bool)
    observations, paid, terminal = jnp.asarray(observations), jnp.asarray(paid), jnp.asarray(terminal)

    def transitions(state: Any) -> Transition:
        obs = jnp.broadcast_to(observations[state], (size, *observations.shape[1:]))
        return Transition(
            obs, jnp.asarray(action), observations[successor], paid[state].reshape(-1), terminal[successor],
            jnp.asarray(no), yes & ~terminal[state],
        )  # fmt: skip

    def row(state: Array) -> Output:
        return reward.step(values, reward_state, transitions(state))[0]  # pyright: ignore[reportOptionalCall]

    own, reward_state = reward.init(key, transitions(0))
    values = own if params is None else params
    batch_size = max(1, min(num_states, _CHUNK // size))
    output = jax.lax.map(row, np.arange(num_states, dtype=np.int32), batch_size=batch_size)
    return jax.tree.map(lambda x: x.reshape(num_states, num_actions, num_states), output)


def _arrays(tabular: Tabular) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Observations (integers as int32, as environments give them), rewards in the present precision, terminal flags.

    Copies: JAX remembers the device form of a NumPy array that it met under another precision.
    """
    seen, dtype = np.array(tabular.observations), jnp.result_type(float)
    seen = seen.astype(np.int32) if np.issubdtype(seen.dtype, np.integer) else seen
    return seen, np.array(tabular.reward, dtype), np.array(tabular.terminal)


_compiled = partial(jax.jit, static_argnames="reward")(_score)


def _widen(params: Any) -> Any:
    """Floating-point leaves as float64 NumPy arrays."""

    def widen(leaf: Any) -> Any:
        return np.asarray(leaf, np.float64) if jnp.issubdtype(jnp.result_type(leaf), jnp.floating) else leaf

    return jax.tree.map(widen, params)
