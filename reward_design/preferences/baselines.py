"""What a designer does without preferences: weigh the factors, by hand or by powers of ten."""

from collections.abc import Mapping, Sequence
from typing import Any

from jaxtyping import Array

from reward_design._arguments import finite
from reward_design.combinators import weighted_sum
from reward_design.constructors import pointwise
from reward_design.core import Reward, Transition
from reward_design.preferences.factors import Factor, as_levels


def factor_sum(
    factors: Sequence[Factor], *, weights: Mapping[str, float | int] | None = None, base: float | int = 10.0
) -> Reward:
    """Weighted sum of signed factors: r = sum_l w_l sign_l z_l(s, a, s'), by default w_l = base^(L-1-l), best first.

    With weights far apart this comes close to a ranking, as long as no sum of lesser factors outweighs a greater one;
    with weights tuned by trial it is what reward engineering usually is. Margins and aggregators are not used.

    Keeps the optimal policy: no; the weights say what is meant.

    Args:
        factors: the most important one first.
        weights: by name of the factor; all of them. They are params, as those of :func:`reward_design.weighted_sum`.
        base: ratio between neighbours without ``weights``.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` with a term per factor.

    Raises:
        ValueError: without factors, for weights that do not name each of them, or a ``base`` that is not above 0.
        TypeError: for something that is no factor, as a level of equals is.

    Example:
        >>> from reward_design.envs import task
        >>> from reward_design.preferences import factor_sum, task_factors
        >>> factor_sum(task_factors(task("pendulum"), ["tilt", "speed", "effort"])).settings["weights"]
        {'tilt': 100.0, 'speed': 10.0, 'effort': 1.0}
    """
    if any(len(level) > 1 for level in as_levels(factors)) or not all(isinstance(f, Factor) for f in factors):
        raise TypeError(
            "factor_sum weighs factors one by one, got a level of equals; give its factors in a flat sequence."
        )
    if not finite("base", base) > 0:
        raise ValueError(f"base must be above 0, got {base}.")
    names = [factor.name for factor in factors]
    if weights is None:
        weights = {name: float(base) ** (len(names) - 1 - rank) for rank, name in enumerate(names)}
    if set(weights) != set(names):
        raise ValueError(f"factor_sum needs a weight for each of {names}, got weights for {sorted(weights)}.")
    return weighted_sum(weights=weights, **{factor.name: _factor_reward(factor) for factor in factors})


def _factor_reward(factor: Factor) -> Reward:
    """One signed factor as a reward."""

    def fn(transition: Transition) -> Array:
        return factor.sign * factor.fn(transition).astype(float)

    settings: dict[str, Any] = {"sign": factor.sign}
    return pointwise(factor.name, fn, settings=settings)
