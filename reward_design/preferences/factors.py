"""Factors that a designer can rank, and what a segment of experience is worth by each of them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from reward_design._arguments import number
from reward_design._names import suggestion
from reward_design.agents.settings import one_of
from reward_design.core import Transition

AGGREGATES = ("mean", "sum", "last", "max")
UNITS = ("std", "absolute")
PUBLISHED = {"progress": "forward_velocity", "alive": "healthy", "energy": "effort"}
"""Names of HERON's rankings of robots, and of the factors of our tasks that they mean."""


@dataclass(frozen=True, eq=False)
class Factor:
    """A quantity of a transition that takes part in a ranking.

    Attributes:
        name: for logs and errors.
        fn: ``transition -> [*batch]``, for any leading axes.
        sign: +1 if more is better, -1 if less is better.
        aggregate: how the steps of a segment become one number: ``mean``, ``sum``, ``last`` or ``max`` (of the signed
            quantity). Sums favour long segments where the factor is positive; where length matters, rank it.
        margin: differences up to this decide nothing.
        unit: of the margin: ``"std"``, standard deviations of the factor over the calibration segments, or
            ``"absolute"``.

    Raises:
        ValueError: for settings out of range.
        TypeError: if ``fn`` is no function, ``name`` no text, or ``margin`` no number.

    Example:
        >>> from reward_design.preferences import Factor
        >>> Factor("energy", lambda t: (t.action**2).sum(-1), sign=-1, margin=0.5).unit
        'std'
    """

    name: str
    fn: Any
    sign: int = 1
    aggregate: str = "mean"
    margin: float | int = 0.0
    unit: str = "std"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name of a factor must be a text, got {self.name!r}.")
        if not self.name:
            raise ValueError("name of a factor must not be empty; it is shown in metrics and errors.")
        if not callable(self.fn):
            raise TypeError(f"fn of factor {self.name!r} must be a function of a transition, got {self.fn!r}.")
        if self.sign not in (1, -1):
            raise ValueError(f"sign of factor {self.name!r} must be 1 or -1, got {self.sign}.")
        margin = number(f"margin of factor {self.name!r}", self.margin)
        if not margin >= 0:
            raise ValueError(f"margin of factor {self.name!r} must be at least 0, got {self.margin}.")
        if margin == float("inf"):
            raise ValueError(f"margin of factor {self.name!r} is infinite, so it would never decide; leave it out.")
        one_of(self, "aggregate", AGGREGATES)
        one_of(self, "unit", UNITS)


Level = Any
"""A :class:`Factor`, or a sequence of factors of equal importance."""


def task_factors(task: Any, names: Sequence[str] | None = None, *, margins: Any = 0.1) -> tuple[Factor, ...]:
    """The factors of a task as a ranking.

    Args:
        task: a :class:`reward_design.envs.Task`.
        names: the most important first; by default all, in the task's order. Where the task has no factor of that name,
            ``progress``, ``alive`` and ``energy``, as HERON's rankings of robots say, stand for its
            ``forward_velocity``, ``healthy`` and ``effort``; the factors and their metrics keep the names of the task.
        margins: in standard deviations, one for all or one each.

    Returns:
        Factors, which keep the task's signs.

    Raises:
        ValueError: for a name that the task does not have, one twice, none at all, or another number of margins than
            names.
        TypeError: for something that is no task, a text in place of a sequence of names, or a margin that is no number.

    Example:
        >>> from reward_design.envs import task
        >>> [f.sign for f in task_factors(task("pendulum"), ["tilt", "effort"], margins=[0.1, 0.5])]
        [-1, -1]
    """
    if not hasattr(task, "factors"):
        hint = repr(task) if isinstance(task, str) else "name"
        raise TypeError(f"task_factors expects a task, got {type(task).__name__}; envs.task({hint}) makes one.")
    known: Mapping[str, Any] = task.factors
    if isinstance(names, str):
        raise TypeError(f"names must be a sequence of names, got the text {names!r}; write [{names!r}].")
    asked = tuple(known) if names is None else tuple(names)
    if not asked:
        raise ValueError(f"a ranking needs at least one factor; task {task.name!r} has {', '.join(known) or 'none'}.")
    names = tuple(_known_name(task, name) for name in asked)
    if len(set(names)) < len(names):
        raise ValueError(f"a ranking names a factor once, got {list(asked)}.")
    if isinstance(margins, str) or not isinstance(margins, Iterable) or not getattr(margins, "shape", (1,)):
        given: tuple[Any, ...] = (margins,) * len(names)
    else:
        given = tuple(margins)
    if len(given) != len(names):
        raise ValueError(f"expected one margin for each of the {len(names)} factors {names}, got {len(given)}.")
    return tuple(
        Factor(name, known[name].fn, known[name].sign, margin=number(f"margin of factor {name!r}", margin))
        for name, margin in zip(names, given)
    )


def _known_name(task: Any, name: str) -> str:
    """The name of a factor that the task has."""
    found: str = name if name in task.factors else PUBLISHED.get(name, name)
    if found not in task.factors:
        raise ValueError(
            f"task {task.name!r} has no factor {name!r}{suggestion(name, task.factors)} It has "
            f"{', '.join(task.factors) or 'none'}."
        )
    return found


def as_levels(levels: Sequence[Level] | Factor) -> tuple[tuple[Factor, ...], ...]:
    """Levels as tuples of factors.

    Raises:
        ValueError: without any level, for an empty one, for two factors of one name, or factors of one level whose
            margins differ in size or unit.
        TypeError: for something that is no :class:`Factor`, or for a factor in place of a sequence.
    """
    if isinstance(levels, Factor):
        raise TypeError(f"a ranking is a sequence of levels, got one factor; write [{levels.name}] for a level alone.")
    if isinstance(levels, str) or not isinstance(levels, Iterable):
        got = repr(levels) if isinstance(levels, str) else type(levels).__name__
        raise TypeError(f"a ranking is a sequence of preferences.Factor, as task_factors(task) gives, got {got}.")
    made: tuple[tuple[Any, ...], ...] = tuple(
        tuple(level) if isinstance(level, Iterable) else (level,) for level in levels
    )
    flat = [factor for level in made for factor in level]
    if not made or not all(made):
        raise ValueError("a ranking needs at least one level and a factor in each, got none.")
    for factor in flat:
        if not isinstance(factor, Factor):
            raise TypeError(
                f"a ranking expects preferences.Factor objects, got {type(factor).__name__}; task_factors(task) makes "
                "them of what a task knows."
            )
    names = [factor.name for factor in flat]
    if len(set(names)) < len(names):
        raise ValueError(f"factors need names of their own, got {names}.")
    for level in made:
        if (len(level) > 1 and {f.unit for f in level} != {"std"}) or len({f.margin for f in level}) > 1:
            raise ValueError(
                f"factors of one level are added in standard deviations and share one margin in that unit, got "
                f"{[(f.name, f.margin, f.unit) for f in level]}."
            )
    return made


def level_names(levels: Sequence[Sequence[Factor]]) -> tuple[str, ...]:
    """A name for each level, of its factors."""
    return tuple("+".join(factor.name for factor in level) for level in levels)


def quantities(factors: Sequence[Factor], transition: Transition) -> Float[Array, "*batch factors"]:
    """The factors of each transition, signed so that more is better.

    Raises:
        ValueError: if a factor has another shape than the batch.
    """
    shape = jnp.shape(transition.reward)
    columns = []
    for factor in factors:
        value = jnp.asarray(factor.fn(transition))
        if value.shape != shape:
            raise ValueError(
                f"factor {factor.name!r} must return one number per transition, shape {shape}, got {value.shape}."
            )
        columns.append(factor.sign * value.astype(float))
    return jnp.stack(columns, axis=-1)


def aggregate(
    factors: Sequence[Factor], steps: Float[Array, "*n time factors"], mask: Bool[Array, "*n time"]
) -> Float[Array, "*n factors"]:
    """What segments are worth by each factor; steps that the mask leaves out change nothing.

    Args:
        factors: give the rule of each column.
        steps: of :func:`quantities`.
        mask: True for the steps of the segment, which are the first ones; at least one.

    Returns:
        Signed values, larger is better.
    """
    inside = jnp.broadcast_to(mask[..., None], steps.shape)
    kept = jnp.where(inside, steps, 0.0)
    length = jnp.maximum(mask.sum(axis=-1), 1)
    last = jnp.take_along_axis(steps, jnp.broadcast_to((length - 1)[..., None, None], (*steps.shape[:-2], 1, 1)), -2)
    total = kept.sum(axis=-2)
    values = {
        "sum": total,
        "mean": total / jnp.broadcast_to(length[..., None], total.shape),
        "last": last[..., 0, :],
        "max": jnp.where(inside, steps, -jnp.inf).max(axis=-2),
    }
    return jnp.stack([values[factor.aggregate][..., i] for i, factor in enumerate(factors)], axis=-1)


def combine(
    levels: Sequence[Sequence[Factor]], values: Float[Array, "*n factors"], spread: Float[Array, " factors"]
) -> Float[Array, "*n levels"]:
    """One value per level: a factor as it is, equal ones as the sum of their standardised values.

    A factor that never varied (spread 0) adds nothing to its level and divides nothing.
    """
    columns, start = [], 0
    for level in levels:
        stop = start + len(level)
        if len(level) == 1:
            columns.append(values[..., start])
        else:
            scale = jnp.where(spread[start:stop] > 0, 1 / jnp.where(spread[start:stop] > 0, spread[start:stop], 1), 0)
            columns.append(jnp.einsum("...f,f->...", values[..., start:stop], scale))
        start = stop
    return jnp.stack(columns, axis=-1)


def spread(values: Float[Array, "n k"], known: Bool[Array, " n"]) -> Float[Array, " k"]:
    """Standard deviation (n - 1 in the denominator) of the rows that are known; 0 for fewer than two."""
    weight = jnp.broadcast_to(known[:, None], values.shape)
    count = known.sum()
    mean = jnp.where(weight, values, 0.0).sum(axis=0) / jnp.maximum(count, 1)
    centred = jnp.where(weight, values - jnp.broadcast_to(mean, values.shape), 0.0)
    variance = jnp.square(centred).sum(axis=0) / jnp.maximum(count - 1, 1)
    flat = variance <= (1e-6 * jnp.abs(mean)) ** 2  # a constant, but for rounding
    return jnp.where(flat, 0.0, jnp.sqrt(jnp.where(flat, 1.0, variance)))
