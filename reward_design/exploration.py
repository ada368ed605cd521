"""Bonuses for going where the agent has seldom been."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from reward_design.constructors import from_step
from reward_design.core import Params, Reward, State, Transition


def count_bonus(
    *,
    scale: float | int = 1.0,
    index: Callable[[Any], Any] | None = None,
    num_bins: int | None = None,
    episodic: bool = False,
    add: bool = True,
) -> Reward:
    """Count-based exploration bonus: b_t = scale / √(n(s_{t+1}) + 1), added to the incoming reward.

    n(s) is how often s was entered *before* this step, so the "+ 1" counts the present visit and the first visit earns
    ``scale``. Lanes of one batch that enter the same state on the same step all see the same n. Masked rows are neither
    paid nor counted; the first observation of an episode is not counted, because nothing was done to enter it.

    A state is recognised by ``index(obs)``. Without it, a scalar integer observation is its own index and everything
    else (float arrays, integer arrays, dictionaries; all leaves joined) gets the SimHash code sgn(A·x), with A ~ N(0,
    1) of log2(num_bins) rows in params. Indices are taken modulo ``num_bins``, so states may collide.

    Keeps the optimal policy: no; the bonus of a fixed state vanishes with its visits (not with ``episodic=True``).

    Args:
        scale: bonus of a first visit, in units of reward; a param.
        index: ``obs -> [B]`` integers.
        num_bins: size of the table of counts; 16384 by default, 1024 for ``episodic`` (one table per lane).
        episodic: count per lane and episode instead of once for all lanes and for ever.
        add: False returns the bonus alone, for :func:`reward_design.weighted_sum`.

    Returns:
        A :class:`Reward` of kind ``CAUSAL`` with params ``{"scale", "projection"}``.

    Raises:
        ValueError: if ``num_bins`` is below 2; at trace time, if ``index`` does not return integers of shape ``[B]``.

    Example:
        >>> import jax, jax.numpy as jnp, reward_design as rd
        >>> t = rd.Transition(
        ...     obs=jnp.array([0, 0]), action=jnp.zeros(2), next_obs=jnp.array([3, 3]), reward=jnp.zeros(2),
        ...     terminated=jnp.zeros(2, bool), truncated=jnp.zeros(2, bool), mask=jnp.ones(2, bool))
        >>> bonus = rd.count_bonus()
        >>> params, state = bonus.init(jax.random.key(0), t)
        >>> first, state = bonus.step(params, state, t)
        >>> second, state = bonus.step(params, state, t)
        >>> [f"{output.reward[0]:.3f}" for output in (first, second)]
        ['1.000', '0.577']

    Source: Strehl, Littman, "An analysis of model-based Interval Estimation for Markov Decision Processes", JCSS 2008;
    Tang et al., "#Exploration: A Study of Count-Based Exploration for Deep Reinforcement Learning", 2017, arXiv
    1611.04717.
    """
    bins = num_bins if num_bins is not None else (1024 if episodic else 16384)
    if bins < 2:
        raise ValueError(f"num_bins must be at least 2, got {bins}.")

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        params = {"scale": jnp.asarray(scale, jnp.asarray(example.reward).dtype), "projection": ()}
        if index is None and not _is_index(example.obs):
            size = (math.ceil(math.log2(bins)), _features(example.obs).shape[1])
            params["projection"] = jax.random.normal(key, size)
        lanes = jnp.shape(example.mask) if episodic else ()
        counts = jnp.zeros((*lanes, bins), jnp.int32)
        return params, State(episode=counts) if episodic else State(running=counts)

    def step(params: Params, state: State, t: Transition) -> tuple[Any, State]:
        counts = state.episode if episodic else state.running
        bin_ = _bins(index, params["projection"], t, bins)
        where = (jnp.arange(bin_.shape[0]), bin_) if episodic else bin_
        seen = counts[where].astype(t.reward.dtype)
        bonus = params["scale"] / jnp.sqrt(seen + 1)
        counts = counts.at[where].add(t.mask.astype(jnp.int32))
        state = state._replace(episode=counts) if episodic else state._replace(running=counts)
        return ((t.reward + bonus, {"environment": t.reward, "count_bonus": bonus}) if add else bonus), state

    settings = {"scale": scale, "num_bins": bins, "episodic": episodic, "add": add}
    return from_step("count_bonus", init, step, settings=settings)


def _bins(index: Callable[[Any], Any] | None, projection: Any, t: Transition, bins: int) -> Int[Array, " batch"]:
    if index is not None:
        values = jnp.asarray(index(t.next_obs))
        if values.shape != t.mask.shape or not jnp.issubdtype(values.dtype, jnp.integer):
            raise ValueError(
                f"index must return integers of shape [B] = {t.mask.shape}, got {values.dtype} of shape {values.shape}."
            )
    elif _is_index(t.next_obs):
        (values,) = jax.tree.leaves(t.next_obs)
    else:
        bits = jnp.matmul(_features(t.next_obs), projection.T) > 0
        values = jnp.matmul(bits.astype(jnp.int32), 2 ** jnp.arange(bits.shape[1], dtype=jnp.int32))
    return (values % bins).astype(jnp.int32)


def _is_index(obs: PyTree) -> bool:
    leaves = jax.tree.leaves(obs)
    return len(leaves) == 1 and jnp.ndim(leaves[0]) == 1 and jnp.issubdtype(jnp.asarray(leaves[0]).dtype, jnp.integer)


def _features(obs: PyTree) -> Float[Array, "batch features"]:
    flat = [jnp.reshape(jnp.asarray(x), (jnp.shape(x)[0], -1)).astype(float) for x in jax.tree.leaves(obs)]
    return jnp.concatenate(flat, axis=1)
