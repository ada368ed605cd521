"""Grid worlds from a drawn map: parsing, moving, and how to draw them."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reward_design.envs.base import Layout

Cell = tuple[int, int]
"""Row and column."""

MOVES: tuple[Cell, ...] = ((-1, 0), (0, 1), (1, 0), (0, -1))
"""Up, right, down, left: the order of gymnasium's CliffWalking."""


@dataclass(frozen=True)
class Grid:
    """A parsed map.

    Attributes:
        size: rows and columns.
        free: cells that are not walls, row by row.
        letters: cell of each letter on the map.
    """

    size: Cell
    free: tuple[Cell, ...]
    letters: Mapping[str, Cell]

    def move(self, cell: Cell, action: int, allowed: Callable[[Cell], bool] = lambda cell: True) -> Cell:
        """Cell after a move; walls, and cells that are not ``allowed``, leave the agent where it is."""
        target = (cell[0] + MOVES[action][0], cell[1] + MOVES[action][1])
        return target if target in self.free and allowed(target) else cell

    def layout(self, states: Sequence[tuple[int, Cell]], layers: Sequence[str], marks: Mapping[Cell, str]) -> Layout:
        """How to draw states ``(layer, cell)``."""
        walls = np.ones(self.size, bool)
        walls[tuple(np.array(self.free).T)] = False
        return Layout(
            walls=walls,
            cells=np.array([cell for _, cell in states]),
            layer=np.array([layer for layer, _ in states]),
            layer_names=tuple(layers),
            arrows=np.array(MOVES),
            marks=dict(marks),
        )


def parse_grid(plan: str, required: str = "") -> Grid:
    r"""Read a map: ``#`` is a wall, ``.`` a free cell, a letter a free cell with a name (used once each).

    Args:
        plan: lines of equal length; surrounding blank lines and indentation are ignored.
        required: letters that the map must have.

    Raises:
        ValueError: if the map is ragged, uses another sign, or lacks or repeats a letter.

    Example:
        >>> grid = parse_grid("S.#\n..G", required="SG")
        >>> grid.letters["G"], grid.move((0, 1), 1), grid.move((0, 1), 2)
        ((1, 2), (0, 1), (1, 1))
    """
    lines = [line.strip() for line in plan.strip().splitlines()]
    if len({len(line) for line in lines}) != 1:
        raise ValueError(f"the lines of a map must have equal length, got {[len(line) for line in lines]}.")
    signs = {(row, column): sign for row, line in enumerate(lines) for column, sign in enumerate(line)}
    letters: dict[str, Cell] = {}
    for cell, sign in signs.items():
        if sign in ".#":
            continue
        if not sign.isalpha() or sign in letters:
            raise ValueError(
                f"a map may use '#', '.' and each letter once, got {sign!r} at row {cell[0]}, column {cell[1]}."
            )
        letters[sign] = cell
    missing = [letter for letter in required if letter not in letters]
    if missing:
        raise ValueError(f"the map lacks {missing}; it needs one each of {list(required)}.")
    free = tuple(cell for cell, sign in signs.items() if sign != "#")
    return Grid((len(lines), len(lines[0])), free, letters)


def slipping(action: int, slip: float, num_actions: int = len(MOVES)) -> list[tuple[float, int]]:
    """Probabilities of the actions that happen when ``action`` is chosen: another one, uniformly, with ``slip``.

    Raises:
        ValueError: if ``slip`` is not in [0, 1].

    Example:
        >>> slipping(1, 0.25, num_actions=2)
        [(0.25, 0), (0.75, 1)]
    """
    if not 0 <= slip <= 1:
        raise ValueError(f"slip must be a probability in [0, 1], got {slip}.")
    others = slip / (num_actions - 1)
    pairs = [(1 - slip if a == action else others, a) for a in range(num_actions)]
    return [(probability, a) for probability, a in pairs if probability > 0]


def start_distribution(start: str, fixed: Sequence[object], everywhere: Sequence[object]) -> dict:
    """Start states of a task by the setting ``start``: ``"fixed"`` or ``"random"`` (uniform over ``everywhere``).

    Raises:
        ValueError: for another word.
    """
    if start not in ("fixed", "random"):
        raise ValueError(f"start must be 'fixed' or 'random', got {start!r}.")
    chosen = fixed if start == "fixed" else everywhere
    return {state: 1.0 / len(chosen) for state in chosen}
