"""Speed of BARFI: steps per second, 20 seeds against one, the cost of the outer step, memory of the unrolled gradient.

    python benchmarks/barfi_speed.py
    python benchmarks/barfi_speed.py --task cartpole --repeats 7

Pairs are timed in one process, A B A B; compilation is not timed. Every comparison appends a JSON line to ``--out``.
"""

import dataclasses
import json
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro
from throughput import Timed, report

import reward_design as rd
from reward_design.agents import base, rollout, scoring
from reward_design.agents.actor_critic import ActorCritic, action_noise
from reward_design.bilevel import BARFI, BarfiConfig, alignment_reward, hypergradient, segments, training
from reward_design.bilevel import inner as inner_level
from reward_design.bilevel import outer as outer_level
from reward_design.envs import Task, task

UNROLLED_STEPS = (4, 16, 64, 256, 1024)


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        task: a task on the device.
        heuristic: one of its auxiliary rewards.
        seeds: of the vmap.
        updates: of a run.
        repeats: pairs A B that are timed.
        out: file that gets a JSON line per comparison.
    """

    task: str = "gridworld"
    heuristic: str = "misaligned"
    seeds: int = 20
    updates: int = 40
    repeats: int = 5
    out: Path = Path("results/barfi_speed.jsonl")

    @property
    def steps(self) -> int:
        """Environment steps of one seed."""
        return self.updates * 4 * task(self.task).horizon


def main(args: Args) -> None:
    """Run all comparisons."""
    args.out.parent.mkdir(parents=True, exist_ok=True)
    known = task(args.task)
    reward = alignment_reward(rd.environment_reward(), known.auxiliary[args.heuristic])
    config = BarfiConfig(total_timesteps=args.steps, horizon=known.horizon, warm_start=0)
    settings = {"task": args.task, "heuristic": args.heuristic, "horizon": known.horizon, "num_envs": config.num_envs}
    show = partial(report, args, settings=settings, inverse=True)
    one, many = (whole_run(config, known, reward, seeds) for seeds in (1, args.seeds))
    show(f"time of {args.seeds} seeds in one vmap : one", scaled(many, args.seeds), one, goal="< 6")
    without = whole_run(dataclasses.replace(config, outer="none"), known, reward, 1)
    show("time of BARFI : without outer step", one, without, goal="none")
    show("time of outer step : inner phase", *parts(config, known, reward, args.steps), goal="<= 3")
    memory(args.out)


def whole_run(config: Any, known: Task, reward: Any, seeds: int) -> Timed:
    """Environment steps per second over all seeds of a whole run in one jit."""
    run = jax.jit(jax.vmap(lambda key: base.train(BARFI, config, known, reward, key).metrics["true_return"]))
    keys = jax.random.split(jax.random.key(0), seeds)
    return timed(lambda: run(keys), config.total_timesteps * seeds)


def scaled(run: Timed, factor: float) -> Timed:
    """A rate divided by ``factor``: per seed, so that the ratio of two rates is that of their times."""
    return lambda: run() / factor


def timed(call: Callable[[], Any], steps: float) -> Timed:
    """Steps per second of a call; the first one, which compiles, is not counted."""
    jax.block_until_ready(call())

    def run() -> float:
        start = time.perf_counter()
        jax.block_until_ready(call())
        return steps / (time.perf_counter() - start)

    return run


def parts(config: Any, known: Task, reward: Any, steps: int, repeats: int = 20) -> tuple[Timed, Timed]:
    """One outer step and one inner phase on the same rollouts, each compiled on its own."""
    env: Any = known.env
    state = training.init(config, env, reward, jax.random.key(0))
    network = ActorCritic(env, config.hidden, config.normalise_obs)
    shape = (config.horizon, config.num_envs)
    lanes = rollout.reset_lanes(env, jax.random.key(1), config.num_envs, scoring.term_names(env, reward))
    noise = action_noise(env.action_space, jax.random.key(2), shape)
    policy = partial(network.act, state.params, state.moments)
    _, trajectory, extras = rollout.collect(env, policy, lanes, jax.random.key(3), noise, config.horizon)
    fresh = segments.segments(trajectory, extras[0])
    running = state.reward_state.running
    level = outer_level.Level(config, env, reward, network, state.moments, running, jnp.float32(1.0))
    key, active = jax.random.key(4), jnp.asarray(True)
    outer = jax.jit(lambda state: outer_level.step(level, state, fresh, key, active=active))
    inner = jax.jit(lambda state: inner_level.phase(level, state, fresh, trajectory, extras, state.reward_state, key))
    several = lambda call: lambda: [call(state) for _ in range(repeats)]  # noqa: E731
    return timed(several(outer), steps), timed(several(inner), steps)


def temporary(compiled: Any) -> int:
    """Bytes of a compiled function beside its inputs and outputs."""
    return compiled.memory_analysis().temp_size_in_bytes


def memory(out: Path) -> None:
    """Bytes that the unrolled gradient needs beside its inputs, next to one that keeps every step."""
    theta, phi = 0.01 * jax.random.normal(jax.random.key(0), (64, 64)), jnp.ones(64)
    rows = jax.random.normal(jax.random.key(1), (256, 64))
    inner = lambda theta, phi: -jnp.mean(jnp.square(jnp.tanh(rows @ theta) - phi))  # noqa: E731
    outer = lambda theta, phi: -jnp.mean(jnp.square(rows @ theta))  # noqa: E731

    def ours(num_steps: int, theta: Any, phi: Any) -> Any:
        return hypergradient(inner, outer, theta, phi, method="unrolled", num_steps=num_steps, step_size=0.1).gradient

    def keeps_all(num_steps: int, theta: Any, phi: Any) -> Any:
        def end(phi: Any) -> Any:
            ascend = lambda x, _: (x + 0.1 * jax.grad(inner)(x, phi), None)  # noqa: E731
            return jax.lax.scan(ascend, theta, length=num_steps)[0]

        return jax.grad(lambda phi: outer(end(phi), phi))(phi)

    for num_steps in UNROLLED_STEPS:
        sizes = [temporary(jax.jit(partial(call, num_steps)).lower(theta, phi).compile()) for call in (ours, keeps_all)]
        row = {"comparison": "memory of unrolled", "num_steps": num_steps, "theta": theta.size, "bytes": sizes}
        with out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        ours_mib, all_mib = (size / 2**20 for size in sizes)
        print(f"unrolled, {num_steps:5} steps: {ours_mib:8.2f} MiB, without rematerialisation {all_mib:8.2f} MiB")


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
