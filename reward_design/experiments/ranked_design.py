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
    gamma = task.gamma if task.gamma < 1 else None  # without a discount no number stands for all that would follow
    return heron(task_factors(task, names, margins=margins), inputs=space_inputs(task), gamma=gamma, config=config)


def with_ranking(rewards: Sequence[str], factors: str | None, margins: str | None) -> tuple[str, ...]:
    """Names of designs, ``heron`` among them with its ranking: ``heron/tilt=0.5,speed=0.2``.

    Args:
        rewards: names.
        factors: ``"tilt,speed"``, best first, or None.
        margins: ``"0.5,0.2"``, in standard deviations, or None.

    Raises:
        ValueError: without any factor, for margins that are not as many, or without the design ``heron``.

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
    if factors is None:
        raise ValueError(
            f"--margins {margins} needs --factors, which says whose margins they are; for example --factors tilt,speed "
            "--margins 0.5,0.2."
        )
    if not names:
        raise ValueError(f"--factors names no factor, got {factors!r}; for example --factors tilt,speed.")
    if margins is not None and len(numbers) != len(names):
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
    if not _last(metrics, "starved") > 0.5:
        return None
    share = f"{100 * STARVED:.0f} %"
    return (
        f"the first factor decides more than {share} of the pairs, so the others have no say: give it a larger margin"
    )


def unlearned_note(metrics: Mapping[str, Any]) -> str | None:
    """What to tell where a run ends without a single round of learning, or where nothing but ties was left, or None.

    Args:
        metrics: ``[..., updates]`` of an agent that learned from a ranked reward.

    Example:
        >>> unlearned_note({"reward/rounds": [0.0, 0.0]})
        'the reward was never learned, so the agent was paid nothing: its first num_calibration segments of ...
        >>> unlearned_note({"reward/rounds": [0.0, 8.0], "reward/decided/tie": [float("nan"), 0.2]}) is None
        True
    """
    rounds = _last(metrics, "rounds")
    if np.isnan(rounds):
        return None
    if rounds == 0:
        return (
            "the reward was never learned, so the agent was paid nothing: its first num_calibration segments of "
            f"segment_length steps ({PreferenceConfig.num_calibration} of up to {SEGMENT} here) were not complete; "
            "train for more steps"
        )
    if _last(metrics, "decided/tie") > 0.999:
        return "no factor tells segments apart, all pairs are ties: give smaller margins, or factors that vary"
    return None


def _last(metrics: Mapping[str, Any], name: str) -> float:
    """Mean over runs of the last value of ``reward/<name>``; NaN without one."""
    found = next((value for metric, value in metrics.items() if metric.endswith(f"/{name}")), None)
    if found is None:
        return float("nan")
    last = np.asarray(found, float)[..., -1]
    return float(last[~np.isnan(last)].mean()) if (~np.isnan(last)).any() else float("nan")


def _number(margin: str, name: str) -> float:
    try:
        return float(margin) if margin else MARGIN
    except ValueError:
        raise ValueError(f"the margin of factor {name!r} must be a number, got {margin!r}.") from None
