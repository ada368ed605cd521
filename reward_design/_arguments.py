"""Checks of numbers that users pass to constructors: one sentence that names the argument."""

import math
import operator
from collections.abc import Sequence
from typing import Any


def whole_number(name: str, value: Any, *, least: int | None = None) -> int:
    """``value`` as an int.

    Raises:
        TypeError: for a fraction, a flag, or something that is no number.
        ValueError: below ``least``.

    Example:
        >>> whole_number("num_members", 1.5)
        Traceback (most recent call last):
        TypeError: num_members must be a whole number, got 1.5.
    """
    try:
        found = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        found = None
    if found is None:
        hint = f"; write {int(value):_}" if isinstance(value, float) and value.is_integer() else ""
        raise TypeError(f"{name} must be a whole number{_least(least)}, got {value!r}{hint}.")
    if least is not None and found < least:
        raise ValueError(f"{name} must be{_least(least, '')}, got {value}.")
    return found


def number(name: str, value: Any) -> float:
    """``value``, a number of Python or NumPy, as a float; NaN and infinities pass.

    Raises:
        TypeError: for a text, None, or an array with axes.

    Example:
        >>> number("margin", "0.1")
        Traceback (most recent call last):
        TypeError: margin must be a number, got '0.1'.
    """
    if value is not None and not isinstance(value, (str, bytes, bool)) and not getattr(value, "shape", ()):
        try:
            return float(value)
        except (TypeError, ValueError):
            pass
    raise TypeError(f"{name} must be a number, got {value!r}.")


def finite(name: str, value: Any, *, least: float | int | None = None) -> float:
    """:func:`number` that is neither NaN nor infinite.

    Raises:
        TypeError: for something that is no number.
        ValueError: for one that is not finite, or below ``least``.
    """
    checked = number(name, value)
    if not math.isfinite(checked) or (least is not None and checked < least):
        raise ValueError(f"{name} must be finite{_least(least, ' and')}, got {value}.")
    return checked


def widths(name: str, value: Any, *, least: int = 0) -> tuple[int, ...]:
    """At least ``least`` widths of layers, each of at least 1.

    Raises:
        TypeError: for something that is no sequence of whole numbers.
        ValueError: for too few, or a width below 1.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{name} must be a sequence of widths, such as (64, 64), got {value!r}.")
    if len(value) < least:
        raise ValueError(f"{name} must have at least {least} width, got {value!r}.")
    return tuple(whole_number(f"each width of {name}", width, least=1) for width in value)


def check_seed(seed: int) -> None:
    """Refuse a seed that a generator of random numbers, of NumPy or JAX, would not take.

    Raises:
        ValueError: with the range.

    Example:
        >>> check_seed(-1)
        Traceback (most recent call last):
        ValueError: seed must be a whole number from 0 to 4294967295, got -1.
    """
    if not 0 <= seed < 2**32 or seed != int(seed):
        raise ValueError(f"seed must be a whole number from 0 to {2**32 - 1}, got {seed}.")


def _least(least: float | int | None, before: str = " of") -> str:
    return "" if least is None else f"{before} at least {least:g}"
