"""MountainCar: an underpowered car must swing back and forth to climb a hill.

Source: A. W. Moore, "Efficient Memory-based Learning for Robot Control", 1990; constants of gymnasium's MountainCar-v0.
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
from reward_design.envs.control import check_settings, no_reward, progress, weighted

MIN_POSITION, MAX_POSITION, GOAL_POSITION, MAX_SPEED = -1.2, 0.6, 0.5, 0.07
FORCE, GRAVITY = 0.001, 0.0025
_LOWEST = -GRAVITY / 3
_NEEDED = GRAVITY / 3 * math.sin(3 * GOAL_POSITION) - _LOWEST
_REWARDS = ("gymnasium", "sparse")


class MountainCar(FunctionalEnv):
    """v' = clip(v + 0.001 (a − 1) − 0.0025 cos 3x), x' = clip(x + v'); ends at x ≥ 0.5.

    The observation is ``[position, velocity]``; actions 0, 1, 2 push left, not, right. An episode starts at rest with
    the position uniform in [−0.6, −0.4].

    Args:
        reward: ``"gymnasium"`` pays −1 on every step, ``"sparse"`` pays 1 on arrival and 0 before.
        goal_velocity: velocity that counts as arrival.
        horizon: time limit.
        gamma: discount per step.
    """

    name = "mountain_car"

    def __init__(
        self, *, reward: str = "gymnasium", goal_velocity: float = 0.0, horizon: int = 200, gamma: float = 0.99
    ):
        check_settings(self.name, horizon=horizon, gamma=gamma)
        if reward not in _REWARDS:
            raise ValueError(f"{self.name}: reward must be 'gymnasium' or 'sparse', got {reward!r}.")
        self.reward, self.goal_velocity, self.horizon, self.gamma = reward, goal_velocity, horizon, gamma
        self.observation_space = spaces.Box(
            np.array([MIN_POSITION, -MAX_SPEED], np.float32), np.array([MAX_POSITION, MAX_SPEED], np.float32)
        )
        self.action_space = spaces.Discrete(3)

    def _reset(self, key: Any) -> tuple[Array, Array]:
        position = jax.random.uniform(key, dtype=jnp.float32, minval=-0.6, maxval=-0.4)
        obs = jnp.stack([position, jnp.zeros_like(position)])
        return obs, obs

    def _step(self, key: Any, inner: Array, action: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        position, velocity = inner[0], inner[1]
        velocity = velocity + (action - 1) * FORCE - GRAVITY * jnp.cos(3 * position)
        velocity = jnp.clip(velocity, -MAX_SPEED, MAX_SPEED)
        position = jnp.clip(position + velocity, MIN_POSITION, MAX_POSITION)
        velocity = jnp.where((position <= MIN_POSITION) & (velocity < 0), 0.0, velocity)
        terminated = (position >= GOAL_POSITION) & (velocity >= self.goal_velocity)
        obs = jnp.stack([position, velocity])
        reward = terminated.astype(jnp.float32) if self.reward == "sparse" else jnp.float32(-1.0)
        return obs, obs, reward, terminated, {}

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """The car on its hill."""
        return control_pictures.mountain_car(obs[0], low=MIN_POSITION, high=MAX_POSITION, goal=GOAL_POSITION)

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True on arrival at the flag."""
        return jnp.asarray(transition.terminated)


def height(obs: Any) -> Float[Array, "*batch"]:
    """Height of the hill under the car, 0.45 sin 3x + 0.55, in [0.1, 1]."""
    return 0.45 * jnp.sin(3 * obs[..., 0]) + 0.55


def potential(obs: Any) -> Float[Array, "*batch"]:
    """Mechanical energy over the energy needed to stand on the goal, φ = clip((E − E_min) / (E_goal − E_min), 0, 1).

    E = v² / 2 + (0.0025 / 3) sin 3x is what the car keeps when it does not push.
    """
    energy = 0.5 * obs[..., 1] ** 2 + GRAVITY / 3 * jnp.sin(3 * obs[..., 0])
    return jnp.clip((energy - _LOWEST) / _NEEDED, 0.0, 1.0)


def pumping(transition: Transition) -> Float[Array, "*batch"]:
    """+1 where the push has the direction of the velocity after the step, else −1; 0 on arrival."""
    velocity, push = transition.next_obs[..., 1], transition.action - 1
    agrees = ((velocity < 0) & (push < 0)) | ((velocity > 0) & (push > 0))
    return jnp.where(transition.terminated, 0.0, jnp.where(agrees, 1.0, -1.0))


def speed(transition: Transition) -> Float[Array, "*batch"]:
    """|v| after the step; 0 on arrival."""
    return jnp.where(transition.terminated, 0.0, jnp.abs(transition.next_obs[..., 1]))


def nearness(transition: Transition) -> Float[Array, "*batch"]:
    """Position as a share of the way from the left border to the flag, (x + 1.2) / 1.7; 0 on arrival."""
    share = (transition.next_obs[..., 0] - MIN_POSITION) / (GOAL_POSITION - MIN_POSITION)
    return jnp.where(transition.terminated, 0.0, share)


def mountain_car(**settings: Any) -> Task:
    """The task ``mountain_car``; the environment's own (true) reward is gymnasium's −1 per step.

    ``aligned`` (``pumping``, 0.5) pays less than a step costs, so that arriving stays best. ``speed`` (50) pays more:
    swinging for ever without arriving is best, but what an agent learns from it may arrive all the same, because energy
    leads to the flag. ``misaligned`` (``nearness``, 4) pays for being close to the flag, more than a step costs:
    leaning against the slope is best, and swinging back costs reward.

    ``bang_bang`` (``pumping``, 1), ``velocity`` (``speed``, 10) and ``none`` (0) are the conditions of BARFI's study
    (Gupta et al., "Behavior Alignment via Reward Function Optimization", 2023, arXiv 2310.19007), whose environment is
    ``task("mountain_car", reward="sparse", horizon=2000)``. The study treats the time limit as an end like the flag and
    pays no auxiliary reward on that step; here the limit truncates, and only the step that arrives pays none. Next to
    ``reward="sparse"`` all but ``none`` are misaligned: they never end, and the goal pays only 1.

    Keeps the optimal policy: ``sparse_reward`` yes (for gamma below 1), ``none`` yes; ``dense_reward`` and ``aligned``
    nearly; ``misaligned``, ``speed``, ``bang_bang`` and ``velocity`` no.

    Args:
        settings: of :class:`MountainCar`: ``reward``, ``goal_velocity``, ``horizon``, ``gamma``.

    Returns:
        A :class:`Task`.

    Example:
        >>> from reward_design.envs.mountain_car import mountain_car
        >>> mountain_car().horizon
        200
    """
    env = MountainCar(**settings)
    return Task(
        name=env.name,
        description=(
            "A car stands between two hills and its engine is too weak to climb the right one directly: it must first "
            "back up the left hill to gain momentum. Observation: position in [-1.2, 0.6] and velocity in "
            "[-0.07, 0.07]. Actions: 0 push left, 1 do nothing, 2 push right. The episode ends at position 0.5; "
            f"the environment pays {'1 there and 0 before' if env.reward == 'sparse' else '-1 on every step'}, and "
            f"stops after {env.horizon} steps."
        ),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("goal", lambda t: t.terminated),
        dense_reward=progress(potential, lambda t: t.terminated, weight=10.0, bonus=1.0, step_cost=0.05),
        factors=FACTORS,
        potential=potential,
        auxiliary={
            "aligned": weighted("pumping", pumping, 0.5),
            "misaligned": weighted("nearness", nearness, 4.0),
            "speed": weighted("speed", speed, 50.0),
            "bang_bang": weighted("bang_bang", pumping),
            "velocity": weighted("velocity", speed, 10.0),
            "none": no_reward(),
        },
    )


FACTORS = {
    "goal": Factor(lambda t: jnp.asarray(t.terminated, jnp.float32), "1", 1, "1 on arrival at the flag, else 0"),
    "energy": Factor(lambda t: potential(t.next_obs), "1", 1, "energy as a share of what the goal needs, in [0, 1]"),
    "height": Factor(lambda t: height(t.next_obs), "m", 1, "height of the car, in [0.1, 1]"),
    "speed": Factor(lambda t: jnp.abs(t.next_obs[..., 1]), "m/step", 1, "absolute velocity, up to 0.07"),
    "effort": Factor(lambda t: jnp.abs(t.action - 1.0), "1", -1, "1 if the engine pushes, else 0"),
}
