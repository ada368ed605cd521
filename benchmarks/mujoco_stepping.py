"""Raw steps per second of MujocoVectorEnv against gymnasium's SyncVectorEnv, in turns (A B A B ...), as JSON lines.

python benchmarks/mujoco_stepping.py
python benchmarks/mujoco_stepping.py --name Hopper --num-envs 64 --out results/stepping.jsonl
"""

import dataclasses
import json
import platform
import statistics
import time
from pathlib import Path

import gymnasium
import numpy as np
import tyro
from gymnasium.vector import AutoresetMode

from reward_design.envs.mujoco_lanes import MujocoVectorEnv


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        name: environment, without its version.
        num_envs: lanes.
        steps: steps of all lanes per timed run.
        repeats: pairs A B.
        out: file that gets the JSON line.
    """

    name: str = "HalfCheetah"
    num_envs: int = 8
    steps: int = 10_000
    repeats: int = 7
    out: Path | None = None


def main(args: Args) -> None:
    """Time the pairs and print one JSON line."""
    make = [lambda: gymnasium.make(f"{args.name}-v5")] * args.num_envs
    ours = MujocoVectorEnv(args.name, args.num_envs)
    theirs = gymnasium.vector.SyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP)
    for envs in (ours, theirs):
        envs.reset(seed=0)
    theirs.action_space.seed(0)
    actions = np.stack([theirs.action_space.sample() for _ in range(256)])
    rates = [(rate(ours, actions, args), rate(theirs, actions, args)) for _ in range(args.repeats + 1)][1:]
    ratios = sorted(a / b for a, b in rates)
    row = {
        "comparison": f"MujocoVectorEnv / SyncVectorEnv, {args.name}, {args.num_envs} environments",
        "median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1],
        "steps_per_second": [[round(a), round(b)] for a, b in rates],
        "gymnasium": gymnasium.__version__, "python": platform.python_version(),
    }  # fmt: skip
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
    return args.steps / (time.perf_counter() - start)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
