"""Pictures of a comparison. Every function takes results and an ``Axes``, draws, and returns the ``Axes``.

Colours and dashes belong to designs and are the same in all pictures (:mod:`reward_design.experiments.looks`); they are
told apart with colour-blind eyes (M. Okabe and K. Ito, "Color Universal Design", 2008) and on light and dark paper.
Lines carry their names, so there are no legends.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PatchCollection
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reward_design.experiments.looks import INK, SOLID, TRUE_REWARD, Look, looks
from reward_design.experiments.results import Results, Unit, curve_band

MUTED, RULE, WALL = "#6c7078", "#dddad1", "#a9a79f"
"""Colours of secondary text, rules and walls; the report replaces them by those of the reader's theme."""
GAIN, LOSS, FAR = "#009e73", "#d55e00", "#3f7fbf"
"""Positive reward, negative reward, distance."""
STYLE: dict[str, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.edgecolor": RULE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "text.color": INK,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.major.size": 3,
    "ytick.major.size": 0,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "lines.solid_capstyle": "round",
}
"""Settings for ``matplotlib.rc_context``, for all pictures here."""


def colours(rewards: Sequence[str]) -> dict[str, str]:
    """The colour per design, for what has no line; see :func:`~reward_design.experiments.looks.looks` for lines.

    Example:
        >>> colours(["sparse", "my:own"])["sparse"]
        '#8b8f98'
    """
    return {name: look.colour for name, look in looks(rewards).items()}


def shown(names: Iterable[str]) -> dict[str, str]:
    """Names as they are written: without the module where that leaves no doubt.

    Example:
        >>> shown(["sparse", "my_module:mine"])
        {'sparse': 'sparse', 'my_module:mine': 'mine'}
    """
    last = {name: name.rsplit(":", 1)[-1] for name in names}
    return {name: short if [*last.values()].count(short) == 1 else name for name, short in last.items()}


def learning_curves(results: Results, task: str, ax: Axes, *, metric: str = "true_return") -> Axes:
    """Interquartile mean over seeds of an episode metric against environment steps, with its 95 % band."""
    palette = looks(results.rewards)
    units = {reward: unit for (t, reward), unit in results.done.items() if t == task}
    ends = {}
    for reward in sorted(units, key=lambda r: r == results.baseline, reverse=True):
        ends[reward] = _curve(units[reward], metric, ax, palette[reward])
    ax.set_xlabel("environment steps per run")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: short(x)))
    ax.xaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    ax.yaxis.set_major_locator(MaxNLocator(5))
    ax.grid(axis="y", color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(0, max((unit.record["steps"][-1] for unit in units.values()), default=1))
    label_ends(ax, ends, palette)
    return ax


def distance_heatmap(exact: Mapping[str, Any], ax: Axes) -> Axes:
    """Matrix of STARC distances between designs and the true reward, with the numbers written in."""
    names, matrix = exact["names"], np.asarray(exact["matrix"], float)
    n = len(names)
    tiles = [Rectangle((j + 0.03, i + 0.03), 0.94, 0.94) for i in range(n) for j in range(n)]
    shade = np.clip(matrix.ravel() / 2.0, 0, 1) ** 0.8 * 0.85
    draw_tiles(ax, tiles, [(FAR, 0.04 + a) for a in shade])
    for i in range(n):
        for j in range(n):
            strong = TRUE_REWARD in (names[i], names[j])
            ax.text(
                j + 0.5, i + 0.52, f"{matrix[i, j]:.2f}" if i != j else "0", ha="center", va="center",
                color=INK if matrix[i, j] > 1 or (strong and i != j) else MUTED, fontsize=9.5 if n < 8 else 8,
            )  # fmt: skip
    ax.set_xlim(0, n)
    ax.set_ylim(n, 0)
    labels = list(shown(names).values())
    ax.set_xticks(np.arange(n) + 0.5, labels, rotation=35, ha="left", rotation_mode="anchor")
    ax.set_yticks(np.arange(n) + 0.5, labels)
    ax.xaxis.tick_top()
    ax.tick_params(length=0, colors=INK)
    _bare(ax)
    return ax


def distance_scatter(results: Results, task: str, ax: Axes, *, against: str = "regret") -> Axes:
    """STARC distance from the true reward against what it costs, one labelled point per design.

    Args:
        results: the comparison.
        task: a task with exact dynamics.
        ax: where to draw.
        against: ``"regret"`` of the policy that is optimal for the design (exact), or ``"true_return"`` that the agent
            reached (interquartile mean with its interval).
    """
    exact, palette = results.exact[task], colours(results.rewards)
    rows = {row.reward: row for row in results.rows if row.task == task}
    points: dict[str, tuple[float, float]] = {}
    for name, distance in zip(exact["names"], exact["matrix"][0], strict=True):
        estimate = rows[name].true_return if name in rows else None
        if against == "regret" and name in exact["regret"]:
            points[name] = (distance, exact["regret"][name])
        elif against != "regret" and estimate is not None:
            points[name] = (distance, estimate.value)
            ax.plot([distance] * 2, [estimate.low, estimate.high], color=palette[name], linewidth=2, alpha=0.45)
    for name, (x, y) in points.items():
        ax.plot(x, y, "o", color=palette.get(name, INK), markersize=6.5, markeredgewidth=0, clip_on=False, zorder=3)
    ax.set_xlabel("STARC distance from the true reward")
    ax.grid(color=RULE, linewidth=0.6)
    ax.set_axisbelow(True)
    for side in ax.spines.values():
        side.set_visible(False)
    ax.set_xlim(-0.06, max([1.5, *(1.1 * x for x, _ in points.values())]))
    if against == "regret":
        ax.set_ylim(-0.06, max([1.06, *(1.1 * y for _, y in points.values())]))
    else:
        low, high = ax.get_ylim()
        middle, half = (low + high) / 2, max(0.6 * (high - low), 0.05 * abs(low + high), 1e-3)
        ax.set_ylim(middle - half, middle + half)
    _label_points(ax, points, palette)
    return ax


def reward_map(exact: Mapping[str, Any], name: str, ax: Axes, *, layer: int = 0) -> Axes:
    """Best expected reward of each state as tiles (green gains, orange losses), with the greedy policy as arrows.

    Args:
        exact: the exact record of a task with a layout.
        name: a design in ``exact["names"]``.
        ax: where to draw.
        layer: which copy of the grid, see :class:`reward_design.envs.Layout`.
    """
    layout = exact["layout"]
    walls, values = np.asarray(layout["walls"], bool), np.asarray(exact["maps"][name], float)
    scale = np.abs(values).max() or 1.0
    states = np.flatnonzero(np.asarray(layout["layer"]) == layer)
    cells = np.asarray(layout["cells"])
    tiles = [tile(*cells[s]) for s in states]
    shades = [(GAIN if values[s] > 0 else LOSS, 0.8 * np.sqrt(abs(values[s]) / scale)) for s in states]
    draw_tiles(ax, [tile(*cell) for cell in np.argwhere(walls)], [(WALL, 1.0)] * int(walls.sum()), gap=False)
    draw_tiles(ax, tiles, [(c, a) if a > 0 else (RULE, 0.35) for c, a in shades])
    marks = {tuple(cell): text for *cell, text in layout["marks"]}
    _arrows(ax, exact, name, [s for s in states if tuple(cells[s]) not in marks])
    for (row, column), text in marks.items():
        ax.text(column, row + 0.03, text, ha="center", va="center", fontsize=7, fontweight="bold", color=INK)
    height, width = walls.shape
    ax.set_xlim(-0.5, width - 0.5)
    ax.set_ylim(height - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    _bare(ax)
    return ax


# --- parts ----------------------------------------------------------------------------------------------------------


def credit(contributions: Any, true_reward: Any, ax: Axes, *, name: str = "spa") -> Axes:
    """What each step of an episode is credited with, and what it really earned.

    Args:
        contributions: ``[T]`` of a learned redistribution.
        true_reward: ``[T]`` the reward that was delayed.
        ax: where to draw.
        name: of the method, for its colour and label.

    Returns:
        ``ax``.

    Raises:
        ValueError: if the two differ in shape.
    """
    contributions, true_reward = np.asarray(contributions, float), np.asarray(true_reward, float)
    if contributions.shape != true_reward.shape or contributions.ndim != 1:
        raise ValueError(
            f"expected two arrays [T] of one episode, got shapes {contributions.shape} and {true_reward.shape}."
        )
    palette = colours([name]) | {TRUE_REWARD: INK}
    steps = np.arange(1, len(contributions) + 1)
    ax.step(steps, true_reward, where="mid", color=INK, linewidth=1.2)
    ax.step(steps, contributions, where="mid", color=palette[name], linewidth=1.8)
    label_ends(ax, {TRUE_REWARD: float(true_reward[-1]), name: float(contributions[-1])}, palette)
    ax.axhline(0, color=RULE, linewidth=0.8, zorder=0)
    ax.set_xlabel("step")
    ax.set_ylabel("reward")
    ax.margins(x=0)
    return ax


def _curve(unit: Unit, metric: str, ax: Axes, look: Look) -> float:
    """Draw one design; returns where its line ends."""
    steps, band = curve_band(unit, metric)
    ax.fill_between(steps, band.low, band.high, color=look.colour, alpha=0.16, linewidth=0)
    ax.plot(steps, band.value, **look.line, linewidth=1.9, **lone_point(band.value))
    known = band.value[np.isfinite(band.value)]
    return float(known[-1]) if len(known) else np.nan


def lone_point(values: np.ndarray) -> dict[str, Any]:
    """What shows a curve of one known point, which has no line to be seen by; nothing for others.

    Example:
        >>> lone_point(np.array([np.nan, 0.5])), lone_point(np.array([0.1, 0.5]))
        ({'marker': 'o', 'markersize': 5}, {})
    """
    return {"marker": "o", "markersize": 5} if np.isfinite(values).sum() == 1 else {}


def label_ends(ax: Axes, ends: Mapping[str, float], palette: Mapping[str, str | Look]) -> None:
    """Names at the right ends of lines, moved apart where they would overlap; behind a sample of lines with dashes."""
    low, high = ax.get_ylim()
    wanted = {k: (v - low) / (high - low) for k, v in ends.items() if np.isfinite(v)}
    texts, known = shown(ends), {k: v if isinstance(v, Look) else Look(v) for k, v in palette.items()}
    dashed = any(known[name].dashes != SOLID for name in wanted)
    for name, y in _spread(wanted, min(0.075, 1 / max(1, len(wanted) - 1))).items():
        if dashed:
            line = {**known[name].line, "linewidth": 1.6, "transform": ax.transAxes, "clip_on": False}
            ax.add_artist(Line2D([1.02, 1.1], [y, y], **line))
        ax.text(
            1.12 if dashed else 1.02, y, texts[name], transform=ax.transAxes, color=known[name].colour, va="center",
            ha="left", fontsize=9, fontweight="bold", clip_on=False,
        )  # fmt: skip


def _spread(wanted: Mapping[str, float], gap: float) -> dict[str, float]:
    """Positions in [0, 1] at least ``gap`` apart, in the same order and near the wanted ones."""
    names = sorted(wanted, key=lambda k: wanted[k])
    y = np.array([wanted[k] for k in names])
    for _ in range(200):
        close = np.diff(y) < gap - 1e-9
        if not close.any():
            break
        for i in np.flatnonzero(close):
            push = (gap - (y[i + 1] - y[i])) / 2
            y[i], y[i + 1] = y[i] - push, y[i + 1] + push
    if len(y) and y[-1] - y[0] <= 1:
        y += max(0.0, -y[0]) - max(0.0, y[-1] - 1.0)
    return dict(zip(names, y.tolist(), strict=True))


def _label_points(ax: Axes, points: Mapping[str, tuple[float, float]], palette: Mapping[str, str]) -> None:
    (x0, x1), (y0, y1) = ax.get_xlim(), ax.get_ylim()
    at = {k: ((x - x0) / (x1 - x0), (y - y0) / (y1 - y0)) for k, (x, y) in points.items()}
    texts = shown(points)
    left = {k for k, (x, _) in at.items() if x > 0.72}
    for side in (left, at.keys() - left):
        placed: list[tuple[float, float]] = []
        for name in sorted(side, key=lambda k: at[k][1]):
            x, y = at[name]
            while any(abs(y - b) < 0.068 and abs(x - a) < 0.3 for a, b in placed):
                y += 0.01
            placed.append((x, y))
            offset = -0.022 if name in left else 0.022
            ax.text(
                x + offset, y, texts[name], transform=ax.transAxes, color=palette.get(name, INK), fontsize=9,
                va="center", ha="right" if name in left else "left", fontweight="bold",
            )  # fmt: skip


def tile(row: Any, column: Any) -> Rectangle:
    """The unit square around a cell."""
    return Rectangle((column - 0.5, row - 0.5), 1, 1)


def draw_tiles(ax: Axes, tiles: Sequence[Rectangle], shades: Sequence[tuple[str, float]], *, gap: bool = True) -> None:
    """Fill squares with a colour and an opacity each, with or without a gap between neighbours."""
    if gap:
        tiles = [
            Rectangle((t.get_x() + 0.03, t.get_y() + 0.03), t.get_width() - 0.06, t.get_height() - 0.06) for t in tiles
        ]
    patches = PatchCollection(list(tiles), facecolors=list(shades), edgecolors="none", linewidths=0)
    ax.add_collection(patches)


def _arrows(ax: Axes, exact: Mapping[str, Any], name: str, states: Sequence[Any]) -> None:
    """An arrow per optimal action; a dot where staying, or every action, is as good."""
    arrows, greedy = np.asarray(exact["layout"]["arrows"], float), np.asarray(exact["greedy"][name], bool)
    cells, terminal = np.asarray(exact["layout"]["cells"], float), np.asarray(exact["terminal"], bool)
    shown = [s for s in states if not terminal[s]]
    idle = [s for s in shown if greedy[s].all()]
    pairs = [(s, a) for s in shown if not greedy[s].all() for a in np.flatnonzero(greedy[s]) if arrows[a].any()]
    if idle:
        ax.plot(cells[idle, 1], cells[idle, 0], ".", color=MUTED, markersize=1.6)
    if not pairs:
        return
    s, a = np.array(pairs).T
    several = (greedy[s].sum(1) > 1)[:, None]
    direction = arrows[a] / np.maximum(np.abs(arrows[a]).max(1, keepdims=True), 1)
    start = cells[s] + direction * np.where(several, 0.06, -0.32)
    sweep = direction * np.where(several, 0.36, 0.66)
    ax.quiver(
        start[:, 1], start[:, 0], sweep[:, 1], sweep[:, 0], angles="xy", scale_units="xy", scale=1, units="xy",
        width=0.055, headwidth=4.4, headlength=3.6, headaxislength=3.2, color=INK, minlength=0, minshaft=1,
    )  # fmt: skip


def _bare(ax: Axes) -> None:
    for side in ax.spines.values():
        side.set_visible(False)


def short(x: float) -> str:
    """A number of steps as 250k or 1.5M."""
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if abs(x) >= limit:
            return f"{x / limit:g}{suffix}"
    return f"{x:g}"
