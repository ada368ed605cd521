"""Pendulum: swing a rod up with a motor too weak to lift it, and hold it there. Continuous action.

The equations and constants are those of gymnasium's Pendulum-v1: θ'' = (3 g / 2 l) sin θ + 3 u / (m l²).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float

from reward_design.combinators import environment_reward
from reward_design.core import Transition
from reward_design.envs import control_pictures
from reward_design.envs.base import EnvState, Factor, FunctionalEnv, Task
from reward_design.envs.control import check_settings, weighted

MAX_SPEED, MAX_TORQUE, TIME_STEP, GRAVITY = 8.0, 2.0, 0.05, 10.0
UPRIGHT_ANGLE, UPRIGHT_SPEED = 12 * math.pi / 180, 1.0


class Pendulum(FunctionalEnv):
    """Euler steps of 0.05 s; the environment pays −(θ² + 0.1 θ'² + 0.001 u²), θ = 0 upright; it never terminates.

    The observation is ``[cos θ, sin θ, θ']``; the angle starts uniform in [−π, π], the velocity in [−1, 1]. The action
    is a torque in [−2, 2] (clipped), shape ``[1]``.

    Args:
        horizon: time limit.
        gamma: discount per step.
    """

    name = "pendulum"
    render_fps = 20

    def __init__(self, *, horizon: int = 200, gamma: float = 0.99):
        check_settings(self.name, horizon=horizon, gamma=gamma)
        self.horizon, self.gamma = horizon, gamma
        high = np.array([1.0, 1.0, MAX_SPEED], np.float32)
        self.observation_space = spaces.Box(-high, high)
        self.action_space = spaces.Box(-MAX_TORQUE, MAX_TORQUE, (1,))

    def _reset(self, key: Any) -> tuple[Array, Array]:
        inner = jax.random.uniform(key, (2,), jnp.float32, -1.0, 1.0) * jnp.float32([math.pi, 1.0])
        return _observe(inner), inner

    def _step(self, key: Any, inner: Array, action: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        theta, speed = inner[0], inner[1]
        torque = jnp.clip(action[0], -MAX_TORQUE, MAX_TORQUE)
        angle = (theta + math.pi) % (2 * math.pi) - math.pi
        reward = -(angle**2 + 0.1 * speed**2 + 0.001 * torque**2)
        speed = speed + (1.5 * GRAVITY * jnp.sin(theta) + 3.0 * torque) * TIME_STEP
        speed = jnp.clip(speed, -MAX_SPEED, MAX_SPEED)
        inner = jnp.stack([theta + speed * TIME_STEP, speed])
        return _observe(inner), inner, reward, jnp.bool_(False), {}

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """The rod and its speed."""
        return control_pictures.pendulum(obs[0], obs[1], obs[2], max_speed=MAX_SPEED)

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True where the episode ends (time limit) with the rod within 12 degrees of upright, slower than 1 rad/s."""
        return jnp.logical_and(transition.truncated, upright(transition.next_obs))


def _observe(inner: Array) -> Array:
    return jnp.stack([jnp.cos(inner[0]), jnp.sin(inner[0]), inner[1]])


def angle(obs: Any) -> Float[Array, "*batch"]:
    """Angle from upright in [−π, π], rad."""
    return jnp.arctan2(obs[..., 1], obs[..., 0])


def upright(obs: Any) -> Bool[Array, "*batch"]:
    """Within 12 degrees of upright and slower than 1 rad/s."""
    return jnp.asarray((obs[..., 0] >= math.cos(UPRIGHT_ANGLE)) & (jnp.abs(obs[..., 2]) <= UPRIGHT_SPEED))


def energy(obs: Any) -> Float[Array, "*batch"]:
    """Mechanical energy θ'² / 6 + 5 cos θ in joule: −5 hanging at rest, 5 upright at rest."""
    return jnp.asarray(obs[..., 2] ** 2 / 6 + 0.5 * GRAVITY * obs[..., 0])


def potential(obs: Any) -> Float[Array, "*batch"]:
    """φ = ½ max(0, 1 − |E − 5| / 10) + ¼ (1 + cos θ), in [0, 1]: the energy of the upright position, then the angle."""
    return 0.5 * jnp.maximum(0.0, 1.0 - jnp.abs(energy(obs) - 5.0) / 10.0) + 0.25 * (1.0 + obs[..., 0])


def balance(transition: Transition) -> Float[Array, "*batch"]:
    """(1 + cos θ)/2 − 0.01 θ'² − 0.001 u², with θ and θ' after the step."""
    obs, torque = transition.next_obs, transition.action[..., 0]
    return jnp.asarray(0.5 * (1 + obs[..., 0]) - 0.01 * obs[..., 2] ** 2 - 0.001 * torque**2)


def pumping(transition: Transition) -> Float[Array, "*batch"]:
    """(u / 2) tanh θ' clip((5 − E) / 10, −1, 1): torque that moves the energy towards that of the upright position."""
    obs, torque = transition.obs, jnp.clip(transition.action[..., 0], -MAX_TORQUE, MAX_TORQUE)
    return torque / MAX_TORQUE * jnp.tanh(obs[..., 2]) * jnp.clip((5.0 - energy(obs)) / 10.0, -1.0, 1.0)


def pendulum(**settings: Any) -> Task:
    """The task ``pendulum``; the environment's own (true) reward is gymnasium's quadratic cost.

    ``sparse_reward`` pays 1 on each step that ends upright (12 degrees, 1 rad/s). ``aligned`` (``pumping``) pays for
    the energy of the upright position; ``misaligned`` (``spin``, 3 per rad/s) outweighs the cost, so that whirling
    round at full speed is best.

    Keeps the optimal policy: ``sparse_reward`` and ``dense_reward`` nearly (they end upright as well); ``aligned``
    nearly; ``misaligned`` no.

    Args:
        settings: of :class:`Pendulum`: ``horizon``, ``gamma``.

    Returns:
        A :class:`Task`. Success is being upright when the episode ends.

    Example:
        >>> from reward_design.envs.pendulum import pendulum
        >>> pendulum().env.action_space.shape
        (1,)
    """
    env = Pendulum(**settings)
    return Task(
        name=env.name,
        description=(
            "A rod hangs from a motor that is too weak to lift it in one go: swing it up and balance it upright. "
            "Observation: cosine and sine of the angle (0 is upright) and the angular velocity, up to 8 rad/s. "
            "Action: a torque in [-2, 2]. The environment pays minus a cost, angle^2 + 0.1 velocity^2 + "
            f"0.001 torque^2, and stops after {env.horizon} steps; success is being upright at that moment."
        ),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("upright", lambda t: upright(t.next_obs)),
        dense_reward=weighted("dense", balance),
        factors=FACTORS,
        potential=potential,
        auxiliary={
            "aligned": weighted("pumping", pumping),
            "misaligned": weighted("spin", lambda t: jnp.abs(t.next_obs[..., 2]), 3.0),
        },
    )


FACTORS = {
    "upright": Factor(
        lambda t: upright(t.next_obs).astype(jnp.float32), "1", 1, "1 within 12 degrees of upright and below 1 rad/s"
    ),
    "tilt": Factor(lambda t: jnp.abs(angle(t.next_obs)), "rad", -1, "absolute angle from upright, in [0, pi]"),
    "speed": Factor(lambda t: jnp.abs(t.next_obs[..., 2]), "rad/s", -1, "absolute angular velocity, up to 8"),
    "energy_error": Factor(
        lambda t: jnp.abs(energy(t.next_obs) - 5.0), "J", -1, "distance of the energy from that of standing upright"
    ),
    "effort": Factor(lambda t: jnp.abs(t.action[..., 0]), "N m", -1, "absolute torque, up to 2"),
}
