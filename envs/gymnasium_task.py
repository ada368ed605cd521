"""A task from any gymnasium id."""

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from numpy.typing import DTypeLike

from reward_design._names import suggestion
from reward_design._optional import unloadable
from reward_design.combinators import environment_reward
from reward_design.constructors import checked_gamma
from reward_design.core import Reward, Transition
from reward_design.envs import checks
from reward_design.envs.base import Factor, MissingPotentialError, Task, example_transition
from reward_design.envs.host import HostEnv, numeric_zeros
from reward_design.envs.mujoco_gl import guard
from reward_design.envs.process_vector import ProcessVectorEnv
from reward_design.envs.seeded_vector import SeededAsyncVectorEnv, SeededSyncVectorEnv
from reward_design.envs.simulator_fault import SimulatorFault

Info = Mapping[str, tuple[tuple[int, ...], DTypeLike]]


class GymnasiumEnv(HostEnv):
    """Environments that ``gymnasium.make`` makes, through gymnasium's own vector environments.

    Args:
        env_id: a registered id, ``"module:id"`` imports the module first.
        kwargs: arguments of ``gymnasium.make``.
        horizon: time limit in place of the registered one.
        gamma: discount per step.
        info: shape and dtype of the info entries that become ``transition.info``; every step must have them.
        success: ``transition -> [B]`` bool.
        vectorisation: ``"sync"`` steps in this process, ``"async"`` in one process per environment, ``"process"`` in
            worker processes with several environments each, which are replaced when they die, raise or hang.

    Attributes:
        reported: further info entries, which tell of faults.
    """

    reported: Info = MappingProxyType({"simulator_fault": ((), np.bool_)})

    def __init__(
        self,
        env_id: str,
        *,
        kwargs: Mapping[str, Any],
        horizon: int | None,
        gamma: float,
        info: Info,
        success: Callable[[Transition], Any],
        vectorisation: str,
    ) -> None:
        if vectorisation not in ("sync", "async", "process"):
            raise ValueError(f"vectorisation must be 'sync', 'async' or 'process', got {vectorisation!r}.")
        self.name, self.env_id, self.gamma, self.info = f"gymnasium/{env_id}", env_id, gamma, dict(info)
        self._kwargs, self._limit, self._vectorisation = dict(kwargs), horizon, vectorisation
        self._achieved = success
        with _clear_errors(env_id, kwargs):
            if "mujoco" in str(getattr(gymnasium.registry.get(env_id), "entry_point", "")):
                guard()
            probe = self.make()
        self._registered = probe.spec.id if probe.spec else env_id
        self.observation_space, self.action_space = probe.observation_space, probe.action_space
        for part in (self.observation_space, self.action_space):
            numeric_zeros(part)  # refuses what no network can read
        self.horizon = horizon or (probe.spec.max_episode_steps if probe.spec else None) or 0
        try:
            self._check_info(probe)
        finally:
            probe.close()

    def _check_info(self, probe: gymnasium.Env) -> None:
        """Take one step and refuse info entries that it does not give, or gives in another shape."""
        if not self.info:
            return
        probe.reset(seed=0)
        probe.action_space.seed(0)
        given = probe.step(probe.action_space.sample())[-1]
        for name, (shape, _) in self.info.items():
            if name not in given:
                names = sorted(map(str, given))
                raise ValueError(
                    f"a step of {self.env_id!r} gives no info entry {name!r}{suggestion(name, names)} "
                    f"It gives: {', '.join(names) or 'none'}."
                )
            if np.shape(given[name]) != tuple(shape):
                raise ValueError(
                    f"the info entry {name!r} of {self.env_id!r} has shape {np.shape(given[name])}, and info= says "
                    f"{tuple(shape)}; write what it has."
                )

    def make(self, *, render_mode: str | None = None) -> gymnasium.Env:
        """One environment; a fault of its simulator ends the episode (``info["simulator_fault"]``)."""
        return self._made(self.env_id, render_mode)

    def _made(self, which: Any, render_mode: str | None = None) -> gymnasium.Env:
        """One environment by its id, or by what was registered under it, which other processes do not know."""
        limit = {} if self._limit is None else {"max_episode_steps": self._limit}
        render = {} if render_mode is None else {"render_mode": render_mode}  # not every environment takes one
        return self._guarded(gymnasium.make(which, **{**self._kwargs, **limit, **render}))

    def _guarded(self, env: gymnasium.Env) -> gymnasium.Env:
        always = self._vectorisation == "process"  # where every step has the same entries
        return SimulatorFault(env, always=always)

    def vector(self, num_envs: int, *, seed: int | None = None) -> gymnasium.vector.VectorEnv:
        """``num_envs`` environments in mode ``SAME_STEP``."""
        make = partial(self._made, gymnasium.registry.get(self._registered, self.env_id))
        if self._vectorisation == "process":
            return ProcessVectorEnv(
                make, num_envs, seed=seed, info={**self.info, **self.reported}, host_env=self,
                observation_space=self.observation_space, action_space=self.action_space,
            )  # fmt: skip
        if self._vectorisation == "sync":
            return SeededSyncVectorEnv([make] * num_envs, seed=seed, host_env=self)
        # never fork: JAX has threads
        return SeededAsyncVectorEnv([make] * num_envs, seed=seed, host_env=self, context="spawn")

    def success(self, transition: Transition) -> Any:
        """What the user said."""
        return self._achieved(transition)


def task_from_gymnasium(
    env_id: str,
    *,
    description: str | None = None,
    factors: Mapping[str, Factor] | None = None,
    potential: Callable[[Any], Any] | None = None,
    sparse_reward: Reward | None = None,
    dense_reward: Reward | None = None,
    auxiliary: Mapping[str, Reward] | None = None,
    success: Callable[[Transition], Any] | None = None,
    info: Info | None = None,
    horizon: int | None = None,
    gamma: float = 0.99,
    vectorisation: str = "sync",
    **kwargs: Any,
) -> Task:
    """A :class:`Task` from a gymnasium id of your own or anybody's; whatever is known about it makes it more useful.

    Args:
        env_id: a registered id; ``"my_package:MyEnv-v0"`` imports the package first.
        description: one paragraph; by default the first one of the environment's docstring.
        factors: named quantities of a transition, written with jax.numpy.
        potential: ``phi(obs) -> [B]``, written with jax.numpy; needed for the design ``shaping``.
        sparse_reward: by default the environment's own reward.
        dense_reward: by default the environment's own reward.
        auxiliary: rewards by name, ``aligned`` and ``misaligned`` among them.
        success: ``transition -> [B]`` bool, written with jax.numpy; by default nothing counts as success.
        info: shape and dtype of the info entries that rewards may read, for example ``{"x_velocity": ((), float)}``.
        horizon: time limit in place of the registered one.
        gamma: discount per step, in [0, 1].
        vectorisation: ``"sync"``, ``"async"`` or ``"process"``, see :class:`GymnasiumEnv`.
        **kwargs: handed to ``gymnasium.make``.

    A step that gives NaN, or in which MuJoCo had to reset itself, ends its episode (truncated, reward 0, the last good
    observation, ``info["simulator_fault"]``), and agents count it.

    Returns:
        A :class:`Task`, stepped on the host.

    Raises:
        ValueError: for an id that is unknown, with the nearest one, or out of date, a gamma outside [0, 1], a horizon
            below 1, a function that reads an entry of the observation or info that there is not or whose result is not
            ``[B]``, or an entry of ``info`` that a step of the environment does not give (one step is taken to see it).
        TypeError: if observations or actions are not numbers, an argument is of another kind than it should be or not
            known to the environment, or a factor, the potential or success cannot be compiled.

    Example:
        >>> import jax.numpy as jnp
        >>> from reward_design.envs import task_from_gymnasium
        >>> hill = task_from_gymnasium("MountainCar-v0", potential=lambda obs: jnp.sin(3 * obs[..., 0]))
        >>> hill.name, hill.horizon
        ('gymnasium/MountainCar-v0', 200)
    """
    checks.check_kind(
        isinstance(env_id, str),
        "env_id",
        "the name under which gymnasium.register knows an environment, such as 'CartPole-v1'",
        env_id,
    )
    checked_gamma(gamma)
    checks.check_limit(horizon)
    if horizon is not None and "max_episode_steps" in kwargs:
        raise ValueError("give the time limit once: horizon and max_episode_steps are the same.")
    info = {} if info is None else info
    checks.check_info(info)
    if success is not None:
        checks.check_function("success", success, "transition -> [B] bool")
    env = GymnasiumEnv(
        env_id,
        kwargs=kwargs,
        horizon=None if horizon is None else int(horizon),
        gamma=gamma,
        info=info,
        success=_never if success is None else success,
        vectorisation=vectorisation,
    )
    own = environment_reward()
    made = Task(
        name=env.name,
        description=description or _first_paragraph(env),
        env=env,
        true_reward=own,
        sparse_reward=own if sparse_reward is None else sparse_reward,
        dense_reward=own if dense_reward is None else dense_reward,
        factors={} if factors is None else factors,
        potential=_missing_potential(env.name) if potential is None else potential,
        auxiliary={} if auxiliary is None else auxiliary,
    )
    _check_results(made, potential, success)
    return replace(made, factors=dict(made.factors), auxiliary=dict(made.auxiliary))


def _check_results(made: Task, potential: Any, success: Any) -> None:
    """Refuse functions that read what no transition has, or give another shape than ``[B]``."""
    example = example_transition(made.env, _ROWS)
    for name, factor in made.factors.items():
        checks.check_result(f"{name!r} of task {made.name!r}", factor.fn, example, example)
    if potential is not None:
        checks.check_result(f"'potential' of task {made.name!r}", potential, example.obs, example)
    if success is not None:
        checks.check_result(f"'success' of task {made.name!r}", success, example, example, success=True)


_ROWS = 11
"""Of the batch that functions are tried on: hardly the length of an observation, so that ``obs[0]`` is noticed."""


def _never(transition: Transition) -> Any:
    return jnp.zeros_like(transition.terminated)


def _first_paragraph(env: GymnasiumEnv) -> str:
    with_doc = env.make()
    doc = type(with_doc.unwrapped).__doc__ or ""
    with_doc.close()
    lines = [line.strip() for line in doc.strip().splitlines()]
    paragraphs = [p for p in "\n".join(lines).split("\n\n") if p and not p.startswith("#")]
    return " ".join(paragraphs[0].split()) if paragraphs else f"The gymnasium environment {env.env_id}."


def _missing_potential(name: str) -> Callable[[Any], Any]:
    def potential(obs: Any) -> Any:
        raise MissingPotentialError(
            f"task {name!r} has no potential; give one: task_from_gymnasium(..., potential=phi)."
        )

    return potential


class _clear_errors:  # noqa: N801  (a context manager, used as a function)
    """Errors of ``gymnasium.make`` as one sentence."""

    def __init__(self, env_id: str, kwargs: Mapping[str, Any]) -> None:
        self.env_id, self.kwargs = env_id, kwargs

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, gymnasium.error.UnregisteredEnv):
            hint = suggestion(self.env_id, gymnasium.registry)
            raise ValueError(f"gymnasium knows no environment {self.env_id!r}{hint}") from error
        failed_import = isinstance(error, (ImportError, OSError, gymnasium.error.DependencyNotInstalled))
        if failed_import and (needs := unloadable(error, self.env_id)):
            raise ImportError(f"environments {self.env_id!r} need {needs}") from error
        if isinstance(error, gymnasium.error.DependencyNotInstalled):
            raise ImportError(f"environment {self.env_id!r} needs more than gymnasium: {error}") from error
        unknown = re.search(r"unexpected keyword argument '(\w+)'", str(error))
        if isinstance(error, TypeError) and unknown and unknown[1] in self.kwargs:
            hint = suggestion(unknown[1], inspect.signature(task_from_gymnasium).parameters, cutoff=0.6)
            raise TypeError(f"environment {self.env_id!r} takes no argument {unknown[1]!r}{hint}") from error
        if isinstance(error, gymnasium.error.Error):  # an id that is malformed or no longer supported
            raise ValueError(f"gymnasium cannot make {self.env_id!r}: {error}") from error
