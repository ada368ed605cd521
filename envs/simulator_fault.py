"""A single simulated environment whose episode ends when the simulator loses it."""

import math
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs

from reward_design.envs.mujoco_gl import prepare

LOST = slice(3, 6)
"""MuJoCo's warnings that mean a lost simulation: bad position, velocity, acceleration."""


class SimulatorFault(gymnasium.Wrapper, RecordConstructorArgs):
    """Ends an episode in which a simulator gives NaN, or MuJoCo had to reset itself, as the vector environments do.

    Such a step has terminated False, truncated True, reward 0, the observation before it, numbers in ``info`` 0 and
    ``info["simulator_fault"]`` True.

    Args:
        env: any environment; of MuJoCo's the state of the simulator is watched as well.
        always: other steps say ``info["simulator_fault"]``, too (False).

    Raises:
        ValueError: from ``step``, for an action that is not finite; from ``reset``, for such an observation.
        ResetNeeded: from ``step`` of a copy of a MuJoCo environment, or of one restored from a pickle, before its first
            ``reset``.
        ImportError: from ``render``, where there is no OpenGL to draw MuJoCo with; with what to install.
    """

    def __init__(self, env: gymnasium.Env, *, always: bool = True) -> None:
        RecordConstructorArgs.__init__(self, always=always)
        super().__init__(env)
        self._always, self._copied, self._drawable = always, False, False
        self._mujoco = _has_mujoco(env)
        self._real_actions = not isinstance(env.action_space, spaces.Discrete)

    def __setstate__(self, held: dict[str, Any]) -> None:
        vars(self).update(held)
        self._copied = self._mujoco  # gymnasium copies MuJoCo by its settings, so that the episode is lost

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(**kwargs)
        if not _finite(obs):
            name = self.spec.id if self.spec else type(self.unwrapped).__name__
            raise ValueError(f"{name!r}: the observation of a reset is not finite: {obs}.")
        self._obs, self._copied = _kept(obs), False
        return obs, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and end the episode after a fault."""
        if self._real_actions and not _finite(action):
            raise ValueError(f"actions must be finite, got {action}.")
        if self._copied:
            raise ResetNeeded("a copy of a MuJoCo environment does not keep its episode; call reset before step.")
        obs, reward, terminated, truncated, info = self.env.step(action)
        if (self._mujoco and self._lost()) or not (_finite(reward) and _finite(obs)):
            info = {name: _blank(value) for name, value in info.items()}
            return self._obs, 0.0, False, True, {**info, "simulator_fault": True}
        self._obs = _kept(obs)
        if self._mujoco:  # gymnasium hands out views of the simulator's state
            info = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in info.items()}
            reward = float(reward)
        return obs, reward, terminated, truncated, {**info, "simulator_fault": False} if self._always else info

    def render(self) -> Any:
        """A picture; chooses an OpenGL for MuJoCo where none is chosen."""
        if not self._drawable and self.render_mode not in (None, "human"):
            if (missing := prepare(self.env)) is not None:
                raise ImportError(missing)
            self._drawable = True
        return self.env.render()

    def _lost(self) -> bool:
        data: Any = self.env.unwrapped.data  # pyright: ignore[reportAttributeAccessIssue]
        return bool((data.warning.number[LOST] > 0).any()) or not _finite((data.qpos, data.qvel))


def _has_mujoco(env: gymnasium.Env) -> bool:
    return type(getattr(env.unwrapped, "data", None)).__name__ == "MjData"


def _kept(obs: Any) -> Any:
    """A copy; environments may write the next observation into the same array."""
    if isinstance(obs, np.ndarray):
        return obs.copy()
    if isinstance(obs, dict):
        return {name: _kept(part) for name, part in obs.items()}
    return tuple(map(_kept, obs)) if isinstance(obs, tuple) else obs


def _finite(tree: Any) -> bool:
    if isinstance(tree, np.ndarray):
        return tree.dtype.kind not in "fc" or bool(np.logical_and.reduce(np.isfinite(tree), None))
    if isinstance(tree, (dict, tuple, list)):
        return all(map(_finite, tree.values() if isinstance(tree, dict) else tree))
    if isinstance(tree, (float, np.floating)):
        return math.isfinite(tree)
    return not hasattr(tree, "__array__") or isinstance(tree, np.generic) or _finite(np.asarray(tree))


def _blank(value: Any) -> Any:
    """Zero in the place of numbers."""
    return np.zeros_like(value)[()] if isinstance(value, (bool, int, float, np.ndarray, np.generic)) else value
