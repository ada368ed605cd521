"""Candidates of a search for a reward: where each came from, why it was refused, or how it did."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np


class Fitness(NamedTuple):
    """What candidates are ranked by: first the success rate, then the return of the true reward.

    Attributes:
        success: share of episodes that achieve the task, a mean over seeds.
        true_return: return of the task's own reward, a mean over seeds.
    """

    success: float
    true_return: float


WORST = Fitness(float("-inf"), float("-inf"))
"""Of a candidate that was not trained."""


@dataclass(frozen=True)
class Refusal:
    """Why a candidate was not trained.

    Attributes:
        stage: ``"answer"``, ``"duplicate"``, ``"critic"``, ``"preference"``, ``"training"``, or a stage of the checks.
        reason: in words that a model can act on.
    """

    stage: str
    reason: str


@dataclass(frozen=True)
class Statistics:
    """What training with a candidate gave; curves are means over seeds.

    Attributes:
        success: success rate of each seed at the end.
        true_return: return of the true reward of each seed at the end.
        length: steps of an episode of each seed at the end.
        steps: environment steps of one run at the points of the curves.
        curves: by name: ``success``, ``true_return``, ``length``, ``shaped_return`` and ``term/<name>``.
        outcomes: how many of the played episodes ended in which way.
        events: by flag of the environment, in how many of the played episodes it was raised.
        traces: compressed episodes, failures first.
        env_steps: environment steps of all seeds.
        seconds: of training.
    """

    success: tuple[float | int, ...]
    true_return: tuple[float | int, ...]
    length: tuple[float | int, ...]
    steps: tuple[int, ...]
    curves: Mapping[str, tuple[float | int | None, ...]]
    outcomes: Mapping[str, int] = field(default_factory=dict)
    events: Mapping[str, int] = field(default_factory=dict)
    traces: tuple[str, ...] = ()
    env_steps: int = 0
    seconds: float | int = 0.0

    @property
    def fitness(self) -> Fitness:
        """Means over seeds; a seed in which no episode ended counts as a failure."""
        return Fitness(_mean(self.success, 0.0), _mean(self.true_return, float("-inf")))

    @property
    def episodes(self) -> int:
        """How many were played."""
        return sum(self.outcomes.values())

    @property
    def terms(self) -> tuple[str, ...]:
        """Names of the components of the reward."""
        return tuple(name.removeprefix("term/") for name in self.curves if name.startswith("term/"))


@dataclass(frozen=True)
class Candidate:
    """A reward that was proposed.

    Attributes:
        id: ``"<round>.<draw>"``.
        source: its text, after all repairs.
        language: ``"code"`` or ``"terms"``.
        round: from 0.
        parents: ids of the candidates that it was made from.
        origin: what it is: ``"new"``, ``"mutation"``, ``"crossover"``, ``"random"``.
        repairs: how often it went back to the model.
        remarks: what the critic said, in order.
        refusal: why it was not trained, or None.
        statistics: what training gave, or None.
        distance: STARC distance to the true reward in [0, 2], or None where it has none.
        audit: the verdict in a sentence, or why there is none.
        accuracy: of CARD's gate, or None.
        rating: Elo of the judgements of pairs, or None where nobody judged.
        feedback: what a person said about it in words, in order.
    """

    id: str
    source: str
    language: str
    round: int
    parents: tuple[str, ...] = ()
    origin: str = "new"
    repairs: int = 0
    remarks: tuple[str, ...] = ()
    refusal: Refusal | None = None
    statistics: Statistics | None = None
    distance: float | None = None
    audit: str = ""
    accuracy: float | None = None
    rating: float | None = None
    feedback: tuple[str, ...] = ()

    @property
    def fitness(self) -> Fitness:
        """That of its statistics; the worst of all without."""
        return WORST if self.statistics is None else self.statistics.fitness

    @property
    def trained(self) -> bool:
        """Whether it has statistics."""
        return self.statistics is not None

    @property
    def digest(self) -> str:
        """Hash of the source, spaces at its ends aside: equal for candidates that need not be trained twice."""
        return hashlib.sha256(f"{self.language}\n{self.source.strip()}".encode()).hexdigest()[:16]

    def record(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    def with_(self, **changes: Any) -> "Candidate":
        """A copy with some fields changed."""
        return replace(self, **changes)


def candidate_from(record: Mapping[str, Any]) -> Candidate:
    """The candidate of a record that :meth:`Candidate.record` made, also after JSON.

    Example:
        >>> one = Candidate("0.1", "{}", "terms", 0, refusal=Refusal("answer", "no JSON"))
        >>> candidate_from(one.record()) == one
        True
    """
    known = {name: record[name] for name in Candidate.__dataclass_fields__ if name in record}
    for name in ("parents", "remarks", "feedback"):
        known[name] = tuple(known.get(name) or ())
    if known.get("refusal"):
        known["refusal"] = Refusal(**known["refusal"])
    if known.get("statistics"):
        known["statistics"] = statistics_from(known["statistics"])
    return Candidate(**known)


def statistics_from(record: Mapping[str, Any]) -> Statistics:
    """The statistics of a record; numbers that JSON cannot hold come back as NaN."""
    values = dict(record)
    for name in ("success", "true_return", "length"):
        values[name] = tuple(float("nan") if v is None else float(v) for v in values[name])
    values["steps"] = tuple(values["steps"])
    values["curves"] = {name: tuple(curve) for name, curve in values["curves"].items()}
    values["traces"] = tuple(values.get("traces", ()))
    return Statistics(**values)


def best(candidates: Iterable[Candidate]) -> Candidate | None:
    """The fittest trained candidate, the earliest of several; None if there is none."""
    return max((c for c in candidates if c.trained), key=lambda c: c.fitness, default=None)


def place(name: str) -> tuple[int, ...]:
    """Where a candidate stands in the order of a search, from its id.

    Example:
        >>> place("0.9") < place("0.10") < place("1.0")
        True
    """
    return tuple(int(part) for part in name.split("."))


def _mean(values: Iterable[Any], missing: float) -> float:
    known = [missing if not np.isfinite(v) else float(v) for v in values]
    return sum(known) / len(known) if known else missing
