"""Any gymnax environment as a task.

Source: R. T. Lange, "gymnax: A JAX-based Reinforcement Learning Environment Library", 2022 (version 1.x).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool

from reward_design._optional import require
from reward_design.combinators import environment_reward
from reward_design.core import Reward, Transition
from reward_design.envs.base import EnvState, Factor, FunctionalEnv, Task
from reward_design.envs.control import check_known, check_settings, strongly_typed, weighted

Success = Callable[[Transition], Any]


class GymnaxEnv(FunctionalEnv):
    """A gymnax environment without its autoreset: ``reset_env`` and ``step_env`` of the library.

    An episode is truncated where the library says so (``is_truncated``), and terminated wins. gymnax stops gradients
    through its transitions. ``info`` holds what the library reports, and ``elapsed``, the share of the time limit.

    Args:
        env_id: an id of ``gymnax.registered_envs``, for example ``"Breakout-MinAtar"``.
        horizon: time limit; the library's if left out.
        gamma: discount per step.
        success: ``transition -> [B]`` bool; see :func:`default_success`.
        params: fields of the environment's ``EnvParams`` to change.
    """

    def __init__(
        self,
        env_id: str,
        *,
        horizon: int | None = None,
        gamma: float = 0.99,
        success: Success | None = None,
        params: Mapping[str, Any] | None = None,
    ):
        gymnax = require("gymnax", "jaxenvs", "gymnax environments")
        check_known("gymnax environment", env_id, gymnax.registered_envs)
        self.library_env, self.params = gymnax.make(env_id)
        known = vars(self.params)
        for field in params or {}:
            check_known(f"parameter of gymnax environment {env_id!r}", field, known)
        changes = dict(params or {}) | ({} if horizon is None else {"max_steps_in_episode": horizon})
        self.params = self.params.replace(**changes)
        self.name, self.gamma, self.horizon = f"gymnax/{env_id}", gamma, int(self.params.max_steps_in_episode)
        check_settings(self.name, horizon=self.horizon, gamma=gamma)
        self._success = success or default_success(env_id)
        obs = jax.eval_shape(self.reset, jax.random.key(0))[0]
        self.observation_space = _space(self.library_env.observation_space(self.params), obs)
        self.action_space = _space(self.library_env.action_space(self.params))

    def _reset(self, key: Any) -> tuple[Any, Any]:
        return strongly_typed(self.library_env.reset_env(key, self.params))

    def _step(self, key: Any, inner: Any, action: Any) -> tuple[Any, Any, Array, Array, dict[str, Any]]:
        obs, inner, reward, terminated, info = self.library_env.step_env(key, inner, action, self.params)
        reward, terminated = jnp.asarray(reward, jnp.float32), jnp.asarray(terminated, bool)
        obs, inner, info = strongly_typed((obs, inner, {**info, "elapsed": inner.time / self.horizon}))
        return obs, inner, reward, terminated, info

    def step(self, key: Any, state: EnvState, action: Any) -> tuple[Any, EnvState, Array, Array, Array, dict[str, Any]]:
        """One step; the time limit is the library's."""
        obs, new, reward, terminated, _, info = super().step(key, state, action)
        truncated = jnp.asarray(self.library_env.is_truncated(new.inner, self.params), bool)
        return obs, new, reward, terminated, truncated & ~terminated, info

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """What ``success`` says, see :func:`gymnax_task`."""
        return jnp.asarray(self._success(transition))


def default_success(env_id: str) -> Success:
    """What counts as success where the user does not say it.

    MountainCar and Acrobot: the episode terminates. CartPole and the MinAtar games: it does not terminate before the
    time limit. Anything else: it terminates with a positive reward.
    """
    if env_id.startswith(("MountainCar", "Acrobot")):
        return lambda t: jnp.asarray(t.terminated)
    if env_id == "CartPole-v1" or env_id.endswith("-MinAtar"):
        return lambda t: jnp.logical_and(t.truncated, jnp.logical_not(t.terminated))
    return lambda t: jnp.logical_and(t.terminated, t.reward > 0)


def gymnax_task(
    env_id: str,
    *,
    horizon: int | None = None,
    gamma: float = 0.99,
    description: str | None = None,
    sparse_reward: Reward | None = None,
    dense_reward: Reward | None = None,
    factors: Mapping[str, Factor] | None = None,
    potential: Callable[[Any], Any] | None = None,
    auxiliary: Mapping[str, Reward] | None = None,
    success: Success | None = None,
    **params: Any,
) -> Task:
    """Task for a gymnax environment; what the library does not know about it can be given.

    Keeps the optimal policy: ``dense_reward`` yes (the environment's own unless given); the others as given.

    Args:
        env_id: an id of ``gymnax.registered_envs``.
        horizon: time limit; the library's if left out.
        gamma: discount per step.
        description: text; the id and the spaces if left out.
        sparse_reward: 1 on success if left out.
        dense_reward: the environment's own if left out.
        factors: added to ``reward``, ``survival`` and ``elapsed``.
        potential: ``obs -> [B]``; zero if left out.
        auxiliary: auxiliary rewards by name; none if left out.
        success: ``transition -> [B]`` bool; :func:`default_success` if left out.
        params: fields of the environment's ``EnvParams`` to change, ``length=0.7`` of CartPole-v1 say.

    Returns:
        A :class:`Task` named ``gymnax/<id>``.

    Raises:
        ImportError: without the extra ``jaxenvs``.
        ValueError: for an unknown id or parameter, with the nearest one.
    """
    env = GymnaxEnv(env_id, horizon=horizon, gamma=gamma, success=success, params=params)
    return Task(
        name=env.name,
        description=description
        or (
            f"The environment {env_id} of the gymnax library. Observations: {env.observation_space}. Actions: "
            f"{env.action_space}. It stops after {env.horizon} steps."
        ),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=sparse_reward or weighted("success", env.success),
        dense_reward=dense_reward or environment_reward(),
        factors={**FACTORS, **(factors or {})},
        potential=potential or _zero_potential(env),
        auxiliary=dict(auxiliary or {}),
    )


def _zero_potential(env: FunctionalEnv) -> Callable[[Any], Array]:
    """φ = 0 with the leading axes of the observation."""
    rank = len(jax.tree.leaves(jax.eval_shape(env.reset, jax.random.key(0))[0])[0].shape)

    def potential(obs: Any) -> Array:
        shape = jnp.shape(jax.tree.leaves(obs)[0])
        return jnp.zeros(shape[: len(shape) - rank])

    return potential


def _space(space: Any, obs: Any = None) -> spaces.Space:
    """The gymnasium space of a gymnax one; bounds as declared, shape and dtype as the environment really gives them."""
    if hasattr(space, "n"):
        return spaces.Discrete(int(space.n))
    if hasattr(space, "spaces"):
        parts = space.spaces
        if isinstance(parts, Mapping):
            return spaces.Dict({k: _space(v, None if obs is None else obs[k]) for k, v in parts.items()})
        return spaces.Tuple([_space(v, None if obs is None else obs[i]) for i, v in enumerate(parts)])
    shape, dtype = (space.shape, np.float32) if obs is None else (obs.shape, obs.dtype)
    low, high = (np.broadcast_to(np.asarray(b, dtype), shape) for b in (space.low, space.high))
    return spaces.Box(low, high, shape, np.dtype(dtype).type)


FACTORS = {
    "reward": Factor(lambda t: jnp.asarray(t.reward, jnp.float32), "1", 1, "the reward that the environment gave"),
    "survival": Factor(
        lambda t: jnp.logical_not(t.terminated).astype(jnp.float32), "1", 1, "1 where the episode does not terminate"
    ),
    "elapsed": Factor(
        lambda t: jnp.asarray(t.info["elapsed"], jnp.float32), "1", -1, "share of the time limit that has passed"
    ),
}
