"""Tasks: everything a reward designer needs to know about a problem, by name."""

import functools
import importlib
import inspect
from collections.abc import Callable
from typing import Any

from reward_design._names import suggestion
from reward_design.envs.base import EnvState, Factor, FunctionalEnv, Layout, Tabular, Task
from reward_design.envs.gymnasium_task import task_from_gymnasium
from reward_design.envs.host import HostEnv

__all__ = [
    "EnvState",
    "Factor",
    "FunctionalEnv",
    "HostEnv",
    "Layout",
    "Tabular",
    "Task",
    "list_adapters",
    "list_tasks",
    "recipe",
    "task",
    "task_from_gymnasium",
]

TASKS: dict[str, tuple[str, str]] = {
    "chain": ("reward_design.envs.chain:chain", "walk to the far end of a corridor (tabular)"),
    "deep_sea": ("reward_design.envs.deep_sea:deep_sea", "one sequence of N moves finds the treasure (tabular)"),
    "cliff": ("reward_design.envs.cliff:cliff", "reach the goal along the edge of a cliff (tabular)"),
    "four_rooms": ("reward_design.envs.four_rooms:four_rooms", "find the goal through four rooms (tabular)"),
    "key_door": ("reward_design.envs.key_door:key_door", "fetch the key, open the door, reach the goal (tabular)"),
    "random_mdp": ("reward_design.envs.random_mdp:random_mdp", "random dynamics and rewards (tabular)"),
    "mountain_car": ("reward_design.envs.mountain_car:mountain_car", "swing a weak car up a hill"),
    "cartpole": ("reward_design.envs.cartpole:cartpole", "balance a pole on a cart"),
    "acrobot": ("reward_design.envs.acrobot:acrobot", "swing a two-link arm above a line"),
    "pendulum": ("reward_design.envs.pendulum:pendulum", "swing a pendulum up and hold it"),
    "gridworld": ("reward_design.envs.gridworld:gridworld", "cross a square past a box that tempts"),
    "point_maze": ("reward_design.envs.point_maze:point_maze", "drive a point mass through a maze"),
}
"""Builder (``module:function``) and line of text of every task."""

ADAPTERS: dict[str, tuple[str, str]] = {
    "gymnax": ("reward_design.envs.gymnax_adapter:gymnax_task", "any environment of gymnax, e.g. gymnax/CartPole-v1"),
    "minigrid": (
        "reward_design.envs.minigrid_host:minigrid_level",
        "grid worlds with keys and doors: in JAX, e.g. minigrid/MiniGrid-DoorKey-5x5; with a version (-v0), Farama's",
    ),
    "mujoco": (
        "reward_design.envs.mujoco_tasks:mujoco_task",
        "MuJoCo, e.g. mujoco/HalfCheetah or mujoco/Ant-sparse",
    ),
    "mjx": ("reward_design.envs.mjx_tasks:mjx_task", "the same MuJoCo environments in JAX, for a GPU, e.g. mjx/Hopper"),
    "minihack": (
        "reward_design.envs.minihack_tasks:minihack_task",
        "NetHack levels, e.g. minihack/Room-5x5 or minihack/KeyRoom-S5",
    ),
    "robotics": (
        "reward_design.envs.robotics_tasks:robotics_task",
        "sparse goals of gymnasium-robotics, e.g. robotics/FetchReach or robotics/PointMaze_UMaze-dense",
    ),
    "gymnasium": ("reward_design.envs.gymnasium_task:task_from_gymnasium", "any id, e.g. gymnasium/LunarLander-v3"),
}
"""Builder ``(env_id, **settings)`` and line of text of every prefix ``<prefix>/<env_id>``."""


def task(name: str, **settings: Any) -> Task:
    """The task called ``name``; the same name and settings give the same object, so that compiled code is reused.

    Args:
        name: a key of :func:`list_tasks`, or ``<adapter>/<id>`` with an adapter of :func:`list_adapters`.
        **settings: keyword arguments of the task's builder.

    Returns:
        A :class:`Task`.

    Raises:
        ValueError: for an unknown name.
        TypeError: for a setting that the task does not have.
        ImportError: if the task needs an extra that is not installed.

    Example:
        >>> task("four_rooms").horizon
        200
        >>> task("chain", num_states=20) is task("chain")
        True
    """
    prefix, _, env_id = name.partition("/")
    if name in TASKS:
        return _made(name, TASKS[name][0], settings)
    if prefix in ADAPTERS and env_id:
        return _made(name, ADAPTERS[prefix][0], settings, env_id)
    raise ValueError(
        f"unknown task {name!r}{suggestion(name, [*TASKS, *ADAPTERS])} "
        f"Tasks: {', '.join(TASKS)}, {', '.join(f'{prefix}/<id>' for prefix in ADAPTERS)}."
    )


def recipe(made: Task | FunctionalEnv | HostEnv) -> tuple[str, dict[str, Any]] | None:
    """Name and settings with which :func:`task` makes this very task, or None if it was made in another way.

    Args:
        made: a task, or its environment.

    Returns:
        ``(name, settings)``, the settings that are not the default.

    Example:
        >>> recipe(task("chain", num_states=7))
        ('chain', {'num_states': 7})
    """
    env = made.env if isinstance(made, Task) else made
    return _RECIPES.get(env)


def list_tasks(family: str | None = None) -> dict[str, str]:
    """One line of text for each task.

    Args:
        family: None for the tasks of this package; a key of :func:`list_adapters` for those that it opens, by the names
            that :func:`task` takes.

    Raises:
        ValueError: for an unknown family.
        ImportError: if the family needs an extra that is not installed.

    Example:
        >>> list_tasks()["chain"]
        'walk to the far end of a corridor (tabular)'
        >>> list_tasks("mujoco")["mujoco/Hopper-sparse"]
        'A planar one-legged hopper hops to the right. Pays only past a distance, or at the target.'
    """
    if family is not None:
        return importlib.import_module("reward_design.envs.families").list_family(family)
    return {name: line for name, (_, line) in TASKS.items()}


def list_adapters() -> dict[str, str]:
    """One line of text for each family of environments that ``task("<prefix>/<id>")`` opens.

    ``list_tasks(prefix)`` names its tasks.

    Example:
        >>> sorted(list_adapters())
        ['gymnasium', 'gymnax', 'minigrid', 'minihack', 'mjx', 'mujoco', 'robotics']
    """
    return {prefix: line for prefix, (_, line) in ADAPTERS.items()}


_RECIPES: dict[FunctionalEnv | HostEnv, tuple[str, dict[str, Any]]] = {}


def _made(name: str, path: str, settings: dict[str, Any], *args: Any) -> Task:
    checked = _checked_settings(name, path, settings, *args)
    built = _build(path, args, checked)
    usual = {p.name: p.default for p in inspect.signature(_builder(path)).parameters.values()}
    _RECIPES[built.env] = name, {key: value for key, value in checked if key not in usual or value != usual[key]}
    return built


@functools.cache
def _build(path: str, args: tuple[Any, ...], settings: tuple[tuple[str, Any], ...]) -> Task:
    return _builder(path)(*args, **dict(settings))


def _builder(path: str) -> Callable[..., Task]:
    module, _, function = path.partition(":")
    return getattr(importlib.import_module(module), function)


def _checked_settings(name: str, path: str, settings: dict[str, Any], *args: Any) -> tuple[tuple[str, Any], ...]:
    """Settings with the defaults filled in, as a key of the cache."""
    signature = inspect.signature(_builder(path))
    known = [p.name for p in signature.parameters.values() if p.kind is p.KEYWORD_ONLY]
    open_ended = any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())
    for setting, value in settings.items():
        if setting not in known and not open_ended:
            raise TypeError(
                f"task {name!r} has no setting {setting!r}{suggestion(setting, known)} "
                f"Settings: {', '.join(known) or 'none'}."
            )
        try:
            hash(value)
        except TypeError:
            raise TypeError(
                f"setting {setting!r} of task {name!r} must be hashable, got {type(value).__name__}; "
                "give a tuple in place of a list."
            ) from None
    bound = signature.bind(*args, **settings)
    bound.apply_defaults()
    return tuple(sorted(bound.kwargs.items()))
