"""How often random play comes past the distance that a sparse MuJoCo task pays for, as JSON lines.

python benchmarks/mujoco_sparse.py
python benchmarks/mujoco_sparse.py --names Swimmer --num-envs 300
"""

import dataclasses
import json
from pathlib import Path

import numpy as np
import tyro

from reward_design.envs.mujoco_lanes import MujocoVectorEnv
from reward_design.envs.mujoco_texts import FACTS


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        names: environments that run somewhere.
        num_envs: lanes; each plays 1000 steps, one episode or more.
        seed: of environments and actions.
        out: file that gets the JSON lines.
    """

    names: tuple[str, ...] = ("HalfCheetah", "Ant", "Swimmer", "Hopper", "Humanoid", "Walker2d")
    num_envs: int = 100
    seed: int = 0
    out: Path | None = None


def main(args: Args) -> None:
    """Play and print one JSON line for each environment."""
    for name in args.names:
        furthest = played(name, args.num_envs, args.seed)
        row = {
            "task": f"mujoco/{name}-sparse", "distance": FACTS[name].paid_past, "episodes": len(furthest),
            "share": float(np.mean(furthest > FACTS[name].paid_past)), "furthest": round(float(furthest.max()), 2),
        }  # fmt: skip
        print(json.dumps(row), flush=True)
        if args.out is not None:
            args.out.parent.mkdir(parents=True, exist_ok=True)
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")


def played(name: str, num_envs: int, seed: int) -> np.ndarray:
    """Furthest place in x of every episode that ended within 1000 steps of uniformly random actions."""
    envs = MujocoVectorEnv(name, num_envs, seed=seed)
    envs.reset()
    rng = np.random.default_rng(seed)
    low, high = envs.action_space.low, envs.action_space.high  # pyright: ignore[reportAttributeAccessIssue]
    furthest, episodes = np.full(num_envs, -np.inf), []
    for _ in range(1000):
        *_, terminated, truncated, infos = envs.step(rng.uniform(low, high).astype(np.float32))
        furthest = np.maximum(furthest, infos["x_position"])
        ended = terminated | truncated
        episodes += furthest[ended].tolist()
        furthest[ended] = -np.inf
    envs.close()
    return np.array(episodes)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
