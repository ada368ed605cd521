"""STARC: distances between rewards that are 0 exactly if the rewards order all policies alike, on finite MDPs.

Source: Skalse, Farnik, Motwani, Jenner, Gleave and Abate, "STARC: A General Framework For Quantifying Differences
Between Reward Functions", ICLR 2024, arXiv:2309.15257.
"""

from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from reward_design.distance._norms import norm_of, pairwise, parse_norm, stacked, standardise
from reward_design.distance.epic import canonical_epic
from reward_design.envs import exact

CANONICALISATIONS = ("val", "epic", "none")
"""``val``: value-adjusted levelling, the one that makes a STARC metric. ``epic`` and ``none`` are controls: they do not
see through a redistribution over successors (and ``none`` not through shaping either)."""

_CHUNK = 2**18


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
) -> float | Float[np.ndarray, "*batch"] | Float[Array, "*batch"]:
    """STARC distance: d(A, B) = m(s(A), s(B)), s(R) = c(R) / n(c(R)), and s(R) = 0 if c(R) = 0.

    With ``val`` it is 0 exactly if the two rewards order all policies alike: they differ by a positive factor,
    potential shaping, and redistribution over successors that keeps each expected reward. With n = m it lies in [0, 2],
    is 2 for opposite rewards, and 1 between a trivial reward (all policies alike) and any other. With n ≠ m the norms
    are those of the full ``[S, A, S]`` tensor, and the distance of opposite rewards is 2 m(c)/n(c).

    A canonicalised reward counts as 0 when its norm is below 1e-10 (float64; 1e-5 in float32) of the norm of E|R|.

    Args:
        reward_a: ``[..., S, A, S]``, finite.
        reward_b: ``[..., S, A, S]``; leading axes broadcast.
        transition: ``[..., S, A, S]`` probabilities of the successor. Terminal states lead to themselves with reward 0.
        gamma: discount per step, in [0, 1).
        canonicalisation: ``"val"``, ``"epic"`` or ``"none"``, see :data:`CANONICALISATIONS`.
        norm: n, one of 1, 2, inf.
        metric: m, the norm of the difference, one of 1, 2, inf.
        policy: ``[..., S, A]`` policy of VAL, default uniform.

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
    n, m = _check_settings(transition, gamma, canonicalisation, norm, metric, policy)
    xp, a, b, probability, discount, pi = exact.floats(
        reward_a, reward_b, transition, gamma, _policy(policy, transition)
    )
    a, b, probability, pi, discount = exact.align((a, 3), (b, 3), (probability, 3), (pi, 2), (discount, 0))
    shape = np.broadcast_shapes(a.shape, b.shape)
    pair = xp.stack([xp.broadcast_to(a, shape), xp.broadcast_to(b, shape)], axis=-4)
    s, repeat = _standardised(xp, pair, probability, discount, pi, canonicalisation, n)
    result = norm_of(xp, s[..., 0, :, :, :] - s[..., 1, :, :, :], m, repeat)
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
        norm: n, one of 1, 2, inf.
        metric: m, one of 1, 2, inf.
        policy: ``[..., S, A]`` policy of VAL, default uniform.

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
    n, m = _check_settings(transition, gamma, canonicalisation, norm, metric, policy)
    if exact.is_traced(rewards, transition, gamma, policy):
        xp, tables, *others = exact.floats(rewards, transition, gamma, _policy(policy, transition))
    else:  # the tables are large: they are widened chunk by chunk
        (xp, *others), tables = exact.floats(transition, gamma, _policy(policy, transition)), np.asarray(rewards)
    probability, discount, pi = others
    tables, probability, pi, discount = exact.align((tables, 4), (probability, 3), (pi, 2), (discount, 0))
    s, repeat = _standardised(xp, tables, probability, discount, pi, canonicalisation, n)
    result = pairwise(xp, s, m, repeat)
    exact.check_finite(result, rewards=rewards)
    return result


@exact.quiet
def val_canonicalisation(
    reward: exact.Numbers, transition: exact.Numbers, *, gamma: Any, policy: exact.Numbers | None = None
) -> Float[np.ndarray, "*batch S A"] | Float[Array, "*batch S A"]:
    """Value-adjusted levelling: c(R)(s, a) = E_{S'}[R(s, a, S') + γ V^π(S') - V^π(s)], the same for every s'.

    This is the advantage of the actions under π, so Σ_a π(a|s) c(s, a) = 0 in every state.

    Args:
        reward: ``[..., S, A, S]``.
        transition: ``[..., S, A, S]``.
        gamma: discount per step, in [0, 1).
        policy: ``[..., S, A]``, default uniform.

    Returns:
        ``[..., S, A]``.

    Raises:
        ValueError: as :func:`starc_distance`.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> val_canonicalisation(position, transition, gamma=0.5).tolist()
        [[-0.25, 0.25], [0.25, -0.25]]
    """
    _check_rank("reward", reward, transition, 3)
    _check_settings(transition, gamma, "val", 2, 2, policy)
    xp, table, probability, discount, pi = exact.floats(reward, transition, gamma, _policy(policy, transition))
    table, probability, pi, discount = exact.align((table, 3), (probability, 3), (pi, 2), (discount, 0))
    expected, _ = _expectations(xp, table[..., None, :, :, :], probability)
    result = _levelled(xp, expected, probability, discount, pi)[..., 0, :, :]
    exact.check_finite(result, reward=reward)
    return result


# --- canonicalisation -----------------------------------------------------------------------------------------------


def _standardised(xp: Any, rewards: Any, probability: Any, gamma: Any, policy: Any, name: str, n: float) -> Any:
    """``(s, repeat)``, s being ``[..., M, S, A, K]`` where K = 1 stands for ``repeat`` = S equal entries."""
    if name == "val":
        expected, size = _expectations(xp, rewards, probability)
        c, scale, repeat = _levelled(xp, expected, probability, gamma, policy), size, rewards.shape[-1]
        c, scale = c[..., None], norm_of(xp, scale[..., None], n, repeat)
    else:
        tables = xp.asarray(rewards, dtype=probability.dtype)
        c = tables if name == "none" else canonical_epic(xp, tables, gamma[..., None])
        scale, repeat = norm_of(xp, tables, n, 1), 1
    return standardise(xp, c, scale, n, repeat), repeat


def _expectations(xp: Any, rewards: Any, probability: Any) -> tuple[Any, Any]:
    """E[R] and E|R| over the successor, ``[..., M, S, A]``. NumPy goes through the tables in chunks, in float64."""
    if xp is not np or probability.size != np.prod(probability.shape[-3:]):
        weight = probability[..., None, :, :, :]
        return (rewards * weight).sum(-1), (xp.abs(rewards) * weight).sum(-1)
    weight = probability.reshape(probability.shape[-3:])
    tables = rewards.reshape(-1, *weight.shape)
    expected, size = np.empty(tables.shape[:-1]), np.empty(tables.shape[:-1])
    step = max(1, _CHUNK // weight.size)
    for at in range(0, len(tables), step):
        chunk = np.asarray(tables[at : at + step], np.float64)
        expected[at : at + step] = np.einsum("msat,sat->msa", chunk, weight)
        size[at : at + step] = np.einsum("msat,sat->msa", np.abs(chunk), weight)
    return expected.reshape(rewards.shape[:-1]), size.reshape(rewards.shape[:-1])


def _levelled(xp: Any, expected: Any, probability: Any, gamma: Any, policy: Any) -> Any:
    """Advantages r + γ P V - V with V = (I - γ P_π)⁻¹ r_π, ``[..., M, S, A]``; one factorisation for all M."""
    num_states, num_actions = policy.shape[-2:]
    discount = gamma[..., None, None]
    walk = (policy[..., None, :] @ probability)[..., 0, :]
    system = xp.eye(num_states, dtype=walk.dtype).reshape((1,) * (walk.ndim - 2) + walk.shape[-2:]) - discount * walk
    paid = (expected * policy[..., None, :, :]).sum(-1)
    batch = paid.shape[:-2]
    if system.size == num_states**2:
        values = exact.solve(xp, system, paid)
    else:  # many MDPs, each with its M rewards as right-hand sides
        system = xp.broadcast_to(system, (*np.broadcast_shapes(batch, system.shape[:-2]), *system.shape[-2:]))
        paid = xp.broadcast_to(paid, (*system.shape[:-2], *paid.shape[-2:]))
        values = xp.linalg.solve(system, paid.swapaxes(-1, -2)).swapaxes(-1, -2)
    rows = probability.reshape(*probability.shape[:-3], num_states * num_actions, num_states)
    with jax.default_matmul_precision("highest"):
        following = values @ rows.swapaxes(-1, -2)
    following = following.reshape(*following.shape[:-1], num_states, num_actions)
    return expected + discount[..., None] * following - values[..., None]


# --- checks ---------------------------------------------------------------------------------------------------------


def _policy(policy: Any, transition: Any) -> Any:
    num_states, num_actions = np.shape(transition)[-3:-1]
    return np.full((num_states, num_actions), 1 / num_actions) if policy is None else policy


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
    transition: Any, gamma: Any, canonicalisation: str, norm: Any, metric: Any, policy: Any
) -> tuple[float, float]:
    exact.check_discount(gamma)
    if canonicalisation not in CANONICALISATIONS:
        raise ValueError(f"canonicalisation must be one of {', '.join(CANONICALISATIONS)}, got {canonicalisation!r}.")
    if policy is not None:
        exact.check_table("policy", policy, np.shape(transition)[-3:-1], "[S, A]")
        exact.check_distribution("policy", policy)
    return parse_norm("norm", norm), parse_norm("metric", metric)
