"""What an episode is owed: contributions made to add up to its return, and the shares of episodes in a rollout."""

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Num

from reward_design.agents.settings import one_of

CORRECTIONS = ("none", "equal", "last")
Correction = Literal["none", "equal", "last"]


class _Setting(NamedTuple):
    correction: str


def check_correction(correction: str) -> None:
    """Refuse a correction that there is not.

    Raises:
        ValueError: with the nearest one.
    """
    one_of(_Setting(correction), "correction", CORRECTIONS)


def correct_return(
    contributions: Num[Array | np.ndarray, "time batch"],
    returns: Num[Array | np.ndarray, " batch"],
    mask: Bool[Array | np.ndarray, "time batch"],
    *,
    correction: str,
) -> Float[Array, "time batch"]:
    """Contributions of whole episodes that add up to their returns.

    With the error e = R - Σ_t c_t of an episode of T steps: ``"equal"`` gives c_t + e / T, ``"last"`` adds e to the
    last step alone, ``"none"`` leaves the error. Nothing is divided by Σ_t c_t, so contributions of any sign will do.
    What rounding leaves of the error goes to the last step as well, so that sums are exact to the precision of one
    contribution, for episodes of any length.

    Args:
        contributions: c_t, one episode in each column; padding may hold anything.
        returns: R of each episode; of a column that is all padding, anything.
        mask: True for the steps of the episode, False for padding.
        correction: ``"none"``, ``"equal"`` or ``"last"``.

    Returns:
        Corrected contributions, 0 in padding; floating point, of integers too.

    Raises:
        ValueError: for another correction, shapes that do not belong together, or (outside jit) a return or a
            contribution that is not finite.

    Example:
        >>> import jax.numpy as jnp
        >>> c, mask = jnp.array([[0.4], [-0.1], [0.5]]), jnp.ones((3, 1), bool)
        >>> tuple(f"{x:.1f}" for x in correct_return(c, jnp.array([1.0]), mask, correction="last")[:, 0])
        ('0.4', '-0.1', '0.7')

    Source: the error in equal parts is the minimum-norm correction; in the last step it is the residual that Liu et
    al., "Sequence Modeling of Temporal Credit Assignment for Episodic Reinforcement Learning", 2019, arXiv:1905.13420,
    keep so that the policy gradient stays unbiased.
    """
    check_correction(correction)
    contributions, returns, mask = jnp.asarray(contributions), jnp.asarray(returns), jnp.asarray(mask, bool)
    if contributions.shape != mask.shape or returns.shape != mask.shape[1:]:
        raise ValueError(
            "contributions and mask must have one shape [T, B] and returns [B], got "
            f"{contributions.shape}, {mask.shape} and {returns.shape}."
        )
    returns = returns if isinstance(mask, Tracer) else jnp.where(mask.any(axis=0), returns, 0)
    if not isinstance(returns, Tracer) and not np.isfinite(returns).all():
        raise ValueError("returns must be finite, got NaN or infinity; look for the step that paid it.")
    contributions = jnp.where(mask, contributions, 0) * 1.0
    if not isinstance(contributions, Tracer) and not np.isfinite(contributions).all():
        raise ValueError(
            "contributions must be finite, got NaN or infinity in a step of an episode; look for its inputs."
        )
    if correction == "none":
        return contributions
    final = mask & (jnp.cumsum(mask[::-1], axis=0)[::-1] == 1)
    if correction == "equal":
        error = returns - _exact_sum(contributions)
        contributions += jnp.where(mask, (error / jnp.maximum(mask.sum(axis=0), 1))[None], 0)
    return contributions + jnp.where(final, (returns - _exact_sum(contributions))[None], 0)


def _exact_sum(x: Float[Array, "time batch"]) -> Float[Array, " batch"]:
    """Sum over time that carries the rounding error of each addition along (Kahan, 1965)."""

    def add(carry: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], None]:
        total, lost = carry
        row = row - lost
        new = total + row
        return (new, (new - total) - row), None

    nothing = jnp.zeros(x.shape[1:], x.dtype)
    (total, lost), _ = jax.lax.scan(add, (nothing, nothing), x)
    return total - lost


class Segments(NamedTuple):
    """For each row of a rollout, what is known of the episode that it belongs to.

    Attributes:
        total: sum over the episode's rows, what was there before the rollout included.
        length: number of its rows, likewise.
        known: whether the episode ends in this rollout and its return counts; otherwise ``total`` is 0, ``length`` 1.
    """

    total: Float[Array, "time batch"]
    length: Float[Array, "time batch"]
    known: Bool[Array, "time batch"]


def segments(
    values: Float[Array, "time batch"],
    mask: Bool[Array, "time batch"],
    done: Bool[Array, "time batch"],
    counts: Bool[Array, "time batch"],
    total: Float[Array, " batch"],
    length: Float[Array, " batch"],
) -> tuple[Segments, Any]:
    """Sums and lengths of the episodes of a rollout, known in each of their rows.

    Args:
        values: what is added up.
        mask: rows that are experience.
        done: rows that end an episode.
        counts: at those rows, whether the sum counts.
        total: what the episodes under way have when the rollout begins.
        length: and how many rows.

    Returns:
        A :class:`Segments`, and ``(total, length)`` of the episodes under way when it ends.
    """
    ended = mask & done
    values = jnp.where(mask, values, 0)

    def forward(carry: Any, row: Any) -> tuple[Any, Any]:
        total, length = carry[0] + row[0], carry[1] + row[1]
        return (jnp.where(row[2], 0, total), jnp.where(row[2], 0, length)), (total, length)

    rows = (values, mask.astype(values.dtype), ended)
    left, (totals, lengths) = jax.lax.scan(forward, (total, length), rows)

    def backward(carry: Any, row: Any) -> tuple[Any, Any]:
        found = jax.tree.map(lambda new, old: jnp.where(row[0], new, old), row[1], carry)
        return found, found

    nothing = (jnp.zeros_like(total), jnp.ones_like(length), jnp.zeros(total.shape, bool))
    at_end = (jnp.where(counts, totals, 0), jnp.where(counts, lengths, 1), counts)
    _, found = jax.lax.scan(backward, nothing, (ended, at_end), reverse=True)
    return Segments(*found), left
