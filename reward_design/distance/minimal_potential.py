"""The potential that makes a reward smallest: the canonicalisation ``minimal_potential``, and its kin of least 1-norm.

Source: "MinimalPotential" of Skalse et al., "STARC", ICLR 2024, arXiv:2309.15257, where gradient steps find it.
Iteratively reweighted least squares: Schlossmacher, "An Iterative Technique for Absolute Deviations Curve Fitting",
1973.
"""

from typing import Any

import numpy as np
from jaxtyping import Float

from reward_design.distance.canonicalisation import least_squares_potential, shaped_by
from reward_design.envs import exact

_SMALLEST = 1e-7
"""Entries below this share of the mean absolute entry weigh no more in the least squares."""


@exact.quiet
def minimal_potential(
    reward: exact.Numbers, *, gamma: float, norm: Any = 2, iterations: int = 30
) -> Float[np.ndarray, "*batch S A S"]:
    """R(s, a, s') + γ Φ(s') - Φ(s) with the Φ that makes its norm least, over all potentials.

    ``norm=2`` is the canonicalisation of that name in closed form. ``norm=1`` is reweighted least squares from there,
    each entry weighing 1/|entry| of the step before, so that shaping and positive scaling of R change nothing up to
    rounding. It is neither linear nor, where several potentials are as good, the only answer, and so no
    canonicalisation: give what comes out to :func:`reward_design.distance.starc_distance` with
    ``canonicalisation="none"``. Like all that keep the successor it does not see through redistribution.

    Args:
        reward: ``[..., S, A, S]``, finite.
        gamma: discount per step, in [0, 1).
        norm: 1 or 2, over all entries. The least ∞-norm leaves the potential open wherever it does not touch the
            largest entry.
        iterations: of ``norm=1``.

    Returns:
        ``[..., S, A, S]``.

    Raises:
        ValueError: for another norm, gamma outside [0, 1), another shape, or values that are not finite.

    Example:
        >>> import numpy as np
        >>> phi = np.array([3.0, -1.0])
        >>> shaping = np.zeros((2, 2, 2)) + 0.5 * phi - phi[:, None, None]
        >>> bool(np.abs(minimal_potential(shaping, gamma=0.5, norm=1)).max() < 1e-12)
        True
    """
    shape = np.shape(reward)
    if len(shape) < 3 or shape[-3] != shape[-1]:
        raise ValueError(f"reward must have shape [..., S, A, S], got {shape}; the axes are state, action, next state.")
    exact.check_discount(gamma)
    if norm not in (1, 2):
        raise ValueError(
            f"norm must be 1 or 2, got {norm!r}; the least norm of another kind does not determine the potential."
        )
    table = np.asarray(reward, float)
    exact.check_finite(table, reward=table)
    c = shaped_by(table, least_squares_potential(table, gamma), np.asarray(gamma))
    if norm == 2:
        return c
    smallest = _SMALLEST * np.abs(c).mean((-3, -2, -1), keepdims=True) + 1e-300
    for _ in range(iterations):
        c = shaped_by(c, _reweighted(c, 1 / np.maximum(np.abs(c), smallest), gamma), np.asarray(gamma))
    return c


def _reweighted(c: np.ndarray, weight: np.ndarray, gamma: float) -> np.ndarray:
    """Φ ``[..., S]`` that minimises Σ w (c + γ Φ(s') - Φ(s))², by its normal equations."""
    moved, pairs, diagonal = weight * c, weight.sum(-2), np.arange(c.shape[-1])
    matrix = -gamma * (pairs + pairs.swapaxes(-1, -2))
    matrix[..., diagonal, diagonal] += gamma**2 * pairs.sum(-2) + pairs.sum(-1)
    right = moved.sum((-2, -1)) - gamma * moved.sum((-3, -2))
    return np.linalg.solve(matrix, right[..., None])[..., 0]
