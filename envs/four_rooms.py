"""Four rooms joined by four hallways."""

import numpy as np

from reward_design.core import Transition
from reward_design.envs.base import Factor, Task
from reward_design.envs.grid import Cell, parse_grid, slipping, start_distribution
from reward_design.envs.tabular_model import model_from_branches
from reward_design.envs.tabular_parts import Lookup, goal_task, quantity_reward

PLAN = """
#############
#.....#.....#
#.....#.....#
#...........#
#.....#.....#
#.....#.....#
##.####.....#
#.....###.###
#.....#.....#
#.....#.....#
#...........#
#.....#.....#
#############
"""
HALLWAYS: tuple[Cell, ...] = ((3, 6), (6, 2), (7, 9), (10, 6))
START = (1, 1)

DESCRIPTION = """An agent walks through a house of four rooms, two above two, on a grid of 13 rows and 13 columns
with walls around and between the rooms. Neighbouring rooms are joined by one hallway cell each: {hallways} as (row,
column), rows counted from the top. Episodes start {start_text}; the goal is the cell {goal}. Actions: 0 up, 1
right, 2 down, 3 left; moves against a wall change nothing. {slip_text} The observation is the index of the cell
among the {num_states} free cells, row by row. The environment pays 1 on reaching the goal, which ends the episode,
and 0 otherwise. An episode is cut after {horizon} steps."""


def four_rooms(
    *,
    start: str = "fixed",
    goal: tuple[int, int] = (11, 11),
    slip: float = 0.0,
    horizon: int = 200,
    gamma: float = 0.99,
) -> Task:
    """Four rooms on a 13 x 13 grid.

    Source: R. S. Sutton, D. Precup and S. Singh, "Between MDPs and semi-MDPs: a framework for temporal abstraction in
    reinforcement learning", 1999 (there ``slip`` is 1/3).

    Args:
        start: ``"fixed"`` for the top left corner, ``"random"`` for any cell but the goal.
        goal: row and column of the goal, a free cell.
        slip: probability that another one of the four moves happens, in [0, 1].
        horizon: steps after which an episode is truncated.
        gamma: discount per step, in [0, 1).

    Returns:
        The task ``four_rooms``.

    Raises:
        ValueError: if ``goal`` is a wall or the start, or a setting is out of range.

    Example:
        >>> four_rooms(slip=1 / 3).tabular().transition.shape
        (104, 4, 104)
    """
    grid = parse_grid(PLAN)
    if goal not in grid.free or (goal == START and start == "fixed"):
        raise ValueError(f"goal of four_rooms must be the row and column of a free cell off the start, got {goal}.")

    def branches(cell: Cell, action: int) -> list[tuple[float, Cell, float]]:
        moved = [(probability, grid.move(cell, a)) for probability, a in slipping(action, slip)]
        return [(probability, target, float(target == goal)) for probability, target in moved]

    model = model_from_branches(
        grid.free, 4, branches, is_terminal=lambda cell: cell == goal, gamma=gamma,
        initial=start_distribution(start, [START], [cell for cell in grid.free if cell != goal]),
        layout=grid.layout([(0, cell) for cell in grid.free], ["house"], _marks(start, goal)),
    )  # fmt: skip
    in_hallway = Lookup(np.array([float(cell in HALLWAYS) for cell in grid.free]))

    def hallway(transition: Transition):
        return in_hallway(transition.next_obs)

    description = DESCRIPTION.format(
        hallways=", ".join(map(str, HALLWAYS)),
        start_text=f"in the cell {START}" if start == "fixed" else "in a random cell",
        goal=goal,
        slip_text=f"With probability {slip:.3g} one of the other three moves happens." if slip else "Moves never fail.",
        num_states=len(grid.free),
        horizon=horizon,
    )
    return goal_task(
        "four_rooms",
        description,
        model,
        np.array([cell == goal for cell in grid.free]),
        horizon=horizon,
        misaligned=quantity_reward("misaligned", hallway, weight=0.1),
        factors={"hallway": Factor(hallway, "1", +1, "1 for being in a hallway, on the way to another room, else 0")},
    )


def _marks(start: str, goal: Cell) -> dict[Cell, str]:
    return ({START: "S"} if start == "fixed" else {}) | {goal: "G"}
