"""Tasks on gymnasium's MuJoCo environments: ``mujoco/<name>``, ``mujoco/<name>-sparse``, ``mujoco/<name>-episodic``."""

from collections.abc import Callable
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium.utils import RecordConstructorArgs

from reward_design._names import suggestion
from reward_design.combinators import environment_reward
from reward_design.core import Transition
from reward_design.envs.base import Factor, FunctionalEnv, Task
from reward_design.envs.control import check_settings, no_reward, weighted
from reward_design.envs.host import HostEnv
from reward_design.envs.mujoco_gl import import_mujoco
from reward_design.envs.mujoco_lanes import MujocoVectorEnv
from reward_design.envs.mujoco_maths import MODELS, control_weight
from reward_design.envs.mujoco_texts import FACTS, Facts
from reward_design.envs.simulator_fault import SimulatorFault

VARIANTS = ("sparse", "episodic")


class MujocoTask(HostEnv):
    """One of gymnasium's MuJoCo environments (version 5), paid densely, sparsely or at the end of the episode.

    Args:
        base: a key of :data:`reward_design.envs.mujoco_maths.MODELS`.
        variant: ``""``, ``"sparse"`` or ``"episodic"``.
        distance: metres from which, or radius within which, the sparse variant pays.
        horizon: time limit.
        gamma: discount per step.
        ctrl_cost_weight: weight of the squared torques or forces in the reward; by default gymnasium's.
    """

    def __init__(
        self,
        base: str,
        variant: str,
        *,
        distance: float,
        horizon: int | None,
        gamma: float,
        ctrl_cost_weight: float | None = None,
    ) -> None:
        import_mujoco("mujoco", "MuJoCo environments")
        self.base, self.variant, self.distance, self.gamma = base, variant, distance, gamma
        self.ctrl_cost_weight = ctrl_cost_weight
        self._keywords = control_weight(base, ctrl_cost_weight)[1]
        self.name = "mujoco/" + "-".join(filter(None, [base, variant]))
        registered = gymnasium.spec(f"{base}-v5").max_episode_steps or 1000
        self.horizon = registered if horizon is None else horizon
        check_settings(self.name, horizon=self.horizon, gamma=gamma)
        probe = gymnasium.make(f"{base}-v5")
        self.observation_space, self.action_space = probe.observation_space, probe.action_space
        probe.close()
        self.info = {name: (MODELS[base].shapes.get(name, ()), np.float32) for name in MODELS[base].info}

    def make(self, *, render_mode: str | None = None) -> gymnasium.Env:
        """A single environment; a fault of the simulator ends its episode, as in the vector environment."""
        limit: dict[str, Any] = {"max_episode_steps": self.horizon, **self._keywords}
        made = gymnasium.make(f"{self.base}-v5", render_mode=render_mode, **limit)
        env = SimulatorFault(made)
        return _Paid(env, self) if self.variant else env

    def vector(self, num_envs: int, *, seed: int | None = None) -> gymnasium.vector.VectorEnv:
        """``num_envs`` environments stepped in one process."""
        return MujocoVectorEnv(self.base, num_envs, seed=seed, **self.lane_settings())

    def lane_settings(self) -> dict[str, Any]:
        """Keyword arguments for :class:`MujocoVectorEnv` that make its lanes those of this task."""
        return {
            "horizon": self.horizon,
            "host_env": self,
            "payer": self.payer if self.variant else None,
            "ctrl_cost_weight": self.ctrl_cost_weight,
        }

    def success(self, transition: Transition) -> Any:
        """See the task's description."""
        return succeeded(self.base, transition, FACTS[self.base].success)

    def payer(self, num_envs: int) -> Callable[..., np.ndarray]:
        """``(reward, next_obs, info, ended) -> reward`` of the variant, with the memory that it needs."""
        return _Sparse(self) if self.variant == "sparse" else _Episodic(num_envs)


class _Sparse:
    """Pays 1 where the task's place is reached."""

    def __init__(self, task: MujocoTask) -> None:
        self.base, self.distance = task.base, task.distance

    def __call__(self, reward: np.ndarray, next_obs: np.ndarray, info: Any, ended: np.ndarray) -> np.ndarray:
        return np.asarray(reached(self.base, next_obs, info, self.distance), np.float64)

    def going_on(self, lane: int, num_envs: int) -> "_Sparse":
        """It remembers nothing."""
        return self


class _Episodic:
    """Pays what the episode has earned with its last step."""

    def __init__(self, num_envs: int) -> None:
        self.total = np.zeros(num_envs)

    def __call__(self, reward: np.ndarray, next_obs: np.ndarray, info: Any, ended: np.ndarray) -> np.ndarray:
        self.total += reward
        paid = np.where(ended, self.total, 0.0)
        self.total[ended] = 0.0
        return paid

    def going_on(self, lane: int, num_envs: int) -> "_Episodic":
        """A payer for ``num_envs`` lanes that have all earned what ``lane`` has."""
        new = _Episodic(num_envs)
        new.total[:] = self.total[lane]
        return new


class _Paid(gymnasium.Wrapper, RecordConstructorArgs):
    """A single environment with the reward of a variant."""

    def __init__(self, env: gymnasium.Env, task: MujocoTask) -> None:
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, task=task)
        super().__init__(env)
        self.task, self.pay = task, task.payer(1)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        self.pay = self.task.payer(1)
        return self.env.reset(**kwargs)

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = self.env.step(action)
        rows = {name: np.asarray([info[name]]) for name in self.task.info}
        paid = self.pay(np.array([reward]), np.asarray(obs)[None], rows, np.array([terminated or truncated]))
        return obs, 0.0 if info["simulator_fault"] else float(paid[0]), terminated, truncated, info


def reached(base: str, next_obs: Any, info: Any, distance: float) -> Any:
    """What the sparse variant pays for: past ``distance`` in x, or within it of the target, or of upright."""
    if FACTS[base].velocity >= 0:
        return info["x_position"] > distance
    if base == "InvertedPendulum":
        return abs(next_obs[..., 1]) < distance
    return (_offset(base, next_obs) ** 2).sum(-1) < distance**2


def succeeded(base: str, transition: Transition, limit: float) -> Any:
    """Whether an episode that ends here has achieved its task."""
    if base == "InvertedPendulum":
        return jnp.logical_and(transition.truncated, jnp.logical_not(transition.terminated))
    return jnp.asarray(reached(base, transition.next_obs, transition.info, limit))


def mujoco_task(
    env_id: str,
    *,
    distance: float | None = None,
    horizon: int | None = None,
    gamma: float = 0.99,
    ctrl_cost_weight: float | None = None,
) -> Task:
    """The task ``mujoco/<env_id>``.

    The plain environments pay what gymnasium's version 5 pays. ``<name>-sparse`` pays 1 per step past ``distance``
    metres (runners), within it of the target (Reacher, Pusher) or within it of upright (InvertedPendulum, in rad).
    ``<name>-episodic`` pays the whole return with the last step; an episode that a fault of the simulator cuts pays 0.

    Success, at the end of an episode: to have come 50 m (HalfCheetah), 6 m (Hopper, Walker2d), 25 m (Ant), 5 m
    (Humanoid), 3 m (Swimmer); to be at the target (Reacher 0.02 m, Pusher 0.1 m); not to have fallen
    (InvertedPendulum). ``aligned`` pays for speed forward, or closeness to the target. ``misaligned`` pays for moving
    the joints fast, which looks like effort and is served best by thrashing in place. ``control_cost`` is −‖a‖²
    and ``control_cost_4`` four times that: the good and the bad heuristic of BARFI's study (Gupta et al., "Behavior
    Alignment via Reward Function Optimization", 2023, arXiv 2310.19007), whose primary reward, the forward velocity
    alone, is that of ``task("mujoco/HalfCheetah", ctrl_cost_weight=0.0)``. ``none`` is 0.

    Keeps the optimal policy: ``none`` yes; ``sparse_reward`` and ``dense_reward`` are tasks of their own;
    ``misaligned`` no; ``control_cost`` and ``control_cost_4`` no, they trade speed for effort.

    Args:
        env_id: name, with ``-sparse`` or ``-episodic`` for a variant.
        distance: of the sparse reward; by default what suits the environment.
        horizon: time limit; by default gymnasium's.
        gamma: discount per step.
        ctrl_cost_weight: weight of the squared torques or forces in the environment's reward; by default gymnasium's.

    Returns:
        A :class:`Task`, stepped on the host.

    Raises:
        ValueError: for an unknown name or variant, a negative weight, or one of a cost that the environment lacks.
        ImportError: if MuJoCo is not installed.
    """
    base, _, variant = env_id.partition("-")
    if base not in MODELS:
        raise ValueError(
            f"unknown MuJoCo environment {base!r}{suggestion(base, MODELS)} There are {', '.join(MODELS)}."
        )
    if variant not in ("", *VARIANTS):
        raise ValueError(f"{base!r} has no variant {variant!r}; there are {', '.join(VARIANTS)}, or leave it out.")
    facts = FACTS[base]
    distance = facts.paid_past if distance is None else distance
    env = MujocoTask(base, variant, distance=distance, horizon=horizon, gamma=gamma, ctrl_cost_weight=ctrl_cost_weight)
    text = facts.text + _weight_text(ctrl_cost_weight) + _variant_text(variant, facts, distance)
    return assembled(base, env, text, distance=distance, varied=bool(variant))


def assembled(base: str, env: HostEnv | FunctionalEnv, description: str, *, distance: float, varied: bool) -> Task:
    """A task on one of the environments, on the host or the device.

    Args:
        base: a key of :data:`reward_design.envs.mujoco_maths.MODELS`.
        env: what is stepped.
        description: of the task.
        distance: of the sparse reward.
        varied: whether the environment pays something else than gymnasium's does.
    """
    facts = FACTS[base]
    joints = slice(*facts.joints)
    near = _potential(base, facts)
    thrash = weighted("joint_speed", lambda t: jnp.abs(t.next_obs[..., joints]).sum(-1), 0.1)
    forward = weighted("forward" if facts.velocity >= 0 else "closeness", lambda t: near(t.next_obs))
    return Task(
        name=env.name,
        description=description,
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("goal", lambda t: reached(base, t.next_obs, t.info, distance)),
        dense_reward=forward if varied else environment_reward(),
        factors=_factors(base, facts),
        potential=near,
        auxiliary={
            "aligned": forward,
            "misaligned": thrash,
            "control_cost": weighted("control_cost", lambda t: -effort(t)),
            "control_cost_4": weighted("control_cost_4", lambda t: -effort(t), 4.0),
            "none": no_reward(),
        },
    )


def effort(transition: Transition) -> Any:
    """‖a‖², the squared torques or forces of the action as it was given."""
    return jnp.square(transition.action).sum(-1)


def _offset(base: str, obs: Any) -> Any:
    """Fingertip or cylinder relative to its target in the plane, in metres."""
    return obs[..., 8:10] if base == "Reacher" else obs[..., 17:19] - obs[..., 20:22]


def _potential(base: str, facts: Facts) -> Callable[[Any], Any]:
    """Forward velocity, cut at 10 m/s; or minus the distance to the target; or minus the tilt."""
    if facts.velocity >= 0:
        return lambda obs: jnp.clip(obs[..., facts.velocity], -10.0, 10.0).astype(jnp.float32)
    if base == "InvertedPendulum":
        return lambda obs: -jnp.abs(obs[..., 1])
    return lambda obs: -jnp.linalg.norm(_offset(base, obs), axis=-1)


def _weight_text(weight: float | None) -> str:
    return "" if weight is None else f" Here the weight of the squared torques or forces is {weight:g} instead."


def _variant_text(variant: str, facts: Facts, distance: float) -> str:
    if variant == "episodic":
        return " In this variant all that is paid with the last step of the episode."
    if variant == "sparse":
        where = f"past {distance:g} m" if facts.velocity >= 0 else f"within {distance:g} of the target"
        return f" In this variant the environment pays 1 per step {where}, and nothing else."
    return ""


def _factors(base: str, facts: Facts) -> dict[str, Factor]:
    joints = slice(*facts.joints)
    factors = {
        "effort": Factor(effort, "1", -1, "squared torques or forces"),
        "joint_speed": Factor(lambda t: jnp.abs(t.next_obs[..., joints]).sum(-1), "rad/s", -1, "speeds of all joints"),
    }
    if facts.velocity >= 0:
        factors["forward_velocity"] = Factor(lambda t: t.info["x_velocity"], "m/s", 1, "velocity in x over the step")
        factors["distance"] = Factor(lambda t: t.info["x_position"], "m", 1, "place in x")
    if "reward_survive" in MODELS[base].info:
        healthy = lambda t: (t.info["reward_survive"] > 0).astype(jnp.float32)  # noqa: E731
        factors["healthy"] = Factor(healthy, "1", 1, "1 while the posture is allowed")
    if "z_distance_from_origin" in MODELS[base].info:
        factors["height"] = Factor(lambda t: t.next_obs[..., 0], "m", 1, "height of the torso")
    if "reward_contact" in MODELS[base].info:
        factors["contact"] = Factor(lambda t: -t.info["reward_contact"], "1", -1, "cost of contact forces")
    if base in ("Reacher", "Pusher"):
        away = lambda t: jnp.linalg.norm(_offset(base, t.next_obs), axis=-1)  # noqa: E731
        factors["target_distance"] = Factor(away, "m", -1, "distance to the target")
    if base == "Pusher":
        touch = lambda t: jnp.linalg.norm(t.next_obs[..., 14:17] - t.next_obs[..., 17:20], axis=-1)  # noqa: E731
        factors["tip_distance"] = Factor(touch, "m", -1, "distance from the arm's tip to the cylinder")
    if base == "InvertedPendulum":
        factors["tilt"] = Factor(lambda t: jnp.abs(t.next_obs[..., 1]), "rad", -1, "tilt of the pole")
    return factors
