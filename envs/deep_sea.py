"""Deep sea: one sequence of actions among 2^N finds the treasure."""

import numpy as np

from reward_design.core import Transition
from reward_design.envs.base import Factor, Layout, Task
from reward_design.envs.tabular_model import model_from_branches, reachable_states
from reward_design.envs.tabular_parts import Lookup, goal_task, quantity_reward

State = tuple[int, int]
"""Row and column; row ``size`` is the sea floor, where episodes end, and column ``size`` there is the treasure."""

DESCRIPTION = """A diver sinks through a square of {size} by {size} cells, one row per step, and chooses at each
step whether to drift one column to the left or to the right. Every episode starts in the top left corner and ends
on the sea floor after {size} steps. The treasure lies at the bottom right: only a diver who drifts right at every
single step collects it. It pays 1; each step to the right costs {cost:g}, so an agent that only sees the cost
learns to drift left. {mapping_text} {wind_text} The observation is the index of the cell."""


def deep_sea(
    *,
    size: int = 10,
    stochastic: bool = False,
    mapping_seed: int | None = None,
    move_cost: float = 0.01,
    gamma: float = 0.99,
) -> Task:
    """Deep sea of bsuite, with the states that can be reached.

    The noise that bsuite's stochastic variant adds to the reward in the corners is left out: it is not a function of
    the transition.

    Source: I. Osband, B. Van Roy, D. Russo and Z. Wen, "Deep exploration via randomized value functions", 2019
    (arXiv 1703.07608); I. Osband et al., "Behaviour suite for reinforcement learning", 2020 (arXiv 1908.03568).

    Args:
        size: rows and columns N, at least 2.
        stochastic: a step to the right fails to move with probability 1/N; the treasure is paid for the attempt.
        mapping_seed: which of the actions 0 and 1 means right, cell by cell, as bsuite draws it from this seed; None
            means 1 everywhere.
        move_cost: cost of a whole way to the right; a step costs ``move_cost / size``.
        gamma: discount per step, in [0, 1).

    Returns:
        The task ``deep_sea``.

    Raises:
        ValueError: if ``size`` is too small.

    Example:
        >>> deep_sea(size=4).tabular().observations.size  # 10 cells, 5 places on the floor
        15
    """
    if size < 2:
        raise ValueError(f"deep_sea needs at least 2 rows, got size={size}.")
    right = np.ones((size, size), int)
    if mapping_seed is not None:
        right = np.random.RandomState(mapping_seed).binomial(1, 0.5, [size, size])
    cost, fail = move_cost / size, (1 / size if stochastic else 0.0)

    def branches(state: State, action: int) -> list[tuple[float, State, float]]:
        row, column = state
        if action != right[state]:
            return [(1.0, (row + 1, max(column - 1, 0)), 0.0)]
        if column == size - 1:
            return [(1.0, (size, size), 1.0 - cost)]
        outcomes = [(1 - fail, (row + 1, column + 1), -cost), (fail, (row + 1, column), -cost)]
        return [outcome for outcome in outcomes if outcome[0] > 0]

    states = reachable_states([(0, 0)], 2, branches, lambda s: s[0] == size)
    model = model_from_branches(
        states, 2, branches, initial={(0, 0): 1.0}, is_terminal=lambda s: s[0] == size, gamma=gamma,
        layout=_layout(size, states, fixed=mapping_seed is None),
    )  # fmt: skip
    means_right = Lookup(np.array([right[s] if s[0] < size else -1 for s in states], float))

    def effort(transition: Transition):
        return (transition.action == means_right(transition.obs)).astype(float)

    columns = Lookup(np.array([column for _, column in states], float))
    return goal_task(
        "deep_sea",
        _description(size, cost, stochastic, mapping_seed),
        model,
        np.array([s == (size, size) for s in states]),
        horizon=size,
        misaligned=quantity_reward("misaligned", lambda t: -effort(t), weight=2.0 / size),
        factors={
            "effort": Factor(effort, "1", -1, "1 for choosing to drift right, else 0"),
            "column": Factor(lambda t: columns(t.next_obs), "cells", +1, "column after the step, 0 at the left"),
        },
    )


def _description(size: int, cost: float, stochastic: bool, mapping_seed: int | None) -> str:
    fixed = "Action 1 drifts right, action 0 left."
    drawn = "Which of the two actions means right differs from cell to cell, and stays the same in all episodes."
    wind = f"A step to the right fails to move with probability 1/{size}." if stochastic else "Moves never fail."
    return DESCRIPTION.format(
        size=size, cost=cost, mapping_text=fixed if mapping_seed is None else drawn, wind_text=wind
    )


def _layout(size: int, states: list[State], *, fixed: bool) -> Layout:
    walls = np.ones((size + 1, size + 1), bool)
    walls[tuple(np.array(states).T)] = False
    return Layout(
        walls=walls,
        cells=np.array(states),
        layer=np.zeros(len(states), int),
        layer_names=("sea",),
        arrows=np.array([(1, -1), (1, 1)]) if fixed else np.zeros((2, 2), int),
        marks={(0, 0): "S", (size, size): "G"},
    )
