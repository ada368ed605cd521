"""Values of gymnasium spaces as copied NumPy arrays ``[B, ...]``, from one environment or a batch of them."""

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

_config: Any = jax.config


def copier(space: spaces.Space, what: str, num_envs: int) -> Callable[[Any], Any]:
    """Function that copies a value of ``space``, one or a batch, to arrays ``[num_envs, ...]`` of the space's dtypes.

    The function raises ValueError for a value that lacks an entry of a dictionary space, has another shape or number of
    rows, or integers that JAX cannot hold.

    Args:
        space: of one environment.
        what: ``"observation"`` or ``"action"``, for messages.
        num_envs: number of rows.

    Raises:
        TypeError: if nothing in the space is a number.
    """
    copy = _copier(space, what, num_envs)
    if copy is None:
        raise TypeError(
            f"{what}_space must have Box, Discrete, MultiDiscrete or MultiBinary parts, got {space}; convert it."
        )
    return copy


def _copier(space: spaces.Space, what: str, num_envs: int) -> Callable[[Any], Any] | None:
    if isinstance(space, spaces.Dict):
        parts = {k: copy for k, s in space.items() if (copy := _copier(s, what, num_envs))}
        return partial(_entries, parts) if parts else None
    if isinstance(space, spaces.Tuple):
        parts = {i: copy for i, s in enumerate(space) if (copy := _copier(s, what, num_envs))}
        return (lambda x: tuple(copy(x[i]) for i, copy in parts.items())) if parts else None
    if isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return partial(_rows, space.shape or (), space.dtype, what, num_envs, _may_be_large(space))
    return None


def _rows(shape: tuple[int, ...], dtype: Any, what: str, num_envs: int, large: bool, value: Any) -> np.ndarray:
    rows = np.array(value, dtype, ndmin=len(shape) + 1)
    if rows.shape[1:] != shape:
        hint = "correct the space or the value (gymnasium.utils.env_checker.check_env finds where)"
        raise ValueError(
            f"the environment's {what} space has the shape {shape}, but this {what} has {np.shape(value)}; "
            f"{'give one of that shape for each environment' if what == 'action' else hint}."
        )
    if len(rows) != num_envs:
        raise ValueError(f"expected one {what} for each environment (num_envs = {num_envs}), got {len(rows)}.")
    if large:
        _check_large(f"the {what}", rows)
    return rows


def _may_be_large(space: spaces.Space) -> bool:
    """Whether values may need more than 32 bits; categories are known by their number."""
    if isinstance(space, spaces.Discrete):
        return max(abs(int(space.start)), int(space.start + space.n)) > 2**31
    return np.dtype(space.dtype) in (np.int64, np.uint64)


def _check_large(what: str, values: np.ndarray) -> None:
    """Refuse integers that JAX would cut to 32 bits without a word.

    Raises:
        ValueError: naming the first one.
    """
    if _config.jax_enable_x64 or not values.size:
        return
    limits = np.iinfo(np.uint32 if values.dtype == np.uint64 else np.int32)
    for value in (int(values.min()), int(values.max())):
        if not limits.min <= value <= limits.max:
            raise ValueError(
                f"{what} has the integer {value}, more than the 32 bits that JAX has for it; scale it down or make it "
                "floating point in the environment, or set jax.config.update('jax_enable_x64', True)."
            )


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
        return {k: zeros(s, num_envs) for k, s in space.items() if _is_numeric(s)}
    if isinstance(space, spaces.Tuple):
        return tuple(zeros(s, num_envs) for s in space if _is_numeric(s))
    return np.zeros((num_envs, *(space.shape or ())), space.dtype)


def _is_numeric(space: spaces.Space) -> bool:
    return _copier(space, "", 1) is not None


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
        ValueError: if it is an integer that JAX cannot hold.
    """
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise TypeError(
            f"info[{key!r}] must be numbers, got {type(value).__name__}; encode it as an array, text as uint8."
        )
    if array.dtype.itemsize == 8 and array.dtype.kind in "iu":
        _check_large(f"info[{key!r}]", array)
    return array


def missing_key(key: str, available: Iterable[Any]) -> ValueError:
    """The error for an entry of ``info_keys`` that the environment did not give at a step."""
    return ValueError(f"info_keys names {key!r}, but the info of this step has only {sorted(map(str, available))}.")
