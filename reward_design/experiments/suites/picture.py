"""The picture of a suite: every design on every task, and where it helped."""

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from reward_design.experiments import plots, statistics
from reward_design.experiments.suites.verdict import Verdict, normalised


def score_map(judged: Verdict, ax: Axes) -> Axes:
    """A tile per design and task with the interquartile mean of its normalised score.

    Green tiles helped and orange ones harmed: the 95 % interval of the probability that a run beats one of the baseline
    is clear of one half. Designs that were not run on a task have no tile there, a cross marks those that failed.
    """
    scores = normalised(judged.results)
    verdicts = {line.reward: (line.helped, line.harmed, line.failed) for line in judged.lines}
    rows, columns = list(judged.rewards), [name for name in judged.results if any(n == name for n, _ in scores)]
    found = {(r, c): scores[c, r] for r in rows for c in columns if (c, r) in scores}
    tiles = [plots.tile(rows.index(r), columns.index(c)) for r, c in found]
    plots.draw_tiles(ax, tiles, [_shade(r, c, verdicts) for r, c in found])
    for (reward, column), values in found.items():
        value = float(statistics.interquartile_mean(values))
        _write(ax, columns.index(column), rows.index(reward), f"{value:.2f}")
    for reward, (_, _, failed) in verdicts.items():
        for column in set(failed) & set(columns):
            _write(ax, columns.index(column), rows.index(reward), "✕")
    _label(ax, rows, [judged.tasks[column] for column in columns])
    return ax


def _shade(reward: str, column: str, verdicts: Mapping[str, tuple[tuple[str, ...], ...]]) -> tuple[str, float]:
    helped, harmed, _ = verdicts[reward]
    if column in helped:
        return plots.GAIN, 0.4
    return (plots.LOSS, 0.4) if column in harmed else (plots.MUTED, 0.12)


def _write(ax: Axes, x: int, y: int, text: str) -> None:
    ax.text(x, y, text, ha="center", va="center", fontsize=8, color=plots.INK)


def _label(ax: Axes, rows: list[str], columns: list[str]) -> None:
    ax.set_xlim(-0.5, len(columns) - 0.5)
    ax.set_ylim(len(rows) - 0.5, -0.5)
    ax.set_xticks(np.arange(len(columns)), columns, rotation=35, ha="left", rotation_mode="anchor")
    ax.set_yticks(np.arange(len(rows)), list(plots.shown(rows).values()))
    ax.xaxis.tick_top()
    ax.tick_params(length=0, colors=plots.INK)
    for side in ax.spines.values():
        side.set_visible(False)
