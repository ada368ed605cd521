"""Fetch the key, open the door, reach the goal."""

import numpy as np

from reward_design.core import Transition
from reward_design.envs.base import Factor, Task
from reward_design.envs.grid import Cell, Grid, parse_grid, slipping, start_distribution
from reward_design.envs.tabular_model import Branches, model_from_branches, reachable_states
from reward_design.envs.tabular_parts import Entered, Lookup, goal_task, indicator, quantity_reward

PLAN = """
###########
#K...#....#
#....#....#
#....#....#
#....D....#
#....#....#
#...S#...G#
###########
"""
LAYERS = ("without key", "with key", "door open")

State = tuple[int, Cell]
"""Layer (index into LAYERS) and cell."""

DESCRIPTION = """An agent walks on a grid of {rows} rows and {columns} columns with two rooms joined by a locked
door. It starts {start_text}; the key lies at {K}, the door is at {D}, the goal is at {G}, as (row, column) with
rows counted from the top. Walking onto the key picks it up, for good; with the key, walking into the door opens it,
for good; without the key the door is a wall. Actions: 0 up, 1 right, 2 down, 3 left; moves against a wall change
nothing. {slip_text} The observation is one index for the cell together with how far the agent has got: without key,
with key, door open. The environment pays 1 on reaching the goal, which ends the episode, and 0 otherwise. An
episode is cut after {horizon} steps."""


def key_door(
    *, plan: str = PLAN, start: str = "fixed", slip: float = 0.0, horizon: int = 200, gamma: float = 0.99
) -> Task:
    """Grid world with a key and a locked door, after the DoorKey tasks of MiniGrid but with four moves only.

    Args:
        plan: map with one each of ``S`` (start), ``K`` (key), ``D`` (door) and ``G`` (goal); ``#`` wall, ``.`` free.
        start: ``"fixed"`` for the cell S, ``"random"`` for any cell from which S can be reached without the key.
        slip: probability that another one of the four moves happens, in [0, 1].
        horizon: steps after which an episode is truncated.
        gamma: discount per step, in [0, 1).

    Returns:
        The task ``key_door``.

    Raises:
        ValueError: if the map is not as described, or a setting is out of range.

    Example:
        >>> task = key_door()
        >>> task.tabular().layout.layer_names
        ('without key', 'with key', 'door open')
    """
    grid = parse_grid(plan, required="SKDG")
    branches = _branches(grid, slip)
    first = (0, grid.letters["S"])

    def at_goal(state: State) -> bool:
        return state[1] == grid.letters["G"]

    opening = reachable_states([first], 4, branches, lambda state: state[0] > 0 or at_goal(state))
    initial = start_distribution(start, [first], [s for s in opening if s[0] == 0 and not at_goal(s)])
    states = reachable_states(initial, 4, branches, at_goal)
    model = model_from_branches(
        states, 4, branches, initial=initial, is_terminal=at_goal, gamma=gamma,
        layout=grid.layout(states, LAYERS, {cell: letter for letter, cell in grid.letters.items()}),
    )  # fmt: skip
    layer = np.array([layer for layer, _ in states])
    carrying = Lookup((layer == 1).astype(float))

    def carries(transition: Transition):
        return carrying(transition.next_obs)

    picked, opened = indicator(Entered(layer > 0)), indicator(Entered(layer > 1))
    return goal_task(
        "key_door",
        _description(grid, start, slip, horizon),
        model,
        np.array([at_goal(state) for state in states]),
        horizon=horizon,
        misaligned=quantity_reward("misaligned", carries, weight=0.1),
        factors={
            "key_picked": Factor(picked, "1", +1, "1 on the step that picks up the key, else 0"),
            "door_opened": Factor(opened, "1", +1, "1 on the step that opens the door, else 0"),
            "carries_key": Factor(carries, "1", +1, "1 while the key is carried and the door still shut, else 0"),
        },
    )


def _branches(grid: Grid, slip: float) -> Branches:
    key, door, goal = (grid.letters[letter] for letter in "KDG")

    def outcome(state: State, action: int) -> State:
        layer, cell = state
        target = grid.move(cell, action, lambda c: layer > 0 or c != door)
        layer = 1 if layer == 0 and target == key else layer
        return (2 if layer == 1 and target == door else layer, target)

    def branches(state: State, action: int) -> list[tuple[float, State, float]]:
        outcomes = [(probability, outcome(state, a)) for probability, a in slipping(action, slip)]
        return [(probability, target, float(target[1] == goal)) for probability, target in outcomes]

    return branches


def _description(grid: Grid, start: str, slip: float, horizon: int) -> str:
    return DESCRIPTION.format(
        rows=grid.size[0],
        columns=grid.size[1],
        start_text=f"at {grid.letters['S']}" if start == "fixed" else "at a random place on the side of the key",
        slip_text=f"With probability {slip:.3g} one of the other three moves happens." if slip else "Moves never fail.",
        horizon=horizon,
        **{letter: grid.letters[letter] for letter in "KDG"},
    )
