"""Who answers which of two segments is better: a ranking, or a synthetic teacher with a person's weaknesses."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from reward_design._arguments import number
from reward_design.core import Params
from reward_design.preferences import factors as parts
from reward_design.preferences.factors import Factor, Level
from reward_design.preferences.ranking import decide


class Answer(NamedTuple):
    """What a teacher says of ``M`` pairs.

    Attributes:
        preferred: ``[M]`` 1.0 for the first, 0.0 for the second, 0.5 for a tie.
        weight: ``[M]`` 0 for pairs that it does not want to answer.
        level: ``[M]`` which level decided, the number of levels for a tie.
    """

    preferred: Float[Array, "*pairs"]
    weight: Float[Array, "*pairs"]
    level: Int[Array, "*pairs"]


@dataclass(frozen=True, eq=False)
class Teacher:
    """A rule that answers, as pure functions.

    Attributes:
        name: in logs.
        factors: what it reads of every step.
        levels: names of what can decide a pair, the first one first.
        value: ``(params, steps [*n, T, F], mask [*n, T]) -> [*n, V]``, what segments are worth.
        calibrate: ``(values [N, V], known [N]) -> pytree``, units, from the calibration segments alone.
        answer: ``(params, calibration, key, a [*pairs, V], b [*pairs, V]) -> Answer``.
        rank: ``(params, calibration, values [*n, V]) -> ([*n, L], margins [L])``, what :func:`compare_ranked` compares.
        params: entries that the teacher reads of the reward's params, so that they can be swept.
    """

    name: str
    factors: tuple[Factor, ...]
    levels: tuple[str, ...]
    value: Callable[[Params, Any, Any], Array]
    calibrate: Callable[[Any, Any], Any]
    answer: Callable[[Params, Any, Any, Any, Any], Answer]
    rank: Callable[[Params, Any, Any], tuple[Array, Array]]
    params: Mapping[str, Any] = field(default_factory=dict)


def ranked_teacher(levels: Sequence[Level]) -> Teacher:
    """Answers by rank: the first level on which two segments differ by more than its margin decides.

    Margins in standard deviations are fixed once, on the calibration segments, so that the answer for a pair never
    depends on what else is compared. ``params["margins"]`` holds one number per level, in the units of the factors'
    ``unit``.

    Args:
        levels: the most important one first; a level is a :class:`Factor`, or several of equal importance, which are
            added in standard deviations.

    Returns:
        A :class:`Teacher` whose answers are deterministic.

    Raises:
        ValueError: for levels that do not fit together.

    Example:
        >>> from reward_design.envs import task
        >>> from reward_design.preferences import ranked_teacher, task_factors
        >>> ranked_teacher(task_factors(task("pendulum"), ["tilt", "speed"])).levels
        ('tilt', 'speed')
    """
    made = parts.as_levels(levels)
    flat = tuple(factor for level in made for factor in level)
    relative = jnp.array([level[0].unit == "std" for level in made])

    def value(params: Params, steps: Array, mask: Array) -> Float[Array, "*n factors"]:
        return parts.aggregate(flat, steps, mask)

    def calibrate(values: Float[Array, "n factors"], known: Bool[Array, " n"]) -> dict[str, Array]:
        spread = parts.spread(values, known)
        return {"spread": spread, "level_spread": parts.spread(parts.combine(made, values, spread), known)}

    def rank(params: Params, calibration: Any, values: Array) -> tuple[Array, Array]:
        unit = jnp.where(relative, calibration["level_spread"], 1.0)
        return parts.combine(made, values, calibration["spread"]), params["margins"] * unit

    def answer(params: Params, calibration: Any, key: Any, a: Array, b: Array) -> Answer:
        (a, margins), (b, _) = (rank(params, calibration, x) for x in (a, b))
        verdict = decide(a, b, margins=margins)
        return Answer(verdict.preferred, jnp.ones_like(verdict.preferred), verdict.level)

    margins = [level[0].margin for level in made]
    return Teacher(
        "ranked", flat, parts.level_names(made), value, calibrate, answer, rank, {"margins": jnp.array(margins)}
    )


PRESETS: dict[str, dict[str, Any]] = {
    "oracle": {},
    "mistake": {"mistake": 0.1},
    "noisy": {"rationality": 1.0},
    "skip": {"skip": 0.1},
    "myopic": {"myopia": 0.9},
    "equal": {"equal": 0.1},
}
"""Settings of the teachers of B-Pref by name."""


def synthetic_teacher(
    quantity: Callable[[Any], Any] | None = None,
    *,
    rationality: float | int | None = None,
    myopia: float | int = 1.0,
    mistake: float | int = 0.0,
    skip: float | int = 0.0,
    equal: float | int = 0.0,
) -> Teacher:
    """Answers by a known return, R = sum_t myopia^(T-1-t) r_t, with the weaknesses of a person.

    In this order: a pair both of whose plain returns are among the lowest ``skip`` of the calibration segments is not
    answered; one whose returns differ by at most ``equal`` standard deviations is a tie; otherwise the first is
    preferred with probability sigmoid(rationality (R_a - R_b) / std), or if R_a > R_b without ``rationality``; and with
    probability ``mistake`` the answer is turned round. Without any of these it is an oracle.

    Args:
        quantity: r, ``transition -> [*batch]``; the environment's reward if left out.
        rationality: inverse temperature per standard deviation of the return; None for certain answers.
        myopia: weight of earlier steps, in (0, 1]; 1 weighs all alike.
        mistake: in [0, 1].
        skip: in [0, 1).
        equal: at least 0.

    Returns:
        A :class:`Teacher` with one level, ``return``. All numbers are params, under their names.

    Raises:
        ValueError: for settings out of range.

    Example:
        >>> from reward_design.preferences import PRESETS, synthetic_teacher
        >>> synthetic_teacher(**PRESETS["noisy"]).levels
        ('return',)

    Source: K. Lee, L. Smith, A. Dragan, P. Abbeel, "B-Pref: Benchmarking Preference-Based Reinforcement Learning",
    2021, arXiv 2111.03026. There the units of ``skip`` and ``equal`` are a running mean return, which means nothing for
    negative ones, and ``rationality`` is per unit of return; ours are quantiles and deviations of fixed calibration
    segments.
    """
    _check_synthetic(rationality, myopia, mistake, skip, equal)
    factor = Factor("return", (lambda t: t.reward) if quantity is None else quantity, aggregate="sum")
    numbers = {"rationality": rationality or 0.0, "myopia": myopia, "mistake": mistake, "skip": skip, "equal": equal}

    def value(params: Params, steps: Array, mask: Array) -> Float[Array, "*n two"]:
        time = jnp.arange(mask.shape[-1])
        left = mask.sum(-1)[..., None] - 1 - time.reshape((1,) * (mask.ndim - 1) + (-1,))
        reward = jnp.where(mask, steps[..., 0], 0.0)
        # exp and not **: a general power takes ten times as long
        weighted = jnp.where(mask, reward * jnp.exp(jnp.log(params["myopia"]) * left), 0.0)
        return jnp.stack([weighted.sum(-1), reward.sum(-1)], axis=-1)

    def calibrate(values: Float[Array, "n two"], known: Bool[Array, " n"]) -> dict[str, Array]:
        plain = jnp.sort(jnp.where(known, values[:, 1], jnp.inf))
        return {"spread": parts.spread(values[:, :1], known)[0], "plain": plain, "count": known.sum()}

    def rank(params: Params, calibration: Any, values: Array) -> tuple[Array, Array]:
        return values[..., :1], (params["equal"] * calibration["spread"])[None]

    def answer(params: Params, calibration: Any, key: Any, a: Array, b: Array) -> Answer:
        (first, margin), (second, _) = (rank(params, calibration, x) for x in (a, b))
        verdict = decide(first, second, margins=margin)
        difference, spread = a[..., 0] - b[..., 0], calibration["spread"]
        choice_key, mistake_key = jax.random.split(key)
        preferred, tie = verdict.preferred, verdict.preferred == 0.5
        if rationality is not None:
            odds = params["rationality"] * difference / jnp.where(spread > 0, spread, 1.0)
            drawn = jax.random.uniform(choice_key, odds.shape) < jax.nn.sigmoid(odds)
            # without a margin for ties, equal returns are answered by a fair coin
            tie = tie & (params["equal"] > 0)
            sampled = jnp.where(tie, 0.5, drawn.astype(preferred.dtype))
            preferred = jnp.where(jnp.isnan(preferred), preferred, sampled)
        wrong = jax.random.uniform(mistake_key, preferred.shape) < params["mistake"]
        preferred = jnp.where(wrong, 1 - preferred, preferred)
        at = (params["skip"] * calibration["count"]).astype(int)
        lowest = jnp.where(at > 0, calibration["plain"][jnp.maximum(at - 1, 0)], -jnp.inf)
        asked = (a[..., 1] > lowest) | (b[..., 1] > lowest)
        return Answer(preferred, asked.astype(preferred.dtype), jnp.where(tie, 1, 0).astype(jnp.int32))

    return Teacher("synthetic", (factor,), ("return",), value, calibrate, answer, rank, numbers)


def _check_synthetic(rationality: Any, myopia: float, mistake: float, skip: float, equal: float) -> None:
    for name, given in (("myopia", myopia), ("mistake", mistake), ("skip", skip), ("equal", equal)):
        number(name, given)
    if rationality is not None and not number("rationality", rationality) > 0:
        raise ValueError(f"rationality must be above 0, or None for certain answers, got {rationality}.")
    if not 0 <= mistake <= 1:
        raise ValueError(f"mistake must be in [0, 1], got {mistake}.")
    if not 0 <= skip < 1:
        raise ValueError(f"skip must be in [0, 1), got {skip}; at 1 no pair at all would be answered.")
    if not 0 <= equal < float("inf"):
        raise ValueError(f"equal must be at least 0 and finite, got {equal}.")
    if not 0 < myopia <= 1:
        raise ValueError(f"myopia must be in (0, 1], got {myopia}.")
