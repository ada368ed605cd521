"""Environment steps per second of training PPO on the host, as ratios measured side by side in one run (A B A B).

    python benchmarks/host_throughput.py
    python benchmarks/host_throughput.py --tasks mujoco/HalfCheetah --num-envs 64 --repeats 3
    python benchmarks/host_throughput.py --tasks minihack/Room-5x5 --num-envs 8 --peers stable_baselines3 --hold

On every task and number of environments: PPO (256 steps per environment, 10 epochs, minibatches of 64, network 64 x
64) against stable-baselines3's and sbx's at the same settings, with and without overlap of stepping and update, and
against the closed-loop raw stepping rate. The peers step what gymnasium makes, through their own vector environment.
Appends one JSON line per comparison to ``--out`` and prints a table. Stepping alone is in ``mujoco_stepping.py``,
off-policy agents in ``offpolicy_throughput.py``, what the wrappers cost in ``adapter_overhead.py``.
"""

import dataclasses
import importlib
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import jax
import numpy as np
import tyro
from throughput import Timed, report

import reward_design as rd
from reward_design.agents import ppo
from reward_design.agents.collector import Collector
from reward_design.agents.host import described
from reward_design.envs import task

NUM_STEPS = 256
SETTINGS = {
    "num_steps": NUM_STEPS, "num_epochs": 10, "learning_rate": 3e-4, "learning_rate_end": 3e-4, "entropy_coef": 0.0,
    "entropy_coef_end": 0.0,
}  # fmt: skip
HELD = 1e-12
"""Learning rate of a policy that is to stay as it is."""
GOALS = {
    "mujoco": {"stable_baselines3": (">= 6", ">= 7"), "sbx": (">= 4", ">= 5"), "raw": ">= 0.45"},
    "minihack": {"stable_baselines3": (">= 2.5", "")},
}
"""Goals by family of tasks: plain and overlapped against each peer, and against raw stepping."""


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        tasks: tasks of the host.
        num_envs: numbers of environments.
        peers: which packages to compare with.
        repeats: pairs A B that are timed.
        steps: environment steps of one run of ours (at least two rollouts).
        peer_steps: environment steps of one run of a peer (at least one rollout).
        hold: both sides learn so slowly that the policy stays as it is: where one that learns shortens its episodes,
            resets would be compared with steps.
        out: file that gets a JSON line per comparison.
    """

    tasks: tuple[str, ...] = ("mujoco/HalfCheetah", "minihack/Room-5x5", "minihack/KeyRoom-S5")
    num_envs: tuple[int, ...] = (8, 64)
    peers: tuple[str, ...] = ("stable_baselines3", "sbx")
    repeats: int = 5
    steps: int = 40_960
    peer_steps: int = 4_096
    hold: bool = False
    out: Path = Path("results/host_throughput.jsonl")


def main(args: Args) -> None:
    """Run all comparisons."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for name in args.tasks:
        for num_envs in args.num_envs:
            compare(args, name, num_envs)


def compare(args: Args, name: str, num_envs: int) -> None:
    """All comparisons on one task with one number of environments."""
    rollout = num_envs * NUM_STEPS
    steps, peer_steps = max(args.steps, 2 * rollout), max(args.peer_steps, rollout)
    settings = {**SETTINGS, "num_minibatches": rollout // 64, "num_envs": num_envs}
    if args.hold:
        settings |= {"learning_rate": HELD, "learning_rate_end": HELD}
    config = ppo.Config(total_timesteps=steps, **settings)
    plain, overlapped = host_ppo(name, config, False), host_ppo(name, config, True)
    goals = GOALS[name.partition("/")[0]]
    where = f"{name} x {num_envs}"
    for peer in args.peers:
        if peer == "sbx" and isinstance(task(name).env.observation_space, gymnasium.spaces.Dict):
            print(f"sbx has no PPO for the observations of {name}")
            continue
        theirs, goal = peer_ppo(peer, name, settings, peer_steps), goals.get(peer, ("", ""))
        report(args, f"host PPO / {peer}, {where}", plain, theirs, goal=goal[0], settings=settings)
        report(args, f"overlapped / {peer}, {where}", overlapped, theirs, goal=goal[1], settings=settings)
    ceiling = raw(name, num_envs, steps)
    report(args, f"host PPO / raw stepping, {where}", plain, ceiling, goal=goals.get("raw", ""), settings=settings)


def host_ppo(name: str, config: ppo.Config, overlap: bool) -> Timed:
    """Our PPO on the host, compiled."""
    envs, reward, seeds = task(name).vector(config.num_envs), rd.environment_reward(), iter(range(10**6))

    def run() -> float:
        start = time.perf_counter()
        ppo.train_host(config, envs, reward, jax.random.key(next(seeds)), overlap=overlap)
        return config.num_updates * config.steps_per_update / (time.perf_counter() - start)

    run()
    return run


def raw(name: str, num_envs: int, steps: int) -> Timed:
    """Stepping in a closed loop, with actions drawn at random: no network, no update."""
    envs, rng = task(name).vector(num_envs), np.random.default_rng(0)
    space, collector = envs.single_action_space, Collector(envs, described(envs), NUM_STEPS, seed=0)

    def policy(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, tuple[()]]:
        if isinstance(space, gymnasium.spaces.Discrete):
            return rng.integers(space.n, size=num_envs), ()
        return rng.uniform(space.low, space.high, (num_envs, *space.shape)).astype(np.float32), ()  # pyright: ignore

    def run() -> float:
        start, rollouts = time.perf_counter(), steps // (NUM_STEPS * num_envs)
        for _ in range(rollouts):
            collector.collect(policy, rng)
        return rollouts * NUM_STEPS * num_envs / (time.perf_counter() - start)

    return run


def peer_ppo(package: str, name: str, settings: Mapping[str, Any], steps: int) -> Timed:
    """PPO of stable-baselines3 or sbx at the same settings."""
    from stable_baselines3.common.env_util import make_vec_env

    nets: dict[str, Any] = {"net_arch": {"pi": [64, 64], "vf": [64, 64]}}
    if package == "stable_baselines3":
        nets["activation_fn"] = importlib.import_module("torch").nn.Tanh
    venv = make_vec_env(lambda: _gymnasium(name), n_envs=settings["num_envs"])
    policy = "MultiInputPolicy" if isinstance(venv.observation_space, gymnasium.spaces.Dict) else "MlpPolicy"
    model = importlib.import_module(package).PPO(
        policy, venv, learning_rate=settings["learning_rate"], n_steps=NUM_STEPS, batch_size=64, n_epochs=10,
        device="cpu", policy_kwargs=nets,
    )  # fmt: skip

    def run() -> float:
        start = time.perf_counter()
        model.learn(steps)
        return steps / (time.perf_counter() - start)

    run()
    return run


def _gymnasium(name: str) -> gymnasium.Env:
    """What a user of gymnasium makes, with the observations that the task has."""
    family, _, env_id = name.partition("/")
    if family == "mujoco":
        return gymnasium.make(f"{env_id}-v5")
    importlib.import_module("minihack")
    return gymnasium.make(f"MiniHack-{env_id}-v0", observation_keys=("glyphs_crop", "blstats", "message"))


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
