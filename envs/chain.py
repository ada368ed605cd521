"""A long corridor with the goal at its right end."""

import jax.numpy as jnp
import numpy as np

from reward_design.core import Transition
from reward_design.envs.base import Factor, Layout, Task
from reward_design.envs.grid import slipping
from reward_design.envs.tabular_model import model_from_branches
from reward_design.envs.tabular_parts import goal_task, quantity_reward

DESCRIPTION = """An agent walks in a straight corridor of {num_states} cells. The observation is the index of the
cell, 0 at the left end, where every episode starts, and {last} at the right end, which is the goal. Action 0 moves
one cell to the left, action 1 one cell to the right; at the left wall the agent stays where it is. {slip_text} The
environment pays 1 on reaching the goal, which ends the episode,{distractor_text} and nothing otherwise. An episode
is cut after {horizon} steps, and a walker without a plan hardly ever gets there in time."""


def chain(
    *,
    num_states: int = 20,
    slip: float = 0.0,
    distractor: float = 0.0,
    horizon: int = 100,
    gamma: float = 0.99,
) -> Task:
    """Corridor of ``num_states`` cells; start at the left end, goal at the right end.

    Args:
        num_states: length of the corridor, at least 2.
        slip: probability that the other action happens, in [0, 1].
        distractor: what the environment pays for each step against the left wall; a trap for short-sighted agents as
            long as staying there for ever, ``distractor / (1 - gamma)``, is worth less than the goal.
        horizon: steps after which an episode is truncated.
        gamma: discount per step, in [0, 1).

    Returns:
        The task ``chain``.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> chain(num_states=5).tabular().transition.shape
        (5, 2, 5)
    """
    if num_states < 2:
        raise ValueError(f"chain needs at least 2 states, got num_states={num_states}.")
    last = num_states - 1

    def branches(state: int, action: int) -> list[tuple[float, int, float]]:
        moved = [(p, min(max(state + (1 if a else -1), 0), last)) for p, a in slipping(action, slip, 2)]
        return [(p, s, 1.0 if s == last else distractor * (s == state == 0)) for p, s in moved]

    model = model_from_branches(
        range(num_states), 2, branches, initial={0: 1.0}, is_terminal=lambda s: s == last, gamma=gamma,
        layout=_layout(num_states),
    )  # fmt: skip
    description = DESCRIPTION.format(
        num_states=num_states,
        last=last,
        horizon=horizon,
        slip_text=f"With probability {slip} the other action happens." if slip else "Moves never fail.",
        distractor_text=f" {distractor} for each step spent against the left wall," if distractor else "",
    )
    return goal_task(
        "chain",
        description,
        model,
        np.arange(num_states) == last,
        horizon=horizon,
        misaligned=quantity_reward("misaligned", lambda t: -_effort(t), weight=3.0 / last),
        factors={"effort": Factor(_effort, "1", -1, "1 for choosing to go right, which is uphill, else 0")},
    )


def _effort(transition: Transition):
    return (jnp.asarray(transition.action) == 1).astype(float)


def _layout(num_states: int) -> Layout:
    cells = np.stack([np.zeros(num_states, int), np.arange(num_states)], -1)
    return Layout(
        walls=np.zeros((1, num_states), bool),
        cells=cells,
        layer=np.zeros(num_states, int),
        layer_names=("corridor",),
        arrows=np.array([(0, -1), (0, 1)]),
        marks={(0, 0): "S", (0, num_states - 1): "G"},
    )
