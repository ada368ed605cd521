"""Scores of things that were compared, without features: the classical Bradley-Terry model."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from reward_design.preferences.model import preference_loss


def bradley_terry_scores(
    first: Any, second: Any, preferred: Any, *, num_items: int, l2: float | int = 1e-3, num_steps: int = 50
) -> Float[Array, " items"]:
    """Scores x that minimise sum over pairs of -log P + l2 |x|², P(i preferred to j) = sigmoid(x_i - x_j).

    Damped Newton steps on a strictly convex objective; the penalty makes the answer unique, with mean 0, and finite
    where one item always wins.

    Args:
        first: ``[M]`` indices of the first items.
        second: ``[M]`` of the second.
        preferred: ``[M]`` in [0, 1], 1 where the first was preferred, 0.5 for ties.
        num_items: N.
        l2: weight of the penalty, above 0.
        num_steps: Newton steps.

    Returns:
        ``[N]`` scores.

    Raises:
        ValueError: for a penalty that is not above 0.

    Example:
        >>> bradley_terry_scores([0], [1], [0.5], num_items=2).tolist()
        [0.0, 0.0]

    Source: R. A. Bradley, M. E. Terry, "Rank Analysis of Incomplete Block Designs", Biometrika 1952.
    """
    if not l2 > 0:
        raise ValueError(f"l2 must be above 0, got {l2}; without it scores of separable items are infinite.")
    first, second = jnp.asarray(first), jnp.asarray(second)
    preferred = jnp.asarray(preferred, float)

    def objective(x: Array) -> Array:
        return preference_loss(x[first] - x[second], preferred).sum() + l2 * jnp.sum(x**2)

    def newton(x: Array, _: Any) -> tuple[Array, None]:
        direction = jnp.linalg.solve(jax.hessian(objective)(x), jax.grad(objective)(x))
        sizes = 0.5 ** jnp.arange(8.0)
        candidates = x[None] - sizes[:, None] * direction[None]
        return candidates[jnp.argmin(jax.vmap(objective)(candidates))], None

    return jax.lax.scan(newton, jnp.zeros(num_items), length=num_steps)[0]
