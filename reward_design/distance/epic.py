"""EPIC: Pearson distance of rewards from which potential shaping has been taken out; needs no dynamics.

Source: Gleave, Dennis, Legg, Russell and Leike, "Quantifying Differences in Reward Functions", ICLR 2021,
arXiv:2006.13900.
"""

from typing import Any

import numpy as np
from jaxtyping import Array, Float

from reward_design.distance._norms import norm_of, pairwise, scaled, stacked
from reward_design.distance.canonicalisation import canonical_epic
from reward_design.envs import exact


@exact.quiet
def epic_distance(
    reward_a: exact.Numbers,
    reward_b: exact.Numbers,
    *,
    gamma: Any,
    state_distribution: exact.Numbers | None = None,
    action_distribution: exact.Numbers | None = None,
) -> float | Float[np.ndarray, "*batch"] | Float[Array, "*batch"]:
    """EPIC distance: d(A, B) = √((1 - ρ)/2), ρ the Pearson correlation of C(A) and C(B) over (S, A, S').

    C(R)(s, a, s') = R(s, a, s') + E[γ R(s', A, S') - R(s, A, S') - γ R(S, A, S')], S and S' ~ ``state_distribution``
    independently, A ~ ``action_distribution``, which is also the coverage distribution. It lies in [0, 1]; shaping and
    positive scaling give 0, opposite rewards 1. It reads transitions that may be impossible, so it can be near 0 for
    rewards that order all policies in opposite ways, and large for rewards that order them alike; use
    :func:`reward_design.distance.starc_distance` where the dynamics are known.

    It is computed as half the norm of the difference of the standardised rewards, which is the same number without the
    cancellation in 1 - ρ. A trivial reward (shaping only) is at 1/2 from any other and at 0 from another trivial one.

    Args:
        reward_a: ``[..., S, A, S]``, finite.
        reward_b: ``[..., S, A, S]``; leading axes broadcast.
        gamma: discount per step, in [0, 1].
        state_distribution: ``[S]``, default uniform.
        action_distribution: ``[A]``, default uniform.

    Returns:
        Distance, a float without leading axes; computed in float64 on the host, or in the inputs' dtype when traced.

    Raises:
        ValueError: shapes that differ, gamma outside [0, 1], distributions that do not sum to 1, or values that are not
            finite.

    Example:
        >>> import numpy as np
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> moving = np.zeros((2, 2, 2)); moving[:, 1] = 1.0
        >>> round(epic_distance(position, moving, gamma=0.5), 6)
        0.707107
    """
    _check_reward("reward_a", reward_a)
    exact.check_table("reward_b", reward_b, np.shape(reward_a)[-3:])
    states, actions = _check_settings(reward_a, gamma, state_distribution, action_distribution)
    xp, a, b, discount, states, actions = exact.floats(reward_a, reward_b, gamma, states, actions)
    a, b, discount = exact.align((a, 3), (b, 3), (discount, 0))
    s_a, s_b = (_standardised(xp, r, discount, states, actions) for r in (a, b))
    result = 0.5 * norm_of(xp, s_a - s_b, 2)
    exact.check_finite(result, reward_a=reward_a, reward_b=reward_b)
    return exact.as_result(result)


@exact.quiet
def epic_distance_matrix(
    rewards: exact.Numbers,
    *,
    gamma: Any,
    state_distribution: exact.Numbers | None = None,
    action_distribution: exact.Numbers | None = None,
) -> Float[np.ndarray, "*batch M M"] | Float[Array, "*batch M M"]:
    """EPIC distances between all pairs of M rewards; see :func:`epic_distance` for the definition and the errors.

    Args:
        rewards: ``[..., M, S, A, S]``, or a sequence of M tables ``[S, A, S]``.
        gamma: discount per step, in [0, 1].
        state_distribution: ``[S]``, default uniform.
        action_distribution: ``[A]``, default uniform.

    Returns:
        ``[..., M, M]``, symmetric with zeros on the diagonal.
    """
    rewards = stacked(rewards)
    _check_reward("rewards", rewards, rank=4)
    states, actions = _check_settings(rewards, gamma, state_distribution, action_distribution)
    xp, tables, discount, states, actions = exact.floats(rewards, gamma, states, actions)
    tables, discount = exact.align((tables, 4), (discount, 0))
    result = 0.5 * pairwise(xp, _standardised(xp, tables, discount[..., None], states, actions), 2)
    exact.check_finite(result, rewards=rewards)
    return result


def _standardised(xp: Any, rewards: Any, gamma: Any, states: Any, actions: Any) -> Any:
    """C(R) √D / ‖C(R) √D‖: its plain 2-norm is the norm under the coverage distribution D."""
    root = xp.sqrt(states[:, None, None] * actions[None, :, None] * states[None, None, :])
    root = root.reshape((1,) * (rewards.ndim - 3) + root.shape)
    x = canonical_epic(xp, rewards, gamma, states, actions) * root
    size = norm_of(xp, x, 2)
    return scaled(x, size, size <= exact.zero_tolerance(x) * norm_of(xp, rewards * root, 2), xp)


def _check_reward(name: str, reward: Any, rank: int = 3) -> None:
    shape = np.shape(reward)
    if len(shape) < rank or shape[-3] != shape[-1]:
        axes = "[..., M, S, A, S]" if rank == 4 else "[..., S, A, S]"
        raise ValueError(f"{name} must have shape {axes}, got {shape}; the axes are state, action, next state.")


def _check_settings(reward: Any, gamma: Any, states: Any, actions: Any) -> tuple[Any, Any]:
    """The two distributions, uniform where they were left out."""
    exact.check_discount(gamma, one_allowed=True)
    distributions = []
    for name, given, size in (
        ("state_distribution", states, np.shape(reward)[-3]), ("action_distribution", actions, np.shape(reward)[-2]),
    ):  # fmt: skip
        if given is not None:
            exact.check_table(name, given, (size,), f"[{name[0].upper()}]")
            exact.check_distribution(name, given)
        distributions.append(np.full(size, 1 / size) if given is None else given)
    return distributions[0], distributions[1]
