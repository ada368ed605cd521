"""Features of observations, shared by all rewards: the span in which potentials are seen and taken out."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import scipy.linalg
from jaxtyping import Float

FeatureFn = Callable[[Any], Any]
"""``obs [B, ...] -> [B, F]``."""

_MAX_QUADRATIC = 20
"""Observations with more numbers get no products."""


def flat_observations(obs: Any) -> Float[np.ndarray, "B D"]:
    """All leaves of an observation as float64, flattened and side by side."""
    leaves = [np.asarray(x, float) for x in jax.tree.leaves(obs)]
    return np.concatenate([x.reshape(len(x), -1) for x in leaves], axis=1)


def is_index(obs: Any) -> bool:
    """Whether observations are indices of states, ``[B]`` integers."""
    return not isinstance(obs, (dict, tuple, list)) and np.ndim(obs) == 1 and np.asarray(obs).dtype.kind in "iu"


def indicator_features(obs: Any) -> FeatureFn:
    """One feature per state index that occurs in ``obs``; others have no feature."""
    known = np.unique(np.asarray(obs))
    return lambda x: (np.asarray(x)[:, None] == known).astype(float)


def smooth_features(obs: Any, *, num_random: int = 64, seed: int = 0) -> FeatureFn:
    """1, the numbers of the observation, their products, and random Fourier features of it.

    cos(ω·x + b) with ω normal of inverse widths 0.5 to 2, x standardised. Source of the last: Rahimi and Recht, "Random
    Features for Large-Scale Kernel Machines", 2007.

    Args:
        obs: observations that give centre and scale.
        num_random: number of random features.
        seed: of the random features.

    Returns:
        ``obs -> [B, F]``.
    """
    x = flat_observations(obs)
    centre, spread = x.mean(0), x.std(0)
    spread = np.where(spread > 1e-12, spread, 1.0)
    rng, size = np.random.default_rng(seed), x.shape[1]
    omega = rng.normal(size=(size, num_random)) * rng.uniform(0.5, 2.0, num_random) / np.sqrt(max(size, 1))
    phase = rng.uniform(0, 2 * np.pi, num_random)
    upper = np.triu_indices(size)

    def features(given: Any) -> np.ndarray:
        z = (flat_observations(given) - centre) / spread
        parts = [np.ones((len(z), 1)), z, np.cos(z @ omega + phase)]
        if size <= _MAX_QUADRATIC:
            parts.append(z[:, upper[0]] * z[:, upper[1]])
        return np.concatenate(parts, axis=1)

    return features


def with_potentials(features: FeatureFn, potentials: Sequence[Callable[[Any], Any]]) -> FeatureFn:
    """Features with potentials ``obs -> [B]`` beside them, computed in float64."""

    def joined(obs: Any) -> np.ndarray:
        with jax.enable_x64(True):
            wide = jax.tree.map(lambda x: np.asarray(x, float) if np.asarray(x).dtype.kind == "f" else x, obs)
            columns = [np.asarray(phi(wide), float).reshape(-1, 1) for phi in potentials]
        return np.concatenate([np.asarray(features(obs), float), *columns], axis=1)

    return joined if potentials else features


def independent_columns(x: Float[np.ndarray, "B F"], *, tolerance: float = 1e-8) -> np.ndarray:
    """Indices of a largest set of linearly independent columns, in their order."""
    size = np.linalg.norm(x, axis=0)
    scaled = x / np.where(size > 0, size, 1)
    triangle: Any = scipy.linalg.qr(scaled, mode="r", pivoting=True)
    r, pivots = triangle
    diagonal = np.abs(np.diag(r))
    return np.sort(pivots[: len(diagonal)][diagonal > tolerance * max(diagonal[0], 1e-300)])
