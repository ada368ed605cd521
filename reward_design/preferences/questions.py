"""Which segments are compared: batches with free answers, or questions that are chosen, answered once and kept."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from reward_design.core import Params
from reward_design.preferences import segments
from reward_design.preferences.fitting import Batch, Fit
from reward_design.preferences.model import score
from reward_design.preferences.ranking import cycle_rate
from reward_design.preferences.segments import Segments, Store
from reward_design.preferences.teachers import Answer, Teacher

NUM_CYCLE_SEGMENTS = 48
"""Segments among which cycles are counted."""


class Asked(NamedTuple):
    """Pairs whose answers are kept, with copies of their segments.

    Attributes:
        inputs: ``[M, 2, T, d]``.
        length: ``[M, 2]``.
        ended: ``[M, 2]``.
        answer: fields ``[M]``.
        count: answers so far; places from there on are empty.
    """

    inputs: Float[Array, "pairs two time d"]
    length: Int[Array, "pairs two"]
    ended: Bool[Array, "pairs two"]
    answer: Answer
    count: Int[Array, ""]


def empty(num: int, length: int, num_inputs: int) -> Asked:
    """Room for ``num`` answers."""
    answer = Answer(jnp.full(num, 0.5), jnp.zeros(num), jnp.zeros(num, jnp.int32))
    inputs, two = jnp.zeros((num, 2, length, num_inputs)), (num, 2)
    return Asked(inputs, jnp.zeros(two, jnp.int32), jnp.zeros(two, bool), answer, jnp.int32(0))


def num_pairs(num_segments: int) -> int:
    """Pairs among so many segments."""
    return num_segments * (num_segments - 1) // 2


def places(count: Any, capacity: int, key: Any, num: int, *, every: int, held_out: bool) -> Int[Array, " num"]:
    """Random places of a ring, with replacement: every ``every``-th one, or any of the others.

    Args:
        count: of what was put into the ring.
        capacity: of the ring.
        key: random key.
        num: places to draw.
        every: at least 2.
        held_out: which of the two.
    """
    stored = jnp.minimum(count, capacity)
    size = stored // every if held_out else stored - stored // every
    pick = jnp.floor(jax.random.uniform(key, (num,)) * size).astype(jnp.int32)
    pick = jnp.minimum(pick, jnp.maximum(size - 1, 0))
    return pick * every + every - 1 if held_out else pick + pick // (every - 1)


def draw_free(
    teacher: Teacher, params: Params, units: Any, store: Store, key: Any, config: Any, *, held_out: bool
) -> Batch:
    """A batch of segments, all pairs of which the teacher answers."""
    draw_key, answer_key = jax.random.split(key)
    capacity = store.closed.length.shape[0]
    every, num = config.held_out_every, config.batch_segments
    drawn = segments.take(store.closed, places(store.count, capacity, draw_key, num, every=every, held_out=held_out))
    first, second = (jnp.asarray(i, jnp.int32) for i in np.triu_indices(num, 1))
    values = teacher.value(params, drawn.quantities, drawn.mask)
    answer = teacher.answer(params, units, answer_key, values[first], values[second])
    return Batch(drawn.inputs, drawn.length, drawn.ended, first, second, answer)


def draw_asked(asked: Asked, key: Any, config: Any, *, held_out: bool) -> Batch:
    """A batch of as many pairs with answers as ``batch_segments``."""
    num = config.batch_segments
    capacity = asked.length.shape[0]
    at = places(asked.count, capacity, key, num, every=config.held_out_every, held_out=held_out)
    both = (asked.inputs, asked.length, asked.ended)
    both = (jnp.swapaxes(x[at], 0, 1).reshape(2 * num, *x.shape[2:]) for x in both)
    return Batch(*both, jnp.arange(num), num + jnp.arange(num), jax.tree.map(lambda x: x[at], asked.answer))


def ask(
    fit: Fit, teacher: Teacher, params: Params, units: Any, store: Store, asked: Asked, key: Any, asks: Any
) -> Asked:
    """Choose ``num_questions`` pairs, have them answered, and keep them, as long as there is room.

    Args:
        fit: with the model, for choosing.
        teacher: who answers.
        params: of the reward.
        units: of the teacher.
        store: the segments.
        asked: so far.
        key: random key.
        asks: False leaves everything as it is.
    """
    config = fit.config
    draw_key, answer_key = jax.random.split(key)
    factor = 1 if config.selection == "uniform" else config.num_candidates
    stored = jnp.minimum(store.count, store.closed.length.shape[0])
    drawn = jax.random.uniform(draw_key, (2, config.num_questions * factor)) * stored
    pairs = jnp.minimum(drawn.astype(jnp.int32), jnp.maximum(stored - 1, 0))
    if config.selection != "uniform":
        pairs = pairs[:, most_informative(fit, params, store, pairs)]
    chosen = segments.take(store.closed, pairs.T)
    values = teacher.value(params, chosen.quantities, chosen.mask)
    answer = teacher.answer(params, units, answer_key, values[:, 0], values[:, 1])
    capacity = asked.length.shape[0]
    at = jnp.where(asks, asked.count + jnp.arange(config.num_questions), capacity)
    put = lambda old, new: old.at[at].set(new.astype(old.dtype), mode="drop")  # noqa: E731
    return Asked(
        put(asked.inputs, chosen.inputs), put(asked.length, chosen.length), put(asked.ended, chosen.ended),
        jax.tree.map(put, asked.answer, answer), jnp.minimum(asked.count + jnp.where(asks, config.num_questions, 0),
        capacity),
    )  # fmt: skip


def most_informative(fit: Fit, params: Params, store: Store, pairs: Int[Array, "two c"]) -> Int[Array, " num"]:
    """Indices of the ``num_questions`` candidates with the largest disagreement or entropy."""
    scores = jnp.stack([_scores(fit, params, segments.take(store.closed, index)) for index in pairs])
    probability = jax.nn.sigmoid(scores[0] - scores[1])
    return jax.lax.top_k(acquisition(probability, fit.config.selection), fit.config.num_questions)[1]


def acquisition(probability: Float[Array, "members c"], selection: str) -> Float[Array, " c"]:
    """How much an answer would tell: the members' standard deviation, or the entropy of their mean, in nats."""
    if selection == "disagreement":
        return probability.std(axis=0)
    mean = probability.mean(axis=0)
    return -(jax.scipy.special.xlogy(mean, mean) + jax.scipy.special.xlogy(1 - mean, 1 - mean))


def _scores(fit: Fit, params: Params, drawn: Segments) -> Float[Array, "members c"]:
    weights = segments.step_weights(drawn.length, drawn.ended, drawn.inputs.shape[1], absorbing=fit.model.absorbing)
    return score(fit.model.members(params, drawn.inputs), weights, fit.config.pool)


def cycles(teacher: Teacher, params: Params, units: Any, store: Store, key: Any, config: Any) -> Float[Array, ""]:
    """Share of cyclic triples among some of the stored segments."""
    capacity = store.closed.length.shape[0]
    num = min(NUM_CYCLE_SEGMENTS, config.num_calibration)
    # evenly spread and not drawn: the same segment twice would be no triple
    stored = jnp.minimum(store.count, capacity)
    shift = jax.random.uniform(key) * stored
    at = (jnp.floor(jnp.arange(num) * stored / num + shift).astype(jnp.int32)) % jnp.maximum(stored, 1)
    chosen = segments.take(store.closed, at)
    ranked, margins = teacher.rank(params, units, teacher.value(params, chosen.quantities, chosen.mask))
    return cycle_rate(ranked, margins=margins)
