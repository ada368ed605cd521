"""What makes a claim honest: random search with equal compute, the sparse and the hand-made reward, fresh seeds."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reward_design.agents.predictive_sampling import Config, PredictiveSampling
from reward_design.envs.base import Task
from reward_design.experiments import artifacts, compare, designs
from reward_design.experiments.provenance import fingerprint, provenance
from reward_design.experiments.results import Results
from reward_design.experiments.store import Store
from reward_design.llm.designers.drivers import planner_settings
from reward_design.llm.designers.page import FINAL
from reward_design.llm.designers.planning import Planning
from reward_design.llm.designers.search import DesignResult, Event, design

RANDOM = "random"
"""Sub-folder of the random search."""
FIRST_SEED = 1000
"""Final seeds begin here: none of them was used in a search."""


def compare_with_controls(
    task: Task,
    found: DesignResult,
    *,
    label: str,
    rounds: int,
    candidates: int,
    seeds: int,
    steps: int | None,
    agent: str = "ppo",
    driver: str = "rl",
    config: dict[str, Any] | None = None,
    final_seeds: int = 5,
    by_hand: Sequence[str] = ("sparse", "dense"),
    seed: int = 0,
    out: str | os.PathLike[str],
    progress: bool = False,
    on_progress: Callable[[Event], None] | None = None,
) -> Results:
    """Search at random with the same number of trained candidates, then train all of them anew with fresh seeds.

    Args:
        task: the task.
        found: of a search.
        label: how it is called.
        rounds: of that search.
        candidates: of each of its rounds.
        seeds: runs of each candidate.
        steps: of each run.
        agent: name of the agent.
        driver: ``"rl"``, or ``"mpc"``: the planner plays an episode for each fresh seed with each reward.
        config: settings of the agent or planner by name.
        final_seeds: fresh seeds for the comparison, at least 1; 5 and more give intervals that say something.
        by_hand: designs of the task to compare with; none where an earlier search was compared with them.
        seed: of the random search.
        out: folder of the search; ``out/random`` and ``out/final`` are made in it.
        progress: show a progress bar.
        on_progress: hears about the random search.

    Returns:
        Results of ``by_hand``, ``random`` and the search, on ``final_seeds`` seeds.
    """
    folder = Path(out)
    trained = sum(c.trained for c in found.candidates)
    rounds_, wanted = _as_many(trained, rounds, candidates)
    at_random = design(
        task, preset=RANDOM, rounds=rounds_, candidates=wanted, seeds=seeds, steps=steps, agent=agent, driver=driver,
        config=config, seed=seed, audits="none", out=folder / RANDOM, on_progress=on_progress,
    )  # fmt: skip
    rewards: dict[str, Any] = {name: name for name in by_hand}
    rewards |= {RANDOM: at_random.reward} if at_random.reward is not None else {}
    rewards |= {label: found.reward} if found.reward is not None else {}
    fresh = range(FIRST_SEED, FIRST_SEED + final_seeds)
    if driver == "mpc":
        return plan_with(task, rewards, planner_settings(task, config), seeds=fresh, out=folder / FINAL)
    return compare(
        task, rewards, agent=agent, seeds=fresh, total_timesteps=steps, config=config, out=folder / FINAL,
        progress=progress, report=False, extend=False,
    )  # fmt: skip


def plan_with(
    task: Task, rewards: Mapping[str, Any], config: Config, *, seeds: Sequence[int], out: str | os.PathLike[str]
) -> Results:
    """As :func:`reward_design.experiments.compare`, with a planner in place of agents: an episode for each seed.

    Args:
        task: a MuJoCo task.
        rewards: designs by label.
        config: settings of the planner.
        seeds: of episodes and noise.
        out: folder of the records; what is there is not played again.
    """
    name = PredictiveSampling.name
    identity = {
        "agent": name, "seeds": list(seeds), "tasks": [task.name], "rewards": list(rewards),
        "config": {task.name: asdict(config)},
    }  # fmt: skip
    with Store(out, identity) as store:
        done = Results(store.records).done
        for label, design in rewards.items():
            reward = designs.resolve(design, task)
            mark = fingerprint(task.env, reward)
            if (known := done.get((task.name, label))) is not None and known.record["fingerprint"] == mark:
                continue
            artifacts.note(store, {label: (design, reward)})
            planning = Planning(task, label, reward, config, seeds)
            store.append({
                "kind": "unit", "task": task.name, "reward": label, "agent": name, "seeds": list(seeds),
                "config": asdict(config), "fingerprint": mark, **provenance(), **planning.record(),
            })  # fmt: skip
        return Results(store.records)


def _as_many(trained: int, rounds: int, candidates: int) -> tuple[int, int]:
    """Rounds and candidates with at least as many candidates as the search trained.

    Example:
        >>> _as_many(12, 3, 4), _as_many(5, 3, 4), _as_many(0, 3, 4)
        ((3, 4), (2, 4), (1, 4))
    """
    return max(1, min(rounds, -(-trained // candidates))), candidates
