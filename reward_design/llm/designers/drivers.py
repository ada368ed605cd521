"""What acts on a candidate: an agent that learns from it, or a planner."""

import dataclasses
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

from reward_design.agents import agent as find_agent
from reward_design.agents.base import Agent
from reward_design.agents.predictive_sampling import Config, PredictiveSampling
from reward_design.agents.settings import one_of
from reward_design.envs.base import Task
from reward_design.experiments import budgets
from reward_design.llm.designers.evaluation import plan_all, train_all
from reward_design.llm.designers.session import Parts

DRIVERS = ("rl", "mpc")
"""Learning, and planning by predictive sampling."""


def driven(parts: Parts, driver: str) -> Parts:
    """The parts of a search with candidates trained, or planned with.

    Raises:
        ValueError: for an unknown driver, or parts that hand out training themselves.
    """
    one_of(SimpleNamespace(driver=driver), "driver", DRIVERS)
    if driver == "rl":
        return parts
    if parts.evaluate is not train_all:
        raise ValueError(f"preset {parts.name!r} hands out training, which driver='mpc' has none of; use driver='rl'.")
    return dataclasses.replace(parts, evaluate=plan_all)


def planner_settings(task: Task, config: Mapping[str, Any] | None) -> Config:
    """The planner's settings with some overridden by name, checked on the task."""
    own = {"horizon": Config().horizon, **(config or {})}  # the planner's horizon is not the task's
    found = budgets.settings(SimpleNamespace(name=PredictiveSampling.name, Config=Config), task, config=own)
    PredictiveSampling(task, config=found)
    return found


def actor(task: Task, driver: str, agent: str, steps: int | None, config: Mapping[str, Any] | None) -> tuple[Any, Any]:
    """What acts on candidates, and its settings.

    Raises:
        ValueError: for an agent that is not of this package, settings that do not fit, or steps for a planner.
        TypeError: for planning on a task that MuJoCo does not simulate.
    """
    if driver == "mpc":
        if steps is not None:
            raise ValueError(f"driver='mpc' plays whole episodes and does not train, got steps={steps}; leave it out.")
        return PredictiveSampling, planner_settings(task, config)
    learner = find_agent(agent)
    if not isinstance(learner, Agent):
        raise ValueError(f"agent must be one of this package, such as 'ppo', got {agent!r}.")
    return learner, budgets.settings(learner, task, total_timesteps=steps, config=config)
