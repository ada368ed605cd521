"""Which actions an agent can take, and what to do about those that it cannot."""

import numpy as np
from gymnasium import spaces

BOUNDS = "gymnasium.wrappers.TransformAction(env, lambda action: action, Box(-1, 1, {shape}))"
"""Gives a Box of actions bounds."""
_OTHERS = {spaces.Discrete: ("ppo", "dqn"), spaces.Box: ("ppo", "sac")}
_SB3 = (spaces.MultiDiscrete, spaces.MultiBinary)


def discrete(space: spaces.Space, agent: str) -> spaces.Discrete:
    """The action space, if it is Discrete.

    Raises:
        TypeError: for anything else, with what to use instead.

    Example:
        >>> discrete(spaces.Box(-1, 1, (2,)), "dqn")
        Traceback (most recent call last):
        TypeError: dqn needs Discrete actions, got Box(-1.0, 1.0, (2,), float32); use ppo or sac.
    """
    if not isinstance(space, spaces.Discrete):
        raise _unfit(space, agent, "Discrete")
    return space


def bounded_box(space: spaces.Space, agent: str) -> spaces.Box:
    """The action space, if it is a Box of floats with finite bounds that differ.

    Raises:
        TypeError: for anything else, with what to use instead.
    """
    if not isinstance(space, spaces.Box):
        raise _unfit(space, agent, "Box")
    _check_floats(space, agent)
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise TypeError(
            f"{agent} needs Box actions with finite bounds, got {space}; bound them with "
            f"{BOUNDS.format(shape=space.shape)}, or use ppo."
        )
    with np.errstate(over="ignore"):
        width = space.high.astype(np.float32) - space.low.astype(np.float32)
    if not (np.isfinite(width) & (width > 0)).all():
        raise TypeError(
            f"{agent} scales actions by high - low, which must be above 0 and fit a float32, got {space}; give them "
            "other bounds, or leave out what is fixed, in a gymnasium.ActionWrapper, or use ppo."
        )
    return space


def discrete_or_box(space: spaces.Space, agent: str) -> spaces.Discrete | spaces.Box:
    """The action space, if it is Discrete, or a Box of floats with or without bounds.

    Raises:
        TypeError: for anything else, with what to use instead.
    """
    if isinstance(space, spaces.Discrete):
        return space
    if not isinstance(space, spaces.Box):
        raise _unfit(space, agent, "Discrete or Box")
    _check_floats(space, agent)
    return space


def _unfit(space: spaces.Space, agent: str, wanted: str) -> TypeError:
    others = _OTHERS.get(type(space), ("sb3/ppo",) if isinstance(space, _SB3) else ())
    hint = "make one of them in a gymnasium.ActionWrapper" if not others else f"use {' or '.join(others)}"
    return TypeError(f"{agent} needs {wanted} actions, got {space}; {hint}.")


def _check_floats(space: spaces.Box, agent: str) -> None:
    if not np.prod(space.shape):
        raise TypeError(f"{agent} needs at least one action, got {space}.")
    if not np.issubdtype(space.dtype, np.floating):
        raise TypeError(
            f"{agent} needs Box actions of floating-point numbers, got {space}; round them in a "
            "gymnasium.ActionWrapper, whose action_space is a Box of float32."
        )
