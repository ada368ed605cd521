"""Candidates of a search for a reward, read from its journal, also in the middle of a round."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, PercentFormatter

from reward_design.experiments import plots


def candidates(records: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Candidates as plain JSON values, in order; what came after the last complete list is taken in, step by step.

    Example:
        >>> records = [{"kind": "answer", "name": "mark/0", "value": {"text": "{}"}},
        ...            {"kind": "checked", "name": "1.0/0", "value": {"stage": "terms", "reason": "no terms"}}]
        >>> candidates(records)[0]["id"], candidates(records)[0]["refusal"]["reason"]
        ('1.0', 'no terms')
    """
    found: dict[str, dict[str, Any]] = {}
    answers: dict[str, str] = {}
    for record in records:
        kind, name, value = record["kind"], str(record.get("name", "")), record.get("value")
        if kind == "candidates" and isinstance(value, list):
            found |= {str(c["id"]): dict(c) for c in value if isinstance(c, dict) and "id" in c}
        elif kind == "answer" and isinstance(value, dict):
            answers[name.rpartition("/")[2]] = str(value.get("text", ""))
        elif kind == "checked":
            one = _named(found, name.partition("/")[0])
            one["refusal"] = value if isinstance(value, dict) else None
            one["source"] = one.get("source") or answers.get(one["id"].partition(".")[2], "")
        elif kind == "trained" and isinstance(value, dict):
            _named(found, name).update({k: v for k, v in value.items() if v is not None})
        elif kind == "judged" and isinstance(value, dict):
            _named(found, name).update(value)
    return list(found.values())


def trained(candidate: Mapping[str, Any]) -> bool:
    """Whether a candidate has statistics."""
    return bool(candidate.get("statistics"))


def refused(candidate: Mapping[str, Any]) -> bool:
    """Whether a candidate was turned down."""
    return bool(candidate.get("refusal"))


def score(candidate: Mapping[str, Any], name: str = "success") -> float | None:
    """Mean over seeds of a number at the end of training; a seed in which no episode ended counts as a failure.

    None without training, and for other numbers than ``success`` also where no episode of a seed ended.
    """
    missing = 0.0 if name == "success" else np.nan
    values = [missing if v is None else float(v) for v in (candidate.get("statistics") or {}).get(name, [])]
    return float(np.mean(values)) if values and np.isfinite(values).all() else None


def best(listed: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The trained candidate with the highest success, then the highest true return; the earliest of several."""

    def fitness(candidate: Mapping[str, Any]) -> tuple[float, ...]:
        return tuple(-np.inf if v is None else v for v in (score(candidate), score(candidate, "true_return")))

    return max(filter(trained, listed), key=fitness, default=None)


def status(candidate: Mapping[str, Any]) -> str:
    """``trained``, ``refused: lint``, or ``waits for training``."""
    if refused(candidate):
        return f"refused: {candidate['refusal'].get('stage', '?')}"
    return "trained" if trained(candidate) else "waits for training"


def success_curves(listed: Sequence[Mapping[str, Any]], ax: Axes) -> Axes:
    """Success against environment steps, a line per trained candidate, the best one in colour."""
    winner = best(listed)
    for candidate in filter(trained, listed):
        statistics = candidate["statistics"]
        curve = [np.nan if v is None else v for v in statistics["curves"]["success"]]
        mine = candidate is winner
        colour, width = (plots.GAIN, 2.2) if mine else (plots.MUTED, 0.9)
        ax.plot(statistics["steps"], curve, color=colour, linewidth=width, zorder=3 if mine else 2)
    ax.set_ylim(-0.03, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plots.short(x)))
    ax.set_xlabel("environment steps per run")
    ax.grid(axis="y", color=plots.RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def _named(found: dict[str, dict[str, Any]], name: str) -> dict[str, Any]:
    number = name.partition(".")[0]
    new = {"id": name, "round": int(number) if number.isdigit() else 0, "origin": "", "parents": [], "source": ""}
    return found.setdefault(name, new)
