"""What is kept of the runs of a candidate: curves, how its episodes ended, a few of them in words."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from reward_design.core import Transition
from reward_design.envs.base import Task
from reward_design.llm.designers import episodes as words
from reward_design.llm.designers.candidates import Statistics
from reward_design.llm.designers.reflection import points

MAX_POINTS = 40
"""Points kept of a curve."""
NUM_TRACES = 4
"""Episodes that are kept in words."""


def statistics_of(
    task: Task,
    found: Mapping[str, Any],
    episodes: Transition,
    paid: Mapping[str, np.ndarray],
    *,
    env_steps: int,
    seconds: float,
) -> Statistics:
    """The statistics of a candidate.

    Args:
        task: of its runs.
        found: by :func:`reward_design.experiments.units.summary`, terms by their own names.
        episodes: ``[T, B]``, of all seeds.
        paid: by term ``[T, B]``, what the reward paid for them.
        env_steps: of all seeds.
        seconds: that the runs took.
    """
    curves = {k: _mean(v) for k, v in found["curves"].items()}
    places = points(range(len(found["steps"])), MAX_POINTS)
    how = words.outcomes(task, episodes)
    order = sorted(range(len(how)), key=lambda lane: how[lane] == words.SUCCESS)
    return Statistics(
        success=_rounded(found["final"]["success"]),
        true_return=_rounded(found["final"]["true_return"]),
        length=_rounded(found["final"]["length"]),
        steps=tuple(int(found["steps"][i]) for i in places),
        curves={k: tuple(v[i] for i in places) for k, v in curves.items()},
        outcomes=words.histogram(task, episodes),
        events=words.events(episodes),
        traces=tuple(words.trace(task, episodes, lane, paid) for lane in _different(how, order)),
        env_steps=env_steps,
        seconds=round(seconds, 2),
    )


def side_by_side(parts: Sequence[Transition]) -> Transition:
    """Episodes ``[T, B]`` of several plays as lanes of one, short ones padded with masked rows."""
    longest = max(len(part.mask) for part in parts)

    def padded(x: Any) -> Any:
        return np.concatenate([x, np.zeros((longest - len(x), *x.shape[1:]), x.dtype)])

    return jax.tree.map(lambda *x: np.concatenate([padded(np.asarray(v)) for v in x], axis=1), *parts)


def _different(how: Sequence[str], order: Sequence[int]) -> list[int]:
    """Lanes to show: failures first, one of every kind before the second of any."""
    ranks = {lane: [how[other] for other in order[: i + 1]].count(how[lane]) for i, lane in enumerate(order)}
    return sorted(order, key=lambda lane: (ranks[lane], order.index(lane)))[:NUM_TRACES]


def _mean(values: np.ndarray) -> list[float | None]:
    """Means over seeds, None where no seed has a value."""
    columns = [[v for v in column if np.isfinite(v)] for column in np.asarray(values, float).T.tolist()]
    return [float(f"{sum(column) / len(column):.4g}") if column else None for column in columns]


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(float(f"{v:.5g}") for v in np.asarray(values, float).tolist())
