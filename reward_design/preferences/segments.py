"""What preferences compare: segments of experience, cut lane by lane from rollouts of any length."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from reward_design.core import Transition


class Segments(NamedTuple):
    """``N`` segments of up to ``T`` steps of one lane; no segment crosses the end of an episode.

    Attributes:
        inputs: ``[N, T, d]`` what a reward model reads of each step.
        quantities: ``[N, T, F]`` what a teacher reads of each step.
        length: ``[N]`` steps, 0 for a place that is still empty.
        ended: ``[N]`` whether the last step was terminal.
    """

    inputs: Float[Array, "*n time d"]
    quantities: Float[Array, "*n time f"]
    length: Int[Array, "*n"]
    ended: Bool[Array, "*n"]

    @property
    def mask(self) -> Bool[Array, "*n time"]:
        """True for the steps of each segment."""
        time = jnp.arange(self.inputs.shape[-2]).reshape((1,) * self.length.ndim + (-1,))
        return time < self.length[..., None]


def step_weights(
    length: Int[Array, "*n"], ended: Bool[Array, "*n"], time: int, *, absorbing: bool
) -> Float[Array, "*n time"]:
    """How often each step counts in a score: once, and with ``absorbing`` a terminal one for all that would follow.

    Args:
        length: steps of the segments.
        ended: whether the last one was terminal.
        time: steps of a full segment.
        absorbing: whether the end of an episode goes on; then all segments are equally long, but those that a time
            limit made short.
    """
    step = jnp.arange(time).reshape((1,) * length.ndim + (-1,))
    length, ended = length[..., None], ended[..., None]
    rest = jnp.where(ended & (step == length - 1), time - length, 0) if absorbing else 0
    return (step < length) * 1.0 + rest


class Store(NamedTuple):
    """The newest segments, and those that are under way.

    Attributes:
        closed: ``[capacity, ...]``, a ring.
        count: segments closed so far.
        under_way: ``[B, ...]`` one per lane.
        from_start: ``[B]`` whether it began with the episode.
    """

    closed: Segments
    count: Int[Array, ""]
    under_way: Segments
    from_start: Bool[Array, " lanes"]


def empty(num: int, length: int, num_inputs: int, num_quantities: int) -> Segments:
    """``num`` empty places."""
    inputs, quantities = (jnp.zeros((num, length, width)) for width in (num_inputs, num_quantities))
    return Segments(inputs, quantities, jnp.zeros(num, jnp.int32), jnp.zeros(num, bool))


def empty_store(capacity: int, num_lanes: int, length: int, num_inputs: int, num_quantities: int) -> Store:
    """A store without experience."""
    return Store(
        empty(capacity, length, num_inputs, num_quantities), jnp.int32(0),
        empty(num_lanes, length, num_inputs, num_quantities), jnp.ones(num_lanes, bool),
    )  # fmt: skip


def append(store: Store, inputs: Array, quantities: Array, trajectory: Transition) -> Store:
    """Go on with the segments under way, and put those that end into the ring.

    A segment ends when it is full or its episode ends. One that a time limit cut short is left out, because its length
    says nothing about the policy, unless it is a whole episode.

    Args:
        store: so far.
        inputs: ``[T, B, d]``.
        quantities: ``[T, B, F]``.
        trajectory: ``[T, B]``, for ``terminated``, ``truncated`` and ``mask``.

    Returns:
        The store with the rollout in it.
    """
    lanes, length = store.under_way.inputs.shape[:2]
    capacity = store.closed.length.shape[0]

    def step(store: Store, row: Any) -> tuple[Store, None]:
        x, q, terminated, truncated, mask = row
        at = (jnp.arange(lanes), jnp.where(mask, store.under_way.length, length))
        now = Segments(
            store.under_way.inputs.at[at].set(x, mode="drop"),
            store.under_way.quantities.at[at].set(q, mode="drop"),
            store.under_way.length + mask,
            terminated & mask,
        )
        full, done = now.length == length, (terminated | truncated) & mask
        ends = mask & (full | done)
        kept = ends & (full | terminated | store.from_start)
        place = jnp.where(kept, (store.count + jnp.cumsum(kept) - 1) % capacity, capacity)
        closed = jax.tree.map(lambda ring, new: ring.at[place].set(new, mode="drop"), store.closed, now)
        now = now._replace(length=jnp.where(ends, 0, now.length))
        from_start = jnp.where(ends, done, store.from_start)
        return Store(closed, store.count + kept.sum(dtype=jnp.int32), now, from_start), None

    flags = (jnp.asarray(x) for x in (trajectory.terminated, trajectory.truncated, trajectory.mask))
    return jax.lax.scan(step, store, (inputs, quantities, *flags))[0]


def take(segments: Segments, index: Int[Array, "*n"]) -> Segments:
    """Segments by their place."""
    return jax.tree.map(lambda x: x[index], segments)


def from_trajectory(inputs: Array, quantities: Array, trajectory: Transition, *, length: int) -> Segments:
    """All segments of recorded lanes ``[T, B]``, for learning from a data set.

    Args:
        inputs: ``[T, B, d]``.
        quantities: ``[T, B, F]``.
        trajectory: ``[T, B]``.
        length: steps of a segment.

    Returns:
        ``N`` segments, those under way at the end left out; outside jit.
    """
    time, lanes = jnp.shape(trajectory.mask)
    store = empty_store(time * lanes, lanes, length, inputs.shape[-1], quantities.shape[-1])
    store = append(store, inputs, quantities, trajectory)
    return jax.tree.map(lambda x: x[: int(store.count)], store.closed)
