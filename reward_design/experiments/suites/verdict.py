"""Which design helped where: statistics over all comparisons of a suite, and sentences that say it."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from reward_design.experiments import report, statistics
from reward_design.experiments.looks import TRUE_REWARD
from reward_design.experiments.results import Results
from reward_design.experiments.statistics import Estimate
from reward_design.experiments.suites.declared import Suite

MIN_PAIRS = 5
"""Fewer pairs of distance and regret have no rank correlation worth telling."""


class Line(NamedTuple):
    """What one design did over the suite.

    Attributes:
        reward: the design.
        num_tasks: on which it finished.
        score: interquartile mean over all runs of the normalised score, with interval; see :func:`normalised`.
        improvement: probability that its run beats one of the baseline on a random task; None for the baseline.
        helped: tasks where the whole interval of that probability is above one half.
        harmed: tasks where it is below.
        failed: tasks where it stopped with an error.
    """

    reward: str
    num_tasks: int
    score: Estimate | None
    improvement: Estimate | None
    helped: tuple[str, ...]
    harmed: tuple[str, ...]
    failed: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Verdict:
    """A suite and what came out of it.

    Attributes:
        suite: what was declared.
        results: of every comparison, by ``block/task``.
        report: where the page lies, if one was written.
    """

    suite: Suite
    results: Mapping[str, Results]
    report: str | None = None

    @property
    def rewards(self) -> tuple[str, ...]:
        """All designs, in the order of the file."""
        return tuple(dict.fromkeys(reward for found in self.results.values() for reward in found.rewards))

    @property
    def num_runs(self) -> int:
        """Finished runs, of all that the suite declares."""
        return sum(len(unit.record["seeds"]) for found in self.results.values() for unit in found.done.values())

    @cached_property
    def tasks(self) -> dict[str, str]:
        """What a comparison is called: its task, and the block before it where two blocks have that task."""
        tasks = {name: name.partition("/")[2] for name in self.results}
        count = Counter(tasks.values())
        return {name: task if count[task] == 1 else name for name, task in tasks.items()}

    @property
    def baseline(self) -> str:
        """``sparse`` if it is among the designs, else the first."""
        return "sparse" if "sparse" in self.rewards else self.rewards[0]

    @cached_property
    def lines(self) -> list[Line]:
        """One per design."""
        scores = normalised(self.results)
        return [self._line(reward, scores) for reward in self.rewards]

    @cached_property
    def profiles(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Performance profiles: thresholds, and per design the share of its runs with a higher normalised score."""
        levels, scores = np.linspace(0, 1, 101), normalised(self.results)
        pooled = {reward: [s for (_, r), s in scores.items() if r == reward] for reward in self.rewards}
        share = {
            reward: np.mean([(s[:, None] > levels).mean(0) for s in runs], axis=0)
            for reward, runs in pooled.items()
            if runs
        }
        return levels, share

    @cached_property
    def correlations(self) -> dict[str, Estimate | None]:
        """Spearman's rank correlations of the distance to the true reward, known before training, with two losses.

        ``regret`` is exact and that of the design's optimal policy; ``loss`` is one minus the normalised score of the
        trained agents. Over all designs of all tasks with exact dynamics, with 95 % bootstrap intervals over these
        pairs; None for too few.
        """
        scores, pairs = normalised(self.results), {"regret": [], "loss": []}
        for name, found in self.results.items():
            for exact in found.exact.values():
                for reward, distance, regret in _distances(exact):
                    pairs["regret"].append((distance, regret))
                    if (name, reward) in scores:
                        pairs["loss"].append((distance, 1 - statistics.interquartile_mean(scores[name, reward])))
        return {kind: _rank_correlation(np.asarray(values, float)) for kind, values in pairs.items()}

    def _line(self, reward: str, scores: Mapping[tuple[str, str], np.ndarray]) -> Line:
        own = [s for (_, r), s in scores.items() if r == reward]
        both = [n for n in self.results if (n, reward) in scores and (n, self.baseline) in scores]
        per_task = {} if reward == self.baseline else {n: self._beats(reward, [n], scores) for n in both}
        return Line(
            reward,
            len(own),
            Estimate(*map(float, statistics.bootstrap(own))) if own else None,
            self._beats(reward, both, scores) if both and reward != self.baseline else None,
            tuple(name for name, e in per_task.items() if e.low > 0.5),
            tuple(name for name, e in per_task.items() if e.high < 0.5),
            tuple(name for name, found in self.results.items() for _, r in found.failed if r == reward),
        )

    def _beats(self, reward: str, names: Sequence[str], scores: Mapping[tuple[str, str], np.ndarray]) -> Estimate:
        return statistics.probability_of_improvement(
            [scores[n, reward] for n in names], [scores[n, self.baseline] for n in names]
        )


def verdict(results: Mapping[str, Results], suite: Suite) -> Verdict:
    """Judge finished comparisons, by ``block/task``."""
    return Verdict(suite, dict(results))


def normalised(results: Mapping[str, Results]) -> dict[tuple[str, str], np.ndarray]:
    """Scores ``[N]`` in [0, 1] per ``(comparison, design)``, from the true return at the end of training.

    0 is the lowest and 1 the highest interquartile mean of any design there; runs outside are clipped. Runs in which no
    episode ended are left out, and so are comparisons in which all designs did the same.
    """
    found = {}
    for name, comparison in results.items():
        finals = {reward: unit.final() for (_, reward), unit in comparison.done.items()}
        finals = {reward: f[np.isfinite(f)] for reward, f in finals.items() if np.isfinite(f).any()}
        middles = [float(statistics.interquartile_mean(f)) for f in finals.values()]
        if finals and max(middles) > min(middles):
            low, high = min(middles), max(middles)
            found |= {(name, reward): np.clip((f - low) / (high - low), 0, 1) for reward, f in finals.items()}
    return found


def sentences(judged: Verdict) -> list[str]:
    """What was found, in plain words with its figures."""
    lines = [(line, line.improvement) for line in judged.lines if line.improvement is not None]
    ranked = sorted(lines, key=lambda pair: -pair[1].value)
    found = [_sentence(line, beats, judged.baseline, judged.tasks) for line, beats in ranked]
    for kind, what in (("regret", "the regret of its optimal policy"), ("loss", "what trained agents fall short of")):
        value = judged.correlations[kind]
        if value is not None:
            verb = "goes with" if value.low > 0 else "goes against" if value.high < 0 else "tells nothing clear about"
            found.append(
                f"The distance of a design to the true reward, known before training, {verb} {what}: rank "
                f"correlation {report.number(value)} ({report.interval(value)})."
            )
    return found or ["No design has finished on a task together with the baseline yet."]


def _sentence(line: Line, beats: Estimate, baseline: str, tasks: Mapping[str, str]) -> str:
    share = f"{report.percent(beats)} of pairs of runs ({report.percents(beats)})"
    count = f"on {line.num_tasks} task{'' if line.num_tasks == 1 else 's'}"
    clear = beats.low > 0.5 or beats.high < 0.5
    text = f"{line.reward} beats {baseline} in {share} {count}"
    text += "" if clear else ": no clear difference"
    found = (("helped on", line.helped), ("harmed", line.harmed))
    where = [f"it {verb} {', '.join(tasks[name] for name in names)}" for verb, names in found if names]
    return f"{text}; {' and '.join(where)}." if where else f"{text}."


def _distances(exact: Mapping[str, Any]) -> list[tuple[str, float, float]]:
    """Design, distance to the true reward and regret."""
    if exact.get("reason"):
        return []
    names, matrix = exact["names"], np.asarray(exact["matrix"], float)
    at = names.index(TRUE_REWARD)
    return [(name, float(matrix[at, i]), exact["regret"][name]) for i, name in enumerate(names) if i != at]


def _rank_correlation(pairs: np.ndarray) -> Estimate | None:
    if len(pairs) < MIN_PAIRS or (np.ptp(pairs, axis=0) == 0).any():
        return None
    generator = np.random.default_rng(0)
    draws = [pairs[generator.integers(len(pairs), size=len(pairs))] for _ in range(2000)]
    values = [_spearman(draw) for draw in draws if (np.ptp(draw, axis=0) > 0).all()]
    low, high = np.quantile(values, (0.025, 0.975))
    return Estimate(_spearman(pairs), float(low), float(high))


def _spearman(pairs: np.ndarray) -> float:
    found: Any = stats.spearmanr(pairs)
    return float(found.statistic)
