"""Environments that a simulator steps on the host, seen by tasks and agents."""

import abc
from collections.abc import Callable, Mapping, Sequence
from numbers import Integral
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from numpy.typing import DTypeLike

from reward_design.core import Transition


class HostEnv(abc.ABC):
    """How to make a simulated environment, one at a time or many at once, and what a transition of it holds.

    The vector environments run in gymnasium's autoreset mode ``SAME_STEP``: every row is experience, and the last
    observation of an episode is in ``info["final_obs"]``. Every key of :attr:`info` is in the info of every step, as an
    array ``[num_envs, ...]``; for a lane that ended it belongs to the step that ended it.

    Attributes:
        name: name of the task.
        observation_space: of one environment.
        action_space: of one environment.
        horizon: steps after which an episode is truncated.
        gamma: discount per step that the task is meant for.
        info: shape and dtype of each info entry that becomes ``transition.info``.
    """

    name: str
    observation_space: spaces.Space
    action_space: spaces.Space
    horizon: int
    gamma: float
    info: Mapping[str, tuple[tuple[int, ...], DTypeLike]]

    @abc.abstractmethod
    def make(self, *, render_mode: str | None = None) -> gymnasium.Env:
        """A single environment, time limit included."""

    @abc.abstractmethod
    def vector(self, num_envs: int, *, seed: int | None = None) -> gymnasium.vector.VectorEnv:
        """``num_envs`` environments in mode ``SAME_STEP``; ``seed`` is that of the first reset, if it is given none."""

    @abc.abstractmethod
    def success(self, transition: Transition) -> Any:
        """True on the transition with which the task is achieved; ``[B]`` or ``[T, B]`` leaves."""

    def example(self, num_envs: int = 1) -> Transition:
        """Zero transition with leading axis ``num_envs``."""
        return example_transition(self.observation_space, self.action_space, self.info, num_envs)


class SpacesOnly(HostEnv):
    """What an agent needs to know of an environment that belongs to no task: its spaces; nothing succeeds.

    Args:
        envs: a vector environment, or a single one.
        info: as in :class:`HostEnv`.
    """

    def __init__(
        self,
        envs: gymnasium.vector.VectorEnv | gymnasium.Env,
        info: Mapping[str, tuple[tuple[int, ...], DTypeLike]] | None = None,
    ) -> None:
        self.name = getattr(envs.spec, "id", None) or type(envs.unwrapped).__name__
        prefix = "single_" if isinstance(envs, gymnasium.vector.VectorEnv) else ""
        self.observation_space = getattr(envs, f"{prefix}observation_space")
        self.action_space = getattr(envs, f"{prefix}action_space")
        self.horizon, self.gamma, self.info = 0, 1.0, dict(info or {})

    def make(self, *, render_mode: str | None = None) -> gymnasium.Env:
        """Not possible."""
        raise TypeError(f"{self.name!r} is an environment of your own; use it itself.")

    def vector(self, num_envs: int, *, seed: int | None = None) -> gymnasium.vector.VectorEnv:
        """Not possible."""
        raise TypeError(f"{self.name!r} is an environment of your own; use it itself.")

    def success(self, transition: Transition) -> Any:
        """False."""
        return transition.terminated & False


class NotCopied:
    """Base of environments of which a copy would be broken: what they step lies outside Python or in shared memory."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        """Refuse ``copy.copy``, ``copy.deepcopy`` and ``pickle``.

        Raises:
            TypeError: always.
        """
        raise TypeError(
            f"{type(self).__name__} cannot be copied or pickled, as the state of its simulator would be lost; make "
            "another one with Task.make() or Task.vector(), and copy or pickle the task's env, which makes them."
        )


def example_transition(
    observation_space: spaces.Space,
    action_space: spaces.Space,
    info: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
    num_envs: int,
) -> Transition:
    """Zero transition with the shapes and dtypes of the spaces as JAX has them (no 64-bit numbers)."""
    obs, no = numeric_zeros(observation_space, num_envs), np.zeros(num_envs, bool)
    return Transition(
        obs=obs,
        action=numeric_zeros(action_space, num_envs),
        next_obs=numeric_zeros(observation_space, num_envs),
        reward=np.zeros(num_envs, np.float32),
        terminated=no,
        truncated=no,
        mask=~no,
        info={name: np.zeros((num_envs, *shape), device_dtype(dtype)) for name, (shape, dtype) in info.items()},
    )


def numeric_zeros(space: spaces.Space, *lead: int) -> Any:
    """Zeros for values of ``space`` with leading axes ``lead``, in the dtypes that they have on the device.

    Raises:
        TypeError: for a part that is not Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple.
    """
    return map_space(lambda part: np.zeros((*lead, *(part.shape or ())), device_dtype(part.dtype or np.float32)), space)


def map_space(fn: Callable[[spaces.Space], Any], space: spaces.Space) -> Any:
    """``fn`` of every numeric part of a space, in its structure."""
    if isinstance(space, spaces.Dict):
        return {name: map_space(fn, part) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(map_space(fn, part) for part in space)
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return fn(space)
    raise TypeError(f"expected a space of numbers, got {space}; leave that part out or encode it as an array.")


def numeric_parts(space: spaces.Space, obs: Any) -> Any:
    """The numeric parts of an observation as arrays, in the structure of its space; entries that it lacks are errors.

    Raises:
        KeyError: naming the entry.
    """
    if isinstance(space, spaces.Dict):
        return {name: numeric_parts(part, obs[name]) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(numeric_parts(part, value) for part, value in zip(space, obs, strict=True))
    return np.asarray(obs)


def lane_seeds(seed: Any, num_envs: int) -> list[int | None]:
    """A seed for every lane: s gives lane i the seed s + i; a list or an array gives each its own, None gives none.

    Raises:
        TypeError: for anything else.
        ValueError: for a list of another length.
    """
    if seed is None:
        return [None] * num_envs
    if isinstance(seed, Integral):
        return [int(seed) + lane for lane in range(num_envs)]
    given = seed.tolist() if isinstance(seed, np.ndarray) else seed
    listed = isinstance(given, Sequence) and not isinstance(given, (str, bytes))
    if not listed or not all(one is None or isinstance(one, Integral) for one in given):
        raise TypeError(f"seed must be a whole number, or one for each of the {num_envs} lanes, got {seed!r}.")
    if len(given) != num_envs:
        raise ValueError(f"expected one seed per lane ({num_envs}), got {len(given)}; give one for each.")
    return [None if one is None else int(one) for one in given]


def device_dtype(dtype: DTypeLike) -> np.dtype:
    """The dtype that JAX gives an array: 64-bit numbers become 32-bit ones."""
    dtype = np.dtype(dtype)
    return {"f8": np.dtype(np.float32), "i8": np.dtype(np.int32), "u8": np.dtype(np.uint32)}.get(dtype.str[1:], dtype)
