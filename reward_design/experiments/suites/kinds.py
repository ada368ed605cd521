"""What kind of value stands where in a suite file: each wrong one is named with its place."""

from collections.abc import Mapping, Sequence
from typing import Any


def table(value: Any, where: str) -> Mapping[str, Any]:
    """A table of TOML.

    Raises:
        ValueError: for anything else.

    Example:
        >>> table(3, "mine.toml, [sizes]")
        Traceback (most recent call last):
        ValueError: mine.toml, [sizes]: expected a table of name = value, got 3.
    """
    if not isinstance(value, Mapping):
        raise ValueError(f"{where}: expected a table of name = value, got {value!r}.")
    return value


def names(value: Any, where: str) -> Sequence[str]:
    """A list of names without repetition.

    Raises:
        ValueError: for anything else.

    Example:
        >>> names("chain", "mine.toml, block 'one', tasks")
        Traceback (most recent call last):
        ValueError: mine.toml, block 'one', tasks: expected a list of names, as in ["chain"], got 'chain'.
    """
    if not (isinstance(value, list) and value and all(isinstance(name, str) and name for name in value)):
        example = f'["{value}"]' if isinstance(value, str) and value else '["one", "two"]'
        raise ValueError(f"{where}: expected a list of names, as in {example}, got {value!r}.")
    if twice := sorted({name for name in value if value.count(name) > 1}):
        raise ValueError(f"{where}: {twice[0]!r} stands there twice; leave one of them out.")
    return value


def text(value: Any, where: str) -> str:
    """A string.

    Raises:
        ValueError: for anything else.
    """
    if not isinstance(value, str):
        raise ValueError(f'{where}: expected text in quotes, as in "ppo", got {value!r}.')
    return value


def setting(name: str, value: Any, where: str) -> None:
    """A setting of a size: whole numbers from 1 on, but ``steps`` is a share of the budget.

    Raises:
        ValueError: for anything else.
    """
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if name == "steps" and not (number and 0 < value <= 1):
        raise ValueError(f"{where}: expected steps in (0, 1], a share of each task's budget, got {value!r}.")
    if name != "steps" and not (number and isinstance(value, int) and value >= 1):
        raise ValueError(f"{where}: expected {name} as a whole number of at least 1, got {value!r}.")
