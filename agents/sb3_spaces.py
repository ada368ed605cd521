"""Which policy of stable-baselines3 or sbx reads which observations, and which agent takes which actions."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from reward_design.agents.action_spaces import BOUNDS
from reward_design.envs.base import Task

SMALLEST_IMAGE = 36
"""Height and width that the libraries' convolutional network needs; smaller images are flattened."""
_DISCRETE, _CONTINUOUS = ("dqn",), ("crossq", "ddpg", "sac", "td3", "tqc")


def policy(space: spaces.Space, policies: Sequence[str], *, one_hot: bool) -> tuple[str, bool]:
    """Policy and whether to flatten, for observations; ``one_hot``: discrete and dictionary ones are read as such."""
    if isinstance(space, spaces.Dict):
        parts = space.spaces.values()
        readable = not any(isinstance(part, (spaces.Dict, spaces.Tuple)) or _is_small_image(part) for part in parts)
        native = one_hot and readable and "MultiInputPolicy" in policies
        return ("MultiInputPolicy", False) if native else ("MlpPolicy", True)
    if _is_image(space):
        native = "CnnPolicy" in policies and not _is_small_image(space)
        return ("CnnPolicy", False) if native else ("MlpPolicy", True)
    return "MlpPolicy", not (isinstance(space, spaces.Box) or (one_hot and not isinstance(space, spaces.Tuple)))


def check_policy(name: str, chosen: str, space: spaces.Space) -> None:
    """Refuse a policy that does not read such observations; what else it needs its constructor says.

    Raises:
        ValueError: naming both.
    """
    image = isinstance(space, spaces.Box) and len(space.shape) == 3
    readable = {"CnnPolicy": (image, "images"), "MultiInputPolicy": (isinstance(space, spaces.Dict), "dictionaries")}
    fits, wanted = readable.get(chosen, (True, ""))
    if not fits:
        raise ValueError(
            f"agent {name!r} reads {wanted} with policy {chosen!r}, got observations of {space}; leave policy out."
        )


def _is_image(space: spaces.Space) -> bool:
    from stable_baselines3.common.preprocessing import is_image_space

    return is_image_space(space)


def _is_small_image(space: spaces.Space) -> bool:
    return _is_image(space) and sorted(space.shape or ())[1] < SMALLEST_IMAGE


def flattened(space: spaces.Space, obs: Any) -> np.ndarray:
    """A batch of observations as vectors, discrete parts one-hot."""
    size = len(jax.tree.leaves(obs)[0])
    rows = [jax.tree.map(lambda x, i=i: x[i], obs) for i in range(size)]
    return np.stack([np.asarray(spaces.flatten(space, row), np.float32) for row in rows])


def check_actions(name: str, task: Task) -> None:
    """Refuse a task whose actions the agent ``name`` cannot take.

    Raises:
        ValueError: naming agents that can.
    """
    space, short = task.env.action_space, name.partition("/")[2]
    simple = (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)
    known = (spaces.Discrete,) if short in _DISCRETE else (spaces.Box,) if short in _CONTINUOUS else simple
    prefix = name.partition("/")[0]
    if not isinstance(space, known):
        fitting = {spaces.Discrete: ("ppo", "dqn"), spaces.Box: ("ppo", "sac")}.get(type(space), ("ppo",))
        hint = " or ".join(f"{prefix}/{other}" for other in fitting)
        hint = f"use {hint}" if isinstance(space, simple) else "make one of them in a gymnasium.ActionWrapper"
        wanted = " or ".join(kind.__name__ for kind in known)
        raise ValueError(f"agent {name!r} needs {wanted} actions, task {task.name!r} has {space}; {hint}.")
    if isinstance(space, spaces.Box) and not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise ValueError(
            f"agent {name!r} needs bounded actions, task {task.name!r} has {space}; bound them with "
            f"{BOUNDS.format(shape=space.shape)}."
        )
    if isinstance(space, spaces.Discrete) and space.start != 0:
        raise ValueError(f"agent {name!r} needs actions counted from 0, task {task.name!r} has {space}; shift them.")
