"""Rewards in JAX loops of one's own, and on recorded data."""

import os
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.adapters._bridge import given_reward, non_finite
from reward_design.adapters._spaces import zeros
from reward_design.core import Output, Params, Reward, State, Transition, select_lanes
from reward_design.describe import require_online

__all__ = ["RewardEnv", "RewardEnvState", "recorded", "score"]


class RewardEnvState(NamedTuple):
    """State of a :class:`RewardEnv`.

    Attributes:
        env: states of the lanes, leaves ``[B, ...]``.
        obs: observations ``[B, ...]`` that the next actions start from.
        reward: state of the reward.
    """

    env: Any
    obs: Any
    reward: State


class RewardEnv:
    """A batch of lanes of a functional environment, paid by ``reward`` and reset as they end. Pure functions only.

    r'_t = reward(s_t, a_t, s_{t+1}) with the true successor, also where the lane has been reset within the step. The
    reward's params are an argument, so that a loop around it can train, sweep (``jax.vmap``) or differentiate them.

    Args:
        env: one lane as pure functions, ``reset(key) -> (obs, state)`` and ``step(key, state, action) -> (obs, state,
            reward, terminated, truncated, info)`` without autoreset, with ``action_space``; every
            :class:`reward_design.envs.FunctionalEnv` is one.
        reward: any reward of kind ``POINTWISE`` or ``CAUSAL``, or a file of :func:`reward_design.llm.save_reward`. All
            lanes share its running state.
        num_envs: number of lanes ``B``.

    Raises:
        TypeError: for a reward of kind ``TRAJECTORY`` (record transitions, and use :func:`score`).
        ValueError: if ``num_envs`` is below 1.

    Example:
        >>> import jax, jax.numpy as jnp, reward_design as rd
        >>> from reward_design.adapters.functional import RewardEnv
        >>> from reward_design.envs import task
        >>> env = RewardEnv(task("pendulum").env, rd.clip(-1.0, 0.0), num_envs=2)
        >>> params, state = env.init(jax.random.key(0))
        >>> obs, state = env.reset(jax.random.key(1), state)
        >>> step = jax.jit(env.step)
        >>> obs, state, reward, terminated, truncated, info = step(jax.random.key(2), params, state, jnp.zeros((2, 1)))
        >>> reward.shape, sorted(info["reward_terms"])
        ((2,), ['clip', 'environment'])
    """

    def __init__(self, env: Any, reward: Reward | str | os.PathLike[str], *, num_envs: int) -> None:
        reward = given_reward(reward)
        require_online(reward, "RewardEnv")
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self.env, self.reward, self.num_envs = env, reward, num_envs
        self._pay: Any = reward.step

    def init(self, key: Any) -> tuple[Params, RewardEnvState]:
        """The reward's params, and a state with all lanes reset: ``key -> (params, state)``."""
        key_reset, key_reward = jax.random.split(key)
        obs, env_state = self._reset_lanes(key_reset)
        action = jax.tree.map(jnp.asarray, zeros(self.env.action_space, self.num_envs))
        example = jax.eval_shape(self._transition, key, env_state, obs, action)[0]
        example = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
        params, reward_state = self.reward.init(key_reward, example)
        return params, RewardEnvState(env_state, obs, reward_state)

    def reset(self, key: Any, state: RewardEnvState) -> tuple[Any, RewardEnvState]:
        """New episodes in all lanes; running statistics of the reward stay: ``(key, state) -> (obs, state)``."""
        obs, env_state = self._reset_lanes(key)
        return obs, RewardEnvState(env_state, obs, state.reward._replace(episode=state.reward.fresh))

    def step(
        self, key: Any, params: Params, state: RewardEnvState, action: Any
    ) -> tuple[Any, RewardEnvState, Any, Any, Any, dict[str, Any]]:
        """One step of all lanes: ``-> (obs, state, reward, terminated, truncated, info)``, ``[B]`` each.

        ``obs`` is where the next action starts, a first observation in lanes that ended; ``info["final_obs"]`` is the
        true successor, ``info["env_reward"]`` what the environment paid and ``info["reward_terms"]`` the named terms.
        """
        key_step, key_reset = jax.random.split(key)
        transition, env_state = self._transition(key_step, state.env, state.obs, action)
        output, reward_state = self._pay(params, state.reward, transition)
        first = self._reset_lanes(key_reset)
        obs, env_state = select_lanes(transition.done, first, (transition.next_obs, env_state))
        own = {"env_reward": transition.reward, "reward_terms": output.terms, "final_obs": transition.next_obs}
        info = {**transition.info, **own}
        state = RewardEnvState(env_state, obs, reward_state)
        return obs, state, output.reward, transition.terminated, transition.truncated, info

    def _reset_lanes(self, key: Any) -> tuple[Any, Any]:
        return jax.vmap(self.env.reset)(jax.random.split(key, self.num_envs))

    def _transition(self, key: Any, env_state: Any, obs: Any, action: Any) -> tuple[Transition, Any]:
        step = jax.vmap(self.env.step)(jax.random.split(key, self.num_envs), env_state, action)
        next_obs, env_state, reward, terminated, truncated, info = step
        mask = jnp.ones(self.num_envs, bool)
        return Transition(obs, action, next_obs, reward, terminated, truncated & ~terminated, mask, info), env_state


# --- recorded data ----------------------------------------------------------------------------------------------------


def recorded(
    obs: Any,
    action: Any,
    next_obs: Any,
    reward: Any,
    terminated: Any,
    truncated: Any | None = None,
    *,
    mask: Any | None = None,
    info: Mapping[str, Any] | None = None,
) -> Transition:
    """A :class:`Transition` ``[T, B]`` from recorded arrays, which may be NumPy's and float64.

    Args:
        obs: ``[T, B, ...]`` (pytree), observation before the action.
        action: ``[T, B, ...]`` (pytree).
        next_obs: ``[T, B, ...]`` (pytree), true successor.
        reward: ``[T, B]`` what the environment paid.
        terminated: ``[T, B]`` bool.
        truncated: ``[T, B]`` bool, default False; where both are true, ``terminated`` wins.
        mask: ``[T, B]`` bool, False for padding, default True.
        info: named arrays ``[T, B, ...]``.

    Returns:
        The trajectory as JAX arrays.

    Raises:
        ValueError: if an array lacks the leading axes ``[T, B]`` of ``reward``.

    Example:
        >>> import numpy as np
        >>> from reward_design.adapters.functional import recorded
        >>> obs = np.arange(4.0)[:, None]
        >>> recorded(obs[:-1], np.zeros((3, 1)), obs[1:], np.ones((3, 1)), np.zeros((3, 1), bool)).mask.shape
        (3, 1)
    """
    lead = np.shape(reward)
    if len(lead) != 2:
        raise ValueError(f"reward must have shape [T, B], got {lead}; add an axis [:, None] to one episode.")
    terminated = jnp.asarray(terminated, bool)
    truncated = jnp.zeros(lead, bool) if truncated is None else jnp.asarray(truncated, bool)
    mask = jnp.ones(lead, bool) if mask is None else jnp.asarray(mask, bool)
    obs, action, next_obs = jax.tree.map(jnp.asarray, (obs, action, next_obs))
    reward = jnp.asarray(reward, jnp.result_type(float))
    info = {name: jnp.asarray(value) for name, value in (info or {}).items()}
    made = Transition(obs, action, next_obs, reward, terminated, truncated & ~terminated, mask, info)
    for path, leaf in jax.tree_util.tree_leaves_with_path(made):
        if leaf.shape[:2] != lead:
            where = jax.tree_util.keystr(path).lstrip(".")
            raise ValueError(f"{where} must start with the axes [T, B] = {lead} of reward, got shape {leaf.shape}.")
    return made


def score(reward: Reward, trajectory: Transition, *, params: Params = None, seed: int = 0) -> Output:
    """Rewards of recorded episodes, for any kind of reward: what it would have paid.

    Args:
        reward: any reward.
        trajectory: ``[T, B]`` leaves, see :func:`recorded`; each lane starts at the start of an episode.
        params: the reward's params, where they are not what ``reward.init`` makes.
        seed: of the key for ``reward.init``.

    Returns:
        :class:`Output` with NumPy arrays ``[T, B]``.

    Raises:
        ValueError: if the reward does not fit the data.
        NonFiniteRewardError: if a reward is NaN or infinite, naming reward, term, step and lane.

    Example:
        >>> import numpy as np, reward_design as rd
        >>> from reward_design.adapters.functional import recorded, score
        >>> obs = np.arange(4.0)[:, None]
        >>> data = recorded(obs[:-1], np.zeros((3, 1)), obs[1:], np.ones((3, 1)), np.array([[False], [False], [True]]))
        >>> score(rd.delayed(rd.environment_reward()), data).reward[:, 0].tolist()
        [0.0, 0.0, 3.0]
    """
    if np.ndim(trajectory.reward) != 2:
        raise ValueError(f"trajectory must have leaves [T, B], got reward of shape {np.shape(trajectory.reward)}.")
    example = jax.tree.map(lambda x: jnp.zeros(x.shape[1:], x.dtype), trajectory)
    initial, state = reward.init(jax.random.key(seed), example)
    output = jax.device_get(_unroll(reward.unroll, initial if params is None else params, state, trajectory))
    finite = np.isfinite(output.reward)
    if not finite.all():
        step, lane = np.argwhere(~finite)[0]
        terms = {name: term[step, lane] for name, term in output.terms.items()}
        raise non_finite(reward, output.reward[step, lane], terms, f"step {step} of lane {lane}")
    return output


@partial(jax.jit, static_argnums=0)
def _unroll(unroll: Any, params: Params, state: State, trajectory: Transition) -> Output:
    return unroll(params, state, trajectory)[0]
