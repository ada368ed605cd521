"""Rollouts from gymnasium vector environments, in every autoreset mode."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from reward_design.adapters._order import check_trained
from reward_design.adapters._spaces import lane_of
from reward_design.core import Transition
from reward_design.envs.host import HostEnv, map_space, numeric_zeros
from reward_design.envs.observations import amiss, not_finite, observed_amiss

HostPolicy = Callable[[Any, np.random.Generator], tuple[np.ndarray, Any]]
"""``(obs [B, ...], generator) -> (action [B, ...] for the environment, extras [B, ...])``, all NumPy."""


@dataclass(frozen=True)
class RecurrentPolicy:
    """A policy with memory.

    Attributes:
        initial_carry: ``num_envs -> carry``, leaves ``[B, ...]``.
        step: ``(obs, generator, carry, fresh) -> (action, extras, carry)``; where ``fresh [B]`` is true, an episode
            begins with this observation and the carry is forgotten first.
    """

    initial_carry: Callable[[int], Any]
    step: Callable[[Any, np.random.Generator, Any, np.ndarray], tuple[np.ndarray, Any, Any]]


class Collector:
    """Steps a vector environment and lays rollouts out as :class:`~reward_design.core.Transition` arrays ``[T, B]``.

    Autoreset modes: in ``SAME_STEP`` the successor of a lane that ended is ``info["final_obs"]``; in ``NEXT_STEP`` the
    row that resets a lane is no experience (mask False); in ``DISABLED`` lanes that ended are reset at once.

    What a worker that was lost did not step is no experience either: the row before it ends its episode (truncated),
    and a row with mask False and truncated True says that this episode does not count. Only in the first row of a
    rollout, where the one before is gone, such an episode ends with a row of reward 0 that leads to where it was.

    Args:
        envs: the vector environment; reset here.
        env: spaces, info entries.
        num_steps: length ``T`` of a rollout.
        seed: of the first reset.

    Attributes:
        faults: episodes that a worker or a simulator cut.
        lost: ``[B]`` lanes that a worker lost in the last step.

    Raises:
        ValueError: for a wrapper around ``envs`` that gives wrong numbers, or an observation that is not in its space.
    """

    def __init__(self, envs: VectorEnv, env: HostEnv, num_steps: int, *, seed: int | None = None) -> None:
        mode = getattr(envs.unwrapped, "autoreset_mode", None) or envs.metadata.get("autoreset_mode")
        self.mode = AutoresetMode(mode or AutoresetMode.NEXT_STEP)
        check_trained(envs, self.mode.name.lower())
        self.envs, self.env, self.num_steps = envs, env, num_steps
        self.faults, self.lost, self._steps = 0, np.zeros(envs.num_envs, bool), 0
        self._parts = map_space(lambda part: part, env.observation_space)
        self._ended, self._fresh = np.zeros(envs.num_envs, bool), np.ones(envs.num_envs, bool)
        self._carry: Any = None
        self.obs = self._as_obs(self._asked(envs.reset, seed=seed)[0])

    def collect(self, policy: HostPolicy | RecurrentPolicy, rng: np.random.Generator) -> tuple[Transition, Any]:
        """One rollout ``(trajectory, extras)``, in fresh arrays.

        Raises:
            ValueError: if an observation is not finite; tasks of this package end such episodes themselves.
        """
        rows, extras = self._blank(), []
        for t in range(self.num_steps):
            action, extra = self._act(policy, rng)
            _write(rows.obs, t, self.obs)
            obs, reward, terminated, truncated, infos = self._asked(self.envs.step, action)
            rows.mask[t] = ~self._ended
            began, self._fresh = self._fresh, terminated | truncated | self._ended
            rows.action[t], rows.reward[t] = action, reward
            rows.terminated[t], rows.truncated[t] = terminated, truncated & ~terminated
            self.obs = self._as_obs(obs)
            self._finish(rows, t, terminated | truncated, infos)
            if self.lost.any():
                _drop(rows, t, self.lost, began)
            extras.append(extra)
        for obs, before in ((rows.next_obs, self._steps), (rows.obs, self._steps - 1)):  # the latter has resets
            if (problem := not_finite(self.env.name, obs, before)) is not None:
                raise ValueError(problem)
        self._steps += self.num_steps
        return rows, jax.tree.map(lambda *steps: np.stack(steps), *extras)

    def _asked(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What a reset or step gives; an observation outside its space is named, since gymnasium's errors do not."""
        try:
            return call(*args, **kwargs)
        except (KeyError, ValueError, AssertionError) as error:
            if (problem := observed_amiss(self.env, self.envs)) is None:
                raise
            raise ValueError(problem) from error

    def _act(self, policy: HostPolicy | RecurrentPolicy, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        if not isinstance(policy, RecurrentPolicy):
            return policy(self.obs, rng)
        if self._carry is None:
            self._carry = policy.initial_carry(self.envs.num_envs)
        action, extra, self._carry = policy.step(self.obs, rng, self._carry, self._fresh)
        return action, extra

    def _finish(self, rows: Transition, t: int, ended: np.ndarray, infos: Mapping[str, Any]) -> None:
        """True successors and info of step ``t``, and what the autoreset mode asks for."""
        _write(rows.next_obs, t, self.obs)
        for name, values in rows.info.items():
            values[t] = self._info(infos, name, ended)
        self.lost = self._flag(infos, "worker_fault", ended)
        self.faults += int(np.sum(self.lost | self._flag(infos, "simulator_fault", ended)))
        if self.mode is AutoresetMode.NEXT_STEP:
            self._ended = ended
        elif ended.any() and self.mode is AutoresetMode.SAME_STEP:
            for lane in np.flatnonzero(ended).tolist():
                final = self._as_obs(lane_of(infos["final_obs"], lane))
                jax.tree.map(lambda into, value, lane=lane: into[t].__setitem__(lane, value), rows.next_obs, final)
        elif ended.any():
            self.obs = self._as_obs(self.envs.reset(options={"reset_mask": ended})[0])

    def _flag(self, infos: Mapping[str, Any], name: str, ended: np.ndarray) -> np.ndarray:
        """An entry of info that need not be there."""
        there = name in infos or name in infos.get("final_info", {})
        return np.asarray(self._info(infos, name, ended), bool) if there else np.zeros(len(ended), bool)

    def _info(self, infos: Mapping[str, Any], name: str, ended: np.ndarray) -> Any:
        final = infos.get("final_info", {})
        if name not in infos and name not in final:
            if self._ended.all():
                return 0
            raise ValueError(
                f"{self.env.name!r} needs the info entry {name!r} at every step, got {sorted(map(str, infos))}."
            )
        values = np.array(infos[name]) if name in infos else np.array(final[name])
        if name in final and ended.any():
            values[ended] = np.asarray(final[name])[ended]
        return values

    def _blank(self) -> Transition:
        lead = (self.num_steps, self.envs.num_envs)
        zeros = partial(numeric_zeros, self.env.observation_space)
        example = self.env.example().info
        return Transition(
            obs=zeros(*lead),
            action=numeric_zeros(self.env.action_space, *lead),
            next_obs=zeros(*lead),
            reward=np.zeros(lead, np.float32),
            terminated=np.zeros(lead, bool),
            truncated=np.zeros(lead, bool),
            mask=np.zeros(lead, bool),
            info={name: np.zeros((*lead, *value.shape[1:]), value.dtype) for name, value in example.items()},
        )

    def _as_obs(self, obs: Any) -> Any:
        """The numeric parts of an observation, in the structure of the space."""
        try:
            return _cast(self._parts, obs)
        except KeyError:
            raise ValueError(amiss(self.env.name, self.env.observation_space, obs)) from None


def _drop(rows: Transition, t: int, lost: np.ndarray, began: np.ndarray) -> None:
    """Take row ``t`` out of the lanes that a worker lost; ``began`` says where it would have begun an episode."""
    for lane in np.flatnonzero(lost).tolist():
        if began[lane]:
            rows.mask[t, lane] = rows.truncated[t, lane] = False
        elif t > 0:
            rows.truncated[t - 1, lane], rows.mask[t, lane] = True, False
            rows.reward[t - 1, lane] += rows.reward[t, lane]  # what a wrapper still owed


def _cast(parts: Any, obs: Any) -> Any:
    if isinstance(parts, dict):
        return {name: _cast(part, obs[name]) for name, part in parts.items()}
    if isinstance(parts, tuple):
        return tuple(_cast(part, value) for part, value in zip(parts, obs, strict=True))
    return np.asarray(obs)


def _write(into: Any, t: int, values: Any) -> None:
    if isinstance(into, np.ndarray):
        into[t] = values
        return
    jax.tree.map(lambda rows, value: rows.__setitem__(t, value), into, values)
