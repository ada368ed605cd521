"""Comparing by rank: the first level on which two things differ by more than its margin decides.

Source: A. Bukharin, Y. Li, P. He, T. Zhao, "Deep Reinforcement Learning from Hierarchical Preference Design", 2023,
arXiv 2309.02632 (HERON).
"""

import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

STARVED = 0.95
"""Share of pairs decided by the first level above which the levels below it have no say."""


class StarvedLevelsWarning(UserWarning):
    """The first level decides nearly all pairs, so that the ranking of the others changes nothing."""


class Verdict(NamedTuple):
    """What a ranked comparison says of each pair.

    Attributes:
        preferred: 1.0 for the first, 0.0 for the second, 0.5 for a tie; NaN where a factor is NaN.
        level: index of the level that decided, the number of levels for a tie.
    """

    preferred: Float[Array, "*pairs"]
    level: Int[Array, "*pairs"]


def compare_ranked(factors_a: Any, factors_b: Any, *, margins: Any) -> Float[Array, "*pairs"]:
    """Which of two is better by ranked factors: at the first level l with |a_l - b_l| > margin_l the larger one wins.

    A difference of exactly the margin does not decide. With margins of zero this is the lexicographic order; with
    others it is a semiorder per level, and preferences can be cyclic (:func:`cycle_rate`). Infinite factors are ordered
    as numbers are: they are equal to themselves and beyond any finite margin of all others.

    Where the factors of both sides are whole numbers or flags, they are compared exactly. Others are compared in JAX's
    precision (float32, or float64 with ``jax_enable_x64``), where a difference of exactly the margin is seldom exact:
    above a margin that is not zero, a difference decides only if it exceeds it by 4 eps max(abs(a_l), abs(b_l)), eps
    the spacing of numbers at 1 in the precision of the factors (1.2e-7 for float32). At a margin of zero any decides.

    Args:
        factors_a: ``[..., L]`` factors of the first of each pair, larger is better, the most important level first.
        factors_b: ``[..., L]`` factors of the second; leading axes are broadcast.
        margins: ``[L]`` at least 0, in the units of the factors; a level whose margin is infinite never decides.

    Returns:
        ``[...]`` 1.0 where the first is preferred, 0.0 where the second is, 0.5 for ties.

    Raises:
        ValueError: for shapes that do not fit, no level, or (outside jit) a margin that is negative or NaN, or a factor
            that is NaN. Inside jit a pair with a NaN gets the label NaN.
        TypeError: for something that is no number.

    Example:
        >>> from reward_design.preferences import compare_ranked
        >>> a, b = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]], [[0.4, 9.0], [0.6, 0.2], [0.5, 0.0]]
        >>> compare_ranked(a, b, margins=[0.5, 0.1]).tolist()
        [1.0, 0.0, 0.5]

    Source: see the module.
    """
    return decide(factors_a, factors_b, margins=margins).preferred


def decide(factors_a: Any, factors_b: Any, *, margins: Any) -> Verdict:
    """:func:`compare_ranked` with the level that decided.

    Args:
        factors_a: ``[..., L]``.
        factors_b: ``[..., L]``.
        margins: ``[L]``.

    Returns:
        A :class:`Verdict` with fields ``[...]``.

    Example:
        >>> from reward_design.preferences import decide
        >>> int(decide([1.0, 0.0], [0.6, 0.2], margins=[0.5, 0.1]).level)
        1
    """
    a, b, margins = _checked(factors_a, factors_b, margins)
    whole = all(not jnp.issubdtype(x.dtype, jnp.inexact) for x in (a, b))
    decided, larger, broken = _whole_levels(a, b, margins) if whole else _levels(a, b, margins)
    dtype = jnp.result_type(a, b, margins, jnp.float32)
    tie = ~decided.any(axis=-1)
    first = jnp.argmax(decided, axis=-1)
    winner = jnp.take_along_axis(larger, first[..., None], axis=-1)[..., 0]
    preferred = jnp.where(tie, 0.5, winner.astype(dtype))
    return Verdict(
        jnp.where(broken.any(axis=-1), jnp.nan, preferred).astype(dtype),
        jnp.where(tie, larger.shape[-1], first).astype(jnp.int32),
    )


def level_shares(level: Int[Array, " pairs"], num_levels: int, weight: Any = None) -> Float[Array, " levels"]:
    """Share of pairs decided by each level, and of ties as the last entry.

    Args:
        level: ``[M]`` of :class:`Verdict`.
        num_levels: L.
        weight: ``[M]`` of the pairs; 1 if left out.

    Returns:
        ``[L + 1]``, summing to 1 (all 0 without pairs).

    Example:
        >>> import jax.numpy as jnp
        >>> level_shares(jnp.array([0, 0, 1, 2]), 2).tolist()
        [0.5, 0.25, 0.25]
    """
    weight = jnp.ones(level.shape) if weight is None else jnp.asarray(weight, float)
    counts = jnp.zeros(num_levels + 1, weight.dtype).at[level].add(weight)
    return counts / jnp.maximum(counts.sum(), 1e-9)


def warn_if_starved(shares: Any, names: Sequence[str]) -> bool:
    """Warn where the first level decides more than 95 % of the pairs: those below it have no say.

    Args:
        shares: ``[L + 1]`` of :func:`level_shares`, outside jit.
        names: ``L`` names of the levels.

    Returns:
        Whether it warned.

    Example:
        >>> warn_if_starved([0.6, 0.3, 0.1], ["progress", "energy"])
        False
    """
    shares = np.asarray(shares)
    starved = len(names) > 1 and bool(shares[0] > STARVED)
    if starved:
        warnings.warn(
            f"level {names[0]!r} decides {shares[0]:.1%} of the pairs, so that {', '.join(map(repr, names[1:]))} have "
            "no say; give it a larger margin, or put it lower.",
            StarvedLevelsWarning,
            stacklevel=2,
        )
    return starved


def cycle_rate(factors: Any, *, margins: Any) -> Float[Array, ""]:
    """Share of triples whose preferences are a cycle, A over B over C over A; no scores can represent those.

    Counts all triples: the trace of W³ is three times the number of cycles, W_ij = 1 where i is preferred to j.

    Args:
        factors: ``[N, L]`` signed factors, the most important level first.
        margins: ``[L]``; with zeros the rate is 0.

    Returns:
        Cycles over N (N - 1) (N - 2) / 6; 0 for fewer than three.

    Example:
        >>> float(cycle_rate([[0.0, 3.0], [0.7, 2.0], [1.4, 1.0]], margins=[1.0, 0.0]))
        1.0
    """
    factors = _numbers("factors", factors)
    n = factors.shape[0]
    if n < 3:
        return jnp.zeros(())
    wins = (compare_ranked(factors[:, None], factors[None], margins=margins) == 1.0).astype(jnp.float32)
    cycles = jnp.einsum("ij,jk,ki->", wins, wins, wins) / 3
    return cycles / (n * (n - 1) * (n - 2) / 6)


def _levels(a: Any, b: Any, margins: Any) -> tuple[Array, Array, Array]:
    """Which levels tell two apart, on which the first is larger, and which are NaN; with a tolerance for rounding."""
    a, b, margins = (jnp.asarray(x) for x in (a, b, margins))
    dtype = jnp.result_type(a, b, margins, jnp.float32)
    eps = max(
        float(jnp.finfo(x.dtype).eps) for x in (a, b, jnp.zeros((), dtype)) if jnp.issubdtype(x.dtype, jnp.floating)
    )
    a, b, margins = a.astype(dtype), b.astype(dtype), margins.astype(dtype)
    difference = jnp.where(a == b, 0, a - b)  # of two infinities as well
    margin = jnp.broadcast_to(margins, difference.shape)
    rounding = 4 * eps * jnp.maximum(jnp.abs(a), jnp.abs(b))
    decided = jnp.abs(difference) > margin + jnp.where((margin > 0) & jnp.isfinite(rounding), rounding, 0)
    return decided, difference > 0, jnp.isnan(difference)


def _whole_levels(a: Any, b: Any, margins: Any) -> tuple[Array, Array, Array]:
    """:func:`_levels` of whole numbers and flags, exactly, by NumPy where the numbers are known."""
    xp: Any = jnp if any(isinstance(x, Tracer) for x in (a, b, margins)) else np
    a, b = (xp.asarray(x).astype(np.uint8) if x.dtype == bool else xp.asarray(x) for x in (a, b))
    unsigned = np.dtype(np.uint64 if xp is np or max(a.dtype.itemsize, b.dtype.itemsize) == 8 else np.uint32)
    # as unsigned numbers: no difference overflows, and any two types have one in common
    negative_a, negative_b, above, below = a < 0, b < 0, a.astype(unsigned), b.astype(unsigned)
    opposite = negative_a != negative_b
    larger = xp.where(opposite, negative_b, above > below)
    distance = xp.where(larger, above - below, below - above)
    largest = np.iinfo(unsigned).max
    distance = xp.where(opposite & (distance < xp.where(larger, above, below)), unsigned.type(largest), distance)
    # a whole number is above the margin if it is above the whole part of it
    margins = xp.floor(margins) if jnp.issubdtype(margins.dtype, jnp.inexact) else margins
    never = margins >= 2.0 ** (8 * unsigned.itemsize)
    margins = xp.broadcast_to(xp.where(never, 0, margins).astype(unsigned), distance.shape)
    decided = (distance > margins) & ~xp.broadcast_to(never, distance.shape)
    return jnp.asarray(decided), jnp.asarray(larger), jnp.zeros(distance.shape, bool)


def _checked(factors_a: Any, factors_b: Any, margins: Any) -> tuple[Any, Any, Any]:
    """Both in one shape, and the margins; arrays of NumPy unless they are in JAX already."""
    a, b, margins = (_numbers(*x) for x in (("factors_a", factors_a), ("factors_b", factors_b), ("margins", margins)))
    if a.ndim < 1 or b.ndim < 1 or a.shape[-1] != b.shape[-1]:
        raise ValueError(f"compare_ranked expects two arrays [..., L] with levels in common, got {a.shape}, {b.shape}.")
    try:
        shape = np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        raise ValueError(
            f"compare_ranked expects arrays [..., L] whose leading axes can be broadcast, got {a.shape} and {b.shape}."
        ) from None
    if not shape[-1]:
        raise ValueError(f"compare_ranked needs at least one level, got factors of shape {a.shape}.")
    if margins.shape != shape[-1:]:
        raise ValueError(f"margins must have one entry for each of the {shape[-1]} levels, got shape {margins.shape}.")
    if not isinstance(margins, Tracer) and not (np.asarray(margins) >= 0).all():
        raise ValueError(f"margins must be at least 0, got {np.asarray(margins).tolist()}.")
    for name, factors in (("factors_a", a), ("factors_b", b)):
        if not isinstance(factors, Tracer) and np.isnan(np.asarray(factors, float)).any():
            raise ValueError(f"{name} must not be NaN, but some are; a factor that is unknown cannot be compared.")
    a, b = ((jnp if isinstance(x, jax.Array) else np).broadcast_to(x, shape) for x in (a, b))
    return a, b, margins


def _numbers(name: str, given: Any) -> Any:
    """An array of JAX as it is, anything else as one of NumPy, which does not cut 64 bits."""
    if isinstance(given, jax.Array):
        return given
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given))
    array = jnp.asarray(given) if traced else np.asarray(given)
    if not (jnp.issubdtype(array.dtype, jnp.number) or array.dtype == bool) or jnp.issubdtype(
        array.dtype, jnp.complexfloating
    ):
        raise TypeError(f"{name} must be an array of numbers, got {given!r}.")
    return array
