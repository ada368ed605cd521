"""GridWorld of BARFI's study: a point crosses the unit square in moves of four sub-steps; two auxiliary rewards.

Source: D. Gupta, Y. Chandak, S. Jordan, P. Thomas, B. C. da Silva, "Behavior Alignment via Reward Function
Optimization", 2023, arXiv 2310.19007; the numbers are those of the authors' released code.
"""

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

START = (0.125, 0.125)
GOAL = (0.75, 0.99)
"""Least and largest coordinate of the goal box, on both axes."""
GOAL_CENTRE = 0.87
TRAP = (0.4, 0.6)
"""The same of the box that the misaligned reward pays in."""
SUBSTEP, NUM_SUBSTEPS = 0.045, 4
STEP_COST, GOAL_REWARD, TRAP_REWARD = 0.1, 100.0, 50.0
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))


class GridWorld(FunctionalEnv):
    """p ← p + 0.045 m(a), up to four times; pays −0.1 per step and 100 on entering the goal, which ends the episode.

    The observation is the position ``[x, y]`` in [0, 1]²; actions 0, 1, 2, 3 move up, right, down, left. An episode
    starts at (0.125, 0.125). Each action is four sub-steps of 0.045 along one axis. A sub-step that would leave the
    square is not taken and ends the action; so does the first sub-step into the goal box [0.75, 0.99]². With
    probability ``slip`` an action drawn uniformly from all four replaces the chosen one, for all its sub-steps.

    ``info["substeps"]`` ``[4, 2]`` has the position after each sub-step, ``info["moved"]`` ``[4]`` whether it was taken
    (where not, the position is the one before).

    The authors' code treats the time limit as an end of the episode like the goal; here it is ``truncated``, and only
    the goal is ``terminated``.

    Args:
        slip: probability that a random action replaces the chosen one, in [0, 1].
        horizon: time limit.
        gamma: discount per step.
    """

    name = "gridworld"
    render_fps = 8

    def __init__(self, *, slip: float = 0.1, horizon: int = 50, gamma: float = 0.99):
        check_settings(self.name, horizon=horizon, gamma=gamma)
        if not 0.0 <= slip <= 1.0:
            raise ValueError(f"{self.name}: slip must be in [0, 1], got {slip!r}.")
        self.slip, self.horizon, self.gamma = slip, horizon, gamma
        self.observation_space = spaces.Box(0.0, 1.0, (2,))
        self.action_space = spaces.Discrete(len(MOVES))

    def _reset(self, key: Any) -> tuple[Array, Array]:
        position = jnp.asarray(START, jnp.float32)
        return position, position

    def _step(self, key: Any, inner: Array, action: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        whether, which = jax.random.split(key)
        drawn = jax.random.randint(which, (), 0, len(MOVES))
        taken = jnp.where(jax.random.uniform(whether) < self.slip, drawn, action)
        move = jnp.asarray(MOVES, inner.dtype)[taken] * SUBSTEP
        position, going, positions, moved = inner, jnp.bool_(True), [], []
        for _ in range(NUM_SUBSTEPS):
            target = position + move
            going = going & jnp.all((target >= 0.0) & (target <= 1.0))
            position = jnp.where(going, target, position)
            positions.append(position)
            moved.append(going)
            going = going & ~inside(position, GOAL)
        arrived = inside(position, GOAL)
        reward = jnp.where(arrived, GOAL_REWARD - STEP_COST, -STEP_COST).astype(jnp.float32)
        info = {"substeps": jnp.stack(positions), "moved": jnp.stack(moved)}
        return position, position, reward, arrived, info

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """The square from above."""
        return control_pictures.gridworld(obs, start=START, goal=GOAL, trap=TRAP)

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True on entering the goal."""
        return jnp.asarray(transition.terminated)


def inside(position: Any, box: tuple[float, float]) -> Bool[Array, "*batch"]:
    """Whether both coordinates lie in ``box``, borders included."""
    return jnp.all((position >= box[0]) & (position <= box[1]), axis=-1)


def distance(obs: Any) -> Float[Array, "*batch"]:
    """Way left to the goal box, |x − box| + |y − box|, moving along the axes; up to 1.5."""
    return jnp.sum(jnp.maximum(0.0, jnp.maximum(GOAL[0] - obs, obs - GOAL[1])), axis=-1)


def potential(obs: Any) -> Float[Array, "*batch"]:
    """φ = 1 − distance / 1.5, in [0, 1]."""
    return 1.0 - distance(obs) / (2 * GOAL[0])


def _summed(values: Any, transition: Transition) -> Float[Array, "*batch"]:
    """Sum over the sub-steps that were taken."""
    return jnp.sum(jnp.where(transition.info["moved"], values, 0.0), axis=-1)


def closeness(transition: Transition) -> Float[Array, "*batch"]:
    """−Σ (x − 0.87)² + (y − 0.87)² over the sub-steps taken, that into the goal included; 0 for leaning on a wall."""
    return -_summed(jnp.sum((transition.info["substeps"] - GOAL_CENTRE) ** 2, axis=-1), transition)


def closeness_x(transition: Transition) -> Float[Array, "*batch"]:
    """−Σ (x − 0.87)² + 0.0144: what the authors' code computes, where the goal's own edge stands in for y."""
    offset = (GOAL_CENTRE - GOAL[0]) ** 2
    return -_summed((transition.info["substeps"][..., 0] - GOAL_CENTRE) ** 2 + offset, transition)


def visits(transition: Transition) -> Float[Array, "*batch"]:
    """Sub-steps taken to a position in [0.4, 0.6]²; 0 on the step that enters the goal."""
    count = _summed(inside(transition.info["substeps"], TRAP), transition)
    return jnp.where(transition.terminated, 0.0, count)


def gridworld(**settings: Any) -> Task:
    """The task ``gridworld``; the environment's own (true) reward is −0.1 per step and 100 on entering the goal.

    Undisturbed, the shortest way has 8 steps and returns 99.2. ``aligned`` pays minus the squared distance to
    (0.87, 0.87), summed over sub-steps. ``aligned_x`` is what the authors' released code pays for it: by a mistake only
    x is shaped. ``misaligned`` pays 50 per sub-step in the box [0.4, 0.6]²: going back and forth there for a whole
    episode returns up to 7,900 undisturbed, the goal 100. ``none`` pays 0, the third condition of the study.

    At the time limit the authors set the misaligned reward to 0 as well; here, where the limit is no end, it is paid.

    Keeps the optimal policy: ``sparse_reward`` (for gamma below 1) and ``none`` yes; ``dense_reward``, ``aligned`` and
    ``aligned_x`` nearly; ``misaligned`` no.

    Args:
        settings: of :class:`GridWorld`: ``slip``, ``horizon``, ``gamma``.

    Returns:
        A :class:`Task`.

    Raises:
        ValueError: if a setting is out of range.

    Example:
        >>> from reward_design.envs.gridworld import gridworld
        >>> sorted(gridworld().auxiliary)
        ['aligned', 'aligned_x', 'misaligned', 'none']
    """
    env = GridWorld(**settings)
    return Task(
        name=env.name,
        description=(
            "A point moves through the unit square from (0.125, 0.125) to the goal, the box [0.75, 0.99] x [0.75, "
            "0.99]. Observation: x and y in [0, 1]. Actions: 0 up, 1 right, 2 down, 3 left, each up to four sub-steps "
            f"of 0.045 that stop at walls and at the goal; with probability {env.slip:g} a random action replaces the "
            "chosen one. The environment pays -0.1 per step and 100 on entering the goal, where the episode ends; it "
            f"stops after {env.horizon} steps."
        ),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("goal", lambda t: t.terminated, GOAL_REWARD),
        dense_reward=progress(
            potential, lambda t: t.terminated, weight=GOAL_REWARD, bonus=GOAL_REWARD, step_cost=STEP_COST
        ),
        factors=FACTORS,
        potential=potential,
        auxiliary={
            "aligned": weighted("closeness", closeness),
            "aligned_x": weighted("closeness_x", closeness_x),
            "misaligned": weighted("visits", visits, TRAP_REWARD),
            "none": no_reward(),
        },
    )


FACTORS = {
    "goal": Factor(lambda t: jnp.asarray(t.terminated, jnp.float32), "1", 1, "1 on entering the goal, else 0"),
    "distance": Factor(lambda t: distance(t.next_obs), "1", -1, "way left to the goal box, along the axes"),
    "visits": Factor(
        lambda t: _summed(inside(t.info["substeps"], TRAP), t), "1", -1, "sub-steps in the middle box, 0 to 4"
    ),
    "cut_short": Factor(
        lambda t: 1.0 - jnp.all(t.info["moved"], axis=-1), "1", -1, "1 where a wall or the goal cut the move short"
    ),
}
