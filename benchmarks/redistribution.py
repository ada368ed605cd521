"""What PPO reaches when a dense reward is only paid at the end of the episode, by method of redistribution.

    python benchmarks/redistribution.py                        # everything that is missing, then the table
    python benchmarks/redistribution.py --names chain --methods spa uniform --first-seed 100 --seeds 3
    python benchmarks/redistribution.py --table                # only the table

Every task's hand-made dense reward (for CartPole its own) is summed and paid when the episode ends; runs are judged by
the task's own return. ``dense`` learns from the reward as it was, ``terminal`` from the sum at the end alone. Settings
were tried on seeds 100 to 102 of chain and key-door. One line of JSON per task and method goes to ``--out`` and is not
repeated.
"""

import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from host_learning import append, read

import reward_design as rd
from reward_design import Reward
from reward_design.agents import ppo, train_seeds
from reward_design.envs import Task, task
from reward_design.experiments.budgets import settings
from reward_design.experiments.statistics import bootstrap, interquartile_mean, probability_of_improvement
from reward_design.redistribution import Fit, ircr, return_decomposition, rrd, rudder, spa, task_features

STEPS = {"chain": 30_000, "key_door": 60_000, "cartpole": 60_000, "mountain_car": 120_000}
"""Environment steps of a run."""
DISCRETE = Fit(normalise=False, learning_rate=1e-2, num_updates=8, batch_size=16)
CONTINUOUS = Fit(num_updates=4, batch_size=16, learning_rate=1e-3)
SOLVED = {"chain": 0.9, "key_door": 0.9, "cartpole": 400.0, "mountain_car": -150.0}


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        names: tasks.
        methods: methods.
        seeds: runs of each method on each task.
        first_seed: the number of the first.
        out: records.
        table: print the table of what is there, run nothing.
    """

    names: tuple[str, ...] = tuple(STEPS)
    methods: tuple[str, ...] = ("dense", "terminal", "uniform", "spa", "rd", "ircr", "rrd", "spa_last", "rudder")
    seeds: int = 10
    first_seed: int = 0
    out: Path = Path(__file__).with_name("records") / "redistribution.jsonl"
    table: bool = False


def main(args: Args) -> None:
    """Run what is missing and print the table."""
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    for name in () if args.table else args.names:
        for method in args.methods:
            if (name, method, seeds) in [(r["name"], r["method"], r["seeds"]) for r in read(args.out)]:
                continue
            row = {"name": name, "method": method, "seeds": seeds, **run(name, method, seeds)}
            append(args.out, row)
            print(f"{method} on {name}: {interquartile_mean(row['final']):.2f} after {row['cpu_s']:,.0f} s", flush=True)
    print(table(read(args.out), args.names, args.methods))


def late(known: Task) -> Reward:
    """The sum of the dense reward, paid when the episode ends."""
    return rd.delayed(dense(known))


def dense(known: Task) -> Reward:
    """The reward that is delayed."""
    return rd.environment_reward() if known.name == "cartpole" else known.dense_reward


def methods(known: Task) -> dict[str, Callable[[], Reward]]:
    """Rewards to learn from, by method."""
    discrete = known.name in ("chain", "key_door")
    of: dict[str, Any] = {
        "max_length": known.horizon, "features": task_features(known), "fit": DISCRETE if discrete else CONTINUOUS,
    }  # fmt: skip
    hidden: tuple[int, ...] = () if discrete else (32, 32)
    after = {
        "uniform": lambda: ircr(normalise=False),
        "ircr": ircr,
        "rd": lambda: return_decomposition(correction="equal", hidden=hidden, **of),
        "rrd": lambda: rrd(num_steps=32, correction="equal", hidden=hidden, **of),
        "spa": lambda: spa(correction="equal", hidden=hidden, **of),
        "spa_last": lambda: spa(correction="last", hidden=hidden, **of),
        "rudder": lambda: rudder(width=32, **of),
    }
    chained = {name: lambda build=build: rd.chain(late(known), build()) for name, build in after.items()}
    return {"dense": lambda: dense(known), "terminal": lambda: late(known), **chained}


def run(name: str, method: str, seeds: Sequence[int], *, steps: int | None = None) -> dict[str, Any]:
    """Train all seeds of a method on a task.

    Returns:
        The record: ``final`` is the mean return of the training episodes of the last tenth by seed, ``over_training``
        that of all episodes, ``explained`` the last held-out explained variance.
    """
    known = task(name)
    config = settings(ppo.AGENT, known, total_timesteps=steps or STEPS[name])
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    start = time.process_time()
    metrics = train_seeds(ppo.AGENT, config, known, methods(known)[method](), keys).metrics
    seconds = time.process_time() - start
    returns, tail = metrics["true_return"], max(1, config.num_updates // 10)
    explained = [value for key, value in metrics.items() if key.endswith("explained_variance")]
    return {
        "steps": config.num_updates * config.steps_per_update,
        "final": np.nanmean(returns[:, -tail:], axis=1).round(4).tolist(),
        "over_training": np.nanmean(returns, axis=1).round(4).tolist(),
        "explained": [round(float(value), 3) for value in explained[0][:, -tail:].mean(axis=1)] if explained else None,
        "cpu_s": round(seconds, 1),
    }


def table(rows: Sequence[dict[str, Any]], names: Sequence[str], chosen: Sequence[str]) -> str:
    """Interquartile means over seeds with intervals, and how often each method beats the uniform split, as Markdown."""
    lines = [
        "| task | steps | method | seeds | final return | over training | solved | beats uniform | CPU s |",
        f"|{'---|' * 9}",
    ]
    for name in names:
        found = {row["method"]: row for row in rows if row["name"] == name and row["method"] in chosen}
        for method in (method for method in chosen if method in found):
            row = found[method]
            cells = [name, f"{row['steps'] / 1000:,.0f}k", method, len(row["seeds"])]
            cells += [_estimate(row["final"]), _estimate(row["over_training"])]
            cells += [f"{sum(value >= SOLVED[name] for value in row['final'])} of {len(row['seeds'])}"]
            cells += [_beats(row, found.get("uniform")), f"{row['cpu_s']:,.0f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _estimate(scores: Sequence[float]) -> str:
    estimate = bootstrap(np.asarray(scores), interquartile_mean)
    return f"{estimate.value:.2f} ({estimate.low:.2f} to {estimate.high:.2f})"


def _beats(row: dict[str, Any], other: dict[str, Any] | None) -> str:
    if other is None or row is other:
        return ""
    found = probability_of_improvement(np.asarray(row["over_training"]), np.asarray(other["over_training"]))
    return f"{found.value:.0%} ({found.low:.0%} to {found.high:.0%})"


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
