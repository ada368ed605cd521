"""Environment steps per second of PPO on MuJoCo: MJX on the device against the lanes of the host (A B A B).

    python benchmarks/mjx_throughput.py                              # on a GPU
    python benchmarks/mjx_throughput.py --names Hopper --num-envs 16 --steps 4096 --host-steps 16384   # on a CPU

Both sides train with the same update; each has the number of environments that suits it. Compilation is timed apart.
Appends one JSON line per environment to ``--out`` and prints a table. Needs the extra ``mjx``.
"""

import dataclasses
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import tyro

from reward_design.agents import ppo, use_all_cores
from reward_design.envs import Task, task
from reward_design.experiments.provenance import provenance


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        names: environments of ``mjx/<name>``.
        num_envs: lanes on the device.
        host_envs: lanes on the host.
        steps: environment steps of a run on the device.
        host_steps: environment steps of a run on the host.
        repeats: pairs A B that are timed.
        out: file that gets a JSON line per environment.
    """

    names: tuple[str, ...] = ("HalfCheetah", "Hopper", "Walker2d")
    num_envs: int = 2048
    host_envs: int = 64
    steps: int = 2_000_000
    host_steps: int = 100_000
    repeats: int = 5
    out: Path = Path("results/mjx_throughput.jsonl")


def main(args: Args) -> None:
    """Time both sides in turns."""
    use_all_cores()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"{'environment':14} {'device':>12} {'host':>12} {'ratio':>22} {'compilation':>12}")
    for name in args.names:
        device, host = task(f"mjx/{name}"), task(f"mujoco/{name}")
        compiled = -time.perf_counter()
        on_device(args, device)
        compiled += time.perf_counter()
        on_host(args, host)
        pairs = [(on_device(args, device), on_host(args, host)) for _ in range(args.repeats)]
        ratios = [a / b for a, b in pairs]
        first, second = (statistics.median(side) for side in zip(*pairs, strict=True))
        shown = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        print(f"{name:14} {first:12,.0f} {second:12,.0f} {shown:>22} {compiled:10.0f} s", flush=True)
        settings = {k: v for k, v in dataclasses.asdict(args).items() if k not in ("out", "names")}
        row = {"environment": name, "steps_per_s": pairs, "compile_s": round(compiled, 1), **settings, **provenance()}
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")


def on_device(args: Args, problem: Task) -> float:
    """Steps per second of a run whose environments are stepped by MJX; the first one compiles."""
    config = settings(args.steps, args.num_envs)
    start = time.perf_counter()
    jax.block_until_ready(ppo.train(config, problem, problem.true_reward, jax.random.key(0)).metrics)
    return config.num_updates * config.steps_per_update / (time.perf_counter() - start)


def on_host(args: Args, problem: Task) -> float:
    """The same on the host."""
    config = settings(args.host_steps, args.host_envs)
    envs = problem.vector(args.host_envs, seed=0)
    start = time.perf_counter()
    ppo.train_host(config, envs, problem.true_reward, jax.random.key(0))
    seconds = time.perf_counter() - start
    envs.close()
    return config.num_updates * config.steps_per_update / seconds


def settings(steps: int, num_envs: int) -> Any:
    """PPO with rollouts of 32 steps."""
    return ppo.Config(
        total_timesteps=steps, num_envs=num_envs, num_steps=32, num_epochs=4, num_minibatches=8, learning_rate=3e-4,
        entropy_coef=0.0, entropy_coef_end=0.0, normalise_reward=True,
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
