"""What a generated reward may read: typed inputs of one transition, as plain data that travels to the worker."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from reward_design.core import Transition
from reward_design.envs.base import Task

INPUTS = ("obs", "action", "next_obs", "terminated", "truncated", "info")
"""Parameters that a reward can have, in the order in which they are handed over; and ``memory``."""
MEMORY = "memory"

Spec = dict[str, Any]
"""``{"shape", "dtype", "low", "high"}`` of an array, or ``{"dict": {name: Spec}}``, or ``{"tuple": [Spec]}``."""


def input_specs(task: Task) -> dict[str, Spec]:
    """Shape, dtype and range of every input of one transition of a task.

    Args:
        task: the task.

    Returns:
        A spec by name of input: JSON-ready, without a batch axis. Ranges are numbers, lists or None (unbounded).

    Raises:
        TypeError: for an input that is not made of dictionaries, tuples and arrays.

    Example:
        >>> from reward_design.envs import task
        >>> input_specs(task("chain"))["obs"]
        {'shape': [], 'dtype': 'int32', 'low': 0, 'high': 19}
    """
    example = task.example
    seen = space_ranges(task.env.observation_space)
    ranges = {"obs": seen, "next_obs": seen, "action": space_ranges(task.env.action_space)}
    return {name: _spec(name, getattr(example, name), ranges.get(name)) for name in INPUTS}


def leaves(spec: Spec) -> list[Spec]:
    """The arrays of a spec, in the order of ``jax.tree.leaves``."""
    if "dict" in spec:
        return [leaf for name in sorted(spec["dict"]) for leaf in leaves(spec["dict"][name])]
    if "tuple" in spec:
        return [leaf for part in spec["tuple"] for leaf in leaves(part)]
    return [spec]


def tree_of(spec: Spec, arrays: Sequence[Any]) -> Any:
    """Arrays, given in the order of :func:`leaves`, in the structure of a spec."""
    rest = iter(arrays)

    def build(part: Spec) -> Any:
        if "dict" in part:
            return {name: build(part["dict"][name]) for name in sorted(part["dict"])}
        return tuple(map(build, part["tuple"])) if "tuple" in part else next(rest)

    return build(spec)


def flat_inputs(specs: Mapping[str, Spec], used: Sequence[str], transition: Transition) -> list[Any]:
    """The arrays that a reward reads, ``[B, ...]``, in the order and with the dtypes of the specs.

    Args:
        specs: of :func:`input_specs`.
        used: inputs that the reward reads.
        transition: batched transition, leaves ``[B, ...]``.

    Raises:
        ValueError: at trace time, if the transition is not what the specs say.
    """
    batch, arrays = jnp.shape(transition.mask)[0], []
    for name in used:
        wanted = leaves(specs[name])
        found = jax.tree.leaves(picked(specs[name], getattr(transition, name), name))
        for spec, value in zip(wanted, found, strict=True):
            value = jnp.asarray(value)
            if value.shape != (batch, *spec["shape"]):
                raise ValueError(
                    f"a designed reward reads {name} of shape [B, ...] = {(batch, *spec['shape'])}, got {value.shape}; "
                    "use it on the task that it was designed for."
                )
            arrays.append(value.astype(spec["dtype"]))
    return arrays


def picked(spec: Spec, value: Any, name: str) -> Any:
    """The entries of a tree that a spec names; more entries are left out, as wrappers add their own to ``info``."""
    if "dict" in spec:
        missing = [key for key in spec["dict"] if not isinstance(value, Mapping) or key not in value]
        if missing:
            raise ValueError(f"a designed reward reads {name}[{missing[0]!r}], which this environment does not give.")
        return {key: picked(part, value[key], f"{name}[{key!r}]") for key, part in spec["dict"].items()}
    if "tuple" in spec:
        return tuple(picked(part, v, f"{name}[{i}]") for i, (part, v) in enumerate(zip(spec["tuple"], value)))
    return value


def space_ranges(space: spaces.Space) -> Any:
    """``(low, high)`` arrays of every part of a space, in its structure."""
    if isinstance(space, spaces.Dict):
        return {name: space_ranges(part) for name, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(space_ranges(part) for part in space)
    if isinstance(space, spaces.Box):
        return np.array([space.low, space.high])
    if isinstance(space, spaces.Discrete):
        return np.array([space.start, space.start + space.n - 1])
    if isinstance(space, spaces.MultiDiscrete):
        return np.array([space.start, space.start + space.nvec - 1])
    return np.array([0, 1]) if isinstance(space, spaces.MultiBinary) else None


def described(name: str, spec: Spec) -> list[str]:
    """One line per array of an input, as prompts show them.

    Example:
        >>> described("action", {"shape": [2], "dtype": "float32", "low": -1.0, "high": 1.0})
        ['action: float32 array of shape (2,), in [-1, 1]']
    """
    if "dict" in spec:
        return _lines(name, spec["dict"], repr)
    if "tuple" in spec:
        return _lines(name, dict(enumerate(spec["tuple"])), repr)
    shape = tuple(spec["shape"])
    kind = f"{spec['dtype']} array of shape {shape}" if shape else f"{spec['dtype']} scalar"
    return [f"{name}: {kind}{_range(spec)}"]


def described_kinds(name: str, spec: Spec) -> list[str]:
    """The same without ranges.

    Example:
        >>> described_kinds("obs", {"shape": [], "dtype": "int32", "low": 0, "high": 19})
        ['obs: int32 scalar']
    """
    return [line.partition(", in [")[0].partition(", from (")[0] for line in described(name, spec)]


# --- parts ----------------------------------------------------------------------------------------------------------


def _lines(name: str, parts: Mapping[Any, Spec], show: Callable[[Any], str]) -> list[str]:
    return [line for key, part in parts.items() for line in described(f"{name}[{show(key)}]", part)]


def _range(spec: Spec) -> str:
    low, high = spec["low"], spec["high"]
    if spec["dtype"] == "bool" or (low is None and high is None):
        return ""
    if not isinstance(low, list) and not isinstance(high, list):
        return f", in [{_shown(low)}, {_shown(high)}]"
    size = max(len(side) for side in (low, high) if isinstance(side, list))
    if size > 32:
        return ""
    sides = [side if isinstance(side, list) else [side] * size for side in (low, high)]
    return f", from ({', '.join(map(_shown, sides[0]))}) to ({', '.join(map(_shown, sides[1]))})"


def _shown(bound: float | int | None) -> str:
    return "any" if bound is None else f"{bound:.4g}"


def _spec(name: str, value: Any, ranges: Any) -> Spec:
    if isinstance(value, Mapping):
        part = ranges if isinstance(ranges, Mapping) else {}
        return {"dict": {key: _spec(f"{name}[{key!r}]", value[key], part.get(key)) for key in sorted(value)}}
    if type(value) in (tuple, list):
        parts = ranges if isinstance(ranges, tuple) else (None,) * len(value)
        return {"tuple": [_spec(f"{name}[{i}]", v, r) for i, (v, r) in enumerate(zip(value, parts))]}
    if not hasattr(value, "dtype"):
        raise TypeError(f"{name} must be made of dictionaries, tuples and arrays, got {type(value).__name__}.")
    low, high = (None, None) if ranges is None else (_bound(side) for side in ranges)
    return {"shape": list(value.shape[1:]), "dtype": str(value.dtype), "low": low, "high": high}


def _bound(side: Any) -> Any:
    """A number where all entries agree, a list with None for the unbounded, None if all are unbounded."""
    side = np.asarray(side)
    bounded = np.abs(side.astype(float)) < 1e6
    if not bounded.any():
        return None
    if bounded.all() and (side == side.flat[0]).all():
        return side.flat[0].item()
    return [x.item() if ok else None for x, ok in zip(side.flat, bounded.flat)]
