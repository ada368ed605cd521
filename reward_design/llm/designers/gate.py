"""CARD's gate: does a reward tell success from failure on recorded episodes? Asked before any training.

Source: Sun et al., "A Large Language Model-Driven Reward Design Framework via Dynamic Feedback for Reinforcement
Learning" (CARD), 2024, arXiv 2410.14660.
"""

from typing import NamedTuple

import numpy as np

from reward_design.core import Reward, Transition
from reward_design.envs.base import Task
from reward_design.experiments.evaluation import Scorer, judge


class Preference(NamedTuple):
    """What the gate found.

    Attributes:
        accuracy: share of the successful episodes whose mean reward per step is above that of every failure; 1 where
            one of the two classes is missing, which proves nothing.
        successes: how many episodes succeeded.
        failures: how many did not.
        weakest_success: lane of the success with the least mean reward, or None.
        strongest_failure: lane of the failure with the most, or None.
        means: ``[B]`` mean reward per step of each episode.
    """

    accuracy: float
    successes: int
    failures: int
    weakest_success: int | None
    strongest_failure: int | None
    means: np.ndarray


def preference(means: np.ndarray, success: np.ndarray) -> Preference:
    """Trajectory preference evaluation of episodes.

    accuracy = #{i succeeded: m_i > max over failures j of m_j} / #{i succeeded}

    Args:
        means: ``[B]`` mean reward per step.
        success: ``[B]`` bool.

    Returns:
        A :class:`Preference`.

    Example:
        >>> preference(np.array([1.0, 3.0, 2.0]), np.array([True, True, False])).accuracy
        0.5
    """
    means, success = np.asarray(means, float), np.asarray(success, bool)
    won, lost = np.flatnonzero(success), np.flatnonzero(~success)
    both = len(won) and len(lost)
    accuracy = float(np.mean(means[won] > means[lost].max())) if both else 1.0
    return Preference(
        accuracy, len(won), len(lost),
        int(won[np.argmin(means[won])]) if len(won) else None,
        int(lost[np.argmax(means[lost])]) if len(lost) else None,
        means,
    )  # fmt: skip


def preference_of(task: Task, reward: Reward, episodes: Transition) -> Preference:
    """The gate on recorded episodes ``[T, B]``, one per lane, with what ``reward`` pays for them."""
    output = Scorer(task.env, reward)(episodes)
    played = judge(task.env, episodes, output)
    assert played.shaped_return is not None
    return preference(played.shaped_return / np.maximum(played.length, 1), played.success > 0)
