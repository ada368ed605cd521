"""A single simulated environment whose episode ends when the simulator loses it."""

from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium.error import ResetNeeded
from gymnasium.utils import RecordConstructorArgs

LOST = slice(3, 6)
"""MuJoCo's warnings that mean a lost simulation: bad position, velocity, acceleration."""


class SimulatorFault(gymnasium.Wrapper, RecordConstructorArgs):
    """Ends an episode in which MuJoCo gives NaN or had to reset itself, as the vector environments do.

    Such a step has terminated False, truncated True, reward 0, the observation before it, numbers in ``info`` 0 and
    ``info["simulator_fault"]`` True, which is there (False) at every other step as well.

    Args:
        env: an environment whose ``unwrapped.data`` is an ``mujoco.MjData``.

    Raises:
        ValueError: from ``step``, for an action that is not finite.
        ResetNeeded: from ``step`` of a copy, or of one restored from a pickle, before its first ``reset``.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        RecordConstructorArgs.__init__(self)
        super().__init__(env)
        self._copied = False

    def __setstate__(self, held: dict[str, Any]) -> None:
        vars(self).update(held)
        self._copied = True  # gymnasium copies simulators by their settings, so that the episode is lost

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        self._obs, info = self.env.reset(**kwargs)
        self._copied = False
        return self._obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step, and end the episode after a fault."""
        if not np.isfinite(action).all():
            raise ValueError(f"actions must be finite, got {action}.")
        if self._copied:
            raise ResetNeeded("a copy of a MuJoCo environment does not keep its episode; call reset before step.")
        obs, reward, terminated, truncated, info = self.env.step(action)
        data: Any = self.env.unwrapped.data  # pyright: ignore[reportAttributeAccessIssue]
        fault = bool((data.warning.number[LOST] > 0).any()) or not _finite((data.qpos, data.qvel, obs, reward))
        info = {name: value.copy() if isinstance(value, np.ndarray) else value for name, value in info.items()}
        if fault:
            info = {name: value if isinstance(value, str) else np.zeros_like(value)[()] for name, value in info.items()}
            obs, reward, terminated, truncated = self._obs, 0.0, False, True
        self._obs = obs
        return obs, float(reward), terminated, truncated, {**info, "simulator_fault": fault}


def _finite(tree: Any) -> bool:
    return all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(tree))
