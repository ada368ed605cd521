"""What the sandbox costs: training with a checked program against the same Python in JAX, and the time of a check.

Run ``python benchmarks/llm_overhead.py --out results.jsonl``; without ``--out`` the lines go to standard output. Each
side is one jitted PPO training (several seeds under one ``vmap``), compiled first and then timed in turns
(A B A B ...). Processor time says more than wall-clock time on a busy machine. ``--only training`` or ``--only checks``
does one half.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

import reward_design as rd
from reward_design.agents import ppo
from reward_design.envs import task
from reward_design.llm import CandidateRefused, build_reward, check_many

GOAL_OVERHEAD, GOAL_SECONDS = 0.05, 3.0
POINTWISE = """
def reward(obs, action, next_obs, terminated):
    upright = jnp.exp(-jnp.square(next_obs[2]) / 0.02)
    centred = 1.0 - jnp.tanh(jnp.abs(next_obs[0]))
    still = -0.01 * jnp.square(next_obs[1] - obs[1])
    fall = jnp.where(terminated, -1.0, 0.0)
    terms = {"upright": upright, "centred": centred, "still": still, "fall": fall}
    return upright + centred + still + fall, terms
"""
REMEMBERING = """
def initial_memory():
    return {"best": jnp.zeros(()), "steps": jnp.zeros((), jnp.int32)}

def reward(next_obs, terminated, memory):
    upright = jnp.exp(-jnp.square(next_obs[2]) / 0.02)
    best = jnp.maximum(memory["best"], upright)
    fall = jnp.where(terminated, -1.0, 0.0)
    gain = best - memory["best"] + 0.001 * memory["steps"]
    return gain + fall, {"gain": gain, "fall": fall}, {"best": best, "steps": memory["steps"] + 1}
"""


def native(source: str) -> rd.Reward:
    """The same functions as rewards written by hand; this text is ours, so it may run here."""
    names: dict[str, Any] = {"jnp": jnp}
    exec(source, names)
    if "initial_memory" not in names:
        one = jax.vmap(names["reward"])
        return rd.pointwise("designed", lambda t: one(t.obs, t.action, t.next_obs, t.terminated))

    def init(key: Any, example: rd.Transition) -> Any:
        lanes = example.reward.shape[0]
        return (), rd.State(episode=jax.tree.map(lambda x: jnp.broadcast_to(x, (lanes, *x.shape)), start))

    def step(params: Any, state: rd.State, t: rd.Transition) -> Any:
        reward, terms, memory = jax.vmap(names["reward"])(t.next_obs, t.terminated, state.episode)
        return (reward, terms), state._replace(episode=memory)

    start = names["initial_memory"]()
    return rd.from_step("designed", init, step)


def trainer(reward: rd.Reward, config: ppo.Config, seeds: int) -> Callable[[], Any]:
    """A compiled training over seeds; each call runs all of it."""
    env = task("cartpole").functional()
    keys = jax.random.split(jax.random.key(0), seeds)
    run = jax.jit(jax.vmap(lambda key: ppo.train(config, env, reward, key).metrics)).lower(keys).compile()
    return lambda: jax.block_until_ready(run(keys))


def seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Wall-clock and processor time of one call."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def processor() -> float:
    """Processor seconds of this process and of the workers that have ended."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + ended.ru_utime + ended.ru_stime


def training(rounds: int, steps: int, seeds: int) -> Iterator[dict[str, Any]]:
    """Overhead of the sandboxed reward for both kinds, as medians of the ratios of neighbouring turns."""
    config = ppo.Config(total_timesteps=steps, num_envs=64, num_steps=64)
    for kind, source in (("POINTWISE", POINTWISE), ("CAUSAL", REMEMBERING)):
        sides = [trainer(reward, config, seeds) for reward in (native(source), build_reward(source, "cartpole"))]
        same = [run() for run in sides]
        turns = [[seconds(run) for run in sides] for _ in range(rounds)]
        ratios = {
            clock: sorted(b[i] / a[i] - 1 for a, b in turns) for i, clock in enumerate(("wall_clock", "processor"))
        }
        yield {
            "measure": "training", "kind": kind, "total_timesteps": steps, "seeds": seeds, "rounds": rounds,
            "native_s": round(statistics.median(a[0] for a, _ in turns), 4),
            **{f"overhead_{clock}": round(statistics.median(found), 4) for clock, found in ratios.items()},
            **{f"range_{clock}": [round(found[0], 4), round(found[-1], 4)] for clock, found in ratios.items()},
            "largest_difference": float(max(jax.tree.leaves(jax.tree.map(_apart, *same)))),
            "goal": GOAL_OVERHEAD,
        }  # fmt: skip


def checks(rounds: int, candidates: int) -> Iterator[dict[str, Any]]:
    """Seconds per check: one after the other, and many at once."""
    build_reward(POINTWISE, "cartpole")
    for name, source in (("accepted", POINTWISE), ("accepted, memory", REMEMBERING), ("linted", "import os")):
        times, worked = [], []
        for i in range(rounds):
            start, before = time.perf_counter(), processor()
            result = check_many([f"{source}\n# {i}"], "cartpole", workers=1)
            times.append(time.perf_counter() - start)
            worked.append(processor() - before)
            assert isinstance(result[0], CandidateRefused) == (name == "linted"), result[0]
        yield {
            "measure": "check", "candidate": name, "seconds": round(statistics.median(times), 4),
            "range": [round(min(times), 4), round(max(times), 4)], "goal": GOAL_SECONDS,
            "processor_seconds": round(statistics.median(worked), 4),
        }  # fmt: skip
    start = time.perf_counter()
    found = check_many([f"{POINTWISE}\n# many {i}" for i in range(candidates)], "cartpole", time_limit=60.0)
    total = time.perf_counter() - start
    yield {
        "measure": "checks at once", "candidates": candidates, "accepted": sum(isinstance(r, rd.Reward) for r in found),
        "seconds": round(total, 2), "seconds_each": round(total / candidates, 3),
    }  # fmt: skip


def _apart(one: Any, other: Any) -> Any:
    return jnp.max(jnp.abs(jnp.asarray(one, float) - jnp.asarray(other, float))) if one.size else 0.0


def main() -> None:
    """Measure, print one JSON object per line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", help="file to append to")
    parser.add_argument("--only", choices=("training", "checks"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=262_144)
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--candidates", type=int, default=16)
    args = parser.parse_args()
    about = {
        "jax": jax.__version__, "device": jax.devices()[0].device_kind, "python": platform.python_version(),
        "cores": os.cpu_count(), "load": [round(x, 1) for x in os.getloadavg()],
    }  # fmt: skip
    lines = []
    if args.only != "checks":
        lines.append(training(args.rounds, args.steps, args.seeds))
    if args.only != "training":
        lines.append(checks(args.rounds, args.candidates))
    with open(args.out, "a") if args.out else sys.stdout as out:
        for part in lines:
            for line in part:
                print(json.dumps({**line, **about}), file=out, flush=True)


if __name__ == "__main__":
    main()
