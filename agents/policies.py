"""Trained policies as functions of an observation, and what plans instead."""

import abc
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.agents import base
from reward_design.agents.collector import HostPolicy, RecurrentPolicy
from reward_design.combinators import environment_reward
from reward_design.envs.base import FunctionalEnv, Task, example_transition
from reward_design.envs.host import HostEnv, map_space, numeric_parts


class Policy:
    """A trained policy: NumPy observations in, NumPy actions out, one at a time or batched.

    A policy with memory remembers from call to call: call :meth:`reset` where episodes begin.

    Args:
        agent: the :class:`~reward_design.agents.base.Agent` that learned it, or one of another library.
        config: its settings.
        env: where it acts.
        state: state of one run, or the part of it that the agent acts from.
        task: the task of ``env``, if there is one.
        deterministic: the mode of the policy instead of samples.
        seed: of the samples.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.agents import Policy, agent, ppo
        >>> from reward_design.envs import task
        >>> chain, config = task("chain"), ppo.Config(total_timesteps=256, num_envs=4)
        >>> result = ppo.train(config, chain, rd.environment_reward(), jax.random.key(0))
        >>> policy = Policy(agent("ppo"), config, chain.env, result.state)
        >>> int(policy(3)) in (0, 1), policy(np.array([3, 4])).shape
        (True, (2,))
    """

    def __init__(
        self,
        agent: Any,
        config: Any,
        env: FunctionalEnv | HostEnv,
        state: Any,
        *,
        task: Task | None = None,
        deterministic: bool = True,
        seed: int = 0,
    ) -> None:
        self.agent, self.config, self.env, self.state, self.task = agent, config, env, state, task
        self.deterministic = deterministic
        shapes = map_space(lambda part: np.broadcast_to(np.float32(0), part.shape or ()), env.observation_space)
        self._shapes = [np.shape(part) for part in jax.tree.leaves(shapes)]
        self._acting: dict[bool, HostPolicy | RecurrentPolicy] = {}
        self.reset(seed)

    def reset(self, seed: int | None = None) -> None:
        """Start new episodes, with nothing remembered; ``seed`` also starts the samples anew."""
        self._carry: Any = None
        if seed is not None:
            self._rng = np.random.default_rng(seed)

    def __call__(self, obs: Any, *, deterministic: bool | None = None) -> Any:
        """The action for an observation, or actions for a batch of them.

        Args:
            obs: as the environment gives it, or with one leading batch axis.
            deterministic: the mode instead of a sample, where it is to differ from the policy's own.

        Returns:
            Action in the environment's action space, with the same leading axis.

        Raises:
            ValueError: if the observation does not have the shape of the environment's, or if a policy with memory gets
                another number of observations than before.
        """
        obs, single = self._batched(obs)
        mode = self.deterministic if deterministic is None else deterministic
        if mode not in self._acting:
            self._acting[mode] = acting(self.agent, self.config, self.env, self.state, deterministic=mode)
        action = np.asarray(self._act(self._acting[mode], obs), self.env.action_space.dtype)
        return action[0] if single else action

    def _act(self, policy: HostPolicy | RecurrentPolicy, obs: Any) -> np.ndarray:
        if not isinstance(policy, RecurrentPolicy):
            return policy(obs, self._rng)[0]
        lanes = len(jax.tree.leaves(obs)[0])
        carry = policy.initial_carry(lanes) if self._carry is None else self._carry
        known = len(jax.tree.leaves(carry)[0])
        if known != lanes:
            raise ValueError(
                f"the policy for {self.env.name!r} remembers {known} episode(s), got {lanes} observation(s); call "
                "reset() to start others."
            )
        action, _, self._carry = policy.step(obs, self._rng, carry, np.zeros(lanes, bool))
        return action

    def _batched(self, obs: Any) -> tuple[Any, bool]:
        """``(obs [B, ...], whether it came without that axis)``."""
        try:
            parts = numeric_parts(self.env.observation_space, obs)
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"the policy for {self.env.name!r} expects observations of {self.env.observation_space}, and found no "
                f"{error} in what it got."
            ) from None
        shapes = [np.shape(part) for part in jax.tree.leaves(parts)]
        lead = {found[: len(found) - len(shape)] for found, shape in zip(shapes, self._shapes)}
        fits = all(found[len(found) - len(shape) :] == shape for found, shape in zip(shapes, self._shapes))
        if not fits or len(lead) != 1 or len(min(lead)) > 1:
            raise ValueError(
                f"the policy for {self.env.name!r} expects observations of {self.env.observation_space}, or a batch of "
                f"them with one axis in front, got shape {shapes[0] if len(shapes) == 1 else shapes}."
            )
        return (parts, False) if min(lead) else (jax.tree.map(lambda x: x[None], parts), True)


class Planner(abc.ABC):
    """A policy that decides from the state of the simulator, not from the observation alone.

    Attributes:
        task: the task.
    """

    task: Task

    @abc.abstractmethod
    def attach(self, envs: Any) -> None:
        """Decide for this environment from now on: a vector environment, or a single one."""

    @abc.abstractmethod
    def reset(self, seed: int | None = None) -> None:
        """Forget all plans; ``seed`` also starts what is random anew."""

    @abc.abstractmethod
    def __call__(self, obs: Any) -> np.ndarray:
        """Actions for the observations that the attached environment shows now."""


def acting(
    agent: Any, config: Any, env: FunctionalEnv | HostEnv, state: Any, *, deterministic: bool
) -> HostPolicy | RecurrentPolicy:
    """The policy of a state for observations on the host, for every agent: in NumPy where it has that, or jitted."""
    if agent.host_policy is not None:
        return agent.host_policy(config, env, state, deterministic=deterministic)

    def jitted(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        key = jax.random.key(int(rng.integers(2**31)))
        return jax.device_get(_act(agent, env, deterministic, config, state, obs, key)), ()

    return jitted


@partial(jax.jit, static_argnums=(0, 1, 2))
def _act(
    agent: base.Agent,
    env: FunctionalEnv | HostEnv,
    deterministic: bool,
    config: Any,
    state: Any,
    obs: Any,
    key: Any,
) -> Any:
    return agent.act(config, env, state, obs, key, deterministic=deterministic)


def abstract_state(agent: base.Agent, config: Any, env: FunctionalEnv | HostEnv) -> Any:
    """Shapes of a state; what a reward has in it is left to the reward."""
    reward = environment_reward()
    return jax.eval_shape(lambda key: agent.init(config, env, reward, key, None), jax.random.key(0))


def acted_from(agent: base.Agent, config: Any, env: FunctionalEnv | HostEnv) -> list[str]:
    """Names of the fields of the state that ``agent.act`` and ``agent.host_policy`` read, and ``num_updates``."""
    state, seen = abstract_state(agent, config, env), {"num_updates"}
    memory = {} if agent.initial_carry is None else {"carry": agent.initial_carry(config, env, 1)}

    def act(fields: Any, obs: Any, key: Any) -> Any:
        return agent.act(config, env, _watched(state, fields, seen), obs, key, **memory)

    jax.eval_shape(act, tuple(state), example_transition(env).obs, jax.random.key(0))
    if agent.host_policy is not None:
        zeros = _watched(state, jax.tree.map(_zeros, tuple(state)), seen)
        agent.host_policy(config, env, zeros, deterministic=True)
    return [name for name in state._fields if name in seen]


def _watched(state: Any, fields: Any, seen: set[str]) -> Any:
    """A state of ``fields`` that notes which of them are read."""

    class Watched(type(state)):
        def __getattribute__(self, name: str) -> Any:
            if name in state._fields:
                seen.add(name)
            return super().__getattribute__(name)

    return Watched(*fields)


def _zeros(x: Any) -> Any:
    """Zeros that take no memory, whatever their shape."""
    if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return jax.random.key(0)
    return np.broadcast_to(np.zeros((), x.dtype), x.shape)
