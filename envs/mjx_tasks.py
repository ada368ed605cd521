"""MuJoCo on the device: ``mjx/<name>``, gymnasium's environments (version 5) stepped by MJX inside jitted training.

What is observed, paid and ended on is that of the tasks ``mujoco/<name>``; the simulator is MJX, in the precision of
JAX. Made for a GPU and thousands of lanes: on a CPU it is slower than ``mujoco/<name>`` by an order of magnitude.
"""

import contextlib
import io
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array

from reward_design._names import suggestion
from reward_design._optional import require
from reward_design.core import Transition
from reward_design.envs.base import EnvState, FunctionalEnv, Task
from reward_design.envs.control import check_settings
from reward_design.envs.mujoco_gl import import_mujoco
from reward_design.envs.mujoco_maths import MODELS
from reward_design.envs.mujoco_tasks import assembled, succeeded
from reward_design.envs.mujoco_texts import FACTS

NOISE = {
    "HalfCheetah": (0.1, "normal"), "Hopper": (0.005, "uniform"), "Walker2d": (0.005, "uniform"),
    "Swimmer": (0.1, "uniform"), "InvertedPendulum": (0.01, "uniform"), "Reacher": (0.1, "target"),
}  # fmt: skip
"""By environment: positions start uniform within this of the model's, and how velocities are drawn.

``normal`` and ``uniform`` are of the same size as the positions; ``target`` is Reacher's: velocities of ±0.005, and the
target, the last two positions, uniform in a disc of 0.2 m. Ant and Humanoid observe contact forces and Pusher has
collisions that MJX does not compute as MuJoCo does: they are left to the host.
"""


class MjxEnv(FunctionalEnv):
    """One of gymnasium's MuJoCo environments, stepped by MJX.

    A state that is not finite ends its episode: truncated, reward 0, the observation before,
    ``info["simulator_fault"]`` true, as on the host.

    Args:
        base: a key of :data:`NOISE`.
        horizon: time limit; by default gymnasium's.
        gamma: discount per step.
    """

    def __init__(self, base: str, *, horizon: int | None, gamma: float) -> None:
        import_mujoco("mujoco", "MuJoCo environments")
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that another simulator is not there
            self._mjx: Any = require("mujoco.mjx", "mjx", "MuJoCo environments on the device")
        self.base, self.name, self.gamma = base, f"mjx/{base}", gamma
        self.horizon = (gymnasium.spec(f"{base}-v5").max_episode_steps or 1000) if horizon is None else horizon
        check_settings(self.name, horizon=self.horizon, gamma=gamma)
        made: Any = gymnasium.make(f"{base}-v5").unwrapped
        self._model, self._dt, self._frame_skip = made.model, made.dt, made.frame_skip
        self._start = (np.float32(made.init_qpos), np.float32(made.init_qvel))
        self.render_fps = round(1 / made.dt)
        self.observation_space = spaces.Box(-np.inf, np.inf, made.observation_space.shape, np.float32)
        self.action_space = made.action_space
        made.close()
        self._device_model = self._mjx.put_model(self._model)
        self._maths = MODELS[base]
        self._weight = self._maths.control[1] if self._maths.control else 0.0
        self._camera: Any = None

    def _reset(self, key: Any) -> tuple[Array, dict[str, Array]]:
        place, speed, target = jax.random.split(key, 3)
        size, kind = NOISE[self.base]
        qpos = self._start[0] + size * jax.random.uniform(place, self._start[0].shape, minval=-1.0)
        if kind == "normal":
            qvel = self._start[1] + size * jax.random.normal(speed, self._start[1].shape)
        else:
            around = 0.005 if kind == "target" else size
            qvel = self._start[1] + around * jax.random.uniform(speed, self._start[1].shape, minval=-1.0)
        if kind == "target":
            qpos = qpos.at[-2:].set(0.2 * jax.random.ball(target, 2))
            qvel = qvel.at[-2:].set(0.0)
        inner = self.at(qpos, qvel)
        return self._observe(inner), inner

    def at(self, qpos: Any, qvel: Any) -> dict[str, Array]:
        """The state of a simulator that was put there, as :class:`EnvState` holds it (``inner``).

        Args:
            qpos: positions ``[nq]``.
            qvel: velocities ``[nv]``.
        """
        data = self._mjx.make_data(self._device_model).replace(qpos=jnp.asarray(qpos), qvel=jnp.asarray(qvel))
        if set(self._maths.fields) - {"qpos", "qvel"}:
            with _lenient():
                data = self._mjx.forward(self._device_model, data)
        return self._kept(data)

    def _step(self, key: Any, inner: dict[str, Array], action: Any) -> tuple[Array, Any, Array, Array, dict[str, Any]]:
        model = self._device_model
        start = self._mjx.make_data(model).replace(**inner, ctrl=jnp.asarray(action))
        with _lenient():
            data = jax.lax.fori_loop(0, self._frame_skip, lambda _, data: self._mjx.step(model, data), start)
        after = self._kept(data)
        fault = ~(jnp.isfinite(after["qpos"]).all() & jnp.isfinite(after["qvel"]).all())
        after = jax.tree.map(lambda new, old: jnp.where(fault, old, new), after, inner)
        old, new, given = jax.tree.map(lambda x: x[None], (inner, after, jnp.asarray(action)))
        scored = self._maths.score(old, new, given, self._model, self._dt, self._weight)
        reward, terminated, info = jax.tree.map(lambda x: jnp.where(fault, jnp.zeros_like(x[0]), x[0]), scored)
        return self._observe(after), after, reward, terminated, {**info, "simulator_fault": fault}

    def step(self, key: Any, state: EnvState, action: Any) -> tuple[Any, EnvState, Array, Array, Array, dict[str, Any]]:
        """See :class:`FunctionalEnv`; a fault of the simulator truncates as the time limit does."""
        obs, state, reward, terminated, truncated, info = super().step(key, state, action)
        return obs, state, reward, terminated, truncated | info["simulator_fault"], info

    def success(self, transition: Transition) -> Any:
        """See the task's description."""
        return succeeded(self.base, transition, FACTS[self.base].success)

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """The picture that gymnasium's environment has of this state."""
        if self._camera is None:
            self._camera = gymnasium.make(f"{self.base}-v5", render_mode="rgb_array").unwrapped
            self._camera.reset(seed=0)
        self._camera.set_state(*(np.asarray(state.inner[name], np.float64) for name in ("qpos", "qvel")))
        return self._camera.render()

    def _kept(self, data: Any) -> dict[str, Array]:
        """What the next step and the maths need of the simulator's data."""
        return {name: getattr(data, name) for name in (*self._maths.fields, "qacc_warmstart")}

    def _observe(self, inner: dict[str, Array]) -> Array:
        return self._maths.observe({name: x[None] for name, x in inner.items()})[0]


def mjx_task(env_id: str, *, distance: float | None = None, horizon: int | None = None, gamma: float = 0.99) -> Task:
    """The task ``mjx/<env_id>``: that of ``mujoco/<env_id>``, on the device.

    Factors, potential, auxiliary rewards and success are those of
    :func:`reward_design.envs.mujoco_tasks.mujoco_task`; see there.

    Args:
        env_id: HalfCheetah, Hopper, Walker2d, Swimmer, InvertedPendulum or Reacher.
        distance: of the sparse reward; by default what suits the environment.
        horizon: time limit; by default gymnasium's.
        gamma: discount per step.

    Returns:
        A :class:`Task`, stepped on the device.

    Raises:
        ValueError: for another name.
        ImportError: without the extra ``mjx``.
    """
    if env_id not in NOISE:
        host = " On the host there is 'mujoco/" + env_id + "'." if env_id.partition("-")[0] in MODELS else ""
        raise ValueError(
            f"unknown MJX environment {env_id!r}{suggestion(env_id, NOISE)} There are {', '.join(NOISE)}.{host}"
        )
    facts = FACTS[env_id]
    env = MjxEnv(env_id, horizon=horizon, gamma=gamma)
    return assembled(env_id, env, facts.text, distance=facts.paid_past if distance is None else distance, varied=False)


# --- parts ----------------------------------------------------------------------------------------------------------


def _lenient() -> Any:
    """MJX multiplies arrays of different ranks, also for users who forbid it in their own code."""
    return jax.numpy_rank_promotion("allow")
