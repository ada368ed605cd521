"""What the settings of all agents have in common: the length of a run, and checks that say what was expected."""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jax.core import Tracer

from reward_design._arguments import whole_number, widths
from reward_design._names import suggestion


class Interval(NamedTuple):
    """Values that a setting may have.

    Attributes:
        low: the least.
        high: the largest.
        strictly: whether ``low`` itself is none of them.
        infinite: whether infinity is one of them.
    """

    low: float = -math.inf
    high: float = math.inf
    strictly: bool = False
    infinite: bool = False

    def holds(self, values: Any) -> bool:
        """Whether all of ``values`` are in it; NaN is not."""
        x = np.asarray(values)
        above = x > self.low if self.strictly else x >= self.low
        return bool((above & (x <= self.high) & (self.infinite | np.isfinite(x))).all())

    def __str__(self) -> str:
        """As it stands in a sentence after "must be"."""
        if self.high < math.inf:
            return f"in {'(' if self.strictly else '['}{self.low:g}, {self.high:g}]"
        if self.low > -math.inf:
            return f"a number {'above' if self.strictly else 'of at least'} {self.low:g}"
        return "a finite number"


UNIT, POSITIVE, NOT_NEGATIVE = Interval(0, 1), Interval(0, strictly=True), Interval(0)
RANGES = {
    **dict.fromkeys(("gamma", "gae_lambda", "epsilon", "epsilon_end", "importance_exponent"), UNIT),
    **dict.fromkeys(("tau", "exploration_fraction"), Interval(0, 1, strictly=True)),
    **dict.fromkeys(("learning_rate", "learning_rate_end", "entropy_coef", "entropy_coef_end"), NOT_NEGATIVE),
    **dict.fromkeys(("reward_learning_rate", "discount_learning_rate", "damping", "l2"), NOT_NEGATIVE),
    **dict.fromkeys(("value_coef", "priority_exponent"), NOT_NEGATIVE),
    **dict.fromkeys(("clip_ratio", "temperature"), POSITIVE),
    **dict.fromkeys(("max_grad_norm", "huber_delta"), Interval(0, strictly=True, infinite=True)),
}
"""Ranges of float settings by name, the same for every agent; others are any finite number."""


def check_types(config: Any) -> None:
    """Refuse settings that no run can have, as far as that can be told when they are made; NumPy's integers become int.

    Whole numbers, flags and widths are static and always checked. Float settings are leaves of a pytree, and JAX puts
    axes, tracers and None in their place, so only a Python float is checked here; see :func:`check_floats`.

    Raises:
        TypeError: for another type, naming the field.
        ValueError: for a value outside of its range, naming the field.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type is float:
            _check_float(field.name, value if isinstance(value, float) else None)
        elif field.type is bool and not isinstance(value, (bool, np.bool_)):
            raise TypeError(f"{field.name} must be True or False, got {value!r}.")
        elif field.type is int or (field.type == int | None and value is not None):
            object.__setattr__(config, field.name, whole_number(field.name, value))
        elif field.type == tuple[int, ...]:
            if not isinstance(value, tuple):  # it is static, so it has to be hashable
                raise TypeError(f"{field.name} must be a tuple of widths, such as (64, 64) or (64,), got {value!r}.")
            widths(field.name, value)


def check_floats(config: Any) -> None:
    """Refuse float settings outside of their ranges, single ones and arrays of them; those that are traced pass.

    Raises:
        TypeError: for one that is no number, naming the field.
        ValueError: for a value outside of its range, naming the field.
    """
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.type is not float or isinstance(value, Tracer):
            continue
        if isinstance(value, (str, bytes)) or not np.issubdtype(np.asarray(value).dtype, np.number):
            raise TypeError(f"{field.name} must be a number, got {value!r}.")
        _check_float(field.name, value)


def _check_float(name: str, value: Any) -> None:
    interval = RANGES.get(name, Interval())
    if value is not None and not interval.holds(value):
        raise ValueError(f"{name} must be {interval}, got {value}.")


class Run:
    """The length of a run; inherited by every ``Config``, which has the fields.

    Attributes:
        steps_field: field with the steps per lane and update.
    """

    steps_field: ClassVar[str] = "num_steps"
    total_timesteps: int
    num_envs: int

    @property
    def steps_per_update(self) -> int:
        """Environment steps per update, over all lanes."""
        return self.num_envs * getattr(self, self.steps_field)

    @property
    def num_updates(self) -> int:
        """Updates in the run."""
        return self.total_timesteps // self.steps_per_update

    def check_length(self) -> None:
        """Refuse a run of less than one update.

        Raises:
            ValueError: naming the field.
        """
        at_least(self, 1, "num_envs", self.steps_field)
        if self.num_updates < 1:
            raise ValueError(
                f"total_timesteps must be at least num_envs * {self.steps_field} = {self.steps_per_update}, "
                f"got {self.total_timesteps}."
            )


def at_least(config: Any, smallest: int, *names: str) -> None:
    """Refuse settings below ``smallest``; None passes.

    Raises:
        ValueError: naming the first of them.
        TypeError: for one that is no number.

    Example:
        >>> from types import SimpleNamespace
        >>> at_least(SimpleNamespace(n_step=0), 1, "n_step")
        Traceback (most recent call last):
        ValueError: n_step must be at least 1, got 0.
    """
    for name in names:
        value = getattr(config, name)
        try:
            fits = value is None or value >= smallest  # NaN is no setting either
        except TypeError:
            raise TypeError(f"{name} must be a number of at least {smallest}, got {value!r}.") from None
        if not fits:
            raise ValueError(f"{name} must be at least {smallest}, got {value}.")


def one_of(config: Any, name: str, choices: Sequence[str]) -> None:
    """Refuse a setting that is none of ``choices``.

    Raises:
        ValueError: with the nearest choice.

    Example:
        >>> from types import SimpleNamespace
        >>> one_of(SimpleNamespace(torso="convv"), "torso", ("mlp", "conv"))
        Traceback (most recent call last):
        ValueError: torso must be 'mlp' or 'conv', got 'convv'; did you mean 'conv'?
    """
    value = getattr(config, name)
    if value not in choices:
        *first, last = map(repr, choices)
        hint = suggestion(value, list(choices)) if isinstance(value, str) else "."
        raise ValueError(f"{name} must be {', '.join(first)} or {last}, got {value!r}{hint}")
