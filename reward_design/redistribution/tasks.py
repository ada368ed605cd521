"""Dense tasks made into tasks with a delayed reward, to see whether a method finds out who earned it."""

import dataclasses
import numbers
from typing import Any, NamedTuple

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import VectorEnv, VectorWrapper
from jaxtyping import Array

from reward_design.combinators import environment_reward
from reward_design.constructors import pointwise
from reward_design.core import Reward, Transition
from reward_design.envs.base import FunctionalEnv, Tabular, Task
from reward_design.envs.host import HostEnv

HIDDEN = "hidden_reward"
"""The info entry with what the task itself would have paid in a step."""


def delayed_reward(task: Task, *, every: int | None = None) -> Task:
    """The task with its reward paid late: the sum of an episode at its end, terminated or truncated.

    Returns do not change, so ``true_return`` of the two tasks can be compared.

    Args:
        task: any task; on the device, or on the host.
        every: also pay what is due after every n steps; None pays at the end of the episode alone.

    Returns:
        A task of the same name with ``delayed/`` before it. Its ``sparse_reward`` is what it pays, its ``dense_reward``
        what the task itself would have paid, which is in the info as ``hidden_reward``.

    Raises:
        ValueError: if ``every`` is below 1, or no whole number.

    Example:
        >>> from reward_design.envs import task
        >>> from reward_design.redistribution import delayed_reward
        >>> delayed_reward(task("pendulum"), every=20).name
        'delayed/pendulum'
    """
    if not isinstance(task, Task):
        hint = f"task({task!r})" if isinstance(task, str) else "reward_design.envs.task or task_from_gymnasium"
        raise TypeError(f"delayed_reward expects a task, got {task!r}; make one with {hint}.")
    if every is not None and (isinstance(every, bool) or not isinstance(every, numbers.Integral) or every < 1):
        raise ValueError(
            f"every must be a whole number of at least 1, or None for the end of the episode, got {every!r}."
        )
    env = _DelayedHost(task.env, every) if isinstance(task.env, HostEnv) else _Delayed(task.env, every)
    when = "at the end of the episode" if every is None else f"after every {every} steps and at the end of the episode"
    return dataclasses.replace(
        task, name=env.name, env=env, true_reward=environment_reward(), sparse_reward=environment_reward(),
        dense_reward=hidden_reward(),
        description=f"{task.description} All of this is paid {when}, as a sum; nothing is paid before.",
    )  # fmt: skip


def hidden_reward() -> Reward:
    """What the task of :func:`delayed_reward` would have paid: r_t = info["hidden_reward"].

    Keeps the optimal policy: only if gamma is 1; it is the reward of the task as it was.

    Returns:
        A :class:`reward_design.Reward` of kind ``POINTWISE``.
    """
    return pointwise("hidden_reward", lambda t: jnp.asarray(t.info[HIDDEN], jnp.float32))


class _Owing(NamedTuple):
    inner: Any
    owed: Array
    time: Array


class _Delayed(FunctionalEnv):
    """A functional environment that pays late."""

    def __init__(self, env: FunctionalEnv, every: int | None) -> None:
        self.env, self.every = env, every
        self.name = f"delayed/{env.name}"
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.horizon, self.gamma = env.horizon, env.gamma
        self.render_modes, self.render_fps = env.render_modes, env.render_fps

    def _reset(self, key: Any) -> tuple[Any, _Owing]:
        obs, inner = self.env._reset(key)
        return obs, _Owing(inner, jnp.float32(0), jnp.int32(0))

    def _step(self, key: Any, inner: _Owing, action: Any) -> Any:
        obs, state, reward, terminated, info = self.env._step(key, inner.inner, action)
        reward = jnp.asarray(reward, jnp.float32)
        owed, time = inner.owed + reward, inner.time + 1
        due = terminated | (time >= self.horizon) | (False if self.every is None else time % self.every == 0)
        paid = jnp.where(due, owed, 0.0)
        return obs, _Owing(state, owed - paid, time), paid, terminated, {**info, HIDDEN: reward}

    def success(self, transition: Transition) -> Any:
        return self.env.success(transition._replace(reward=transition.info[HIDDEN]))

    def render(self, state: Any, obs: Any) -> Any:
        return self.env.render(state._replace(inner=state.inner.inner), obs)

    def render_text(self, state: Any) -> str:
        return self.env.render_text(state._replace(inner=state.inner.inner))

    def tabular(self) -> Tabular:
        raise TypeError(
            f"{self.name!r} pays for the past, so its reward is no function of state and action; take the model of "
            f"{self.env.name!r}."
        )


class _DelayedHost(HostEnv):
    """An environment of the host that pays late."""

    def __init__(self, env: HostEnv, every: int | None) -> None:
        self.env, self.every = env, every
        self.name = f"delayed/{env.name}"
        self.observation_space, self.action_space = env.observation_space, env.action_space
        self.horizon, self.gamma = env.horizon, env.gamma
        self.info = {**env.info, HIDDEN: ((), np.float32)}

    def make(self, *, render_mode: str | None = None) -> gymnasium.Env:
        return _DelayedSingle(self.env.make(render_mode=render_mode), self.every)

    def vector(self, num_envs: int, *, seed: int | None = None) -> VectorEnv:
        envs = self.env.vector(num_envs, seed=seed)
        vars(envs.unwrapped)["host_env"] = self  # what agents read to know the info of the environment
        return _DelayedVector(envs, self.every)

    def success(self, transition: Transition) -> Any:
        return self.env.success(transition._replace(reward=transition.info[HIDDEN]))


class _DelayedSingle(gymnasium.Wrapper):
    def __init__(self, env: gymnasium.Env, every: int | None) -> None:
        super().__init__(env)
        self._every, self._owed, self._time = every, 0.0, 0

    def reset(self, **kwargs: Any) -> Any:
        self._owed, self._time = 0.0, 0
        return super().reset(**kwargs)

    def step(self, action: Any) -> Any:
        obs, reward, terminated, truncated, info = super().step(action)
        self._owed, self._time = self._owed + float(reward), self._time + 1
        due = terminated or truncated or (self._every is not None and self._time % self._every == 0)
        paid = self._owed if due else 0.0
        self._owed -= paid
        return obs, paid, terminated, truncated, {**info, HIDDEN: float(reward)}


class _DelayedVector(VectorWrapper):
    """For autoreset mode SAME_STEP, in which every row is experience."""

    def __init__(self, envs: VectorEnv, every: int | None) -> None:
        super().__init__(envs)
        self._every = every
        self._owed, self._time = np.zeros(envs.num_envs), np.zeros(envs.num_envs, int)

    def reset(self, **kwargs: Any) -> Any:
        lanes = (kwargs.get("options") or {}).get("reset_mask", np.ones(self.num_envs, bool))
        self._owed[lanes], self._time[lanes] = 0.0, 0
        return super().reset(**kwargs)

    def step(self, actions: Any) -> Any:
        obs, reward, terminated, truncated, infos = super().step(actions)
        self._owed, self._time = self._owed + reward, self._time + 1
        ended = terminated | truncated
        due = ended | (False if self._every is None else self._time % self._every == 0)
        paid = np.where(due, self._owed, 0.0)
        self._owed = self._owed - paid
        self._time = np.where(ended, 0, self._time)
        return obs, paid, terminated, truncated, {**infos, HIDDEN: np.asarray(reward, np.float32)}
