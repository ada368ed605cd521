"""STARC: distances between rewards that are 0 exactly if the rewards order all policies alike, on finite MDPs.

Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate, "STARC: A General Framework For Quantifying Differences
Between Reward Functions", ICLR 2024, arXiv:2309.15257.
"""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from reward_design.distance._norms import Norm, norm_of, pairwise, parse_norm, scaled, stacked
from reward_design.distance._reachable import warn_of_unreachable
from reward_design.distance.canonicalisation import (
    Levels,
    check_canonicalisation,
    expected_size,
    levelled,
    policy_or_uniform,
)
from reward_design.envs import exact


@exact.quiet
def starc_distance(
    reward_a: exact.Numbers,
    reward_b: exact.Numbers,
    transition: exact.Numbers,
    *,
    gamma: Any,
    canonicalisation: str = "val",
    norm: Any = 2,
    metric: Any = 2,
    policy: exact.Numbers | None = None,
    initial: exact.Numbers | None = None,
) -> float | Float[np.ndarray, "*batch"] | Float[Array, "*batch"]:
    """STARC distance: d(A, B) = m(s(A), s(B)), s(R) = c(R) / n(c(R)), and s(R) = 0 if c(R) = 0.

    With ``val``, ``minimal`` and ``minimal_weighted`` it is 0 exactly if the two rewards order all policies alike: they
    differ by a positive factor, potential shaping, and redistribution over successors that keeps each expected reward.
    With n = m it lies in [0, 2], is 2 for opposite rewards, and 1 between a trivial reward (all policies alike) and any
    other. All norms are those of the full ``[S, A, S]`` tensor, as sums; with n ≠ m the distance of opposite rewards is
    2 m(c)/n(c). Half of it, with n = m, lies in [0, 1].

    A canonicalised reward counts as 0 when its norm is below 1e-10 (float64; 1e-5 in float32) of the norm of E|R|.

    Args:
        reward_a: ``[..., S, A, S]``, finite.
        reward_b: ``[..., S, A, S]``; leading axes broadcast.
        transition: ``[..., S, A, S]`` probabilities of the successor. Terminal states lead to themselves with reward 0.
        gamma: discount per step, in [0, 1).
        canonicalisation: ``"val"``, ``"minimal"``, ``"minimal_weighted"`` (STARC), ``"val_potential"``,
            ``"minimal_potential"``, ``"epic"``, ``"dard"`` or ``"none"``, see
            :func:`reward_design.distance.canonicalise`.
        norm: n, one of 1, 2, inf, ``"weighted_1"``, ``"weighted_2"``, ``"weighted_inf"`` (entries weighted by the
            probability of their transition), or None for no normalisation: the distance then grows with the scale.
        metric: m, the norm of the difference, one of the same.
        policy: ``[..., S, A]`` policy of ``val`` and ``val_potential``, default uniform.
        initial: ``[S]`` start distribution. It is not part of the distance; with it, a warning names the states that
            no policy reaches, where rewards may differ without any consequence.

    Returns:
        Distance, a float without leading axes; computed in float64 on the host, or in the inputs' dtype when traced.

    Raises:
        ValueError: shapes that do not fit, rows of ``transition`` that are no distributions, gamma outside [0, 1),
            values that are not finite, or an unknown canonicalisation or norm.

    Example:
        >>> import numpy as np
        >>> stay, switch = np.eye(2), np.eye(2)[::-1]
        >>> transition = np.stack([stay, switch], axis=1)  # two states; actions stay and switch
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> moving = np.zeros((2, 2, 2)); moving[:, 1] = 1.0
        >>> round(starc_distance(position, moving, transition, gamma=0.5), 6)
        1.414214
        >>> potential = np.array([3.0, -1.0])
        >>> shaped = position + 0.5 * potential - potential[:, None, None]
        >>> starc_distance(position, 2 * shaped, transition, gamma=0.5) < 1e-9
        True
    """
    _check_pair(reward_a, reward_b, transition)
    n, m = _check_settings(transition, gamma, canonicalisation, norm, metric, policy, initial)
    xp, a, b, probability, discount, pi = exact.floats(
        reward_a, reward_b, transition, gamma, policy_or_uniform(policy, transition)
    )
    a, b, probability, pi, discount = exact.align((a, 3), (b, 3), (probability, 3), (pi, 2), (discount, 0))
    shape = np.broadcast_shapes(a.shape, b.shape)
    pair = xp.stack([xp.broadcast_to(a, shape), xp.broadcast_to(b, shape)], axis=-4)
    levels = levelled(xp, pair, probability, discount, pi, canonicalisation)
    s = _standardised(xp, levels, pair, probability, n)
    weight = levels.weight(xp, m, probability)
    weight = weight if isinstance(weight, float) else weight[..., 0, :, :, :]
    result = norm_of(xp, s[..., 0, :, :, :] - s[..., 1, :, :, :], m.power, weight)
    exact.check_finite(result, reward_a=reward_a, reward_b=reward_b)
    return exact.as_result(result)


@exact.quiet
def distance_matrix(
    rewards: exact.Numbers,
    transition: exact.Numbers,
    *,
    gamma: Any,
    canonicalisation: str = "val",
    norm: Any = 2,
    metric: Any = 2,
    policy: exact.Numbers | None = None,
    initial: exact.Numbers | None = None,
) -> Float[np.ndarray, "*batch M M"] | Float[Array, "*batch M M"]:
    """STARC distances between all pairs of M rewards; see :func:`starc_distance` for the definition and the errors.

    One factorisation serves all rewards, the tables are read once and never copied in float64 as a whole, and for
    ``metric=2`` one Gram matrix gives all pairs (near-duplicates are then computed from their difference, so that
    equivalent rewards are at 1e-15 and not at 1e-8).

    Args:
        rewards: ``[..., M, S, A, S]``, or a sequence of M tables ``[S, A, S]``.
        transition: ``[..., S, A, S]``.
        gamma: discount per step, in [0, 1).
        canonicalisation: as in :func:`starc_distance`.
        norm: n, as in :func:`starc_distance`.
        metric: m, as in :func:`starc_distance`.
        policy: ``[..., S, A]`` policy of ``val`` and ``val_potential``, default uniform.
        initial: ``[S]`` start distribution, as in :func:`starc_distance`.

    Returns:
        ``[..., M, M]``, symmetric with zeros on the diagonal.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> distance_matrix([position, -position, 3 * position], transition, gamma=0.5).round(9).tolist()
        [[0.0, 2.0, 0.0], [2.0, 0.0, 2.0], [0.0, 2.0, 0.0]]
    """
    rewards = stacked(rewards)
    _check_rank("rewards", rewards, transition, 4)
    n, m = _check_settings(transition, gamma, canonicalisation, norm, metric, policy, initial)
    pi = policy_or_uniform(policy, transition)
    if exact.is_traced(rewards, transition, gamma, policy):
        xp, tables, *others = exact.floats(rewards, transition, gamma, pi)
    else:  # the tables are large: they are widened chunk by chunk
        (xp, *others), tables = exact.floats(transition, gamma, pi), np.asarray(rewards)
    probability, discount, pi = others
    tables, probability, pi, discount = exact.align((tables, 4), (probability, 3), (pi, 2), (discount, 0))
    levels = levelled(xp, tables, probability, discount, pi, canonicalisation)
    s = _standardised(xp, levels, tables, probability, n)
    result = pairwise(xp, s, m.power, levels.weight(xp, m, probability))
    exact.check_finite(result, rewards=rewards)
    return result


def _standardised(xp: Any, levels: Levels, tables: Any, probability: Any, norm: Norm | None) -> Any:
    """c(R) / n(c(R)), 0 for trivial rewards."""
    used = norm or Norm(2.0, False)
    size = norm_of(xp, levels.values, used.power, levels.weight(xp, used, probability))
    trivial = _trivial(xp, size, levels, tables, probability, used)
    return scaled(levels.values, size if norm else xp.ones_like(size), trivial, xp)


def _trivial(xp: Any, size: Any, levels: Levels, tables: Any, probability: Any, norm: Norm) -> Any:
    """Where n(c) is roundoff of cancellation: n(c) ≤ 1e-10 n(E|R|) (1e-5 in float32).

    The largest |R| bounds E|R| and is known already, so a second pass over the tables is for the few that may be
    trivial. Where the successor is kept the bound itself is the measure.
    """
    tolerance = exact.zero_tolerance(levels.values)
    ones = xp.ones((1,) * (probability.ndim + 1), dtype=probability.dtype)
    if levels.values.shape[-1] > 1:
        ones = xp.broadcast_to(ones, (*ones.shape[:-3], *levels.values.shape[-3:]))
        return size <= tolerance * levels.ceiling * norm_of(xp, ones, norm.power, 1.0)
    flat = levels._replace(pattern=None).weight(xp, norm, probability)
    every = xp.broadcast_to(ones, (*ones.shape[:-3], *levels.values.shape[-3:]))
    suspect = size <= tolerance * levels.ceiling * norm_of(xp, every, norm.power, flat)
    if xp is np and not suspect.any():
        return suspect
    scale = norm_of(xp, expected_size(xp, tables, probability)[..., None], norm.power, flat)
    return size <= tolerance * scale


# --- checks ---------------------------------------------------------------------------------------------------------


def _check_rank(name: str, reward: Any, transition: Any, rank: int) -> None:
    exact.check_transition(transition)
    exact.check_table(name, reward, np.shape(transition)[-3:])
    if np.ndim(reward) < rank:
        raise ValueError(f"{name} must have shape [..., M, S, A, S], got {np.shape(reward)}; stack the rewards first.")


def _check_pair(reward_a: Any, reward_b: Any, transition: Any) -> None:
    exact.check_transition(transition)
    for name, reward in (("reward_a", reward_a), ("reward_b", reward_b)):
        exact.check_table(name, reward, np.shape(transition)[-3:])


def _check_settings(
    transition: Any, gamma: Any, canonicalisation: str, norm: Any, metric: Any, policy: Any, initial: Any
) -> tuple[Norm | None, Norm]:
    check_canonicalisation(transition, gamma, canonicalisation, policy)
    if initial is not None:
        warn_of_unreachable(transition, initial)
    return None if norm is None else parse_norm("norm", norm), parse_norm("metric", metric)
