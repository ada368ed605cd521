"""Scores of things that were compared, without features: the classical Bradley-Terry model."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from reward_design._arguments import whole_number
from reward_design.preferences.model import preference_loss


def bradley_terry_scores(
    first: Any, second: Any, preferred: Any, *, num_items: int, l2: float | int = 1e-3, num_steps: int = 50
) -> Float[Array, " items"]:
    """Scores x that minimise sum over pairs of -log P + l2 |x|², P(i preferred to j) = sigmoid(x_i - x_j).

    Damped Newton steps on a strictly convex objective; the penalty makes the answer unique, with mean 0, and finite
    where one item always wins.

    Args:
        first: ``[M]`` indices of the first items, in [0, N).
        second: ``[M]`` of the second.
        preferred: ``[M]`` in [0, 1], 1 where the first was preferred, 0.5 for ties.
        num_items: N.
        l2: weight of the penalty, above 0.
        num_steps: Newton steps.

    Returns:
        ``[N]`` scores.

    Raises:
        ValueError: for a penalty that is not above 0, lengths that differ, and (outside jit) an index or a preference
            out of range.
        TypeError: for indices or numbers of items and steps that are not whole.

    Example:
        >>> bradley_terry_scores([0], [1], [0.5], num_items=2).tolist()
        [0.0, 0.0]

    Source: R. A. Bradley, M. E. Terry, "Rank Analysis of Incomplete Block Designs", Biometrika 1952.
    """
    if not l2 > 0:
        raise ValueError(f"l2 must be above 0, got {l2}; without it scores of separable items are infinite.")
    if (num_items := whole_number("num_items", num_items)) < 1:
        raise ValueError(f"num_items must be at least 1, got {num_items}.")
    if (num_steps := whole_number("num_steps", num_steps)) < 1:
        raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
    first, second = (_indices(name, index, num_items) for name, index in (("first", first), ("second", second)))
    preferred = jnp.asarray(preferred, float)
    if not first.shape == second.shape == preferred.shape:
        raise ValueError(
            f"first, second and preferred need an entry for each pair, got shapes {first.shape}, {second.shape} and "
            f"{preferred.shape}."
        )
    if not isinstance(preferred, Tracer):
        known = np.asarray(preferred)
        if (wrong := ~((known >= 0) & (known <= 1))).any():
            at = int(np.argmax(wrong))
            raise ValueError(f"preferred must be in [0, 1], got {known[at]} for pair {at}; leave out what is unknown.")

    def objective(x: Array) -> Array:
        return preference_loss(x[first] - x[second], preferred).sum() + l2 * jnp.sum(x**2)

    def newton(x: Array, _: Any) -> tuple[Array, None]:
        direction = jnp.linalg.solve(jax.hessian(objective)(x), jax.grad(objective)(x))
        sizes = 0.5 ** jnp.arange(8.0)
        candidates = x[None] - sizes[:, None] * direction[None]
        return candidates[jnp.argmin(jax.vmap(objective)(candidates))], None

    return jax.lax.scan(newton, jnp.zeros(num_items), length=num_steps)[0]


def _indices(name: str, index: Any, num_items: int) -> Array:
    """``[M]`` indices of items; JAX would clip one that is out of range, and fit another pair."""
    known = index if isinstance(index, Tracer) else np.asarray(index)
    whole = jnp.issubdtype(known.dtype, jnp.integer) or not known.size
    if known.ndim != 1 or not whole:
        raise TypeError(f"{name} must be whole numbers [M], got {known.dtype} of shape {known.shape}.")
    if not isinstance(known, Tracer):
        if (wrong := (known < 0) | (known >= num_items)).any():
            at = int(np.argmax(wrong))
            raise ValueError(f"{name} must be in [0, {num_items}), the items, got {known[at]} for pair {at}.")
        known = known.astype(np.int32)
    return jnp.asarray(known)
