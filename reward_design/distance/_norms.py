"""Norms of canonicalised rewards, and all pairwise distances under them."""

from typing import Any, NamedTuple

import jax
import numpy as np
from scipy.spatial.distance import pdist, squareform

from reward_design.envs import exact

_NEAR = 1e-2
"""Squared relative distance below which the Gram matrix has lost digits and the difference is formed instead."""


class Norm(NamedTuple):
    """A norm on tensors ``[S, A, S]``.

    Attributes:
        power: 1, 2 or infinity.
        weighted: whether entries count by the probability of their transition: (Σ τ |x|^p)^(1/p), max τ |x|.
    """

    power: float
    weighted: bool


NORMS: dict[Any, Norm] = {1: Norm(1.0, False), 2: Norm(2.0, False), "inf": Norm(np.inf, False)}
NORMS |= {f"weighted_{name}": Norm(norm.power, True) for name, norm in list(NORMS.items())}


def parse_norm(name: str, norm: Any) -> Norm:
    """The norm of this name; ``numpy.inf`` stands for ``"inf"``.

    Raises:
        ValueError: that names ``name``, for anything else.
    """
    key = "inf" if isinstance(norm, float) and norm == np.inf else norm
    if isinstance(key, (int, float, str)) and key in NORMS:
        return NORMS[key]
    raise ValueError(f"{name} must be one of {', '.join(map(str, NORMS))}, got {norm!r}.")


def stacked(rewards: Any) -> Any:
    """``[M, S, A, S]`` from a sequence of tables; arrays pass."""
    if not isinstance(rewards, (list, tuple)):
        return rewards
    shapes = {np.shape(reward) for reward in rewards}
    if len(shapes) != 1:
        raise ValueError(f"rewards must be tables of one shape [S, A, S], got the shapes {sorted(shapes)}.")
    xp, *tables = exact.floats(*rewards)
    return xp.stack(tables)


def norm_of(xp: Any, x: Any, power: float | int, weight: Any = 1.0) -> Any:
    """(Σ w |x|^p)^(1/p), or max w |x|, over the last three axes ``[..., S, A, K]``."""
    size = xp.abs(x)
    if power == np.inf:
        return (weight * size).max((-3, -2, -1))
    total = (weight * (size if power == 1 else size * size)).sum((-3, -2, -1))
    return total if power == 1 else xp.sqrt(total)


def scaled(x: Any, size: Any, trivial: Any, xp: Any) -> Any:
    """Rows over their size, 0 where they are trivial; ``size`` and ``trivial`` lack the last three axes of x."""
    size = xp.where(trivial, 1, size)
    return xp.where(trivial[..., None, None, None], 0, x / size[..., None, None, None])


def pairwise(xp: Any, x: Any, power: float | int, weight: Any = 1.0) -> Any:
    """All distances ``[..., M, M]`` between the rows of ``[..., M, S, A, K]``."""
    x = x * (weight if power in (1, np.inf) else weight**0.5)
    if xp is np:
        flat = x.reshape(*x.shape[:-3], -1)
        return _euclidean(flat) if power == 2 else _each_pair(flat, "cityblock" if power == 1 else "chebyshev")
    rows = xp.moveaxis(x, -4, 0)
    each = jax.lax.map(lambda row: norm_of(xp, x - row[..., None, :, :, :], power), rows)
    return xp.moveaxis(each, 0, -2)


def _each_pair(flat: np.ndarray, metric: Any) -> np.ndarray:
    batch, num = flat.shape[:-2], flat.shape[-2]
    finite = np.asarray(np.isfinite(flat).all((-2, -1)))
    many = flat.reshape(-1, *flat.shape[-2:])
    each = np.array([squareform(pdist(rows, metric), checks=False) for rows in many]).reshape(*batch, num, num)
    return np.where(finite[..., None, None], each, np.nan)


def _euclidean(flat: np.ndarray) -> np.ndarray:
    """One Gram matrix, then the norm of the difference for the pairs where 1 - cos would cancel."""
    gram = flat @ flat.swapaxes(-1, -2)
    square = np.diagonal(gram, axis1=-2, axis2=-1)
    total = square[..., :, None] + square[..., None, :]
    squared = np.maximum(total - 2 * gram, 0.0)
    *batch, i, j = np.nonzero(np.triu(squared <= _NEAR * total, 1))
    for at in range(0, len(i), 1024):
        b, rows, columns = tuple(k[at : at + 1024] for k in batch), i[at : at + 1024], j[at : at + 1024]
        apart = np.square(flat[*b, rows] - flat[*b, columns]).sum(-1)
        squared[*b, rows, columns] = squared[*b, columns, rows] = apart
    diagonal = np.arange(flat.shape[-2])
    squared[..., diagonal, diagonal] = 0.0
    return np.sqrt(squared)
