"""What a task is, and what an environment that runs on the device looks like."""

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Any, NamedTuple

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float, Int, UInt8

from reward_design.core import Reward, Transition
from reward_design.envs import checks
from reward_design.envs.host import HostEnv
from reward_design.envs.seeded_vector import SeededSyncVectorEnv


class MissingPotentialError(ValueError):
    """What the potential of a task that was given none raises."""


class EnvState(NamedTuple):
    """State of one lane of a :class:`FunctionalEnv`."""

    inner: Any
    time: Any
    """Steps taken in this episode."""


class FunctionalEnv(abc.ABC):
    """An environment as pure functions of one lane, without autoreset; batch it with ``jax.vmap``.

    Subclasses give ``observation_space``, ``action_space``, ``horizon`` (steps after which an episode is truncated),
    ``gamma`` and the two methods ``_reset`` and ``_step``; ``render`` where there is something to see. Instances
    compare by identity and are static in jit.

    Attributes:
        render_modes: ``"rgb_array"``, and ``"ansi"`` where ``render_text`` is given.
        render_fps: steps per second at which it is good to watch.
    """

    name: str
    observation_space: spaces.Space
    action_space: spaces.Space
    horizon: int
    gamma: float
    render_modes: tuple[str, ...] = ("rgb_array",)
    render_fps: int = 30

    def reset(self, key: Any) -> tuple[Any, EnvState]:
        """Start an episode. Returns ``(obs, state)``."""
        obs, inner = self._reset(key)
        return obs, EnvState(inner, jnp.int32(0))

    def step(self, key: Any, state: EnvState, action: Any) -> tuple[Any, EnvState, Array, Array, Array, dict[str, Any]]:
        """One step. Returns ``(obs, state, reward, terminated, truncated, info)``; ``obs`` is the true successor."""
        obs, inner, reward, terminated, info = self._step(key, state.inner, action)
        time = state.time + 1
        return obs, EnvState(inner, time), reward, terminated, (time >= self.horizon) & ~terminated, info

    @abc.abstractmethod
    def _reset(self, key: Any) -> tuple[Any, Any]:
        """``key -> (obs, inner)``."""

    @abc.abstractmethod
    def _step(self, key: Any, inner: Any, action: Any) -> tuple[Any, Any, Array, Array, dict[str, Any]]:
        """``(key, inner, action) -> (obs, inner, reward, terminated, info)``."""

    @abc.abstractmethod
    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True on the transition with which the task is achieved; ``[B]`` or ``[T, B]`` leaves."""

    def render(self, state: EnvState, obs: Any) -> UInt8[np.ndarray, "height width 3"]:
        """A picture of a state (NumPy, outside jit); the numbers that the agent sees, unless a subclass draws more."""
        from reward_design.envs.rendering import numbers

        return numbers(obs)

    def render_text(self, state: EnvState) -> str:
        """The same in characters.

        Raises:
            TypeError: if the environment has no such picture.
        """
        raise TypeError(f"{self.name!r} has no picture in characters; use render_mode='rgb_array'.")

    def tabular(self) -> "Tabular":
        """Exact dynamics as arrays, where they exist.

        Raises:
            TypeError: if the environment has no finite model.
        """
        raise TypeError(f"{self.name!r} has no exact tabular dynamics; use a tabular task such as 'four_rooms'.")


@dataclass(frozen=True, eq=False)
class Layout:
    """How to draw the states of a tabular task on a grid.

    Attributes:
        walls: ``[H, W]`` bool.
        cells: ``[S, 2]`` row and column of each state.
        layer: ``[S]`` which copy of the grid a state belongs to (before and after the key, say).
        layer_names: a title for each layer.
        arrows: ``[A, 2]`` row and column direction of each action, zeros for actions that do not move.
        marks: text to draw in a cell, by ``(row, column)``: start, goal, key, door.
    """

    walls: np.ndarray
    cells: np.ndarray
    layer: np.ndarray
    layer_names: tuple[str, ...]
    arrows: np.ndarray
    marks: Mapping[tuple[int, int], str]


@dataclass(frozen=True, eq=False)
class Tabular:
    """Exact dynamics of a finite MDP (NumPy float64). Terminal states are absorbing and pay 0.

    Attributes:
        transition: ``[S, A, S]`` probabilities; rows sum to 1, terminal states lead to themselves.
        reward: ``[S, A, S]`` the environment's reward; 0 out of terminal states.
        initial: ``[S]`` start distribution.
        gamma: discount per step.
        terminal: ``[S]`` bool.
        observations: ``[S, ...]`` what the agent sees in each state (the state index for the tasks of this package).
        layout: how to draw it, or None.
    """

    transition: Float[np.ndarray, "S A S"]
    reward: Float[np.ndarray, "S A S"]
    initial: Float[np.ndarray, " S"]
    gamma: float
    terminal: Bool[np.ndarray, " S"]
    observations: Int[np.ndarray, " S"]
    layout: Layout | None = None


@dataclass(frozen=True, eq=False)
class Factor:
    """A named quantity of a transition that a designer may rank, weigh or read about.

    Attributes:
        fn: ``transition -> [B]`` float, for any leading axes.
        unit: physical unit, or ``"1"``.
        sign: +1 if more is better, -1 if less is better.
        description: one line.

    Raises:
        TypeError: if ``fn`` is no function.
        ValueError: if ``sign`` is neither 1 nor -1.
    """

    fn: Callable[[Transition], Float[Array, "*batch"]]
    unit: str
    sign: int
    description: str

    def __post_init__(self) -> None:
        checks.check_function("fn of a Factor", self.fn, "transition -> [B]")
        if self.sign not in (1, -1):
            raise ValueError(
                f"sign of a Factor must be 1 (more is better) or -1 (less is better), got {checks.given(self.sign)}."
            )


@dataclass(frozen=True, eq=False)
class Task:
    """Everything a reward designer needs to know about a problem.

    Attributes:
        name: key in :func:`reward_design.envs.list_tasks`.
        description: one paragraph for people and for language models.
        env: the environment (one instance, so that compiled functions are reused): functional, on the device, or a
            :class:`HostEnv`, which a simulator steps.
        true_reward: what counts in the end; the environment's own reward unless said otherwise.
        sparse_reward: paid only on the event that defines the task.
        dense_reward: a hand-made informative reward.
        factors: named quantities, see :class:`Factor`.
        potential: heuristic ``phi(obs) -> [B]``, larger is closer to the goal.
        auxiliary: auxiliary rewards by name; ``aligned`` helps, ``misaligned`` looks helpful and is not.
        count_index: ``obs -> [B]`` integers from 0 to 8191, the states that a count bonus tells apart in an episode;
            for tasks whose levels change with the episode. None where observations are counted over the whole run.

    Raises:
        TypeError: if a reward, factor or function is something else.
    """

    name: str
    description: str
    env: FunctionalEnv | HostEnv
    true_reward: Reward
    sparse_reward: Reward
    dense_reward: Reward
    factors: Mapping[str, Factor]
    potential: Callable[[Any], Float[Array, "*batch"]]
    auxiliary: Mapping[str, Reward]
    count_index: Callable[[Any], Int[Array, "*batch"]] | None = None

    def __post_init__(self) -> None:
        for name in ("true_reward", "sparse_reward", "dense_reward"):
            checks.check_kind(isinstance(getattr(self, name), Reward), name, checks.REWARD, getattr(self, name))
        checks.check_by_name("auxiliary", self.auxiliary, Reward, checks.REWARD)
        checks.check_by_name("factors", self.factors, Factor, "a Factor(function, unit, sign, description)")
        checks.check_function("potential", self.potential, "obs -> [B]")
        if self.count_index is not None:
            checks.check_function("count_index", self.count_index, "obs -> [B]")

    @property
    def horizon(self) -> int:
        """Steps after which an episode is truncated."""
        return self.env.horizon

    @property
    def gamma(self) -> float:
        """Discount per environment step that the task is meant for."""
        return self.env.gamma

    @property
    def success(self) -> Callable[[Transition], Any]:
        """``success(transition) -> [B]`` bool."""
        return self.env.success

    @cached_property
    def example(self) -> Transition:
        """A batched transition (``B = 1``) of the right shapes and dtypes, for ``reward.init``."""
        return example_transition(self.env)

    def functional(self) -> FunctionalEnv:
        """The environment as pure functions for the device.

        Raises:
            TypeError: if it is stepped on the host.
        """
        if isinstance(self.env, HostEnv):
            raise TypeError(
                f"task {self.name!r} is stepped on the host; train with train_host on task.vector(num_envs), and "
                "judge with reward_design.agents.host.evaluate_host."
            )
        return self.env

    def tabular(self) -> Tabular:
        """Exact dynamics as arrays, where they exist.

        Raises:
            TypeError: where they do not.
        """
        return self.functional().tabular()

    def make(self, *, render_mode: str | None = None) -> gymnasium.Env:
        """The task as a single gymnasium environment.

        Args:
            render_mode: what ``render()`` gives: ``"rgb_array"``, or ``"ansi"`` where the task has pictures in text.

        Raises:
            ValueError: for a mode that the environment does not have.
        """
        if isinstance(self.env, HostEnv):
            made = self.env.make(render_mode=render_mode)
            checks.check_render_mode(made, render_mode)
            return made
        from reward_design.envs.gymnasium_view import GymnasiumView

        return GymnasiumView(self.env, render_mode=render_mode)

    def vector(self, num_envs: int, *, seed: int | None = None) -> gymnasium.vector.VectorEnv:
        """The task as a gymnasium vector environment in autoreset mode ``SAME_STEP``.

        Args:
            num_envs: number of environments.
            seed: of the first ``reset``, if that is given none; ``vector(n, seed=s).reset()`` is
                ``vector(n).reset(seed=s)``.

        Raises:
            TypeError: if ``num_envs`` is not a whole number.
            ValueError: if there is not at least one environment.
        """
        checks.check_kind(isinstance(num_envs, Integral), "num_envs", "a whole number of at least 1", num_envs)
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        if isinstance(self.env, HostEnv):
            return self.env.vector(num_envs, seed=seed)
        return SeededSyncVectorEnv([self.make] * num_envs, seed=seed)


def example_transition(env: FunctionalEnv | HostEnv, num_envs: int = 1) -> Transition:
    """Zero transition with the shapes and dtypes that ``env`` produces, leading axis ``num_envs``."""
    import jax

    if isinstance(env, HostEnv):
        return jax.tree.map(jnp.asarray, env.example(num_envs))

    def one(key: Any) -> Transition:
        obs, state = env.reset(key)
        action = jax.tree.map(jnp.asarray, env.action_space.sample())
        next_obs, _, reward, terminated, truncated, info = env.step(key, state, action)
        return Transition(obs, action, next_obs, reward, terminated, truncated, jnp.bool_(True), info)

    shapes = jax.eval_shape(one, jax.random.key(0))
    return jax.tree.map(lambda x: jnp.zeros((num_envs, *x.shape), x.dtype), shapes)
