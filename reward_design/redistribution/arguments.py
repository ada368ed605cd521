"""Checks of what users pass to the methods."""

import math
import numbers
from collections.abc import Sequence
from typing import Any


def whole(value: Any, name: str, *, least: int = 1) -> int:
    """A whole number of at least ``least``.

    Raises:
        TypeError: for something that is no whole number, naming the argument.
        ValueError: for a smaller one.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}.")
    return int(value)


def number(value: Any, name: str, *, least: float = -math.inf) -> float:
    """A finite number of at least ``least``.

    Raises:
        TypeError: for something that is no number, naming the argument.
        ValueError: for one that is not finite, or smaller.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, got {value!r}.")
    if not math.isfinite(value) or value < least:
        wanted = "finite" if least == -math.inf else f"a finite number of at least {least:g}"
        raise ValueError(f"{name} must be {wanted}, got {value}.")
    return float(value)


def widths(value: Any, name: str, *, least: int = 0) -> tuple[int, ...]:
    """At least ``least`` widths of layers, each of at least 1.

    Raises:
        TypeError: for something that is no sequence of whole numbers, naming the argument.
        ValueError: for too few, or a width below 1.
    """
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise TypeError(f"{name} must be a sequence of widths, such as (64, 64), got {value!r}.")
    if len(value) < least:
        raise ValueError(f"{name} must have at least {least} width, got {value!r}.")
    return tuple(whole(width, f"each width of {name}") for width in value)
