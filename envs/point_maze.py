"""Point maze: a damped point mass in a maze with walls; reward only at the goal. Continuous action.

The default maze puts the start in a pocket that opens away from the goal, so that going straight for the goal ends in
a dead end.
"""

from collections.abc import Sequence
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
from reward_design.envs.maze_map import NEIGHBOURS, PIECES, distance_table, parse_map, wall_limits

POCKET = (
    "#########",
    "#.......#",
    "#.####..#",
    "#....#..#",
    "#S...#.G#",
    "#....#..#",
    "#.####..#",
    "#.......#",
    "#########",
)
MARGIN = 0.01
"""Least distance between the point and a wall that it moved against."""


class PointMaze(FunctionalEnv):
    """v' = d v + f a, p' = p + v', one axis after the other; a wall stops the axis that runs into it.

    Cells have side 1; x counts columns to the right, y rows downwards. The observation is position and velocity scaled
    to [−1, 1]: ``[2x/W − 1, 2y/H − 1, vx/v_max, vy/v_max]`` with v_max = f / (1 − d); :meth:`position` undoes this. The
    action is a force in [−1, 1]² (clipped). An episode starts at rest in a start cell, up to 0.4 from its centre on
    each axis. It ends with reward 1 when the point is within ``goal_radius`` of the goal's centre; otherwise 0 is paid.

    Args:
        maze: rows of ``#`` wall, ``.`` free, ``S`` start (one or more), ``G`` goal (one); closed by walls.
        force: speed gained per step at full action.
        damping: share of the velocity kept per step, in [0, 1).
        goal_radius: in (0, 0.5].
        horizon: time limit.
        gamma: discount per step.
    """

    name = "point_maze"
    render_fps = 20

    def __init__(
        self,
        *,
        maze: Sequence[str] = POCKET,
        force: float = 0.1,
        damping: float = 0.75,
        goal_radius: float = 0.5,
        horizon: int = 200,
        gamma: float = 0.99,
    ):
        check_settings(self.name, horizon=horizon, gamma=gamma)
        _check_dynamics(force, damping, goal_radius)
        self.horizon, self.gamma = horizon, gamma
        self.force, self.damping, self.goal_radius = force, damping, goal_radius
        self.max_speed = force / (1 - damping)
        self.walls, self.starts, self.goal = parse_map(maze)
        self.size = np.array(self.walls.shape[::-1], np.float32)
        self.goal_position = np.array([self.goal[1] + 0.5, self.goal[0] + 0.5], np.float32)
        self._limits = wall_limits(self.walls, MARGIN)
        self._distances, self.longest = distance_table(self.walls, self.starts, self.goal)
        self.observation_space = spaces.Box(-1.0, 1.0, (4,))
        self.action_space = spaces.Box(-1.0, 1.0, (2,))

    def _reset(self, key: Any) -> tuple[Array, Array]:
        which, where = jax.random.split(key)
        starts = jnp.asarray(self.starts[:, ::-1] + 0.5, jnp.float32)
        cell = starts[jax.random.randint(which, (), 0, len(self.starts))]
        position = cell + jax.random.uniform(where, (2,), jnp.float32, -0.4, 0.4)
        inner = jnp.concatenate([position, jnp.zeros(2, jnp.float32)])
        return self._observe(inner), inner

    def _step(self, key: Any, inner: Array, action: Any) -> tuple[Array, Array, Array, Array, dict[str, Any]]:
        x, y = inner[0], inner[1]
        velocity = self.damping * inner[2:] + self.force * jnp.clip(action, -1.0, 1.0)
        limits = jnp.asarray(self._limits, inner.dtype)
        column, row = jnp.floor(x).astype(int), jnp.floor(y).astype(int)
        new_x, hit_x = _advance(x + velocity[0], column, limits[row, column, :2])
        column = jnp.floor(new_x).astype(int)
        new_y, hit_y = _advance(y + velocity[1], row, limits[row, column, 2:])
        position, hit = jnp.stack([new_x, new_y]), jnp.stack([hit_x, hit_y])
        inner = jnp.concatenate([position, jnp.where(hit, 0.0, velocity)])
        terminated = jnp.sum((position - self.goal_position) ** 2) <= self.goal_radius**2
        return self._observe(inner), inner, terminated.astype(jnp.float32), terminated, {"hit_wall": jnp.any(hit)}

    def _observe(self, inner: Array) -> Array:
        return jnp.concatenate([2 * inner[:2] / self.size - 1, inner[2:] / self.max_speed])

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """The maze from above."""
        goal = (self.goal[1] + 0.5, self.goal[0] + 0.5)
        return control_pictures.point_maze(
            state.inner[:2], state.inner[2:], walls=self.walls, starts=self.starts, goal=goal, radius=self.goal_radius
        )

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True on arrival at the goal."""
        return jnp.asarray(transition.terminated)

    def position(self, obs: Any) -> Float[Array, "*batch 2"]:
        """``obs -> [B, 2]`` column and row coordinate, in cells."""
        return jnp.stack([(obs[..., i] + 1) * float(self.size[i] / 2) for i in (0, 1)], axis=-1)

    def path_distance(self, obs: Any) -> Float[Array, "*batch"]:
        """Length of the shortest way around the walls, in cells.

        The least, over the centres c of the visible neighbouring fifths of a cell, of |p − c| + d(c), where d counts
        straight and diagonal steps and so exceeds the true length by up to 8 %.
        """
        position = self.position(obs) * PIECES
        x, y = position[..., 0], position[..., 1]
        column = jnp.clip(jnp.floor(x), 0, self.size[0] * PIECES - 1)
        row = jnp.clip(jnp.floor(y), 0, self.size[1] * PIECES - 1)
        lengths = jnp.asarray(self._distances)[row.astype(int), column.astype(int)]
        ways = [
            lengths[..., i] + jnp.hypot(x - column - 0.5 - right, y - row - 0.5 - down) / PIECES
            for i, (down, right) in enumerate(NEIGHBOURS)
        ]
        return jnp.min(jnp.stack(ways), axis=0)

    def straight_distance(self, obs: Any) -> Float[Array, "*batch"]:
        """Distance to the goal through the walls, in cells."""
        position, goal = self.position(obs), self.goal_position
        return jnp.hypot(position[..., 0] - float(goal[0]), position[..., 1] - float(goal[1]))


def _advance(target: Array, cell: Array, limits: Array) -> tuple[Array, Array]:
    """Coordinate after a step along one axis, and whether a wall cut it short."""
    low, high = limits[0] + cell, limits[1] + cell
    return jnp.clip(target, low, high), (target < low) | (target > high)


def _check_dynamics(force: float, damping: float, goal_radius: float) -> None:
    if not 0 <= damping < 1:
        raise ValueError(f"point_maze: damping must be in [0, 1), got {damping!r}.")
    if not 0 < force / (1 - damping) <= 0.9:
        raise ValueError(
            f"point_maze: the top speed force / (1 - damping) must be in (0, 0.9] cells per step, got "
            f"{force / (1 - damping):.3g}; lower force or damping."
        )
    if not 0 < goal_radius <= 0.5:
        raise ValueError(f"point_maze: goal_radius must be in (0, 0.5], got {goal_radius!r}.")


def point_maze(**settings: Any) -> Task:
    """The task ``point_maze``; the environment's own (true) reward is 1 at the goal and 0 before.

    The potential is 1 − path / longest path. ``aligned`` pays for path gained, without discount; ``misaligned`` pays
    0.1 (1 − straight distance / longest) per step: it leads into the dead end, and waiting beside the goal earns more
    than the goal.

    Keeps the optimal policy: ``sparse_reward`` yes; ``dense_reward`` and ``aligned`` nearly; ``misaligned`` no.

    Args:
        settings: of :class:`PointMaze`: ``maze``, ``force``, ``damping``, ``goal_radius``, ``horizon``, ``gamma``.

    Returns:
        A :class:`Task`.

    Example:
        >>> from reward_design.envs.point_maze import point_maze
        >>> point_maze(maze=("#####", "#S.G#", "#####")).env.goal
        (1, 3)
    """
    env = PointMaze(**settings)

    def potential(obs: Any) -> Float[Array, "*batch"]:
        """φ = 1 − path / longest path, clipped to [0, 1]."""
        return jnp.clip(1.0 - env.path_distance(obs) / env.longest, 0.0, 1.0)

    def closeness(transition: Transition) -> Float[Array, "*batch"]:
        """1 − straight distance / longest, 0 on arrival."""
        return jnp.where(transition.terminated, 0.0, 1.0 - env.straight_distance(transition.next_obs) / env.longest)

    return Task(
        name=env.name,
        description=(
            f"A point with inertia moves through a maze of {env.walls.shape[0]} by {env.walls.shape[1]} cells, pushed "
            "by a force in [-1, 1] on each axis; walls stop it. Observation: position and velocity, scaled to [-1, 1]. "
            f"The environment pays 1 within {env.goal_radius} of the goal, where the episode ends, and 0 before; it "
            f"stops after {env.horizon} steps. The straight way to the goal is a dead end."
        ),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("goal", lambda t: t.terminated),
        dense_reward=progress(potential, lambda t: t.terminated, weight=5.0, bonus=1.0, step_cost=0.01),
        factors=_factors(env),
        potential=potential,
        auxiliary={
            "aligned": weighted("path_progress", lambda t: potential(t.next_obs) - potential(t.obs)),
            "misaligned": weighted("straight_closeness", closeness, 0.1),
        },
    )


def _factors(env: PointMaze) -> dict[str, Factor]:
    return {
        "goal": Factor(lambda t: jnp.asarray(t.terminated, jnp.float32), "1", 1, "1 on arrival at the goal, else 0"),
        "path_distance": Factor(
            lambda t: env.path_distance(t.next_obs), "cells", -1, "shortest way to the goal around the walls"
        ),
        "straight_distance": Factor(
            lambda t: env.straight_distance(t.next_obs), "cells", -1, "distance to the goal through the walls"
        ),
        "speed": Factor(
            lambda t: env.max_speed * jnp.linalg.norm(t.next_obs[..., 2:], axis=-1), "cells/step", 1, "speed"
        ),
        "hit_wall": Factor(
            lambda t: jnp.asarray(t.info["hit_wall"], jnp.float32), "1", -1, "1 where a wall stopped the point"
        ),
        "effort": Factor(lambda t: jnp.sum(t.action**2, axis=-1), "1", -1, "squared force, up to 2"),
    }
