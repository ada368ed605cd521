"""What the difference between a designed reward and the task is made of: scale, shaping, redistribution, and the rest.

Source: the decomposition follows the equivalence classes of Skalse et al., "STARC", ICLR 2024, arXiv:2309.15257, and of
Ng, Harada and Russell, "Policy Invariance Under Reward Transformations", 1999; it is weighted least squares.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from reward_design.distance.canonicalisation import flow_matrix, shaped_by
from reward_design.envs import exact

PARTS = ("scale", "potential", "redistribution", "residual")
"""The parts of a difference; all but the last are harmless."""


@dataclass(frozen=True, eq=False)
class Decomposition:
    """B - A as the sum of four parts.

    Attributes:
        scale: α ≥ 0, the factor by which B pays what A pays.
        potential: ``[S]`` Φ, recovered.
        parts: tables ``[S, A, S]`` by name: ``scale`` (α - 1) A; ``potential`` γ Φ(s') - Φ(s); ``redistribution`` with
            expectation 0 over the successor; ``residual`` e(s, a). They sum to B - A.
        sizes: root of Σ w τ x² of each part, w normalised to sum 1: in units of reward, possible transitions only.
        shares: squared sizes as shares of their sum, so they sum to 1 (all 0 if A and B are equal).
        cosine: of A and B after shaping and redistribution are taken out; 1 if they order all policies alike, -1 if in
            opposite ways, NaN if one of them is trivial.
        identified: False if A is trivial, so that no scale can be told; α is then 1.
    """

    scale: float
    potential: Float[np.ndarray, " S"]
    parts: Mapping[str, Float[np.ndarray, "S A S"]]
    sizes: Mapping[str, float]
    shares: Mapping[str, float]
    cosine: float
    identified: bool


@exact.quiet
def decompose_difference(
    reward_a: exact.Numbers,
    reward_b: exact.Numbers,
    transition: exact.Numbers,
    *,
    gamma: float,
    weight: exact.Numbers | None = None,
) -> Decomposition:
    """Split B - A into a change of scale, potential shaping, redistribution over successors, and a residual.

    B = α A + (γ Φ(s') - Φ(s)) + ρ(s, a, s') + e(s, a),   E_{S'} ρ(s, a, S') = 0,   α ≥ 0,

    with the α and Φ that minimise Σ_{s,a} w(s, a) e(s, a)². If e = 0 and α > 0, B orders all policies as A does,
    whatever the other parts; what is left in e is what may change the task. α = 0 means that A is not in B at all, or
    with the opposite sign: see ``cosine``.

    Args:
        reward_a: ``[S, A, S]`` the task's reward.
        reward_b: ``[S, A, S]`` the designed reward.
        transition: ``[S, A, S]``.
        gamma: discount per step, in [0, 1).
        weight: ``[S, A]`` positive weights of the least squares (how often a policy is there, say); default equal.

    Returns:
        A :class:`Decomposition`.

    Raises:
        ValueError: shapes that do not fit, rows that are no distributions, gamma outside [0, 1), weights that are not
            positive, values that are not finite.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)  # actions stay and switch
        >>> task = np.zeros((2, 2, 2)); task[1] = 1.0
        >>> phi = np.array([3.0, -1.0])
        >>> found = decompose_difference(task, 2 * task + 0.5 * phi - phi[:, None, None], transition, gamma=0.5)
        >>> round(found.scale, 6), found.potential.round(6).tolist(), round(found.sizes["residual"], 6)
        (2.0, [3.0, -1.0], 0.0)
    """
    a, b, tau, w = _checked(reward_a, reward_b, transition, gamma, weight)
    root, design = np.sqrt(w).ravel(), flow_matrix(np, tau, np.asarray(gamma))
    basis = np.linalg.qr(root[:, None] * design)[0]
    flat = [root * (tau * r).sum(-1).ravel() for r in (a, b)]
    sizes = [np.linalg.norm(root * (tau * np.abs(r)).sum(-1).ravel()) for r in (a, b)]
    free_a, free_b = (_without(x, basis, size) for x, size in zip(flat, sizes, strict=True))
    identified = bool(free_a.any())
    scale = max(0.0, float(free_a @ free_b / (free_a @ free_a))) if identified else 1.0
    potential = np.linalg.lstsq(-root[:, None] * design, flat[1] - scale * flat[0], rcond=None)[0]
    residual = ((free_b - scale * free_a) / root).reshape(w.shape)
    parts = _parts(a, b, scale, potential, residual, gamma)
    measured = {name: float(np.sqrt((w[..., None] * tau * x * x).sum())) for name, x in parts.items()}
    tiny = exact.zero_tolerance(a) * max(sizes)
    squares = {name: size**2 if size > tiny else 0.0 for name, size in measured.items()}
    total = sum(squares.values())
    shares = {name: square / total if total else 0.0 for name, square in squares.items()}
    lengths = np.linalg.norm(free_a) * np.linalg.norm(free_b)
    cosine = float(np.clip(free_a @ free_b / lengths, -1, 1)) if lengths else np.nan
    return Decomposition(scale, potential, parts, measured, shares, cosine, identified)


def _parts(
    a: np.ndarray, b: np.ndarray, scale: float, potential: np.ndarray, residual: np.ndarray, gamma: float
) -> dict[str, np.ndarray]:
    shaping = shaped_by(np.zeros_like(a), potential, np.asarray(gamma))
    rest = np.broadcast_to(residual[..., None], a.shape)
    return {
        "scale": (scale - 1) * a,
        "potential": shaping,
        "redistribution": b - scale * a - shaping - rest,
        "residual": rest,
    }


def _without(x: np.ndarray, basis: np.ndarray, size: Any) -> np.ndarray:
    """What is left of x without its components along ``basis``; 0 where only rounding is left."""
    for _ in range(2):
        x = x - basis @ (basis.T @ x)
    return x if np.linalg.norm(x) > exact.zero_tolerance(x) * size else np.zeros_like(x)


def _checked(reward_a: Any, reward_b: Any, transition: Any, gamma: Any, weight: Any) -> tuple[np.ndarray, ...]:
    exact.check_transition(transition)
    exact.check_discount(gamma)
    shape = np.shape(transition)[-3:]
    for name, value in {"transition": transition, "reward_a": reward_a, "reward_b": reward_b}.items():
        if np.shape(value) != shape:
            raise ValueError(f"{name} must have shape [S, A, S] = {shape} without batch axes, got {np.shape(value)}.")
    _, a, b, tau, w = exact.floats(reward_a, reward_b, transition, np.ones(shape[:2]) if weight is None else weight)
    exact.check_finite(a, reward_a=a)
    exact.check_finite(b, reward_b=b)
    exact.check_table("weight", w, shape[:2], "[S, A]")
    if not (np.isfinite(w).all() and (w > 0).all()):
        raise ValueError(f"weight must be positive and finite, got the least entry {w.min():.3g}; add a little to all.")
    return a, b, tau, w / w.sum()
