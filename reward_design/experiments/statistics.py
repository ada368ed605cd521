"""Statistics over seeds: interquartile mean, stratified bootstrap intervals, probability of improvement.

Few seeds and heavy tails are the rule in reinforcement learning, so scores are summarised by the mean of their middle
half and every figure carries an interval from resampling the seeds of each task on their own.

Source: Agarwal, Schwarzer, Castro, Courville, Bellemare, "Deep Reinforcement Learning at the Edge of the Statistical
Precipice", 2021, arXiv 2108.13264. The formulas are theirs; the code is plain NumPy.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

Scores = Any
"""``[N, ...]`` scores of the N seeds of one task, or a sequence of such arrays, one per task."""

_CHUNK = 4_000_000
"""Resampled numbers held in memory at a time (32 MB)."""


class Estimate(NamedTuple):
    """A figure with its interval; fields are floats, or arrays where the scores have trailing axes."""

    value: Any
    low: Any
    high: Any


def interquartile_mean(scores: Any, axis: int = -1) -> Any:
    """Mean of the middle half: the floor(n / 4) smallest and largest of n scores are left out.

    Args:
        scores: array of any shape.
        axis: the axis that holds the scores.

    Returns:
        Array without ``axis``; NaN where a score is NaN. Equal to ``scipy.stats.trim_mean(scores, 0.25, axis)``.

    Example:
        >>> float(interquartile_mean([0.0, 1.0, 2.0, 100.0]))
        1.5
    """
    ordered = np.sort(np.moveaxis(np.asarray(scores, float), axis, -1), axis=-1)
    n = ordered.shape[-1]
    if n == 0:
        raise ValueError("interquartile_mean needs at least one score, got none; check the axis.")
    cut = n // 4
    middle = ordered[..., cut : n - cut].mean(-1)
    return np.where(np.isnan(ordered[..., -1]), np.nan, middle)


def bootstrap(
    scores: Scores,
    statistic: Callable[..., Any] = interquartile_mean,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Stratified bootstrap (percentile) interval of a statistic of the pooled scores.

    Seeds are drawn with replacement inside every task, never across tasks; trailing axes (points of a learning curve)
    of one seed are drawn together.

    Args:
        scores: ``[N, ...]``, or one such array per task; trailing axes must agree.
        statistic: ``statistic(pooled, axis=-1)``, vectorised over the leading axes.
        confidence: coverage of the interval, in (0, 1).
        num_resamples: bootstrap repetitions.
        seed: of the resampling, so that a report can be rebuilt to the digit.

    Returns:
        An :class:`Estimate` with the trailing axes of ``scores``.

    Example:
        >>> estimate = bootstrap(np.arange(20.0))
        >>> float(estimate.value), bool(estimate.low < 9.5 < estimate.high)
        (9.5, True)
    """
    strata = _strata(scores)
    value = statistic(_pooled(strata), axis=-1)
    picks = _picks(strata, num_resamples, seed)
    flat = [s.reshape(len(s), -1) for s in strata]
    width = max(1, _CHUNK // (num_resamples * sum(map(len, flat))))
    columns = range(0, flat[0].shape[1], width)
    parts = [_interval([s[:, c : c + width] for s in flat], picks, statistic, confidence) for c in columns]
    low, high = np.concatenate(parts, axis=-1).reshape(2, *strata[0].shape[1:])
    return Estimate(value, low, high)


def probability_of_improvement(
    scores: Scores,
    baseline: Scores,
    *,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Chance that a run with the design beats a run with the baseline on a random task: P(X > Y) + P(X = Y) / 2.

    The mean over tasks of the Mann-Whitney statistic U / (n m), with a bootstrap interval that resamples the seeds of
    both sides inside every task. 0.5 means no difference.

    Args:
        scores: ``[N]``, or one such array per task.
        baseline: the same for the baseline, tasks in the same order; the number of seeds may differ.
        confidence: coverage of the interval, in (0, 1).
        num_resamples: bootstrap repetitions.
        seed: of the resampling.

    Returns:
        An :class:`Estimate` of floats in [0, 1].

    Raises:
        ValueError: if the two sides have different numbers of tasks.

    Example:
        >>> probability_of_improvement([1.0, 2.0, 3.0], [2.0, 2.0, 2.0]).value
        0.5
    """
    ours, theirs = _strata(scores), _strata(baseline)
    if len(ours) != len(theirs):
        raise ValueError(f"expected the same tasks on both sides, got {len(ours)} and {len(theirs)}.")
    value = np.mean([_beats(x, y) for x, y in zip(ours, theirs, strict=True)])
    picks = zip(ours, theirs, _picks(ours, num_resamples, seed), _picks(theirs, num_resamples, seed + 1), strict=True)
    draws = np.mean([_beats(x[i], y[j]) for x, y, i, j in picks], axis=0)
    low, high = np.quantile(draws, _tails(confidence))
    return Estimate(float(value), float(low), float(high))


def bootstrap_pairs(
    wins: Float[np.ndarray, "n m"], *, confidence: float = 0.95, num_resamples: int = 2000, seed: int = 0
) -> Estimate:
    """Mean of a matrix of comparisons, with a bootstrap interval that resamples its rows and its columns.

    Args:
        wins: ``[N, M]`` outcome of run i against run j.
        confidence: coverage of the interval, in (0, 1).
        num_resamples: bootstrap repetitions.
        seed: of the resampling.

    Returns:
        An :class:`Estimate` of floats.
    """
    rows, columns = (_picks([axis], num_resamples, seed + i)[0] for i, axis in enumerate((wins, wins.T)))
    draws = wins[rows[:, :, None], columns[:, None, :]].mean((-2, -1))
    low, high = np.quantile(draws, _tails(confidence))
    return Estimate(float(wins.mean()), float(low), float(high))


def _beats(x: Float[np.ndarray, "*r n"], y: Float[np.ndarray, "*r m"]) -> Any:
    above, below = x[..., :, None], y[..., None, :]
    return ((above > below) + 0.5 * (above == below)).mean((-2, -1))


def _strata(scores: Scores) -> list[np.ndarray]:
    many = isinstance(scores, Sequence) and len(scores) > 0 and np.ndim(scores[0]) > 0
    strata = [np.asarray(s, float) for s in (scores if many else [scores])]
    if not strata or any(s.ndim == 0 or len(s) == 0 for s in strata):
        raise ValueError("expected at least one seed for every task, got none; leave tasks without runs out.")
    return strata


def _pooled(strata: Sequence[np.ndarray]) -> np.ndarray:
    return np.moveaxis(np.concatenate(strata, axis=0), 0, -1)


def _picks(strata: Sequence[np.ndarray], num_resamples: int, seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.integers(len(s), size=(num_resamples, len(s))) for s in strata]


def _interval(
    flat: Sequence[np.ndarray], picks: Sequence[np.ndarray], statistic: Callable[..., Any], confidence: float
) -> np.ndarray:
    """``[2, C]`` low and high for strata ``[N, C]``."""
    draws = np.concatenate([s.T[:, i] for s, i in zip(flat, picks, strict=True)], axis=-1)
    return np.quantile(statistic(draws, axis=-1), _tails(confidence), axis=-1)


def _tails(confidence: float) -> tuple[float, float]:
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"confidence must be in (0, 1), got {confidence}.")
    return (1.0 - confidence) / 2.0, (1.0 + confidence) / 2.0
