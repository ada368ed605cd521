"""Candidates judged by planning instead of learning: predictive sampling acts on each of them at once."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from reward_design.agents.predictive_sampling import Config, PredictiveSampling
from reward_design.core import NonFiniteRewardError, Output, Reward, Transition
from reward_design.envs.base import Task
from reward_design.experiments.evaluation import Scorer, judge, play_lanes
from reward_design.experiments.units import summary
from reward_design.llm.designers.candidates import Refusal, Statistics
from reward_design.llm.designers.told import side_by_side, statistics_of


class Planning:
    """An episode for each seed, played by predictive sampling with one reward.

    It has of :class:`reward_design.llm.designers.training.Training` what the designers use after training.

    Args:
        task: a MuJoCo task.
        name: id of the candidate.
        reward: what plans are judged by; the true reward judges the episodes.
        config: settings of the planner.
        seeds: of episodes and noise.

    Attributes:
        refused: by id, why it stopped: its reward was not finite.
    """

    def __init__(self, task: Task, name: str, reward: Reward, config: Config, seeds: Sequence[int]) -> None:
        self.task, self.name, self.reward, self.config, self.seeds = task, name, reward, config, list(seeds)
        self.refused: dict[str, Refusal] = {}
        begun = time.perf_counter()
        try:
            self.episodes = played(task, reward, config, self.seeds)
        except NonFiniteRewardError as error:
            self.refused[name] = Refusal("training", str(error))
        self.seconds = time.perf_counter() - begun

    def statistics(self, name: str, *, seed: int = 0) -> tuple[Statistics, Transition]:
        """What the episodes gave, and the episodes; curves have the one point of their end."""
        output, found = self._scored()
        steps = int(self.episodes.mask.sum())
        return statistics_of(
            self.task, found, self.episodes, output.terms, env_steps=steps, seconds=self.seconds
        ), self.episodes

    def record(self) -> dict[str, Any]:
        """What a record of a comparison says of the episodes."""
        if self.refused:
            return {"status": "failed", "reason": self.refused[self.name].reason}
        times = {"wall_s": round(self.seconds, 3), "env_steps": int(self.episodes.mask.sum())}
        return {"status": "done", **times, **self._scored()[1]}

    def policy(self, name: str, index: int = 0) -> PredictiveSampling:
        """The planner of a seed."""
        return PredictiveSampling(self.task, self.reward, self.config, seed=self.seeds[index])

    def _scored(self) -> tuple[Output, dict[str, Any]]:
        """What the reward pays, and the episodes in the form of a training with one update."""
        output = Scorer(self.task.env, self.reward)(self.episodes)
        found = judge(self.task.env, self.episodes, output)
        metrics = {name: np.asarray(getattr(found, name))[:, None] for name in found._fields}
        metrics |= {f"term/{name}": np.asarray(value).sum(0)[:, None] for name, value in output.terms.items()}
        metrics["episodes"] = np.ones((len(self.seeds), 1))
        return output, summary(metrics, int(self.episodes.mask.sum(0).max()))


def played(task: Task, reward: Reward, config: Config, seeds: Sequence[int]) -> Transition:
    """An episode of a planner for each seed, ``[T, seeds]``.

    Raises:
        NonFiniteRewardError: if the reward of a plan is NaN or infinite.
    """
    planner = PredictiveSampling(task, reward, config)
    parts = []
    for seed in seeds:
        planner.reset(seed)
        parts.append(play_lanes(task.env, planner, 1, seed))
    return side_by_side(parts)
