"""A user's own design: ``module:attribute``, a :class:`Reward`, or a function that makes one."""

import importlib
import inspect
import os
import sys
from collections.abc import Callable
from typing import Any

from reward_design._names import suggestion
from reward_design.core import Reward
from reward_design.envs.base import Task


def imported(path: str) -> Any:
    """What ``module:attribute`` names; modules of the current directory are found too.

    Raises:
        ValueError: if there is no such module or attribute, or importing it fails.

    Example:
        >>> imported("math:pi")
        3.141592653589793
    """
    module_name, _, attribute = path.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise ValueError(
                f"reward {path!r}: there is no module {module_name!r} in {os.getcwd()} or installed; "
                "start from the folder that holds it."
            ) from None
        raise ValueError(f"reward {path!r}: importing {module_name!r} needs {error.name!r}, not installed.") from error
    except Exception as error:
        raise ValueError(f"reward {path!r}: importing {module_name!r} failed with {_described(error)}") from error
    value: Any = module
    for part in attribute.split("."):
        if not hasattr(value, part):
            public = [name for name in vars(value) if not name.startswith("_")]
            raise ValueError(f"reward {path!r}: {module_name!r} has no {attribute!r}{suggestion(part, public)}")
        value = getattr(value, part)
    return value


def built(value: Any, task: Task, label: str) -> Reward:
    """The reward itself, or what a function makes for a task.

    Raises:
        ValueError: if the function fails.
        TypeError: if the result is no reward.
    """
    if isinstance(value, Reward):
        return value
    if not callable(value):
        raise TypeError(
            f"reward {label!r} must be a Reward or a function task -> Reward, got {type(value).__name__}; "
            "make one with reward_design.pointwise, from_step or from_trajectory."
        )
    try:
        result = value(task) if _takes_task(value) else value()
    except Exception as error:
        raise ValueError(
            f"reward {label!r}: building it for task {task.name!r} failed with {_described(error)}"
        ) from error
    if not isinstance(result, Reward):
        raise TypeError(
            f"reward {label!r}: the function must return a Reward, got {type(result).__name__}; it is called with the "
            "task, not with a transition (wrap such a function in reward_design.pointwise)."
        )
    return result


def _takes_task(function: Callable[..., Any]) -> bool:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(function).parameters.values()
    return any(p.kind in kinds and p.default is p.empty for p in parameters)


def _described(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
