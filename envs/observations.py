"""Observations that do not have the shape of their space, named."""

import contextlib
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv

from reward_design.envs.host import HostEnv, SpacesOnly


def observed_amiss(env: HostEnv, envs: VectorEnv | None = None) -> str | None:
    """Play a single environment for a step, one of ``envs`` or a new one, and say what its observations lack, if so."""
    known = () if envs is None else getattr(envs.unwrapped, "envs", ())
    if known:
        return played_amiss(env.name, known[0])
    if isinstance(env, SpacesOnly):
        return None
    single = env.make()
    try:
        return played_amiss(env.name, single)
    finally:
        single.close()


def played_amiss(name: str, env: gymnasium.Env) -> str | None:
    """:func:`amiss` of the first two observations of an environment."""
    with contextlib.suppress(AssertionError):  # of gymnasium's checker
        return _first_two(name, env)
    return _first_two(name, env.unwrapped)


def _first_two(name: str, env: gymnasium.Env) -> str | None:
    space = env.observation_space
    return amiss(name, space, env.reset(seed=0)[0]) or amiss(name, space, env.step(env.action_space.sample())[0])


def not_finite(name: str, obs: Any, steps: int) -> str | None:
    """A sentence about NaN or infinity in observations ``[T, B, ...]``, or None.

    Args:
        name: of the environment.
        obs: after each step.
        steps: that were taken before these.
    """
    for path, leaf in jax.tree_util.tree_leaves_with_path(obs):
        values = np.asarray(leaf)
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            t, lane = np.argwhere(~np.isfinite(values))[0, :2].tolist()
            part = f" ({jax.tree_util.keystr(path)})" if path else ""
            return (
                f"{name!r} gave an observation{part} that is not finite, in lane {lane} after {steps + t + 1} steps: "
                "end such an episode in the environment, or make it with task_from_gymnasium, which does."
            )
    return None


def amiss(name: str, space: spaces.Space, obs: Any, path: str = "the observation") -> str | None:
    """A sentence about an entry or a shape that an observation should have by its space, or None.

    Example:
        >>> space = spaces.Dict({"x": spaces.Box(-1, 1, (2,)), "y": spaces.Discrete(3)})
        >>> print(amiss("MyEnv-v0", space, {"x": np.zeros(2)}))
        'MyEnv-v0': the observation lacks 'y', which its observation_space has; it has 'x': return it in reset and ...
        >>> print(amiss("MyEnv-v0", space, {"x": np.zeros(3), "y": 0}))
        'MyEnv-v0': the observation's 'x' must have shape (2,), got (3,): correct the observation or its space.
    """
    if isinstance(space, spaces.Dict):
        found = [key for key in space if not isinstance(obs, dict) or key not in obs]
        if found:
            has = ", ".join(map(repr, obs)) if isinstance(obs, dict) else f"no keys, it is a {type(obs).__name__}"
            return (
                f"{name!r}: {path} lacks {found[0]!r}, which its observation_space has; it has {has or 'nothing'}: "
                "return it in reset and step, or take it out of the space."
            )
        parts = (amiss(name, part, obs[key], f"{path}'s {key!r}") for key, part in space.items())
        return next((text for text in parts if text), None)
    if space.shape is not None and np.shape(obs) != space.shape:
        got = np.shape(obs)
        return f"{name!r}: {path} must have shape {space.shape}, got {got}: correct the observation or its space."
    return None
