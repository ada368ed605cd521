"""Environments stepped one after another in this process, with the numbers of :class:`ProcessVectorEnv`."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import cloudpickle
import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from numpy.typing import DTypeLike

from reward_design.envs.host import NotCopied, lane_seeds, map_space
from reward_design.envs.process_memory import Memory
from reward_design.envs.process_worker import Lanes
from reward_design.envs.vector_checks import check_open, lane_actions


class SerialVectorEnv(NotCopied, gymnasium.vector.VectorEnv):
    """Steps environments in this process, in autoreset mode ``SAME_STEP``, for less than gymnasium's ``SyncVectorEnv``.

    Observations and info entries are written straight into the arrays of the batch. Every array returned is fresh;
    ``infos`` are laid out as those of :class:`~reward_design.envs.process_vector.ProcessVectorEnv`, which gives the
    same numbers for the same seed. An error of an environment is an error here.

    Args:
        make: makes one environment.
        num_envs: number of lanes ``B``.
        seed: of the first ``reset``, if that is given none; lane ``i`` gets ``seed + i``.
        info: shape and dtype of the info entries to hand on; every step of an environment must have them.
        observation_space: of one environment.
        action_space: likewise.
        host_env: what made this, for agents.

    Raises:
        ValueError: for fewer than one lane.
        TypeError: when it is copied or pickled.
    """

    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(
        self,
        make: Callable[[], gymnasium.Env],
        num_envs: int,
        *,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        seed: int | None = None,
        info: Mapping[str, tuple[tuple[int, ...], DTypeLike]] | None = None,
        host_env: Any = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self.num_envs, self.host_env, self.render_mode = num_envs, host_env, None
        self.single_observation_space, self.single_action_space = observation_space, action_space
        self.observation_space = batch_space(observation_space, num_envs)
        self.action_space = batch_space(action_space, num_envs)
        self._seed, self._slot, self._ready = seed, 0, False
        memory = Memory(observation_space, action_space, info or {}, num_envs)
        buffer = bytearray(memory.num_bytes)
        views = memory.views(buffer)
        groups = {kind: [v for path, v in views.items() if path[0] == kind] for kind in ("obs", "final_obs")}
        self._obs_views, self._final_views = groups["obs"], groups["final_obs"]
        self._actions = {path[1:]: view for path, view in views.items() if path[0] == "action"}
        self._info_views = {path[1]: view for path, view in views.items() if path[0] == "info"}
        self._result = [views[name,] for name in ("reward", "terminated", "truncated")]
        self._lanes = Lanes(0, num_envs, buffer, memory)
        self._finalizer = weakref.finalize(self, self._lanes.close)  # also at the end of the program
        self._lanes.open(cloudpickle.dumps(make))

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every lane. A seed s gives lane i the seed s + i.

        Raises:
            ClosedEnvironmentError: after ``close``.
            ValueError: for an observation that does not fit its space.
        """
        check_open(self)
        seeds = lane_seeds(self._seed if seed is None else seed, self.num_envs)
        self._seed = None
        self._lanes.reset(seeds, options or None, self._slot)
        self._ready = True
        return self._tree(self._obs_views), self._infos()

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every lane, and reset those that ended.

        Raises:
            ClosedEnvironmentError: after ``close``.
            ResetNeeded: before the first ``reset``.
            ValueError: for actions that are not one for each lane, or an observation that does not fit its space.
            TypeError: for fractions where actions are whole numbers.
        """
        check_open(self)
        if not self._ready:
            raise gymnasium.error.ResetNeeded("the environments must be reset before the first step; call reset().")
        for path, view in self._actions.items():
            view[...] = lane_actions(actions, path, view.shape, view.dtype)
        self._lanes.step(self._slot)
        reward, terminated, truncated = (array.copy() for array in self._result)
        obs, infos, ended = self._tree(self._obs_views), self._infos(), terminated | truncated
        if ended.any():
            infos["final_info"] = {**infos, **{f"_{name}": ended.copy() for name in infos}}
            finals = iter(self._final_views)

            def final(view: np.ndarray) -> np.ndarray:
                successor = view[self._slot].copy()
                successor[ended] = next(finals)[ended]
                return successor

            infos |= {"final_obs": self._tree(self._obs_views, final), "_final_obs": ended, "_final_info": ended}
        return obs, reward, terminated, truncated, infos

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        self._ready = False
        self._finalizer()

    def _tree(self, views: list[np.ndarray], fn: Callable[[np.ndarray], np.ndarray] | None = None) -> Any:
        """Copies, or ``fn``, of the views in the structure of the observations."""
        rows = iter(views)
        fn = fn or (lambda view: view[self._slot].copy())
        return map_space(lambda _: fn(next(rows)), self.single_observation_space)

    def _infos(self) -> dict[str, Any]:
        return {name: view[self._slot].copy() for name, view in self._info_views.items()}
