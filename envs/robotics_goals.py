"""Rewards and potentials of goals: distances, the way through a maze, and the reward function that HER asks for."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from reward_design.core import Kind, Reward, Transition

_GOALS = ("achieved_goal", "desired_goal")


def length(vector: Any) -> Float[Array, "*batch"]:
    """Euclidean length over the last axis, with gradient 0 at 0."""
    square = jnp.sum(jnp.square(vector), axis=-1)
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


def goal_distance(obs: Mapping[str, Any]) -> Float[Array, "*batch"]:
    """Distance between the achieved and the desired goal, in metres."""
    return length(obs["achieved_goal"] - obs["desired_goal"])


class MazePaths:
    """Length of the way from the achieved to the desired goal around the walls of a maze.

    The way leads from cell to cell, straight over cells between which the rectangle is free of walls, along a shortest
    path in four directions; unless the goal is in sight, its last piece leads to the centre of the goal's cell.

    Args:
        maze_map: rows of cells; 1 is a wall.
        scale: side of a cell in metres.
    """

    def __init__(self, maze_map: Sequence[Sequence[Any]], scale: float) -> None:
        self.walls, self.scale = np.array([[cell == 1 for cell in row] for row in maze_map]), scale
        self._waypoint, self._rest, self._direct = _routes(self.walls)

    def __call__(self, obs: Mapping[str, Any]) -> Float[Array, "*batch"]:
        """``obs -> [B]`` metres."""
        here, goal = self._cells(obs["achieved_goal"]), self._cells(obs["desired_goal"])
        index = tuple(self._index(place) for place in (here, goal))
        waypoint = jnp.where(jnp.asarray(self._direct)[index][..., None], goal, jnp.asarray(self._waypoint)[index])
        return self.scale * (length(here - waypoint) + jnp.asarray(self._rest)[index])

    def _cells(self, place: Any) -> Array:
        """Row and column, as fractions, of a place ``(x, y)``; a cell's centre is at whole numbers."""
        height, width = self.walls.shape
        column, row = place[..., 0] / self.scale + (width - 1) / 2, (height - 1) / 2 - place[..., 1] / self.scale
        return jnp.stack([row, column], axis=-1)

    def _index(self, cells: Array) -> Array:
        row, column = (jnp.clip(jnp.round(cells[..., i]).astype(int), 0, n - 1) for i, n in enumerate(self.walls.shape))
        return row * self.walls.shape[1] + column


def _routes(walls: Bool[np.ndarray, "height width"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every pair of cells: the first waypoint ``[C, C, 2]``, the rest of the way, whether the goal is in sight.

    A wall's cell counts as the nearest free one.
    """
    cells, free = np.argwhere(np.ones_like(walls)), np.argwhere(~walls)
    num, at = len(cells), {tuple(cell): i for i, cell in enumerate(cells.tolist())}
    waypoint, rest = np.zeros((num, num, 2), np.float32), np.zeros((num, num), np.float32)
    direct = np.ones((num, num), bool)
    for row, column in free.tolist():
        goal = (row, column)
        parent = _towards(walls, goal)
        j = at[goal]
        for cell in parent:  # nearest to the goal first
            target = cell
            while target != goal and _clear(walls, cell, parent[target]):
                target = parent[target]
            i, k = at[cell], at[target]
            waypoint[i, j], direct[i, j] = target, target == goal
            rest[i, j] = 0.0 if direct[i, j] else np.hypot(*(waypoint[k, j] - target)) + rest[k, j]
    near = [at[tuple(free[np.abs(free - cell).sum(1).argmin()].tolist())] for cell in cells]
    return waypoint[near][:, near], rest[near][:, near], direct[near][:, near]


def _towards(walls: np.ndarray, goal: tuple[int, int]) -> dict[tuple[int, int], tuple[int, int]]:
    """The next cell on a shortest path to the goal, for every cell from which there is one, nearest first."""
    parent = {goal: goal}
    queue = [goal]
    for row, column in queue:
        for cell in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= cell[0] < walls.shape[0] and 0 <= cell[1] < walls.shape[1]
            if inside and cell not in parent and not walls[cell]:
                parent[cell] = (row, column)
                queue.append(cell)
    return parent


def _clear(walls: np.ndarray, one: tuple[int, int], two: tuple[int, int]) -> bool:
    rows, columns = sorted((one[0], two[0])), sorted((one[1], two[1]))
    return not walls[rows[0] : rows[1] + 1, columns[0] : columns[1] + 1].any()


def hindsight_reward(
    reward: Reward, transitions: Transition, *, params: Any = None, tolerance: float = 1e-5
) -> Callable[[Any, Any, Any], Any]:
    """``compute_reward(achieved_goal, desired_goal, info)`` of a reward, as hindsight experience replay (HER) asks for.

    HER changes the desired goal of stored transitions and computes their reward anew, from the two goals alone. Which
    is right only for a reward that depends on nothing else; so it is compared with the reward of real transitions.

    Source: M. Andrychowicz et al., "Hindsight Experience Replay", 2017, arXiv 1707.01495.

    Args:
        reward: a pointwise reward of ``next_obs["achieved_goal"]`` and ``next_obs["desired_goal"]``.
        transitions: recorded ones with leading axis ``N``; a thousand say more than ten.
        params: parameters of the reward, if not its own initial ones.
        tolerance: greatest difference allowed.

    Returns:
        A function of arrays ``[..., n]`` in NumPy; ``info`` is not read.

    Raises:
        TypeError: for a reward with memory.
        ValueError: for a reward that depends on more than the goals after the step.

    Example:
        >>> from reward_design.envs import task
        >>> reach = task("robotics/FetchReach")
        >>> compute_reward = hindsight_reward(reach.sparse_reward, reach.example)
        >>> compute_reward([[0.0, 0.0, 0.0], [0.0, 0.0, 0.0]], [[1.0, 0.0, 0.0], [0.0, 0.0, 0.01]], [{}, {}]).tolist()
        [-1.0, -0.0]
    """
    if reward.kind is not Kind.POINTWISE or reward.step is None:
        raise TypeError(
            f"HER computes rewards of single transitions; {reward.name!r} is of kind {reward.kind.name}, use a "
            "POINTWISE one."
        )
    blank = jax.tree.map(lambda x: np.zeros_like(x[:1]), transitions)._replace(mask=np.ones(1, bool))
    step = reward.step
    first, state = reward.init(jax.random.key(0), blank)
    params = first if params is None else params

    @jax.jit
    def paid(achieved: Any, desired: Any) -> Any:
        num = len(achieved)
        rows = jax.tree.map(lambda x: jnp.broadcast_to(x, (num, *x.shape[1:])), blank)
        goals = dict(zip(_GOALS, (achieved, desired), strict=True))
        return step(params, state, rows._replace(next_obs={**rows.next_obs, **goals}))[0].reward

    def compute_reward(achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        achieved, desired = (np.asarray(goal, np.float32) for goal in (achieved_goal, desired_goal))
        flat = [goal.reshape(-1, goal.shape[-1]) for goal in (achieved, desired)]
        return np.asarray(paid(*flat)).reshape(achieved.shape[:-1])[()]

    real = np.asarray(jax.jit(step)(params, state, transitions)[0].reward)
    ours = np.where(
        transitions.mask, compute_reward(transitions.next_obs[_GOALS[0]], transitions.next_obs[_GOALS[1]], {}), 0.0
    )
    wrong = np.abs(real - ours) > tolerance
    if wrong.any():
        row = int(np.argmax(wrong))
        raise ValueError(
            f"reward {reward.name!r} depends on more than the goals after the step: {real[row]:g} in transition {row}, "
            f"{ours[row]:g} from the goals alone ({wrong.sum()} of {len(real)} differ); HER cannot compute it."
        )
    return compute_reward
