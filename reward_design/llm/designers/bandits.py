"""ORSO: candidates as arms of a bandit, so that training goes to those that deserve it. The rule is D3RB.

Source: Zhang et al., "ORSO: Accelerating Reward Design via Online Reward Selection and Policy Optimization", ICLR 2025,
arXiv 2410.13837; the rule is from Dann et al., "Data-Driven Online Model Selection With Regret Guarantees", AISTATS
2024.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Balancing:
    """State of D3RB: doubling, data-driven regret balancing.

    Arm i was played n_i times with mean utility u_i. Its width is h_i = √(ln(K ln n_i / δ) / n_i), its balancing
    potential φ_i = d_i √n_i, where d_i starts at 1. Every arm is played once, then the one with the least potential.
    After a play of arm i: if u_i + d_i √n_i / n_i + c h_i < max_j (u_j − c h_j), its regret exceeds what d_i says, and
    d_i doubles.

    Where ln n_i gives no width (n_i = 1) there is no confidence: h_i = ∞, the arm neither doubles nor sets the maximum.
    The released code gets NaN there, and comparisons that are false until every arm was played twice.

    Attributes:
        pulls: ``[K]`` n_i.
        utility: ``[K]`` u_i, in [0, 1] for success rates.
        estimate: ``[K]`` d_i.
        delta: δ, in (0, 1).
        width: c, at least 0.
        peak: the largest score of any play, −∞ before the first.

    Example:
        >>> arms = balancing(2)
        >>> for score in (0.1, 0.9):
        ...     arms = arms.played(arms.choose(np.random.default_rng(0)), score)
        >>> arms.pulls.tolist(), arms.utility.tolist()
        ([1, 1], [0.1, 0.9])
    """

    pulls: np.ndarray
    utility: np.ndarray
    estimate: np.ndarray
    delta: float = 0.1
    width: float = 1.0
    peak: float = float("-inf")

    def choose(self, rng: Any, open_: np.ndarray | None = None) -> int:
        """The arm to play: one never played, in order, or that of the least potential, ties at random.

        Args:
            rng: for ties.
            open_: ``[K]`` bool, arms that may still be played; all by default.
        """
        allowed = np.ones(len(self.pulls), bool) if open_ is None else np.asarray(open_, bool)
        if not allowed.any():
            raise ValueError("there is no arm left to play.")
        fresh = np.flatnonzero((self.pulls == 0) & allowed)
        if len(fresh):
            return int(fresh[0])
        potential = np.where(allowed, self.potential, np.inf)
        return int(rng.choice(np.flatnonzero(potential == potential.min())))

    def exhausted(self, best: float | int, open_: np.ndarray | None = None) -> bool:
        """Whether other candidates should take the place of these: ORSO's test against the best score m* so far.

        No play reached m*, and the average regret of every arm exceeds its bound: m* − u_i > m* / √n_i. An arm that was
        played at most once is never beyond its bound, for scores that are not negative.

        Args:
            best: m*, the best score of earlier candidates; −∞ where there were none, and no arm is given up.
            open_: ``[K]`` bool, arms that may still be played; those alone count, and without any the set is exhausted.
        """
        allowed = np.ones(len(self.pulls), bool) if open_ is None else np.asarray(open_, bool)
        if not allowed.any():
            return True
        if self.peak >= best or not np.isfinite(best):
            return False
        bound = best / np.sqrt(np.maximum(self.pulls, 1))
        return bool((best - self.utility > bound)[allowed].all() and (self.pulls > 0)[allowed].all())

    @property
    def potential(self) -> np.ndarray:
        """φ_i = d_i √n_i."""
        return self.estimate * np.sqrt(self.pulls)

    @property
    def radius(self) -> np.ndarray:
        """h_i, ∞ where an arm was played less than twice."""
        n = np.maximum(self.pulls, 2)
        inside = len(n) * np.log(n) / self.delta
        return np.where(self.pulls < 2, np.inf, np.sqrt(np.maximum(np.log(inside), 0.0) / n))

    def played(self, arm: int, score: float | int) -> "Balancing":
        """The state after a play of ``arm`` that gave ``score``."""
        pulls, utility, estimate = self.pulls.copy(), self.utility.copy(), self.estimate.copy()
        pulls[arm] += 1
        utility[arm] += (score - utility[arm]) / pulls[arm]
        new = replace(self, pulls=pulls, utility=utility, peak=max(self.peak, float(score)))
        h = self.width * new.radius if self.width else np.zeros(len(pulls))
        bound = utility[arm] + estimate[arm] * np.sqrt(pulls[arm]) / pulls[arm] + h[arm]
        if bound < np.max(np.where(pulls > 0, utility - h, -np.inf)):
            estimate[arm] *= 2.0
        return replace(new, estimate=estimate)


def balancing(num_arms: int, *, delta: float = 0.1, width: float = 1.0) -> Balancing:
    """D3RB before the first play.

    Raises:
        ValueError: for no arm, delta outside (0, 1), or a negative width.
    """
    if num_arms < 1 or not 0.0 < delta < 1.0 or width < 0.0:
        raise ValueError(
            f"expected num_arms >= 1, delta in (0, 1) and width >= 0, got {num_arms}, {delta} and {width}."
        )
    return Balancing(np.zeros(num_arms, int), np.zeros(num_arms), np.ones(num_arms), delta, width)
