"""Training on environments that are stepped on the host: a gymnasium vector environment between jitted updates."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
from gymnasium.vector import VectorEnv

from reward_design.agents import base, scoring
from reward_design.agents.collector import Collector
from reward_design.core import Reward
from reward_design.envs.base import Task
from reward_design.envs.host import HostEnv, SpacesOnly

MAX_LOSSES = 10
"""Episodes per lane that an evaluation may lose with their workers."""
MAX_STEPS = 10_000
"""Steps after which an episode is cut that is only played, where the environment has no time limit."""


def train_host(
    agent: base.Agent,
    config: Any,
    envs: Any,
    reward: Reward,
    key: Any,
    *,
    env: HostEnv | None = None,
    reward_params: Any = None,
    overlap: bool = False,
    state: Any = None,
    num_updates: int | None = None,
    on_update: Callable[[int, Mapping[str, Any], Any], None] | None = None,
) -> base.TrainResult:
    """Train ``agent`` on a vector environment; what the ``train_host`` of every agent does.

    Args:
        agent: an agent with ``improve`` and ``host_policy``.
        config: settings; ``num_envs`` is taken from ``envs``.
        envs: a gymnasium vector environment in any autoreset mode.
        reward: the reward to learn from.
        key: random key of networks, exploration and environments.
        env: the task's environment, for its info entries and its success; by default the one that made ``envs``.
        reward_params: parameters of the reward, if not its own initial ones.
        overlap: step the environments with the policy of one iteration ago while the update runs elsewhere: faster on
            two cores and more.
        state: state to go on from, whose buffers are reused (copy it to keep it); the environments start new episodes.
        num_updates: updates of this call; by default what is left of the run.
        on_update: called with the number of updates done, their metrics and the state, which is only valid during the
            call (its buffers are reused); with ``overlap`` after the next rollout.

    Returns:
        Final state and metrics ``[num_updates]``, with ``faults``: episodes that a worker or simulator has cut in this
        call; those that a worker lost are in no other metric (but where its step was the first of a rollout).

    Raises:
        TypeError: for an agent that only runs on the device, and spaces or a kind of reward that it cannot serve.
        ValueError: if the reward discounts with another gamma, a replay does not fit into memory, or the environment
            lacks an entry of its info or observation.
        NonFiniteRewardError: naming reward, term and step; with ``overlap`` after one more rollout.
    """
    if not isinstance(envs, VectorEnv):
        hint = f"task.vector({config.num_envs})" if isinstance(envs, Task) else "gymnasium.make_vec"
        raise TypeError(f"expected a gymnasium VectorEnv, got {type(envs).__name__}; make one with {hint}.")
    base.check_key(key)
    env = described(envs) if env is None else env
    base.check_fits(agent, config, env, reward)
    assert agent.host_policy is not None
    config = replace(config, num_envs=envs.num_envs)
    init_key, seed_key = jax.random.split(key)
    new_run = state is None
    state = _init(agent, env, reward, config, init_key, reward_params) if new_run else _with_new_episodes(state)
    rng = np.random.default_rng(np.asarray(jax.random.key_data(jax.random.fold_in(seed_key, state.num_updates))))
    collector = Collector(envs, env, config.steps_per_update // envs.num_envs, seed=int(rng.integers(2**31)))
    start = int(state.num_updates)
    policy = agent.host_policy(config, env, state)
    history, told = [], start

    def tell() -> None:
        """Fetch the newest metrics (many updates of few steps would hold many small buffers) and report them."""
        nonlocal told
        history[-1] = jax.device_get(history[-1])
        if on_update is not None and told < start + len(history):
            told = start + len(history)
            on_update(told, history[-1], state)

    for _ in range(start, config.num_updates if num_updates is None else start + num_updates):
        trajectory, extras = collector.collect(policy, rng)
        if overlap:  # the policy from before this rollout; waits for the update that ran beside the collection
            policy = agent.host_policy(config, env, state)
            if int(state.fault.step) >= 0:
                break
        if history:
            tell()
        state, metrics = _improve(agent, env, reward, config, state, trajectory, extras)
        if not overlap:
            policy = agent.host_policy(config, env, state)
            if int(state.fault.step) >= 0:
                break
        history.append({**metrics, "faults": np.float32(collector.faults)})
        if on_update is not None and not overlap:
            tell()
    scoring.raise_on_fault(state.fault, env, reward)
    if history:
        tell()
    metrics = {name: np.stack([row[name] for row in history]) for name in history[0]} if history else {}
    return base.TrainResult(state, metrics)


def train_host_seeds(
    agent: base.Agent,
    config: Any,
    task: Task,
    reward: Reward,
    keys: Any,
    *,
    reward_params: Any = None,
    on_update: Callable[[float, int, Mapping[str, Any]], None] | None = None,
) -> base.TrainResult:
    """Train one run per key on a task of the host, one after another.

    Args:
        agent: the agent.
        config: its settings.
        task: a task of a :class:`~reward_design.envs.host.HostEnv`.
        reward: the reward to train on.
        keys: ``[num_seeds]`` random keys.
        reward_params: parameters of the reward, shared by all seeds; by default each seed initialises its own.
        on_update: called with the updates done, as a mean over all seeds, the index of the run and its last metrics.

    Returns:
        A :class:`~reward_design.agents.base.TrainResult` with leading axis ``num_seeds``.
    """
    results = []
    for i in range(len(keys)):
        envs = task.vector(config.num_envs)

        def tick(updates: int, metrics: Mapping[str, Any], _: Any, seed: int = i) -> None:
            if on_update is not None:
                on_update((seed * config.num_updates + updates) / len(keys), seed, metrics)

        try:
            results.append(
                train_host(agent, config, envs, reward, keys[i], reward_params=reward_params, on_update=tick)
            )
        finally:
            envs.close()
    metrics = {name: np.stack([r.metrics[name] for r in results]) for name in results[0].metrics}
    return base.TrainResult(jax.tree.map(lambda *leaves: jax.numpy.stack(leaves), *[r.state for r in results]), metrics)


def evaluate_host(
    agent: base.Agent,
    config: Any,
    envs: VectorEnv,
    state: Any,
    *,
    num_episodes: int = 32,
    deterministic: bool = True,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Play whole episodes, judged by the environment's own reward.

    The first ``ceil(num_episodes / num_envs)`` episodes of every lane count, so that short ones are not preferred. An
    episode without a time limit that has not ended after ``MAX_STEPS`` counts as it is then; one that a worker lost
    does not count.

    Args:
        agent: the agent.
        config: its settings.
        envs: a vector environment in mode ``SAME_STEP`` or ``DISABLED``.
        state: state of one run.
        num_episodes: at least this many episodes.
        deterministic: the mode of the policy instead of samples.
        seed: of environments and exploration.

    Returns:
        ``true_return``, ``success`` and ``length`` per episode.

    Raises:
        RuntimeError: if more than ``MAX_LOSSES`` episodes per lane are lost with their workers.
    """
    assert agent.host_policy is not None
    env = described(envs)
    policy = agent.host_policy(config, env, state, deterministic=deterministic)
    rng = np.random.default_rng(seed)
    collector = Collector(envs, env, 1, seed=seed)
    quota = np.full(envs.num_envs, -(-num_episodes // envs.num_envs))
    total, length = np.zeros(envs.num_envs), np.zeros(envs.num_envs)
    limit = max(env.horizon or 0, MAX_STEPS)
    losses, played = 0, {"true_return": [], "success": [], "length": []}
    while (quota > 0).any():
        rows, _ = collector.collect(policy, rng)
        total += np.where(rows.mask[0], rows.reward[0], 0.0)
        length += rows.mask[0]
        over = ((rows.terminated | rows.truncated)[0] | (length >= limit)) & ~collector.lost & rows.mask[0]
        achieved = np.asarray(env.success(rows))[0] if over.any() else over
        for lane in np.flatnonzero(over).tolist():
            if quota[lane] > 0:
                for name, value in (("true_return", total), ("success", achieved), ("length", length)):
                    played[name].append(float(value[lane]))
            quota[lane] -= 1
            total[lane] = length[lane] = 0
        total[collector.lost] = length[collector.lost] = 0
        losses += int(collector.lost.sum())
        if losses > MAX_LOSSES * envs.num_envs:
            raise RuntimeError(
                f"{env.name!r}: {losses} episodes of an evaluation were lost with their workers; the warnings say why."
            )
    return {name: np.asarray(values, np.float32) for name, values in played.items()}


def described(envs: VectorEnv) -> HostEnv:
    """The :class:`HostEnv` that made ``envs``, or its spaces; always the same, so that nothing compiles twice."""
    known = getattr(envs.unwrapped, "host_env", None) or envs.__dict__.get("_host_env")
    if known is None:
        known = envs.__dict__["_host_env"] = SpacesOnly(envs)
    return known


def _with_new_episodes(state: Any) -> Any:
    """A state whose environments start anew: no return so far, and the reward remembers nothing of an episode."""
    remembered = state.reward_state._replace(episode=jax.tree.map(jax.numpy.array, state.reward_state.fresh))
    sums = jax.tree.map(jax.numpy.zeros_like, state.lanes.sums)
    return state._replace(reward_state=remembered, lanes=state.lanes._replace(sums=sums))


@partial(jax.jit, static_argnums=(0, 1, 2), compiler_options=base.ONCE)
def _init(agent: base.Agent, env: HostEnv, reward: Reward, config: Any, key: Any, reward_params: Any) -> Any:
    return agent.init(config, env, reward, key, reward_params)


@partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _improve(
    agent: base.Agent, env: HostEnv, reward: Reward, config: Any, state: Any, trajectory: Any, extras: Any
) -> tuple[Any, Mapping[str, Any]]:
    assert agent.improve is not None
    return agent.improve(config, env, reward, state, trajectory, extras)
