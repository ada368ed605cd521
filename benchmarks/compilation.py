"""What compiling a training takes, and whether programs that compile faster run slower.

    python benchmarks/compilation.py
    python benchmarks/compilation.py --cases mountain_car:shaping:ppo --seeds 8 --repeats 8

``train_seeds`` compiles two programs: one makes the first states and runs once, the other trains. Both are compiled as
JAX does it, and with the options that ``train_seeds`` uses; then the two programs that train run in turns (A B A B).
Prints seconds and ratios, medians with ranges, and appends one JSON line per case to ``--out``.
"""

import dataclasses
import functools
import json
import statistics
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from reward_design.agents import base, seeds
from reward_design.envs import task
from reward_design.experiments.provenance import provenance
from reward_design.experiments.units import Order, planned


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        cases: task:reward:agent.
        seeds: runs in one program.
        updates: iterations of the program that trains.
        repeats: times that both are run.
        out: file that gets a JSON line per case.
    """

    cases: tuple[str, ...] = (
        "cartpole:shaping:ppo", "mountain_car:shaping:ppo", "pendulum:dense:sac", "key_door:count_bonus:ppo",
    )  # fmt: skip
    seeds: int = 4
    updates: int = 100
    repeats: int = 7
    out: Path = Path("results/compilation.jsonl")


def main(args: Args) -> None:
    """Measure every case."""
    for case in args.cases:
        row = {"case": case, **measured(case, args)}
        args.out.parent.mkdir(parents=True, exist_ok=True)
        with args.out.open("a") as file:
            file.write(json.dumps({**row, "seeds": args.seeds, "updates": args.updates, **provenance()}) + "\n")
        (plain, quick), (usual, ours), (low, high) = row["init"], row["run"], row["range"]
        print(
            f"{case:28} first states {plain:4.1f} to {quick:.1f} s, training {usual:4.1f} to {ours:.1f} s; "
            f"running {row['ratio']:.3f} ({low:.3f} to {high:.3f}) of the time",
            flush=True,
        )


def measured(case: str, args: Args) -> dict[str, Any]:
    """Seconds to compile without and with the options, and the ratio of running times, with by without."""
    name, reward, agent = case.split(":")
    plan = planned(Order(task(name), reward, reward, agent, None, None))
    learner, config, env = plan.learner, plan.config, plan.task.functional()
    keys = jax.vmap(jax.random.key)(jnp.arange(args.seeds, dtype=jnp.uint32))
    init = jax.jit(lambda keys: base.initial_states(learner, env, plan.reward, config, keys))
    advance = functools.partial(base.updates, learner, env, plan.reward, config, length=args.updates)
    making = [compiled(init, options, keys) for options in (None, base.ONCE)]
    states = making[1][0](keys)
    training = [compiled(jax.jit(jax.vmap(advance)), options, states) for options in (None, seeds.QUICK)]
    ratios = []
    for _ in range(args.repeats):
        without, with_them = (seconds(program, states) for program, _ in training)
        ratios.append(with_them / without)
    return {
        "init": [s for _, s in making], "run": [s for _, s in training],
        "ratio": statistics.median(ratios), "range": [min(ratios), max(ratios)],
    }  # fmt: skip


def compiled(function: Any, options: dict[str, Any] | None, *args: Any) -> tuple[Any, float]:
    """A program that has run once, and the seconds of its compilation."""
    lowered = function.lower(*args)
    begun = time.perf_counter()
    program = lowered.compile(options)
    taken = time.perf_counter() - begun
    jax.block_until_ready(program(*args))
    return program, taken


def seconds(program: Any, *args: Any) -> float:
    """Wall time of one run."""
    begun = time.perf_counter()
    jax.block_until_ready(program(*args))
    return time.perf_counter() - begun


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
