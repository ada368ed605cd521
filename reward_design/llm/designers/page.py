"""The page of a search: candidates, where they came from, what they are, how they did, why each was refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, PercentFormatter

from reward_design.experiments import plots, report
from reward_design.experiments.results import Results
from reward_design.experiments.store import FILE, REPORT, read
from reward_design.llm.designers.candidates import Candidate, best, candidate_from
from reward_design.llm.designers.reflection import component_table

FINAL = "final"
"""Sub-folder of the comparison with the controls."""


def write(folder: str | Path) -> Path:
    """Write ``folder/report.html`` from the records there, also of a search that is not finished; returns its path."""
    folder = Path(folder)
    draft = folder / f"{REPORT}.part"
    draft.write_text(render(folder), encoding="utf-8")
    return draft.replace(folder / REPORT)


def render(folder: Path) -> str:
    """The page as HTML text."""
    records = read(folder)
    identity = next(r["identity"] for r in reversed(records) if r["kind"] == "comparison")
    found = candidates(records)
    winner = best(found)
    used = [r["value"]["used"] for r in records if r["kind"] == "answer"]
    ends = [r["stopped"] for r in records if r["kind"] == "end"]
    final = Results.load(folder / FINAL) if (folder / FINAL / FILE).is_file() else None
    trained = [c for c in found if c.trained]
    return _environment().get_template("design.html.j2").render(
        identity=identity, folder=folder, candidates=found, trained=trained, best=winner,
        refused=[c for c in found if c.refusal], rated=any(c.rating is not None for c in found),
        num_rounds=len({c.round for c in found}),
        headline=_headline(winner, identity), used=used[-1] if used else {"calls": 0, "tokens": 0, "money": 0},
        stopped=ends[-1] if ends else "", final=final.rows if final else [],
        num_final=len(final.identity["seeds"]) if final else 0,
        session=next(r for r in reversed(records) if r["kind"] == "session"),
        curves=report.svg(lambda ax: learning_curves(trained, ax), 5.4, 3.3, "Success while learning"),
        progress=report.svg(lambda ax: rounds(trained, ax), 5.4, 3.3, "Success by round"),
    )  # fmt: skip


def candidates(records: Sequence[dict[str, Any]]) -> list[Candidate]:
    """All candidates of a search as its records have them, in order."""
    listed = [r["value"] for r in records if r["kind"] == "candidates"]
    return [candidate_from(value) for value in listed[-1]] if listed else []


def learning_curves(trained: Sequence[Candidate], ax: Axes) -> Axes:
    """Success against environment steps, a line per candidate, the best one in colour."""
    winner = best(trained)
    for candidate in trained:
        assert candidate.statistics is not None
        mine = winner is not None and candidate.id == winner.id
        curve = [np.nan if v is None else v for v in candidate.statistics.curves["success"]]
        colour, width = (plots.GAIN, 2.2) if mine else (plots.MUTED, 0.8)
        form = "o" if len(curve) == 1 else "-"  # a planner does not learn
        ax.plot(candidate.statistics.steps, curve, form, color=colour, linewidth=width, zorder=3 if mine else 2)
    ax.set_xlabel("environment steps per run")
    return _percent_axis(ax)


def rounds(trained: Sequence[Candidate], ax: Axes) -> Axes:
    """Success at the end of training by round, and the best so far."""
    numbers = [c.round for c in trained]
    ax.plot(numbers, [c.fitness.success for c in trained], "o", color=plots.MUTED, alpha=0.6)
    known = sorted(set(numbers))
    tops = [max(c.fitness.success for c in trained if c.round == n) for n in known]
    ax.step(known, np.maximum.accumulate(tops), where="post", color=plots.GAIN, linewidth=2.2)
    ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    ax.set_xlabel("round")
    return _percent_axis(ax)


def _percent_axis(ax: Axes) -> Axes:
    ax.set_ylim(-0.03, 1.03)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    ax.grid(axis="y", color=plots.RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def _headline(winner: Candidate | None, identity: dict[str, Any]) -> str:
    if winner is None:
        return "No candidate has been trained yet."
    fitness = winner.fitness
    return (
        f"The best reward, {winner.id}, leads to {fitness.success:.0%} success and a true return of "
        f"{fitness.true_return:.4g}."
    )


def _environment() -> jinja2.Environment:
    loader = jinja2.ChoiceLoader(
        [
            jinja2.PackageLoader("reward_design.llm.designers", "templates"),
            jinja2.PackageLoader("reward_design.experiments", "templates"),
        ]
    )
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": report.number, "interval": report.interval, "pretty": _pretty, "table": component_table,
    }  # fmt: skip
    return environment


def _pretty(source: str) -> str:
    """A document of terms with a line per term; code as it is."""
    try:
        document = json.loads(source)
        lines = ",\n".join(f"  {json.dumps(term)}" for term in document["terms"])
    except (ValueError, KeyError, TypeError):
        return source
    return f'{{"terms": [\n{lines}\n]}}'
