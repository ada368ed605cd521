"""Many lanes of a MuJoCo environment stepped in one process, with observations and rewards computed for all at once."""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from reward_design._cores import num_cores
from reward_design.envs.host import lane_seeds
from reward_design.envs.mujoco_gl import import_mujoco
from reward_design.envs.mujoco_maths import MODELS, control_weight
from reward_design.envs.simulator_fault import LOST
from reward_design.envs.vector_checks import check_open

WORTH_A_THREAD = 56
"""Degrees of freedom, over all lanes of a thread, from which one more thread pays."""


class MujocoVectorEnv(gymnasium.vector.VectorEnv):
    """gymnasium's MuJoCo environments (version 5), equal to them step by step and about twice as fast.

    Every lane is one of gymnasium's environments, which resets it; between resets its bare ``MjData`` is stepped, and
    the arrays of all lanes are read, observed and paid together. Autoreset mode ``SAME_STEP``: ``infos["final_obs"]``
    is an array ``[B, n]``, valid where an episode ended, and the other entries of ``infos`` belong to the step itself.

    A simulator that gives NaN, or that MuJoCo had to reset, ends its episode: truncated, reward 0, the observation
    before, ``infos["simulator_fault"]`` true.

    A copy, or one restored from a pickle, goes on as the original would; threads are its own.

    Args:
        name: a key of :data:`reward_design.envs.mujoco_maths.MODELS`.
        num_envs: number of lanes ``B``.
        horizon: time limit; by default the registered one.
        seed: of the first ``reset``, if that is given none; lane ``i`` gets ``seed + i``.
        host_env: what made this, for agents.
        num_threads: threads that step lanes (MuJoCo lets others run meanwhile); by default as many as there is work
            for, up to one per core and 4.
        payer: makes, at every reset, ``(reward, next_obs, info, ended) -> reward``: another reward than gymnasium's.
        ctrl_cost_weight: weight of the squared torques or forces in the reward; by default gymnasium's.

    Raises:
        ValueError: if ``num_envs`` is not positive, or ``ctrl_cost_weight`` negative or of no use.
        ImportError: if MuJoCo is not installed.
    """

    lanes: Sequence[Any] = ()
    _pool: ThreadPoolExecutor | None = None
    metadata: ClassVar[dict[str, Any]] = {"autoreset_mode": AutoresetMode.SAME_STEP, "render_modes": []}

    def __init__(
        self,
        name: str,
        num_envs: int,
        *,
        horizon: int | None = None,
        seed: int | None = None,
        host_env: Any = None,
        num_threads: int | None = None,
        payer: Callable[[int], Callable[..., np.ndarray]] | None = None,
        ctrl_cost_weight: float | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self._mujoco: Any = import_mujoco("mujoco", "MuJoCo environments")
        self._arguments = {
            "name": name, "num_envs": num_envs, "horizon": horizon, "seed": seed, "host_env": host_env,
            "num_threads": num_threads, "payer": payer, "ctrl_cost_weight": ctrl_cost_weight,
        }  # fmt: skip
        self.name, self.num_envs, self.host_env, self._seed = name, num_envs, host_env, seed
        self.spec = gymnasium.spec(f"{name}-v5")
        self.horizon = horizon or self.spec.max_episode_steps or 1000
        self._weight, keywords = control_weight(name, ctrl_cost_weight)
        self.lanes = [gymnasium.make(f"{name}-v5", **keywords).unwrapped for _ in range(num_envs)]
        first = self.lanes[0]
        self.single_observation_space, self.single_action_space = first.observation_space, first.action_space
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._action_shape = self.action_space.shape
        self._maths, self._dt, self._frame_skip = MODELS[name], first.dt, first.frame_skip
        self._data = [(lane.model, lane.data, lane.data.ctrl) for lane in self.lanes]
        self._views = [getattr(lane.data, field).reshape(-1) for lane in self.lanes for field in self._maths.fields]
        self._parts: dict[str, tuple[slice, tuple[int, ...] | None]] = {}
        start = 0
        for field in self._maths.fields:
            value = getattr(first.data, field)
            self._parts[field] = (
                slice(start, start + value.size),
                (num_envs, *value.shape) if value.ndim > 1 else None,
            )
            start += value.size
        self._num_state = first.model.nq + first.model.nv
        self._steps, self._payer, self._pay = np.zeros(num_envs, int), payer, None
        self._warnings = [lane.data.warning.number[LOST] for lane in self.lanes]
        if num_threads is None:
            num_threads = max(1, min(4, num_cores(), num_envs * first.model.nv // WORTH_A_THREAD))
        groups = np.array_split(np.arange(num_envs), min(num_threads, num_envs))
        self._groups = [group.tolist() for group in groups]
        self._pool = ThreadPoolExecutor(len(self._groups) - 1) if len(self._groups) > 1 else None
        self._ready = False

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        """Start an episode in every lane. A seed s gives lane i the seed s + i; a list gives each its own.

        Raises:
            ClosedEnvironmentError: after ``close``.
        """
        check_open(self)
        if seed is None and not self._ready:
            seed = self._seed
        seeds = lane_seeds(seed, self.num_envs)
        self._pay = self._payer(self.num_envs) if self._payer else None
        for lane, own in zip(self.lanes, seeds, strict=True):
            lane.reset(seed=own)
        self._steps[:], self._ready = 0, True
        self._before = self._fields(self._flat())
        self._obs = self._maths.observe(self._before)
        return self._obs.copy(), {}

    def step(self, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step every lane, and reset those that ended.

        Raises:
            ClosedEnvironmentError: after ``close``.
            ResetNeeded: before the first ``reset``.
            ValueError: for actions that are not one for each lane, or not finite.
        """
        check_open(self)
        if not self._ready:
            raise gymnasium.error.ResetNeeded(f"{self.name!r} must be reset before the first step; call reset().")
        actions = np.asarray(actions)
        if actions.shape != self._action_shape:
            raise ValueError(f"actions of {self.name!r} must be {self.action_space.shape}, got {actions.shape}.")
        if np.count_nonzero(np.isfinite(actions)) < actions.size:
            lane = int(np.argmin(np.isfinite(actions).all(axis=1)))
            raise ValueError(f"actions of {self.name!r} must be finite, got {actions[lane]} in lane {lane}.")
        others = [self._pool.submit(self._simulate, group, actions) for group in self._groups[1:]] if self._pool else ()
        self._simulate(self._groups[0], actions)
        for other in others:
            other.result()
        flat = self._flat()
        after = self._fields(flat)
        obs = self._maths.observe(after)
        model = self.lanes[0].model
        reward, terminated, info = self._maths.score(self._before, after, actions, model, self._dt, self._weight)
        reward = np.asarray(reward, np.float64)
        self._steps += 1
        truncated = self._steps >= self.horizon
        fault = self._faults(flat)
        info = {name: np.array(value) for name, value in info.items()}
        if np.count_nonzero(fault):
            obs[fault], reward[fault], terminated[fault], truncated[fault] = self._obs[fault], 0.0, False, True
            for value in info.values():
                value[fault] = 0.0
        info["simulator_fault"] = fault
        self._before, self._obs = after, obs
        ended = terminated | truncated
        if self._pay is not None:
            reward = np.where(fault, 0.0, self._pay(reward, obs, info, ended))
        if np.count_nonzero(ended):
            final = {name: value.copy() for name, value in info.items()}
            final |= {f"_{name}": ended.copy() for name in final}
            info |= {"final_obs": obs.copy(), "_final_obs": ended, "final_info": final, "_final_info": ended}
            self._obs = self._restart(ended)
        return self._obs.copy(), reward, terminated, truncated, info

    def _simulate(self, group: Sequence[int], actions: np.ndarray) -> None:
        step, forces, skip = self._mujoco.mj_step, self._mujoco.mj_rnePostConstraint, self._frame_skip
        contacts = self._maths.contacts
        for lane in group:
            model, data, ctrl = self._data[lane]
            ctrl[:] = actions[lane]
            step(model, data, skip)
            if contacts:
                forces(model, data)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments of the lanes."""
        if self._pool is not None:
            self._pool.shutdown()
        for lane in self.lanes:
            lane.close()

    def _flat(self) -> np.ndarray:
        """The fields of all lanes, side by side, ``[B, ...]``."""
        return np.concatenate(self._views).reshape(self.num_envs, -1)

    def _fields(self, flat: np.ndarray) -> dict[str, np.ndarray]:
        return {
            name: flat[:, part] if shape is None else flat[:, part].reshape(shape)
            for name, (part, shape) in self._parts.items()
        }

    def _faults(self, flat: np.ndarray) -> Any:
        """Lanes that are not finite, or in which MuJoCo found a bad position, velocity or acceleration."""
        finite, warnings = np.isfinite(flat[:, : self._num_state]), np.concatenate(self._warnings)
        if np.count_nonzero(finite) == finite.size and not np.count_nonzero(warnings):
            return np.zeros(self.num_envs, bool)
        return ~finite.all(axis=1) | (warnings.reshape(self.num_envs, -1) > 0).any(axis=1)

    def _restart(self, ended: np.ndarray) -> np.ndarray:
        for lane in np.flatnonzero(ended).tolist():
            self.lanes[lane].reset()
        self._steps[ended] = 0
        self._before = self._fields(self._flat())
        return np.where(ended[:, None], self._maths.observe(self._before), self._obs)

    # --- copies -------------------------------------------------------------------------------------------------------

    def __getstate__(self) -> dict[str, Any]:
        """What made this, and where it stands."""
        names = ("_steps", "_ready", "_before", "_obs", "_pay", "closed")
        return {
            "arguments": self._arguments,
            "lanes": [(self._simulator_state(lane), lane._np_random, lane._np_random_seed) for lane in self.lanes],
            "rest": {name: getattr(self, name) for name in names if hasattr(self, name)},
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Make the environments anew, and put the simulators where they were."""
        self.__init__(**state["arguments"])
        for lane, (simulator, generator, seed) in zip(self.lanes, state["lanes"], strict=True):
            self._mujoco.mj_setState(lane.model, lane.data, simulator, self._mujoco.mjtState.mjSTATE_INTEGRATION)
            lane._np_random, lane._np_random_seed = generator, seed
        self.__dict__.update(state["rest"])

    def __deepcopy__(self, memo: dict[int, Any]) -> "MujocoVectorEnv":
        """A copy of the same task: agents compile once per ``host_env``."""
        memo[id(self.host_env)] = self.host_env
        new = object.__new__(type(self))
        memo[id(self)] = new
        new.__setstate__(copy.deepcopy(self.__getstate__(), memo))
        return new

    def _simulator_state(self, lane: Any) -> np.ndarray:
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        state = np.empty(self._mujoco.mj_stateSize(lane.model, kind))
        self._mujoco.mj_getState(lane.model, lane.data, state, kind)
        return state
