"""Exact solution of finite MDPs given as arrays: values, policies and returns, batched over MDPs and rewards.

All functions take arrays with leading batch axes that broadcast against each other, so one call serves many rewards on
one MDP, or many MDPs. Concrete arrays are computed in float64 on the host, traced ones in their dtype, see
:mod:`reward_design.envs.exact`. Terminal states must lead to themselves and pay 0, as in
:class:`reward_design.envs.base.Tabular`.

Source: Puterman, "Markov Decision Processes", 1994; Howard, "Dynamic Programming and Markov Processes", 1960.
"""

from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from reward_design.envs import exact

Values = Float[np.ndarray, "*batch S"] | Float[Array, "*batch S"]
ActionValues = Float[np.ndarray, "*batch S A"] | Float[Array, "*batch S A"]


class Solution(NamedTuple):
    """An optimal policy and its values.

    Attributes:
        values: ``[..., S]`` V*.
        action_values: ``[..., S, A]`` Q*.
        policy: ``[..., S, A]`` uniform over the optimal actions, see :func:`greedy_policy`.
        residual: ``[...]`` largest change that one more sweep makes to ``values``.
        num_iterations: sweeps (or policies) until all members of the batch had converged.
    """

    values: Values
    action_values: ActionValues
    policy: ActionValues
    residual: float | Float[np.ndarray, "*batch"] | Float[Array, "*batch"]
    num_iterations: int | Int[Array, ""]


@exact.quiet
def value_iteration(
    transition: exact.Numbers,
    reward: exact.Numbers,
    *,
    gamma: Any,
    tolerance: float = 1e-12,
    max_iterations: int = 100_000,
) -> Solution:
    """Optimal values by repeated Bellman backups: V ← max_a E_{S'}[R(s, a, S') + γ V(S')].

    Args:
        transition: ``[..., S, A, S]`` probabilities of the successor.
        reward: ``[..., S, A, S]``.
        gamma: discount per step, in [0, 1).
        tolerance: stop when no value changes by more than this share of the largest |V|; the error is then at most
            γ/(1 - γ) times that. Traced float32 calls stop at 1e-6 at the earliest.
        max_iterations: stop there in any case, and see ``residual``.

    Returns:
        A :class:`Solution`.

    Raises:
        ValueError: shapes that do not fit, rows that are no distributions, gamma outside [0, 1), values not finite.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)  # actions stay and switch
        >>> reward = np.zeros((2, 2, 2)); reward[1] = 1.0
        >>> value_iteration(transition, reward, gamma=0.5).values.round(6).tolist()
        [1.0, 2.0]
    """
    xp, rows, paid, discount = _problem(transition, reward, gamma)
    tolerance = max(tolerance, 1e-14 if paid.dtype == np.float64 else 1e-6)

    def body(state: Any) -> Any:
        values, _, count = state
        new = backup(xp, rows, paid, values, discount).max(-1)
        return new, xp.abs(new - values).max(-1), count + 1

    def unfinished(state: Any) -> Any:
        values, residual, count = state
        return (residual > tolerance * xp.abs(values).max(-1)).any() & (count < max_iterations)

    start = paid.max(-1)
    state = (start, xp.full_like(start[..., 0], xp.inf), 0)
    values, residual, count = exact.while_loop(xp, unfinished, body, state)
    return _solution(xp, rows, paid, values, discount, residual, count, reward)


@exact.quiet
def policy_iteration(
    transition: exact.Numbers, reward: exact.Numbers, *, gamma: Any, max_iterations: int = 1000
) -> Solution:
    """Optimal values by solving for the value of a policy and improving it, until nothing improves.

    Exact up to rounding, and a few linear solves where value iteration needs log(tolerance)/log(γ) sweeps.

    Args:
        transition: ``[..., S, A, S]``.
        reward: ``[..., S, A, S]``.
        gamma: discount per step, in [0, 1).
        max_iterations: a bound that is never met in practice.

    Returns:
        A :class:`Solution`; ``residual`` is about 1e-15 of the values.

    Raises:
        ValueError: as :func:`value_iteration`.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
        >>> reward = np.zeros((2, 2, 2)); reward[1] = 1.0
        >>> policy_iteration(transition, reward, gamma=0.5).policy.tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    xp, rows, paid, discount = _problem(transition, reward, gamma)
    actions = xp.arange(paid.shape[-1]).reshape((1,) * (paid.ndim - 1) + (-1,))

    def one_hot(choice: Any) -> Any:
        return (choice[..., None] == actions).astype(paid.dtype)

    def body(state: Any) -> Any:
        choice, _, _, count = state
        policy = one_hot(choice)
        q = backup(xp, rows, paid, solve(xp, rows, paid, policy, discount), discount)
        gain = q.max(-1) - (q * policy).sum(-1)
        better = gain > 1e-2 * exact.zero_tolerance(q) * xp.abs(q).max((-2, -1))[..., None]
        return xp.where(better, q.argmax(-1), choice), q, better.any(), count + 1

    state = (paid.argmax(-1), paid, paid.ndim > 0, 0)
    _, q, _, count = exact.while_loop(xp, lambda s: s[2] & (s[3] < max_iterations), body, state)
    values = q.max(-1)
    residual = xp.abs(backup(xp, rows, paid, values, discount).max(-1) - values).max(-1)
    return _solution(xp, rows, paid, values, discount, residual, count, reward)


@exact.quiet
def policy_evaluation(transition: exact.Numbers, reward: exact.Numbers, policy: exact.Numbers, *, gamma: Any) -> Values:
    """Value of a policy, by a linear solve: V = (I - γ P_π)⁻¹ r_π.

    Args:
        transition: ``[..., S, A, S]``.
        reward: ``[..., S, A, S]``.
        policy: ``[..., S, A]`` probabilities of the actions.
        gamma: discount per step, in [0, 1).

    Returns:
        ``[..., S]``.

    Raises:
        ValueError: as :func:`value_iteration`, or if ``policy`` does not fit or does not sum to 1.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
        >>> reward = np.zeros((2, 2, 2)); reward[1] = 1.0
        >>> policy_evaluation(transition, reward, np.full((2, 2), 0.5), gamma=0.5).tolist()
        [0.5, 1.5]
    """
    exact.check_table("policy", policy, np.shape(transition)[-3:-1], "[S, A]")
    exact.check_distribution("policy", policy)
    xp, rows, paid, discount, chosen = _problem(transition, reward, gamma, (policy, 2))
    values = solve(xp, rows, paid, chosen, discount)
    exact.check_finite(values, reward=reward)
    return values


@exact.quiet
def action_values(
    transition: exact.Numbers, reward: exact.Numbers, values: exact.Numbers, *, gamma: Any
) -> ActionValues:
    """One-step look-ahead: Q(s, a) = E_{S'}[R(s, a, S') + γ V(S')].

    Args:
        transition: ``[..., S, A, S]``.
        reward: ``[..., S, A, S]``.
        values: ``[..., S]``.
        gamma: discount per step, in [0, 1).

    Returns:
        ``[..., S, A]``.
    """
    exact.check_table("values", values, np.shape(transition)[-1:], "[S]")
    xp, rows, paid, discount, following = _problem(transition, reward, gamma, (values, 1))
    return backup(xp, rows, paid, following, discount)


def greedy_policy(q: exact.Numbers, *, tolerance: float | None = None) -> ActionValues:
    """Uniform over the actions with Q(s, a) ≥ max_a Q(s, a) - tolerance · max |Q|.

    Args:
        q: ``[..., S, A]`` action values.
        tolerance: what counts as a tie, relative to the largest |Q|; default 1e-9 in float64, 1e-5 in float32.

    Returns:
        ``[..., S, A]`` probabilities.

    Example:
        >>> greedy_policy([[1.0, 0.0, 1.0]]).tolist()
        [[0.5, 0.0, 0.5]]
    """
    xp, values = exact.floats(q)
    tolerance = (1e-9 if values.dtype == np.float64 else 1e-5) if tolerance is None else tolerance
    least = values.max(-1, keepdims=True) - tolerance * xp.abs(values).max((-2, -1))[..., None, None]
    best = (values >= least).astype(values.dtype)
    return best / best.sum(-1, keepdims=True)


def expected_return(
    transition: exact.Numbers, reward: exact.Numbers, policy: exact.Numbers, initial: exact.Numbers, *, gamma: Any
) -> float | Float[np.ndarray, "*batch"] | Float[Array, "*batch"]:
    """Expected discounted return of a policy: J = Σ_s μ(s) V^π(s).

    Args:
        transition: ``[..., S, A, S]``.
        reward: ``[..., S, A, S]``.
        policy: ``[..., S, A]``.
        initial: ``[..., S]`` start distribution.
        gamma: discount per step, in [0, 1).

    Returns:
        Return, a float without leading axes.

    Raises:
        ValueError: as :func:`policy_evaluation`.
    """
    exact.check_table("initial", initial, np.shape(transition)[-1:], "[S]")
    exact.check_distribution("initial", initial)
    _, values, start = exact.floats(policy_evaluation(transition, reward, policy, gamma=gamma), initial)
    values, start = exact.align((values, 1), (start, 1))
    return exact.as_result((values * start).sum(-1))


# --- kernels on aligned arrays: rows [..., S*A, S], paid [..., S, A], discount [...] ----------------------------------


def backup(xp: Any, rows: Any, paid: Any, values: Any, discount: Any) -> Any:
    """Q = r + γ P V, ``[..., S, A]``."""
    with jax.default_matmul_precision("highest"):
        following = (rows @ values[..., None])[..., 0]
    following = following.reshape(*following.shape[:-1], *paid.shape[-2:])
    return paid + discount[..., None, None] * following


def solve(xp: Any, rows: Any, paid: Any, policy: Any, discount: Any) -> Any:
    """V = (I - γ P_π)⁻¹ r_π, ``[..., S]``."""
    num_states, num_actions = paid.shape[-2:]
    probability = rows.reshape(*rows.shape[:-2], num_states, num_actions, num_states)
    with jax.default_matmul_precision("highest"):
        walk = (policy[..., None, :] @ probability)[..., 0, :]
    identity = xp.eye(num_states, dtype=paid.dtype).reshape((1,) * (walk.ndim - 2) + (num_states, num_states))
    return exact.solve(xp, identity - discount[..., None, None] * walk, (paid * policy).sum(-1))


def _problem(transition: Any, reward: Any, gamma: Any, *more: tuple[Any, int]) -> tuple[Any, ...]:
    """``(xp, rows, paid, discount, *more)``, checked, in floats and with aligned batch axes."""
    exact.check_transition(transition)
    exact.check_table("reward", reward, np.shape(transition)[-3:])
    exact.check_discount(gamma)
    xp, probability, table, discount, *rest = exact.floats(transition, reward, gamma, *(x for x, _ in more))
    ranks = [rank for _, rank in more]
    probability, table, discount, *rest = exact.align(
        (probability, 3), (table, 3), (discount, 0), *zip(rest, ranks, strict=True)
    )
    batch = np.broadcast_shapes(probability.shape[:-3], table.shape[:-3], discount.shape)
    paid = xp.broadcast_to((probability * table).sum(-1), (*batch, *table.shape[-3:-1]))
    rows = probability.reshape(*probability.shape[:-3], -1, probability.shape[-1])
    return xp, rows, paid, discount, *rest


def _solution(
    xp: Any, rows: Any, paid: Any, values: Any, discount: Any, residual: Any, count: Any, reward: Any
) -> Solution:
    exact.check_finite(values, reward=reward)
    q = backup(xp, rows, paid, values, discount)
    return Solution(values, q, greedy_policy(q), exact.as_result(residual), count)
