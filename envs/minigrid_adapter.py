"""Grid worlds of the xminigrid library (DoorKey, FourRooms, Unlock, ...) as tasks.

Source: A. Nikulin et al., "XLand-MiniGrid: Scalable Meta-Reinforcement Learning Environments in JAX", 2023,
arXiv 2312.12044; the levels are those of MiniGrid (M. Chevalier-Boisvert et al., 2023, arXiv 2306.13831).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool

from reward_design._optional import require
from reward_design.core import Transition
from reward_design.envs.base import EnvState, FunctionalEnv, Task
from reward_design.envs.control import check_known, check_settings, strongly_typed
from reward_design.envs.minigrid_parts import LOCKED_FAMILIES, MILESTONES, grid_task

FLOOR_KINDS = (0, 1, 2, 6, 7, 8, 9, 10)
"""Tiles of levels without objects: outside, floor, wall, goal, key, locked door, closed door, open door."""
_PLAIN_FAMILIES = ("DoorKey", "Empty", "FourRooms", "Unlock-")
_KEY, _LOCKED, _CLOSED, _OPEN, _GOAL = 7, 8, 9, 10, 6
_REWARDS, _OBSERVATIONS = ("sparse", "library"), ("one_hot", "symbolic")


class MinigridEnv(FunctionalEnv):
    """A level of xminigrid without autoreset.

    Actions: 0 forward, 1 turn right, 2 turn left, 3 pick up, 4 put down, 5 toggle (a door). The library's observation
    is the egocentric view ``[V, V, 2]`` of tiles and colours, seen through walls, without what the agent carries; here
    it is completed by the agent's direction, what it carries, and four milestones in [0, 1] (:data:`MILESTONES`):

    * ``has_key``, ``unlocked`` (no locked door is left), ``door_open``;
    * ``closeness``: 1 − (|Δrow| + |Δcolumn|) / (height + width), to the key while the door is locked and the key not
      held, then to the door, then to the goal; 0 where there is no such tile.

    ``observation="one_hot"`` gives one float vector: tiles (with colours where they matter), direction, carried tile,
    milestones; ``"symbolic"`` gives a dict of ``view`` (uint8), ``direction``, ``carried`` (uint8) and ``milestones``.

    ``info`` holds the milestones (after the step) and the events ``success``, ``picked_up``, ``put_down``,
    ``door_used``, ``turned``, ``moved``.

    Args:
        env_id: an id of ``xminigrid.registered_environments()`` that starts with ``MiniGrid-``.
        reward: ``"sparse"`` pays 1 on success; ``"library"`` pays 1 − 0.9 t / horizon.
        observation: ``"one_hot"`` or ``"symbolic"``.
        view_size: side V of the view, odd; the library's (7) if left out.
        horizon: time limit; the library's if left out.
        gamma: discount per step.
    """

    def __init__(
        self,
        env_id: str,
        *,
        reward: str = "sparse",
        observation: str = "one_hot",
        view_size: int | None = None,
        horizon: int | None = None,
        gamma: float = 0.99,
    ):
        xminigrid = require("xminigrid", "jaxenvs", "minigrid environments")
        known = [name for name in xminigrid.registered_environments() if name.startswith("MiniGrid-")]
        check_known("minigrid environment", env_id, known)
        check_known("reward setting", reward, _REWARDS)
        check_known("observation setting", observation, _OBSERVATIONS)
        if view_size is not None and (view_size < 3 or view_size % 2 == 0):
            raise ValueError(f"minigrid/{env_id}: view_size must be odd and at least 3, got {view_size}.")
        changes = {"view_size": view_size, "max_steps": horizon}
        self.library_env, self.params = xminigrid.make(env_id, **{k: v for k, v in changes.items() if v is not None})
        self.name, self.reward, self.observation, self.gamma = f"minigrid/{env_id}", reward, observation, gamma
        self.horizon = int(self.params.max_steps)
        check_settings(self.name, horizon=self.horizon, gamma=gamma)
        family = env_id.removeprefix("MiniGrid-") + "-"
        self.plain = family.startswith(_PLAIN_FAMILIES)
        self.has_locked_door = family.startswith(LOCKED_FAMILIES)
        self.action_space = spaces.Discrete(self.library_env.num_actions(self.params))
        self.observation_space = self._space()

    def _space(self) -> spaces.Space:
        shape = jax.eval_shape(self.reset, jax.random.key(0))[0]
        if self.observation == "one_hot":
            return spaces.Box(0.0, 1.0, shape.shape)
        return spaces.Dict(
            {
                "view": spaces.Box(0, 12, shape["view"].shape, np.uint8),
                "direction": spaces.Discrete(4),
                "carried": spaces.Box(0, 12, (2,), np.uint8),
                "milestones": spaces.Box(0.0, 1.0, (len(MILESTONES),)),
            }
        )

    def _reset(self, key: Any) -> tuple[Any, Any]:
        timestep = self.library_env.reset(self.params, key)
        state = strongly_typed(timestep.state)
        return self._observe(timestep.observation, state, self._milestones(state)), state

    def _step(self, key: Any, inner: Any, action: Any) -> tuple[Any, Any, Array, Array, dict[str, Any]]:
        from xminigrid.types import StepType, TimeStep

        before = TimeStep(inner, StepType.MID, jnp.float32(0), jnp.float32(1), jnp.zeros((0,)))  # only `state` is read
        after = self.library_env.step(self.params, before, jnp.asarray(action))
        state = strongly_typed(after.state)
        milestones = self._milestones(state)
        success = after.reward > 0
        reward = jnp.asarray(after.reward if self.reward == "library" else success, jnp.float32)
        info = milestones | _events(inner, state, action) | {"success": success}
        terminated = strongly_typed(after.discount == 0)
        return self._observe(after.observation, state, milestones), state, reward, terminated, info

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """The library's own picture, with the agent's view."""
        from xminigrid.rendering.rgb_render import render

        return np.asarray(render(np.asarray(state.inner.grid), state.inner.agent, self.params.view_size), np.uint8)

    def _milestones(self, state: Any) -> dict[str, Array]:
        tiles, agent = state.grid[..., 0], state.agent
        has_key, locked = agent.pocket[0] == _KEY, jnp.any(tiles == _LOCKED)
        target = jnp.where(locked, jnp.where(has_key, _LOCKED, _KEY), _GOAL)
        rows, columns = (jnp.arange(n) for n in tiles.shape)
        far = tiles.shape[0] + tiles.shape[1]
        steps = jnp.abs(rows - agent.position[0])[:, None] + jnp.abs(columns - agent.position[1])[None]
        nearest = jnp.min(jnp.where(tiles == target, steps, far))
        values = (has_key, ~locked, jnp.any(tiles == _OPEN), 1.0 - nearest / far)
        return {name: jnp.asarray(value, jnp.float32) for name, value in zip(MILESTONES, values, strict=True)}

    def _observe(self, view: Array, state: Any, milestones: Mapping[str, Array]) -> Any:
        agent, vector = state.agent, jnp.stack(list(milestones.values()))
        if self.observation == "symbolic":
            carried = agent.pocket
            return {
                "view": view,
                "direction": jnp.asarray(agent.direction, jnp.int32),
                "carried": carried,
                "milestones": vector,
            }
        tiles = jnp.concatenate([view.reshape(-1, 2), agent.pocket[None]])
        kinds = jnp.asarray(FLOOR_KINDS if self.plain else tuple(range(13)))[None]
        parts = [tiles[:, :1] == kinds] + ([] if self.plain else [tiles[:, 1:] == jnp.arange(12)[None]])
        parts = [p.reshape(-1) for p in parts] + [agent.direction == jnp.arange(4)]
        return jnp.concatenate([p.astype(jnp.float32) for p in parts] + [vector])

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True where the level's own goal is reached."""
        return jnp.asarray(transition.info["success"])


def _events(before: Any, after: Any, action: Any) -> dict[str, Array]:
    old, new = before.grid[..., 0], after.grid[..., 0]
    held, holds = before.agent.pocket[0] != 0, after.agent.pocket[0] != 0
    is_door = (new == _LOCKED) | (new == _CLOSED) | (new == _OPEN)
    return {
        "picked_up": ~held & holds,
        "put_down": held & ~holds,
        "door_used": jnp.any((old != new) & is_door),
        "turned": before.agent.direction != after.agent.direction,
        "moved": jnp.any(before.agent.position != after.agent.position),
    }


def minigrid_task(env_id: str, **settings: Any) -> Task:
    """Task for a level of xminigrid; the true reward is 1 on success (or the library's, see ``reward``).

    The potential is (stage + closeness) / 3, with stage 0 before the key is held, 1 before the door is unlocked, 2
    after; closeness alone for levels without a locked door. Auxiliary rewards: with a locked door, ``aligned`` pays
    once for the key (0.2, taken back if the key is put down before the door is unlocked) and once for the door (0.3),
    ``misaligned`` pays 0.1 for every pick-up and every use of a door, which can be repeated for ever; without one,
    ``aligned`` pays for closeness gained, ``misaligned`` 0.1 for every turn.

    Keeps the optimal policy: ``sparse_reward`` yes; ``dense_reward`` and ``aligned`` nearly; ``misaligned`` no.

    Args:
        env_id: ``"MiniGrid-DoorKey-5x5"`` for example.
        settings: of :class:`MinigridEnv`: ``reward``, ``observation``, ``view_size``, ``horizon``, ``gamma``.

    Returns:
        A :class:`Task` named ``minigrid/<id>``.

    Raises:
        ImportError: without the extra ``jaxenvs``.
        ValueError: for an unknown id, with the nearest one.

    Example:
        >>> from reward_design.envs.minigrid_adapter import minigrid_task
        >>> minigrid_task("MiniGrid-DoorKey-5x5", view_size=5).env.observation_space.shape
        (216,)
    """
    env = MinigridEnv(env_id, **settings)
    return grid_task(env, has_locked_door=env.has_locked_door)
