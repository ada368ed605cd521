"""Exact STARC distances of many rewards in one call, against vectorised NumPy written from the definition.

Runs the two alternately (A B A B ...) in one process and prints JSON lines: one per run, and a summary with medians,
ranges and the ratio. Nothing is compiled. ``python benchmarks/distance_exact.py --help`` lists the settings.
"""

import json
import platform
import statistics
import time
from dataclasses import dataclass

import numpy as np
import tyro

from reward_design.distance import distance_matrix


@dataclass(frozen=True)
class Settings:
    """Size of the problem."""

    num_rewards: int = 256
    num_states: int = 256
    num_actions: int = 4
    gamma: float = 0.95
    runs: int = 5
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


def problem(settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Random rewards, the last one equivalent to the first, and random dynamics."""
    rng = np.random.default_rng(settings.seed)
    shape = (settings.num_states, settings.num_actions, settings.num_states)
    rewards = rng.normal(size=(settings.num_rewards, *shape))
    potential = 5 * rng.normal(size=settings.num_states)
    rewards[-1] = 3 * (rewards[0] + settings.gamma * potential - potential[:, None, None])
    return rewards, rng.dirichlet(np.ones(settings.num_states), shape[:2])


def main(settings: Settings) -> None:
    """Measure and print."""
    rewards, transition = problem(settings)
    calls = {
        "distance_matrix": lambda: distance_matrix(rewards, transition, gamma=settings.gamma),
        "numpy": lambda: by_definition(rewards, transition, settings.gamma),
    }
    seconds = {name: [] for name in calls}
    results = {}
    for run in range(settings.runs + 1):
        for name, call in calls.items():
            start = time.perf_counter()
            results[name] = call()
            taken = time.perf_counter() - start
            print(json.dumps({"run": run, "what": name, "seconds": taken, "first": run == 0}))
            if run:
                seconds[name].append(taken)
    ratios = [b / a for a, b in zip(*seconds.values(), strict=True)]
    off_diagonal = ~np.eye(settings.num_rewards, dtype=bool)
    off_diagonal[0, -1] = off_diagonal[-1, 0] = False
    error = np.abs(results["distance_matrix"] - results["numpy"])[off_diagonal].max()
    summary = {
        "settings": settings.__dict__,
        "median_seconds": {name: statistics.median(taken) for name, taken in seconds.items()},
        "numpy_over_ours": {"median": statistics.median(ratios), "min": min(ratios), "max": max(ratios)},
        "largest_difference": float(error),
        "equivalent_pair": {name: float(result[0, -1]) for name, result in results.items()},
        "compile_seconds": 0.0,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "machine": platform.platform(),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main(tyro.cli(Settings))
