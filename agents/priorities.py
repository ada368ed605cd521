"""Proportional prioritisation: a tree of sums over the rows of a replay, on the device.

Source: Schaul, Quan, Antonoglou and Silver, "Prioritized Experience Replay", 2015, arXiv:1511.05952.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

FAN = 32
"""Children of a node: four levels hold a million rows, and one level is one gather of 32 numbers per sample."""


class Priorities(NamedTuple):
    """Priorities of rows and their sums.

    Attributes:
        levels: ``levels[0]`` has a priority per row (padded with 0), ``levels[k + 1]`` the sums over 32 neighbours of
            ``levels[k]``, down to at most 32 numbers.
        highest: the highest priority so far, which new rows get.
    """

    levels: tuple[Float[Array, " nodes"], ...]
    highest: Float[Array, ""]


def empty(size: int) -> Priorities:
    """Priority 0 for ``size`` rows."""
    levels = [_padded(size)]
    while levels[-1] > FAN:
        levels.append(_padded(levels[-1] // FAN))
    return Priorities(tuple(jnp.zeros(n) for n in levels), jnp.float32(1.0))


def assign(
    priorities: Priorities, index: Int[Array, " rows"], priority: Float[Array, " rows"] | Float[Array, ""]
) -> Priorities:
    """Set the priorities of rows and add up again what depends on them; indices beyond the end are left out.

    Sums are made from their parts each time, so they do not drift. Where a row occurs twice, one of its values counts.
    """
    levels = [priorities.levels[0].at[index].set(priority, mode="drop")]
    for level in priorities.levels[1:]:
        inside = index < levels[-1].size
        index = jnp.where(inside, index // FAN, level.size)
        sums = levels[-1].reshape(-1, FAN)[jnp.where(inside, index, 0)].sum(axis=1)
        levels.append(level.at[index].set(sums, mode="drop"))
    return Priorities(tuple(levels), jnp.maximum(priorities.highest, jnp.max(priority)))


def draw(
    priorities: Priorities, uniform: Float[Array, " samples"]
) -> tuple[Int[Array, " samples"], Float[Array, " samples"]]:
    """Rows in proportion to their priorities, one from each of M equal parts of the total.

    Args:
        priorities: a tree with some positive priority.
        uniform: ``[M]`` random numbers in [0, 1).

    Returns:
        Indices and probabilities P(i) = p_i / Σ p.
    """
    samples = uniform.shape[0]
    total = priorities.levels[-1].sum()
    rest = (jnp.arange(samples) + uniform) / samples * total
    node = jnp.zeros(samples, jnp.int32)
    for level in reversed(priorities.levels):
        parts = level.reshape(-1, FAN)[node]
        below = jnp.cumsum(parts, axis=1)
        hit = (below > rest[:, None]) & (parts > 0)
        last = FAN - 1 - jnp.argmax(parts[:, ::-1] > 0, axis=1)  # where rounding carries past the end
        child = jnp.where(hit.any(axis=1), jnp.argmax(hit, axis=1), last)
        rest = rest - (_pick(below, child) - _pick(parts, child))
        node = node * FAN + child
    return node, priorities.levels[0][node] / total


def importance(probability: Float[Array, " samples"], size: Any, beta: Any) -> Float[Array, " samples"]:
    """Importance weights w_i = (N · P(i))^-β, divided by the largest of the batch.

    Args:
        probability: P(i) of each sample.
        size: N, rows that could have been drawn.
        beta: β in [0, 1]; 1 removes the bias of prioritised sampling.

    Returns:
        Weights in (0, 1].
    """
    weight = (size * jnp.maximum(probability, 1e-12)) ** -beta
    return weight / weight.max()


def _padded(size: int) -> int:
    return -(-size // FAN) * FAN


def _pick(values: Array, child: Array) -> Array:
    return jnp.take_along_axis(values, child[:, None], axis=1)[:, 0]
