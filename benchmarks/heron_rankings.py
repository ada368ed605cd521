"""The rankings of benchmarks/heron.py: what matters on each task, best first, and how far runs go."""

import dataclasses
from typing import Any

import jax.numpy as jnp

from reward_design.core import Transition
from reward_design.envs import Task
from reward_design.preferences import Factor, PreferenceConfig, task_factors
from reward_design.preferences.factors import aggregate, quantities


@dataclasses.dataclass(frozen=True)
class Ranking:
    """Factors of a task: name, aggregator and margin in deviations over random episodes, best first.

    Attributes:
        factors: ``(name, aggregator, margin)`` of each level.
        config: of the preference learner.
        total_timesteps: of a run.
        tuning_seeds: on which the weights of the tuned sum are tried.
    """

    factors: tuple[tuple[str, str, float], ...]
    config: PreferenceConfig
    total_timesteps: int
    tuning_seeds: tuple[int, ...] = (1000, 1001, 1002)


EVENTS = PreferenceConfig(stratified=True, refresh_every=1024, segment_length=32)
"""For rankings led by rare events: pairs that those decide count as much as all others together."""
SHORT_EVENTS = dataclasses.replace(EVENTS, segment_length=16, num_calibration=256, capacity=2048)
"""The same where several events follow each other: few segments hold two of them, which would share their credit."""
MUJOCO_STEPS, MUJOCO_TUNING = 48_000, (1000, 1001)
"""Runs on MuJoCo go one after another, so they are shorter and weights are tried on two seeds."""
RANKINGS = {
    "pendulum": Ranking(
        (("tilt", "mean", 0.1), ("speed", "mean", 0.2), ("effort", "mean", 0.5)), PreferenceConfig(), 200_000
    ),
    "cliff": Ranking((("fell", "sum", 0.0), ("goal_reached", "sum", 0.0), ("distance", "mean", 0.1)), EVENTS, 120_000),
    "key_door": Ranking(
        (
            ("goal_reached", "sum", 0.0),
            ("door_opened", "sum", 0.0),
            ("key_picked", "sum", 0.0),
            ("distance", "mean", 0.1),
        ),
        SHORT_EVENTS,
        120_000,
    ),
    "mujoco/HalfCheetah": Ranking(
        (("forward_velocity", "mean", 0.5), ("effort", "mean", 0.1)),
        PreferenceConfig(refresh_every=2000),
        MUJOCO_STEPS,
        MUJOCO_TUNING,
    ),
    "mujoco/Hopper": Ranking(
        (("forward_velocity", "sum", 0.1), ("healthy", "sum", 0.2), ("effort", "mean", 0.5)),
        PreferenceConfig(refresh_every=2000),
        MUJOCO_STEPS,
        MUJOCO_TUNING,
    ),
    "mujoco/Ant": Ranking(
        (("healthy", "sum", 1.0), ("forward_velocity", "sum", 0.5), ("effort", "mean", 0.5)),
        PreferenceConfig(refresh_every=2000),
        MUJOCO_STEPS,
        MUJOCO_TUNING,
    ),
}


def factors_of(problem: Task) -> tuple[Factor, ...]:
    """The ranking of a task."""
    ranking = RANKINGS[problem.name].factors
    made = task_factors(problem, [name for name, _, _ in ranking], margins=[margin for _, _, margin in ranking])
    return tuple(dataclasses.replace(factor, aggregate=rule) for factor, (_, rule, _) in zip(made, ranking))


def first_episodes(factors: tuple[Factor, ...], trajectory: Transition) -> tuple[Any, Any]:
    """Factors ``[B, L]`` and true returns ``[B]`` of the first episode of each lane of ``[T, B]`` experience."""
    done = jnp.asarray(trajectory.terminated | trajectory.truncated, int)
    first = jnp.cumsum(done, axis=0) - done == 0
    steps = jnp.swapaxes(quantities(factors, trajectory), 0, 1)
    return aggregate(factors, steps, first.T), jnp.sum(trajectory.reward * first, axis=0)
