"""Raw steps per second of MiniHack tasks against gymnasium's SyncVectorEnv, in turns (A B A B ...), as JSON lines.

python benchmarks/minihack_stepping.py
python benchmarks/minihack_stepping.py --name KeyRoom-S5 --num-envs 64 --out results/stepping.jsonl
"""

import dataclasses
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode

from reward_design.envs import task
from reward_design.envs.minihack_game import registered


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        name: level, without ``MiniHack-`` and version.
        num_envs: lanes.
        steps: steps of all lanes per timed run.
        repeats: rounds A B C.
        out: file that gets the JSON line.
    """

    name: str = "Room-5x5"
    num_envs: int = 8
    steps: int = 8_000
    repeats: int = 5
    out: Path | None = None


def main(args: Args) -> None:
    """Time the rounds and print one JSON line."""
    keys = {"observation_keys": ("glyphs_crop", "blstats", "message"), "disable_env_checker": True}
    make = [lambda: gymnasium.make(registered()[args.name], **keys)] * args.num_envs
    known: dict[str, Any] = {
        kind: task(f"minihack/{args.name}", vectorisation=kind).vector(args.num_envs) for kind in ("sync", "process")
    }
    known["gymnasium"] = gymnasium.vector.SyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP)
    for envs in known.values():
        envs.reset(seed=0)
    actions = np.random.default_rng(0).integers(known["sync"].single_action_space.n, size=(256, args.num_envs))
    rounds = [{kind: rate(envs, actions, args) for kind, envs in known.items()} for _ in range(args.repeats + 1)][1:]
    row = {"name": args.name, "num_envs": args.num_envs, "steps_per_second": rounds, "nle": version("nle"),
           "minihack": version("minihack"), "python": platform.python_version()}  # fmt: skip
    for kind in ("gymnasium", "process"):
        ratios = sorted(times["sync"] / times[kind] for times in rounds)
        row[f"sync / {kind}"] = {"median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1]}
    for envs in known.values():
        envs.close()
    print(json.dumps(row))
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def rate(envs: gymnasium.vector.VectorEnv, actions: np.ndarray, args: Args) -> float:
    """Steps of all lanes per second."""
    start = time.perf_counter()
    for t in range(args.steps // args.num_envs):
        envs.step(actions[t % len(actions)])
    return round(args.steps / (time.perf_counter() - start))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
