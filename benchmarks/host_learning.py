"""What agents reach on environments of the host, next to stable-baselines3 at the same settings and steps.

    python benchmarks/host_learning.py                                # everything that is missing, then the tables
    python benchmarks/host_learning.py --agents ppo sb3/ppo --names Hopper --seeds 5
    python benchmarks/host_learning.py --table                        # only the tables

One line of JSON per run goes to ``--out``; runs that are there are not repeated, so the benchmark can be stopped and
continued at will, and several processes may share the file if they are given different agents or names.
"""

import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from host_learning_runs import RUNS

from reward_design.experiments.statistics import bootstrap, interquartile_mean

STEPS = {"ppo": 1_000_000, "sb3/ppo": 1_000_000, "sac": 300_000, "sb3/sac": 300_000}
"""Environment steps of a run."""
PAIRS = [("ppo", "sb3/ppo"), ("sac", "sb3/sac")]


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        agents: which agents.
        names: MuJoCo environments.
        seeds: runs of each agent on each environment.
        out: records.
        table: print the tables of what is there, run nothing.
    """

    agents: tuple[str, ...] = tuple(RUNS)
    names: tuple[str, ...] = ("HalfCheetah", "Hopper", "Walker2d")
    seeds: int = 5
    out: Path = Path(__file__).with_name("records") / "host_learning.jsonl"
    table: bool = False


def main(args: Args) -> None:
    """Run what is missing, seed by seed, and print the tables."""
    wanted = [(agent, name, seed) for seed in range(args.seeds) for name in args.names for agent in args.agents]
    for agent, name, seed in () if args.table else wanted:
        if (agent, name, seed) in {(r["agent"], r["name"], r["seed"]) for r in read(args.out)}:
            continue
        row = {"agent": agent, "name": name, "seed": seed, **RUNS[agent](name, seed, STEPS[agent])}
        append(args.out, row)
        print(f"{agent} on {name}, seed {seed}: {row['evaluation']:,.0f} after {row['cpu_s']:,.0f} s", flush=True)
    print(table(read(args.out), args.names))


def read(path: Path) -> list[dict[str, Any]]:
    """All records."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def append(path: Path, row: dict[str, Any]) -> None:
    """Write one record in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(file, json.dumps(row).encode() + b"\n")
    finally:
        os.close(file)


def table(rows: Sequence[dict[str, Any]], names: Sequence[str]) -> str:
    """Interquartile means with intervals for every pair of agents, as Markdown."""
    lines = ["| environment | agent | seeds | evaluation | last tenth of training | CPU s per run |", f"|{'---|' * 6}"]
    for name in names:
        for agent in [agent for pair in PAIRS for agent in pair]:
            found = [row for row in rows if (row["agent"], row["name"]) == (agent, name)]
            if found:
                scores = [_estimate([row[kind] for row in found]) for kind in ("evaluation", "final")]
                seconds = np.median([row["cpu_s"] for row in found])
                lines.append(f"| {name} | {agent} | {len(found)} | {scores[0]} | {scores[1]} | {seconds:,.0f} |")
    return "\n".join(lines)


def _estimate(scores: Sequence[float]) -> str:
    estimate = bootstrap(np.asarray(scores), interquartile_mean)
    return f"{estimate.value:,.0f} ({estimate.low:,.0f} to {estimate.high:,.0f})"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
