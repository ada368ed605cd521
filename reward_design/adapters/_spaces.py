"""Values of gymnasium spaces as copied NumPy arrays ``[B, ...]``, from one environment or a batch of them."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from gymnasium import spaces


def copier(space: spaces.Space, what: str) -> Callable[[Any], Any]:
    """Function that copies a value of ``space``, single or batched, to arrays ``[B, ...]`` of the space's dtypes.

    The function raises ValueError for a value that lacks an entry of a dictionary space, or has another shape.

    Raises:
        TypeError: if nothing in the space is a number.
    """
    copy = _copier(space)
    if copy is None:
        raise TypeError(f"{what} must have Box, Discrete, MultiDiscrete or MultiBinary parts, got {space}; convert it.")
    return copy


def _copier(space: spaces.Space) -> Callable[[Any], Any] | None:
    if isinstance(space, spaces.Dict):
        parts = {k: copy for k, s in space.items() if (copy := _copier(s))}
        return partial(_entries, parts) if parts else None
    if isinstance(space, spaces.Tuple):
        parts = {i: copy for i, s in enumerate(space) if (copy := _copier(s))}
        return (lambda x: tuple(copy(x[i]) for i, copy in parts.items())) if parts else None
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return partial(_rows, space.shape or (), space.dtype)
    return None


def _rows(shape: tuple[int, ...], dtype: Any, value: Any) -> np.ndarray:
    rows = np.array(value, dtype, ndmin=len(shape) + 1)
    if rows.shape[1:] != shape:
        raise ValueError(
            f"the environment's space has the shape {shape}, but this value has {np.shape(value)}; correct the space "
            "or the value (gymnasium.utils.env_checker.check_env finds where)."
        )
    return rows


def _entries(parts: Mapping[str, Callable[[Any], Any]], values: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return {name: copy(values[name]) for name, copy in parts.items()}
    except KeyError:
        lost = [name for name in parts if name not in values]
        if not lost:
            raise  # of a part of it
        raise ValueError(
            f"the environment's space has the entry {lost[0]!r}, but this value has only "
            f"{sorted(map(str, values))}; give every entry of the space, or take it out of the space."
        ) from None


def zeros(space: spaces.Space, num_envs: int) -> Any:
    """Zeros of the shape that :func:`copier` gives."""
    if isinstance(space, spaces.Dict):
        return {k: zeros(s, num_envs) for k, s in space.items() if _copier(s)}
    if isinstance(space, spaces.Tuple):
        return tuple(zeros(s, num_envs) for s in space if _copier(s))
    return np.zeros((num_envs, *(space.shape or ())), space.dtype)


def merge(lanes: np.ndarray, on_true: Any, on_false: Any) -> Any:
    """Leaves of ``on_true`` in the lanes where ``lanes`` is true, of ``on_false`` elsewhere."""
    return jax.tree.map(lambda a, b: np.where(lanes.reshape(-1, *[1] * (a.ndim - 1)), a, b), on_true, on_false)


def lane_of(values: Any, lane: int) -> Any:
    """One lane of a batch: dictionaries and tuples of arrays ``[B, ...]``, nested or not, or an array of objects."""
    if isinstance(values, Mapping):
        return {name: lane_of(part, lane) for name, part in values.items()}
    if isinstance(values, tuple):
        return tuple(lane_of(part, lane) for part in values)
    return values[lane]


def numeric_info(key: str, value: Any) -> np.ndarray:
    """An info entry as an array.

    Raises:
        TypeError: if it is not numeric.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"info[{key!r}] must be numbers, got {type(value).__name__}; encode it as an array, text as uint8."
        )
    return array


def missing_key(key: str, available: Iterable[Any]) -> ValueError:
    """The error for an entry of ``info_keys`` that the environment did not give at a step."""
    return ValueError(f"info_keys names {key!r}, but the info of this step has only {sorted(map(str, available))}.")
