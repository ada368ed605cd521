"""Wrappers in an order that would silently give wrong numbers, refused at construction."""

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import gymnasium
from gymnasium import wrappers
from gymnasium.vector import AsyncVectorEnv, VectorEnv, VectorObservationWrapper, VectorWrapper

from reward_design.adapters._bridge import RewardAttributes

_SHORTEST = 10
"""Cut episodes of fewer steps are no sign of a time limit."""


def _before(*version: int) -> bool:
    """True for a gymnasium older than ``version``."""
    return tuple(int(part) for part in gymnasium.__version__.split(".")[:2]) < version


_MISCOUNTED = {"disabled": "DISABLED (a reset of some lanes starts all counts anew)"}
"""Modes in which the vector ``RecordEpisodeStatistics`` is wrong, and how; DISABLED still is in gymnasium 1.4."""
if _before(1, 4):
    _MISCOUNTED["same_step"] = "SAME_STEP before gymnasium 1.4 (it leaves out the first step of every further episode)"


def check_single(env: gymnasium.Env, wrapper: str = "RewardWrapper") -> None:
    """Refuse what may not lie below ``wrapper``.

    Raises:
        ValueError: naming the wrapper and where it belongs.
    """
    for layer in _layers(env, gymnasium.Wrapper):
        if isinstance(layer, wrappers.NormalizeReward):
            raise normalises(wrapper)


def check_vector(envs: VectorEnv, autoreset: str, rule: str = "must lie outside VectorRewardWrapper") -> None:
    """Refuse wrappers whose observations and infos would be taken for others.

    Raises:
        ValueError: naming the wrapper and where it belongs.
    """
    for layer in _layers(envs, VectorWrapper):
        if isinstance(layer, wrappers.vector.DictInfoToList):
            raise ValueError(f"DictInfoToList {rule}, which reads infos as a dictionary; got it inside.")
        if isinstance(layer, VectorObservationWrapper) and autoreset == "same_step":
            raise ValueError(
                f"{type(layer).__name__} {rule} in autoreset mode SAME_STEP: it does not "
                "transform info['final_obs'], so the reward would see two kinds of observations; or wrap each "
                "environment in the single version of it."
            )
        if isinstance(layer, wrappers.vector.RecordEpisodeStatistics) and autoreset in _MISCOUNTED:
            raise ValueError(
                f"RecordEpisodeStatistics counts wrongly in autoreset mode {_MISCOUNTED[autoreset]}; wrap each "
                "environment in gymnasium.wrappers.RecordEpisodeStatistics instead."
            )


def check_rewards(envs: VectorEnv, wrapper: str = "VectorRewardWrapper") -> None:
    """Refuse rewards that are not the environments' own, in this process or in those of gymnasium's AsyncVectorEnv.

    Raises:
        ValueError: naming the wrapper and where it belongs.
    """
    if any(isinstance(layer, wrappers.vector.NormalizeReward) for layer in _layers(envs, VectorWrapper)):
        raise normalises(wrapper)
    for env in _lanes(envs):
        check_single(env, wrapper)
    below = envs.unwrapped
    if isinstance(below, AsyncVectorEnv) and any(below.call("has_wrapper_attr", "return_rms")):
        raise normalises(wrapper)  # the statistics that NormalizeReward, and nothing else of gymnasium, has


def check_trained(envs: VectorEnv, autoreset: str) -> None:
    """Refuse what agents on the host would misread, or judge by another reward than the task's own.

    Raises:
        ValueError: naming the wrapper and what to do.
    """
    check_vector(envs, autoreset, "cannot be used with train_host")
    singles = [layer for env in _lanes(envs) for layer in _layers(env, gymnasium.Wrapper)]
    for layer in (*_layers(envs, VectorWrapper), *singles):
        name = type(layer).__name__
        if isinstance(layer, RewardAttributes):
            raise ValueError(
                f"train_host needs environments that pay their own reward, got {name} around them, whose reward would "
                "be counted as the true return; hand over the environments without it, and its reward as an argument."
            )
        if isinstance(layer, (wrappers.NormalizeReward, wrappers.vector.NormalizeReward)):
            raise ValueError(
                f"train_host needs environments that pay their own reward, got {name} around them, so that the true "
                "return would be normalised; leave it out, and use chain(..., normalise_by_return(gamma=...)) or the "
                "agent's own normalisation."
            )
    known: Any = getattr(envs.unwrapped, "host_env", None)
    if known is None or not isinstance(envs, VectorWrapper):
        return
    for kind in ("observation", "action"):
        expected, got = getattr(known, f"{kind}_space"), getattr(envs, f"single_{kind}_space")
        if expected != got:
            raise ValueError(
                f"train_host needs the {kind}s of {known.name!r}, {expected}, got a wrapper around them that makes "
                f"{got}; wrap each environment instead, and make a task of it with task_from_gymnasium."
            )


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


def _lanes(envs: Any) -> Sequence[Any]:
    """The first of the environments of a vector environment, where they live in this process."""
    return getattr(envs.unwrapped, "envs", ())[:1]


def normalises(wrapper: str) -> ValueError:
    """The error for a ``NormalizeReward`` below ``wrapper``."""
    return ValueError(
        f"NormalizeReward must lie outside {wrapper}: below it normalises a reward that nobody is paid, and "
        "info['env_reward'] is not the environment's own; put it outside, or end the reward in "
        "chain(..., normalise_by_return(gamma=...))."
    )
