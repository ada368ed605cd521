"""What PPO reaches on MiniHack with the sparse reward, with potential shaping and with a count bonus.

    python benchmarks/minihack_learning.py                                  # everything that is missing, then the table
    python benchmarks/minihack_learning.py --names Room-5x5 --rewards sparse shaping --seeds 5
    python benchmarks/minihack_learning.py --table                          # only the table

One line of JSON per run goes to ``--out``; runs that are there are not repeated, so the benchmark can be stopped and
continued at will, and several processes may share the file if they are given different levels or rewards.
"""

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from host_learning import append, read
from host_learning_runs import binned, record

from reward_design.agents import ppo
from reward_design.agents.host import evaluate_host
from reward_design.envs import task
from reward_design.experiments.budgets import settings
from reward_design.experiments.designs import resolve
from reward_design.experiments.statistics import bootstrap, interquartile_mean

OPTIONS = {"Corridor-R2": {"action_mask": True}}
"""Options of the tasks; those of other levels are their defaults."""
EPISODES = 100
"""Episodes of an evaluation."""
SOLVED = 0.9
"""Success from which a level counts as solved."""
WINDOW = 100
"""Training episodes over which success is averaged to tell when a level was solved."""


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        names: levels, without ``MiniHack-`` and version.
        rewards: reward designs.
        seeds: runs of each design on each level, numbered from 0.
        out: records.
        table: print the table of what is there, run nothing.
    """

    names: tuple[str, ...] = ("Room-5x5", "KeyRoom-S5", "Corridor-R2")
    rewards: tuple[str, ...] = ("sparse", "shaping", "count_bonus")
    seeds: int = 5
    out: Path = Path(__file__).with_name("records") / "minihack_learning.jsonl"
    table: bool = False


def main(args: Args) -> None:
    """Run what is missing, level by level and seed by seed, and print the table."""
    wanted = [(name, design, seed) for name in args.names for seed in range(args.seeds) for design in args.rewards]
    for name, design, seed in () if args.table else wanted:
        if (name, design, seed) in {(r["name"], r["reward"], r["seed"]) for r in read(args.out)}:
            continue
        row = {"agent": "ppo", "name": name, "reward": design, "seed": seed, **run(name, design, seed)}
        append(args.out, row)
        print(f"{design} on {name}, seed {seed}: {row['evaluation']:.2f} after {row['cpu_s']:,.0f} s", flush=True)
    print(table(read(args.out), args.names, args.rewards))


def run(name: str, design: str, seed: int, **changed: Any) -> dict[str, Any]:
    """Train PPO with the settings that it has on this level by default.

    Returns:
        The record: ``evaluation`` is the success of the policy as it is trained, by samples, ``evaluation_mode`` that
        of its most probable actions, ``curve`` the success of training episodes.
    """
    level = task(f"minihack/{name}", **OPTIONS.get(name, {}))
    config, reward = settings(ppo.AGENT, level, config=changed), resolve(design, level)
    steps = config.num_updates * config.steps_per_update
    with contextlib.closing(level.vector(config.num_envs)) as envs:
        start = time.process_time()
        result = ppo.train_host(config, envs, reward, jax.random.key(seed))
        seconds = time.process_time() - start
        sampled, mode = (
            evaluate_host(
                ppo.AGENT, config, envs, result.state, num_episodes=EPISODES, deterministic=mode, seed=seed + 1000
            )
            for mode in (False, True)
        )
    ended = result.metrics["episodes"] > 0
    at, success, episodes = (result.metrics[key][ended] for key in ("env_steps", "success", "episodes"))
    row = record(binned(at, success, episodes, steps), sampled["success"], seconds, steps)
    return row | {
        "evaluation_mode": float(np.mean(mode["success"])),
        "length": float(np.mean(sampled["length"])),
        "solved_at": solved_at(at, success, episodes),
    }


def solved_at(at: Any, success: Any, episodes: Any) -> int | None:
    """Environment steps after which the latest ``WINDOW`` training episodes or more have a success of ``SOLVED``.

    Args:
        at: ``[N]`` environment steps at the end of each update.
        success: ``[N]`` mean success of the episodes that ended in each update.
        episodes: ``[N]`` their number.
    """
    total = np.concatenate([[0], np.cumsum(episodes)])
    achieved = np.concatenate([[0], np.cumsum(np.asarray(success) * np.asarray(episodes))])
    for i in range(1, len(total)):
        if total[i] >= WINDOW:
            before = np.searchsorted(total, total[i] - WINDOW, side="right") - 1
            if achieved[i] - achieved[before] >= SOLVED * (total[i] - total[before]):
                return int(at[i - 1])
    return None


def table(rows: Sequence[dict[str, Any]], names: Sequence[str], rewards: Sequence[str]) -> str:
    """Interquartile means over seeds with intervals, as Markdown."""
    lines = [
        "| level | steps | reward | seeds | success | success, mode of the policy | solved | steps until 0.9 | CPU s |",
        f"|{'---|' * 9}",
    ]
    for name in names:
        for design in rewards:
            found = [row for row in rows if (row["name"], row["reward"]) == (name, design)]
            if found:
                cells = [name, _thousands(found[0]["steps"]), design, len(found)]
                cells += [_estimate([row[kind] for row in found]) for kind in ("evaluation", "evaluation_mode")]
                cells += [f"{sum(row['evaluation'] >= SOLVED for row in found)} of {len(found)}"]
                cells += [_until([row["solved_at"] for row in found])]
                cells += [f"{np.median([row['cpu_s'] for row in found]):,.0f}"]
                lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _estimate(scores: Sequence[float]) -> str:
    estimate = bootstrap(np.asarray(scores), interquartile_mean)
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _until(steps: Sequence[int | None]) -> str:
    """Median and range; a run that never got there counts as slower than all others."""
    ordered = sorted(np.inf if step is None else step for step in steps)
    shown = [
        _thousands(step) if np.isfinite(step) else "never" for step in (np.median(ordered), ordered[0], ordered[-1])
    ]
    return shown[0] if shown[1] == shown[2] else f"{shown[0]} ({shown[1]} to {shown[2]})"


def _thousands(steps: float) -> str:
    return f"{steps / 1000:,.0f}k"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
