"""Rewards that learn from a teacher while an agent trains on them; HERON is the one whose teacher is a ranking."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from reward_design._arguments import whole_number
from reward_design.core import Reward
from reward_design.ensembles import Reduce
from reward_design.preferences.factors import Level
from reward_design.preferences.learning import Config, preference_learner
from reward_design.preferences.model import Inputs, bradley_terry, model_of
from reward_design.preferences.teachers import Teacher, ranked_teacher


def preference_reward(
    teacher: Teacher,
    *,
    inputs: Inputs | None = None,
    network: Any = None,
    num_members: int = 1,
    reduce: Reduce = "mean",
    coefficient: float | int = 1.0,
    gamma: float | int | None = None,
    config: Config | None = None,
    name: str = "preference_reward",
) -> Reward:
    """A Bradley-Terry reward that a teacher's answers train beside the agent.

    The environment's own reward is never read, unless the teacher reads it.

    Keeps the optimal policy: only if the teacher's preferences are those of a return, and have been learned exactly.

    Args:
        teacher: who answers, see :func:`ranked_teacher` and :func:`synthetic_teacher`.
        inputs: what the model reads, see :func:`bradley_terry`.
        network: flax module, see :func:`bradley_terry`.
        num_members: networks in the ensemble; choosing questions by disagreement needs at least 2.
        reduce: how members are combined.
        coefficient: of ``reduce="lcb"``.
        gamma: the agent's discount, for tasks whose episodes terminate, see :func:`bradley_terry`.
        config: settings of learning.
        name: of the reward and its term.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` with a learner; its params also hold the teacher's.

    Raises:
        ValueError: for settings that do not fit together.
        TypeError: for something that is no teacher, config, network, number or function.

    Example:
        >>> from reward_design.preferences import preference_reward, synthetic_teacher
        >>> reward = preference_reward(synthetic_teacher(mistake=0.1), num_members=3)
        >>> reward.learner is not None
        True

    Source: P. Christiano et al., "Deep Reinforcement Learning from Human Preferences", 2017, arXiv 1706.03741; K. Lee,
    L. Smith, P. Abbeel, "PEBBLE", 2021, arXiv 2106.05091 (relabelling: rewards are computed when they are used).
    """
    if not isinstance(teacher, Teacher):
        raise TypeError(
            f"preference_reward expects a Teacher, got {teacher!r}; synthetic_teacher() and ranked_teacher(factors) "
            "make one."
        )
    config = Config() if config is None else config
    if not isinstance(config, Config):
        raise TypeError(f"config must be a PreferenceConfig, got {config!r}.")
    num_members = whole_number("num_members", num_members)
    if config.selection == "disagreement" and num_members < 2:
        raise ValueError(f"selection='disagreement' needs num_members of at least 2, got {num_members}.")
    reward = bradley_terry(
        inputs, network=network, num_members=num_members, reduce=reduce, coefficient=coefficient, gamma=gamma,
        extra=teacher.params, settings={"teacher": teacher.name, "levels": teacher.levels}, name=name,
    )  # fmt: skip
    return dataclasses.replace(reward, learner=preference_learner(model_of(reward), teacher, config))


def heron(
    factors: Sequence[Level],
    *,
    inputs: Inputs | None = None,
    network: Any = None,
    num_members: int = 1,
    reduce: Reduce = "mean",
    coefficient: float | int = 1.0,
    gamma: float | int | None = None,
    config: Config | None = None,
) -> Reward:
    """A reward from a ranking without weights: of two segments the better one on the first level that tells them apart.

    Segments A and B are compared by the most important factor; if they differ by more than its margin, the larger one
    is preferred, otherwise the next factor decides, and so on. A Bradley-Terry model learns from these preferences
    while the agent trains, and what it says is what the agent is paid. Labels cost nothing, so every round draws fresh
    pairs.

    Nothing is paid until the first ``num_calibration`` segments are complete: 128 of 32 steps by default, 4,096 steps
    over all lanes, and fewer where episodes terminate. A shorter run trains on a reward of 0, with ``rounds`` 0 and NaN
    in the other metrics; give it a ``config`` with fewer or shorter segments.

    Keeps the optimal policy: no; it is the ranking that says what is meant. A ranking cannot express a trade-off, and
    with margins its preferences can be cyclic (metric ``cycle_rate``).

    Args:
        factors: levels, the most important one first: a :class:`Factor`, or several of equal importance.
        inputs: what the model reads; by default observation, action and next observation, flattened. For tabular and
            dictionary observations use :func:`space_inputs`.
        network: flax module, see :func:`bradley_terry`.
        num_members: networks in the ensemble.
        reduce: how members are combined.
        coefficient: of ``reduce="lcb"``.
        gamma: the agent's discount, for tasks whose episodes terminate, see :func:`bradley_terry`.
        config: settings of learning.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` with a learner; ``params["margins"]`` has a number per level.

    Raises:
        ValueError: for factors that do not fit together.
        TypeError: for something that is no factor.

    Example:
        >>> import reward_design as rd
        >>> from reward_design.envs import task
        >>> from reward_design.preferences import heron, task_factors
        >>> reward = heron(task_factors(task("pendulum"), ["tilt", "speed", "effort"], margins=[0.5, 0.5, 0.1]))
        >>> print(rd.describe(reward))
        heron (POINTWISE) model=1 RewardNetwork, reduce=mean, teacher=ranked, levels=('tilt', 'speed', 'effort')

    Source: A. Bukharin, Y. Li, P. He, T. Zhao, "Deep Reinforcement Learning from Hierarchical Preference Design", 2023,
    arXiv 2309.02632. The released scripts compare single steps, take deviations over a minibatch (so that a label
    depends on its neighbours), and on robots train the agent on the environment's reward; here segments are compared in
    fixed units, and the learned reward is the only one.
    """
    return preference_reward(
        ranked_teacher(factors), inputs=inputs, network=network, num_members=num_members, reduce=reduce,
        coefficient=coefficient, gamma=gamma, config=config, name="heron",
    )  # fmt: skip
