"""The process that runs a candidate's Python: load, trace, try, export. Started by :mod:`reward_design.llm.checking`.

It is the only place where text of a model runs as a program, behind the walls of :mod:`reward_design.llm.isolation`.
What it sends back is data, and is verified as if the candidate itself had written it.
"""

import base64
import json
import os
import struct
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.llm import isolation, trials
from reward_design.llm.inputs import INPUTS, MEMORY, Spec, leaves, tree_of
from reward_design.llm.reading import described_error, loaded
from reward_design.llm.refusal import CandidateRefused
from reward_design.llm.returned import initial_memory, split
from reward_design.llm.verify import checked_program

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")
DIFFERS = "two readings of the same code gave different programs; remove time, random numbers and state."
LARGEST_MESSAGE = 16 * 2**20


def main() -> None:
    """Put the walls up, say what was reached, then answer jobs until their pipe closes (a trainer sends only one)."""
    limits = json.loads(sys.argv[1])
    jax.config.update("jax_traceback_in_locations_limit", 0)
    jax.config.update("jax_disable_most_optimizations", True)  # programs run once or twice here
    answers = os.dup(1)
    isolation.enter(limits)
    warm_up()
    reached = isolation.seal(limits)
    send(answers, {"level": int(reached.level), "features": list(reached.features)})
    jobs = os.dup(0)
    for fd in (0, 1, 2):
        os.dup2(isolation.NULL_FD, fd)
    while True:
        send(answers, answer_to(receive(jobs)))


def answer_to(job: Mapping[str, Any]) -> dict[str, Any]:
    """What the checks of one candidate gave: a header with the program, or stage and reason."""
    try:
        return read(job) if "program" in job else checked(job["source"], job["specs"])
    except CandidateRefused as refused:
        return {"stage": refused.stage, "reason": refused.reason}
    except MemoryError:
        return {"stage": "memory", "reason": "the program asked for too much memory; use smaller arrays."}


def checked(source: str, specs: Mapping[str, Spec]) -> dict[str, Any]:
    """Load, trace twice, export and try a candidate.

    Raises:
        CandidateRefused: at the stage that failed.
    """
    candidate = Candidate(source, specs)
    exported = candidate.exported()
    if Candidate(source, specs).exported().mlir_module_serialized != exported.mlir_module_serialized:
        raise CandidateRefused("determinism", DIFFERS)
    program = _stage("export", lambda: bytes(exported.serialize(vjp_order=1)))
    observed = _stage("smoke", lambda: trials.tried(exported, candidate))
    return {
        "used": list(candidate.used),
        "terms": list(candidate.terms),
        "remainder": observed["remainder"],
        "range": observed["range"],
        "memory": [{"dtype": str(x.dtype), "shape": list(x.shape), "data": x.tolist()} for x in candidate.memory],
        "program": base64.b64encode(program).decode(),
    }


def read(job: Mapping[str, Any]) -> dict[str, Any]:
    """Read, verify, compile and run a program once, before a trainer does; see :mod:`reward_design.llm.screening`.

    Raises:
        CandidateRefused: at stage ``verify``.
    """
    inputs, outputs = (tuple((tuple(shape), dtype) for shape, dtype in job[side]) for side in ("inputs", "outputs"))
    try:
        program = checked_program(base64.b64decode(job["program"]), inputs, outputs)
        zeros = [np.zeros((2, *shape), dtype) for shape, dtype in inputs]
        jax.block_until_ready(jax.jit(program.exported.call)(*zeros))
    except CandidateRefused:
        raise
    except Exception as error:
        raise CandidateRefused(
            "verify", f"the program cannot be read ({type(error).__name__}); build it again."
        ) from None
    return {"verified": True}


class Candidate:
    """One reading of the code.

    Attributes:
        used: names of the inputs that ``reward`` reads, without memory.
        memory: arrays of the memory on the first step.
        terms: names of its components, once it was traced.
    """

    def __init__(self, source: str, specs: Mapping[str, Spec]) -> None:
        namespace = loaded(source)
        self.fn: Callable[..., Any] = namespace["reward"]
        code = self.fn.__code__
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        self.specs, self.used = specs, tuple(name for name in INPUTS if name in names)
        self.remembers = MEMORY in names
        unknown = sorted(set(names) - {*INPUTS, MEMORY})
        if unknown or not names:
            raise CandidateRefused("load", f"reward must read some of {', '.join(INPUTS)}, {MEMORY}; got {unknown}.")
        start = initial_memory(namespace) if self.remembers else ()
        self.memory = [np.asarray(x) for x in jax.tree.leaves(start)]
        self.structure = jax.tree.structure(start)
        self.terms: tuple[str, ...] = ()

    @property
    def leaf_specs(self) -> list[Spec]:
        """Of all arrays that the program takes, in order; memory last."""
        own = [{"shape": list(x.shape), "dtype": str(x.dtype), "low": None, "high": None} for x in self.memory]
        return [leaf for name in self.used for leaf in leaves(self.specs[name])] + own

    def flat(self, *arrays: Any) -> tuple[Any, ...]:
        """One lane: ``(*inputs, *memory) -> (reward, *components, *memory)``."""
        rest, given = list(arrays), {}
        for name in self.used:
            count = len(leaves(self.specs[name]))
            given[name], rest = tree_of(self.specs[name], rest[:count]), rest[count:]
        if self.remembers:
            given[MEMORY] = jax.tree.unflatten(self.structure, rest)
        reward, terms, memory = split(self.fn(**given), self)
        self.terms = tuple(terms)
        return (reward, *terms.values(), *memory)

    def exported(self) -> Any:
        """The program for any number of lanes and all platforms.

        Raises:
            CandidateRefused: if it cannot be traced or exported.
        """
        from jax import export

        (lanes,) = export.symbolic_shape("b")
        avals = [jax.ShapeDtypeStruct((lanes, *spec["shape"]), spec["dtype"]) for spec in self.leaf_specs]
        if not self.leaf_specs:
            empty = " and ".join(self.used) or "no input"
            text = f"reward reads {empty}, in which this task has nothing; read obs, action or next_obs."
            raise CandidateRefused("trace", text)
        batched = jax.jit(jax.vmap(self.flat))
        _stage("trace", lambda: batched.trace(*avals))
        return _stage("export", lambda: export.export(batched, platforms=PLATFORMS)(*avals))


def warm_up() -> None:
    """Load whatever JAX loads late, while files can still be read."""
    from jax import export

    def fn(x: Any, i: Any) -> Any:
        total, _ = jax.lax.scan(lambda c, y: (jnp.where(y > 0, c + y, c), None), x[0], jnp.sort(x))
        return jnp.exp(-jnp.linalg.norm(x)) + total + jax.nn.softmax(x)[i]

    (lanes,) = export.symbolic_shape("b")
    avals = jax.ShapeDtypeStruct((lanes, 3), jnp.float32), jax.ShapeDtypeStruct((lanes,), jnp.int32)
    exported = export.export(jax.jit(jax.vmap(fn)), platforms=PLATFORMS)(*avals)
    exported.serialize(vjp_order=1)
    jax.block_until_ready(jax.jit(exported.call)(np.ones((2, 3), np.float32), np.zeros(2, np.int32)))


def send(fd: int, message: Mapping[str, Any]) -> None:
    """Write one message: its length in four bytes, then JSON."""
    data = json.dumps(message).encode()
    data = struct.pack(">I", len(data)) + data
    while data:
        data = data[os.write(fd, data) :]


def receive(fd: int) -> Any:
    """Read one message."""
    (length,) = struct.unpack(">I", _exactly(fd, 4))
    return json.loads(_exactly(fd, min(length, LARGEST_MESSAGE)))


def _exactly(fd: int, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = os.read(fd, count - len(data))
        if not part:
            os._exit(3)
        data += part
    return data


def _stage(stage: str, action: Callable[[], Any]) -> Any:
    try:
        return action()
    except (CandidateRefused, MemoryError):
        raise
    except BaseException as error:
        raise CandidateRefused(stage, described_error(error)) from None


__all__: Sequence[str] = ("main",)
