"""How long and with which settings an agent trains on a task when nothing else is asked for."""

import ast
import contextlib
import dataclasses
import typing
from collections.abc import Mapping
from typing import Any

from reward_design._names import suggestion

SMALL_DQN = {"hidden": (64, 64), "batch_size": 64, "learning_rate": 1e-3, "learning_starts": 1_000}
SMALL_SAC = {"hidden": (64, 64), "batch_size": 128, "learning_rate": 1e-3, "num_envs": 4, "num_steps": 4}
ARM_SAC = {"hidden": (64, 64), "batch_size": 128, "learning_rate": 1e-3, "learning_starts": 1_000}
ROOMS = {"num_steps": 128, "num_minibatches": 8, "learning_rate_end": 1e-4}
CORRIDORS = {**ROOMS, "torso": "conv", "num_envs": 16, "entropy_coef": 0.003, "entropy_coef_end": 0.003}
LOCOMOTION = ("HalfCheetah", "Hopper", "Walker2d", "Ant", "Humanoid", "Swimmer")
ARMS = ("Reacher", "Pusher", "InvertedPendulum")

BUDGETS: dict[str, dict[str, dict[str, Any]]] = {
    "ppo": {
        "chain": {"total_timesteps": 60_000},
        "deep_sea": {"total_timesteps": 200_000},
        "cliff": {"total_timesteps": 120_000},
        "four_rooms": {"total_timesteps": 60_000},
        "key_door": {"total_timesteps": 60_000},
        "random_mdp": {"total_timesteps": 60_000},
        "mountain_car": {"total_timesteps": 300_000},
        "cartpole": {"total_timesteps": 150_000},
        "acrobot": {"total_timesteps": 300_000},
        "pendulum": {"total_timesteps": 200_000, "normalise_reward": True},
        "gridworld": {"total_timesteps": 60_000},
        "point_maze": {"total_timesteps": 400_000},
        "minihack/Room-5x5": {"total_timesteps": 50_000, **ROOMS},
        "minihack/KeyRoom-S5": {"total_timesteps": 150_000, **ROOMS},
        "minihack/Corridor-R2": {"total_timesteps": 800_000, **CORRIDORS},
    },
    "dqn": {
        "chain": {"total_timesteps": 40_000, **SMALL_DQN},
        "deep_sea": {"total_timesteps": 100_000, **SMALL_DQN},
        "cliff": {"total_timesteps": 60_000, **SMALL_DQN},
        "four_rooms": {"total_timesteps": 60_000, **SMALL_DQN},
        "key_door": {"total_timesteps": 60_000, **SMALL_DQN},
        "random_mdp": {"total_timesteps": 40_000, **SMALL_DQN},
        "mountain_car": {"total_timesteps": 150_000, **SMALL_DQN},
        "cartpole": {"total_timesteps": 80_000, **SMALL_DQN, "n_step": 3, "target_period": 100, "huber_delta": 100.0},
        "acrobot": {"total_timesteps": 100_000, **SMALL_DQN},
        "gridworld": {"total_timesteps": 40_000, **SMALL_DQN},
    },
    "barfi": {
        "chain": {"total_timesteps": 80_000},
        "gridworld": {"total_timesteps": 60_000},
        "four_rooms": {"total_timesteps": 160_000},
        "mountain_car": {"total_timesteps": 480_000},
        "cartpole": {"total_timesteps": 300_000, "inner_steps": 5},
    },
    "sac": {
        "pendulum": {"total_timesteps": 16_000, **SMALL_SAC},
        "point_maze": {"total_timesteps": 40_000, **SMALL_SAC},
        **{f"mujoco/{name}": {"total_timesteps": 300_000, "learning_starts": 10_000} for name in LOCOMOTION},
        **{f"mujoco/{name}": {"total_timesteps": 50_000, **ARM_SAC} for name in ARMS},
    },
}
"""Settings by agent and task that differ from the agent's defaults; whatever is not listed takes those."""


def settings(
    agent: Any,
    task: Any,
    *,
    total_timesteps: int | None = None,
    config: Any = None,
) -> Any:
    """The settings an agent uses on a task: its defaults, the task's gamma and budget, then what was asked for.

    Args:
        agent: a :class:`reward_design.agents.base.Agent`.
        task: a :class:`reward_design.envs.Task`.
        total_timesteps: environment steps; overrides all others.
        config: a mapping of settings to override (strings are converted), or a complete ``agent.Config``.

    Returns:
        An ``agent.Config``.

    Raises:
        ValueError: for an unknown setting, with the nearest name, or a value that does not fit.
    """
    if isinstance(config, agent.Config):
        steps = {} if total_timesteps is None else {"total_timesteps": total_timesteps}
        return dataclasses.replace(config, **steps)
    known = {field.name: field.type for field in dataclasses.fields(agent.Config)}
    values: dict[str, Any] = {"gamma": task.gamma, "horizon": task.horizon, **_budget(agent.name, task.name)}
    values |= {name: _converted(agent.name, name, value, known) for name, value in (config or {}).items()}
    if total_timesteps is not None:
        values["total_timesteps"] = total_timesteps
    return agent.Config(**{name: value for name, value in values.items() if name in known})


def _budget(agent: str, task: str) -> dict[str, Any]:
    """Settings for a task; agents of other libraries get as many steps as ours of that name, and nothing else."""
    library, _, name = agent.rpartition("/")
    own = BUDGETS.get(name, {}).get(task, {})
    return {k: v for k, v in own.items() if not library or k == "total_timesteps"}


def assignments(pairs: tuple[str, ...] | list[str]) -> dict[str, str]:
    """``name=value`` words of a command line as a mapping.

    Example:
        >>> assignments(["learning_rate=3e-4", "hidden=64,64"])
        {'learning_rate': '3e-4', 'hidden': '64,64'}
    """
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, sign, value) in zip(pairs, split, strict=True):
        if not (name and sign and value):
            raise ValueError(f"--set expects name=value, got {pair!r}, as in --set learning_rate=3e-4.")
    return {name.strip().replace("-", "_"): value.strip() for name, _, value in split}


def _converted(agent: str, name: str, value: Any, known: Mapping[str, Any]) -> Any:
    if name not in known:
        raise ValueError(
            f"agent {agent!r} has no setting {name!r}{suggestion(name, known)} It has: {', '.join(known)}."
        )
    try:
        return _parsed(value, known[name]) if isinstance(value, str) else value
    except ValueError:
        kind = known[name]
        wanted = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
        raise ValueError(f"setting {name!r} of agent {agent!r} must be {wanted}, got {value!r}.") from None


def _parsed(text: str, kind: Any) -> Any:
    """A value from the command line; Python's own literal forms, and ``64,64`` for tuples."""
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError(text)
        return text.lower() == "true"
    if kind in (int, float):
        number = float(text)
        return kind(number) if kind is float or number == int(number) else int(text)
    if typing.get_origin(kind) is tuple:
        item = typing.get_args(kind)[0]
        return tuple(_parsed(part, item) for part in text.strip("()[] ").split(",") if part.strip())
    if typing.get_origin(kind) is typing.Literal:
        if text not in typing.get_args(kind):
            raise ValueError(text)
        return text
    if typing.get_origin(kind) is not None or isinstance(kind, type(int | None)):
        options = typing.get_args(kind)
        return None if text.lower() == "none" and type(None) in options else _first_that_fits(text, options)
    if kind is dict:
        return _dictionary(text)
    return text


def _first_that_fits(text: str, kinds: tuple[Any, ...]) -> Any:
    for kind in kinds:
        if kind is not type(None):
            with contextlib.suppress(ValueError):
                return _parsed(text, kind)
    raise ValueError(text)


def _dictionary(text: str) -> dict[Any, Any]:
    with contextlib.suppress(SyntaxError):
        value = ast.literal_eval(text)
        if isinstance(value, dict):
            return value
    raise ValueError(text)
