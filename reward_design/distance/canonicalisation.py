"""Representatives of rewards from which shaping, and where possible redistribution over successors, is taken out.

Sources: Skalse, Farnik, Motwani, Jenner, Gleave and Abate, "STARC: A General Framework For Quantifying Differences
Between Reward Functions", ICLR 2024, arXiv:2309.15257 (``val``, ``minimal``, ``val_potential``, ``minimal_potential``);
Gleave et al., ICLR 2021, arXiv:2006.13900 (``epic``); Wulfe et al., ICLR 2022, arXiv:2201.10081 (``dard``). The closed
forms of the minimal ones are linear algebra.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float

from reward_design.distance._norms import Norm
from reward_design.envs import exact

CANONICALISATIONS: dict[str, str] = {
    "val": "value-adjusted levelling E[R + γ V(S') - V(s)], the advantage under a fixed policy",
    "minimal": "of all equivalent rewards the one with the least 2-norm",
    "minimal_weighted": "of all equivalent rewards the one with the least 2-norm weighted by transition probability",
    "val_potential": "R + γ V(s') - V(s); not a STARC canonicalisation: redistribution changes it",
    "minimal_potential": "the least 2-norm over potentials; not a STARC canonicalisation: redistribution changes it",
    "epic": "EPIC's, with uniform states and actions; not a STARC canonicalisation: redistribution changes it",
    "dard": "DARD's, with uniform actions; not a STARC canonicalisation, and it can change the order of policies",
    "none": "the reward itself; not a STARC canonicalisation: not even shaping is taken out",
}
"""The canonicalisations by name. A distance is a STARC metric with the first three and no other."""

STARC = ("val", "minimal", "minimal_weighted")
"""Those with which a distance is 0 exactly for rewards that order all policies alike."""

_TAKES_POLICY = ("val", "val_potential")
_CHUNK = 2**18


@exact.quiet
def canonicalise(
    reward: exact.Numbers,
    transition: exact.Numbers,
    *,
    gamma: Any,
    canonicalisation: str = "val",
    policy: exact.Numbers | None = None,
) -> Float[np.ndarray, "*batch S A S"] | Float[Array, "*batch S A S"]:
    """The canonical reward c(R), the same for all rewards that the canonicalisation identifies with R.

    - ``val``: c(s, a, s') = E_{S'}[R(s, a, S') + γ V^π(S') - V^π(s)], constant in s': the advantage of a under π.
    - ``minimal``: e(s, a) τ(s'|s, a) / ‖τ(s, a)‖², e(s, a) = E[R(s, a, S') + γ Φ(S') - Φ(s)] with the Φ that minimises
      Σ_{s,a} e(s, a)² / ‖τ(s, a)‖².
    - ``minimal_weighted``: e(s, a), with the Φ that minimises Σ_{s,a} e(s, a)².
    - ``val_potential``: R(s, a, s') + γ V^π(s') - V^π(s).
    - ``minimal_potential``: R(s, a, s') + γ Φ(s') - Φ(s), with the Φ that minimises its sum of squares.
    - ``epic``, ``dard``: see :func:`reward_design.distance.epic_distance` and
      :func:`reward_design.distance.dard_distance`.

    All are linear. All but ``dard`` are idempotent and keep the order of all policies; only the first three also see
    through redistribution.

    Args:
        reward: ``[..., S, A, S]``.
        transition: ``[..., S, A, S]``.
        gamma: discount per step, in [0, 1).
        canonicalisation: a key of :data:`CANONICALISATIONS`.
        policy: ``[..., S, A]`` π of ``val`` and ``val_potential``, default uniform.

    Returns:
        ``[..., S, A, S]``.

    Raises:
        ValueError: as :func:`reward_design.distance.starc_distance`.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)  # actions stay and switch
        >>> position = np.zeros((2, 2, 2)); position[1] = 1.0
        >>> canonicalise(position, transition, gamma=0.5)[..., 0].tolist()
        [[-0.25, 0.25], [0.25, -0.25]]
    """
    exact.check_transition(transition)
    exact.check_table("reward", reward, np.shape(transition)[-3:])
    check_canonicalisation(transition, gamma, canonicalisation, policy)
    xp, table, probability, discount, pi = exact.floats(
        reward, transition, gamma, policy_or_uniform(policy, transition)
    )
    table, probability, pi, discount = exact.align((table, 3), (probability, 3), (pi, 2), (discount, 0))
    levels = levelled(xp, table[..., None, :, :, :], probability, discount, pi, canonicalisation)
    values = levels.values if levels.pattern is None else levels.values * levels.pattern
    shape = (*values.shape[:-4], *values.shape[-3:-1], probability.shape[-1])
    result = xp.broadcast_to(values[..., 0, :, :, :], shape)
    exact.check_finite(result, reward=reward)
    return result


class Levels(NamedTuple):
    """M canonical rewards, without the repetition that most of them contain.

    Attributes:
        values: ``[..., M, S, A, K]``. K = 1 stands for values(s, a) g(s, a, s') with g the ``pattern``, or 1.
        pattern: ``[..., 1, S, A, S]``, or None.
        ceiling: ``[..., M]`` largest |R|.
    """

    values: Any
    pattern: Any
    ceiling: Any

    def weight(self, xp: Any, norm: Norm, probability: Any) -> Any:
        """What each entry of ``values`` counts in the norm of the full tensor: a number or an array."""
        tau = probability[..., None, :, :, :]
        if self.values.shape[-1] > 1 or probability.shape[-1] == 1:
            return tau if norm.weighted else 1.0
        if self.pattern is None:
            if norm.power == np.inf:
                return tau.max(-1, keepdims=True) if norm.weighted else 1.0
            return 1.0 if norm.weighted else float(probability.shape[-1])
        g = self.pattern if norm.power == np.inf else self.pattern**norm.power
        g = g * tau if norm.weighted else g
        return g.max(-1, keepdims=True) if norm.power == np.inf else g.sum(-1, keepdims=True)


def levelled(xp: Any, rewards: Any, probability: Any, gamma: Any, policy: Any, name: str) -> Levels:
    """Canonical rewards of ``[..., M, S, A, S]``; the other arrays have the batch axes and no M."""
    if name in ("val", "minimal", "minimal_weighted"):
        expected, ceiling = expectations(xp, rewards, probability)
        if name == "val":
            return Levels(_advantages(xp, expected, probability, gamma, policy)[..., None], None, ceiling)
        square = (probability**2).sum(-1)
        pattern = None if name == "minimal_weighted" else (probability / square[..., None])[..., None, :, :, :]
        root = xp.ones_like(square) if name == "minimal_weighted" else 1 / xp.sqrt(square)
        return Levels(_projected(xp, expected, probability, gamma, root)[..., None], pattern, ceiling)
    tables = xp.asarray(rewards, dtype=probability.dtype)
    c = _DENSE[name](xp, tables, probability, gamma, policy)
    return Levels(c, None, xp.abs(tables).max((-3, -2, -1)))


# --- the expected reward, then advantages or a projection -------------------------------------------------------------


def expectations(xp: Any, rewards: Any, probability: Any) -> tuple[Any, Any]:
    """E[R] over the successor, ``[..., M, S, A]``, and the largest |R| of each reward, ``[..., M]``.

    NumPy goes through the tables in chunks that fit the cache, in float64.
    """
    if xp is not np:
        return (rewards * probability[..., None, :, :, :]).sum(-1), xp.abs(rewards).max((-3, -2, -1))
    shape = rewards.shape[-3:]
    tables, out = rewards.reshape(-1, *shape), np.empty((int(np.prod(rewards.shape[:-3])), *shape[:2]))
    ceiling, step = np.empty(len(tables)), max(1, _CHUNK // int(np.prod(shape)))
    batched = probability.size != np.prod(shape)
    for at in range(0, len(tables), step):
        chunk = np.asarray(tables[at : at + step], np.float64)
        if not batched:
            np.vecdot(chunk, probability.reshape(shape), out=out[at : at + step])
        ceiling[at : at + step] = np.maximum(chunk.max((1, 2, 3)), -chunk.min((1, 2, 3)))
    expected = out.reshape(rewards.shape[:-1])
    if batched:
        expected = np.vecdot(np.asarray(rewards, np.float64), probability[..., None, :, :, :])
    return expected, ceiling.reshape(rewards.shape[:-3])


def expected_size(xp: Any, rewards: Any, probability: Any) -> Any:
    """E|R| over the successor, ``[..., M, S, A]``."""
    return expectations(xp, xp.abs(rewards), probability)[0]


def _values(xp: Any, expected: Any, probability: Any, gamma: Any, policy: Any) -> Any:
    """V = (I - γ P_π)⁻¹ r_π, ``[..., M, S]``; one factorisation for all M."""
    num_states = policy.shape[-2]
    walk = (policy[..., None, :] @ probability)[..., 0, :]
    identity = xp.eye(num_states, dtype=walk.dtype).reshape((1,) * (walk.ndim - 2) + walk.shape[-2:])
    system = identity - gamma[..., None, None] * walk
    paid = (expected * policy[..., None, :, :]).sum(-1)
    if system.size == num_states**2:
        return exact.solve(xp, system, paid)
    system = xp.broadcast_to(system, (*np.broadcast_shapes(paid.shape[:-2], system.shape[:-2]), *system.shape[-2:]))
    paid = xp.broadcast_to(paid, (*system.shape[:-2], *paid.shape[-2:]))
    return xp.linalg.solve(system, paid.swapaxes(-1, -2)).swapaxes(-1, -2)


def _advantages(xp: Any, expected: Any, probability: Any, gamma: Any, policy: Any) -> Any:
    """Advantages r + γ P V - V, ``[..., M, S, A]``."""
    num_states, num_actions = policy.shape[-2:]
    values = _values(xp, expected, probability, gamma, policy)
    rows = probability.reshape(*probability.shape[:-3], num_states * num_actions, num_states)
    with jax.default_matmul_precision("highest"):
        following = values @ rows.swapaxes(-1, -2)
    following = following.reshape(*following.shape[:-1], num_states, num_actions)
    return expected + gamma[..., None, None, None] * following - values[..., None]


def flow_matrix(xp: Any, probability: Any, gamma: Any) -> Any:
    """D[(s, a), x] = 1[s = x] - γ τ(x|s, a), ``[..., S·A, S]``: a potential Φ lowers the expected reward by D Φ."""
    num_states, num_actions, _ = probability.shape[-3:]
    here = xp.repeat(xp.eye(num_states, dtype=probability.dtype), num_actions, axis=0)
    rows = probability.reshape(*probability.shape[:-3], num_states * num_actions, num_states)
    return here.reshape((1,) * (rows.ndim - 2) + here.shape) - gamma[..., None, None] * rows


def _projected(xp: Any, expected: Any, probability: Any, gamma: Any, root: Any) -> Any:
    """Residuals e = r - D Φ, Φ the weighted least-squares solution for the row weights ``root``, ``[..., M, S, A]``.

    By an orthonormal basis of the weighted columns of D; a second pass takes out what rounding left of the first.
    """
    rows = root.reshape(*root.shape[:-2], -1)
    basis = xp.linalg.qr(rows[..., None] * flow_matrix(xp, probability, gamma))[0]
    x = expected.reshape(*expected.shape[:-2], -1) * rows[..., None, :]
    with jax.default_matmul_precision("highest"):
        for _ in range(2):
            x = x - (x @ basis) @ basis.swapaxes(-1, -2)
    return (x / rows[..., None, :]).reshape(*x.shape[:-1], *expected.shape[-2:])


# --- canonicalisations that keep the successor ------------------------------------------------------------------------


def shaped_by(rewards: Any, potential: Any, gamma: Any) -> Any:
    """R + γ Φ(s') - Φ(s) for potentials ``[..., S]`` of the rewards ``[..., S, A, S]``."""
    return rewards + gamma[..., None, None, None] * potential[..., None, None, :] - potential[..., :, None, None]


def canonical_epic(xp: Any, rewards: Any, gamma: Any, states: Any = None, actions: Any = None) -> Any:
    """EPIC's C(R) for ``[..., S, A, S]``; ``gamma`` has the batch axes, the distributions default to uniform."""
    num_states, num_actions, _ = rewards.shape[-3:]
    states = xp.full(num_states, 1 / num_states, dtype=rewards.dtype) if states is None else states
    actions = xp.full(num_actions, 1 / num_actions, dtype=rewards.dtype) if actions is None else actions
    mean = xp.einsum("...sat,a,t->...s", rewards, actions, states)
    total = xp.einsum("...s,s->...", mean, states)
    return shaped_by(rewards, mean, gamma) - (gamma * total)[..., None, None, None]


def canonical_dard(xp: Any, rewards: Any, probability: Any, gamma: Any, actions: Any = None) -> Any:
    """DARD's C(R) for ``[..., S, A, S]``; see :func:`reward_design.distance.dard_distance`."""
    num_actions = rewards.shape[-2]
    actions = xp.full(num_actions, 1 / num_actions, dtype=rewards.dtype) if actions is None else actions
    with jax.default_matmul_precision("highest"):
        following = xp.einsum("...sa,a->...s", (rewards * probability).sum(-1), actions)
        by_action = probability.swapaxes(-3, -2)  # [..., A, S, S]
        between = by_action @ rewards.swapaxes(-3, -2) @ by_action.swapaxes(-1, -2)
    between = xp.einsum("...ast,a->...st", between, actions)
    return shaped_by(rewards, following, gamma) - gamma[..., None, None, None] * between[..., :, None, :]


def _val_potential(xp: Any, rewards: Any, probability: Any, gamma: Any, policy: Any) -> Any:
    values = _values(xp, expectations(xp, rewards, probability)[0], probability, gamma, policy)
    return shaped_by(rewards, values, gamma[..., None])


def least_squares_potential(rewards: Any, gamma: Any) -> Any:
    """Φ ``[..., S]`` that minimises the sum of squares of R + γ Φ(s') - Φ(s) over all entries.

    The normal equations are A[(1 + γ²) S I - 2 γ 11ᵀ] Φ = out - γ in, out and in being sums of R by state; ``gamma`` is
    a number or has the batch axes and one more.
    """
    num_states, num_actions, _ = rewards.shape[-3:]
    right = rewards.sum((-2, -1)) - gamma * rewards.sum((-3, -2))
    mean = right.mean(-1, keepdims=True)
    return ((right - mean) / (1 + gamma**2) + mean / (1 - gamma) ** 2) / (num_states * num_actions)


def _minimal_potential(xp: Any, rewards: Any, probability: Any, gamma: Any, policy: Any) -> Any:
    return shaped_by(rewards, least_squares_potential(rewards, gamma[..., None, None]), gamma[..., None])


_DENSE: dict[str, Callable[..., Any]] = {
    "val_potential": _val_potential,
    "minimal_potential": _minimal_potential,
    "epic": lambda xp, rewards, probability, gamma, policy: canonical_epic(xp, rewards, gamma[..., None]),
    "dard": lambda xp, rewards, probability, gamma, policy: canonical_dard(
        xp, rewards, probability[..., None, :, :, :], gamma[..., None]
    ),
    "none": lambda xp, rewards, probability, gamma, policy: rewards,
}


# --- checks ---------------------------------------------------------------------------------------------------------


def policy_or_uniform(policy: Any, transition: Any) -> Any:
    """``[S, A]`` the policy, uniform where it was left out."""
    num_states, num_actions = np.shape(transition)[-3:-1]
    return np.full((num_states, num_actions), 1 / num_actions) if policy is None else policy


def check_canonicalisation(transition: Any, gamma: Any, name: str, policy: Any) -> None:
    """Raise a ValueError for a discount of 1, an unknown name, or a policy that does not fit or is not used."""
    exact.check_discount(gamma)
    if name not in CANONICALISATIONS:
        raise ValueError(f"canonicalisation must be one of {', '.join(CANONICALISATIONS)}, got {name!r}.")
    if policy is None:
        return
    if name not in _TAKES_POLICY:
        raise ValueError(
            f"policy belongs to the canonicalisations {' and '.join(_TAKES_POLICY)}, got one for {name!r}; "
            "leave it out."
        )
    exact.check_table("policy", policy, np.shape(transition)[-3:-1], "[S, A]")
    exact.check_distribution("policy", policy)
