"""STARC distances from samples that keep the invariances at any number of samples, with bootstrap intervals.

Three things make that so: all rewards are scored on one batch; their values are linear in shared features and solved
for, not learned; and inner products multiply different successors of one pair, so that what averages out over
successors also averages out of the norms.

Source: the distance is that of Skalse et al., "STARC", ICLR 2024, arXiv:2309.15257, their estimator is not (it has a
bias that more samples do not remove). LSTD: Bradtke and Barto, "Linear Least-Squares Algorithms for Temporal Difference
Learning", 1996. Bootstrap: Efron, "Bootstrap Methods", 1979.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from reward_design.core import Kind, Reward
from reward_design.distance import features as feature_maps
from reward_design.distance._estimator import between, bootstrap, inner, outside_span, solved, system
from reward_design.distance.samples import Samples
from reward_design.distance.scoring import Sampled, memory, scores
from reward_design.envs import exact

METHODS = ("val", "minimal_weighted")


@dataclass(frozen=True, eq=False)
class SampledDistances:
    """Distances between M rewards, from samples.

    Attributes:
        distance: ``[M, M]`` in [0, 2].
        low: ``[M, M]`` lower end of the bootstrap interval.
        high: ``[M, M]`` upper end.
        outside_span: ``[M, M]`` share of the squared difference that shaping with potentials *outside* the span of the
            features explains on samples held out, in [0, 1]; large: give better features, or the potential itself.
        trivial: ``[M]`` bool, the reward cannot be told from one that is indifferent to all policies.
        num_features: independent features.
        guarantees: what may be concluded, in words.
    """

    distance: Float[np.ndarray, "M M"]
    low: Float[np.ndarray, "M M"]
    high: Float[np.ndarray, "M M"]
    outside_span: Float[np.ndarray, "M M"]
    trivial: np.ndarray
    num_features: int
    guarantees: str


@dataclass(frozen=True, eq=False)
class SampledDistance:
    """The distance of two rewards, from samples; see :class:`SampledDistances`."""

    distance: float
    low: float
    high: float
    outside_span: float
    trivial: tuple[bool, bool]
    num_features: int
    guarantees: str


def sampled_starc(
    reward_a: Sampled, reward_b: Sampled, samples: Samples, *, gamma: float, **settings: Any
) -> SampledDistance:
    """STARC distance of two rewards from samples; 0 for harmless changes at any number of samples.

    V(s) = θ·φ(s) for both rewards, θ from the samples; c_k = r_k + γ V(s'_k) - V(s) for the successors k = 1..K of a
    pair; ⟨c, d⟩ = mean of c_k d_l over pairs k ≠ l (over k if K = 1); d = √(2 - 2 cos), computed
    from the difference.

    A positive factor, and shaping by a potential in the span of the features, give 0 up to rounding. Redistribution
    over successors gives 0 up to noise if K ≥ 2. As N grows and the span is rich enough, the limit is the exact one of
    ``val`` (or ``minimal_weighted``) with both norms ``"weighted_2"``, weighted by how often a pair is sampled, if K ≥
    2 or the dynamics are deterministic. With K = 1 and stochastic dynamics what differs between successors counts: the
    limit is that of ``val_potential``, and the interval is around that one.

    Args:
        reward_a: a :class:`Reward` (of kind CAUSAL only with a recorded rollout: its memory then joins the features), a
            table ``[S, A, S]`` if observations are states, or values ``[N, K]``.
        reward_b: the same.
        samples: one batch, see :func:`sample_functional`, :func:`sample_mujoco`, :func:`sample_tabular` and
            :func:`recorded_samples`.
        gamma: discount per step, in [0, 1).
        **settings: as in :func:`sampled_distances`.

    Returns:
        A :class:`SampledDistance`.

    Raises:
        ValueError: as :func:`sampled_distances`.
        TypeError: for a reward of kind TRAJECTORY, or of kind CAUSAL without a rollout.

    Example:
        >>> import reward_design as rd
        >>> from reward_design.distance import sample_tabular
        >>> from reward_design.envs import task
        >>> chain = task("chain")
        >>> shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(chain.potential, gamma=chain.gamma))
        >>> batch = sample_tabular(chain.tabular(), num_samples=1000)
        >>> sampled_starc(rd.environment_reward(), shaped, batch, gamma=chain.gamma).distance < 1e-9
        True
    """
    found = sampled_distances([reward_a, reward_b], samples, gamma=gamma, **settings)
    a, b = (bool(x) for x in found.trivial)
    of = lambda x: float(x[0, 1])  # noqa: E731
    return SampledDistance(
        of(found.distance), of(found.low), of(found.high), of(found.outside_span), (a, b), found.num_features,
        found.guarantees,
    )  # fmt: skip


def sampled_distances(
    rewards: Sequence[Sampled],
    samples: Samples,
    *,
    gamma: float,
    canonicalisation: str = "val",
    features: Callable[[Any], Any] | None = None,
    potentials: Sequence[Callable[[Any], Any]] = (),
    confidence: float = 0.95,
    num_resamples: int = 200,
    seed: int = 0,
) -> SampledDistances:
    """Distances between all pairs of M rewards from one batch; see :func:`sampled_starc` for the definition.

    Args:
        rewards: as in :func:`sampled_starc`.
        samples: one batch for all.
        gamma: discount per step, in [0, 1).
        canonicalisation: ``"val"``, values by LSTD of the policy that drew the actions; or ``"minimal_weighted"``, the
            potential of least squares, which does not need states to be sampled as often as they are reached.
        features: ``obs [B, ...] -> [B, F]``, linearly independent on the samples. By default one per state where
            observations are indices, else 1, the observation, its products and random Fourier features, less those
            that are redundant.
        potentials: functions ``obs -> [B]`` to put into the span.
        confidence: of the percentile bootstrap over groups of samples.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.

    Returns:
        A :class:`SampledDistances`.

    Raises:
        ValueError: gamma outside [0, 1), rewards not finite (with the sample), features of deficient rank (with the
            columns), or samples that do not determine the values.
        TypeError: for a reward of kind TRAJECTORY, or of kind CAUSAL without a rollout.
    """
    exact.check_discount(gamma)
    if canonicalisation not in METHODS:
        raise ValueError(f"canonicalisation must be one of {', '.join(METHODS)} for samples, got {canonicalisation!r}.")
    values = np.stack([scores(reward, samples) for reward in rewards], axis=-1)  # [N, K, M]
    here, after = shared_features(rewards, samples, features, potentials)
    drop = after * gamma * ~samples.terminated[..., None]
    flow = here[:, None, :] - drop  # [N, K, F]: what a potential takes from the reward
    theta = solved(system(here, flow, values, canonicalisation), canonicalisation)
    c = values - flow @ theta
    size, roundoff = np.sqrt(np.maximum(inner(c, c), 0.0)), 1e-10 * np.sqrt((values**2).mean((0, 1)))
    blank = size <= roundoff + 1e-12 * np.sqrt(((flow @ theta) ** 2).mean((0, 1)))
    standard = np.where(blank, 0.0, c / np.where(blank, 1.0, size))
    distance = between(standard)
    low, high, weak = bootstrap(
        here, flow, values, samples.group, blank, canonicalisation, confidence, num_resamples, seed
    )
    outside = outside_span(standard, samples, flow, gamma, seed)
    return SampledDistances(
        distance, np.minimum(low, distance), np.maximum(high, distance), outside, blank | weak, here.shape[1],
        samples.guarantees,
    )  # fmt: skip


def sampled_parts(
    reward_a: Sampled,
    reward_b: Sampled,
    samples: Samples,
    *,
    gamma: float,
    features: Callable[[Any], Any] | None = None,
    potentials: Sequence[Callable[[Any], Any]] = (),
) -> tuple[float, dict[str, float]]:
    """Factor and shares of B - A as in :func:`reward_design.distance.decompose_difference`, from samples.

    Least squares of B on A and on shaping in the span of the features. With K ≥ 2 successors, redistribution is what
    varies among them and is not shaping; with one it cannot be told from the residual and is 0.

    Args:
        reward_a: as in :func:`sampled_starc`.
        reward_b: as in :func:`sampled_starc`.
        samples: one batch.
        gamma: discount per step, in [0, 1).
        features: as in :func:`sampled_distances`.
        potentials: as in :func:`sampled_distances`.

    Returns:
        ``(factor, shares)``, shares by name.
    """
    exact.check_discount(gamma)
    a, b = scores(reward_a, samples), scores(reward_b, samples)
    here, after = shared_features([reward_a, reward_b], samples, features, potentials)
    flow = here[:, None, :] - after * gamma * ~samples.terminated[..., None]
    mean = flow.mean(1)
    free = [x.mean(1) - mean @ np.linalg.lstsq(mean, x.mean(1), rcond=None)[0] for x in (a, b)]
    whole = [np.linalg.norm(x) for x in (a.mean(1), b.mean(1))]
    known = np.linalg.norm(free[0]) > 1e-9 * whole[0]
    scale = max(0.0, float(free[0] @ free[1] / (free[0] @ free[0]))) if known else 1.0
    theta = np.linalg.lstsq(mean, (b - scale * a).mean(1), rcond=None)[0]
    shaping = flow @ theta
    rest = b - scale * a - shaping
    residual = np.broadcast_to(rest.mean(1, keepdims=True), rest.shape)
    parts = {"scale": (scale - 1) * a, "potential": shaping, "redistribution": rest - residual, "residual": residual}
    squares = {name: float((x * x).mean()) for name, x in parts.items()}
    floor = 1e-12 * max(float((a * a).mean()), float((b * b).mean()))
    squares = {name: square if square > floor else 0.0 for name, square in squares.items()}
    total = sum(squares.values())
    return scale, {name: square / total if total else 0.0 for name, square in squares.items()}


# --- features -------------------------------------------------------------------------------------------------------


def shared_features(rewards: Sequence[Sampled], samples: Samples, given: Any, potentials: Any) -> tuple[Any, Any]:
    """``[N, F]`` and ``[N, K, F]``, columns independent."""
    following = samples.transitions().next_obs
    if given is None:
        indexed = feature_maps.is_index(samples.obs)
        given_fn = (feature_maps.indicator_features if indexed else feature_maps.smooth_features)(samples.obs)
        mapped = feature_maps.with_potentials(given_fn, [] if indexed else potentials)
    else:
        mapped = feature_maps.with_potentials(given, potentials)
    here = np.asarray(mapped(samples.obs), float)
    after = np.asarray(mapped(following), float).reshape(*samples.reward.shape, -1)
    here, after = _with_memory(rewards, samples, here, after)
    if not (np.isfinite(here).all() and np.isfinite(after).all()):
        raise ValueError("features and potentials must be finite on all samples, got NaN or infinity; fix them.")
    live = after[~samples.terminated]
    kept = feature_maps.independent_columns(np.concatenate([here, live]))
    if given is not None and len(kept) < here.shape[1]:
        lost = sorted(set(range(here.shape[1])) - set(kept.tolist()))
        raise ValueError(
            f"features must be linearly independent, got rank {len(kept)} of {here.shape[1]} on {len(here)} samples; "
            f"leave out the columns {lost} (potentials come last), or take more samples."
        )
    return _orthonormal(here[:, kept], after[..., kept], live[:, kept])


def _orthonormal(here: np.ndarray, after: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Another basis of the same span, in which systems are well conditioned."""
    r: Any = np.linalg.qr(np.concatenate([here, live]), mode="r")
    change = np.sqrt(len(here)) * np.linalg.inv(r) if r.size else r.T
    return here @ change, after @ change


def _with_memory(rewards: Sequence[Sampled], samples: Samples, here: Any, after: Any) -> tuple[Any, Any]:
    """Features of the memory of rewards of kind CAUSAL (its numbers and their squares) beside those of observations."""
    for reward in rewards:
        if isinstance(reward, Reward) and reward.kind is Kind.CAUSAL:
            _, before, then = memory(reward, samples)
            here = np.concatenate([here, before, before**2], axis=1)
            after = np.concatenate([after, then[:, None], then[:, None] ** 2], axis=2)
    return here, after
