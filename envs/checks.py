"""What a task is made of, checked when it is made: one sentence for a part of the wrong kind or shape."""

import inspect
import math
import numbers
import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.core import Transition
from reward_design.describe import missing_entry

REWARD = "a Reward, which reward_design.pointwise(name, function) makes"


def given(value: Any) -> str:
    """A value in the words of an error.

    Example:
        >>> given("0.9"), given(dict), given(len)
        ("'0.9'", 'the class dict', "the function 'len'")
    """
    if inspect.isclass(value):
        return f"the class {value.__name__}"
    if inspect.isroutine(value):
        return f"the function {value.__name__!r}"
    text = repr(value)
    return text if len(text) <= 60 and "\n" not in text else f"an object of type {type(value).__name__}"


def check_kind(fits: bool, what: str, needed: str, value: Any) -> None:
    """Refuse a value of the wrong kind.

    Raises:
        TypeError: unless it ``fits``.
    """
    if not fits:
        raise TypeError(f"{what} must be {needed}, got {given(value)}.")


def check_function(what: str, value: Any, calls: str) -> None:
    """Refuse what cannot be called; ``calls`` says with what it is, and what comes out.

    Raises:
        TypeError: if it cannot.
    """
    check_kind(callable(value) and not inspect.isclass(value), what, f"a function {calls}", value)


def check_by_name(what: str, value: Any, kind: type, needed: str) -> None:
    """Refuse what is not a dictionary of ``kind``.

    Raises:
        TypeError: naming the argument, or the entry of it.
    """
    check_kind(isinstance(value, Mapping), what, f"a dictionary that holds by name {needed}", value)
    for name, part in value.items():
        check_kind(isinstance(name, str), f"the names in {what}", "text", name)
        check_kind(isinstance(part, kind), f"{what}[{name!r}]", needed, part)


def is_number(value: Any) -> bool:
    """Whether it is one real number, and not a truth value."""
    return isinstance(value, numbers.Real) and not isinstance(value, (bool, np.bool_))


def check_render_mode(env: Any, render_mode: Any) -> None:
    """Refuse a way of rendering that an environment, which was made with it, does not have; the environment is closed.

    Raises:
        ValueError: naming those that there are.
    """
    known = env.metadata.get("render_modes") or ()
    if render_mode is not None and known and render_mode not in known:
        env.close()
        raise ValueError(f"render_mode must be None or one of {', '.join(map(repr, known))}, got {render_mode!r}.")


def check_limit(value: Any) -> None:
    """Refuse what is no time limit.

    Raises:
        TypeError: if it is neither a number nor None.
        ValueError: if it is not a whole number of at least 1.
    """
    needed = "a whole number of at least 1, or None for the registered time limit"
    check_kind(value is None or is_number(value), "horizon", needed, value)
    if value is not None and (not math.isfinite(value) or value < 1 or value != int(value)):
        raise ValueError(f"horizon must be {needed}, got {value}.")


def check_info(info: Any) -> None:
    """Refuse what does not give shape and dtype for each entry.

    Raises:
        TypeError: naming the entry.
    """
    needed = '(shape, dtype) of an entry, as in {"x_velocity": ((), float)}'
    check_by_name("info", info, object, needed)
    for name, entry in info.items():
        check_kind(_is_described(entry), f"info[{name!r}]", needed, entry)


def check_result(
    who: str, fn: Callable[[Any], Any], argument: Any, example: Transition, *, success: bool = False
) -> None:
    """Refuse a function that reads what is not there, or gives something else than one value for each row.

    It is traced: agents compile it.

    Args:
        who: which function, for the message.
        fn: the function.
        argument: what it gets, with an unusual number of rows.
        example: the transition that ``argument`` is, or belongs to.
        success: it is a success predicate, which gives truth values in place of numbers.

    Raises:
        TypeError: if it cannot be called with one argument, gives values of another kind, or cannot be compiled.
        ValueError: if it reads what is not there, or gives another shape.
    """
    wanted = "one truth value for each row, such as t.reward > 0" if success else "one number for each row"
    kinds = (np.bool_,) if success else (np.bool_, np.number)
    _check_positions(who, fn, argument)
    try:
        found = jax.eval_shape(fn, argument)
    except (KeyError, IndexError, TypeError) as error:
        clearer = missing_entry(who, error, example)
        if clearer is not error:
            raise clearer from None
        found = _called(who, fn, argument)
        if found is _UNKNOWN or isinstance(error, _NOT_TRACED) or isinstance(found, np.ndarray):
            raise TypeError(
                f"{who} must be written with jax.numpy (jnp.sin in place of np.sin and math.sin, jnp.where in place of "
                f"if), because it is compiled: {_first_line(error)}."
            ) from error
    dtype = getattr(found, "dtype", None)
    if dtype is None or not any(jnp.issubdtype(dtype, kind) for kind in kinds):
        raise TypeError(f"{who} must give {wanted}, got {given(found) if dtype is None else f'values of {dtype}'}.")
    rows = example.terminated.shape
    if found.shape != rows:
        raise ValueError(
            f"{who} must give {wanted}: shape [B] = {rows} for {rows[0]} rows, got {found.shape}; index or reduce the "
            "extra axes."
        )


_UNKNOWN = object()
_NOT_TRACED = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)


def _check_positions(who: str, fn: Callable[[Any], Any], argument: Any) -> None:
    """Let NumPy refuse positions beyond the end of an array, where JAX reads the last entry.

    Raises:
        ValueError: for those, but not for one in what zeros leave empty (``np.flatnonzero(obs)[0]``).
    """
    zeros = jax.tree.map(np.asarray, argument)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of divisions by zero, say
            jax.eval_shape(lambda: fn(zeros))  # compiles nothing
    except IndexError as error:
        text = _first_line(error)
        if re.search("out of bounds for axis|too many indices", text, re.IGNORECASE) and "size 0" not in text:
            raise ValueError(f"{who} reads a position that is not there: {text} (axis 0 counts the rows).") from error
    except Exception:  # it may need arrays of JAX
        pass


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def _called(who: str, fn: Callable[[Any], Any], argument: Any) -> Any:
    """What a function that cannot be traced gives for zeros, if it gives anything for them."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of divisions by zero, say
            found = fn(argument)
    except TypeError as error:
        raise TypeError(f"{who} fails when it is called: {error}.") from error
    except (LookupError, ValueError, ArithmeticError):  # zeros may be no observation
        return _UNKNOWN
    return np.asarray(found) if isinstance(found, (bool, int, float)) else found


def _is_described(entry: Any) -> bool:
    try:
        shape, dtype = entry
        np.dtype(dtype)
        return dtype is not None and all(isinstance(size, (int, np.integer)) and size >= 0 for size in tuple(shape))
    except (TypeError, ValueError):
        return False
