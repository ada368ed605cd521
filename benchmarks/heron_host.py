"""What benchmarks/heron.py does on environments of the host (MuJoCo): random play, training, judging.

The functions have the arguments and results of those of the same name there. Runs go one after another, with the
settings that benchmarks/redistribution.py uses for MuJoCo, and are judged by one episode in each of 8 lanes.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from heron_rankings import factors_of, first_episodes
from redistribution import MUJOCO as SETTINGS

import reward_design as rd
from reward_design.agents import base, ppo
from reward_design.agents.collector import Collector, HostPolicy, RecurrentPolicy
from reward_design.agents.host import train_host_seeds
from reward_design.envs import Task
from reward_design.envs.host import HostEnv

__all__ = ["SETTINGS", "is_host", "judged", "judged_ensemble", "played", "random_values", "trained"]

EPISODES, RANDOM_EPISODES = 8, 64
"""Episodes that judge a run, and episodes of random actions that give margins their unit."""


def is_host(problem: Task) -> bool:
    """Whether the task is stepped on the host."""
    return isinstance(problem.env, HostEnv)


def played(
    problem: Task, policy: HostPolicy | RecurrentPolicy, key: Any, num_episodes: int = EPISODES
) -> tuple[np.ndarray, np.ndarray]:
    """Factors ``[num_episodes, L]`` and true returns ``[num_episodes]`` of one episode per lane."""
    assert isinstance(problem.env, HostEnv)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    envs = problem.vector(num_episodes)
    try:
        collector = Collector(envs, problem.env, problem.horizon, seed=int(rng.integers(2**31)))
        trajectory, _ = collector.collect(policy, rng)
    finally:
        envs.close()
    values, returns = first_episodes(factors_of(problem), trajectory)
    return np.asarray(values), np.asarray(returns)


def random_values(problem: Task, key: Any) -> np.ndarray:
    """Factors ``[RANDOM_EPISODES, L]`` of episodes of random actions."""
    space: Any = problem.env.action_space

    def act(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        return rng.uniform(space.low, space.high, (len(obs), *space.shape)).astype(space.dtype), ()

    return played(problem, act, key, RANDOM_EPISODES)[0]


def trained(problem: Task, config: Any, reward: rd.Reward, seeds: Sequence[int], params: Any = None) -> Any:
    """One run per seed; with ``params [C, ...]`` one per entry and seed, leading axes ``[C, N]``."""
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    if params is None:
        return train_host_seeds(ppo.AGENT, config, problem, reward, keys)
    results = []
    for c in range(len(jax.tree.leaves(params)[0])):
        own = jax.tree.map(lambda x, c=c: x[c], params)
        results.append(train_host_seeds(ppo.AGENT, config, problem, reward, keys, reward_params=own))
    metrics = {name: np.stack([r.metrics[name] for r in results]) for name in results[0].metrics}
    return base.TrainResult(jax.tree.map(lambda *leaves: jnp.stack(leaves), *[r.state for r in results]), metrics)


def judged(problem: Task, config: Any, states: Any, keys: Any) -> tuple[np.ndarray, np.ndarray]:
    """Mean factors ``[N, L]`` and true returns ``[N]`` of runs."""
    return _means(problem, [mode(problem, config, _nth(states, i)) for i in range(len(keys))], keys)


def judged_ensemble(problem: Task, config: Any, states: Any, keys: Any) -> tuple[np.ndarray, np.ndarray]:
    """The same for the mean action of policies ``[L, N]`` that learned a factor each."""

    def ensemble(i: int) -> HostPolicy:
        members = [mode(problem, config, _nth(_nth(states, level), i)) for level in range(len(factors_of(problem)))]
        return lambda obs, rng: (np.mean([member(obs, rng)[0] for member in members], axis=0), ())

    return _means(problem, [ensemble(i) for i in range(len(keys))], keys)


def _means(problem: Task, policies: Sequence[Any], keys: Any) -> tuple[np.ndarray, np.ndarray]:
    runs = [played(problem, policy, key) for policy, key in zip(policies, keys)]
    return np.stack([values.mean(axis=0) for values, _ in runs]), np.array([returns.mean() for _, returns in runs])


def mode(problem: Task, config: Any, state: Any) -> Any:
    assert ppo.AGENT.host_policy is not None
    return ppo.AGENT.host_policy(config, problem.env, state, deterministic=True)


def _nth(states: Any, i: int) -> Any:
    return jax.tree.map(lambda x: x[i], states)
