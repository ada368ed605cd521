"""DARD: EPIC's idea with the successors that the dynamics really give.

Source: Wulfe, Balakrishna, Ellis, Mercat, McAllister and Gaidon, "Dynamics-Aware Comparison of Learned Reward
Functions", ICLR 2022, arXiv:2201.10081.
"""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from reward_design.distance._norms import norm_of, scaled
from reward_design.distance.canonicalisation import canonical_dard
from reward_design.envs import exact


@exact.quiet
def dard_distance(
    reward_a: exact.Numbers,
    reward_b: exact.Numbers,
    transition: exact.Numbers,
    *,
    gamma: Any,
    action_distribution: exact.Numbers | None = None,
    coverage: exact.Numbers | None = None,
) -> float | Float[np.ndarray, "*batch"] | Float[Array, "*batch"]:
    """DARD distance: d(A, B) = √((1 - ρ)/2), ρ the Pearson correlation of C(A) and C(B) over ``coverage``.

    C(R)(s, a, s') = R(s, a, s') + E[γ R(s', A, S'') - R(s, A, S') - γ R(S', A, S'')] with A ~ ``action_distribution``,
    S' ~ τ(s, A), S'' ~ τ(s', A). It lies in [0, 1]; shaping and positive scaling give 0, opposite rewards 1. Its last
    term reads S' → S'', which may be impossible, so like EPIC it can be near 0 for rewards that order all policies in
    opposite ways; and C itself can change the order of policies. Use :func:`reward_design.distance.starc_distance` for
    guarantees.

    It is computed as half the norm of the difference of the standardised rewards, which does not cancel as 1 - ρ does.

    Args:
        reward_a: ``[..., S, A, S]``, finite.
        reward_b: ``[..., S, A, S]``; leading axes broadcast.
        transition: ``[..., S, A, S]`` probabilities of the successor.
        gamma: discount per step, in [0, 1].
        action_distribution: ``[A]``, default uniform.
        coverage: ``[S, A, S]`` weights of the transitions over which the rewards are correlated, of any sum; by default
            s and s' uniform, a as in ``action_distribution``. ``transition`` itself covers the possible ones only.

    Returns:
        Distance, a float without leading axes; computed in float64 on the host, or in the inputs' dtype when traced.

    Raises:
        ValueError: shapes that differ, rows of ``transition`` that are no distributions, gamma outside [0, 1], weights
            that are negative or all zero, or values that are not finite.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)  # actions stay and switch
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> shaped = position + 0.5 * np.array([3.0, -1.0]) - np.array([3.0, -1.0])[:, None, None]
        >>> dard_distance(position, shaped, transition, gamma=0.5) < 1e-12
        True
        >>> dard_distance(position, -position, transition, gamma=0.5)
        1.0
    """
    _check(reward_a, reward_b, transition, gamma, action_distribution, coverage)
    num_states, num_actions = np.shape(transition)[-3:-1]
    actions = np.full(num_actions, 1 / num_actions) if action_distribution is None else action_distribution
    cover = np.ones((num_states, num_actions, num_states)) if coverage is None else coverage
    xp, a, b, probability, discount, actions, cover = exact.floats(
        reward_a, reward_b, transition, gamma, actions, cover
    )
    a, b, probability, discount = exact.align((a, 3), (b, 3), (probability, 3), (discount, 0))
    weight = cover if coverage is not None else cover * actions[:, None]
    weight = (weight / weight.sum()).reshape((1,) * (a.ndim - 3) + weight.shape)
    s_a, s_b = (_standardised(xp, r, probability, discount, actions, weight) for r in (a, b))
    result = 0.5 * norm_of(xp, s_a - s_b, 2)
    exact.check_finite(result, reward_a=reward_a, reward_b=reward_b)
    return exact.as_result(result)


def _standardised(xp: Any, rewards: Any, probability: Any, gamma: Any, actions: Any, weight: Any) -> Any:
    c = canonical_dard(xp, rewards, probability, gamma, actions)
    x = (c - (weight * c).sum((-3, -2, -1), keepdims=True)) * xp.sqrt(weight)
    size = norm_of(xp, x, 2)
    return scaled(x, size, size <= exact.zero_tolerance(x) * xp.abs(rewards).max((-3, -2, -1)), xp)


def _check(reward_a: Any, reward_b: Any, transition: Any, gamma: Any, actions: Any, coverage: Any) -> None:
    exact.check_transition(transition)
    shape = np.shape(transition)[-3:]
    for name, reward in (("reward_a", reward_a), ("reward_b", reward_b)):
        exact.check_table(name, reward, shape)
    exact.check_discount(gamma, one_allowed=True)
    if actions is not None:
        exact.check_table("action_distribution", actions, shape[1:2], "[A]")
        exact.check_distribution("action_distribution", actions)
    if coverage is None or exact.is_traced(coverage):
        return
    exact.check_table("coverage", coverage, shape)
    weights = np.asarray(coverage, float)
    if not (np.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise ValueError(
            "coverage must hold weights that are finite, not negative and not all 0, got the least "
            f"{weights.min():.3g} and the sum {weights.sum():.3g}; leave it out for the default."
        )
