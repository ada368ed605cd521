"""Shaping with another discount than the task's, told from the numbers alone: phi(s') - phi(s) written by hand.

Source: potential-based shaping keeps the optimal policy only with the discount of the task: Ng, Harada and Russell,
"Policy Invariance Under Reward Transformations", 1999. The fit is least squares.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from reward_design.distance.findings import Finding
from reward_design.envs import exact

_FITS = 1e-8
"""Share of a difference that may be left by a fit that counts as exact."""
_MISSES = 1e-6
"""Share that must be left by the fit with the task's discount."""
_LEAST = 0.5
"""Smallest discount that is called one: with 0 every bonus for leaving a state would be shaping."""


@dataclass(frozen=True, eq=False)
class OtherDiscount:
    """What was told from two rewards.

    Attributes:
        discount: g.
        scale: α, by which the design pays what the task pays; 1 if that fits as well as any other.
        potential: ``[S]`` φ, 0 on average for g = 1.
    """

    discount: float
    scale: float
    potential: Float[np.ndarray, " S"]


def other_discount(
    reward_a: exact.Numbers, reward_b: exact.Numbers, transition: exact.Numbers, terminal: Any, *, gamma: float
) -> OtherDiscount | None:
    """The discount g ≠ γ with which B is A plus shaping, on every transition that can happen; None if there is none.

    B(s, a, s') = α A(s, a, s') + g φ(s') - φ(s),   1/2 ≤ g ≤ 1

    A fit of v(s') - u(s) leaves a line v = g u + const if there is such a g, and g = 1 is tried in any case. The fit
    must be exact, and none with γ may be: a step cost is shaping with every discount. Transitions from terminal states
    do not count.

    Args:
        reward_a: ``[S, A, S]`` the task's reward.
        reward_b: ``[S, A, S]`` the designed reward.
        transition: ``[S, A, S]``.
        terminal: ``[S]`` bool.
        gamma: discount of the task.

    Returns:
        What was told, or None.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(3), np.roll(np.eye(3), 1, axis=1)], axis=1)  # actions stay and go round
        >>> task = np.zeros((3, 2, 3)); task[0, 1] = 1.0
        >>> phi = np.array([3.0, -1.0, 0.5])
        >>> forgotten = task + phi - phi[:, None, None]
        >>> other_discount(task, forgotten, transition, np.zeros(3, bool), gamma=0.9).discount
        1.0
        >>> other_discount(task, forgotten - 0.1 * phi, transition, np.zeros(3, bool), gamma=0.9) is None
        True
    """
    tau, ends = np.asarray(transition, float), np.asarray(terminal, bool)
    s, a, t = np.nonzero((tau > 0) & ~ends[:, None, None])
    paid, wanted = (np.asarray(r, float)[s, a, t] for r in (reward_b, reward_a))
    out, back = (np.eye(len(ends))[index] for index in (s, t))

    def fit(g: float) -> tuple[float, np.ndarray, int]:
        return _fitted(np.column_stack([wanted, g * back - out]), paid)

    if not len(s) or fit(gamma)[0] <= _MISSES:
        return None
    left, found, _ = _fitted(np.column_stack([wanted, back, -out]), paid)
    if left > _FITS:
        return None
    both = np.intersect1d(s, t)
    for g in (1.0, *_slope(*found[1:].reshape(2, -1)[:, both])):
        left, found, rank = fit(g)
        if left <= _FITS and len(s) - rank >= 2 and abs(g - gamma) > 1e-9:
            left_over, alone, _ = _fitted(g * back - out, paid - wanted)
            # A task that is itself nearly shaping has many α: the one that anybody would write is preferred.
            scale, phi = (1.0, alone) if left_over <= _FITS else (float(found[0]), found[1:])
            return OtherDiscount(g, scale, phi - phi.mean() if g == 1.0 else phi)
    return None


def finding(found: OtherDiscount | None, gamma: float) -> Finding:
    """It in words."""
    if found is None:
        return Finding("discount of shaping", False, "the difference is no shaping with another discount", {})
    share = "the task" if found.scale == 1.0 else f"{found.scale:.3g} times the task"
    text = (
        f"the design is {share} plus g phi(s') - phi(s) with g = {found.discount:.4g} on "
        f"every transition, and the task discounts with {gamma:g}: shaping with another discount, which can be farmed; "
        f"use potential_shaping(phi, gamma={gamma:g})"
    )
    return Finding("discount of shaping", True, text, {"discount": found.discount, "gamma": gamma})


def _fitted(columns: np.ndarray, values: np.ndarray) -> tuple[float, np.ndarray, int]:
    """Share of the values that least squares leave, the solution, and the rank of the columns."""
    solution, _, rank, _ = np.linalg.lstsq(columns, values, rcond=None)
    size = float(np.linalg.norm(values))
    return float(np.linalg.norm(columns @ solution - values)) / size if size else 0.0, solution, int(rank)


def _slope(v: np.ndarray, u: np.ndarray) -> tuple[float, ...]:
    """The g of v = g u + const over states that are left and entered; nothing if it is no discount."""
    if len(u) < 3 or np.ptp(u) <= 1e-9 * max(1.0, float(np.abs(u).max())):
        return ()
    g = float(np.polyfit(u, v, 1)[0])
    return (g,) if _LEAST <= g <= 1.0 else ()
