"""Which of two designs is better when what matters can be ranked but not weighed."""

from typing import Any

import numpy as np

from reward_design.experiments.statistics import Estimate, bootstrap_pairs
from reward_design.preferences.ranking import compare_ranked


def win_rate(
    ours: Any,
    theirs: Any,
    *,
    margins: Any,
    confidence: float = 0.95,
    num_resamples: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Chance that a run of one design is better, by ranked factors, than a run of another; ties count as half.

    The mean of :func:`reward_design.preferences.compare_ranked` over all pairs of runs, with a bootstrap interval that
    resamples the runs of both sides. 0.5 means no difference.

    Args:
        ours: ``[N, L]`` signed factors of each run, the most important one first.
        theirs: ``[M, L]`` of the other design.
        margins: ``[L]`` differences that do not count.
        confidence: coverage of the interval, in (0, 1).
        num_resamples: bootstrap repetitions.
        seed: of the resampling.

    Returns:
        An :class:`Estimate` of floats in [0, 1].

    Example:
        >>> win_rate([[1.0, 0.0], [1.0, 2.0]], [[0.9, 1.0]], margins=[0.5, 0.0]).value
        0.5
    """
    ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
    shape = (len(ours), len(theirs), ours.shape[1])
    wins = compare_ranked(np.broadcast_to(ours[:, None], shape), np.broadcast_to(theirs[None], shape), margins=margins)
    return bootstrap_pairs(np.asarray(wins), confidence=confidence, num_resamples=num_resamples, seed=seed)
