"""The design ``heron``: a ranking of a task's factors, written in one word so that a run can be found and repeated."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reward_design.core import Reward
from reward_design.envs.base import Task
from reward_design.preferences import PreferenceConfig, heron, space_inputs, task_factors
from reward_design.preferences.ranking import STARVED

MARGIN = 0.1
"""Of factors without one, in standard deviations."""
SEGMENT = 32
"""Steps of a segment, where an episode can be as long."""


def ranked_design(task: Task, ranking: str = "") -> Reward:
    """HERON on factors of a task.

    Args:
        task: the task.
        ranking: ``"tilt=0.5,speed=0.2"``, factors with their margins in standard deviations, best first; by default all
            factors of the task in its own order, with margins of 0.1.

    Returns:
        A :class:`Reward` that is learned beside the agent.

    Raises:
        ValueError: for a factor that the task does not have, or a margin that is no number.

    Example:
        >>> from reward_design.envs import task
        >>> ranked_design(task("pendulum"), "tilt=0.5,speed").settings["levels"]
        ('tilt', 'speed')
    """
    words = [word.partition("=") for word in ranking.split(",") if word.strip()]
    names = [name.strip() for name, _, _ in words] or None
    margins = [_number(margin, name) for name, _, margin in words] or MARGIN
    config = PreferenceConfig(segment_length=min(SEGMENT, task.horizon), refresh_every=2048)
    return heron(task_factors(task, names, margins=margins), inputs=space_inputs(task), gamma=task.gamma, config=config)


def with_ranking(rewards: Sequence[str], factors: str | None, margins: str | None) -> tuple[str, ...]:
    """Names of designs, ``heron`` among them with its ranking: ``heron/tilt=0.5,speed=0.2``.

    Args:
        rewards: names.
        factors: ``"tilt,speed"``, best first, or None.
        margins: ``"0.5,0.2"``, in standard deviations, or None.

    Raises:
        ValueError: for margins without factors or as many, or without the design ``heron``.

    Example:
        >>> with_ranking(["sparse", "heron"], "tilt,speed", "0.5,0.2")
        ('sparse', 'heron/tilt=0.5,speed=0.2')
    """
    if factors is None and margins is None:
        return tuple(rewards)
    if "heron" not in rewards:
        raise ValueError(f"--factors and --margins are for the reward 'heron', got {', '.join(rewards)}.")
    names = [name.strip() for name in (factors or "").split(",") if name.strip()]
    numbers = [number.strip() for number in (margins or "").split(",") if number.strip()]
    if not names or (numbers and len(numbers) != len(names)):
        raise ValueError(
            f"--margins needs one number for each of --factors, got {len(numbers)} for {len(names)}; for example "
            "--factors tilt,speed --margins 0.5,0.2."
        )
    ranking = ",".join(map("=".join, zip(names, numbers)) if numbers else names)
    return tuple(f"heron/{ranking}" if name == "heron" else name for name in rewards)


def starved_note(metrics: Mapping[str, Any]) -> str | None:
    """What to tell where the first level of a ranking decides nearly all pairs at the end of some updates, or None.

    Args:
        metrics: ``[..., updates]`` of an agent that learned from a ranked reward.

    Example:
        >>> starved_note({"reward/starved": [0.0, 1.0]})
        'the first factor decides more than 95 % of the pairs, so the others have no say: give it a larger margin'
        >>> starved_note({"reward/starved": [1.0, 0.0]}) is None
        True
    """
    starved = next((value for name, value in metrics.items() if name.endswith("/starved")), None)
    if starved is None or not np.nan_to_num(np.asarray(starved, float)[..., -1]).mean() > 0.5:
        return None
    share = f"{100 * STARVED:.0f} %"
    return (
        f"the first factor decides more than {share} of the pairs, so the others have no say: give it a larger margin"
    )


def _number(margin: str, name: str) -> float:
    try:
        return float(margin) if margin else MARGIN
    except ValueError:
        raise ValueError(f"the margin of factor {name!r} must be a number, got {margin!r}.") from None
