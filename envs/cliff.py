"""Cliff walking: the shortest way runs along an edge."""

import numpy as np

from reward_design.core import Transition
from reward_design.envs.base import Factor, Task
from reward_design.envs.grid import MOVES, Cell, parse_grid
from reward_design.envs.tabular_model import model_from_branches
from reward_design.envs.tabular_parts import Lookup, goal_task, quantity_reward

SIZE = (4, 12)
START, GOAL = (3, 0), (3, 11)

DESCRIPTION = """An agent walks on a grid of 4 rows and 12 columns, from the bottom left corner to the goal in the
bottom right corner. All cells of the bottom row between them are a cliff: who steps there pays 100 and is put back
to the start, and the episode goes on. Every other step pays -1, so that the task is to reach the goal in as few
steps as is safe; reaching it ends the episode. The observation is row * 12 + column with row 0 at the top. Actions:
0 up, 1 right, 2 down, 3 left; moves against the border change nothing, and moves never fail. An episode is cut
after {horizon} steps."""


def cliff(*, horizon: int = 100, gamma: float = 0.99) -> Task:
    """Cliff walking, with states, actions, probabilities and rewards of gymnasium's ``CliffWalking-v1``.

    Source: R. S. Sutton and A. G. Barto, "Reinforcement learning: an introduction", 2nd edition, 2018, example 6.6.

    Args:
        horizon: steps after which an episode is truncated.
        gamma: discount per step, in [0, 1).

    Returns:
        The task ``cliff``.

    Example:
        >>> task = cliff()
        >>> task.tabular().reward[36, 1, 36].item()  # right from the start: over the edge, back to the start
        -100.0
    """
    cells = [(row, column) for row in range(SIZE[0]) for column in range(SIZE[1])]

    def branches(cell: Cell, action: int) -> list[tuple[float, Cell, float]]:
        return [(1.0, *_outcome(cell, action))]

    grid = parse_grid("............\n............\n............\nS..........G")
    marks = {START: "S", GOAL: "G"} | {(3, column): "C" for column in range(1, 11)}
    model = model_from_branches(
        cells, 4, branches, initial={START: 1.0}, is_terminal=lambda cell: cell == GOAL, gamma=gamma,
        layout=grid.layout([(0, cell) for cell in cells], ["grid"], marks),
    )  # fmt: skip
    height = Lookup(np.array([SIZE[0] - 1 - row for row, _ in cells], float))

    edge = Lookup((model.reward.min(-1) <= -100).astype(float))

    def fell(transition: Transition):
        return edge((transition.obs, transition.action))

    def clearance(transition: Transition):
        return height(transition.next_obs)

    return goal_task(
        "cliff",
        DESCRIPTION.format(horizon=horizon),
        model,
        np.array([cell == GOAL for cell in cells]),
        horizon=horizon,
        misaligned=quantity_reward("misaligned", clearance, weight=0.5),
        factors={
            "fell": Factor(fell, "1", -1, "1 on the step over the edge, else 0"),
            "clearance": Factor(clearance, "cells", +1, "rows between the agent and the bottom row after the step"),
        },
    )


def _outcome(cell: Cell, action: int) -> tuple[Cell, float]:
    row = min(max(cell[0] + MOVES[action][0], 0), SIZE[0] - 1)
    column = min(max(cell[1] + MOVES[action][1], 0), SIZE[1] - 1)
    over_the_edge = row == 3 and 0 < column < 11
    return (START, -100.0) if over_the_edge else ((row, column), -1.0)
