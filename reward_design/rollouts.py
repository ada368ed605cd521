"""Random rollouts of any shape, with every kind of ending and mask, for checks and tests."""

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Int

from reward_design.core import Transition

TIME, LANES = 12, 3


def random_trajectory(example: Transition, *, seed: int = 0, time: int = TIME, lanes: int = LANES) -> Transition:
    """Random rollout of NumPy arrays ``[time, lanes, ...]`` with the leaves of ``example``.

    It contains terminations, truncations, both at once, and masked rows. Within an episode ``next_obs`` of a row is
    ``obs`` of the lane's next unmasked row. Floats are drawn around the values of ``example``, integers from 0 to the
    largest in ``example`` (at least 1).

    Args:
        example: a batched transition, leaves ``[B, ...]``.
        seed: of NumPy's generator.
        time: number of steps, at least 8.
        lanes: number of lanes, at least 3.

    Returns:
        A :class:`reward_design.Transition`; masked rows hold ordinary random values.

    Example:
        >>> import numpy as np, reward_design as rd
        >>> zeros, flags = np.zeros((1, 4)), np.zeros((3, 1), bool)
        >>> row = rd.Transition(zeros, np.zeros(1, int), zeros, np.zeros(1), *flags)
        >>> random_trajectory(row).obs.shape
        (12, 3, 4)
    """
    rng = np.random.default_rng(seed)
    drawn = jax.tree.map(lambda x: _draw(rng, np.asarray(x), time, lanes), example)
    terminated, truncated = rng.random((2, time, lanes)) < 0.15
    mask = rng.random((time, lanes)) < 0.8
    for row, lane, terminal, cut in [(1, 0, True, False), (2, 1, False, True), (3, 2, True, True), (6, 0, False, True)]:
        terminated[row, lane], truncated[row, lane], mask[row, lane] = terminal, cut, True
    mask[-3, 1], mask[-1, 0], terminated[-1, 0], truncated[-1, 0] = False, True, False, False
    made = drawn._replace(terminated=terminated, truncated=truncated, mask=mask)
    following = _next_rows(mask, terminated | truncated)
    lane = np.arange(lanes)[None, :]

    def successors(obs: np.ndarray, final: np.ndarray) -> np.ndarray:
        inside = (following < time).reshape(time, lanes, *[1] * (obs.ndim - 2))
        return np.where(inside, obs[np.minimum(following, time - 1), lane], final)

    return made._replace(next_obs=jax.tree.map(successors, made.obs, made.next_obs))


def with_garbage(trajectory: Transition) -> Transition:
    """The same rollout with NaN, largest integers and True in its masked rows (the mask itself is kept)."""
    mask = np.asarray(trajectory.mask)

    def spoil(x: Any) -> np.ndarray:
        x = np.asarray(x)
        if np.issubdtype(x.dtype, np.inexact):
            bad = np.asarray(np.nan, x.dtype)
        else:
            bad = np.asarray(True if x.dtype == bool else np.iinfo(x.dtype).max, x.dtype)
        return np.where(mask.reshape(mask.shape + (1,) * (x.ndim - mask.ndim)), x, bad)

    return jax.tree.map(spoil, trajectory)._replace(mask=mask)


def mixed(where: Bool[np.ndarray, "time batch"], on_true: Transition, on_false: Transition) -> Transition:
    """Rows of one rollout where ``where`` is True, of the other elsewhere."""
    pick = lambda a, b: np.where(where.reshape(where.shape + (1,) * (np.ndim(a) - 2)), a, b)  # noqa: E731
    return jax.tree.map(pick, on_true, on_false)


def at(trajectory: Transition, t: int) -> Transition:
    """Row ``t`` of a rollout, leaves ``[B, ...]``."""
    return jax.tree.map(lambda x: x[t], trajectory)


def episode_number(trajectory: Transition) -> Int[np.ndarray, "time batch"]:
    """How many episodes of the lane ended before each row."""
    ended = np.asarray(trajectory.mask) & (np.asarray(trajectory.terminated) | np.asarray(trajectory.truncated))
    return np.cumsum(ended, axis=0) - ended


def _draw(rng: np.random.Generator, values: np.ndarray, time: int, lanes: int) -> np.ndarray:
    shape = (time, lanes, *values.shape[1:])
    if values.dtype == bool:
        return rng.random(shape) < 0.5
    if np.issubdtype(values.dtype, np.integer):
        return rng.integers(0, max(1, int(values.max(initial=0))) + 1, shape).astype(values.dtype)
    rows = values[np.arange(lanes) % len(values)]
    return (rows[None] + rng.normal(size=shape)).astype(values.dtype)


def _next_rows(mask: np.ndarray, done: np.ndarray) -> np.ndarray:
    """Row of the lane's next transition within the episode; ``time`` where there is none."""
    time, lanes = mask.shape
    rows, following = np.full((time, lanes), time), np.full(lanes, time)
    for t in range(time - 1, -1, -1):
        rows[t] = np.where(done[t] & mask[t], time, following)
        following = np.where(mask[t], t, following)
    return rows
