"""Acrobot: two links hang from a hinge; swing the lower end above a line with torque at the elbow alone.

Source: R. S. Sutton, "Generalization in Reinforcement Learning: Successful Examples Using Sparse Coarse Coding", 1996;
equations of the book by Sutton and Barto and constants of gymnasium's Acrobot-v1.
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
from reward_design.envs.control import check_settings, progress, weighted

GRAVITY, TIME_STEP = 9.8, 0.2
MAX_SPEED_1, MAX_SPEED_2 = 4 * math.pi, 9 * math.pi
# Both links: mass 1, length 1, centre of mass at 0.5, moment of inertia 1. The numbers below follow from these.


class Acrobot(FunctionalEnv):
    """Runge-Kutta steps of 0.2 s of the two-link equations; the environment pays −1 per step and 0 on success.

    The observation is ``[cos θ1, sin θ1, cos θ2, sin θ2, θ1', θ2']``, with θ1 = 0 hanging down and θ2 relative to the
    first link; angles and velocities start uniform in [−0.1, 0.1]. Actions 0, 1, 2 are torques −1, 0, 1 at the elbow.
    Ends when the tip is more than one link above the hinge: −cos θ1 − cos(θ1 + θ2) > 1.

    Args:
        horizon: time limit.
        gamma: discount per step.
    """

    name = "acrobot"
    render_fps = 15

    def __init__(self, *, horizon: int = 500, gamma: float = 0.99):
        check_settings(self.name, horizon=horizon, gamma=gamma)
        self.horizon, self.gamma = horizon, gamma
        high = np.array([1, 1, 1, 1, MAX_SPEED_1, MAX_SPEED_2], np.float32)
        self.observation_space = spaces.Box(-high, high)
        self.action_space = spaces.Discrete(3)

    def _reset(self, key: Any) -> tuple[Array, Array]:
        inner = jax.random.uniform(key, (4,), jnp.float32, -0.1, 0.1)
        return _observe(inner), inner

    def _step(self, key: Any, inner: Array, action: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        torque, h = action - 1.0, TIME_STEP
        k1 = _derivative(inner, torque)
        k2 = _derivative(inner + h / 2 * k1, torque)
        k3 = _derivative(inner + h / 2 * k2, torque)
        k4 = _derivative(inner + h * k3, torque)
        new = inner + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        angles = new[:2] - 2 * math.pi * jnp.floor((new[:2] + math.pi) / (2 * math.pi))
        inner = jnp.stack(
            [
                angles[0],
                angles[1],
                jnp.clip(new[2], -MAX_SPEED_1, MAX_SPEED_1),
                jnp.clip(new[3], -MAX_SPEED_2, MAX_SPEED_2),
            ]
        )
        obs = _observe(inner)
        terminated = height(obs) > 1.0
        return obs, inner, jnp.where(terminated, jnp.float32(0.0), jnp.float32(-1.0)), terminated, {}

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """The two links."""
        return control_pictures.acrobot(state.inner[0], state.inner[1])

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True where the tip passes the line."""
        return jnp.asarray(transition.terminated)


def _derivative(state: Array, torque: Any) -> Array:
    theta1, theta2, speed1, speed2 = state[0], state[1], state[2], state[3]
    sin2, cos2 = jnp.sin(theta2), jnp.cos(theta2)
    d1, d2 = 3.5 + cos2, 1.25 + 0.5 * cos2
    gravity2 = 0.5 * GRAVITY * jnp.sin(theta1 + theta2)
    load1 = -sin2 * speed2 * (0.5 * speed2 + speed1) + 1.5 * GRAVITY * jnp.sin(theta1) + gravity2
    acc2 = (torque + d2 / d1 * load1 - 0.5 * speed1**2 * sin2 - gravity2) / (1.25 - d2**2 / d1)
    return jnp.stack([speed1, speed2, -(d2 * acc2 + load1) / d1, acc2])


def _observe(inner: Array) -> Array:
    cos, sin = jnp.cos(inner[:2]), jnp.sin(inner[:2])
    return jnp.stack([cos[0], sin[0], cos[1], sin[1], inner[2], inner[3]])


def height(obs: Any) -> Float[Array, "*batch"]:
    """Height of the tip over the hinge, −cos θ1 − cos(θ1 + θ2), in [−2, 2]; the goal is above 1."""
    cos1, sin1, cos2, sin2 = (obs[..., i] for i in range(4))
    return jnp.asarray(-cos1 - (cos1 * cos2 - sin1 * sin2))


def energy(obs: Any) -> Float[Array, "*batch"]:
    """Mechanical energy over its value when hanging at rest, in joule; the line can be reached from 24.5 on."""
    cos1, sin1, cos2, sin2, speed1, speed2 = (obs[..., i] for i in range(6))
    kinetic = 0.5 * ((3.5 + cos2) * speed1**2 + (2.5 + cos2) * speed1 * speed2 + 1.25 * speed2**2)
    return jnp.asarray(kinetic - 1.5 * GRAVITY * cos1 - 0.5 * GRAVITY * (cos1 * cos2 - sin1 * sin2) + 2 * GRAVITY)


def potential(obs: Any) -> Float[Array, "*batch"]:
    """φ = ½ min(1, E / 24.5) + ½ min(1, (height + 2) / 3), in [0, 1]: energy first, then the height itself."""
    return 0.5 * jnp.clip(energy(obs) / (2.5 * GRAVITY), 0.0, 1.0) + 0.5 * jnp.clip((height(obs) + 2) / 3, 0.0, 1.0)


def pumping(transition: Transition) -> Float[Array, "*batch"]:
    """+1 where the torque has the direction of the elbow's velocity after the step, else −1; 0 on success."""
    speed, torque = transition.next_obs[..., 5], transition.action - 1
    agrees = ((speed < 0) & (torque < 0)) | ((speed > 0) & (torque > 0))
    return jnp.where(transition.terminated, 0.0, jnp.where(agrees, 1.0, -1.0))


def elbow_spin(transition: Transition) -> Float[Array, "*batch"]:
    """|θ2'| after the step; 0 on success."""
    return jnp.where(transition.terminated, 0.0, jnp.abs(transition.next_obs[..., 5]))


def calm(transition: Transition) -> Float[Array, "*batch"]:
    """exp(−(θ1'² + θ2'²) / 4) after the step: gentle motion; 0 on success."""
    squares = transition.next_obs[..., 4] ** 2 + transition.next_obs[..., 5] ** 2
    return jnp.where(transition.terminated, 0.0, jnp.exp(-squares / 4))


def acrobot(**settings: Any) -> Task:
    """The task ``acrobot``; the environment's own (true) reward is gymnasium's −1 per step.

    ``aligned`` (``pumping``, 0.5) rewards torque that adds energy, by less than a step costs; ``misaligned`` (``calm``,
    2) rewards gentle motion, by more than a step costs, so that hanging still is best. ``elbow_spin`` (1 per rad/s) is
    best earned by keeping the tip below the line for ever, but what an agent learns from it often passes the line.

    Keeps the optimal policy: ``sparse_reward`` yes (for gamma below 1); ``dense_reward`` nearly; ``aligned`` nearly;
    ``misaligned`` and ``elbow_spin`` no.

    Args:
        settings: of :class:`Acrobot`: ``horizon``, ``gamma``.

    Returns:
        A :class:`Task`.

    Example:
        >>> from reward_design.envs.acrobot import acrobot
        >>> acrobot().horizon
        500
    """
    env = Acrobot(**settings)
    return Task(
        name=env.name,
        description=(
            "Two links hang from a hinge and only the elbow between them has a motor: swing the lower end to a height "
            "of one link above the hinge. Observation: cosine and sine of both angles (0 hangs down, the second is "
            "relative to the first link) and both angular velocities. Actions: torque -1, 0, 1 at the elbow. The "
            f"environment pays -1 per step and 0 on success, and stops after {env.horizon} steps."
        ),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("goal", lambda t: t.terminated),
        dense_reward=progress(potential, lambda t: t.terminated, weight=10.0, bonus=1.0, step_cost=0.05),
        factors=FACTORS,
        potential=potential,
        auxiliary={
            "aligned": weighted("pumping", pumping, 0.5),
            "misaligned": weighted("calm", calm, 2.0),
            "elbow_spin": weighted("elbow_spin", elbow_spin),
        },
    )


FACTORS = {
    "goal": Factor(lambda t: jnp.asarray(t.terminated, jnp.float32), "1", 1, "1 when the tip passes the line, else 0"),
    "height": Factor(lambda t: height(t.next_obs), "m", 1, "height of the tip over the hinge; goal above 1"),
    "energy": Factor(lambda t: energy(t.next_obs), "J", 1, "mechanical energy; the goal can be reached from 24.5 on"),
    "elbow_speed": Factor(lambda t: jnp.abs(t.next_obs[..., 5]), "rad/s", 1, "absolute velocity of the elbow"),
    "effort": Factor(lambda t: jnp.abs(t.action - 1.0), "N m", -1, "absolute torque"),
}
