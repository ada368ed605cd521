"""Whole episodes of a policy, judged by the task's own reward, and what the reward it was trained on pays for them."""

import contextlib
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import numpy as np

from reward_design import envs
from reward_design._arguments import check_seed
from reward_design.agents import scoring
from reward_design.agents.collector import Collector
from reward_design.agents.host import MAX_STEPS
from reward_design.agents.policies import Planner, Policy
from reward_design.combinators import freeze_running
from reward_design.core import Output, Params, Reward, State, Transition
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv, device_dtype
from reward_design.experiments import designs
from reward_design.experiments.runs import Run
from reward_design.experiments.statistics import Estimate, bootstrap

MAX_LANES = 64
"""Episodes that are played side by side."""


class Evaluation(NamedTuple):
    """Arrays ``[episodes]``.

    Attributes:
        true_return: sum of the environment's own reward.
        shaped_return: sum of the reward that was given or trained on, or None without one.
        success: 1 where the task was achieved.
        length: steps.
    """

    true_return: np.ndarray
    shaped_return: np.ndarray | None
    success: np.ndarray
    length: np.ndarray

    def estimate(self, name: str) -> Estimate:
        """Interquartile mean over episodes with its 95 % bootstrap interval; of ``success`` the plain mean.

        Args:
            name: a field that is not None.

        Example:
            >>> played = Evaluation(np.arange(8.0), None, np.ones(8), np.full(8, 5.0))
            >>> float(played.estimate("true_return").value), float(played.estimate("success").value)
            (3.5, 1.0)
        """
        values = getattr(self, name)
        if values is None:
            raise ValueError(f"there is no {name}: no reward was given.")
        return bootstrap(values, np.mean) if name == "success" else bootstrap(values)


def evaluate(
    policy: Run | Policy | Planner | Callable[[Any], Any],
    *,
    task: Task | str | None = None,
    reward: Any = None,
    episodes: int = 32,
    seed: int = 0,
    deterministic: bool = True,
) -> Evaluation:
    """Play whole episodes.

    Episodes are played side by side and each lane plays the same number, so that short ones are not preferred.

    Args:
        policy: a run, a policy, a planner, or any function from a batch of observations to a batch of actions.
        task: where to play; by default the policy's own.
        reward: what to report as shaped return: a reward or a design; by default that of the run. Its running
            statistics are held fixed.
        episodes: how many.
        seed: of environments and samples.
        deterministic: the mode of the policy instead of samples.

    Returns:
        An :class:`Evaluation`.

    Raises:
        ValueError: for a number of episodes below 1, a seed below 0, or a policy that does not know its task where none
            is given.

    Example:
        >>> from reward_design.experiments import evaluate
        >>> right = evaluate(lambda obs: np.ones(len(obs), int), task="chain", reward="shaping", episodes=4)
        >>> right.true_return.tolist(), right.length.tolist()
        ([1.0, 1.0, 1.0, 1.0], [19.0, 19.0, 19.0, 19.0])
    """
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}.")
    check_seed(seed)
    task = _task(policy, task)
    scorer = scorer_of(policy, task, reward)
    act = policy.policy() if isinstance(policy, Run) else policy
    lanes = min(episodes, MAX_LANES)
    parts = []
    for first in range(0, episodes, lanes):
        if isinstance(act, Policy):
            act = Policy(act.agent, act.config, act.env, act.state, deterministic=deterministic, seed=seed + first)
        if isinstance(act, Planner):
            act.reset(seed + first)
        rows = play_lanes(task.env, act, lanes, seed + first)
        parts.append(judge(task.env, rows, None if scorer is None else scorer(rows)))
    return Evaluation._make(None if values is None else values[:episodes] for values in joined(parts))


def judge(env: FunctionalEnv | HostEnv, rows: Transition, output: Output | None) -> Evaluation:
    """Returns, success and length of the episodes ``[T, B]``; masked rows are no part of them."""
    mask, last = rows.mask, (rows.terminated | rows.truncated) & rows.mask
    paid = None if output is None else output.reward
    return Evaluation(
        np.where(mask, rows.reward, 0.0).sum(0, dtype=np.float64),
        None if paid is None else paid.sum(0, dtype=np.float64),
        (np.asarray(env.success(rows)) & last).sum(0).astype(np.float64),
        mask.sum(0).astype(np.float64),
    )


def joined(parts: Sequence[Evaluation]) -> Evaluation:
    """Episodes of several evaluations in one."""
    paid = [part.shaped_return for part in parts if part.shaped_return is not None]
    return Evaluation(
        np.concatenate([part.true_return for part in parts]),
        np.concatenate(paid) if paid else None,
        np.concatenate([part.success for part in parts]),
        np.concatenate([part.length for part in parts]),
    )


class Scorer:
    """What a reward pays for whole episodes, with its running statistics held fixed.

    Args:
        env: where they are played.
        reward: any reward.
        params: its parameters; by default its own.
        running: its running statistics; by default those of a new reward.
    """

    def __init__(
        self, env: FunctionalEnv | HostEnv, reward: Reward, *, params: Params = None, running: Any = None
    ) -> None:
        self.env, self.params, self.running = env, params, running
        self.reward = _frozen(reward)

    def __call__(self, rows: Transition) -> Output:
        """Reward and terms ``[T, B]`` of ``rows``, which hold one episode per lane."""
        length, lanes = rows.mask.shape
        padded = 1 << (length - 1).bit_length()  # few lengths, so that little is compiled
        rows = jax.tree.map(lambda x: np.concatenate([x, np.zeros((padded - length, *x.shape[1:]), x.dtype)]), rows)
        example = scoring.reward_example(self.env, lanes)
        rows = jax.tree.map(lambda x, like: x.astype(like.dtype), rows, example)
        output = _unroll(self.reward, self.params, self.running, example, rows)
        return jax.tree.map(lambda x: np.asarray(x[:length]), output)


def scorer_of(policy: Any, task: Task, reward: Any) -> Scorer | None:
    """The reward that was asked for, or that of the run as it was trained."""
    if reward is not None:
        return Scorer(task.env, designs.resolve(reward, task))
    if isinstance(policy, Run) and policy.reward is not None:
        return Scorer(task.env, policy.reward, params=policy.reward_params, running=policy.reward_running)
    return None


@lru_cache(maxsize=64)
def _frozen(reward: Reward) -> Reward:
    return freeze_running(reward)


@partial(jax.jit, static_argnums=0)
def _unroll(reward: Reward, params: Any, running: Any, example: Transition, rows: Transition) -> Output:
    own, state = reward.init(jax.random.key(0), example)
    state = State(state.episode, state.running if running is None else running, state.fresh)
    return reward.unroll(own if params is None else params, state, rows)[0]


# --- playing --------------------------------------------------------------------------------------------------------


def play_lanes(env: FunctionalEnv | HostEnv, act: Callable[[Any], Any], lanes: int, seed: int) -> Transition:
    """One episode per lane as NumPy arrays ``[T, B]``; rows after its end are masked."""
    steps = _host_steps(env, act, lanes, seed) if isinstance(env, HostEnv) else _device_steps(env, act, lanes, seed)
    rows, going = [], np.ones(lanes, bool)
    with contextlib.closing(steps):
        for row in steps:
            cut = len(rows) + 1 >= (env.horizon or MAX_STEPS)
            truncated = (row.truncated | cut) & ~row.terminated
            counts = going & row.mask if isinstance(env, HostEnv) else going  # not if a worker was lost at its start
            rows.append(row._replace(mask=counts, truncated=truncated))
            going = going & ~(row.terminated | truncated)
            if not going.any():
                break
    stacked = jax.tree.map(lambda *x: np.stack(x), *rows)
    return with_next_action(stacked, act)


def with_next_action(rows: Transition, act: Callable[[Any], Any]) -> Transition:
    """Add ``info["next_action"]``, as agents do: what is done next, and after the last step what would be done.

    A planner has no simulator to plan with after the last step; it is taken to repeat its last action.
    """
    ends = (rows.terminated | rows.truncated) & rows.mask
    last = np.argmax(ends, axis=0)
    at_end = jax.tree.map(lambda x: x[last, np.arange(x.shape[1])], rows.next_obs)
    following = np.concatenate([rows.action[1:], rows.action[-1:]])
    lanes = np.arange(len(last))
    following[last, lanes] = rows.action[last, lanes] if isinstance(act, Planner) else act(at_end)
    return rows._replace(info={**rows.info, "next_action": following})


def _device_steps(env: FunctionalEnv, act: Callable[[Any], Any], lanes: int, seed: int) -> Any:
    key = jax.random.key(seed)
    obs, state = jax.device_get(_reset(env, lanes, key))
    dtype = device_dtype(env.action_space.dtype or np.float32)
    for time in range(MAX_STEPS):
        action = np.asarray(act(obs)).astype(dtype)
        state, outcome = _step(env, key, time, state, action)
        next_obs, reward, terminated, truncated, info = jax.device_get(outcome)
        yield Transition(obs, action, next_obs, reward, terminated, truncated, (), info)
        obs = next_obs


@partial(jax.jit, static_argnums=(0, 1))
def _reset(env: FunctionalEnv, lanes: int, key: Any) -> Any:
    return jax.vmap(env.reset)(jax.random.split(key, lanes))


@partial(jax.jit, static_argnums=0)
def _step(env: FunctionalEnv, key: Any, time: Any, state: Any, action: Any) -> Any:
    keys = jax.random.split(jax.random.fold_in(key, time + 1), len(action))
    obs, state, *outcome = jax.vmap(env.step)(keys, state, action)
    return state, (obs, *outcome)


def _host_steps(env: HostEnv, act: Callable[[Any], Any], lanes: int, seed: int) -> Any:
    with contextlib.closing(env.vector(lanes)) as vector:
        collector = Collector(vector, env, 1, seed=seed)
        if isinstance(act, Planner):
            act.attach(vector)
        while True:
            row, _ = collector.collect(lambda obs, _: (act(obs), ()), np.random.default_rng(0))
            yield jax.tree.map(lambda x: x[0], row)


def _task(policy: Any, task: Any) -> Task:
    known = getattr(policy, "task", None) if task is None else task
    if known is None:
        raise ValueError("this policy does not know its task; give it: evaluate(policy, task=...).")
    return envs.task(known) if isinstance(known, str) else known
