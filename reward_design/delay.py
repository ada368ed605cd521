"""Pay a reward at the end of the episode; the way to use a reward for whole episodes step by step."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from reward_design.constructors import from_step
from reward_design.core import Kind, Output, Params, Reward, State, Transition, select_lanes


def delayed(reward: Reward, *, max_length: int | None = None) -> Reward:
    """Pay the sum over the episode when the episode ends: r'_t = [t = N] · Σ_{k≤N} r_k, N terminated or truncated.

    A reward of kind POINTWISE or CAUSAL is added up in the episode state. A reward of kind TRAJECTORY is given the
    whole recorded episode when it ends, from a buffer per lane; its ``running`` state then only learns from finished
    episodes.

    Keeps the optimal policy: only if gamma is 1 (the sum is paid later, so a discounting agent values it differently).

    Args:
        reward: the reward to be delayed; its terms are called ``delayed/<term>``.
        max_length: longest possible episode in steps, needed for kind TRAJECTORY. A longer episode is paid NaN, which
            the agents report as a fault, because a silently shortened one would be scored wrongly.

    Returns:
        A :class:`Reward` of kind ``CAUSAL``.

    Raises:
        ValueError: if ``max_length`` is missing for kind TRAJECTORY, or below 1.
        TypeError: if ``reward`` is not a :class:`Reward`.

    Example:
        >>> import reward_design as rd
        >>> rd.delayed(rd.environment_reward()).kind.name
        'CAUSAL'
    """
    if not isinstance(reward, Reward):
        raise TypeError(
            f"delayed expects a Reward, got {type(reward).__name__}; wrap a function in pointwise(name, fn)."
        )
    if max_length is not None and max_length < 1:
        raise ValueError(f"max_length must be at least 1, got {max_length}.")
    if reward.kind is not Kind.TRAJECTORY:
        init, step = _accumulated(reward)
    elif max_length is None:
        raise ValueError(
            f"delayed: {reward.name!r} needs whole episodes (kind TRAJECTORY), "
            "so max_length (longest episode in steps) must be given."
        )
    else:
        init, step = _buffered(reward, max_length)
    settings = {} if max_length is None else {"max_length": max_length}
    made = from_step("delayed", init, step, settings=settings, children={reward.name: reward})
    rebuild = lambda parts: delayed(*parts.values(), max_length=max_length)  # noqa: E731
    return dataclasses.replace(made, with_children=rebuild, learner=reward.learner)


def _accumulated(reward: Reward) -> tuple[Any, Any]:
    def init(key: Any, example: Transition) -> tuple[Params, State]:
        params, inner = reward.init(key, example)
        output, _ = jax.eval_shape(reward.step, params, inner, example)
        total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), output)
        return params, State((inner.episode, total), inner.running, (inner.fresh, total))

    def step(params: Params, state: State, transition: Transition) -> tuple[Any, State]:
        inner, total = state.episode
        output, inner = reward.step(params, State(inner, state.running, state.fresh[0]), transition)
        total = jax.tree.map(jnp.add, total, output)
        return _paid(total, transition.done), State((inner.episode, total), inner.running, state.fresh)

    return init, step


def _buffered(reward: Reward, max_length: int) -> tuple[Any, Any]:
    def init(key: Any, example: Transition) -> tuple[Params, State]:
        params, inner = reward.init(key, example)
        make = lambda x: jnp.zeros((jnp.shape(x)[0], max_length, *jnp.shape(x)[1:]), jnp.asarray(x).dtype)  # noqa: E731
        episode = (jax.tree.map(make, example), jnp.zeros(jnp.shape(example.mask), jnp.int32))
        return params, State((inner.episode, *episode), inner.running, (inner.fresh, *episode))

    def step(params: Params, state: State, transition: Transition) -> tuple[Any, State]:
        inner, buffer, length = state.episode
        lanes = jnp.arange(length.shape[0])
        put = lambda into, x: into.at[lanes, length].set(x, mode="drop")  # noqa: E731
        buffer, length = jax.tree.map(put, buffer, transition), length + 1
        ended = transition.done & transition.mask
        start = State(state.fresh[0], state.running, state.fresh[0])
        total, running = _scored_episodes(reward, params, start, buffer, length, ended)
        total = jax.tree.map(lambda x: jnp.where(length > max_length, jnp.nan, x), total)
        return _paid(total, ended), State((inner, buffer, length), running, state.fresh)

    return init, step


def _scored_episodes(
    reward: Reward, params: Params, start: State, buffer: Transition, length: Array, ended: Bool[Array, " batch"]
) -> tuple[Output, Any]:
    """Sums over the buffered episodes of the lanes that ended, and the running state after them."""
    swapped = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), buffer)
    rows = jnp.arange(swapped.mask.shape[0])[:, None] < length[None, :]
    episodes = swapped._replace(mask=rows & ended[None, :])

    def score() -> tuple[Output, Any]:
        output, state = reward.unroll(params, start, episodes)
        return jax.tree.map(lambda x: x.sum(axis=0), output), state.running

    shapes, _ = jax.eval_shape(score)
    nothing = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.cond(ended.any(), score, lambda: (nothing, start.running))


def _paid(total: Output, ended: Bool[Array, " batch"]) -> tuple[Array, Mapping[str, Array]]:
    paid = select_lanes(ended, total, jax.tree.map(jnp.zeros_like, total))
    return paid.reward, {f"delayed/{name}": value for name, value in paid.terms.items()}
