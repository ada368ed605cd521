"""A functional environment seen as a gymnasium environment."""

import functools
from typing import Any

import gymnasium
import jax
import numpy as np
from gymnasium import spaces

from reward_design._forked import refuse_forked
from reward_design.envs.base import EnvState, FunctionalEnv


class GymnasiumView(gymnasium.Env):
    """One lane of a :class:`FunctionalEnv` behind gymnasium's interface: jitted inside, NumPy outside.

    All views of one environment share the compiled functions. ``reset(seed=...)`` fixes everything that follows, later
    resets without a seed included. ``info`` is the functional environment's, as NumPy values.

    Args:
        env: the functional environment.
        render_mode: ``"rgb_array"``, or ``"ansi"`` where the environment has pictures in text.

    Raises:
        ValueError: for a render mode that the environment does not have.

    Example:
        >>> from reward_design.envs import task
        >>> view = GymnasiumView(task("four_rooms").functional())
        >>> obs, info = view.reset(seed=0)
        >>> obs, reward, terminated, truncated, info = view.step(1)
        >>> int(obs), reward, terminated, truncated
        (1, 0.0, False, False)
    """

    def __init__(self, env: FunctionalEnv, *, render_mode: str | None = None) -> None:
        self.metadata = {"render_modes": list(env.render_modes), "render_fps": env.render_fps}
        if render_mode not in (None, *env.render_modes):
            raise ValueError(
                f"render_mode of {env.name!r} must be {' or '.join(map(repr, env.render_modes))}, got {render_mode!r}."
            )
        self.env = env
        self.observation_space = env.observation_space
        self.action_space = env.action_space
        self.render_mode = render_mode
        self._key: Any = None
        self._state: EnvState | None = None
        self._obs: Any = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode. ``options`` are not used by any task.

        Raises:
            RuntimeError: in a process that was forked after JAX had started.
        """
        refuse_forked()
        super().reset(seed=seed)
        draw = int(self.np_random.integers(2**31))
        self._key, self._state, obs = _reset(self.env, draw)
        self._obs = obs
        return _as_numpy(obs, self.observation_space), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One step; the caller resets after ``terminated`` or ``truncated``.

        Raises:
            RuntimeError: before the first ``reset``, or in a process that was forked after JAX had started.
            ValueError: for an action outside the action space.
        """
        refuse_forked()
        if self._state is None:
            raise RuntimeError(f"{self.env.name!r} must be reset before the first step; call env.reset().")
        if not self.action_space.contains(action):
            raise ValueError(f"action of {self.env.name!r} must be in {self.action_space}, got {action!r}.")
        self._key, self._state, outcome = _step(self.env, self._key, self._state, _as_input(action, self.action_space))
        obs, reward, terminated, truncated, info = jax.device_get(outcome)
        self._obs = obs
        info = jax.tree.map(lambda x: np.asarray(x)[()], info)
        return _as_numpy(obs, self.observation_space), float(reward), bool(terminated), bool(truncated), info

    def render(self) -> Any:
        """The present state as ``[H, W, 3]`` uint8 or as text, by ``render_mode``; None without one.

        Raises:
            RuntimeError: before the first ``reset``.
        """
        if self.render_mode is None:
            return None
        if self._state is None:
            raise RuntimeError(f"{self.env.name!r} must be reset before it is drawn; call env.reset().")
        state, obs = jax.device_get((self._state, self._obs))
        return self.env.render_text(state) if self.render_mode == "ansi" else self.env.render(state, obs)


@functools.partial(jax.jit, static_argnums=0)
def _reset(env: FunctionalEnv, seed: Any) -> tuple[Any, EnvState, Any]:
    key, start = jax.random.split(jax.random.key(seed))
    obs, state = env.reset(start)
    return key, state, obs


@functools.partial(jax.jit, static_argnums=0)
def _step(env: FunctionalEnv, key: Any, state: EnvState, action: Any) -> tuple[Any, EnvState, tuple]:
    key, move = jax.random.split(key)
    obs, state, *outcome = env.step(move, state, action)
    return key, state, (obs, *outcome)


def _as_input(action: Any, space: spaces.Space) -> Any:
    """Actions in one dtype, whatever the caller sends, so that the step is compiled once."""
    return np.asarray(action, np.int32 if isinstance(space, spaces.Discrete) else space.dtype)


def _as_numpy(obs: Any, space: spaces.Space) -> Any:
    """Fresh NumPy values in the dtypes of the space."""
    if isinstance(space, spaces.Dict):
        return {name: _as_numpy(obs[name], part) for name, part in space.spaces.items()}
    return np.array(obs, space.dtype)[()]
