"""CartPole: keep a pole upright on a cart that is pushed left or right.

Source: A. G. Barto, R. S. Sutton, C. W. Anderson, "Neuronlike Adaptive Elements That Can Solve Difficult Learning
Control Problems", 1983; constants of gymnasium's CartPole-v1.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float

from reward_design.combinators import environment_reward
from reward_design.constructors import from_step, pointwise
from reward_design.core import Reward, State, Transition
from reward_design.envs import control_pictures
from reward_design.envs.base import EnvState, Factor, FunctionalEnv, Task
from reward_design.envs.control import check_settings, no_reward, weighted

GRAVITY, CART_MASS, POLE_MASS, HALF_LENGTH, FORCE, TIME_STEP = 9.8, 1.0, 0.1, 0.5, 10.0, 0.02
MAX_POSITION, MAX_ANGLE = 2.4, 12 * 2 * math.pi / 360
_MASS = CART_MASS + POLE_MASS
_POLE_MASS_LENGTH = POLE_MASS * HALF_LENGTH


class CartPole(FunctionalEnv):
    """Euler integration of the cart-pole equations; the environment pays 1 per step.

    The observation is ``[position, velocity, angle, angular velocity]``, each uniform in [−0.05, 0.05] at the start;
    actions 0 and 1 push left and right. Ends when the pole tilts by more than 12 degrees or the cart leaves ±2.4.

    Args:
        horizon: time limit.
        gamma: discount per step.
    """

    name = "cartpole"
    render_fps = 50

    def __init__(self, *, horizon: int = 500, gamma: float = 0.99):
        check_settings(self.name, horizon=horizon, gamma=gamma)
        self.horizon, self.gamma = horizon, gamma
        high = np.array([2 * MAX_POSITION, np.inf, 2 * MAX_ANGLE, np.inf], np.float32)
        self.observation_space = spaces.Box(-high, high)
        self.action_space = spaces.Discrete(2)

    def _reset(self, key: Any) -> tuple[Array, Array]:
        obs = jax.random.uniform(key, (4,), jnp.float32, -0.05, 0.05)
        return obs, obs

    def _step(self, key: Any, inner: Array, action: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        x, x_dot, theta, theta_dot = inner[0], inner[1], inner[2], inner[3]
        sin, cos = jnp.sin(theta), jnp.cos(theta)
        push = (jnp.where(action == 1, FORCE, -FORCE) + _POLE_MASS_LENGTH * theta_dot**2 * sin) / _MASS
        theta_acc = (GRAVITY * sin - cos * push) / (HALF_LENGTH * (4.0 / 3.0 - POLE_MASS / _MASS * cos**2))
        x_acc = push - _POLE_MASS_LENGTH / _MASS * theta_acc * cos
        x, theta = x + TIME_STEP * x_dot, theta + TIME_STEP * theta_dot
        obs = jnp.stack([x, x_dot + TIME_STEP * x_acc, theta, theta_dot + TIME_STEP * theta_acc])
        terminated = (jnp.abs(x) > MAX_POSITION) | (jnp.abs(theta) > MAX_ANGLE)
        return obs, obs, jnp.float32(1.0), terminated, {}

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """Cart and pole."""
        return control_pictures.cartpole(obs[0], obs[2], limit=MAX_POSITION, length=HALF_LENGTH)

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True where the time limit is reached without a fall."""
        return jnp.logical_and(transition.truncated, jnp.logical_not(transition.terminated))


def potential(obs: Any) -> Float[Array, "*batch"]:
    """Upright and centred: φ = 1 − ½ min(1, (θ / θ_max)²) − ½ min(1, (x / x_max)²), in [0, 1]."""
    tilt = jnp.minimum(1.0, (obs[..., 2] / MAX_ANGLE) ** 2)
    offset = jnp.minimum(1.0, (obs[..., 0] / MAX_POSITION) ** 2)
    return 1.0 - 0.5 * tilt - 0.5 * offset


def controller(obs: Any) -> Bool[Array, "*batch"]:
    """The push of a PD controller: right where 0.1 θ_t + 0.5 · 0.02 θ'_t > 0.

    BARFI's study takes θ_t − θ_{t−1} (:func:`lagged_controller`), which the observation does not hold. Under Euler's
    rule that is 0.02 θ'_{t−1}; 0.02 θ'_t is θ_{t+1} − θ_t, one step newer.
    """
    return _pushes_right(obs[..., 2], TIME_STEP * obs[..., 3])


def lagged_controller(obs: Any, previous: Any) -> Bool[Array, "*batch"]:
    """The push of the PD controller of BARFI's study: right where 0.1 θ_t + 0.5 (θ_t − θ_{t−1}) > 0.

    Args:
        obs: observation.
        previous: ``[*batch]`` angle of the observation before; 0 for the first of an episode, as in the study.
    """
    return _pushes_right(obs[..., 2], obs[..., 2] - previous)


def _pushes_right(angle: Any, change: Any) -> Bool[Array, "*batch"]:
    return jnp.asarray(0.1 * angle + 0.5 * change > 0)


def controller_agreement(name: str, *, agree: float, differ: float, lagged: bool = False) -> Reward:
    """Pays for acting like, or unlike, a PD controller: r = agree if a = a_PD else differ; 0 when the pole falls.

    Source: D. Gupta et al., "Behavior Alignment via Reward Function Optimization", 2023, arXiv 2310.19007.
    Keeps the optimal policy: only if agree > differ (the controller keeps the pole up for the whole episode).

    Args:
        name: name of the reward.
        agree: paid where the action is the controller's.
        differ: paid where it is not.
        lagged: whether the controller is :func:`lagged_controller`, which remembers the previous angle, or
            :func:`controller`, a function of the observation.

    Returns:
        A reward of kind ``POINTWISE``, or ``CAUSAL`` if ``lagged``.
    """
    values = {"agree": agree, "differ": differ}

    def paid(params: Any, transition: Transition, right: Any) -> Any:
        agrees = right == (transition.action == 1)
        return jnp.where(transition.terminated, 0.0, jnp.where(agrees, params["agree"], params["differ"]))

    def step(params: Any, state: State, transition: Transition) -> tuple[Any, State]:
        right = lagged_controller(transition.obs, state.episode)
        return paid(params, transition, right), state._replace(episode=transition.obs[..., 2])

    if lagged:
        start = lambda key, example: (values, State(episode=jnp.zeros_like(example.obs[..., 2])))  # noqa: E731
        return from_step(name, start, step, settings=values)
    return pointwise(name, lambda p, t: paid(p, t, controller(t.obs)), params=values, settings=values)


def cartpole(**settings: Any) -> Task:
    """The task ``cartpole``; the environment's own (true) reward is gymnasium's 1 per step.

    ``aligned`` pays +5 for acting like a PD controller that balances the pole, −1 otherwise; ``misaligned`` pays −5
    and +1, so that next to 1 per step falling at once is best. ``aligned_lagged`` and ``misaligned_lagged`` pay the
    same for the controller of BARFI's study, which remembers the previous angle; ``none`` pays 0. The study treats the
    time limit as an end and pays no auxiliary reward on that step; here the limit truncates, and only a fall pays none.

    Keeps the optimal policy: ``sparse_reward`` (−1 on a fall) and ``none`` yes; ``dense_reward``, ``aligned`` and
    ``aligned_lagged`` nearly; ``misaligned`` and ``misaligned_lagged`` no.

    Args:
        settings: of :class:`CartPole`: ``horizon``, ``gamma``.

    Returns:
        A :class:`Task`. Success is reaching the time limit without a fall.

    Example:
        >>> from reward_design.envs.cartpole import cartpole
        >>> sorted(cartpole().auxiliary)
        ['aligned', 'aligned_lagged', 'misaligned', 'misaligned_lagged', 'none']
    """
    env = CartPole(**settings)
    return Task(
        name=env.name,
        description=(
            "A pole stands on a cart that moves along a track; push the cart left (action 0) or right (action 1) so "
            "that the pole stays upright. Observation: cart position and velocity, pole angle and angular velocity. "
            "The episode ends when the pole tilts by more than 12 degrees or the cart is more than 2.4 from the "
            f"centre; the environment pays 1 per step and stops after {env.horizon} steps, which is success."
        ),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("fall", lambda t: t.terminated, -1.0),
        dense_reward=weighted("dense", lambda t: potential(t.next_obs)),
        factors=FACTORS,
        potential=potential,
        auxiliary={
            "aligned": controller_agreement("like_controller", agree=5.0, differ=-1.0),
            "misaligned": controller_agreement("unlike_controller", agree=-5.0, differ=1.0),
            "aligned_lagged": controller_agreement("like_lagged", agree=5.0, differ=-1.0, lagged=True),
            "misaligned_lagged": controller_agreement("unlike_lagged", agree=-5.0, differ=1.0, lagged=True),
            "none": no_reward(),
        },
    )


FACTORS = {
    "fall": Factor(lambda t: jnp.asarray(t.terminated, jnp.float32), "1", -1, "1 when the pole falls, else 0"),
    "tilt": Factor(lambda t: jnp.abs(t.next_obs[..., 2]), "rad", -1, "absolute angle of the pole, falls at 0.21"),
    "offset": Factor(lambda t: jnp.abs(t.next_obs[..., 0]), "m", -1, "distance of the cart from the centre, up to 2.4"),
    "spin": Factor(lambda t: jnp.abs(t.next_obs[..., 3]), "rad/s", -1, "absolute angular velocity of the pole"),
    "speed": Factor(lambda t: jnp.abs(t.next_obs[..., 1]), "m/s", -1, "absolute velocity of the cart"),
}
