"""How well distances predict regret on random MDPs: the experiment of the STARC paper at its published size.

Pairs of random rewards on random MDPs (32 states, 4 actions, discount 0.95): R1 against 16 rewards on the way from R1
to R2. The Pearson correlation of each of 222 distances (canonicalisation, norm n that standardises, metric m) with the
regret, over all pairs, beside the published figure of the same cell. Regret is the mean of the loss under R1 of the
optimal policy of R_i, and of the loss under R_i of the optimal policy of R1, as shares of the range of returns. Returns
are exact here; the published ones are Monte-Carlo estimates. Prints JSON lines: progress, then the table.

Source: Skalse et al., "STARC", ICLR 2024, arXiv:2309.15257, and the notebook of its experiments.
``python benchmarks/starc_random_mdps.py --help`` lists the settings; ``--num-envs 384`` is the published size.
"""

import functools
import json
import multiprocessing
import platform
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import tyro

from reward_design.distance import minimal_potential, policy_regret
from reward_design.distance._norms import norm_of
from reward_design.distance.canonicalisation import Levels, levelled
from reward_design.envs.random_mdp import random_reward, random_transition

STATES, ACTIONS, GAMMA, STEPS = 32, 4, 0.95, 16
METRICS = ("1", "2", "inf", "w1", "w2", "winf")
_POWERS = {"1": 1.0, "2": 2.0, "inf": np.inf}

PUBLISHED = {  # canonicalisation: {norm n: six correlations, in the order of METRICS}
    "none": {
        "1": (0.597, 0.352, 0.278, 0.515, 0.390, 0.353), "2": (0.571, 0.618, 0.444, 0.579, 0.633, 0.513),
        "inf": (0.537, 0.538, 0.555, 0.537, 0.539, 0.487), "w1": (-0.045, -0.047, -0.048, 0.598, -0.047, 0.429),
        "w2": (-0.034, -0.043, -0.046, 0.573, 0.615, 0.622), "winf": (-0.035, -0.043, -0.046, 0.539, -0.040, 0.530),
        "0": (0.296, 0.304, 0.333, 0.296, 0.303, 0.312),
    },
    "epic": {
        "1": (0.814, 0.647, 0.542, 0.819, 0.622, 0.517), "2": (0.734, 0.778, 0.634, 0.746, 0.814, 0.637),
        "inf": (0.620, 0.617, 0.554, 0.629, 0.630, 0.571), "w1": (0.749, 0.529, 0.436, 0.830, 0.730, 0.607),
        "w2": (0.680, 0.224, 0.129, 0.738, 0.823, 0.806), "winf": (0.642, 0.197, 0.052, 0.686, 0.692, 0.661),
        "0": (0.122, 0.122, 0.184, 0.130, 0.131, 0.140),
    },
    "dard": {
        "1": (0.824, 0.453, 0.376, 0.861, 0.761, 0.654), "2": (0.751, 0.782, 0.630, 0.767, 0.826, 0.675),
        "inf": (0.639, 0.637, 0.552, 0.657, 0.652, 0.632), "w1": (0.621, 0.241, 0.220, 0.835, 0.754, 0.679),
        "w2": (0.711, 0.178, 0.122, 0.774, 0.831, 0.708), "winf": (0.685, 0.319, 0.095, 0.713, 0.718, 0.698),
        "0": (0.124, 0.125, 0.170, 0.137, 0.136, 0.141),
    },
    "minimal_potential": {
        "1": (0.815, 0.576, 0.493, 0.718, 0.568, 0.489), "2": (0.733, 0.778, 0.634, 0.746, 0.814, 0.637),
    },
    "val_potential": {
        "1": (0.800, 0.240, 0.171, 0.876, 0.776, 0.685), "2": (0.752, 0.782, 0.625, 0.767, 0.828, 0.677),
        "inf": (0.636, 0.634, 0.557, 0.653, 0.648, 0.624), "w1": (-0.035, -0.040, -0.044, 0.867, -0.037, 0.692),
        "w2": (0.112, 0.093, 0.065, 0.784, 0.845, 0.807), "winf": (0.077, 0.051, 0.024, 0.722, 0.073, 0.735),
        "0": (0.122, 0.123, 0.171, 0.136, 0.135, 0.141),
    },
    "val": {
        "1": (0.873, 0.870, 0.749, 0.873, 0.870, 0.741), "2": (0.804, 0.856, 0.858, 0.804, 0.856, 0.783),
        "inf": (0.708, 0.723, 0.756, 0.708, 0.723, 0.707), "w1": (0.873, 0.870, 0.749, 0.873, 0.870, 0.741),
        "w2": (0.804, 0.856, 0.858, 0.804, 0.856, 0.783), "winf": (0.707, 0.766, 0.816, 0.707, 0.766, 0.734),
        "0": (0.149, 0.146, 0.140, 0.149, 0.146, 0.171),
    },
}  # fmt: skip
EXTRA = ("minimal", "minimal_weighted")
"""STARC canonicalisations in closed form, which the published table lacks; at matched norms."""


@dataclass(frozen=True)
class Settings:
    """Size of the experiment."""

    num_envs: int = 384
    num_pairs: int = 8
    """Pairs (R1, R2) per MDP; each gives 16 rows."""
    leak: float = 0.0
    """Probability of each successor that is impossible here; the published recipe leaves about 1e-10."""
    workers: int = 2
    """Processes."""
    seed: int = 0
    report_every: int = 32


def rewards_and_dynamics(settings: Settings, env: int) -> tuple[np.ndarray, np.ndarray]:
    """``[pairs, 17, S, A, S]`` rewards, the first of each pair R1 and the last R2, and ``[S, A, S]`` dynamics."""
    rng = np.random.default_rng([settings.seed, env])
    transition = random_transition(rng, STATES, ACTIONS)
    transition = np.where(transition > 0, transition, settings.leak)
    transition /= transition.sum(-1, keepdims=True)
    families = []
    for _ in range(settings.num_pairs):
        first, last = (random_reward(rng, STATES, ACTIONS, gamma=GAMMA) for _ in range(2))
        share = np.arange(STEPS + 1)[:, None, None, None] / STEPS
        families.append(first + (last - first) * share)
    return np.array(families), transition


def regrets(rewards: np.ndarray, transition: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """``[pairs, 16]`` losses under R1 of optimising R_i, and under R_i of optimising R1."""
    first, others = rewards[:, :1], rewards[:, 1:]
    start = np.full(STATES, 1 / STATES)
    forth = policy_regret(first, others, transition, start, gamma=GAMMA)
    back = policy_regret(others, first, transition, start, gamma=GAMMA)
    return np.asarray(forth), np.asarray(back)


def canonical(name: str, rewards: np.ndarray, transition: np.ndarray) -> Levels:
    """The 17 canonical rewards of each pair."""
    lead = rewards.ndim - 4
    uniform = np.full((1,) * lead + (STATES, ACTIONS), 1 / ACTIONS)
    gamma, tau = np.full((1,) * lead, GAMMA), transition.reshape((1,) * lead + transition.shape)
    return levelled(np, rewards, tau, gamma, uniform, name)


def distances(levels: Levels, transition: np.ndarray, norms: tuple[str, ...]) -> dict[str, np.ndarray]:
    """``[pairs, 16]`` for each cell ``n-m``. Weighted and plain norms of a difference share its passes."""
    from reward_design.distance._norms import Norm

    tau = transition.reshape((1,) * (levels.values.ndim - 4) + transition.shape)
    weight = {m: levels.weight(np, Norm(_POWERS[m.lstrip("w")], m.startswith("w")), tau) for m in METRICS}
    sizes = {m: norm_of(np, levels.values, _POWERS[m.lstrip("w")], weight[m]) for m in METRICS}
    sizes["0"] = np.ones_like(sizes["1"])
    cells = {}
    for n in norms:
        trivial = sizes[n] <= 1e-10 * levels.ceiling
        scale = np.where(trivial, 0.0, 1 / np.where(trivial, 1.0, sizes[n]))
        s = levels.values * scale[..., None, None, None]
        apart = np.abs(s[:, 1:] - s[:, :1])
        for m in METRICS:
            cells[f"{n}-{m}"] = norm_of(np, apart, _POWERS[m.lstrip("w")], weight[m])
    return cells


def one_env(settings: Settings, env: int) -> dict[str, np.ndarray]:
    """All cells and regrets of one MDP."""
    rewards, transition = rewards_and_dynamics(settings, env)
    rows: dict[str, np.ndarray] = {}
    start = time.process_time()
    rows["regret 1"], rows["regret 2"] = regrets(rewards, transition)
    rows["cpu regret"] = np.array([time.process_time() - start])
    for name, table in PUBLISHED.items():
        levels = canonical(name, rewards, transition)
        wanted = tuple(n for n in table if not (name == "minimal_potential" and n == "1"))
        rows |= {f"{name} {cell}": d for cell, d in distances(levels, transition, wanted).items()}
    least = Levels(minimal_potential(rewards, gamma=GAMMA, norm=1), None, np.abs(rewards).max((-3, -2, -1)))
    rows |= {f"minimal_potential {cell}": d for cell, d in distances(least, transition, ("1",)).items()}
    for name in EXTRA:
        found = distances(canonical(name, rewards, transition), transition, METRICS)
        rows |= {f"{name} {m}-{m}": found[f"{m}-{m}"] for m in METRICS}
    rows["cpu regret and distances"] = np.array([time.process_time() - start])
    return {name: values.ravel() for name, values in rows.items()}


def table(rows: dict[str, np.ndarray]) -> dict[str, Any]:
    """Correlations with the mean regret, beside the published ones."""
    target = (rows["regret 1"] + rows["regret 2"]) / 2
    found = {name: float(np.corrcoef(values, target)[0, 1]) for name, values in rows.items() if "regret" not in name}
    published = {
        f"{name} {n}-{m}": value
        for name, cells in PUBLISHED.items()
        for n, values in cells.items()
        for m, value in zip(METRICS, values, strict=True)
    }
    apart = {name: round(found[name] - value, 3) for name, value in published.items()}
    matched = {
        m: sorted(((round(found[f"{name} {m}-{m}"], 3), name) for name in (*PUBLISHED, *EXTRA)
                   if f"{name} {m}-{m}" in found), reverse=True)
        for m in METRICS
    }  # fmt: skip
    return {
        "what": "table",
        "pairs": len(target),
        "cells": len(published),
        "correlation": {name: [round(found[name], 3), published.get(name)] for name in found},
        "matched": matched,
        "val_minus_epic_at_2-2": round(found["val 2-2"] - found["epic 2-2"], 4),
        "differ_by_more_than_0.1": {name: gap for name, gap in apart.items() if abs(gap) > 0.1},
        "median_absolute_difference": round(float(np.median(np.abs(list(apart.values())))), 4),
        "regret_1_with_mean": round(float(np.corrcoef(rows["regret 1"], target)[0, 1]), 3),
        "regret_2_with_mean": round(float(np.corrcoef(rows["regret 2"], target)[0, 1]), 3),
    }


def main(settings: Settings) -> None:
    """Run, print."""
    machine = {"numpy": np.__version__, "python": platform.python_version(), "machine": platform.platform()}
    print(json.dumps({"settings": asdict(settings), **machine}), flush=True)
    start, done = time.perf_counter(), []
    with ProcessPoolExecutor(settings.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for rows in pool.map(functools.partial(one_env, settings), range(settings.num_envs)):
            done.append(rows)
            if len(done) % settings.report_every == 0:
                print(json.dumps({"envs": len(done), "seconds": round(time.perf_counter() - start, 1)}), flush=True)
    rows = {name: np.concatenate([each[name] for each in done]) for name in done[0]}
    seconds = {
        "seconds": round(time.perf_counter() - start, 1),
        "cpu_seconds": {name: round(float(rows[name].sum()), 1) for name in ("cpu regret", "cpu regret and distances")},
    }
    print(json.dumps({**table(rows), **seconds}), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Settings))
