"""Pictures of finite MDPs: the grid they are laid out on, or their states on a circle."""

import math

import numpy as np

from reward_design.envs.base import Layout
from reward_design.envs.rendering import (
    BLUE,
    BROWN,
    GOLD,
    GREEN,
    GREY,
    INK,
    LIGHT,
    PAPER,
    RED,
    Canvas,
    Picture,
)

MAX_STATES = 64
"""States that fit on a circle."""
FILLED = {"G": GREEN, "C": RED, "D": BROWN, "K": GOLD}
"""Colours of goal, cliff, door and key; other marks are letters on the floor."""
CAPTION = 28


def grid(layout: Layout, state: int) -> Picture:
    """Walls, marks and the agent; how far it has got stands below where the grid has several layers."""
    rows, columns = layout.walls.shape
    side = int(np.clip(480 // max(rows, columns), 20, 64))
    caption = CAPTION if len(layout.layer_names) > 1 else 0
    height = rows + caption / side
    canvas = Canvas((columns * side, rows * side + caption), (0, height, columns, 0), PAPER)
    layer = int(layout.layer[state])
    row, column = (int(i) for i in layout.cells[state])
    free = {(int(r), int(c)) for r, c in layout.cells}
    for cell in np.ndindex(rows, columns):
        _cell(canvas, cell, wall=bool(layout.walls[cell]), used=cell in free)
    for cell, letter in layout.marks.items():
        _mark(canvas, cell, letter, side, done=_is_behind(letter, layer))
    canvas.dot((column + 0.5, row + 0.5), PAPER, 0.36 * side)
    canvas.dot((column + 0.5, row + 0.5), BLUE, 0.31 * side)
    if caption:
        canvas.text((columns / 2, rows + caption / side / 2), layout.layer_names[layer], INK, 15)
    return canvas.picture()


def grid_text(layout: Layout, state: int) -> str:
    """The same in characters: ``#`` wall, ``.`` floor, letters for marks, ``@`` the agent."""
    signs = np.where(layout.walls, "#", ".")
    for cell, letter in layout.marks.items():
        signs[cell] = letter[:1]
    signs[tuple(layout.cells[state])] = "@"
    caption = [layout.layer_names[int(layout.layer[state])]] if len(layout.layer_names) > 1 else []
    return "\n".join(["".join(row) for row in signs] + caption)


def circle(num_states: int, state: int, terminal: np.ndarray) -> Picture:
    """States without a layout on a circle, the present one filled, terminal ones green."""
    canvas = Canvas((360, 360), (-1.25, -1.25, 1.25, 1.25))
    radius = min(20.0, 330.0 / num_states)
    for index in range(num_states):
        angle = math.pi / 2 - 2 * math.pi * index / num_states
        where = (math.cos(angle), math.sin(angle))
        canvas.dot(where, BLUE if index == state else GREEN if terminal[index] else LIGHT, radius)
        canvas.text(where, str(index), PAPER if index == state else INK, max(8, 0.8 * radius))
    canvas.text((0, 0), f"state {state}", INK, 18)
    return canvas.picture()


def _cell(canvas: Canvas, cell: tuple[int, ...], *, wall: bool, used: bool) -> None:
    row, column = cell
    if wall:
        canvas.box((column, row), (column + 1, row + 1), INK)
    elif used:
        canvas.box((column + 0.03, row + 0.03), (column + 0.97, row + 0.97), "#f0ede4", radius=0.08)


def _mark(canvas: Canvas, cell: tuple[int, int], letter: str, side: int, *, done: bool) -> None:
    row, column = cell
    if done:
        return
    if letter in FILLED:
        canvas.box((column + 0.06, row + 0.06), (column + 0.94, row + 0.94), FILLED[letter], radius=0.14)
    canvas.text((column + 0.5, row + 0.5), letter, PAPER if letter in FILLED else GREY, 0.5 * side)


def _is_behind(letter: str, layer: int) -> bool:
    """Keys that have been taken and doors that stand open are not drawn."""
    return (letter == "K" and layer > 0) or (letter == "D" and layer > 1)
