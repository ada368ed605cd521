"""The worst that a reward allows: exact worst-case regret with the two policies that show it, and a proven bound.

Sources: Skalse et al., "STARC", ICLR 2024, arXiv:2309.15257 (soundness and completeness); Karwowski et al., "Goodhart's
Law in Reinforcement Learning", ICLR 2024, arXiv:2310.09144 (occupancy polytope and projected angle); Puterman, "Markov
Decision Processes", 1994 (occupancies as a linear programme).
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from jaxtyping import Float
from scipy.optimize import linprog

from reward_design.agents import dynamic_programming as dp
from reward_design.distance.canonicalisation import canonicalise, flow_matrix, policy_or_uniform
from reward_design.distance.starc import starc_distance
from reward_design.envs import exact

_MANY = 500
"""Pairs of state and action from which the interior-point method is faster than the simplex method."""
_TOLERANCE = {"primal_feasibility_tolerance": 1e-10, "dual_feasibility_tolerance": 1e-10}


class WorstCase(NamedTuple):
    """The largest loss under A that ranking by B allows, and the pair of policies that suffers it.

    Attributes:
        regret: loss as a share of the range of J_A, in [0, 1].
        policies: ``(preferred, chosen)``, each ``[S, A]``: J_A(preferred) - J_A(chosen) is the loss, and B does not
            rank ``chosen`` below ``preferred``. Uniform in states that the policy does not visit.
        returns_a: J_A of the two.
        returns_b: J_B of the two.
        loss: J_A(preferred) - J_A(chosen), in units of A.
        spread: best minus worst J_A, in units of A.
    """

    regret: float
    policies: tuple[Float[np.ndarray, "S A"], Float[np.ndarray, "S A"]]
    returns_a: tuple[float, float]
    returns_b: tuple[float, float]
    loss: float
    spread: float


class RegretBound(NamedTuple):
    """An upper bound on the worst-case regret, from the distance alone.

    Attributes:
        bound: at least the worst-case regret of this pair (it may exceed 1, and then says nothing).
        constant: U with regret ≤ U · d for every pair of rewards on this MDP; infinite if a state is unreachable.
        distance: d, in the ∞-norms.
        least_visit: h_min = min_s E[γ^(first time in s)] under the policy of the canonicalisation.
    """

    bound: float
    constant: float
    distance: float
    least_visit: float


@exact.quiet
def worst_case_regret(
    reward_a: exact.Numbers,
    reward_b: exact.Numbers,
    transition: exact.Numbers,
    initial: exact.Numbers,
    *,
    gamma: float,
) -> WorstCase:
    """Largest loss under A of a policy that B does not rank below another, exactly, by a linear programme.

    max_{π, π'} (J_A(π) - J_A(π')) / (max J_A - min J_A)   subject to   J_B(π') ≥ J_B(π).

    The programme is over the two discounted occupancies x, y ≥ 0 with Σ_a x(s, a) - γ Σ_{s', a} τ(s|s', a) x(s', a) =
    μ(s): returns are linear in them. It is 0 exactly if B orders policies as A does, 1 for opposite rewards and where B
    is trivial and A is not. No optimisation of B loses more; :func:`policy_regret` is never above it.

    Args:
        reward_a: ``[S, A, S]`` the reward that counts.
        reward_b: ``[S, A, S]`` the reward by which policies are ranked.
        transition: ``[S, A, S]`` probabilities of the successor.
        initial: ``[S]`` start distribution.
        gamma: discount per step, in [0, 1).

    Returns:
        A :class:`WorstCase`; ``regret`` is 0 where A is trivial.

    Raises:
        ValueError: shapes that do not fit, rows that are no distributions, gamma outside [0, 1), values not finite.
        RuntimeError: if the solver fails.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)  # actions stay and switch
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> round(worst_case_regret(position, -position, transition, [1.0, 0.0], gamma=0.5).regret, 6)
        1.0
        >>> round(worst_case_regret(position, 3 * position + 1, transition, [1.0, 0.0], gamma=0.5).regret, 6)
        0.0
    """
    a, b, tau, start = _checked(reward_a, reward_b, transition, initial, gamma)
    levels = [_level(r, tau, gamma) for r in (a, b)]
    flow = scipy.sparse.csr_array(flow_matrix(np, tau, np.asarray(gamma)).T)
    x, y = _occupancies(levels, flow, start) if levels[0].any() else (np.ones(tau.shape[:2]),) * 2
    policies = _policy(x), _policy(y)

    def returns(reward: np.ndarray) -> tuple[float, float]:
        first, second = (float(dp.expected_return(tau, reward, pi, start, gamma=gamma)) for pi in policies)
        return first, second

    relative = returns(_wide(levels[0], tau))
    spread = _spread(levels[0], tau, start, gamma)
    regret = min(max(0.0, relative[0] - relative[1]) / spread, 1.0) if spread else 0.0
    size = np.abs(canonicalise(a, tau, gamma=gamma)[..., 0]).max()
    return WorstCase(regret, policies, returns(a), returns(b), regret * spread * size, spread * size)


def regret_bound(
    reward_a: exact.Numbers,
    reward_b: exact.Numbers,
    transition: exact.Numbers,
    initial: exact.Numbers,
    *,
    gamma: float,
    policy: exact.Numbers | None = None,
) -> RegretBound:
    """Upper bound on :func:`worst_case_regret` by the distance, without a linear programme.

    J_A(π) - J_A(π') = ⟨η - η', c(A)⟩ ≤ ‖c(A)‖_p ‖η - η'‖_q d_p for the occupancies η, η' of policies with J_B(π') ≥
    J_B(π), because ⟨η - η', s(B)⟩ ≤ 0; and ‖η - η'‖_q ≤ 2/(1 - γ), √2/(1 - γ), 1/(1 - γ) for p = ∞, 2, 1. ``bound`` is
    the least of the three over the range of J_A, which is at least h_min ‖c(A)‖_∞: ``constant`` = 2/((1 - γ) h_min).

    Args:
        reward_a: ``[S, A, S]`` the reward that counts.
        reward_b: ``[S, A, S]`` the reward by which policies are ranked.
        transition: ``[S, A, S]``.
        initial: ``[S]`` start distribution.
        gamma: discount per step, in [0, 1).
        policy: ``[S, A]`` policy of VAL, default uniform.

    Returns:
        A :class:`RegretBound`.

    Raises:
        ValueError: as :func:`worst_case_regret`.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> found = regret_bound(position, -position, transition, [0.5, 0.5], gamma=0.5)
        >>> found.bound >= worst_case_regret(position, -position, transition, [0.5, 0.5], gamma=0.5).regret
        True
    """
    a, b, tau, start = _checked(reward_a, reward_b, transition, initial, gamma)
    pi = np.asarray(policy_or_uniform(policy, tau), float)
    c = np.asarray(canonicalise(a, tau, gamma=gamma, policy=pi)[..., 0])
    spread = _spread(c, tau, start, gamma)
    spans = {np.inf: 2.0, 2: np.sqrt(2.0), 1: 1.0}
    distances = {p: starc_distance(a, b, tau, gamma=gamma, norm=p, metric=p, policy=pi) for p in spans}
    terms = [np.linalg.norm(c.ravel(), p) * spans[p] / (1 - gamma) * float(distances[p]) for p in spans]
    bound = min(terms) / spread if spread > 1e-12 * np.abs(c).max() else 0.0
    visit = _least_visit(tau, start, pi, gamma)
    constant = 2 / ((1 - gamma) * visit) if visit else np.inf
    return RegretBound(float(bound), float(constant), float(distances[np.inf]), float(visit))


def projected_angle(
    reward_a: exact.Numbers, reward_b: exact.Numbers, transition: exact.Numbers, *, gamma: float
) -> float:
    """Angle between two rewards on the occupancy polytope, in [0, π] radians.

    The rewards r(s, a) are projected on the directions in which occupancies can differ, the null space of the flow
    constraints. 0 for rewards that order all policies alike, π for opposite ones, and π/3 to a trivial one by
    convention (distance 1). It equals 2 arcsin(d/2) with d the distance of ``"minimal_weighted"`` in ``"weighted_2"``.

    Args:
        reward_a: ``[S, A, S]``.
        reward_b: ``[S, A, S]``.
        transition: ``[S, A, S]``.
        gamma: discount per step, in [0, 1).

    Returns:
        The angle.

    Raises:
        ValueError: as :func:`reward_design.distance.starc_distance`.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> round(projected_angle(position, -position, transition, gamma=0.5), 6)
        3.141593
    """
    distance = starc_distance(
        reward_a, reward_b, transition, gamma=gamma, canonicalisation="minimal_weighted", norm="weighted_2",
        metric="weighted_2",
    )  # fmt: skip
    return float(2 * np.arcsin(min(float(distance) / 2, 1.0)))


# --- parts ----------------------------------------------------------------------------------------------------------


def _checked(reward_a: Any, reward_b: Any, transition: Any, initial: Any, gamma: Any) -> tuple[np.ndarray, ...]:
    if exact.is_traced(reward_a, reward_b, transition, initial, gamma):
        raise TypeError("worst-case regret is computed on the host, got traced arrays; call it outside jit and vmap.")
    exact.check_transition(transition)
    exact.check_discount(gamma)
    for name, value in {"transition": transition, "reward_a": reward_a, "reward_b": reward_b}.items():
        if np.shape(value) != np.shape(transition)[-3:]:
            raise ValueError(
                f"{name} must have shape [S, A, S] = {np.shape(transition)[-3:]} without batch axes, got "
                f"{np.shape(value)}; call once per pair."
            )
    exact.check_table("initial", initial, np.shape(transition)[-1:], "[S]")
    exact.check_distribution("initial", initial)
    _, a, b, tau, start = exact.floats(reward_a, reward_b, transition, initial)
    exact.check_finite(a, reward_a=a)
    exact.check_finite(b, reward_b=b)
    return a, b, tau, start


def _level(reward: np.ndarray, tau: np.ndarray, gamma: float) -> np.ndarray:
    """``[S, A]`` advantages with largest entry 1, which order policies as the reward does; 0 if it is trivial."""
    c = canonicalise(reward, tau, gamma=gamma)[..., 0]
    size = np.abs(c).max()
    return np.zeros_like(c) if size <= exact.zero_tolerance(c) * (tau * np.abs(reward)).sum(-1).max() else c / size


def _wide(table: np.ndarray, tau: np.ndarray) -> np.ndarray:
    return np.broadcast_to(table[..., None], tau.shape)


def _occupancies(levels: list[np.ndarray], flow: Any, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    a, b = (level.ravel() for level in levels)
    found = linprog(
        np.concatenate([-a, a]), A_ub=scipy.sparse.csr_array(np.concatenate([b, -b])[None]), b_ub=[0.0],
        A_eq=scipy.sparse.block_array([[flow, None], [None, flow]]), b_eq=np.concatenate([start, start]),
        method="highs-ds" if a.size < _MANY else "highs-ipm", options=_TOLERANCE,
    )  # fmt: skip
    if found.x is None:
        raise RuntimeError(f"the linear programme of the worst case was not solved: {found.message}")
    x, y = np.maximum(found.x, 0).reshape(2, *levels[0].shape)
    return x, y


def _policy(occupancy: np.ndarray) -> np.ndarray:
    total = occupancy.sum(-1, keepdims=True)
    visited = total > 1e-9
    return np.where(visited, occupancy / np.where(visited, total, 1), 1 / occupancy.shape[-1])


def _spread(level: np.ndarray, tau: np.ndarray, start: np.ndarray, gamma: float) -> float:
    """Range of the return of a table ``[S, A]`` over all policies."""
    best, worst = (dp.policy_iteration(tau, _wide(sign * level, tau), gamma=gamma).values @ start for sign in (1, -1))
    return float(best + worst)


def _least_visit(tau: np.ndarray, start: np.ndarray, policy: np.ndarray, gamma: float) -> float:
    walk = np.einsum("sa,sat->st", policy, tau)
    visits = np.linalg.inv(np.eye(len(start)) - gamma * walk)
    least = float((start @ visits / np.diag(visits)).min())
    return least if least > 1e-14 else 0.0
