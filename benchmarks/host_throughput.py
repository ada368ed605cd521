"""Environment steps per second of training on the host, as ratios measured side by side in one run (A B A B).

    python benchmarks/host_throughput.py

Compares PPO on HalfCheetah (8 environments x 256 steps, 10 epochs, minibatches of 64, network 64 x 64) with
stable-baselines3's at the same settings, with and without overlap of stepping and update, and with the closed-loop raw
stepping rate. Appends one JSON line per comparison to ``--out`` and prints a table. Stepping alone against gymnasium's
is in ``mujoco_stepping.py``.
"""

import dataclasses
import time
from pathlib import Path

import jax
import numpy as np
import torch
import tyro
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from throughput import Timed, report

import reward_design as rd
from reward_design.agents import ppo
from reward_design.agents.collector import Collector
from reward_design.agents.host import described
from reward_design.envs import task

SETTINGS = {
    "num_steps": 256, "num_epochs": 10, "learning_rate": 3e-4, "learning_rate_end": 3e-4, "entropy_coef": 0.0,
    "entropy_coef_end": 0.0,
}  # fmt: skip


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        name: MuJoCo environment.
        num_envs: environments.
        repeats: pairs A B that are timed.
        steps: environment steps of one run of ours.
        sb3_steps: environment steps of one run of stable-baselines3.
        out: file that gets a JSON line per comparison.
    """

    name: str = "HalfCheetah"
    num_envs: int = 8
    repeats: int = 5
    steps: int = 40_960
    sb3_steps: int = 4_096
    out: Path = Path("results/host_throughput.jsonl")


def main(args: Args) -> None:
    """Run all comparisons."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    minibatches = args.num_envs * 256 // 64
    config = ppo.Config(
        total_timesteps=args.steps, num_envs=args.num_envs, num_minibatches=minibatches, **SETTINGS
    )  # fmt: skip
    settings = {**SETTINGS, "num_minibatches": minibatches, "num_envs": args.num_envs}
    plain, overlapped, theirs = host_ppo(args, config, False), host_ppo(args, config, True), sb3_ppo(args)
    where = f"{args.name}, {args.num_envs} environments"
    report(args, f"host PPO / stable-baselines3, {where}", plain, theirs, goal=">= 6", settings=settings)
    report(args, f"overlapped / stable-baselines3, {where}", overlapped, theirs, goal=">= 7", settings=settings)
    report(args, f"host PPO / raw stepping, {where}", plain, raw(args), goal=">= 0.45", settings=settings)


def host_ppo(args: Args, config: ppo.Config, overlap: bool) -> Timed:
    """Our PPO on the host, compiled."""
    envs, reward, seeds = task(f"mujoco/{args.name}").vector(args.num_envs), rd.environment_reward(), iter(range(10**6))

    def run() -> float:
        start = time.perf_counter()
        ppo.train_host(config, envs, reward, jax.random.key(next(seeds)), overlap=overlap)
        return config.num_updates * config.steps_per_update / (time.perf_counter() - start)

    run()
    return run


def raw(args: Args) -> Timed:
    """Stepping in a closed loop, with actions drawn at random: no network, no update."""
    known = task(f"mujoco/{args.name}")
    envs, rng = known.vector(args.num_envs), np.random.default_rng(0)
    space, collector = envs.single_action_space, Collector(envs, described(envs), 256, seed=0)

    def policy(obs: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, tuple[()]]:
        return rng.uniform(space.low, space.high, (len(obs), *space.shape)).astype(np.float32), ()  # pyright: ignore

    def run() -> float:
        start = time.perf_counter()
        for _ in range(args.steps // (256 * args.num_envs)):
            collector.collect(policy, rng)
        return args.steps // (256 * args.num_envs) * 256 * args.num_envs / (time.perf_counter() - start)

    return run


def sb3_ppo(args: Args) -> Timed:
    """stable-baselines3's PPO at the same settings."""
    nets = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh}
    model = PPO(
        "MlpPolicy", make_vec_env(f"{args.name}-v5", n_envs=args.num_envs), n_steps=256, batch_size=64, n_epochs=10,
        device="cpu", policy_kwargs=nets,
    )  # fmt: skip

    def run() -> float:
        start = time.perf_counter()
        model.learn(args.sb3_steps)
        return args.sb3_steps / (time.perf_counter() - start)

    run()
    return run


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
