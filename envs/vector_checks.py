"""What every vector environment refuses in one sentence: to go on after ``close``, and actions that are not its own."""

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import DTypeLike

from reward_design.envs.process_memory import Path, at


def check_open(envs: Any) -> None:
    """Refuse to go on with a vector environment after ``close``.

    Raises:
        ClosedEnvironmentError: if it was called.
    """
    if envs.closed:
        raise gymnasium.error.ClosedEnvironmentError("the environments are closed; make new ones.")


def lane_actions(actions: Any, path: Path, shape: tuple[int, ...] | None, dtype: DTypeLike) -> np.ndarray:
    """The part of the actions of all lanes at ``path``, as an array.

    Args:
        actions: of all lanes, in the structure of the action space.
        path: of the part.
        shape: that it has by the space.
        dtype: likewise.

    Raises:
        ValueError: for another shape, as of an action too many.
        TypeError: for fractions where there are whole numbers only.

    Example:
        >>> lane_actions([0.7, 1.9], (), (2,), np.int64)
        Traceback (most recent call last):
        TypeError: actions must be whole numbers, got float64; the action space has int64.
    """
    values = np.asarray(at(actions, path))
    if values.shape != shape:
        raise ValueError(f"actions must have the shape {shape}, got {values.shape}.")
    if values.dtype.kind not in "biu" and (whole := np.dtype(dtype)).kind in "biu":
        raise TypeError(f"actions must be whole numbers, got {values.dtype}; the action space has {whole}.")
    return values
