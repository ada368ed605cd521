"""What a search leaves in its folder and on the terminal: a table and a picture of its trials."""

import csv
import os
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from reward_design.experiments import plots, report
from reward_design.experiments.searching import Search

TABLE, PICTURE = "trials.csv", "trials.png"
"""Files."""
SHOWN = 5
"""Best trials on the terminal."""


def write(found: Search, out: str | os.PathLike[str]) -> None:
    """Write ``trials.csv``, a row per trial, and ``trials.png``."""
    names = list(found.trials[0].settings)
    with (Path(out) / TABLE).open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["trial", *names, found.objective, "low", "high", "reason"])
        for trial in found.trials:
            value = ("", "", "") if trial.value is None else (trial.value.value, trial.value.low, trial.value.high)
            table.writerow([trial.number, *trial.settings.values(), *value, trial.reason])
    style: Any = {**plots.STYLE, "figure.facecolor": "white"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(1.2 + 2.9 * len(names), 3.2), layout="constrained")
        axes = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for name, ax in zip(names, axes, strict=True):
            settings(found, name, ax)
        axes[0].set_ylabel(found.objective.replace("_", " "))
        figure.savefig(Path(out) / PICTURE, dpi=150)


def settings(found: Search, name: str, ax: Axes) -> Axes:
    """The objective of every trial against one of its settings, with 95 % intervals; the best one stands out.

    Args:
        found: a search.
        name: of the setting.
        ax: to draw in.
    """
    trials = [(trial.settings[name], trial.value) for trial in found.trials if trial.value is not None]
    if trials:
        x = np.array([setting for setting, _ in trials], float)
        y, low, high = np.array([[value.value, value.low, value.high] for _, value in trials]).T
        best = int(np.argmax(y))
        colour = [plots.GAIN if i == best else plots.MUTED for i in range(len(x))]
        ax.vlines(x, low, high, colors=colour, linewidth=1, alpha=0.5)
        ax.scatter(x, y, c=colour, s=22, zorder=3)
    span = found.results.identity["search"]["space"][name]
    ax.set_xscale("log" if span["log"] else "linear")
    ax.set_xlabel(name)
    return ax


def show(found: Search, out: str | os.PathLike[str], console: Console) -> None:
    """Print the best trials, how many had no value, the best settings as options, and where the files are."""
    valued = [trial for trial in found.trials if trial.value is not None]
    console.print(_table(found))
    missing = [trial for trial in found.trials if trial.value is None]
    if missing:
        reason = escape(missing[0].reason)
        console.print(f"[red]{len(missing)} of {len(found.trials)} trials have no value[/red], the first: {reason}")
    if valued:
        text = " ".join(f"{name}={value}" for name, value in found.best.settings.items())
        console.print(f"\nBest of {len(valued)}: {text}", soft_wrap=True, highlight=False, markup=False)
    console.print(f"Trials: {(Path(out) / TABLE).resolve()}", soft_wrap=True, highlight=False)


def _table(found: Search) -> Table:
    """The best trials, with settings and intervals."""
    valued = [trial for trial in found.trials if trial.value is not None]
    ranked = sorted(valued, key=lambda trial: -trial.value.value if trial.value else 0.0)[:SHOWN]
    num_seeds = len(found.results.identity["seeds"])
    table = Table(
        title=f"Last tenth of training, {num_seeds} seeds: interquartile mean and 95 % interval",
        title_justify="left", title_style="dim", box=None, padding=(0, 2, 0, 0), header_style="dim",
    )  # fmt: skip
    for name in ("trial", *found.trials[0].settings, found.objective.replace("_", " ")):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("")
    decimals = report.digits(trial.value for trial in ranked)
    for trial in ranked:
        numbers = (f"{value:g}" for value in trial.settings.values())
        value, interval = report.number(trial.value, decimals), report.interval(trial.value, decimals)
        table.add_row(str(trial.number), *numbers, value, f"[dim]{interval}[/dim]")
    return table
