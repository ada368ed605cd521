"""SRRD: a distance like EPIC's for sparse data, where most transitions were never observed.

Source: "Reward Distance Comparisons Under Transition Sparsity" (SRRD), TMLR 2025, arXiv:2504.11508.
"""

from typing import Any

import numpy as np

from reward_design.distance._norms import norm_of, scaled
from reward_design.envs import exact


@exact.quiet
def srrd_distance(reward_a: exact.Numbers, reward_b: exact.Numbers, visits: exact.Numbers, *, gamma: Any) -> Any:
    """SRRD distance: √((1 - ρ)/2), ρ the Pearson correlation of C(A) and C(B) over the observed transitions.

    C(R)(s, a, s') = R(s, a, s') + E[γ R(s', A, S1) - R(s, A, S2) - γ R(S3, A, S4) + γ² R(S1, A, S5) - γ R(S2, A, S6) +
    γ R(S3, A, S6) - γ² R(S4, A, S5)], where S1 and S2 follow s' and s in the data, S5 and S6 follow S1 and S2, S3 is a
    state that was left and S4 one that was entered, A an action of the data.

    Shaping and positive scaling give 0 whatever was observed. Redistribution over successors does not. A state that was
    never left is followed by S4's distribution (any would keep the invariance).

    Args:
        reward_a: ``[S, A, S]``, finite; also read where nothing was observed.
        reward_b: ``[S, A, S]``.
        visits: ``[S, A, S]`` how often each transition was observed; mostly 0 for sparse data.
        gamma: discount per step, in [0, 1].

    Returns:
        Distance in [0, 1]; computed in float64.

    Raises:
        ValueError: shapes that differ, gamma outside [0, 1], counts that are negative or all zero, values not finite.

    Example:
        >>> import numpy as np
        >>> visits = np.zeros((2, 2, 2)); visits[0, 0, 0] = 1; visits[:, 1, 1] = 3
        >>> moving = np.zeros((2, 2, 2)); moving[:, 1] = 1.0
        >>> phi = np.array([3.0, -1.0])
        >>> srrd_distance(moving, 2 * moving + 0.5 * phi - phi[:, None, None], visits, gamma=0.5) < 1e-7
        True
        >>> round(srrd_distance(moving, -moving, visits, gamma=0.5), 9)
        1.0
    """
    shape = np.shape(reward_a)
    if len(shape) != 3 or shape[0] != shape[2]:
        raise ValueError(f"reward_a must have shape [S, A, S], got {shape}; the axes are state, action, next state.")
    exact.check_table("reward_b", reward_b, shape)
    exact.check_table("visits", visits, shape)
    exact.check_discount(gamma, one_allowed=True)
    _, a, b, counts = exact.floats(reward_a, reward_b, visits)
    if not (np.isfinite(counts).all() and (counts >= 0).all() and counts.sum() > 0):
        raise ValueError(
            "visits must count observed transitions, at least one, got the least entry "
            f"{counts.min():.3g} and the sum {counts.sum():.3g}; is the data set empty?"
        )
    exact.check_finite(a, reward_a=a)
    exact.check_finite(b, reward_b=b)
    weight = counts / counts.sum()
    s_a, s_b = (_standardised(canonical_srrd(r, weight, float(gamma)), r, weight) for r in (a, b))
    return exact.as_result(np.minimum(0.5 * norm_of(np, s_a - s_b, 2), 1.0))


def canonical_srrd(reward: np.ndarray, weight: np.ndarray, gamma: float) -> np.ndarray:
    """C(R), ``[S, A, S]``, for observed frequencies ``weight`` of sum 1."""
    actions, left, entered = weight.sum((0, 2)), weight.sum((1, 2)), weight.sum((0, 1))
    follow = weight.sum(1)
    follow = np.where(left[:, None] > 0, follow / np.where(left > 0, left, 1)[:, None], entered)
    mean = np.einsum("sat,a->st", reward, actions)
    once = (follow * mean).sum(1)  # E R(x, A, successor of x)
    twice, after = follow @ once, follow @ follow
    from_left = after @ (left @ mean)  # E R(S3, A, successor of the successor of x)
    from_entered = after @ (entered @ mean)
    start = -once - gamma * twice + gamma * from_left
    end = gamma * once + gamma**2 * twice - gamma**2 * from_entered
    return reward + start[:, None, None] + end - gamma * (left @ mean @ entered)


def _standardised(c: np.ndarray, reward: np.ndarray, weight: np.ndarray) -> np.ndarray:
    x = (c - (weight * c).sum()) * np.sqrt(weight)
    size = norm_of(np, x, 2)
    return scaled(x, size, size <= exact.zero_tolerance(x) * np.abs(reward).max(), np)
