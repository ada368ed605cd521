"""Simulated futures of a MuJoCo environment: lanes put where it stands, and run from there without resets."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import gymnasium
import jax
import numpy as np

from reward_design.core import Transition
from reward_design.envs.mujoco_lanes import MujocoVectorEnv


class Moment(NamedTuple):
    """Where the lanes of an environment stand: all that its next steps depend on, copied.

    Attributes:
        simulator: ``[B, n]`` MuJoCo's own state (``mjSTATE_INTEGRATION``: positions, velocities, time, warm start).
        fields: by name ``[B, ...]``, what was read from the simulator after the last step.
        steps: ``[B]`` steps of the episode so far.
        fresh: ``[B]`` whether the episode has only begun.
        payer: what a variant of the task remembers of the episode, or None.
    """

    simulator: np.ndarray
    fields: dict[str, np.ndarray]
    steps: np.ndarray
    fresh: np.ndarray
    payer: Any


class MujocoRollouts(MujocoVectorEnv):
    """Lanes that start from a :class:`Moment` of another environment and step exactly as that one would.

    Only these lanes are written to; the environment that is asked about is read. A lane whose episode ended stays where
    it is until :meth:`place` is called again.

    Args:
        task_env: a :class:`reward_design.envs.mujoco_tasks.MujocoTask`.
        num_rollouts: lanes ``K``.

    Raises:
        ValueError: if ``num_rollouts`` is not positive.
        ImportError: if MuJoCo is not installed.
    """

    def __init__(self, task_env: Any, num_rollouts: int) -> None:
        self.task_env = task_env
        super().__init__(task_env.base, num_rollouts, **task_env.lane_settings())
        self._arguments = {"task_env": task_env, "num_rollouts": num_rollouts}
        self._going = np.ones(num_rollouts, bool)
        self.reset(seed=0)

    def moment(self, envs: Any) -> Moment:
        """Where the lanes of ``envs`` stand; nothing of it is changed.

        Args:
            envs: a :class:`MujocoVectorEnv`, or a single environment of gymnasium's, wrapped or not.

        Raises:
            TypeError: for another kind of environment.
        """
        lanes, steps, pay = _standing(envs, self.name)
        states = [self._simulator_state(lane) for lane in lanes]
        if isinstance(envs, MujocoVectorEnv):
            fields = {name: np.array(value) for name, value in envs._before.items()}
        else:
            fields = {name: np.array(getattr(lanes[0].data, name))[None] for name in self._maths.fields}
        return Moment(np.stack(states), fields, steps, steps == 0, copy.deepcopy(pay))

    def observe(self, moment: Moment) -> np.ndarray:
        """What the lanes of ``moment`` show, ``[B, n]``."""
        return self._maths.observe(moment.fields)

    def place(self, moment: Moment, lane: int) -> None:
        """Put every lane where lane ``lane`` of ``moment`` stands."""
        kind = self._mujoco.mjtState.mjSTATE_INTEGRATION
        for own in self.lanes:
            self._mujoco.mj_resetData(own.model, own.data)  # also forgets the warnings of an earlier future
            self._mujoco.mj_setState(own.model, own.data, moment.simulator[lane], kind)
        self._before = {
            name: np.repeat(value[lane][None], self.num_envs, axis=0) for name, value in moment.fields.items()
        }
        self._obs = self._maths.observe(self._before)
        self._steps[:], self._going[:] = moment.steps[lane], True
        if self._payer is not None:
            self._pay = moment.payer.going_on(lane, self.num_envs)

    def rollout(self, actions: np.ndarray) -> Transition:
        """What would happen from here.

        Args:
            actions: ``[T, K, ...]``, a plan for every lane.

        Returns:
            Transitions ``[T, K]``, masked after the end of an episode; ``info`` has ``next_action`` (after the last
            step the last action).
        """
        rows = []
        for action in actions:
            obs, going = self._obs, self._going.copy()
            next_obs, reward, terminated, truncated, info = self.step(action)
            info = {name: info[name] for name in self.task_env.info}
            rows.append(Transition(obs, action, next_obs, reward, terminated, truncated & ~terminated, going, info))
            self._going &= ~(terminated | truncated)
        stacked = jax.tree.map(lambda *x: np.stack(x), *rows)
        following = np.concatenate([actions[1:], actions[-1:]])
        return stacked._replace(info={**stacked.info, "next_action": following})

    def _simulate(self, group: Sequence[int], actions: np.ndarray) -> None:
        super()._simulate([lane for lane in group if self._going[lane]], actions)

    def _restart(self, ended: np.ndarray) -> np.ndarray:
        return self._obs


def _standing(envs: Any, name: str) -> tuple[Sequence[Any], np.ndarray, Any]:
    """``(environments of the lanes, steps [B], payer)``."""
    if isinstance(envs, MujocoVectorEnv) and envs.name == name:
        return envs.lanes, envs._steps.copy(), envs._pay
    unwrapped = getattr(envs, "unwrapped", None)
    single = isinstance(envs, gymnasium.Env) and hasattr(unwrapped, "data")
    if not single or getattr(getattr(unwrapped, "spec", None), "id", "") != f"{name}-v5":
        raise TypeError(
            f"expected an environment of the task mujoco/{name}, got {type(envs).__name__}; plans are made by "
            "simulating MuJoCo from where it stands."
        )
    steps = _wrapper(envs, lambda env: env.__dict__.get("_elapsed_steps"))
    return [unwrapped], np.array([steps or 0]), _wrapper(envs, lambda env: env.__dict__.get("pay"))


def _wrapper(env: Any, find: Callable[[Any], Any]) -> Any:
    """The first thing found from the outermost wrapper inwards, or None."""
    while env is not None:
        if (found := find(env)) is not None:
            return found
        env = getattr(env, "env", None)
    return None
