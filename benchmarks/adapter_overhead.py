"""Time per step of the reward wrappers against the bare environment, in turns (A B A B ...), as JSON lines.

Run ``python benchmarks/adapter_overhead.py --out results.jsonl``; without ``--out`` the lines go to standard output. An
environment that does nothing is used, so that the difference is the wrapper alone.
"""

import argparse
import importlib.util
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper

GOAL_US = 60.0


class Nothing(gymnasium.Env):
    """Eight observations, two actions, never ends."""

    observation_space = spaces.Box(-1.0, 1.0, (8,), np.float32)
    action_space = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self) -> None:
        self._obs = np.zeros(8, np.float32)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The one observation."""
        return self._obs, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """The same again."""
        return self._obs, 1.0, False, False, {}


class NothingVector(gymnasium.vector.VectorEnv):
    """The same, batched."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = Nothing.observation_space, Nothing.action_space
        self._obs, self._no = np.zeros((num_envs, 8), np.float32), np.zeros(num_envs, bool)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """The one observation."""
        return self._obs, {}

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """The same again."""
        return self._obs, np.ones(self.num_envs), self._no, self._no, {}


def rewards() -> dict[str, rd.Reward]:
    """Rewards of both online kinds."""
    shaped = rd.potential_shaping(lambda obs: -jnp.abs(obs).sum(-1), gamma=0.99)
    return {
        "pointwise": rd.pointwise("energy", lambda p, t: t.reward - p * (t.action**2).sum(-1), params=0.1),
        "potential_shaping": shaped,
        "shaping, clip": rd.chain(shaped, rd.clip(-5.0, 5.0)),
        "normalise_by_return": rd.normalise_by_return(gamma=0.99),
        "count_bonus": rd.count_bonus(),
    }


def cases(sizes: tuple[int, ...]) -> Iterator[tuple[dict[str, Any], Any, Any, Any]]:
    """``(what, bare, wrapped, action)`` for each measurement."""
    for name, reward in rewards().items():
        about = {"reward": name, "kind": reward.kind.name}
        one = np.zeros(2, np.float32)
        yield {**about, "adapter": "RewardWrapper", "num_envs": 1}, Nothing(), RewardWrapper(Nothing(), reward), one
        for size in sizes:
            about |= {"num_envs": size}
            actions = np.zeros((size, 2), np.float32)
            envs = VectorRewardWrapper(NothingVector(size), reward)
            yield {**about, "adapter": "VectorRewardWrapper"}, NothingVector(size), envs, actions
            if importlib.util.find_spec("stable_baselines3"):
                yield {**about, "adapter": "VecRewardWrapper"}, dummy(size), sb3_wrapped(size, reward), actions


def dummy(size: int) -> Any:
    """stable-baselines3's vector environment; its own copies of infos are part of both sides."""
    from stable_baselines3.common.vec_env import DummyVecEnv

    return DummyVecEnv([Nothing] * size)


def sb3_wrapped(size: int, reward: rd.Reward) -> Any:
    """The same, paid by ``reward``."""
    from reward_design.adapters.sb3 import VecRewardWrapper

    return VecRewardWrapper(dummy(size), reward)


def microseconds(step: Callable[[Any], Any], action: Any, num_steps: int) -> np.ndarray:
    """Mean wall-clock time and processor time (all threads) of one step."""
    start = np.array([time.perf_counter(), time.process_time()])
    for _ in range(num_steps):
        step(action)
    return (np.array([time.perf_counter(), time.process_time()]) - start) / num_steps * 1e6


def measure(bare: Any, wrapped: Any, action: Any, rounds: int, num_steps: int) -> dict[str, float]:
    """Extra microseconds per step: median and range over rounds; processor time says more on a busy machine."""
    for env in (bare, wrapped):
        env.reset()
        microseconds(env.step, action, 20)
    turns = np.array([[microseconds(env.step, action, num_steps) for env in (bare, wrapped)] for _ in range(rounds)])
    wall, cpu = np.moveaxis(turns[:, 1] - turns[:, 0], -1, 0)
    figures = {
        "bare_us": np.median(turns[:, 0, 0]),
        "extra_us": np.median(wall),
        "extra_us_low": wall.min(),
        "extra_us_high": wall.max(),
        "extra_cpu_us": np.median(cpu),
    }
    return {name: round(float(value), 2) for name, value in figures.items()}


def main() -> int:
    """Measure everything and write one line per case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=41)
    parser.add_argument("--steps", type=int, default=200, help="steps per round")
    parser.add_argument("--num-envs", type=int, nargs="*", default=[8, 64])
    parser.add_argument("--out", help="file to append to")
    args = parser.parse_args()
    machine = {"jax": jax.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    with open(args.out, "a") if args.out else sys.stdout as out:
        for about, bare, wrapped, action in cases(tuple(args.num_envs)):
            result = measure(bare, wrapped, action, args.rounds, args.steps)
            if about["kind"] == "POINTWISE" and about["num_envs"] == 1:
                result["goal_us"] = GOAL_US
            print(json.dumps({**about, **result, "load": os.getloadavg()[0], **machine}), file=out, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
