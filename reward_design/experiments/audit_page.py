"""The page of an audit: verdict, evidence, and the episodes that show the worst case. One file, no network."""

import base64
import io
import os
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from PIL import Image

from reward_design.core import Reward
from reward_design.describe import describe
from reward_design.distance import Audit
from reward_design.distance.findings import tidy
from reward_design.envs import mujoco_gl
from reward_design.envs.base import Layout, Task
from reward_design.experiments import plots, report

FILE = "audit.html"
MAX_FRAMES = 100
"""Frames of a clip."""


def render(audit: Audit, task: Task, reward: Reward) -> str:
    """The page as HTML text.

    Args:
        audit: of :func:`reward_design.distance.audit`.
        task: the task that was audited.
        reward: the design that was audited.

    Returns:
        A page without references to other files.
    """
    loader = jinja2.PackageLoader("reward_design.experiments", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    pictures, note = _pictures(audit, task)
    headline, _, evidence = audit.verdict.partition(": ")
    return environment.get_template("audit.html.j2").render(
        audit=audit,
        headline=headline,
        evidence=evidence[:1].upper() + evidence[1:],
        shares=report.svg(lambda ax: share_bars(audit, ax), 6.0, 1.9, "shares of the difference"),
        pictures=pictures,
        note=note,
        of_task=_tidied(audit.witness["returns_task"]),
        designed=_tidied(audit.witness["returns_designed"]),
        description=describe(reward),
    )


def write(audit: Audit, task: Task, reward: Reward, out: str | os.PathLike[str]) -> Path:
    """Write ``out/audit.html``; returns its path."""
    path = Path(out) / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render(audit, task, reward), encoding="utf-8")
    return path


def _tidied(returns: Any) -> list[str]:
    """Returns of the pair, rounding errors as 0."""
    return [tidy(x, max(map(abs, returns))) for x in returns]


def share_bars(audit: Audit, ax: Axes) -> Axes:
    """Shares of the parts of the difference as bars, with their numbers."""
    names, values = list(audit.shares), [audit.shares[name] for name in audit.shares]
    colours = [plots.LOSS if name == "residual" else plots.FAR for name in names]
    ax.barh(range(len(names)), values, color=colours, height=0.62)
    for row, value in enumerate(values):
        ax.text(value + 0.01, row, f"{100 * value:.3g} %", va="center", color=plots.INK)
    ax.set_yticks(range(len(names)), names)
    ax.set_xlim(0, 1.15)
    ax.set_xticks([])
    ax.invert_yaxis()
    ax.spines["bottom"].set_visible(False)
    return ax


def path_map(layout: Layout, states: list[int], ax: Axes, *, layer: int = 0) -> Axes:
    """An episode on a grid: the way it took, a dot where it starts, a square where it stays at the end."""
    walls, cells = np.asarray(layout.walls), np.asarray(layout.cells)
    for row, column in np.argwhere(walls):
        ax.add_patch(plots.Rectangle((column - 0.5, row - 0.5), 1, 1, facecolor=plots.WALL, linewidth=0))
    for (row, column), text in layout.marks.items():
        ax.text(column, row, text, ha="center", va="center", fontsize=8, fontweight="bold", color=plots.INK)
    way = np.array([cells[s] for s in states if layout.layer[s] == layer], float).reshape(-1, 2)
    if len(way):
        ax.plot(way[:, 1], way[:, 0], color=plots.LOSS, linewidth=2)
        ax.plot(way[0, 1], way[0, 0], "o", color=plots.FAR, markersize=7)
        ax.plot(way[-1, 1], way[-1, 0], "s", color=plots.LOSS, markersize=7)
    ax.set_xlim(-0.5, walls.shape[1] - 0.5)
    ax.set_ylim(walls.shape[0] - 0.5, -0.5)
    ax.set_aspect("equal")
    ax.set_xticks([])
    ax.set_yticks([])
    return ax


# --- parts ----------------------------------------------------------------------------------------------------------


def _pictures(audit: Audit, task: Task) -> tuple[list[tuple[str, Markup]], str]:
    """Titled pictures, and a sentence where there are none."""
    if audit.exact:
        return _paths(audit)
    clips, reasons = [], []
    for title, weights in (
        ("what the task prefers", audit.witness["better_policy"]), ("what the design prefers", audit.witness["policy"]),
    ):  # fmt: skip
        try:
            clips.append((title, _clip(audit, task, weights)))
        except Exception as error:  # a picture must never cost the report
            reasons.append(f"No clip of {title}: {type(error).__name__}: {str(error).splitlines()[0]}")
    return clips, " ".join(reasons)


def _paths(audit: Audit) -> tuple[list[tuple[str, Markup]], str]:
    layout, pictures = audit.model.layout, []
    ways = {"what the task prefers": audit.witness["better_states"], "what the design prefers": audit.witness["states"]}
    if audit.loop is not None:
        ways["the best-paid loop without task progress"] = [*audit.loop.states, audit.loop.states[0]]
    if layout is None:
        return [], " ".join(f"{title}: states {_listed(states)}." for title, states in ways.items())
    for title, states in ways.items():
        for layer in sorted({int(layout.layer[s]) for s in states}):
            name = title if len(layout.layer_names) == 1 else f"{title}: {layout.layer_names[layer]}"
            width = 2.6
            height = max(0.6, width * layout.walls.shape[0] / layout.walls.shape[1])

            def draw(ax: Axes, states: Any = states, layer: int = layer) -> Axes:
                return path_map(layout, states, ax, layer=layer)

            pictures.append((name, report.svg(draw, width, height, name)))
    return pictures, ""


def _listed(states: list[int]) -> str:
    shown = ", ".join(map(str, states[:30]))
    return shown + (", ..." if len(states) > 30 else "")


def _clip(audit: Audit, task: Task, weights: np.ndarray) -> Markup:
    """One episode of a linear policy as an animated picture."""
    env = task.make(render_mode="rgb_array")
    if (missing := mujoco_gl.prepare(env)) is not None:
        raise RuntimeError(missing)
    obs, _ = env.reset(seed=0)
    frames: list[Any] = [env.render()]
    steps, stride = audit.witness["steps"], max(1, audit.witness["steps"] // MAX_FRAMES)
    for step in range(steps):
        batched = {k: np.asarray(v)[None] for k, v in obs.items()} if isinstance(obs, dict) else np.asarray(obs)[None]
        action = audit.witness["act"](weights[None], batched)[0]
        obs, _, terminated, truncated, _ = env.step(action if action.ndim else int(action))
        if step % stride == 0:
            frames.append(env.render())
        if terminated or truncated:
            break
    env.close()
    return _gif([np.asarray(frame) for frame in frames])


def _gif(frames: list[np.ndarray]) -> Markup:
    images = [Image.fromarray(frame) for frame in frames]
    for image in images:
        image.thumbnail((320, 320))
    buffer = io.BytesIO()
    images[0].save(buffer, format="GIF", save_all=True, append_images=images[1:], duration=60, loop=0)
    data = base64.b64encode(buffer.getvalue()).decode()
    return Markup('<img alt="an episode" src="data:image/gif;base64,{}">').format(data)
