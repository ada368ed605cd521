"""What training an agent of stable-baselines3 or sbx needs around it: environment and metrics."""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from reward_design._optional import require
from reward_design.adapters.sb3 import GymnasiumVecEnv, VecRewardWrapper
from reward_design.agents import sb3_spaces
from reward_design.core import Reward, Transition
from reward_design.envs.base import Task

if TYPE_CHECKING:
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
else:
    BaseCallback = require("stable_baselines3.common.callbacks", "sb3", "stable-baselines3 agents").BaseCallback
    _vec_env = require("stable_baselines3.common.vec_env", "sb3", "stable-baselines3 agents")
    VecEnv, VecEnvWrapper, VecNormalize = _vec_env.VecEnv, _vec_env.VecEnvWrapper, _vec_env.VecNormalize


def environment(
    agent: Any,
    config: Any,
    task: Task,
    reward: Reward | None,
    seed: int,
    *,
    moments: VecNormalize | None = None,
    longest: int | None = None,
) -> tuple[VecEnv, "EpisodeLog"]:
    """The environment that an agent learns on, and the wrapper in it that counts episodes.

    Args:
        agent: a :class:`reward_design.agents.sb3.SB3Agent`.
        config: its settings.
        task: the task.
        reward: paid to the agent; None for the environment's own, with observations scaled as in ``moments``.
        seed: of the reward.
        moments: running moments of training, which evaluation leaves as they are.
        longest: see :class:`EpisodeLog`.
    """
    venv: VecEnv = GymnasiumVecEnv(task.vector(config.num_envs))
    if reward is not None:
        venv = VecRewardWrapper(venv, reward, seed=seed, info_keys=tuple(task.example.info))
    venv = log = EpisodeLog(venv, task, None if reward is None else config.steps_per_update, longest)
    if agent.view(config, venv.observation_space)[1]:
        venv = FlatObs(venv)
    if reward is not None and (config.normalise_obs or config.normalise_reward):
        venv = VecNormalize(
            venv, norm_obs=config.normalise_obs, norm_obs_keys=_scalable(venv.observation_space),
            norm_reward=config.normalise_reward, gamma=config.gamma,
        )  # fmt: skip
    if moments is not None:
        venv = VecNormalize(
            venv, training=False, norm_obs=moments.norm_obs, norm_obs_keys=moments.norm_obs_keys, norm_reward=False
        )
        venv.obs_rms = moments.obs_rms
    return venv, log


def _scalable(space: spaces.Space) -> list[str] | None:
    """The parts of a dictionary that running moments make sense for."""
    if not isinstance(space, spaces.Dict):
        return None
    return [name for name, part in space.items() if isinstance(part, spaces.Box) and part.dtype != np.uint8]


class EpisodeLog(VecEnvWrapper):
    """Counts episodes, and makes rows of metrics of those that ended.

    Args:
        venv: pays what the agent gets.
        task: for its success.
        steps_per_row: environment steps; None makes no rows.
        longest: steps after which an episode counts as ended, although the environment goes on; None for no such limit.

    Attributes:
        rows: of metrics; means as in :class:`reward_design.agents.base.TrainResult`.
        episodes: ``(lane, totals)`` of the episodes that ended since the last row.
    """

    def __init__(self, venv: VecEnv, task: Task, steps_per_row: int | None, longest: int | None = None) -> None:
        super().__init__(venv)
        self.longest = longest
        self.task, self.steps_per_row = task, steps_per_row
        self.rows: list[dict[str, float]] = []
        self.episodes: list[tuple[int, dict[str, float]]] = []
        self._sums: dict[str, np.ndarray] = {}
        self._num_steps, self._faults, self._obs, self._actions = 0, 0, None, None

    def reset(self) -> Any:
        """Start anew; rows stay."""
        self._obs, self._sums = self.venv.reset(), {}
        return self._obs

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions for the success predicate."""
        self._actions = actions
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Add the step to the totals of its episodes."""
        obs, rewards, dones, infos = self.venv.step_wait()
        true = np.array([info.get("env_reward", reward) for info, reward in zip(infos, rewards, strict=True)])
        signals = {"shaped_return": rewards, "true_return": true, "length": np.ones(self.num_envs)}
        for name in infos[0].get("reward_terms", ()):
            signals[f"term/{name}"] = np.array([info["reward_terms"][name] for info in infos])
        for name, signal in signals.items():
            self._sums[name] = self._sums.get(name, 0.0) + signal.astype(float)
        ended = dones if self.longest is None else dones | (self._sums["length"] >= self.longest)
        if ended.any():
            self._end(ended, self._success(obs, true, dones, ended, infos))
        self._obs = obs
        self._num_steps += self.num_envs
        self._faults += sum(bool(info.get("simulator_fault") or info.get("worker_fault")) for info in infos)
        if self.steps_per_row and self._num_steps % self.steps_per_row == 0:
            self._row()
        return obs, rewards, dones, infos

    def _end(self, dones: np.ndarray, success: np.ndarray) -> None:
        for lane in np.flatnonzero(dones).tolist():
            totals = {name: float(sums[lane]) for name, sums in self._sums.items()}
            self.episodes.append((lane, totals | {"success": float(success[lane])}))
        for sums in self._sums.values():
            sums[dones] = 0.0

    def _success(
        self, obs: Any, rewards: np.ndarray, dones: np.ndarray, ended: np.ndarray, infos: Sequence[Mapping[str, Any]]
    ) -> Any:
        next_obs = jax.tree.map(np.copy, obs)
        for lane in np.flatnonzero(dones).tolist():
            _write(next_obs, lane, infos[lane]["terminal_observation"])
        truncated = dones & [info["TimeLimit.truncated"] for info in infos]
        names = self.task.example.info
        transition = Transition(
            obs=self._obs, action=self._actions, next_obs=next_obs, reward=rewards.astype(np.float32),
            terminated=dones & ~truncated, truncated=truncated | (ended & ~dones), mask=np.ones(self.num_envs, bool),
            info={name: np.stack([info[name] for info in infos]) for name in names},
        )  # fmt: skip
        like = jax.tree.map(lambda x, known: jnp.asarray(x, known.dtype), transition, self.task.example)
        return np.asarray(self.task.success(like))

    def _row(self) -> None:
        before = self.rows[-1] if self.rows else {}
        names = [*self._sums, "success"]
        ended = [totals for _, totals in self.episodes]
        self.episodes.clear()
        means = {
            name: float(np.mean([totals[name] for totals in ended])) if ended else before.get(name, float("nan"))
            for name in names
        }
        counts = {"episodes": len(ended), "env_steps": self._num_steps, "faults": self._faults}
        self.rows.append(means | {name: float(count) for name, count in counts.items()})


class FlatObs(VecEnvWrapper):
    """Observations as one vector, discrete parts one-hot, for policies that read nothing else."""

    def __init__(self, venv: VecEnv) -> None:
        self._space = venv.observation_space
        size = spaces.flatdim(self._space)
        super().__init__(venv, observation_space=spaces.Box(-np.inf, np.inf, (size,), np.float32))

    def reset(self) -> np.ndarray:
        """Reset all lanes."""
        return self._flat(self.venv.reset())

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Receive the steps."""
        obs, rewards, dones, infos = self.venv.step_wait()
        for info in infos:
            if "terminal_observation" in info:
                info["terminal_observation"] = self._one(info["terminal_observation"])
        return self._flat(obs), rewards, dones, infos

    def _flat(self, obs: Any) -> np.ndarray:
        return sb3_spaces.flattened(self._space, obs)

    def _one(self, obs: Any) -> np.ndarray:
        return np.asarray(spaces.flatten(self._space, obs), np.float32)


class Watch(BaseCallback):
    """Reports rows of metrics.

    Args:
        log: makes the rows.
        on_update: see :func:`reward_design.agents.sb3.train`.
    """

    def __init__(self, log: EpisodeLog, on_update: Callable[[int, Mapping[str, float]], None] | None):
        super().__init__()
        self.log, self.on_update, self.reported = log, on_update, 0

    def _on_step(self) -> bool:
        if self.on_update is not None and len(self.log.rows) > self.reported:
            self.reported = len(self.log.rows)
            self.on_update(self.reported, self.log.rows[-1])
        return True


def _write(into: Any, lane: int, value: Any) -> None:
    jax.tree.map(lambda rows, part: rows.__setitem__(lane, part), into, value)
