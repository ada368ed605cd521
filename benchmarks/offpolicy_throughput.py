"""SAC on HalfCheetah with a gradient step per environment step: steps per second against sbx and stable-baselines3.

    python benchmarks/offpolicy_throughput.py

All at the same settings (network 256 x 256, batches of 256, learning from the start) and side by side in one run
(A B A B): 8 environments with 8 gradient steps after each step of all, and 1 environment with 1. First the time of a
gradient step alone, sampling included. ``--num-steps`` steps that many times between rounds of gradient steps, at the
same ratio. Appends one JSON line per comparison to ``--out`` and prints a table.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from throughput import Timed, report

import reward_design as rd
from reward_design.agents import sac
from reward_design.agents.collector import Collector
from reward_design.agents.host import _improve, _init, described
from reward_design.envs import task

BATCH = 256


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        name: MuJoCo environment.
        num_envs: numbers of environments to compare at.
        num_steps: steps of ours between rounds of gradient steps.
        repeats: pairs A B that are timed.
        steps: environment steps of one run of ours and of sbx.
        sb3_steps: environment steps of one run of stable-baselines3; 0 leaves it out.
        out: file that gets a JSON line per comparison.
    """

    name: str = "HalfCheetah"
    num_envs: tuple[int, ...] = (8, 1)
    num_steps: int = 1
    repeats: int = 5
    steps: int = 1_600
    sb3_steps: int = 400
    out: Path = Path("results/offpolicy_throughput.jsonl")


def main(args: Args) -> None:
    """Run all comparisons."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    gradient_steps(args)
    for num_envs in args.num_envs:
        where = f"{args.name}, {num_envs} environments x {args.num_steps} steps"
        settings = {"num_envs": num_envs, "num_steps": args.num_steps, "batch_size": BATCH, "hidden": (256, 256)}
        plain, overlapped = ours(args, num_envs, False), ours(args, num_envs, True)
        sbx = peer(args, num_envs, "sbx", args.steps)
        report(args, f"SAC / sbx, {where}", plain, sbx, goal=">= 1.1", settings=settings)
        report(args, f"SAC overlapped / sbx, {where}", overlapped, sbx, goal=">= 1.1", settings=settings)
        if args.sb3_steps:
            sb3 = peer(args, num_envs, "stable_baselines3", args.sb3_steps)
            report(args, f"SAC / stable-baselines3, {where}", plain, sb3, goal=">= 4", settings=settings)


def gradient_steps(args: Args) -> None:
    """Microseconds of a gradient step of each, in turn, and the processor time it takes."""
    timed = {"ours": our_gradient_steps(args), "sbx": their_gradient_steps(args, "sbx")}
    if args.sb3_steps:
        timed["stable_baselines3"] = their_gradient_steps(args, "stable_baselines3")
    wall: dict[str, list[float]] = {name: [] for name in timed}
    busy: dict[str, list[float]] = {name: [] for name in timed}
    for _ in range(2 * args.repeats):
        for name, run in timed.items():
            start, used = time.perf_counter(), time.process_time()
            run()
            wall[name].append((time.perf_counter() - start) / 8 * 1e6)
            busy[name].append((time.process_time() - used) / 8 * 1e6)
    for name in timed:
        median, processor = statistics.median(wall[name]), statistics.median(busy[name])
        print(f"gradient step, {name}: {median:,.0f} us (least {min(wall[name]):,.0f}), processor {processor:,.0f} us")


def our_gradient_steps(args: Args) -> Callable[[], None]:
    """8 gradient steps of ours after one step of 8 environments that is not timed."""
    envs, reward = task(f"mujoco/{args.name}").vector(8), rd.environment_reward()
    env, config = described(envs), sac.Config(num_envs=8, num_steps=1, batch_size=BATCH)
    collector, rng = Collector(envs, env, 1, seed=0), np.random.default_rng(0)
    held: list[Any] = [_init(sac.AGENT, env, reward, config, jax.random.key(0), None)]
    trajectory, extras = collector.collect(sac.host_policy(config, env, held[0]), rng)

    def run() -> None:
        held[0], _ = jax.block_until_ready(_improve(sac.AGENT, env, reward, config, held[0], trajectory, extras))

    for _ in range(20):
        run()
    return run


def their_gradient_steps(args: Args, package: str) -> Callable[[], None]:
    """8 gradient steps of a peer."""
    model = made(args, 8, package)
    model.learn(400)
    return lambda: model.train(8, BATCH)


def ours(args: Args, num_envs: int, overlap: bool) -> Timed:
    """Our SAC on the host, compiled."""
    config = sac.Config(
        total_timesteps=args.steps,
        num_envs=num_envs,
        num_steps=args.num_steps,
        batch_size=BATCH,
        capacity=100_000,
        learning_starts=1,
    )
    envs, reward, seeds = task(f"mujoco/{args.name}").vector(num_envs), rd.environment_reward(), iter(range(10**6))

    def run() -> float:
        start = time.perf_counter()
        sac.train_host(config, envs, reward, jax.random.key(next(seeds)), overlap=overlap)
        return config.total_timesteps / (time.perf_counter() - start)

    run()
    return run


def peer(args: Args, num_envs: int, package: str, steps: int) -> Timed:
    """SAC of a peer at the same settings, compiled."""
    model = made(args, num_envs, package)
    model.learn(150)

    def run() -> float:
        start = time.perf_counter()
        model.learn(steps, reset_num_timesteps=False)  # goes on learning from the first step on
        return steps / (time.perf_counter() - start)

    run()
    return run


def made(args: Args, num_envs: int, package: str) -> Any:
    """SAC of sbx or stable-baselines3."""
    from stable_baselines3.common.env_util import make_vec_env

    if package == "sbx":
        from sbx import SAC
    else:
        from stable_baselines3 import SAC
    return SAC(
        "MlpPolicy", make_vec_env(f"{args.name}-v5", n_envs=num_envs), batch_size=BATCH, train_freq=1,
        gradient_steps=num_envs, learning_starts=100, buffer_size=100_000, policy_kwargs={"net_arch": [256, 256]},
        device="cpu",
    )  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
