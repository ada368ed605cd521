"""Pictures of a results folder, finished or not, by the plot functions of the reports."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reward_design.experiments import distance_table, live, plots, report
from reward_design.experiments.dashboard import searches, states
from reward_design.experiments.dashboard.reading import Experiment
from reward_design.experiments.results import Results, Unit, curve_band

METRICS = {
    "true_return": "True return",
    "success": "Success",
    "shaped_return": "Return that was paid",
    "length": "Steps of an episode",
}
"""Curves to choose from, by metric."""


def results(experiment: Experiment) -> Results:
    """A comparison or a single run as results, with what is being trained now as far as it is."""
    if experiment.kind == "run":
        return _single(experiment)
    doing = states.running(experiment)
    return Results([*experiment.records, *(_so_far(unit) for unit in doing.values())])


def curves(found: Results, task: str, metric: str) -> Markup:
    """Learning curves of all designs on a task."""
    label = f"{METRICS[metric]} on {task} against environment steps, a line per design with its interval"
    return report.svg(partial(_curves, found, task, metric), 6.2, 3.4, label)


def terms(found: Results, task: str, reward: str) -> Markup:
    """What each term of a reward paid per episode, while learning."""
    unit = found.done[task, reward]
    names = term_names(unit)
    label = f"Terms of {reward} per episode on {task}: {', '.join(n.removeprefix('term/') for n in names)}"
    return report.svg(partial(_terms, unit, names), 4.6, 2.7, label)


def term_names(unit: Unit) -> list[str]:
    """Names of curves that are terms of the reward."""
    return sorted(name for name in unit.record.get("curves", {}) if name.startswith("term/"))


def heatmap(distances: Mapping[str, Any]) -> Markup:
    """The matrix of ``distances.json`` beside its dendrogram."""
    values: dict[str, Any] = {name: np.asarray(distances[name], float) for name in ("matrix", "low", "high")}
    values |= {name: distances[name] for name in ("task", "settings", "regret", "worst_regret")}
    made = distance_table.Distances(names=tuple(distances["names"]), notes=tuple(distances.get("notes", ())), **values)
    side = 2.0 + 0.6 * len(made.names)
    label = f"STARC distances on {made.task}"
    return report.svg(lambda axes: distance_table.heatmap(made, axes), side + 3.0, side, label, columns=2)


def success(listed: list[dict[str, Any]]) -> Markup:
    """Success of the candidates of a search while they learn."""
    return report.svg(
        lambda ax: searches.success_curves(listed, ax), 6.2, 3.2,
        "Success against environment steps, a line per candidate, the best one in colour",
    )  # fmt: skip


# --- parts ----------------------------------------------------------------------------------------------------------


def _so_far(unit: Mapping[str, Any]) -> dict[str, Any]:
    """A unit in the middle of training as a record: the runs that are furthest, gaps filled with the value before."""
    rows = {name: np.asarray(values, float) for name, values in unit["curves"].items()}
    known = np.isfinite(rows.get("length", np.zeros((len(unit["seeds"]), live.NUM_POINTS)) + np.nan))
    seen = np.flatnonzero(known.any(0))
    last = int(seen[-1]) if len(seen) else -1
    ahead = np.flatnonzero(known[:, last]) if last >= 0 else np.array([], int)
    grid = (np.arange(1, last + 2) * unit["total"] / live.NUM_POINTS).tolist()
    kept = {name: _filled(values[ahead, : last + 1]).tolist() for name, values in rows.items()}
    return {
        "kind": "unit", "task": unit["task"], "reward": unit["reward"], "status": "done", "final": {},
        "seeds": [unit["seeds"][i] for i in ahead], "steps": grid or [0], "curves": kept if len(ahead) else {},
    }  # fmt: skip


def _filled(values: np.ndarray) -> np.ndarray:
    for point in range(1, values.shape[1]):
        values[:, point] = np.where(np.isfinite(values[:, point]), values[:, point], values[:, point - 1])
    return values


def _single(experiment: Experiment) -> Results:
    """One run of ``reward-design train`` as a comparison of one design with one seed."""
    identity = experiment.identity
    lines = [r for r in experiment.records if r["kind"] == "evaluation"]
    size, _ = states.steps_per_update(experiment)
    names = sorted({name for line in lines for name in line if live.is_shown(name)})
    unit = {
        "kind": "unit", "task": identity["task"], "reward": identity["reward"], "status": "done", "final": {},
        "seeds": [identity["seed"]], "steps": [line["update"] * size for line in lines] or [0],
        "curves": {name: [[line.get(name) for line in lines]] for name in names} if lines else {},
    }  # fmt: skip
    asked = {"tasks": [identity["task"]], "rewards": [identity["reward"]], "agent": identity["agent"]}
    return Results([{"kind": "comparison", "identity": asked}, unit])


def _curves(found: Results, task: str, metric: str, ax: Axes) -> Axes:
    known = {name: unit for name, unit in found.done.items() if metric in unit.record["curves"] and name[0] == task}
    asked = [r for r in found.records if r["kind"] != "unit"]
    return plots.learning_curves(Results([*asked, *(dict(u.record) for u in known.values())]), task, ax, metric=metric)


def _terms(unit: Unit, names: list[str], ax: Axes) -> Axes:
    palette = plots.looks([name.removeprefix("term/") for name in names])
    ends = {}
    for name in names:
        steps, band = curve_band(unit, name)
        term = name.removeprefix("term/")
        ax.fill_between(steps, band.low, band.high, color=palette[term].colour, alpha=0.16, linewidth=0)
        ax.plot(steps, band.value, **palette[term].line, linewidth=1.7, **plots.lone_point(band.value))
        finite = band.value[np.isfinite(band.value)]
        ends[term] = float(finite[-1]) if len(finite) else np.nan
    ax.axhline(0, color=plots.RULE, linewidth=0.8, zorder=0)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plots.short(x)))
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.set_xlim(0, max(unit.record["steps"]))
    plots.label_ends(ax, ends, palette)
    return ax
