"""What the records, the logs and the executors cost, and whether two workers do twice the work of one.

    python benchmarks/experiment_overhead.py
    python benchmarks/experiment_overhead.py --parts scaling --executors ray --units 8

``overhead``: the same unit by the bare training function and by ``compare`` (records; records and logs for TensorBoard
and Weights & Biases; a worker process), every run in a process of its own, so that all compile. A run of about a minute
is realistic. The worker process is compared with the whole bare process, as it starts Python and imports JAX too. Two
equal runs of that length differ by several percent, so that the time around the training function, which differs by a
fraction of a second, has rows of its own.
``scaling``: the same units by one worker on one core and by two on two, without anything that sleeps.

All in turns (A B A B). Prints medians with ranges and appends one JSON line per comparison to ``--out``. Logs need the
extra ``track``, Ray the extra ``ray``.
"""

import contextlib
import dataclasses
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import tyro

LOGS = ("tensorboard", "wandb")


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        parts: what to measure: overhead, scaling.
        executors: of the part scaling: processes, ray.
        task: name of a task.
        steps: environment steps of a run.
        seeds: runs of the unit of the part overhead.
        units: of the part scaling, one run each; a multiple of two.
        repeats: times that every condition is timed.
        out: file that gets a JSON line per comparison.
        job: one condition, timed in this process; what the others are started with.
    """

    parts: tuple[str, ...] = ("overhead", "scaling")
    executors: tuple[str, ...] = ("processes", "ray")
    task: str = "cartpole"
    steps: int = 3_000_000
    seeds: int = 2
    units: int = 4
    repeats: int = 3
    out: Path = Path("results/experiment_overhead.jsonl")
    job: str | None = None


def main(args: Args) -> None:
    """Measure, or be one condition of a measurement."""
    if args.job is not None:
        seconds, training = timed(args, args.job)
        print(json.dumps({"seconds": seconds, "training": training}))
        return
    if "overhead" in args.parts:
        overhead(args)
    if "scaling" in args.parts:
        for name in args.executors:
            scaling(args, name)


def overhead(args: Args) -> None:
    """Time added to the bare training function, as a share."""
    jobs = ("bare", "records", "logs", "worker")
    taken = in_turns(args, jobs)
    for job, name, clock in (
        ("records", "records", "seconds"),
        ("logs", "records and logs", "seconds"),
        ("worker", "a worker process", "wall"),
    ):
        turns = list(zip(taken[job], taken["bare"], strict=True))
        found = [(with_it[clock], bare[clock]) for with_it, bare in turns]
        report(args, f"overhead of {name}", [b / a - 1 for b, a in found], found, "<= 0.02")
        around = [(with_it[clock] - with_it["training"], bare[clock] - bare["training"]) for with_it, bare in turns]
        shares = [(b - a) / bare[clock] for (b, a), (_, bare) in zip(around, turns, strict=True)]
        report(args, f"around training, {name}", shares, around, "<= 0.02")


def scaling(args: Args, name: str) -> None:
    """Efficiency of two workers: 1 if they need half the time of one."""
    taken = in_turns(args, (f"{name}-1", f"{name}-2"))
    found = [(one["seconds"], two["seconds"]) for one, two in zip(taken[f"{name}-1"], taken[f"{name}-2"], strict=True)]
    report(args, f"efficiency of two workers, {name}", [one / two / 2 for one, two in found], found, ">= 0.9")


def in_turns(args: Args, jobs: tuple[str, ...]) -> dict[str, list[dict[str, float]]]:
    """Seconds that every job says, and wall time of its whole process, A B A B ..."""
    taken: dict[str, list[dict[str, float]]] = {job: [] for job in jobs}
    for _ in range(args.repeats):
        for job in jobs:
            taken[job].append(alone(args, job))
    return taken


def alone(args: Args, job: str) -> dict[str, float]:
    """One condition in a process of its own."""
    words = ["--job", job, "--task", args.task, "--steps", args.steps, "--seeds", args.seeds, "--units", args.units]
    start = time.perf_counter()
    done = subprocess.run([sys.executable, __file__, *map(str, words)], capture_output=True, text=True, check=False)
    wall = time.perf_counter() - start
    if done.returncode:
        raise SystemExit(f"the job {job!r} failed:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "wall": wall}


def timed(args: Args, job: str) -> tuple[float, float]:
    """Seconds of one condition, compilation included, and those of them inside the training function."""
    if job in ("bare", "records", "logs", "worker"):
        from reward_design.agents import use_all_cores

        use_all_cores()
        return bare(args) if job == "bare" else by_compare(args, job)
    name, _, workers = job.rpartition("-")
    return by_workers(args, name, int(workers))


def bare(args: Args) -> tuple[float, float]:
    """Planning and the training function, nothing kept."""
    import jax
    import jax.numpy as jnp

    from reward_design.agents import train_seeds
    from reward_design.envs import task
    from reward_design.experiments.units import Order, planned

    start = time.perf_counter()
    plan = planned(Order(task(args.task), "sparse", "sparse", "ppo", args.steps, None))
    begun = time.perf_counter()
    keys = jax.vmap(jax.random.key)(jnp.arange(args.seeds, dtype=jnp.uint32))
    jax.block_until_ready(train_seeds(plan.learner, plan.config, plan.task, plan.reward, keys).metrics)
    end = time.perf_counter()
    return end - start, end - begun


def by_compare(args: Args, job: str) -> tuple[float, float]:
    """The same unit, with all that is kept of it."""
    from reward_design.experiments import Processes, compare

    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        results = compare(
            args.task, "sparse", agent="ppo", seeds=args.seeds, total_timesteps=args.steps, out=out, report=False,
            progress=False, log=LOGS if job == "logs" else (), executor=Processes(1) if job == "worker" else None,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    return seconds, in_training(results)


def by_workers(args: Args, name: str, workers: int) -> tuple[float, float]:
    """All units by so many workers, on as many cores; a cluster of Ray has started before."""
    from reward_design.experiments import Processes, RayCluster, compare

    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < workers:
        raise SystemExit(f"{workers} workers need as many cores, got {len(cores)}; use a larger machine.")
    os.sched_setaffinity(0, cores[:workers])
    with tempfile.TemporaryDirectory() as out, contextlib.ExitStack() as stack:
        if name == "ray":
            import ray

            ray.init(num_cpus=workers, log_to_driver=False, logging_level=logging.ERROR)
            stack.callback(ray.shutdown)
        executor = RayCluster() if name == "ray" else Processes(workers)
        start = time.perf_counter()
        results = compare(
            args.task, {f"sparse {i}": "sparse" for i in range(args.units)}, agent="ppo", seeds=1, out=out,
            total_timesteps=args.steps, report=False, progress=False, executor=executor,
        )  # fmt: skip
        seconds = time.perf_counter() - start
    return seconds, in_training(results)


def in_training(results: Any) -> float:
    """Seconds inside the training function, as its records say; added up where several ran at once."""
    if results.failed:
        raise SystemExit(next(iter(results.failed.values())).reason)
    return sum(record["wall_s"] for record in results.records if record["kind"] == "unit")


def report(args: Args, name: str, values: list[float], seconds: list[Any], goal: str) -> None:
    """Print one row and append one JSON line."""
    from reward_design.experiments.provenance import provenance

    row = {
        "comparison": name, "goal": goal, "median": statistics.median(values), "low": min(values),
        "high": max(values), "seconds": [[round(x, 2) for x in pair] for pair in seconds], "task": args.task,
        "steps": args.steps, "seeds": args.seeds, "units": args.units, **provenance(),
    }  # fmt: skip
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    text = ", ".join(f"{a:.1f} and {b:.1f}" for a, b in seconds)
    print(
        f"{name:40} {row['median']:7.3f}  ({row['low']:.3f} to {row['high']:.3f})  goal {goal}   s: {text}", flush=True
    )


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
