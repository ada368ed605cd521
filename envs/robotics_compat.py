"""gymnasium-robotics on MuJoCo 3.12 and later: joints by name, with joint types as plain integers.

From 3.12 on an enumeration of MuJoCo is no longer equal to a NumPy integer, so that ``joint_type in (HINGE, SLIDE)`` is
false and Fetch, Shadow Hand and Kitchen of gymnasium-robotics 1.4 fail when they are made.
"""

import contextlib
import io
import re
from typing import Any

import gymnasium
import numpy as np

from reward_design._optional import require
from reward_design.envs.mujoco_gl import guard

FIRST_BROKEN = (3, 12)
"""Version of MuJoCo from which gymnasium-robotics needs help."""
_WIDTHS = {"qpos": (7, 4, 1, 1), "qvel": (6, 3, 1, 1)}
"""Numbers per joint of type 0 free, 1 ball, 2 slide, 3 hinge."""


def get_joint_qpos(model: Any, data: Any, name: str) -> np.ndarray:
    """Position of a joint."""
    return data.qpos[_part(model, name, "qpos")].copy()


def get_joint_qvel(model: Any, data: Any, name: str) -> np.ndarray:
    """Velocity of a joint."""
    return data.qvel[_part(model, name, "qvel")].copy()


def set_joint_qpos(model: Any, data: Any, name: str, value: Any) -> None:
    """Set the position of a joint."""
    _set(data.qpos, _part(model, name, "qpos"), name, value)


def set_joint_qvel(model: Any, data: Any, name: str, value: Any) -> None:
    """Set the velocity of a joint."""
    _set(data.qvel, _part(model, name, "qvel"), name, value)


REPLACED = (get_joint_qpos, get_joint_qvel, set_joint_qpos, set_joint_qvel)
"""What stands in for the functions of these names in ``gymnasium_robotics.utils.mujoco_utils``."""


def register_robotics() -> None:
    """Make gymnasium know the ids of gymnasium-robotics, and make them run on the MuJoCo that is installed.

    Raises:
        ImportError: without the extra ``robotics``.
    """
    guard()
    with contextlib.redirect_stderr(io.StringIO()):  # a notice about other environments
        package = require("gymnasium_robotics", "robotics", "robotics environments")
    gymnasium.register_envs(package)
    if needs_help(require("mujoco", "robotics", "robotics environments").__version__):
        replace_joint_functions()


def needs_help(version: str) -> bool:
    """Whether a version of MuJoCo is one that gymnasium-robotics 1.4 fails on.

    Example:
        >>> from reward_design.envs.robotics_compat import needs_help
        >>> needs_help("3.11.0"), needs_help("3.12.0"), needs_help("4.0.0rc1")
        (False, True, True)
    """
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2]) >= FIRST_BROKEN


def replace_joint_functions() -> None:
    """Put :data:`REPLACED` in the place of the functions of gymnasium-robotics."""
    utils = require("gymnasium_robotics.utils.mujoco_utils", "robotics", "robotics environments")
    for fn in REPLACED:
        setattr(utils, fn.__name__, fn)


def _part(model: Any, name: str, field: str) -> slice:
    """Where a joint is in ``qpos`` or ``qvel``."""
    mujoco = require("mujoco", "robotics", "robotics environments")
    joint = mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name)
    if joint < 0:
        raise ValueError(f"the model has no joint {name!r}.")
    start = int((model.jnt_qposadr if field == "qpos" else model.jnt_dofadr)[joint])
    return slice(start, start + _WIDTHS[field][int(model.jnt_type[joint])])


def _set(into: np.ndarray, part: slice, name: str, value: Any) -> None:
    value, width = np.asarray(value), part.stop - part.start
    if value.size != width:
        raise ValueError(f"joint {name!r} takes {width} numbers, got {value.size}.")
    into[part] = value
