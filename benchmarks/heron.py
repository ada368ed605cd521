"""HERON against what a designer would do instead, by ranked factors: weights, ensembles of policies, preferences.

    python benchmarks/heron.py                                     # everything that is missing, then the table
    python benchmarks/heron.py --names pendulum --designs heron tuned --seeds 10
    python benchmarks/heron.py --table                             # only the table
    python benchmarks/heron.py --picture levels.png                # which level decides, over training

Per task and design one line of JSON with all seeds goes to ``--out`` (on MuJoCo, where runs go one after another, one
line per seed); what is there is not repeated. Settings and tuned weights come from seeds from 1000 on, reports from
seeds 0, 1, 2, ... A run is judged by its factors in 32 episodes (MuJoCo: 8) played by the mode of its policy, and two
runs by the ranking that HERON was given, margins included.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import heron_host
import jax
import jax.numpy as jnp
import numpy as np
import tyro
from gymnasium import spaces
from heron_rankings import RANKINGS, factors_of, first_episodes
from host_learning import append, read

import reward_design as rd
from reward_design.agents import ppo, rollout
from reward_design.envs import Task, task
from reward_design.experiments.budgets import settings
from reward_design.experiments.provenance import provenance
from reward_design.experiments.ranked import win_rate
from reward_design.preferences import (
    factor_sum,
    heron,
    preference_reward,
    space_inputs,
    synthetic_teacher,
)
from reward_design.preferences.factors import spread

EPISODES = 32
NUM_CANDIDATES = 8
"""Weights tried for the tuned sum."""
DESIGNS = ("heron", "tuned", "powers", "ensemble", "bt_on_truth", "truth")


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        names: tasks.
        designs: what to train.
        seeds: runs of each design on each task.
        first_seed: of the runs; 1000 and above for choosing settings.
        steps: environment steps in place of those of the task, for a first look; give another ``out`` as well.
        out: records.
        table: print the table of what is there, run nothing.
        picture: draw which level decides to this file, and the accuracy of the model.
    """

    names: tuple[str, ...] = tuple(RANKINGS)
    designs: tuple[str, ...] = DESIGNS
    seeds: int = 10
    first_seed: int = 0
    steps: int | None = None
    out: Path = Path(__file__).with_name("records") / "heron.jsonl"
    table: bool = False
    picture: Path | None = None


# --- playing ---------------------------------------------------------------------------------------------------------

Act = Callable[[Any, Any], Any]
"""``(obs, key) -> action``."""


def played(problem: Task, act: Act, key: Any) -> tuple[Any, Any]:
    """Factors ``[EPISODES, L]`` and true returns ``[EPISODES]`` of one episode per lane."""
    env = problem.functional()
    reset_key, env_key, act_key = jax.random.split(key, 3)
    lanes = rollout.reset_lanes(env, reset_key, EPISODES, ())
    keys = jax.random.split(act_key, env.horizon)
    _, trajectory, _ = rollout.collect(env, lambda obs, key: (act(obs, key), ()), lanes, env_key, keys, env.horizon)
    return first_episodes(factors_of(problem), trajectory)


@cache
def random_units(problem: Task) -> np.ndarray:
    """Margins ``[L]`` in the units of the factors: deviations over episodes of random actions."""
    if heron_host.is_host(problem):
        values = jnp.asarray(heron_host.random_values(problem, jax.random.key(999)))
        return np.asarray(spread(values, jnp.ones(len(values), bool)))
    env = problem.functional()
    space: Any = env.action_space

    def act(obs: Any, key: Any) -> Any:
        shape = (EPISODES, *space.shape)
        if isinstance(space, spaces.Discrete):
            return jax.random.randint(key, shape, 0, int(space.n))
        return jax.random.uniform(key, shape, minval=space.low, maxval=space.high)

    keys = jax.random.split(jax.random.key(999), 8)
    values = jax.jit(jax.vmap(lambda key: played(problem, act, key)[0]))(keys).reshape(256, -1)
    return np.asarray(spread(values, jnp.ones(256, bool)))


def margins(problem: Task) -> np.ndarray:
    """Differences of a factor that do not count when two runs are compared."""
    return np.array([factor.margin for factor in factors_of(problem)]) * random_units(problem)


def judged(problem: Task, config: Any, states: Any, keys: Any) -> tuple[Any, Any]:
    """Mean factors ``[N, L]`` and true returns ``[N]`` of runs."""
    return (heron_host.judged if heron_host.is_host(problem) else _judged)(problem, config, states, keys)


@partial(jax.jit, static_argnames=("problem",))
def _judged(problem: Task, config: Any, states: Any, keys: Any) -> tuple[Any, Any]:
    def one(state: Any, key: Any) -> tuple[Any, Any]:
        act = partial(ppo.act, config, problem.functional(), state, deterministic=True)
        return jax.tree.map(lambda x: x.mean(axis=0), played(problem, act, key))

    return jax.vmap(one)(states, keys)


def judged_ensemble(problem: Task, config: Any, states: Any, keys: Any) -> tuple[Any, Any]:
    """The same for ensembles: mean action, or most votes, of policies ``[L, N]`` that learned a factor each."""
    judge = heron_host.judged_ensemble if heron_host.is_host(problem) else _judged_ensemble
    return judge(problem, config, states, keys)


@partial(jax.jit, static_argnames=("problem",))
def _judged_ensemble(problem: Task, config: Any, states: Any, keys: Any) -> tuple[Any, Any]:
    env = problem.functional()

    def one(members: Any, key: Any) -> tuple[Any, Any]:
        def act(obs: Any, key: Any) -> Any:
            choose = lambda state: ppo.act(config, env, state, obs, key, deterministic=True)  # noqa: E731
            actions = jax.vmap(choose)(members)
            if not isinstance(env.action_space, spaces.Discrete):
                return actions.mean(axis=0)
            votes = jax.nn.one_hot(actions, int(env.action_space.n)).sum(axis=0)
            return jnp.argmax(votes, axis=-1).astype(actions.dtype)

        return jax.tree.map(lambda x: x.mean(axis=0), played(problem, act, key))

    return jax.vmap(one, in_axes=(1, 0))(states, keys)


# --- training --------------------------------------------------------------------------------------------------------


def trained(problem: Task, config: Any, reward: rd.Reward, seeds: Sequence[int], params: Any = None) -> Any:
    """One run per seed; with ``params [C, ...]`` one per entry and seed, leading axes ``[C, N]``."""
    if heron_host.is_host(problem):
        return heron_host.trained(problem, config, reward, seeds, params)
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    run = lambda params, key: ppo.train(config, problem, reward, key, reward_params=params)  # noqa: E731
    over_seeds = jax.vmap(run, in_axes=(None, 0))
    return over_seeds(None, keys) if params is None else jax.vmap(over_seeds, in_axes=(0, None))(params, keys)


def weights_as_params(problem: Task, weights: np.ndarray) -> Any:
    """Params ``[C, ...]`` of the weighted sum for weights ``[C, L]``."""
    factors = factors_of(problem)
    params, _ = factor_sum(factors).init(jax.random.key(0), problem.example)
    named = {factor.name: jnp.asarray(column, jnp.float32) for factor, column in zip(factors, weights.T)}
    rewards = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(weights), *x.shape)), params["rewards"])
    return {"weights": named, "rewards": rewards}


def tuned_weights(problem: Task, config: Any) -> np.ndarray:
    """Of weights drawn from four decades per deviation, those whose runs win most against the others' by rank."""
    factors, units, seeds = factors_of(problem), random_units(problem), RANKINGS[problem.name].tuning_seeds
    decades = np.random.default_rng(0).uniform(-2, 2, (NUM_CANDIDATES, len(factors)))
    weights = 10**decades / np.where(units > 0, units, 1.0)
    runs = trained(problem, config, reward_of("tuned", problem), seeds, weights_as_params(problem, weights))
    keys = jax.random.split(jax.random.key(998), len(seeds))
    values = [judged(problem, config, jax.tree.map(lambda x: x[c], runs.state), keys)[0] for c in range(len(weights))]  # noqa: B023
    limits = margins(problem)
    wins = [
        np.mean([win_rate(own, other, margins=limits, num_resamples=10).value for other in values]) for own in values
    ]
    return weights[int(np.argmax(wins))]


@cache
def reward_of(name: str, problem: Task) -> rd.Reward:
    """Reward of a design; always the same, so that nothing compiles twice."""
    factors = factors_of(problem)
    shared = {"inputs": space_inputs(problem), "gamma": problem.gamma, "config": RANKINGS[problem.name].config}
    if name == "heron":
        return heron(factors, **shared)
    if name == "bt_on_truth":
        return preference_reward(synthetic_teacher(), **shared)
    return rd.environment_reward() if name == "truth" else factor_sum(factors)


def config_of(problem: Task, steps: int | None) -> ppo.Config:
    """Settings of PPO; weighted sums differ by orders of magnitude, so it learns in units of the reward's spread."""
    chosen = heron_host.SETTINGS if heron_host.is_host(problem) else {"normalise_reward": True}
    steps = steps or RANKINGS[problem.name].total_timesteps
    return settings(ppo.AGENT, problem, total_timesteps=steps, config=chosen)


def measure(
    name: str, problem: Task, seeds: Sequence[int], config: ppo.Config, known: Sequence[dict[str, Any]] = ()
) -> dict[str, Any]:
    """Train and judge one design; weights that a record of as many steps knows are not tuned again."""
    record: dict[str, Any] = {"total_timesteps": config.num_updates * config.steps_per_update}
    params = None
    if name == "tuned":
        same = {"task": problem.name, "design": name, **record}
        found = next((list(r["weights"].values()) for r in known if same.items() <= r.items()), None)
        params = weights_as_params(problem, np.array([tuned_weights(problem, config) if found is None else found]))
        record["weights"] = {k: float(v[0]) for k, v in params["weights"].items()}
    elif name == "ensemble":
        params = weights_as_params(problem, np.eye(len(factors_of(problem))))  # each factor alone
    result = trained(problem, config, reward_of(name, problem), seeds, params)
    keys = jax.random.split(jax.random.key(997), len(seeds))
    if name == "ensemble":
        values, returns = judged_ensemble(problem, config, result.state, keys)
    else:
        state = result.state if params is None else jax.tree.map(lambda x: x[0], result.state)
        values, returns = judged(problem, config, state, keys)
    record |= {"factors": np.asarray(values).tolist(), "true_return": np.asarray(returns).tolist()}
    curves = {k: v for k, v in result.metrics.items() if k.startswith("reward/")}
    if curves:
        every = max(1, config.num_updates // 50)
        record["steps"] = (np.arange(config.num_updates)[::every] * config.steps_per_update).tolist()
        record |= {k: np.asarray(v)[:, ::every].mean(axis=0).round(4).tolist() for k, v in curves.items()}
    return record


# --- output ----------------------------------------------------------------------------------------------------------


def reported(records: Sequence[dict[str, Any]], name: str) -> dict[str, dict[str, Any]]:
    """Records of a task's reported seeds by design; those of single seeds become one."""
    found: dict[str, dict[str, Any]] = {}
    ours = [r for r in records if r["task"] == name and r["first_seed"] < 1000]
    for label in dict.fromkeys(record["design"] for record in ours):
        parts = sorted((r for r in ours if r["design"] == label), key=lambda r: r["first_seed"])
        joined = {k: [row for part in parts for row in part[k]] for k in ("factors", "true_return")}
        curves = {k: np.mean([part[k] for part in parts], axis=0) for k in parts[0] if k.startswith("reward/")}
        found[label] = {**parts[0], **joined, **curves}
    return found


def table(records: Sequence[dict[str, Any]], names: Sequence[str]) -> None:
    """Mean factors of each design, and how often HERON wins against it."""
    for name in names:
        found = reported(records, name)
        if "heron" not in found:
            continue
        problem = task(name)
        factors, limits = factors_of(problem), margins(problem)
        print(f"\n{name}: margins " + ", ".join(f"{f.name} {m:.3g}" for f, m in zip(factors, limits)))
        for label, record in found.items():
            means = ", ".join(f"{f.name} {f.sign * v:.3f}" for f, v in zip(factors, np.mean(record["factors"], axis=0)))
            won = win_rate(found["heron"]["factors"], record["factors"], margins=limits)
            against = "" if label == "heron" else f"; heron wins {won.value:.2f} [{won.low:.2f}, {won.high:.2f}]"
            runs = len(record["factors"])
            print(f"  {label:12} {runs:2} runs, return {np.mean(record['true_return']):9.2f}; {means}{against}")


def draw(records: Sequence[dict[str, Any]], names: Sequence[str], file: Path) -> None:
    """Which level decides, over training."""
    import matplotlib.pyplot as plt

    from reward_design.experiments.preference_plots import deciding_levels

    found = [own["heron"] for own in (reported(records, name) for name in names) if "heron" in own]
    figure, axes = plt.subplots(1, len(found), figsize=(4.5 * len(found), 3.5), layout="constrained", squeeze=False)
    for record, ax in zip(found, axes[0]):
        names = [name for name, _, _ in RANKINGS[record["task"]].factors]
        deciding_levels(record["steps"], record, ax, levels=names)
        ax.set_title(record["task"])
    figure.savefig(file, dpi=120)


def main(args: Args) -> None:
    """Run what is missing, then print the table."""
    args.out.parent.mkdir(exist_ok=True)
    seeds = tuple(range(args.first_seed, args.first_seed + args.seeds))
    for name in () if args.table or args.picture else args.names:
        problem = task(name)
        config = config_of(problem, args.steps)
        parts = [(seed,) for seed in seeds] if heron_host.is_host(problem) else [seeds]
        for label, part in itertools.product(args.designs, parts):
            mark = {"task": name, "design": label, "seeds": len(part), "first_seed": part[0]}
            records = read(args.out)
            if any(mark.items() <= record.items() for record in records):
                continue
            append(args.out, {**mark, **measure(label, problem, part, config, records), **provenance()})
            print(f"{name} {label} {part[0]} done", flush=True)
    records = read(args.out)
    if args.picture:
        draw(records, args.names, args.picture)
    table(records, args.names)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
