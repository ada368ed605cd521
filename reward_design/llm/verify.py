"""What the trainer checks of a program before it loads it, as if its worker had been taken over by the candidate."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design._optional import require
from reward_design.llm import operations
from reward_design.llm.artifact import Artifact
from reward_design.llm.inputs import INPUTS, Spec, leaves
from reward_design.llm.refusal import CandidateRefused
from reward_design.llm.returned import MAX_MEMORY, MAX_TERMS, TERM_NAME
from reward_design.llm.screening import screened

MAX_PROGRAM = 512 * 1024
DTYPES = ("bool", "int8", "int16", "int32", "uint8", "uint16", "uint32", "float16", "bfloat16", "float32")


class Program:
    """A verified program, ready to be called on ``[B, ...]`` arrays.

    Attributes:
        exported: the rehydrated program.
        derivative: its vector-Jacobian product, rehydrated.
    """

    def __init__(self, exported: Any) -> None:
        self.exported, self.derivative = exported, exported.vjp()
        self._sizes: set[int] = set()

    def check_size(self, lanes: int) -> None:
        """Check the sizes of all arrays, and the loops, for so many lanes; once per number.

        Raises:
            CandidateRefused: at stage ``verify``.
        """
        if lanes not in self._sizes:
            for part in (self.exported, self.derivative):
                operations.check_sizes(part, lanes)
            self._sizes.add(lanes)


@functools.lru_cache(maxsize=256)
def verified(data: bytes, inputs: tuple[tuple[tuple[int, ...], str], ...], outputs: Any) -> Program:
    """Deserialise a program and check it.

    Args:
        data: the serialised program.
        inputs: shape (of a lane) and dtype of each array that it takes.
        outputs: the same of each array that it returns.

    Raises:
        CandidateRefused: at stage ``verify``.
    """
    if len(data) > MAX_PROGRAM:
        raise _refused(f"the program has {len(data)} bytes, at most {MAX_PROGRAM} are allowed; use fewer constants.")
    require("flatbuffers", "llm", "rewards in code")
    screened(data, inputs, outputs)
    try:
        return checked_program(data, inputs, outputs)
    except CandidateRefused:
        raise
    except Exception as error:  # whatever the parsers of broken bytes raise
        raise _refused(f"the program cannot be read ({type(error).__name__}); build it again.") from None


def verified_artifact(artifact: Artifact) -> Program:
    """The program of an artifact, after all checks of its header and of itself.

    Raises:
        CandidateRefused: at stage ``verify``.
    """
    try:
        inputs, outputs = _contract(artifact)
    except CandidateRefused:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
        raise _refused(f"its description cannot be read ({type(error).__name__}); build it again.") from None
    return verified(artifact.program, inputs, outputs)


def start_memory(artifact: Artifact) -> list[np.ndarray]:
    """The arrays of the memory on the first step."""
    return [np.array(m["data"], _dtype(m["dtype"])).reshape(m["shape"]) for m in artifact.memory]


# --- parts ----------------------------------------------------------------------------------------------------------


def checked_program(data: bytes, inputs: Any, outputs: Any) -> Program:
    """Read a program and check it, in this process; its parsers may crash on broken bytes."""
    from jax import export

    program = Program(export.deserialize(bytearray(data)))
    _check_promises(program.exported)
    _check_promises(program.derivative)
    _check_avals(program, inputs, outputs)
    for part in (program.exported, program.derivative):
        operations.check_operations(part)
    program.check_size(1)
    return program


def _contract(artifact: Artifact) -> tuple[Any, Any]:
    used, terms = list(artifact.used), list(artifact.terms)
    if used != [name for name in INPUTS if name in used] or not (used or artifact.memory):
        raise _refused(f"it says that it reads {used}; expected some of {', '.join(INPUTS)} in this order.")
    wrong = [name for name in terms if not (isinstance(name, str) and TERM_NAME.fullmatch(name))]
    if wrong or len(set(terms)) != len(terms) or len(terms) > MAX_TERMS or "environment" in terms:
        raise _refused(f"its components must be at most {MAX_TERMS} different words, got {str(terms)[:100]}.")
    memory = start_memory(artifact)
    if sum(x.size for x in memory) > MAX_MEMORY:
        raise _refused(f"its memory must be at most {MAX_MEMORY} numbers.")
    if not all(np.isfinite(x.astype(float)).all() for x in memory):
        raise _refused("its memory must start with finite numbers.")
    kept = tuple((x.shape, str(x.dtype)) for x in memory)
    given = tuple(_kind(leaf) for name in used for leaf in leaves(artifact.specs[name]))
    return given + kept, (((), "float32"),) * (1 + len(terms)) + kept


def _kind(spec: Spec) -> tuple[tuple[int, ...], str]:
    return tuple(int(n) for n in spec["shape"]), str(_dtype(spec["dtype"]))


def _dtype(name: Any) -> np.dtype:
    if name not in DTYPES:
        raise _refused(f"it has an array of dtype {str(name)[:20]!r}; expected one of {', '.join(DTYPES)}.")
    return jnp.dtype(name)


def _check_promises(exported: Any) -> None:
    if tuple(exported.disabled_safety_checks):
        raise _refused("the program was exported with safety checks disabled; build it again.")
    if exported.nr_devices != 1:
        raise _refused(f"the program is for {exported.nr_devices} devices, expected 1.")
    if exported.ordered_effects or exported.unordered_effects:
        raise _refused("the program has side effects; return values only.")
    if "cpu" not in exported.platforms:
        raise _refused(f"the program is for {', '.join(exported.platforms)}, expected cpu among them.")


def _check_avals(program: Program, inputs: Any, outputs: Any) -> None:
    exported, derivative = program.exported, program.derivative
    if exported.in_tree != jax.tree.structure(((0,) * len(inputs), {})):
        raise _refused(f"the program must take {len(inputs)} arrays, got {exported.in_tree}.")
    if exported.out_tree != jax.tree.structure((0,) * len(outputs)):
        raise _refused(f"the program must return {len(outputs)} arrays, got {exported.out_tree}.")
    _check_kinds("input", exported.in_avals, inputs)
    _check_kinds("output", exported.out_avals, outputs)
    tangent = lambda kinds: tuple((s, t if _floating(t) else "float0") for s, t in kinds)  # noqa: E731
    _check_kinds("input of the derivative", derivative.in_avals, inputs + tangent(outputs))
    _check_kinds("output of the derivative", derivative.out_avals, tangent(inputs))


def _check_kinds(what: str, avals: Sequence[Any], wanted: Any) -> None:
    if len(avals) != len(wanted):
        raise _refused(f"the program has {len(avals)} arrays as {what}, expected {len(wanted)}.")
    for i, (aval, (shape, dtype)) in enumerate(zip(avals, wanted)):
        lanes = str(aval.shape[0]) if aval.shape else ""
        if lanes != "b" or tuple(aval.shape[1:]) != tuple(shape) or _name(aval.dtype) != dtype:
            raise _refused(
                f"{what} {i} of the program must be {dtype} of shape {('b', *shape)}, got {aval.str_short()}."
            )


def _name(dtype: Any) -> str:
    return "float0" if dtype == jax.dtypes.float0 else str(dtype)


def _floating(dtype: str) -> bool:
    return jnp.issubdtype(jnp.dtype(dtype), jnp.floating)


def _refused(reason: str) -> CandidateRefused:
    return CandidateRefused("verify", reason)
