"""Checks of arguments that several parts of preferences share."""

import math
import operator
from typing import Any


def whole_number(name: str, value: Any) -> int:
    """``value`` as an int.

    Raises:
        TypeError: for a fraction, a flag, or something that is no number.

    Example:
        >>> whole_number("num_members", 1.5)
        Traceback (most recent call last):
        TypeError: num_members must be a whole number, got 1.5.
    """
    try:
        if not isinstance(value, bool):
            return operator.index(value)
    except TypeError:
        pass
    raise TypeError(f"{name} must be a whole number, got {value!r}.")


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


def finite(name: str, value: Any) -> float:
    """:func:`number` that is neither NaN nor infinite.

    Raises:
        TypeError: for something that is no number.
        ValueError: for one that is not finite.
    """
    checked = number(name, value)
    if not math.isfinite(checked):
        raise ValueError(f"{name} must be finite, got {value}.")
    return checked
