"""What it costs to act on a reward: the exact regret of the policy that it induces."""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from reward_design.agents import dynamic_programming as dp
from reward_design.envs import exact


@exact.quiet
def policy_regret(
    reward_a: exact.Numbers,
    reward_b: exact.Numbers,
    transition: exact.Numbers,
    initial: exact.Numbers,
    *,
    gamma: Any,
    normalise: bool = True,
) -> float | Float[np.ndarray, "*batch"] | Float[Array, "*batch"]:
    """Regret under A of optimising B: (J_A(π_A) - J_A(π_B)) / (J_A(π_A) - min_π J_A(π)), π_R optimal for R.

    π_B takes all its optimal actions with equal probability; actions are optimal whose value is within 1e-9 of the
    largest |Q_B| (float64; 1e-5 in float32) of the best, so a B of zeros induces the uniform policy. All values are
    linear solves.

    Args:
        reward_a: ``[..., S, A, S]`` the reward that counts.
        reward_b: ``[..., S, A, S]`` the reward that is optimised.
        transition: ``[..., S, A, S]`` probabilities of the successor; leading axes broadcast.
        initial: ``[..., S]`` start distribution.
        gamma: discount per step, in [0, 1).
        normalise: divide by the range of J_A, so that the worst policy has regret 1. False gives units of A.

    Returns:
        Regret in [0, 1] (in [0, range of J_A] if not normalised), a float without leading axes; 0 where A is trivial.

    Raises:
        ValueError: shapes that do not fit, rows that are no distributions, gamma outside [0, 1), values not finite.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)  # actions stay and switch
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> moving = np.zeros((2, 2, 2)); moving[:, 1] = 1.0
        >>> round(policy_regret(position, moving, transition, [1.0, 0.0], gamma=0.5), 6)
        0.333333

    Source: the normalised regret of Skalse et al., "STARC", ICLR 2024, arXiv:2309.15257, section 5.
    """
    exact.check_table("reward_b", reward_b, np.shape(reward_a)[-3:])
    exact.check_table("initial", initial, np.shape(transition)[-1:], "[S]")
    exact.check_distribution("initial", initial)
    xp, a, b, probability, start, discount = exact.floats(reward_a, reward_b, transition, initial, gamma)
    exact.check_finite(a, reward_a=a)
    exact.check_finite(b, reward_b=b)
    induced = dp.policy_iteration(probability, b, gamma=discount).policy
    best = dp.policy_iteration(probability, a, gamma=discount).values
    worst = -dp.policy_iteration(probability, -a, gamma=discount).values
    values = dp.policy_evaluation(probability, a, induced, gamma=discount)

    best, worst, values, start = exact.align(*((xp.asarray(x), 1) for x in (best, worst, values, start)))
    regret = ((best - values) * start).sum(-1).clip(0)
    if normalise:
        spread = ((best - worst) * start).sum(-1)
        size = xp.maximum(xp.abs(best), xp.abs(worst)).max(-1)
        trivial = spread <= exact.zero_tolerance(best) * size
        regret = xp.where(trivial, 0, regret / xp.where(trivial, 1, spread))
    return exact.as_result(regret)
