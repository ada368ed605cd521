"""What files say of settings and tasks, as JSON values, and how these are made again."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from reward_design import envs
from reward_design.agents import base
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv


def plain_settings(config: Any) -> dict[str, Any]:
    """Settings as JSON values: lists for tuples, the place of a function for a function."""
    return {field.name: _plain(getattr(config, field.name)) for field in dataclasses.fields(config)}


def settings_from(agent: base.Agent, saved: Mapping[str, Any], given: Any, path: Any) -> Any:
    """The settings that were saved; ``given`` in their place if it says the same.

    Raises:
        ValueError: if it says something else, a setting is unknown, or one is a function and nothing is given.
    """
    if given is not None:
        now = plain_settings(given)
        differs = [name for name in {**saved, **now} if saved.get(name) != now.get(name)]
        if differs or not isinstance(given, agent.Config):
            name = differs[0] if differs else "agent"
            raise ValueError(
                f"{path} was made with other settings: {name} = {saved.get(name, agent.name)!r} there, "
                f"{now.get(name, type(given).__module__)!r} here."
            )
        return given
    fields = {field.name: field for field in dataclasses.fields(agent.Config)}
    unknown = [name for name in saved if name not in fields]
    if unknown:
        raise ValueError(f"{path} has a setting {unknown[0]!r} that {agent.name!r} of this version does not have.")
    functions = [name for name, value in saved.items() if value is not None and "Callable" in str(fields[name].type)]
    if functions:
        raise ValueError(
            f"{path} was made with a function as setting {functions[0]!r}, which a file cannot hold; give config=."
        )
    return agent.Config(**{name: tupled(value) for name, value in saved.items()})


def recipe_of(env: FunctionalEnv | HostEnv) -> dict[str, Any] | None:
    """Settings that make the task again by its name, as JSON values; None if a file cannot hold them."""
    found = envs.recipe(env)
    if found is None or found[0] != env.name or not all(_is_plain(value) for value in found[1].values()):
        return None
    return {name: _plain(value) for name, value in found[1].items()}


def remade(identity: Mapping[str, Any], path: Any) -> tuple[FunctionalEnv | HostEnv, Task]:
    """The task of a policy or run, from its name and settings.

    Raises:
        ValueError: if a name and settings do not suffice.
    """
    if identity.get("settings") is None:
        raise ValueError(
            f"{path} belongs to {identity['task']!r} as it was made by code of its own, which a file cannot hold; give "
            "the task or environment itself."
        )
    task = envs.task(identity["task"], **{name: tupled(value) for name, value in identity["settings"].items()})
    return task.env, task


def tupled(value: Any) -> Any:
    """Tuples for lists, as settings have them."""
    return tuple(tupled(item) for item in value) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        return value.item()
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else value


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, (bool, int, float, str, np.generic))
