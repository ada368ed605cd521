"""Functions of the incoming reward: clipping, scaling, normalisation, bounded scores."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from reward_design.constructors import checked_gamma, from_step, pointwise
from reward_design.core import Params, Reward, State, Transition


def clip(low: float | int = -1.0, high: float | int = 1.0) -> Reward:
    """Clipped reward: r' = min(max(r, low), high).

    Keeps the optimal policy: no, except where nothing is clipped; in particular never clip after adding shaping.

    Args:
        low: smallest reward.
        high: largest reward.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` with params ``{"low", "high"}``; its term is the clipped minus the
        incoming reward.

    Raises:
        ValueError: if ``low`` is above ``high``.

    Example:
        >>> import reward_design as rd
        >>> dict(rd.clip(-5.0, 5.0).settings)
        {'low': -5.0, 'high': 5.0}

    Source: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015 (low -1, high 1).
    """
    if low > high:
        raise ValueError(f"clip needs low <= high, got low {low} and high {high}; swap them.")
    bounds = {"low": float(low), "high": float(high)}
    return _transform("clip", lambda p, t: jnp.clip(t.reward, p["low"], p["high"]), bounds, bounds)


def scale(factor: float | int) -> Reward:
    """Scaled reward: r' = factor · r.

    Keeps the optimal policy: only if factor > 0 (and entropy terms of the agent are scaled with it).

    Args:
        factor: any number.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` with params ``{"factor"}``.

    Example:
        >>> import reward_design as rd
        >>> rd.scale(0.1).settings["factor"]
        0.1
    """
    params = {"factor": float(factor)}
    return _transform("scale", lambda p, t: p["factor"] * t.reward, params, params)


def normalise_by_return(*, gamma: float | int, epsilon: float | int = 1e-8) -> Reward:
    """Reward over the running spread of the discounted return: r' = r / √(Var(R) + ε) with R_t = γ·R_{t-1} + r_t.

    R is kept per lane and starts at 0 in every episode; its variance is shared by all lanes and merged batch by batch.
    No mean is removed: r - mean would be a bonus per step and change the best episode length. A step is scored with the
    statistics *before* it, and these start from one pseudo-observation of mean 0 and variance 1, so that the first
    rewards are passed on almost unchanged instead of being blown up. Masked rows count for nothing.

    Keeps the optimal policy: only if the statistics are frozen (:func:`reward_design.freeze_running`); while they drift
    the scale of rewards changes within an episode.

    Args:
        gamma: discount per environment step, in [0, 1]; must equal the agent's.
        epsilon: added to the variance; a param.

    Returns:
        A :class:`Reward` of kind ``CAUSAL`` with params ``{"gamma", "epsilon"}`` and running state ``count, mean, m2``.

    Raises:
        ValueError: if ``gamma`` is outside [0, 1] or ``epsilon`` is not positive.

    Example:
        >>> import reward_design as rd
        >>> rd.normalise_by_return(gamma=0.99).kind.name
        'CAUSAL'

    Source: Engstrom et al., "Implementation Matters in Deep Policy Gradients", 2020, arXiv 2005.12729 (reward scaling);
    Chan, Golub, LeVeque, "Updating Formulae and a Pairwise Algorithm for Computing Sample Variances", 1979 (the merge).
    """
    gamma = checked_gamma(gamma)
    if epsilon <= 0:
        raise ValueError(f"epsilon must be positive, got {epsilon}.")

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        dtype = jnp.asarray(example.reward).dtype
        params = {"gamma": jnp.asarray(gamma, dtype), "epsilon": jnp.asarray(epsilon, dtype)}
        one = jnp.ones((), dtype)
        running = {"count": one, "mean": jnp.zeros((), dtype), "m2": one}
        return params, State(episode=jnp.zeros_like(jnp.asarray(example.reward)), running=running)

    def step(params: Params, state: State, t: Transition) -> tuple[Any, State]:
        variance = state.running["m2"] / state.running["count"]
        scaled = t.reward / jnp.sqrt(variance + params["epsilon"])
        returns = params["gamma"] * state.episode + t.reward
        running = _merged(state.running, returns, t.mask.astype(t.reward.dtype))
        terms = {"environment": t.reward, "normalise_by_return": scaled - t.reward}
        return (scaled, terms), state._replace(episode=returns, running=running)

    return from_step("normalise_by_return", init, step, settings={"gamma": gamma, "epsilon": epsilon})


def centred_sigmoid(*, reference: ArrayLike | Sequence[float | int] | str = 0.0, slope: float | int = 1.0) -> Reward:
    """Preference as reward (PAR): r' = (1/M) Σ_m σ(k · (r - r_ref^m)), the mean chance of beating M reference scores.

    Bounded in (0, 1), slope k/4 at the reference. Meant for a score per episode or segment (after
    :func:`reward_design.delayed`): a sum of sigmoids is not the sigmoid of a sum.

    Keeps the optimal policy: no, except for episodes with a single score in deterministic problems (it is monotone).

    Args:
        reference: a reference score, ``[M]`` of them, or the name of an ``info`` entry with ``[B]`` or ``[B, M]``.
        slope: k, positive.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` with params ``{"reference", "slope"}``.

    Raises:
        ValueError: if ``slope`` is not positive; at trace time, if the ``info`` entry is missing.

    Example:
        >>> import reward_design as rd
        >>> episode_score = rd.chain(rd.delayed(rd.environment_reward()), rd.centred_sigmoid(reference=10.0))

    Source: Fu et al., "Reward Shaping to Mitigate Reward Hacking in RLHF", 2025, arXiv 2502.18770.
    """
    if slope <= 0:
        raise ValueError(f"slope must be positive, got {slope}.")

    def score(params: Params, t: Transition) -> Float[Array, " batch"]:
        gap = t.reward[:, None] - _references(reference, params["reference"], t)
        return jax.nn.sigmoid(params["slope"] * gap).mean(axis=1)

    return _scored("centred_sigmoid", score, reference, {"slope": float(slope)})


def log_sigmoid(*, reference: ArrayLike | Sequence[float | int] | str = 0.0) -> Reward:
    """Log-sigmoid of the centred reward (LSC): u = log σ(r - r_ref).

    About r - r_ref far below the reference and 0 far above it, so that a sum of several u rewards having *all*
    properties (Σ u_i = log Π σ_i, a logical and). With M references the mean over them. Like
    :func:`reward_design.centred_sigmoid` it is meant for a score per episode or segment.

    Keeps the optimal policy: no, except for episodes with a single score in deterministic problems (it is monotone).

    Args:
        reference: a reference score (the 85 % quantile of a base policy's scores, say), ``[M]`` of them, or the name of
            an ``info`` entry with ``[B]`` or ``[B, M]``.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` with params ``{"reference"}``.

    Raises:
        ValueError: at trace time, if the ``info`` entry is missing.

    Example:
        >>> import reward_design as rd
        >>> rd.log_sigmoid(reference=2.0).name
        'log_sigmoid'

    Source: Wang et al., "Transforming and Combining Rewards for Aligning Large Language Models", 2024, arXiv
    2402.00742.
    """

    def score(params: Params, t: Transition) -> Float[Array, " batch"]:
        gap = t.reward[:, None] - _references(reference, params["reference"], t)
        return jax.nn.log_sigmoid(gap).mean(axis=1)

    return _scored("log_sigmoid", score, reference, {})


def _transform(name: str, fn: Any, params: dict[str, Any], settings: dict[str, Any]) -> Reward:
    """A pointwise function of the incoming reward; its term is the change that it makes."""

    def transformed(params: Params, t: Transition) -> Any:
        value = fn(params, t)
        return value, {"environment": t.reward, name: value - t.reward}

    return pointwise(name, transformed, params=params, settings=settings)


def _scored(
    name: str, score: Any, reference: ArrayLike | Sequence[float | int] | str, extra: dict[str, float]
) -> Reward:
    values = () if isinstance(reference, str) else jnp.atleast_1d(jnp.asarray(reference, float))
    return _transform(name, score, {"reference": values, **extra}, {"reference": reference, **extra})


def _references(
    reference: ArrayLike | Sequence[float | int] | str, values: Any, t: Transition
) -> Float[Array, "rows num"]:
    """``[1, M]`` from params or ``[B, M]`` from ``info``."""
    if not isinstance(reference, str):
        return values[None, :].astype(t.reward.dtype)
    if reference not in t.info:
        raise ValueError(f"the reference score {reference!r} is not in info, which has {sorted(t.info)}; add it there.")
    return jnp.reshape(t.info[reference], (t.reward.shape[0], -1)).astype(t.reward.dtype)


def _merged(
    running: dict[str, Array], values: Float[Array, " batch"], weight: Float[Array, " batch"]
) -> dict[str, Float[Array, ""]]:
    """Chan's merge of the running count, mean and sum of squares with those of a weighted batch."""
    num = weight.sum()
    mean = (weight * values).sum() / jnp.maximum(num, 1)
    m2 = (weight * (values - mean) ** 2).sum()
    count, delta = running["count"] + num, mean - running["mean"]
    return {
        "count": count,
        "mean": running["mean"] + delta * num / count,
        "m2": running["m2"] + m2 + delta**2 * running["count"] * num / count,
    }
