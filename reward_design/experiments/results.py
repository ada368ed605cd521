"""What a comparison found, read from its records: curves, final scores, distances, failures."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from reward_design.experiments import statistics, store
from reward_design.experiments.statistics import Estimate


@dataclass(frozen=True, eq=False)
class Unit:
    """One task and one reward design, all seeds.

    Attributes:
        record: the record as stored, with settings, versions, device and times.
    """

    record: Mapping[str, Any]

    @property
    def failed(self) -> bool:
        """True if the unit stopped with an error."""
        return self.record["status"] != "done"

    @property
    def reason(self) -> str:
        """Why it failed; empty if it did not."""
        return self.record.get("reason", "")

    def final(self, metric: str = "true_return") -> np.ndarray:
        """``[N]`` value per seed over the last tenth of training; NaN for seeds in which no episode ended."""
        return _array(self.record["final"].get(metric, [None] * len(self.record["seeds"])))

    def curve(self, metric: str = "true_return") -> tuple[np.ndarray, np.ndarray]:
        """Environment steps ``[P]`` and values ``[N, P]``; NaN before the first episode of a seed ended."""
        steps = _array(self.record["steps"])
        missing = [[None] * len(steps)] * len(self.record["seeds"])
        return steps, _array(self.record["curves"].get(metric, missing))


@dataclass(frozen=True)
class Row:
    """One line of the final table. Estimates are interquartile means over seeds with 95 % intervals."""

    task: str
    reward: str
    num_seeds: int
    true_return: Estimate | None
    over_training: Estimate | None
    """Mean true return over all of training: higher for designs that learn sooner."""
    success: Estimate | None
    length: Estimate | None
    improvement: Estimate | None
    """Probability of improvement over the baseline design; None for the baseline itself."""
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Results:
    """Everything a comparison left in its folder.

    Attributes:
        records: as stored, in order.
        report: where the HTML report lies, if one was written.

    Example:
        >>> from reward_design.experiments.results import Results
        >>> Results([{"kind": "comparison", "identity": {"tasks": ["chain"], "rewards": ["sparse"]}}]).tasks
        ('chain',)
    """

    records: list[dict[str, Any]]
    report: str | None = None

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> "Results":
        """Read the records of a folder that :func:`reward_design.experiments.compare` wrote.

        Raises:
            StoreError: if there are none, or they are of something else.
        """
        records = store.read(folder)
        _check_comparison(records, folder)
        return cls(records)

    @property
    def identity(self) -> dict[str, Any]:
        """Agent, settings per task, seeds, tasks and rewards."""
        return [r for r in self.records if r["kind"] == "comparison"][-1]["identity"]

    @property
    def agents(self) -> tuple[str, ...]:
        """Names of the agents that trained: the one asked for, and those that designs brought."""
        asked = self.identity["agent"]
        return tuple(dict.fromkeys((asked, *(unit.record.get("agent", asked) for unit in self.units.values()))))

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names in the order asked for."""
        return tuple(self.identity["tasks"])

    @property
    def rewards(self) -> tuple[str, ...]:
        """Names in the order asked for."""
        return tuple(self.identity["rewards"])

    @property
    def baseline(self) -> str:
        """The design that others are compared with: ``sparse`` if present, else the first."""
        return "sparse" if "sparse" in self.rewards else self.rewards[0]

    @cached_property
    def units(self) -> dict[tuple[str, str], Unit]:
        """Finished and failed units by ``(task, reward)``; the last record of a unit counts."""
        return {(r["task"], r["reward"]): Unit(r) for r in self.records if r["kind"] == "unit"}

    @property
    def done(self) -> dict[tuple[str, str], Unit]:
        """The units that finished."""
        return {name: unit for name, unit in self.units.items() if not unit.failed}

    @property
    def failed(self) -> dict[tuple[str, str], Unit]:
        """The units that stopped with an error."""
        return {name: unit for name, unit in self.units.items() if unit.failed}

    @property
    def exact(self) -> dict[str, dict[str, Any]]:
        """Per task what exact dynamics gave: distances, regret, reward maps, greedy policies."""
        return {r["task"]: r for r in self.records if r["kind"] == "exact"}

    @property
    def session(self) -> dict[str, Any]:
        """The last session that ran: command, versions, device, time."""
        return next((r for r in reversed(self.records) if r["kind"] == "session"), {})

    @cached_property
    def rows(self) -> list[Row]:
        """The final table, tasks and rewards in the order asked for."""
        return [self._row(t, r) for t in self.tasks for r in self.rewards if (t, r) in self.units]

    def improvement(self, reward: str, tasks: tuple[str, ...] | None = None) -> Estimate | None:
        """Probability of improvement of a design over :attr:`baseline`, over the tasks where both finished."""
        pairs = [
            (_finite(self.done[task, reward].final()), _finite(self.done[task, self.baseline].final()))
            for task in tasks or self.tasks
            if (task, reward) in self.done and (task, self.baseline) in self.done
        ]
        pairs = [(x, y) for x, y in pairs if len(x) and len(y)]
        if reward == self.baseline or not pairs:
            return None
        return statistics.probability_of_improvement([x for x, _ in pairs], [y for _, y in pairs])

    def _row(self, task: str, reward: str) -> Row:
        unit = self.units[task, reward]
        num_seeds = len(unit.record["seeds"])
        if unit.failed:
            return Row(task, reward, num_seeds, None, None, None, None, None, unit.reason)
        true_return, success, length = (_estimate(unit.final(m)) for m in ("true_return", "success", "length"))
        over_training = _estimate(unit.final("true_return_over_training"))
        improvement = self.improvement(reward, (task,))
        return Row(task, reward, num_seeds, true_return, over_training, success, length, improvement)


def curve_band(unit: Unit, metric: str = "true_return") -> tuple[np.ndarray, Estimate]:
    """Environment steps and the interquartile mean over seeds with its interval; NaN until every seed has a value."""
    steps, values = unit.curve(metric)
    return steps, statistics.bootstrap(values, num_resamples=1000)


def _estimate(scores: np.ndarray) -> Estimate | None:
    scores = _finite(scores)
    return Estimate(*map(float, statistics.bootstrap(scores))) if len(scores) else None


def _finite(scores: np.ndarray) -> np.ndarray:
    return scores[np.isfinite(scores)]


def _array(values: Any) -> np.ndarray:
    return np.asarray(values, dtype=float)


_IDENTITY = {"tasks": list, "rewards": list, "seeds": list, "config": dict, "agent": str}
"""What is known about every comparison."""


def _check_comparison(records: list[dict[str, Any]], folder: str | os.PathLike[str]) -> None:
    known = [record.get("identity") for record in records if record["kind"] == "comparison"]
    identity = known[-1] if known and isinstance(known[-1], dict) else {}
    if all(isinstance(identity.get(key), kind) for key, kind in _IDENTITY.items()):
        return
    others = {"preset": "a search of `reward-design design`", "task": "a run of `reward-design train`"}
    what = next((name for key, name in others.items() if key in identity), "records of something else")
    raise store.StoreError(
        f"{folder} holds {what}, and no comparison; name a folder that `reward-design compare` or `reward-design "
        f"search` wrote, or look at this one with `reward-design board {folder}`."
    )
