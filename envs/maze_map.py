"""Maps of the point maze: reading them, limits of motion, shortest paths."""

import heapq
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

NEIGHBOURS = tuple((row, column) for row in (-1, 0, 1) for column in (-1, 0, 1))
"""The nine row and column offsets of a cell's neighbourhood, itself included."""
PIECES = 5
"""Pieces per side of a cell for path lengths (odd, so that a cell's centre is the centre of a piece)."""


def parse_map(
    maze: Sequence[str],
) -> tuple[Bool[np.ndarray, "height width"], Int[np.ndarray, "starts 2"], tuple[int, int]]:
    """Read rows of ``#``, ``.``, ``S`` and ``G``.

    Args:
        maze: equally long rows; walls all around, exactly one ``G``, at least one ``S``.

    Returns:
        ``(walls, starts, goal)``: bool ``[H, W]``, row and column of each start, row and column of the goal.

    Raises:
        ValueError: if the map breaks one of these rules.

    Example:
        >>> from reward_design.envs.maze_map import parse_map
        >>> parse_map(["#####", "#S.G#", "#####"])[2]
        (1, 3)
    """
    if isinstance(maze, str) or not maze or len({len(row) for row in maze}) != 1:
        raise ValueError(f"a maze must be a sequence of equally long rows, got {maze!r}.")
    cells = np.array([list(row) for row in maze])
    unknown = sorted(set(cells.ravel().tolist()) - set("#.SG"))
    if unknown:
        raise ValueError(f"a maze is made of '#', '.', 'S' and 'G', got {unknown[0]!r}.")
    walls, starts, goals = cells == "#", np.argwhere(cells == "S"), np.argwhere(cells == "G")
    if not (walls[0].all() and walls[-1].all() and walls[:, 0].all() and walls[:, -1].all()):
        raise ValueError("a maze must be closed by walls '#' on all four sides.")
    if len(goals) != 1 or not len(starts):
        raise ValueError(f"a maze needs one goal 'G' and a start 'S', got {len(goals)} and {len(starts)}.")
    return walls, starts, (int(goals[0, 0]), int(goals[0, 1]))


def wall_limits(walls: Bool[np.ndarray, "height width"], margin: float) -> Float[np.ndarray, "height width 4"]:
    """How far one step may go from each cell, relative to its left (upper) edge: ``[x_low, x_high, y_low, y_high]``.

    A free neighbour opens its whole cell; a wall stops the point ``margin`` before the edge.
    """
    solid = np.pad(walls, 1, constant_values=True)
    sides = (solid[1:-1, :-2], solid[1:-1, 2:], solid[:-2, 1:-1], solid[2:, 1:-1])
    opened, closed = (-1 + margin, 2 - margin), (margin, 1 - margin)
    limits = [np.where(side, closed[i % 2], opened[i % 2]) for i, side in enumerate(sides)]
    return np.stack(limits, axis=-1).astype(np.float32)


def distance_table(
    walls: Bool[np.ndarray, "height width"], starts: Int[np.ndarray, "starts 2"], goal: tuple[int, int]
) -> tuple[Float[np.ndarray, "fine_height fine_width 9"], float]:
    """Path length to the goal from the centres of the neighbourhood of each piece, and the longest one in the maze.

    Every cell is cut into ``PIECES`` by ``PIECES`` pieces; lengths, in cells, count steps between centres of pieces:
    straight ones and, where both corners are free, diagonal ones. Neighbours that are walls, or lie behind a corner,
    count as infinitely far (``1e6``).

    Raises:
        ValueError: if the goal cannot be reached from a start.
    """
    fine = np.kron(walls, np.ones((PIECES, PIECES), bool))
    middle = PIECES // 2
    distance = _shortest_paths(fine, (PIECES * goal[0] + middle, PIECES * goal[1] + middle)) / PIECES
    for row, column in starts.tolist():
        if not np.isfinite(distance[PIECES * row + middle, PIECES * column + middle]):
            raise ValueError(f"the goal of the maze cannot be reached from the start in row {row}, column {column}.")
    table = np.full((*fine.shape, 9), 1e6, np.float32)
    for row, column in np.argwhere(np.isfinite(distance)).tolist():
        for index, (down, right) in enumerate(NEIGHBOURS):
            if _visible(fine, row, column, down, right):
                table[row, column, index] = distance[row + down, column + right]
    return table, float(distance[np.isfinite(distance)].max())


def _shortest_paths(walls: np.ndarray, goal: tuple[int, int]) -> np.ndarray:
    """Dijkstra over free cells, with diagonal steps where both corners are free; infinite where there is no way."""
    distance = np.full(walls.shape, np.inf)
    distance[goal] = 0.0
    queue = [(0.0, goal)]
    while queue:
        length, (row, column) = heapq.heappop(queue)
        if length > distance[row, column]:
            continue
        for down, right in NEIGHBOURS:
            cell, longer = (row + down, column + right), length + math.hypot(down, right)
            if _visible(walls, row, column, down, right) and longer < distance[cell]:
                distance[cell] = longer
                heapq.heappush(queue, (longer, cell))
    return distance


def _visible(walls: np.ndarray, row: int, column: int, down: int, right: int) -> bool:
    """Whether the rectangle that spans a cell and its neighbour is free of walls."""
    return not (walls[row + down, column + right] or walls[row + down, column] or walls[row, column + right])
