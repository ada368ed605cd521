"""What a model is told about earlier candidates, as text: tables of components, failures, best and worst."""

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reward_design.llm.designers.candidates import Candidate, Statistics

MAX_LINES = 40
"""Lines of a difference that are shown."""


def number(value: Any) -> str:
    """Three digits, ``?`` for what is not known.

    Example:
        >>> number(0.12345), number(None), number(-20.0)
        ('0.123', '?', '-20')
    """
    return "?" if value is None or not np.isfinite(value) else f"{value:.3g}"


def points(curve: Sequence[Any], num: int) -> list[Any]:
    """About ``num`` equidistant values of a curve, the first and the last included.

    Example:
        >>> points(list(range(100)), 3)
        [0, 50, 99]
    """
    if len(curve) <= num:
        return list(curve)
    places = np.floor(np.linspace(0, len(curve) - 1, num) + 0.5).astype(int)
    return [curve[i] for i in places]


def component_table(
    statistics: Statistics, *, num_points: int = 10, names: Sequence[str] | None = None, score: bool = True
) -> str:
    """Eureka's reflection: of every quantity about ten values over training, then maximum, mean and minimum.

    Args:
        statistics: of a candidate.
        num_points: values of a line.
        names: curves to show; by default components, success, true return, and length.
        score: False leaves out what judges the task (success, true return), as ICPL does.

    Returns:
        A line per quantity.

    Source: Ma et al., "Eureka", ICLR 2024, arXiv 2310.12931.
    """
    judged = ("success", "true_return") if score else ()
    chosen = names or (*(n for n in statistics.curves if n.startswith("term/")), *judged, "length")
    return "\n".join(_line(name, statistics.curves[name], num_points) for name in chosen if name in statistics.curves)


def _line(name: str, curve: Sequence[Any], num_points: int) -> str:
    title = name.removeprefix("term/").replace("_", " ") if not name.startswith("term/") else name[5:]
    known = [v for v in curve if v is not None and np.isfinite(v)]
    values = ", ".join(map(number, points(curve, num_points)))
    if not known:
        return f"{title}: [{values}]"
    return f"{title}: [{values}], Max: {number(max(known))}, Mean: {number(np.mean(known))}, Min: {number(min(known))}"


def tips(statistics: Statistics) -> list[str]:
    """What the numbers ask for: Eureka's advice, given where it applies instead of always.

    Example:
        >>> flat = Statistics((0.0,), (0.0,), (9.0,), (1, 2), {"term/a": (1.0, 1.0), "term/b": (0.0, 50.0)})
        >>> for tip in tips(flat):
        ...     print(tip)
        Success stays near zero: rewrite the whole reward.
        Component a hardly changes: rescale it, express it in another way, or leave it out.
        Component b is much larger than the others: scale it down.
    """
    found = []
    if statistics.fitness.success < 0.05:
        found.append("Success stays near zero: rewrite the whole reward.")
    sizes = {name: _known(statistics.curves[f"term/{name}"]) for name in statistics.terms}
    for name, values in sizes.items():
        if len(values) > 1 and np.ptp(values) <= 0.01 * max(np.abs(values).max(), 1e-9):
            found.append(f"Component {name} hardly changes: rescale it, express it in another way, or leave it out.")
    means = {name: float(np.abs(values).mean()) for name, values in sizes.items() if len(values)}
    for name, size in means.items():
        others = [other for key, other in means.items() if key != name]
        if others and size > 10 * max(others):
            found.append(f"Component {name} is much larger than the others: scale it down.")
    return found


def judgement(candidate: Candidate) -> str:
    """Distance and audit of a candidate, where there are any; empty otherwise."""
    lines = []
    if candidate.distance is not None:
        lines.append(
            f"STARC distance to the task's own reward: {number(candidate.distance)} "
            "(0: orders all behaviour alike, 1: unrelated, 2: opposite)."
        )
    if candidate.audit:
        lines.append(f"Audit: {candidate.audit}")
    return "\n".join(lines)


# --- Auto MC-Reward -------------------------------------------------------------------------------------------------


def failure_report(statistics: Statistics, *, num_traces: int = 3) -> str:
    """How all played episodes ended, then a few compressed ones, failures first.

    The histogram is over all episodes, so that one salient failure does not stand for all.

    Args:
        statistics: of a candidate.
        num_traces: episodes to show.
    """
    total = max(statistics.episodes, 1)
    lines = [f"Of {statistics.episodes} episodes played after training:"]
    by_count = sorted(statistics.outcomes.items(), key=lambda item: (-item[1], item[0]))
    lines += [f"- {count} ({100 * count / total:.0f} %): {how}" for how, count in by_count]
    flags = sorted(statistics.events.items(), key=lambda item: (-item[1], item[0]))
    lines += [f"- flag {name} was raised in {count} of them" for name, count in flags if count]
    for i, trace in enumerate(statistics.traces[:num_traces], start=1):
        lines += [f"\nEpisode {i}:", trace]
    return "\n".join(lines)


# --- ICPL -----------------------------------------------------------------------------------------------------------


def difference(old: str, new: str) -> str:
    r"""Lines that changed from one source to another, in unified form without its heading.

    Example:
        >>> print(difference("a\nb", "a\nc"))
         a
        -b
        +c
    """
    lines = list(difflib.unified_diff(old.strip().splitlines(), new.strip().splitlines(), n=1, lineterm=""))
    body = [line for line in lines if not line.startswith(("---", "+++", "@@"))]
    cut = [] if len(body) <= MAX_LINES else [f"... and {len(body) - MAX_LINES} more lines"]
    return "\n".join([*body[:MAX_LINES], *cut]) or "(no difference)"


def best_and_worst(best: Candidate, worst: Candidate, earlier: Sequence[Candidate] = ()) -> dict[str, Any]:
    """ICPL's feedback: both sources with their reward traces, and what this best changed of earlier best ones.

    Args:
        best: preferred by the judge.
        worst: the least preferred.
        earlier: the best of earlier rounds, oldest first.

    Returns:
        Values for the template: sources, traces without any score of the task, differences.

    Source: Yu et al., "In-Context Preference Learning", 2024, arXiv 2410.17233.
    """
    return {
        "best": best.source.strip(),
        "worst": worst.source.strip(),
        "best_trace": _trace(best),
        "worst_trace": _trace(worst),
        "differences": [difference(old.source, best.source) for old in earlier if old.digest != best.digest],
    }


def _trace(candidate: Candidate) -> str:
    return "" if candidate.statistics is None else component_table(candidate.statistics, score=False)


# --- CARD -----------------------------------------------------------------------------------------------------------


def process(statistics: Statistics, *, num_points: int = 5) -> str:
    """CARD's process feedback: a line for each of five points of training with everything known there."""
    places = points(range(len(statistics.steps)), num_points)
    lines = []
    for i in places:
        assert i is not None
        row = {name: curve[int(i)] for name, curve in statistics.curves.items()}
        terms = ", ".join(f"{k[5:]} {number(v)}" for k, v in row.items() if k.startswith("term/"))
        lines.append(
            f"step {statistics.steps[int(i)]}: return {number(row.get('true_return'))}, success "
            f"{number(row.get('success'))}, length {number(row.get('length'))}; paid per episode: {terms}"
        )
    spread = np.std(_known(statistics.true_return)) if len(_known(statistics.true_return)) else None
    return "\n".join([*lines, f"spread of the return over seeds: {number(spread)}"])


def preference_report(found: Mapping[str, Any]) -> str:
    """CARD's preference feedback: the accuracy, the weakest success and the strongest failure.

    Args:
        found: ``accuracy``, ``successes``, ``failures``, and ``weakest_success``, ``strongest_failure``: traces.
    """
    lines = [
        f"On {found['successes']} successful and {found['failures']} failed episodes the reward ranks "
        f"{100 * found['accuracy']:.0f} % of the successes above all failures; it was not used for training."
    ]
    for title, name in (
        ("A success that it pays too little", "weakest_success"),
        ("A failure that it pays too much", "strongest_failure"),
    ):
        if found.get(name):
            lines += [f"\n{title}:", found[name]]
    return "\n".join(lines)


def _known(values: Sequence[Any]) -> np.ndarray:
    return np.asarray([v for v in values if v is not None and np.isfinite(v)], float)
