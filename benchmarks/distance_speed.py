"""Exact STARC distances of many rewards in one call: speed against two other ways, and growth with the problem.

The other ways are written here from the definition: ``numpy``, whole-array expressions with one solve and one Gram
matrix; and ``sweeps``, the algorithm of the published experiments, which finds the values of each reward by
Gauss-Seidel sweeps over the states to 1e-8 (the inner sums are vectorised, so it is faster than loops throughout). All
run in turn in one process (A B C A B C ...). Prints JSON lines: one per run, then summaries with medians, ranges and
ratios. The sweeps are timed on ``sweep_rewards`` rewards and scaled up. Nothing is compiled.

``python benchmarks/distance_speed.py --help`` lists the settings; ``--plot growth.svg`` draws the growth.
"""

import json
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tyro

from reward_design.distance import distance_matrix


@dataclass(frozen=True)
class Settings:
    """Sizes of the problems."""

    states: tuple[int, ...] = (32, 256, 1024)
    """Numbers of states S of the side-by-side runs."""
    num_rewards: int = 256
    """Rewards M of each; their tables are float32 from 1,024 states on (4.3 GB)."""
    num_actions: int = 4
    gamma: float = 0.95
    runs: int = 5
    sweep_rewards: int = 2
    num_envs: int = 128
    """MDPs of 32 states with 17 rewards each, in one call."""
    growth: bool = True
    """Also vary S, A and M one at a time."""
    plot: str | None = None
    """Picture of the growth, .svg or .png."""
    seed: int = 0


def by_definition(rewards: np.ndarray, transition: np.ndarray, gamma: float) -> np.ndarray:
    """VAL, L2, L2 as a NumPy user would write it: whole-array expressions, one solve, one Gram matrix."""
    num_rewards, num_states, num_actions, _ = rewards.shape
    paid = (rewards * transition).sum(-1)
    system = np.eye(num_states) - gamma * transition.mean(1)
    values = np.linalg.solve(system, paid.mean(-1).T).T
    c = paid + gamma * np.einsum("sat,mt->msa", transition, values, optimize=True) - values[..., None]
    c = c.reshape(num_rewards, num_states * num_actions)
    s = c / np.linalg.norm(c, axis=1, keepdims=True)
    return np.sqrt(np.maximum(2 - 2 * s @ s.T, 0))


def by_sweeps(rewards: np.ndarray, transition: np.ndarray, gamma: float) -> np.ndarray:
    """VAL of each reward by Gauss-Seidel sweeps to 1e-8, then each pair of standardised rewards ``[S, A, S]``."""
    standardised = []
    for reward in rewards:
        values, num_states = np.zeros(len(transition)), len(transition)
        for _ in range(10_000):
            before = values.copy()
            for s in range(num_states):
                values[s] = (transition[s] * (reward[s] + gamma * values)).sum() / len(transition[s])
            if np.abs(values - before).max() < 1e-8:
                break
        c = (transition * (reward + gamma * values)).sum(-1, keepdims=True) - values[:, None, None]
        c = np.repeat(c, num_states, axis=-1)
        standardised.append(c / np.linalg.norm(c))
    return np.array([[np.linalg.norm(a - b) for b in standardised] for a in standardised])


def problem(seed: int, num_rewards: int, num_states: int, num_actions: int, gamma: float) -> tuple[Any, Any]:
    """Random rewards, the last one equivalent to the first, and random dynamics."""
    rng = np.random.default_rng(seed)
    shape = (num_states, num_actions, num_states)
    dtype = np.float32 if num_states >= 1024 else np.float64
    rewards = rng.standard_normal(size=(num_rewards, *shape), dtype=dtype)
    potential = 5 * rng.normal(size=num_states)
    rewards[-1] = 3 * (rewards[0] + gamma * potential - potential[:, None, None])
    return rewards, rng.dirichlet(np.ones(num_states), shape[:2])


def timed(calls: dict[str, Callable[[], Any]], runs: int) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each call in turn, after one run that is not counted, and what they returned last."""
    seconds, results = {name: [] for name in calls}, {}
    for run in range(runs + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            results[name] = call()
            if run:
                seconds[name].append(time.perf_counter() - start)
    return seconds, results


def side_by_side(settings: Settings, num_states: int) -> dict[str, Any]:
    """One size: ours, NumPy, and the sweeps on a few rewards."""
    rewards, transition = problem(settings.seed, settings.num_rewards, num_states, settings.num_actions, settings.gamma)
    few = np.asarray(rewards[: settings.sweep_rewards], float)
    seconds, results = timed(
        {
            "distance_matrix": lambda: distance_matrix(rewards, transition, gamma=settings.gamma),
            "numpy": lambda: by_definition(rewards, transition, settings.gamma),
        },
        settings.runs,
    )
    swept, checked = timed({"sweeps": lambda: by_sweeps(few, transition, settings.gamma)}, 1)
    scale = settings.num_rewards / len(few)
    ours, numpy = seconds["distance_matrix"], seconds["numpy"]
    ratios = [b / a for a, b in zip(ours, numpy, strict=True)]
    apart = np.abs(results["distance_matrix"] - results["numpy"])
    apart[0, -1] = apart[-1, 0] = 0
    apart[np.diag_indices_from(apart)] = 0
    return {
        "what": "side by side",
        "num_states": num_states,
        "dtype": str(rewards.dtype),
        "median_seconds": {"distance_matrix": statistics.median(ours), "numpy": statistics.median(numpy)},
        "numpy_over_ours": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "sweeps_seconds": scale * swept["sweeps"][0],
        "sweeps_over_ours": scale * swept["sweeps"][0] / statistics.median(ours),
        "largest_difference": float(apart.max()),
        "largest_difference_sweeps": float(
            np.abs(checked["sweeps"] - results["distance_matrix"][: len(few), : len(few)]).max()
        ),
        "equivalent_pair": {name: float(result[0, -1]) for name, result in results.items()},
    }


def many_environments(settings: Settings) -> dict[str, Any]:
    """All MDPs in one call against one call of the NumPy version for each."""
    rng = np.random.default_rng(settings.seed)
    rewards = rng.normal(size=(settings.num_envs, 17, 32, settings.num_actions, 32))
    transition = rng.dirichlet(np.ones(32), (settings.num_envs, 32, settings.num_actions))
    seconds, results = timed(
        {
            "one call": lambda: distance_matrix(rewards, transition, gamma=settings.gamma),
            "numpy": lambda: np.array(
                [by_definition(r, t, settings.gamma) for r, t in zip(rewards, transition, strict=True)]
            ),
        },
        settings.runs,
    )
    diagonal = np.eye(17, dtype=bool)
    ratios = [b / a for a, b in zip(seconds["one call"], seconds["numpy"], strict=True)]
    return {
        "what": f"{settings.num_envs} MDPs of 32 states, 17 rewards each",
        "median_seconds": {name: statistics.median(taken) for name, taken in seconds.items()},
        "numpy_over_ours": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "largest_difference": float(np.abs(results["one call"] - results["numpy"])[:, ~diagonal].max()),
    }


def growth(settings: Settings) -> dict[str, list[tuple[int, float]]]:
    """Median seconds when S, A or M alone varies around 128 states, 4 actions, 64 rewards."""
    base = {"S": 128, "A": 4, "M": 64}
    varied = {"S": (32, 64, 128, 256, 512), "A": (2, 4, 8, 16), "M": (16, 64, 256, 512)}
    curves: dict[str, list[tuple[int, float]]] = {}
    for name, values in varied.items():
        for value in values:
            size = base | {name: value}
            rewards, transition = problem(settings.seed, size["M"], size["S"], size["A"], settings.gamma)

            def call(rewards: Any = rewards, transition: Any = transition) -> Any:
                return distance_matrix(rewards, transition, gamma=settings.gamma)

            seconds, _ = timed({"call": call}, 3)
            curves.setdefault(name, []).append((value, statistics.median(seconds["call"])))
    return curves


def draw(curves: dict[str, list[tuple[int, float]]], path: str) -> None:
    """Seconds against S, A and M on double logarithmic axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.6), layout="constrained")
    for number, (name, points) in enumerate(curves.items()):
        axes = figure.add_subplot(1, 3, number + 1)
        x, y = zip(*points, strict=True)
        axes.loglog(x, y, "o-")
        axes.set_xticks(x, [str(value) for value in x])
        axes.set_xticks([], minor=True)
        axes.set_xlabel({"S": "states S", "A": "actions A", "M": "rewards M"}[name])
        axes.set_ylabel("seconds" if number == 0 else "")
        axes.grid(alpha=0.3)
    figure.savefig(path)


def main(settings: Settings) -> None:
    """Measure and print."""
    machine = {"numpy": np.__version__, "python": platform.python_version(), "machine": platform.platform()}
    print(json.dumps({"settings": asdict(settings), **machine}), flush=True)
    for num_states in settings.states:
        print(json.dumps(side_by_side(settings, num_states)), flush=True)
    print(json.dumps(many_environments(settings)), flush=True)
    if settings.growth:
        curves = growth(settings)
        print(json.dumps({"what": "growth", "seconds": curves}), flush=True)
        if settings.plot:
            draw(curves, settings.plot)


if __name__ == "__main__":
    main(tyro.cli(Settings))
