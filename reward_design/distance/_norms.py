"""Norms of canonicalised rewards, and all pairwise distances under them."""

from typing import Any

import jax
import numpy as np

from reward_design.envs import exact

_NEAR = 1e-2
"""Squared relative distance below which the Gram matrix has lost digits and the difference is formed instead."""


def parse_norm(name: str, norm: Any) -> float:
    """1.0, 2.0 or infinity. Raises a ValueError that names ``name`` for anything else."""
    if norm in (1, 2, np.inf):
        return float(norm)
    if norm == "inf":
        return np.inf
    raise ValueError(f"{name} must be one of 1, 2, inf, got {norm!r}.")


def stacked(rewards: Any) -> Any:
    """``[M, S, A, S]`` from a sequence of tables; arrays pass."""
    if not isinstance(rewards, (list, tuple)):
        return rewards
    shapes = {np.shape(reward) for reward in rewards}
    if len(shapes) != 1:
        raise ValueError(f"rewards must be tables of one shape [S, A, S], got the shapes {sorted(shapes)}.")
    xp, *tables = exact.floats(*rewards)
    return xp.stack(tables)


def norm_of(xp: Any, x: Any, p: float | int, repeat: int) -> Any:
    """p-norm over the last three axes ``[..., S, A, K]`` of a tensor in which every entry occurs ``repeat`` times."""
    size = xp.abs(x)
    if p == np.inf:
        return size.max((-3, -2, -1))
    total = repeat * (size if p == 1 else size * size).sum((-3, -2, -1))
    return total if p == 1 else xp.sqrt(total)


def standardise(xp: Any, x: Any, scale: Any, p: float | int, repeat: int) -> Any:
    """Divide x by ‖x‖; 0 where ‖x‖ is roundoff of cancellation: ‖x‖ ≤ 1e-10 · scale (1e-5 in float32)."""
    size = norm_of(xp, x, p, repeat)
    trivial = size <= exact.zero_tolerance(x) * scale
    size = xp.where(trivial, 1, size)
    return xp.where(trivial[..., None, None, None], 0, x / size[..., None, None, None])


def pairwise(xp: Any, x: Any, p: float | int, repeat: int) -> Any:
    """All distances ``[..., M, M]`` between the rows of ``[..., M, S, A, K]``."""
    if p == 2 and xp is np:
        return _euclidean(x, repeat)
    rows = xp.moveaxis(x, -4, 0)

    def to_all(row: Any) -> Any:
        return norm_of(xp, x - row[..., None, :, :, :], p, repeat)

    each = np.stack([to_all(row) for row in rows]) if xp is np else jax.lax.map(to_all, rows)
    return xp.moveaxis(each, 0, -2)


def _euclidean(x: np.ndarray, repeat: int) -> np.ndarray:
    """One Gram matrix, then the norm of the difference for the pairs where 1 - cos would cancel."""
    flat = x.reshape(*x.shape[:-3], -1)
    gram = flat @ flat.swapaxes(-1, -2)
    square = np.diagonal(gram, axis1=-2, axis2=-1)
    total = square[..., :, None] + square[..., None, :]
    squared = np.maximum(total - 2 * gram, 0.0)
    *batch, i, j = np.nonzero(np.triu(squared <= _NEAR * total, 1))
    for at in range(0, len(i), 1024):
        b, rows, columns = tuple(k[at : at + 1024] for k in batch), i[at : at + 1024], j[at : at + 1024]
        exact = np.square(flat[*b, rows] - flat[*b, columns]).sum(-1)
        squared[*b, rows, columns] = squared[*b, columns, rows] = exact
    squared[..., np.arange(x.shape[-4]), np.arange(x.shape[-4])] = 0.0
    return np.sqrt(repeat * squared)
