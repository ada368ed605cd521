"""Experience replay on the device: raw transitions in a ring per lane, and windows of them drawn at random.

What is stored is what happened, never what it was worth: the reward of a row is computed when the row is sampled.
"""

import os
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from reward_design.core import Transition

GIB = 2**30


class Replay(NamedTuple):
    """A ring of ``capacity_steps`` transitions for each of ``B`` lanes.

    Attributes:
        rows: transitions ``[capacity_steps, B, ...]`` in the environment's dtypes; no mask, every row is experience.
        episode: the reward's ``State.episode`` before each row, ``[capacity_steps, B, ...]``; ``()`` if it has none.
        cursor: ``[B]`` where the next row goes.
        count: ``[B]`` rows held.
    """

    rows: Transition
    episode: Any
    cursor: Int[Array, " lanes"]
    count: Int[Array, " lanes"]


class Window(NamedTuple):
    """Consecutive transitions ``[n, M]`` of one episode each, from the replay.

    Attributes:
        rows: transitions ``[n, M, ...]``; ``mask`` is False after the episode's end or the newest row of the lane.
        episode: the reward's ``State.episode`` before each row, ``[n, M, ...]``.
        lane: ``[M]`` lane.
        last: ``[M]`` index of the last row of the window that counts.
    """

    rows: Transition
    episode: Any
    lane: Int[Array, " samples"]
    last: Int[Array, " samples"]


def empty(example: Transition, episode: Any, capacity_steps: int) -> Replay:
    """A replay without rows.

    Args:
        example: transition with leading axis ``B``, of the right shapes and dtypes.
        episode: ``State.episode`` of the reward, leaves ``[B, ...]``.
        capacity_steps: rows per lane.

    Returns:
        A :class:`Replay`.

    Raises:
        ValueError: if it does not fit into the memory of the machine.
    """
    rows = example._replace(mask=())
    check_memory(rows, episode, capacity_steps)
    lanes = example.reward.shape[0]
    make = lambda x: jnp.zeros((capacity_steps, *x.shape), x.dtype)  # noqa: E731
    none = lambda: jnp.zeros(lanes, jnp.int32)  # noqa: E731  (two arrays, so that both can be donated)
    return Replay(jax.tree.map(make, rows), jax.tree.map(make, episode), none(), none())


def check_memory(rows: Transition, episode: Any, copies: int = 1) -> None:
    """Refuse what does not fit into the memory of the machine.

    Args:
        rows: transitions, or their shapes.
        episode: the reward's state, or its shapes.
        copies: how often both are held.

    Raises:
        ValueError: telling what is needed.
    """
    held, remembered = (
        copies * sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(part)) for part in (rows, episode)
    )
    needed, available = held + remembered, _memory()
    if needed > available:
        raise ValueError(
            f"a replay of {copies * rows.reward.size:,} transitions needs {needed / GIB:.3g} GiB "
            f"({remembered / needed:.0%} of it episode state of the reward), the machine has {available / GIB:.3g} "
            "GiB; lower capacity, run fewer seeds at once, or use ppo."
        )


def places(replay: Replay, mask: Bool[Array, "time lanes"]) -> Int[Array, "time lanes"]:
    """Ring positions of the rows of a rollout; ``capacity_steps`` (nowhere) for masked ones.

    A rollout longer than the ring leaves its newest rows.
    """
    size = capacity_steps(replay)
    offset = jnp.cumsum(mask, axis=0) - 1
    kept = mask & (offset >= mask.sum(axis=0)[None] - size)
    return jnp.where(kept, (replay.cursor[None] + offset) % size, size).astype(jnp.int32)


def insert(replay: Replay, trajectory: Transition, episode: Any) -> Replay:
    """Append the rows of a rollout ``[T, B]``; masked ones are left out, so that a lane's rows are always consecutive.

    The cost does not depend on the capacity where the replay is donated to the jitted function.

    Args:
        replay: where to.
        trajectory: a rollout.
        episode: ``State.episode`` before each of its rows, ``[T, B, ...]``.

    Returns:
        The new replay.
    """
    mask = jnp.asarray(trajectory.mask)
    nowhere = capacity_steps(replay) + jnp.arange(mask.shape[0])[:, None]  # one for each row, so that none is twice
    at = places(replay, mask)
    at = jnp.where(at < capacity_steps(replay), at, nowhere)
    lane = jnp.broadcast_to(jnp.arange(mask.shape[1]), mask.shape)
    put = lambda into, x: into.at[at, lane].set(jnp.asarray(x, into.dtype), mode="drop", unique_indices=True)  # noqa: E731
    rows = trajectory._replace(mask=(), info={name: trajectory.info[name] for name in replay.rows.info})
    added = mask.sum(axis=0, dtype=jnp.int32)
    return Replay(
        rows=jax.tree.map(put, replay.rows, rows),
        episode=jax.tree.map(put, replay.episode, episode),
        cursor=(replay.cursor + added) % capacity_steps(replay),
        count=jnp.minimum(replay.count + added, capacity_steps(replay)),
    )


def draw(replay: Replay, key: Any, shape: tuple[int, ...]) -> Int[Array, "*shape"]:
    """Flat indices ``row * B + lane`` of rows, each as likely; 0 from an empty replay."""
    below = jnp.cumsum(replay.count)
    number = jax.random.randint(key, shape, 0, jnp.maximum(below[-1], 1))
    lane = jnp.searchsorted(below, number, side="right", method="compare_all").clip(max=len(below) - 1)
    age = number - (below - replay.count)[lane]
    row = (replay.cursor - replay.count)[lane] + age
    return row % capacity_steps(replay) * len(below) + lane


def windows(replay: Replay, index: Int[Array, " samples"], n: int) -> Window:
    """The ``n`` transitions from each index on, cut where the episode ends and at the newest row of the lane.

    An episode that was left unfinished (environments restarted by a resumed run) is cut where ``obs`` is not the
    ``next_obs`` of the row before.

    Args:
        replay: where from.
        index: flat indices, see :func:`draw`.
        n: length of the windows.

    Returns:
        A :class:`Window`.
    """
    size, lanes = capacity_steps(replay), replay.count.shape[0]
    row, lane = index // lanes, index % lanes
    step = jnp.arange(n)[:, None]
    flat = (row[None] + step) % size * lanes + lane[None]
    rows, episode = jax.tree.map(lambda x: x.reshape(size * lanes, *x.shape[2:])[flat], (replay.rows, replay.episode))
    newest = (replay.cursor[lane] - 1 - row) % size  # steps from the first row of the window to the newest of the lane
    mask = jnp.ones((n, index.shape[0]), bool)
    if n > 1:
        before, after = (jax.tree.map(lambda x, part=part: x[part], rows) for part in (slice(-1), slice(1, None)))
        goes_on = ~before.done & _same(before.next_obs, after.obs)
        mask = mask.at[1:].set(jnp.cumprod(goes_on, axis=0) > 0) & (step <= newest[None])
    return Window(rows._replace(mask=mask), episode, lane, mask.sum(axis=0) - 1)


def last_row(window: Window, leaves: Any) -> Any:
    """Of leaves ``[n, M, ...]`` those of the last row that counts, ``[M, ...]``."""
    return jax.tree.map(lambda x: x[window.last, jnp.arange(window.last.shape[0])], leaves)


def _same(a: Any, b: Any) -> Bool[Array, "time samples"]:
    """Where all leaves of two observations ``[n, M, ...]`` are equal."""
    parts = [
        (x == y).reshape(*x.shape[:2], -1).all(axis=-1) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True)
    ]
    return jnp.stack(parts).all(axis=0)


def capacity_steps(replay: Replay) -> int:
    """Rows per lane."""
    return replay.rows.reward.shape[0]


def _memory() -> float:
    """Bytes of the default device, or of the machine."""
    stats = jax.local_devices()[0].memory_stats() or {}
    if "bytes_limit" in stats:
        return float(stats["bytes_limit"])
    try:
        return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    except (AttributeError, ValueError, OSError):
        return float("inf")
