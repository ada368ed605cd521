"""Environment steps per second of training on the device, as ratios measured side by side in one run (A B A B).

    python benchmarks/throughput.py
    python benchmarks/throughput.py --purejaxrl PATH --purejaxrl-python PATH_OF_ITS_ENVIRONMENT/bin/python

Compares PPO on CartPole at purejaxrl's settings (4 environments x 128 steps, 4 epochs, 4 minibatches, network 64 x 64)
with purejaxrl (a checkout, if given) and stable-baselines3 (if installed), 16 seeds with one, and shaping with
no shaping. Compilation is timed apart. Appends one JSON line per comparison to ``--out`` and prints a table.
"""

import dataclasses
import importlib.util
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import tyro

import reward_design as rd
from reward_design.agents import ppo, train_seeds, use_all_cores
from reward_design.envs import Task, task

SETTINGS = {
    "num_envs": 4, "num_steps": 128, "num_epochs": 4, "num_minibatches": 4, "learning_rate": 2.5e-4,
    "learning_rate_end": 0.0, "normalise_obs": False, "clip_value": True,
}  # fmt: skip
Timed = Callable[[], float]
"""Does one run and returns steps per second."""


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        repeats: pairs A B that are timed.
        steps: environment steps of one run of a device agent.
        sb3_steps: environment steps of one run of stable-baselines3.
        purejaxrl: path of a checkout of purejaxrl; left out, that comparison is skipped.
        purejaxrl_python: interpreter of the environment that purejaxrl runs in.
        out: file that gets a JSON line per comparison.
    """

    repeats: int = 5
    steps: int = 500_000
    sb3_steps: int = 8_192
    purejaxrl: Path | None = None
    purejaxrl_python: str = sys.executable
    out: Path = Path("results/throughput.jsonl")


def main(args: Args) -> None:
    """Run all comparisons that are possible here."""
    cores = use_all_cores()
    cartpole, plain = task("cartpole"), rd.environment_reward()
    config = ppo.Config(total_timesteps=args.steps, **SETTINGS)
    ours, compile_s = device_ppo(config, cartpole, plain)
    print(f"compile and first run: {compile_s:.1f} s")
    args.out.parent.mkdir(parents=True, exist_ok=True)

    shaped = rd.chain(plain, rd.potential_shaping(cartpole.potential, gamma=cartpole.gamma))
    report(
        args,
        "potential shaping / none, time",
        device_ppo(config, cartpole, shaped)[0],
        ours,
        goal="<= 1.03",
        inverse=True,
    )
    many = many_seeds(config, cartpole, plain, 16)
    report(
        args,
        f"16 seeds on {cores} devices / 1 seed, total",
        many,
        many_seeds(config, cartpole, plain, 1),
        goal=">= 1.8",
    )
    if args.purejaxrl is not None:
        with peer(args) as (timed, peer_compile_s):
            print(f"purejaxrl compile and first run: {peer_compile_s:.1f} s")
            report(args, "device PPO / purejaxrl", ours, timed, goal=">= 1.1")
    if importlib.util.find_spec("stable_baselines3"):
        report(args, "device PPO / stable-baselines3", ours, sb3_ppo(args), goal=">= 25")


def device_ppo(config: ppo.Config, env: Task, reward: rd.Reward) -> tuple[Timed, float]:
    """Our PPO, compiled, with the seconds that the first call took."""
    seeds = iter(range(10**6))

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(ppo.train(config, env, reward, jax.random.key(next(seeds))))
        return config.num_updates * config.steps_per_update / (time.perf_counter() - start)

    start = time.perf_counter()
    run()
    return run, time.perf_counter() - start


def many_seeds(config: ppo.Config, env: Task, reward: rd.Reward, num_seeds: int) -> Timed:
    """Total throughput of many seeds at once, sharded over all devices."""
    keys = jax.random.split(jax.random.key(0), num_seeds)

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(train_seeds(ppo.AGENT, config, env, reward, keys))
        return num_seeds * config.num_updates * config.steps_per_update / (time.perf_counter() - start)

    run()
    return run


class peer:  # noqa: N801  (a context manager, used as a function)
    """purejaxrl in a process of its own; it works only while it is asked to."""

    def __init__(self, args: Args) -> None:
        script = Path(__file__).with_name("purejaxrl_worker.py")
        command = [args.purejaxrl_python, str(script), str(args.purejaxrl), str(args.steps)]
        self.steps = args.steps // 512 * 512
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def __enter__(self) -> tuple[Timed, float]:
        return self.run, self.read()

    def __exit__(self, *_: object) -> None:
        self.stdin.close()
        self.process.wait()

    def read(self) -> float:
        """One answer in seconds."""
        line = self.stdout.readline()
        if not line:
            raise SystemExit("purejaxrl ended before it answered; its own message is above.")
        return float(line)

    def run(self) -> float:
        """Steps per second of one training."""
        self.stdin.write("\n")
        self.stdin.flush()
        return self.steps / self.read()


def sb3_ppo(args: Args) -> Timed:
    """stable-baselines3's PPO at the same settings, on gymnasium's CartPole-v1."""
    import torch
    from stable_baselines3 import PPO
    from stable_baselines3.common.env_util import make_vec_env

    venv = make_vec_env("CartPole-v1", n_envs=SETTINGS["num_envs"])
    model = PPO(
        "MlpPolicy", venv, n_steps=SETTINGS["num_steps"], batch_size=128, n_epochs=SETTINGS["num_epochs"],
        learning_rate=lambda left: SETTINGS["learning_rate"] * left, ent_coef=0.01, clip_range_vf=0.2, device="cpu",
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh},
    )  # fmt: skip

    def run() -> float:
        start = time.perf_counter()
        model.learn(args.sb3_steps)
        return args.sb3_steps / (time.perf_counter() - start)

    run()
    return run


def pairs(a: Timed, b: Timed, repeats: int) -> Iterator[tuple[float, float]]:
    """A B A B ..."""
    for _ in range(repeats):
        yield a(), b()


def report(
    args: Any, name: str, a: Timed, b: Timed, *, goal: str, inverse: bool = False, settings: Any = SETTINGS
) -> None:
    """Time the pairs, print one row and append one JSON line; ``args`` has ``repeats``, ``steps`` and ``out``."""
    rates = list(pairs(a, b, args.repeats))
    ratios = sorted(y / x if inverse else x / y for x, y in rates)
    row = {
        "comparison": name, "goal": goal, "median": statistics.median(ratios), "low": ratios[0], "high": ratios[-1],
        "steps_per_second": [[round(x), round(y)] for x, y in rates], "steps": args.steps, "settings": settings,
        "versions": {"python": platform.python_version(), "jax": jax.__version__, "reward_design": rd.__version__},
        "devices": [str(d) for d in jax.local_devices()], "time": time.strftime("%Y-%m-%dT%H:%M:%S"),
    }  # fmt: skip
    with args.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    a_rate, b_rate = (statistics.median(r) for r in zip(*rates, strict=True))
    print(f"{name:48} {row['median']:7.3f}  ({ratios[0]:.3f} to {ratios[-1]:.3f})  goal {goal}   "
          f"{a_rate:,.0f} against {b_rate:,.0f} steps/s", flush=True)  # fmt: skip


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
