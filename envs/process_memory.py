"""A step of all lanes of a vector environment as arrays in one block of shared memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import DTypeLike

from reward_design.envs.host import map_space

Path = tuple[Any, ...]
ALIGNMENT = 64


@dataclass(frozen=True)
class Field:
    """One array in shared memory: where it starts, and what it is."""

    offset: int
    shape: tuple[int, ...]
    dtype: np.dtype


class Memory:
    """Layout of one block of shared memory that holds a step of all lanes.

    Observations and infos have two slots, written in turns, so that those of the step before outlive a worker that
    dies while it writes.

    Args:
        observation_space: of one environment.
        action_space: of one environment.
        info: shape and dtype of the info entries.
        num_envs: number of lanes ``B``.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        info: Mapping[str, tuple[tuple[int, ...], DTypeLike]],
        num_envs: int,
    ) -> None:
        self.fields: dict[Path, Field] = {}
        self.num_bytes = 0
        for path, part in parts(observation_space):
            shape, dtype = part.shape or (), np.dtype(part.dtype or np.float32)
            self._add(("obs", *path), (2, num_envs, *shape), dtype)
            self._add(("final_obs", *path), (num_envs, *shape), dtype)
        for path, part in parts(action_space):
            self._add(("action", *path), (num_envs, *(part.shape or ())), np.dtype(part.dtype or np.float32))
        for name, (shape, dtype) in info.items():
            self._add(("info", name), (2, num_envs, *shape), np.dtype(dtype))
        self._add(("reward",), (num_envs,), np.dtype(np.float64))
        for name in ("terminated", "truncated"):
            self._add((name,), (num_envs,), np.dtype(bool))

    def _add(self, path: Path, shape: tuple[int, ...], dtype: np.dtype) -> None:
        self.fields[path] = Field(self.num_bytes, shape, dtype)
        size = int(np.prod(shape)) * dtype.itemsize
        self.num_bytes += -(-size // ALIGNMENT) * ALIGNMENT

    def views(self, buffer: Any) -> dict[Path, np.ndarray]:
        """The arrays in ``buffer``, without copying."""
        return {path: np.ndarray(f.shape, f.dtype, buffer, f.offset) for path, f in self.fields.items()}


def parts(space: spaces.Space) -> list[tuple[Path, spaces.Space]]:
    """Path and space of every numeric part of ``space``.

    Raises:
        TypeError: for a part that is not Box, Discrete, MultiDiscrete, MultiBinary, Dict or Tuple.
    """

    def walk(tree: Any, path: Path) -> Iterator[tuple[Path, spaces.Space]]:
        if isinstance(tree, (dict, tuple)):
            for key, value in tree.items() if isinstance(tree, dict) else enumerate(tree):
                yield from walk(value, (*path, key))
        else:
            yield path, tree

    return list(walk(map_space(lambda part: part, space), ()))


def at(tree: Any, path: Path) -> Any:
    """The entry of nested dictionaries and tuples at ``path``."""
    for key in path:
        tree = tree[key]
    return tree
