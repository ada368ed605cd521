"""Running a candidate's text in the worker, and telling its author what went wrong."""

import functools
import inspect
import math
import re
import traceback
import types
import typing
from typing import Any

import jax
import jax.numpy as jnp

from reward_design.llm.refusal import CandidateRefused

FILENAME = "<reward>"
AT_HAND = {"jax": jax, "jnp": jnp, "lax": jax.lax, "math": math, "functools": functools, "typing": typing}
HINTS = {
    "TracerBoolConversionError": "use jnp.where or jnp.logical_and instead of if, and, or on array values.",
    "TracerArrayConversionError": "use jnp instead of numpy.",
    "TracerIntegerConversionError": "index with array[i] on a jnp array, and use lax.fori_loop for loops.",
    "ConcretizationTypeError": "do not turn array values into Python numbers; keep them as jnp arrays.",
    "NonConcreteBooleanIndexError": "use jnp.where(mask, x, 0) instead of x[mask].",
    "UnexpectedTracerError": "do not keep array values in global variables.",
    "RecursionError": "write a loop instead of a function that calls itself.",
    "NameError": "define it, or use what is at hand: the parameters, jax, jnp, lax, math.",
    "AttributeError": "use a function that JAX has.",
    "SystemExit": "return the reward instead of leaving.",
    "KeyboardInterrupt": "return the reward instead of leaving.",
}
"""What helps, by type of error."""


def loaded(source: str) -> dict[str, Any]:
    """The names that the text defines.

    Raises:
        CandidateRefused: at stage ``load``, if it fails or defines no function ``reward``.
    """
    namespace: dict[str, Any] = {"__name__": "reward", **AT_HAND}
    try:
        exec(compile(source, FILENAME, "exec", dont_inherit=True), namespace)
    except MemoryError:
        raise
    except BaseException as error:
        raise CandidateRefused("load", described_error(error)) from None
    found = namespace.get("reward")
    namespace["reward"] = inspect.unwrap(found) if callable(found) else None
    if not isinstance(namespace["reward"], types.FunctionType):
        raise CandidateRefused("load", "there is no function called reward; define def reward(obs, ...).")
    return namespace


def described_error(error: BaseException) -> str:
    """Type, line in the candidate, the start of the message, and what helps.

    Example:
        >>> described_error(ZeroDivisionError("division by zero"))
        'ZeroDivisionError: division by zero.'
    """
    name = type(error).__name__
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILENAME]
    if isinstance(error, SyntaxError) and error.filename == FILENAME:
        lines = [error.lineno]
    where = f"line {lines[-1]}: " if lines else ""
    hint = f" {HINTS[name][0].upper()}{HINTS[name][1:]}" if name in HINTS else ""
    return f"{where}{name}: {_short(_text(error))}.{hint}"


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return "the error has no text"


def _short(text: str, limit: int = 400) -> str:
    first = re.split(
        r"\n\n|\s*(?:This \w*Tracer with|The error occurred|The problem arose|It arose|See https)", text.strip()
    )[0]
    plain = re.sub(r"\s+", " ", "".join(c if c.isprintable() or c.isspace() else "?" for c in first))
    plain = re.sub(r"(/[\w.+-]+){3,}", "<path>", plain)
    plain = re.sub(r"0x[0-9a-f]{6,}|\bid=?\s?\d{6,}", "<address>", plain)
    return (plain if len(plain) <= limit else plain[:limit] + " ...").rstrip(".")
