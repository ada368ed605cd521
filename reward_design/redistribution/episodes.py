"""Finished episodes, kept on the device for estimators to learn from: rows in a ring per lane, and a list of episodes.

The list is a ring as well, oldest episodes first out. An episode whose rows have been written over since is no longer
drawn; one that is longer than ``max_length`` is not kept, because a silently shortened one would get a wrong label.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from reward_design.agents import replay
from reward_design.core import Transition


class Episodes(NamedTuple):
    """``N`` finished episodes of ``B`` lanes, and the ones under way.

    Attributes:
        rows: the transitions of the lanes.
        written: ``[B]`` rows written so far.
        lane: ``[N]`` lane of each episode.
        start: ``[N]`` rows that the lane had before it.
        length: ``[N]`` its rows.
        total: ``[N]`` its return.
        count: episodes that ended and were kept so far.
        skipped: episodes that were too long.
        open_total: ``[B]`` return of the episode under way.
        open_length: ``[B]`` its rows.
    """

    rows: replay.Replay
    written: Int[Array, " lanes"]
    lane: Int[Array, " episodes"]
    start: Int[Array, " episodes"]
    length: Int[Array, " episodes"]
    total: Float[Array, " episodes"]
    count: Int[Array, ""]
    skipped: Int[Array, ""]
    open_total: Float[Array, " lanes"]
    open_length: Int[Array, " lanes"]


class Batch(NamedTuple):
    """Drawn episodes, or some of their steps.

    Attributes:
        rows: transitions ``[T, M, ...]``; ``mask`` is False after the end of an episode.
        length: ``[M]`` steps of each episode.
        total: ``[M]`` its return.
        weight: ``[M]`` 1, or 0 for an episode that is no longer there.
    """

    rows: Transition
    length: Int[Array, " samples"]
    total: Float[Array, " samples"]
    weight: Float[Array, " samples"]


def empty(example: Transition, *, capacity: int, max_length: int) -> Episodes:
    """No episodes.

    Args:
        example: transition with leading axis ``B``.
        capacity: episodes N.
        max_length: rows of the longest episode; there is room for ``capacity`` of them, and for those under way.

    Returns:
        An :class:`Episodes`.
    """
    lanes = example.reward.shape[0]
    per_lane = (-(-capacity // lanes) + 1) * max_length
    zeros = lambda n: jnp.zeros(n, jnp.int32)  # noqa: E731
    return Episodes(
        rows=replay.empty(example, (), per_lane),
        written=zeros(lanes),
        lane=zeros(capacity),
        start=zeros(capacity),
        length=zeros(capacity),
        total=jnp.zeros(capacity),
        count=jnp.int32(0),
        skipped=jnp.int32(0),
        open_total=jnp.zeros(lanes),
        open_length=zeros(lanes),
    )


def insert(episodes: Episodes, trajectory: Transition, *, max_length: int, truncated: bool = True) -> Episodes:
    """Append a rollout ``[T, B]``; lanes go on where the one before stopped, or start anew where it does not fit on.

    Args:
        episodes: where to.
        trajectory: a rollout; masked rows are left out.
        max_length: longest episode that is kept.
        truncated: whether episodes that a time limit cut are kept: whether their return is known.

    Returns:
        The new episodes.
    """
    mask, done = jnp.asarray(trajectory.mask), trajectory.done
    goes_on = _goes_on(episodes, trajectory)
    opened = (jnp.where(goes_on, episodes.open_total, 0), jnp.where(goes_on, episodes.open_length, 0))

    def step(carry: Any, row: Any) -> tuple[Any, Any]:
        reward, mask, ended = row
        total, length = carry[0] + jnp.where(mask, reward, 0), carry[1] + mask
        return (jnp.where(ended, 0, total), jnp.where(ended, 0, length)), (total, length)

    reward = jnp.asarray(trajectory.reward, jnp.float32)
    opened, (total, length) = jax.lax.scan(step, opened, (reward, mask, mask & done))
    ended = mask & done & (jnp.asarray(trajectory.terminated) | truncated)
    kept = ended & (length <= max_length)
    start = episodes.written[None] + jnp.cumsum(mask, axis=0) - length
    made = _listed(episodes, kept, start, length, total)
    return made._replace(
        rows=replay.insert(episodes.rows, trajectory, ()),
        written=episodes.written + mask.sum(axis=0, dtype=jnp.int32),
        skipped=episodes.skipped + jnp.sum(ended & ~kept),
        open_total=opened[0],
        open_length=opened[1],
    )


def present(episodes: Episodes) -> Bool[Array, " episodes"]:
    """Which entries of the list hold an episode whose rows are still there."""
    number = jnp.arange(episodes.lane.shape[0])
    oldest = episodes.written[episodes.lane] - replay.capacity_steps(episodes.rows)
    return (number < episodes.count) & (episodes.start >= oldest)


def read(episodes: Episodes, index: Int[Array, " samples"], offset: Int[Array, "time samples"]) -> Batch:
    """The steps ``offset`` of the episodes ``index``.

    Args:
        episodes: where from.
        index: entries of the list.
        offset: steps of each; those at or after the end of the episode are masked.

    Returns:
        A :class:`Batch`.
    """
    lane, length = episodes.lane[index], episodes.length[index]
    size, lanes = replay.capacity_steps(episodes.rows), episodes.written.shape[0]
    flat = (episodes.start[index][None] + offset) % size * lanes + lane[None]
    rows = jax.tree.map(lambda x: x.reshape(size * lanes, *x.shape[2:])[flat], episodes.rows.rows)
    weight = present(episodes)[index].astype(jnp.float32)
    mask = (offset < length[None]) & (weight > 0)[None]
    return Batch(rows._replace(mask=mask), length, episodes.total[index], weight)


def whole(episodes: Episodes, index: Int[Array, " samples"], max_length: int) -> Batch:
    """All steps of the episodes ``index``, ``[max_length, M]``."""
    offset = jnp.broadcast_to(jnp.arange(max_length)[:, None], (max_length, index.shape[0]))
    return read(episodes, index, offset)


def _listed(episodes: Episodes, kept: Any, start: Any, length: Any, total: Any) -> Episodes:
    """The list with the episodes that ended, in the order in which they did; of too many the newest."""
    size = episodes.lane.shape[0]
    flat = kept.ravel()
    offset = jnp.cumsum(flat) - 1
    new = flat.sum(dtype=jnp.int32)
    at = jnp.where(flat & (offset >= new - size), (episodes.count + offset) % size, size)
    put = lambda into, x: into.at[at].set(x.ravel().astype(into.dtype), mode="drop")  # noqa: E731
    lane = jnp.broadcast_to(jnp.arange(kept.shape[1]), kept.shape)
    fields = {"lane": lane, "start": start, "length": length, "total": total}
    made = {name: put(getattr(episodes, name), values) for name, values in fields.items()}
    return episodes._replace(count=episodes.count + new, **made)


def _goes_on(episodes: Episodes, trajectory: Transition) -> Bool[Array, " lanes"]:
    """Lanes whose first observation is the successor of the last row; others were started anew in between."""
    lanes = jnp.arange(episodes.written.shape[0])
    last = (episodes.rows.cursor - 1) % replay.capacity_steps(episodes.rows)
    before = jax.tree.map(lambda x: x[last, lanes], episodes.rows.rows.next_obs)
    first = jnp.argmax(jnp.asarray(trajectory.mask), axis=0)
    after = jax.tree.map(lambda x: jnp.asarray(x)[first, lanes], trajectory.obs)
    same = partial(jax.tree.map, lambda a, b: (a == b).reshape(a.shape[0], -1).all(axis=1))
    return jnp.stack(jax.tree.leaves(same(before, after))).all(axis=0)
