"""Wrappers in an order that would silently give wrong numbers, refused at construction."""

import warnings
from collections.abc import Iterator
from typing import Any

import gymnasium
from gymnasium import wrappers
from gymnasium.vector import VectorEnv, VectorObservationWrapper, VectorWrapper

_SHORTEST = 10
"""Cut episodes of fewer steps are no sign of a time limit."""


def check_single(env: gymnasium.Env) -> None:
    """Refuse what may not lie below a ``RewardWrapper``.

    Raises:
        ValueError: naming the wrapper and where it belongs.
    """
    for layer in _layers(env, gymnasium.Wrapper):
        if isinstance(layer, wrappers.NormalizeReward):
            raise _normalises(layer, "RewardWrapper")


def check_vector(envs: VectorEnv, autoreset: str) -> None:
    """Refuse what may not lie below a ``VectorRewardWrapper``.

    Raises:
        ValueError: naming the wrapper and where it belongs.
    """
    for layer in _layers(envs, VectorWrapper):
        if isinstance(layer, wrappers.vector.NormalizeReward):
            raise _normalises(layer, "VectorRewardWrapper")
        if isinstance(layer, wrappers.vector.DictInfoToList):
            raise ValueError(
                "DictInfoToList must lie outside VectorRewardWrapper, which reads infos as a dictionary; got it inside."
            )
        if isinstance(layer, VectorObservationWrapper) and autoreset == "same_step":
            raise ValueError(
                f"{type(layer).__name__} must lie outside VectorRewardWrapper in autoreset mode SAME_STEP: it does not "
                "transform info['final_obs'], so the reward would see two kinds of observations; or wrap each "
                "environment in the single version of it."
            )
        if isinstance(layer, wrappers.vector.RecordEpisodeStatistics) and autoreset == "same_step" and _before(1, 4):
            raise ValueError(
                "RecordEpisodeStatistics counts wrongly in autoreset mode SAME_STEP before gymnasium 1.4 (it leaves "
                "out the first step of every further episode); wrap each environment in "
                "gymnasium.wrappers.RecordEpisodeStatistics instead, or use the mode NEXT_STEP."
            )
    check_lanes(envs)


def check_trained(envs: VectorEnv, autoreset: str) -> None:
    """Refuse wrappers around a vector environment that agents would learn or report something wrong through.

    Raises:
        ValueError: naming the wrapper and what to do instead.
    """
    single = [layer for env in getattr(envs.unwrapped, "envs", ())[:1] for layer in _layers(env, gymnasium.Wrapper)]
    for layer in [*_layers(envs, VectorWrapper), *single]:
        name = type(layer).__name__
        if isinstance(layer, (wrappers.NormalizeReward, wrappers.vector.NormalizeReward)):
            raise ValueError(
                f"agents need the environment's own reward, got {name} around it, so true_return would be wrong; leave "
                "it out, and end the reward in chain(..., normalise_by_return(gamma=...))."
            )
        if isinstance(layer, wrappers.vector.DictInfoToList):
            raise ValueError(
                "agents read infos as a dictionary, got DictInfoToList around the environment; leave it out."
            )
        if isinstance(layer, VectorObservationWrapper) and autoreset == "same_step":
            raise ValueError(
                f"agents need one kind of observation, and in autoreset mode SAME_STEP {name} does not transform "
                "info['final_obs']; wrap each environment in the single version of it, or use the mode NEXT_STEP."
            )


def check_lanes(envs: Any) -> None:
    """:func:`check_single` for the environments of a vector environment, where they live in this process."""
    for env in getattr(envs.unwrapped, "envs", ())[:1]:
        check_single(env)


def refuse_relabelling(*_: Any, **__: Any) -> Any:
    """In place of an environment's ``compute_reward``.

    Raises:
        TypeError: always.
    """
    raise TypeError(
        "compute_reward is the environment's own reward, and not the one paid here, so relabelled goals (hindsight "
        "replay) would earn another reward than the steps themselves; use a replay buffer without relabelling."
    )


class CutEpisodes:
    """Watches for a time limit outside the reward: episodes that are reset after equally many steps, without an end."""

    def __init__(self) -> None:
        self._start = self._length = self._in_row = 0

    def reset(self, num_steps: int, ended: bool) -> None:
        """A new episode begins after ``num_steps`` steps in all; ``ended`` if the last one had an end."""
        length, self._start = num_steps - self._start, num_steps
        if ended or length < _SHORTEST or self._in_row < 0:
            return
        self._in_row = self._in_row + 1 if length == self._length else 1
        self._length = length
        if self._in_row == 3:
            self._in_row = -1
            warnings.warn(
                f"three episodes were cut after {length} steps each, and the reward saw no end; if "
                "gymnasium.wrappers.TimeLimit lies outside RewardWrapper, put it inside: "
                f"RewardWrapper(TimeLimit(env, {length}), reward).",
                stacklevel=3,
            )


def _layers(env: Any, kind: type) -> Iterator[Any]:
    """The wrappers around an environment, outermost first."""
    while isinstance(env, kind):
        yield env
        env = env.env  # pyright: ignore[reportAttributeAccessIssue]


def _normalises(layer: Any, wrapper: str) -> ValueError:
    return ValueError(
        f"{type(layer).__name__} must lie outside {wrapper}: below it normalises a reward that nobody is paid, and "
        "info['env_reward'] is not the environment's own; put it outside, or end the reward in "
        "chain(..., normalise_by_return(gamma=...))."
    )


def _before(*version: int) -> bool:
    """True for a gymnasium older than ``version``."""
    return tuple(int(part) for part in gymnasium.__version__.split(".")[:2]) < version
