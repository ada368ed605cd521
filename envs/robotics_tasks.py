"""Tasks with goals on gymnasium-robotics: ``robotics/FetchReach``, ``robotics/PointMaze_UMaze-dense`` and so on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np

from reward_design._names import suggestion
from reward_design.combinators import environment_reward
from reward_design.core import Reward, Transition
from reward_design.envs.base import Factor, Task
from reward_design.envs.control import check_settings, weighted
from reward_design.envs.gymnasium_task import GymnasiumEnv
from reward_design.envs.robotics_compat import register_robotics
from reward_design.envs.robotics_goals import MazePaths, goal_distance, length
from reward_design.envs.robotics_texts import FACTS, Facts
from reward_design.envs.simulator_fault import SimulatorFault


class RoboticsEnv(GymnasiumEnv):
    """An environment of gymnasium-robotics.

    ``info`` holds ``is_success`` (1 where the goal is reached) and ``simulator_fault`` at every step. Single
    environments have ``compute_reward(achieved_goal, desired_goal, info)``, the environment's own.

    Args:
        base: a key of :data:`reward_design.envs.robotics_texts.FACTS`.
        variant: ``""`` or ``"dense"``.
        horizon: time limit.
        gamma: discount per step.
        vectorisation: as in :class:`reward_design.envs.gymnasium_task.GymnasiumEnv`.
        kwargs: arguments of ``gymnasium.make``.
    """

    def __init__(
        self, base: str, variant: str, *, horizon: int | None, gamma: float, vectorisation: str, kwargs: dict[str, Any]
    ) -> None:
        register_robotics()
        super().__init__(
            f"{base}{variant.title()}-{FACTS[base].version}",
            kwargs=kwargs,
            horizon=horizon,
            gamma=gamma,
            info={"is_success": ((), np.float32), "simulator_fault": ((), np.bool_)},
            success=_reached,
            vectorisation=vectorisation,
        )
        self.name = "robotics/" + "-".join(filter(None, [base, variant]))
        check_settings(self.name, horizon=self.horizon, gamma=gamma)

    def _made(self, which: Any, render_mode: str | None = None) -> gymnasium.Env:
        register_robotics()
        return super()._made(which, render_mode)

    def _guarded(self, env: gymnasium.Env) -> gymnasium.Env:
        if model_file := getattr(env.unwrapped, "tmp_xml_file_path", None):  # has been read, and nobody deletes it
            Path(model_file).unlink(missing_ok=True)
        return GoalEnv(env)


class GoalEnv(SimulatorFault):
    """An environment of gymnasium-robotics whose ``info["is_success"]`` is a number, also in mazes."""

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step; the mazes' own key is ``success``."""
        *rest, info = super().step(action)
        info["is_success"] = np.float32(info.get("is_success", info.get("success")))
        return *rest, info  # pyright: ignore[reportReturnType]

    def compute_reward(self, achieved_goal: Any, desired_goal: Any, info: Any) -> Any:
        """The environment's reward as a function of the goals after a step."""
        return self.env.unwrapped.compute_reward(achieved_goal, desired_goal, info)  # pyright: ignore[reportAttributeAccessIssue]


def robotics_task(
    env_id: str,
    *,
    horizon: int | None = None,
    gamma: float = 0.99,
    vectorisation: str = "sync",
    continuing_task: bool | None = None,
) -> Task:
    """The task ``robotics/<env_id>``.

    Rewards are the environment's own: Fetch pays −1 per step and 0 at the goal, ``<name>-dense`` minus the distance;
    the mazes pay 1 at the goal, ``<name>-dense`` exp(−distance). ``sparse_reward`` and ``dense_reward`` compute these
    numbers from the goals after the step, and nothing else. The potential is minus the distance to the goal, in mazes
    minus the length of the way around the walls, in radii of the goal (0.05 m; 0.45 m in mazes): about minus the steps
    that the gripper needs at full speed.

    ``aligned`` pays for closeness of the gripper to the object where there is one, else for closeness to the goal (in
    mazes along the way). ``misaligned`` pays the gripper for being where the object should be, the arm without an
    object, the ball and the ant for speed.

    Keeps the optimal policy: ``sparse_reward`` and ``dense_reward`` are the environment's two rewards; ``aligned``
    nearly; ``misaligned`` no.

    Args:
        env_id: a key of :data:`reward_design.envs.robotics_texts.FACTS`, with ``-dense`` for that variant.
        horizon: time limit; by default the registered one.
        gamma: discount per step.
        vectorisation: ``"sync"`` or ``"process"``, see :class:`reward_design.envs.gymnasium_task.GymnasiumEnv`.
        continuing_task: mazes only; True (their default) goes on at the goal until the time limit, False ends there.

    Returns:
        A :class:`Task`, stepped on the host.

    Raises:
        ValueError: for an unknown name, variant or setting.
        ImportError: without the extra ``robotics``.
    """
    base, _, variant = env_id.partition("-")
    if base not in FACTS:
        raise ValueError(f"unknown robotics task {base!r}{suggestion(base, FACTS)} There are {', '.join(FACTS)}.")
    if variant not in ("", "dense"):
        raise ValueError(f"{base!r} has no variant {variant!r}; there is dense, or leave it out.")
    facts = FACTS[base]
    if continuing_task is not None and not facts.cell:
        raise ValueError(f"{base!r} has no setting continuing_task; only mazes have it.")
    kwargs = {} if continuing_task is None else {"continuing_task": continuing_task}
    env = RoboticsEnv(base, variant, horizon=horizon, gamma=gamma, vectorisation=vectorisation, kwargs=kwargs)
    away = _way(env, facts)
    aligned, misaligned = _auxiliary(facts, away)
    return Task(
        name=env.name,
        description=facts.text + _more(facts, variant, continuing_task),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("goal", _sparse(facts)),
        dense_reward=weighted("closeness", _dense(facts)),
        factors=_factors(facts, away),
        potential=lambda obs: -away(obs) / facts.threshold,
        auxiliary={"aligned": aligned, "misaligned": misaligned},
    )


def _reached(transition: Transition) -> Any:
    return transition.info["is_success"] > 0


def _sparse(facts: Facts) -> Callable[[Transition], Any]:
    if facts.cell:
        return lambda t: (goal_distance(t.next_obs) <= facts.threshold).astype(jnp.float32)
    return lambda t: -(goal_distance(t.next_obs) > facts.threshold).astype(jnp.float32)


def _dense(facts: Facts) -> Callable[[Transition], Any]:
    if facts.cell:
        return lambda t: jnp.exp(-goal_distance(t.next_obs))
    return lambda t: -goal_distance(t.next_obs)


def _way(env: RoboticsEnv, facts: Facts) -> Callable[[Any], Any]:
    """Metres to the goal, around the walls where there are some."""
    if not facts.cell:
        return goal_distance
    probe = env.make()
    maze: Any = probe.unwrapped.maze  # pyright: ignore[reportAttributeAccessIssue]
    probe.close()
    return MazePaths(maze.maze_map, facts.cell)


def _auxiliary(facts: Facts, away: Callable[[Any], Any]) -> tuple[Reward, Reward]:
    if facts.has_object:
        return (
            weighted("near_object", lambda t: -_to_object(t.next_obs)),
            weighted("gripper_at_goal", lambda t: -length(_gripper(t.next_obs) - t.next_obs["desired_goal"])),
        )
    return weighted("closeness", lambda t: -away(t.next_obs)), weighted("speed", lambda t: _speed(facts, t), 0.1)


def _gripper(obs: Any) -> Any:
    return obs["observation"][..., :3]


def _to_object(obs: Any) -> Any:
    return length(obs["observation"][..., 6:9])


def _speed(facts: Facts, transition: Transition) -> Any:
    """Of gripper, ball or torso, in m/s."""
    return length(transition.next_obs["observation"][..., slice(*facts.velocity)]) / facts.dt


def _factors(facts: Facts, away: Callable[[Any], Any]) -> dict[str, Factor]:
    moving = "ball or torso" if facts.cell else "gripper"
    factors = {
        "goal_distance": Factor(lambda t: goal_distance(t.next_obs), "m", -1, "straight distance to the goal"),
        "reached": Factor(lambda t: t.info["is_success"], "1", 1, "1 while the goal is reached"),
        "effort": Factor(lambda t: jnp.square(t.action).sum(-1), "1", -1, "squared actions"),
        "speed": Factor(lambda t: _speed(facts, t), "m/s", -1, f"speed of the {moving}"),
    }
    if facts.cell:
        factors["way"] = Factor(lambda t: away(t.next_obs), "m", -1, "length of the way to the goal around the walls")
    if facts.has_object:
        moved = lambda o: o[..., 14:17] + o[..., 20:23]  # noqa: E731  (relative to the gripper, plus the gripper's)
        factors |= {
            "object_distance": Factor(lambda t: _to_object(t.next_obs), "m", -1, "from the gripper to the object"),
            "object_height": Factor(lambda t: t.next_obs["observation"][..., 5], "m", 1, "height of the object"),
            "object_speed": Factor(
                lambda t: length(moved(t.next_obs["observation"])) / facts.dt, "m/s", -1, "speed of the object"
            ),
        }
    if facts.velocity[0] == 13:  # the ant
        legs = lambda t: jnp.abs(t.next_obs["observation"][..., 19:27]).sum(-1)  # noqa: E731
        upright = lambda t: 1 - 2 * jnp.square(t.next_obs["observation"][..., 2:4]).sum(-1)  # noqa: E731
        factors["joint_speed"] = Factor(legs, "rad/s", -1, "speeds of all joints")
        factors["upright"] = Factor(upright, "1", 1, "cosine of the torso's tilt; -1 on its back")
    return factors


def _more(facts: Facts, variant: str, continuing_task: bool | None) -> str:
    text = ""
    if variant:
        pays = "exp(-distance to the goal in m)" if facts.cell else "minus the distance to the goal (m)"
        text += f" In this variant the environment pays {pays} in every step instead."
    return text + (" Here the episode ends as soon as the goal is reached." if continuing_task is False else "")
