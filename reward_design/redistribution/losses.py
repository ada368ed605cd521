"""What it means that contributions fit a return: one error per episode, from all of its steps or from some."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

Fn = Callable[[Any, Any, Any, Any], Array]


@dataclass(frozen=True, eq=False)
class Loss:
    """A loss of an estimator.

    Attributes:
        name: for settings.
        num_steps: steps that are drawn of each episode, None for all of them in their order.
        per_step: whether the error is one of R / T, and not of R.
        fn: ``(contribution [T, M], mask [T, M], length [M], total [M]) -> error [M]``.
    """

    name: str
    num_steps: int | None
    per_step: bool
    fn: Fn


def squared_error(*, per_step: bool, prediction: float | int = 0.0) -> Loss:
    """(Σ_t c_t - R)², with ``per_step`` over T², and optionally Σ of c up to each step against R as well.

    Args:
        per_step: whether both sides are means over the steps, so that long episodes do not dominate.
        prediction: weight w of w · mean_t (Σ_{k≤t} c_k - R)², which asks for an early prediction of the return; for
            estimators that are differences of predictions.

    Source: Arjona-Medina et al., 2018, arXiv:1806.07857 (differences of predictions; the auxiliary task with weight
    0.5). The released tutorial squares the error's mean over the batch; here each episode's error is squared.
    """

    def fn(c: Any, mask: Any, length: Any, total: Any) -> Float[Array, " samples"]:
        c = jnp.where(mask, c, 0)
        error = jnp.square((c.sum(axis=0) - total) / (length if per_step else 1))
        if prediction:
            ahead = jnp.where(mask, jnp.square(jnp.cumsum(c, axis=0) - total[None]), 0)
            error = error + prediction * ahead.sum(axis=0) / length
        return error

    return Loss("squared_error", None, per_step, fn)


def randomised(num_steps: int, *, unbiased: bool) -> Loss:
    """(R / T - mean_{t in I} c_t)² of K random steps I; an estimate of the error of the whole mean.

    Its expectation is ((R - Σ c) / T)² + (1 - K / T) S² / K with S² the variance of c over the steps (ddof 1), which
    rewards equal contributions; ``unbiased`` subtracts the sample's (1 - K / T) S² / K. Episodes shorter than K are
    drawn from with replacement, where the factor is 1 and S² the variance with ddof 0.

    Args:
        num_steps: K, at least 2 with ``unbiased``.
        unbiased: whether to subtract.

    Source: Ren, Guo, Zhou and Peng, "Learning Long-Term Reward Redistribution via Randomized Return Decomposition",
    2021, arXiv:2111.13485.
    """

    def fn(c: Any, mask: Any, length: Any, total: Any) -> Float[Array, " samples"]:
        error = jnp.square(total / length - c.mean(axis=0))
        if not unbiased:
            return error
        factor = jnp.where(length >= num_steps, 1 - num_steps / length, 1.0)
        return error - factor * c.var(axis=0, ddof=1) / num_steps

    return Loss("randomised", num_steps, True, fn)


def equal_shares(num_steps: int | None = None) -> Loss:
    """Mean of (c_t - R / T)²: the share of an episode that a transition is in, on average over episodes.

    Args:
        num_steps: steps that are drawn of each episode, None for all.
    """

    def fn(c: Any, mask: Any, length: Any, total: Any) -> Float[Array, " samples"]:
        error = jnp.where(mask, jnp.square(c - (total / length)[None]), 0)
        return error.sum(axis=0) / jnp.maximum(mask.sum(axis=0), 1)

    return Loss("equal_shares", num_steps, True, fn)


def random_steps(
    key: Any, length: Int[Array, " samples"], num_steps: int, max_length: int
) -> Int[Array, "steps samples"]:
    """``num_steps`` steps of each episode: without replacement where it has as many, otherwise with.

    Args:
        key: random key.
        length: steps of each episode.
        num_steps: K.
        max_length: of the longest episode.

    Returns:
        Steps ``[K, M]``.
    """
    order_key, draw_key = jax.random.split(key)
    repeated = jax.random.randint(draw_key, (length.shape[0], num_steps), 0, jnp.maximum(length, 1)[:, None])
    if num_steps > max_length:
        return repeated.T
    inside: Bool[Array, "samples time"] = jnp.arange(max_length)[None] < length[:, None]
    rank = jnp.where(inside, jax.random.uniform(order_key, inside.shape), -1.0)
    _, once = jax.lax.top_k(rank, num_steps)
    return jnp.where((length >= num_steps)[:, None], once, repeated).T
