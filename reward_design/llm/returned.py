"""What a candidate returns, taken apart and checked in the worker while it is traced."""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.llm.reading import described_error
from reward_design.llm.refusal import CandidateRefused

MAX_TERMS, MAX_MEMORY = 32, 16_384
TERM_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_ .-]{0,39}")


def split(result: Any, candidate: Any) -> tuple[Any, dict[str, Any], list[Any]]:
    """``(reward, components, leaves of the new memory)`` of what ``reward`` returned for one lane.

    Raises:
        CandidateRefused: at stage ``output``, if it is not what the contract says.
    """
    parts: tuple[Any, ...] = result if isinstance(result, tuple) else (result,)
    memory: list[Any] = []
    if candidate.remembers:
        if not 2 <= len(parts) <= 3:
            raise _refused("a reward with memory returns (reward, new_memory) or (reward, components, new_memory).")
        memory, parts = _memory(parts[-1], candidate), parts[:-1]
    if not 1 <= len(parts) <= 2 or (len(parts) == 2 and not isinstance(parts[1], Mapping)):
        raise _refused("reward must return a scalar, or (scalar, dict of named scalars).")
    terms = _terms(parts[1]) if len(parts) == 2 else {}
    return _scalar(parts[0], "the reward"), terms, memory


def initial_memory(namespace: Mapping[str, Any]) -> Any:
    """What ``initial_memory()`` of a candidate returns, as arrays without weak types.

    Raises:
        CandidateRefused: if it is not there, fails, or is too large.
    """
    fn = namespace.get("initial_memory")
    if not callable(fn):
        raise CandidateRefused(
            "load", "reward reads memory; also define initial_memory() that returns its first value."
        )
    try:
        value = jax.tree.map(np.asarray, fn())
        arrays = jax.tree.map(lambda x: x.astype(jax.dtypes.canonicalize_dtype(x.dtype)), value)
        sizes = [x.size for x in jax.tree.leaves(arrays)]
        plain = all(x.dtype.kind in "biuf" for x in jax.tree.leaves(arrays))
    except MemoryError:
        raise
    except BaseException as error:
        raise CandidateRefused("load", f"initial_memory: {described_error(error)}") from None
    if not sizes or sum(sizes) > MAX_MEMORY or not plain:
        raise _refused(f"initial_memory must return 1 to {MAX_MEMORY} numbers in arrays, got {sum(sizes)}.")
    return arrays


def _memory(value: Any, candidate: Any) -> list[Any]:
    if jax.tree.structure(value) != candidate.structure:
        raise _refused(
            f"the new memory must have the structure of initial_memory(), {candidate.structure}, got "
            f"{jax.tree.structure(value)}."
        )
    found = [jnp.asarray(x) for x in jax.tree.leaves(value)]
    for old, new in zip(candidate.memory, found, strict=True):
        if old.shape != new.shape:
            raise _refused(f"the new memory must keep the shape {old.shape} of initial_memory(), got {new.shape}.")
        if old.dtype.kind != new.dtype.kind and not (old.dtype.kind == "f" and new.dtype.kind in "iub"):
            raise _refused(f"the new memory must keep the dtype {old.dtype} of initial_memory(), got {new.dtype}.")
    return [new.astype(old.dtype) for old, new in zip(candidate.memory, found, strict=True)]


def _terms(terms: Mapping[Any, Any]) -> dict[str, Any]:
    if len(terms) > MAX_TERMS:
        raise _refused(f"at most {MAX_TERMS} components, got {len(terms)}.")
    for name in terms:
        if not isinstance(name, str) or not TERM_NAME.fullmatch(name) or name in ("environment", "remainder"):
            raise _refused(f"names of components are words of at most 40 letters, got {str(name)[:60]!r}.")
    return {name: _scalar(terms[name], f"component {name!r}") for name in sorted(terms)}


def _scalar(value: Any, what: str) -> Any:
    try:
        value = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        raise _refused(f"{what} must be a number: {described_error(error)}") from None
    if value.shape != ():
        raise _refused(f"{what} must be a scalar for one transition, got shape {value.shape}; sum or index it.")
    if value.dtype.kind not in "biuf" and value.dtype != jnp.bfloat16:
        raise _refused(f"{what} must be a real number, got {value.dtype}.")
    return value.astype(jnp.float32)


def _refused(reason: str) -> CandidateRefused:
    return CandidateRefused("output", reason)
