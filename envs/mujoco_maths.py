"""What gymnasium's MuJoCo environments (version 5) observe, pay and end on, for many lanes at once.

Written for arrays of NumPy and of JAX alike (``_of``): the lanes of the host and MJX on the device share it.

The constants are the default arguments of ``gymnasium.make("<id>-v5")``, of which the weight of the control cost can be
changed; the tests step both side by side. Costs of an
action are computed in the action's own dtype, as gymnasium does.

Source: M. Towers et al., "Gymnasium: A Standard Interface for Reinforcement Learning Environments", 2024, arXiv
2407.17032.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

Array = Any
"""Of NumPy or JAX."""
Arrays = Mapping[str, Array]
"""Fields of the simulator's data, ``[B, ...]``."""
Scored = tuple[Array, Array, dict[str, Array]]
"""``(reward [B], terminated [B], info)``."""


@dataclass(frozen=True)
class Model:
    """One environment's maths.

    Attributes:
        fields: arrays of ``mujoco.MjData`` that are read after each step.
        observe: ``arrays -> obs [B, n]``.
        score: ``(before, after, action, model, dt, weight) -> (reward, terminated, info)``; ``model`` is the
            ``MjModel``, ``weight`` that of the control cost.
        info: names of the info entries.
        contacts: whether contact forces are read, which costs another call per step.
        shapes: of info entries that are not single numbers.
        control: gymnasium's name for the weight of the control cost, and its default; None where there is no such cost.
    """

    fields: tuple[str, ...]
    observe: Callable[[Arrays], Array]
    score: Callable[[Arrays, Arrays, Array, Any, float, float], Scored]
    info: tuple[str, ...]
    contacts: bool = False
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    control: tuple[str, float] | None = None


def _square_sum(x: Array) -> Array:
    """Sum of squares over all axes but the first."""
    x = x.reshape(len(x), -1)
    return (x * x).sum(-1)


def _of(x: Array) -> Any:
    """The module of an array's functions: ``numpy`` or ``jax.numpy``."""
    return x.__array_namespace__()


def _never(x: Array) -> Array:
    """False for every lane."""
    return _of(x).zeros(len(x), dtype=bool)


def _norm(x: Array) -> Array:
    return _of(x).linalg.norm(x, axis=-1)


def _state(skip: int, clip: float | None = None) -> Callable[[Arrays], Array]:
    """Positions without the first ``skip``, and velocities."""

    def observe(after: Arrays) -> Array:
        qvel = after["qvel"] if clip is None else after["qvel"].clip(-clip, clip)
        return _of(qvel).concatenate([after["qpos"][:, skip:], qvel], axis=1)

    return observe


def _cheetah(before: Arrays, after: Arrays, action: Array, model: Any, dt: float, weight: float) -> Scored:
    x = after["qpos"][:, 0]
    velocity = (x - before["qpos"][:, 0]) / dt
    cost = weight * _square_sum(action)
    info = {"x_position": x, "x_velocity": velocity, "reward_forward": velocity, "reward_ctrl": -cost}
    return velocity - cost, _never(x), info


def _swimmer(before: Arrays, after: Arrays, action: Array, model: Any, dt: float, weight: float) -> Scored:
    place = after["qpos"][:, :2]
    velocity = (place - before["qpos"][:, :2]) / dt
    cost = weight * _square_sum(action)
    info = {**_place(place, velocity), "reward_forward": velocity[:, 0], "reward_ctrl": -cost}
    return velocity[:, 0] - cost, _never(velocity), info


def _upright(healthy: Callable[[Arrays], Array]) -> Callable[..., Scored]:
    """Hopper and Walker2d: forward velocity, 1 per healthy step, the cost of the action; ends when unhealthy."""

    def score(before: Arrays, after: Arrays, action: Array, model: Any, dt: float, weight: float) -> Scored:
        x, well = after["qpos"][:, 0], healthy(after)
        velocity = (x - before["qpos"][:, 0]) / dt
        cost = weight * _square_sum(action)
        survive = well * 1.0
        info = {
            "x_position": x, "z_distance_from_origin": after["qpos"][:, 1] - model.qpos0[1], "x_velocity": velocity,
            "reward_forward": velocity, "reward_ctrl": -cost, "reward_survive": survive,
        }  # fmt: skip
        return velocity + survive - cost, ~well, info

    return score


def _hopper_healthy(after: Arrays) -> Array:
    z, angle = after["qpos"][:, 1], after["qpos"][:, 2]
    state = _of(z).concatenate([after["qpos"][:, 2:], after["qvel"]], axis=1)
    return (abs(state) < 100).all(axis=1) & (z > 0.7) & (abs(angle) < 0.2)


def _walker_healthy(after: Arrays) -> Array:
    z, angle = after["qpos"][:, 1], after["qpos"][:, 2]
    return (z > 0.8) & (z < 2.0) & (abs(angle) < 1.0)


def _ant_observe(after: Arrays) -> Array:
    forces = after["cfrc_ext"][:, 1:].clip(-1.0, 1.0).reshape(len(after["qpos"]), -1)
    return _of(forces).concatenate([after["qpos"][:, 2:], after["qvel"], forces], axis=1)


def _ant(before: Arrays, after: Arrays, action: Array, model: Any, dt: float, weight: float) -> Scored:
    velocity = (after["xpos"][:, 1, :2] - before["xpos"][:, 1, :2]) / dt
    z = after["qpos"][:, 2]
    well = (z >= 0.2) & (z <= 1.0)
    cost, contact = weight * _square_sum(action), 5e-4 * _square_sum(after["cfrc_ext"].clip(-1.0, 1.0))
    survive = well * 1.0
    info = {
        **_place(after["qpos"][:, :2], velocity), "reward_forward": velocity[:, 0], "reward_ctrl": -cost,
        "reward_contact": -contact, "reward_survive": survive,
    }  # fmt: skip
    return velocity[:, 0] + survive - (cost + contact), ~well, info


def _humanoid_observe(after: Arrays) -> Array:
    lanes = len(after["qpos"])
    inertia, speeds, forces = (after[name][:, 1:].reshape(lanes, -1) for name in ("cinert", "cvel", "cfrc_ext"))
    parts = [after["qpos"][:, 2:], after["qvel"], inertia, speeds, after["qfrc_actuator"][:, 6:], forces]
    return _of(inertia).concatenate(parts, axis=1)


def _humanoid(before: Arrays, after: Arrays, action: Array, model: Any, dt: float, weight: float) -> Scored:
    mass = model.body_mass[None, :, None]
    centres = [(mass * arrays["xipos"]).sum(axis=1) / mass.sum() for arrays in (before, after)]
    velocity = ((centres[1] - centres[0]) / dt)[:, :2]
    z = after["qpos"][:, 2]
    well = (z > 1.0) & (z < 2.0)
    cost = weight * _square_sum(after["ctrl"])
    contact = (5e-7 * _square_sum(after["cfrc_ext"])).clip(None, 10.0)
    forward, survive = 1.25 * velocity[:, 0], well * 5.0
    info = {
        **_place(after["qpos"][:, :2], velocity), "reward_forward": forward, "reward_ctrl": -cost,
        "reward_contact": -contact, "reward_survive": survive,
        "tendon_length": after["ten_length"], "tendon_velocity": after["ten_velocity"],
    }  # fmt: skip
    return forward + survive - (cost + contact), ~well, info


def _pendulum(before: Arrays, after: Arrays, action: Array, model: Any, dt: float, weight: float) -> Scored:
    fallen = abs(after["qpos"][:, 1]) > 0.2
    survive = (~fallen) * 1.0
    return survive, fallen, {"reward_survive": survive}


def _reach(after: Arrays) -> Array:
    """Fingertip (body 3) minus target (body 4)."""
    return after["xpos"][:, 3] - after["xpos"][:, 4]


def _reacher_observe(after: Arrays) -> Array:
    theta = after["qpos"][:, :2]
    xp = _of(theta)
    parts = [xp.cos(theta), xp.sin(theta), after["qpos"][:, 2:], after["qvel"][:, :2], _reach(after)[:, :2]]
    return xp.concatenate(parts, axis=1)


def _reacher(before: Arrays, after: Arrays, action: Array, model: Any, dt: float, weight: float) -> Scored:
    distance, cost = _norm(_reach(after)), weight * _square_sum(action)
    return -distance - cost, _never(cost), {"reward_dist": -distance, "reward_ctrl": -cost}


def _pusher_bodies(after: Arrays) -> list[Array]:
    """Places of the arm's tip (body 10), the object (11) and the goal (12)."""
    return [after["xpos"][:, body] for body in (10, 11, 12)]


def _pusher_observe(after: Arrays) -> Array:
    parts = [after["qpos"][:, :7], after["qvel"][:, :7], *_pusher_bodies(after)]
    return _of(parts[0]).concatenate(parts, axis=1)


def _pusher(before: Arrays, after: Arrays, action: Array, model: Any, dt: float, weight: float) -> Scored:
    tip, thing, goal = _pusher_bodies(after)
    near = -0.5 * _norm(thing - tip)
    distance = -_norm(thing - goal)
    cost = -weight * _square_sum(action)
    info = {"reward_dist": distance, "reward_ctrl": cost, "reward_near": near}
    return distance + cost + near, _never(near), info


def _place(place: Array, velocity: Array) -> dict[str, Array]:
    return {
        "x_position": place[:, 0], "y_position": place[:, 1], "distance_from_origin": _norm(place),
        "x_velocity": velocity[:, 0], "y_velocity": velocity[:, 1],
    }  # fmt: skip


_PLANE = ("x_position", "y_position", "distance_from_origin", "x_velocity", "y_velocity")
_RUN = ("x_position", "x_velocity", "reward_forward", "reward_ctrl")
_LEGS = ("x_position", "z_distance_from_origin", "x_velocity", "reward_forward", "reward_ctrl", "reward_survive")
_BODY = (*_PLANE, "reward_forward", "reward_ctrl", "reward_contact", "reward_survive")
_TENDONS = ("tendon_length", "tendon_velocity")
_STATE = ("qpos", "qvel")
"""First of the fields of every model."""

MODELS: dict[str, Model] = {
    "HalfCheetah": Model(_STATE, _state(1), _cheetah, _RUN, control=("ctrl_cost_weight", 0.1)),
    "Hopper": Model(
        _STATE, _state(1, 10.0), _upright(_hopper_healthy), _LEGS, control=("ctrl_cost_weight", 1e-3),
    ),
    "Walker2d": Model(
        _STATE, _state(1, 10.0), _upright(_walker_healthy), _LEGS, control=("ctrl_cost_weight", 1e-3),
    ),
    "Ant": Model(
        (*_STATE, "xpos", "cfrc_ext"), _ant_observe, _ant, _BODY, contacts=True, control=("ctrl_cost_weight", 0.5),
    ),
    "Humanoid": Model(
        (*_STATE, "ctrl", "xipos", "cinert", "cvel", "qfrc_actuator", "cfrc_ext", "ten_length", "ten_velocity"),
        _humanoid_observe, _humanoid, (*_BODY, *_TENDONS), contacts=True, shapes=dict.fromkeys(_TENDONS, (2,)),
        control=("ctrl_cost_weight", 0.1),
    ),
    "Swimmer": Model(
        _STATE, _state(2), _swimmer, (*_PLANE, "reward_forward", "reward_ctrl"), control=("ctrl_cost_weight", 1e-4),
    ),
    "InvertedPendulum": Model(_STATE, _state(0), _pendulum, ("reward_survive",)),
    "Reacher": Model(
        (*_STATE, "xpos"), _reacher_observe, _reacher, ("reward_dist", "reward_ctrl"),
        control=("reward_control_weight", 1.0),
    ),
    "Pusher": Model(
        (*_STATE, "xpos"), _pusher_observe, _pusher, ("reward_dist", "reward_ctrl", "reward_near"),
        control=("reward_control_weight", 0.1),
    ),
}  # fmt: skip
"""The environments by name."""


def control_weight(name: str, weight: float | None) -> tuple[float, dict[str, Any]]:
    """The weight of the control cost of an environment, and the keyword arguments that give it to gymnasium.

    Args:
        name: a key of :data:`MODELS`.
        weight: not negative; None for gymnasium's.

    Returns:
        ``(weight, keywords)``; 0 where nothing is paid for control.

    Raises:
        ValueError: if it is negative or not finite, or the environment has no control cost.

    Example:
        >>> control_weight("Reacher", 0.5)
        (0.5, {'reward_control_weight': 0.5})
    """
    known = MODELS[name].control
    if weight is None:
        return (known[1] if known else 0.0), {}
    if known is None:
        raise ValueError(f"{name!r} has no control cost, got ctrl_cost_weight={weight!r}; leave it out.")
    if not 0.0 <= weight < math.inf:
        raise ValueError(f"ctrl_cost_weight of {name!r} must be finite and not negative, got {weight!r}.")
    return float(weight), {known[0]: float(weight)}
