"""What PPO or DQN reaches when a dense reward is only paid at the end of the episode, by method of redistribution.

    python benchmarks/redistribution.py                        # everything that is missing, then the table
    python benchmarks/redistribution.py --names chain --methods spa uniform --first-seed 100 --seeds 3
    python benchmarks/redistribution.py --agents dqn           # off-policy, by the rewards that DQN can ask for
    python benchmarks/redistribution.py --table                # only the table

Every task's hand-made dense reward (for CartPole and MuJoCo its own) is summed and paid when the episode ends; runs are
judged by the task's own return. ``dense`` learns from the reward as it was, ``terminal`` from the sum at the end alone.
Settings were tried on seeds 100 to 103 of chain and key-door, ``Fit.l2`` on those of Hopper, HalfCheetah and Walker2d.
DQN keeps what the environment paid and computes rewards when it samples, with the estimator of that moment; what needs
the end of the episode for every step (``uniform``, ``ircr``, ``correction="equal"``) it cannot serve, so errors are
paid in the last step or not at all, and MuJoCo not at all. One line of JSON per task, agent and method goes to
``--out`` and is not repeated.
"""

import dataclasses
import itertools
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
from reward_design.agents import dqn, ppo, train_seeds
from reward_design.agents.host import train_host_seeds
from reward_design.envs import Task, task
from reward_design.experiments.budgets import settings
from reward_design.experiments.statistics import bootstrap, interquartile_mean, probability_of_improvement
from reward_design.redistribution import (
    Fit,
    ircr,
    return_decomposition,
    rrd,
    rudder,
    smoothed_ircr,
    spa,
    task_features,
)

STEPS = {
    "chain": 30_000, "key_door": 60_000, "cartpole": 60_000, "mountain_car": 120_000,
    "mujoco/HalfCheetah": 200_000, "mujoco/Hopper": 200_000, "mujoco/Walker2d": 200_000,
}  # fmt: skip
"""Environment steps of a run."""
MUJOCO = {
    "num_envs": 4, "num_steps": 1000, "num_epochs": 10, "num_minibatches": 50, "learning_rate": 3e-4,
    "learning_rate_end": 3e-4, "entropy_coef": 0.0, "entropy_coef_end": 0.0, "normalise_reward": True,
}  # fmt: skip
"""PPO's usual settings for MuJoCo with rollouts as long as an episode, so that few of them cut one."""
MUJOCO_TASKS = tuple(name for name in STEPS if name.startswith("mujoco/"))
DISCRETE = Fit(normalise=False, learning_rate=3e-3, num_updates=16, batch_size=32)
CONTINUOUS = Fit(num_updates=4, batch_size=16, learning_rate=1e-3)
EQUAL = {"mujoco/Hopper": 1.0, "mujoco/Walker2d": 1.0}
"""``Fit.l2`` of tasks that end where the robot falls; the default elsewhere."""
AGENTS = {"ppo": ppo.AGENT, "dqn": dqn.AGENT}
SOLVED = {"chain": 0.9, "key_door": 0.9, "cartpole": 400.0, "mountain_car": -150.0}
"""Return from which a task counts as solved, where that can be said."""


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        names: tasks.
        agents: who learns.
        methods: methods; those that an agent cannot serve are left out.
        seeds: runs of each method on each task.
        first_seed: the number of the first.
        steps: environment steps in place of those of the task, for a first look; give another ``out`` as well.
        out: records.
        table: print the table of what is there, run nothing.
    """

    names: tuple[str, ...] = tuple(STEPS)
    agents: tuple[str, ...] = ("ppo",)
    methods: tuple[str, ...] = (
        "dense", "terminal", "uniform", "spa", "rd", "ircr", "smoothed_ircr", "rrd", "spa_last", "rudder",
    )  # fmt: skip
    seeds: int = 10
    first_seed: int = 0
    steps: int | None = None
    out: Path = Path(__file__).with_name("records") / "redistribution.jsonl"
    table: bool = False


def main(args: Args) -> None:
    """Run what is missing and print the table."""
    seeds = list(range(args.first_seed, args.first_seed + args.seeds))
    for name, agent in () if args.table else itertools.product(args.names, args.agents):
        for method in (method for method in args.methods if method in methods(task(name), agent)):
            if (name, agent, method, seeds) in [
                (r["name"], _agent(r), r["method"], r["seeds"]) for r in read(args.out)
            ]:
                continue
            row = {"name": name, "agent": agent, "method": method, "seeds": seeds}
            row |= run(name, method, seeds, agent=agent, steps=args.steps)
            append(args.out, row)
            final = interquartile_mean(np.asarray(row["final"]))
            print(f"{agent}, {method} on {name}: {final:.2f} after {row['cpu_s']:,.0f} s", flush=True)
    for agent in args.agents:
        rows = [row for row in read(args.out) if _agent(row) == agent]
        print(f"\n{agent}\n\n{table(rows, args.names, args.methods)}")


def late(known: Task) -> Reward:
    """The sum of the dense reward, paid when the episode ends."""
    return rd.delayed(dense(known))


def dense(known: Task) -> Reward:
    """The reward that is delayed."""
    return rd.environment_reward() if known.name in ("cartpole", *MUJOCO_TASKS) else known.dense_reward


def methods(known: Task, agent: str = "ppo") -> dict[str, Callable[[], Reward]]:
    """Rewards to learn from that the agent can serve, by method."""
    if agent == "dqn" and known.name in MUJOCO_TASKS:
        return {}
    discrete = known.name in ("chain", "key_door")
    of: dict[str, Any] = {
        "max_length": known.horizon, "features": task_features(known), "fit": DISCRETE if discrete else CONTINUOUS,
    }  # fmt: skip
    if known.name in EQUAL:
        of["fit"] = dataclasses.replace(CONTINUOUS, l2=EQUAL[known.name])
    hidden: tuple[int, ...] = () if discrete else (32, 32)
    on_policy = {
        "uniform": lambda: ircr(normalise=False),
        "ircr": ircr,
        "rd": lambda: return_decomposition(correction="equal", hidden=hidden, **of),
        "rrd": lambda: rrd(num_steps=32, correction="equal", hidden=hidden, **of),
        "spa": lambda: spa(correction="equal", hidden=hidden, **of),
        "spa_last": lambda: spa(correction="last", hidden=hidden, **of),
        "rudder": lambda: rudder(width=32, **of),
    }
    off_policy = {
        "smoothed_ircr": lambda: smoothed_ircr(num_steps=32, **of),
        "rd": lambda: return_decomposition(correction="none", hidden=hidden, **of),
        "rrd": lambda: rrd(num_steps=32, correction="none", hidden=hidden, **of),
        "spa_last": lambda: spa(correction="last", hidden=hidden, **of),
        "rudder": lambda: rudder(correction="last", width=32, **of),
    }
    after = on_policy if agent == "ppo" else off_policy
    chained = {name: lambda build=build: rd.chain(late(known), build()) for name, build in after.items()}
    return {"dense": lambda: dense(known), "terminal": lambda: late(known), **chained}


def run(
    name: str, method: str, seeds: Sequence[int], *, agent: str = "ppo", steps: int | None = None
) -> dict[str, Any]:
    """Train all seeds of a method on a task.

    Returns:
        The record: ``final`` is the mean return of the training episodes of the last tenth by seed, ``over_training``
        that of all episodes, ``explained`` the last held-out explained variance.
    """
    known = task(name)
    host = name in MUJOCO_TASKS
    config = settings(AGENTS[agent], known, total_timesteps=steps or STEPS[name], config=MUJOCO if host else None)
    keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
    start = time.process_time()
    train: Any = train_host_seeds if host else train_seeds
    metrics = train(AGENTS[agent], config, known, methods(known, agent)[method](), keys).metrics
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
            solved = [value >= SOLVED.get(name, np.inf) for value in row["final"]]
            cells += [f"{sum(solved)} of {len(solved)}" if name in SOLVED else ""]
            cells += [_beats(row, found.get("uniform")), f"{row['cpu_s']:,.0f}"]
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def _agent(row: dict[str, Any]) -> str:
    return row.get("agent", "ppo")  # records of before there were two


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
