"""Walking the StableHLO of a program: which operations it has, how large its arrays are, whether its loops end."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.interpreters import mlir

from reward_design.llm.refusal import CandidateRefused

MAX_OPERATIONS = 20_000
MAX_ELEMENTS = 65_536
"""Of one array, per lane."""
MAX_WORK = 50_000_000
"""Elements computed per lane and step, loops counted with all their rounds."""
MAX_ROUNDS = 10_000
CALLS = {"func.call": "callee", "stablehlo.composite": "decomposition"}
"""Operations that run another function of the program, and the attribute that names it."""
REPEATING = frozenset(f"stablehlo.{name}" for name in ("reduce", "reduce_window", "dot_general", "sort", "scatter"))
"""Operations that do something for every element of what they take."""
CUSTOM_CALLS = frozenset({"shape_assertion"})
_ELEMENTWISE = (
    "abs add and atan2 cbrt ceil clamp compare complex convert cosine count_leading_zeros divide exponential "
    "exponential_minus_one floor imag is_finite log log_plus_one logistic maximum minimum multiply negate not or "
    "popcnt power real reduce_precision remainder round_nearest_afz round_nearest_even rsqrt select shift_left "
    "shift_right_arithmetic shift_right_logical sign sine sqrt subtract tan tanh xor bitcast_convert"
)
_STRUCTURAL = (
    "broadcast_in_dim broadcast case concatenate constant custom_call dot_general dynamic_broadcast_in_dim "
    "dynamic_gather dynamic_iota dynamic_pad dynamic_reshape dynamic_slice dynamic_update_slice gather "
    "get_dimension_size if iota optimization_barrier pad real_dynamic_slice reduce reduce_window reshape return "
    "reverse scatter slice sort transpose tuple get_tuple_element while"
)
_CHLO = (
    "acos acosh asin asinh atan atanh bessel_i1e broadcast_add conj constant cosh digamma erf erf_inv erfc is_inf "
    "is_neg_inf is_pos_inf lgamma next_after polygamma sinh square tan top_k zeta"
)
ALLOWED = frozenset(
    {"builtin.module", "func.func", "func.return", *CALLS}
    | {f"stablehlo.{name}" for name in (*_ELEMENTWISE.split(), *_STRUCTURAL.split())}
    | {f"chlo.{name}" for name in _CHLO.split()}
)
"""Operations that a reward may consist of: arithmetic, comparison, indexing, sorting, reductions, bounded loops."""


def check_operations(exported: Any) -> None:
    """Refuse operations outside :data:`ALLOWED`, custom calls, functions that call themselves, and long programs.

    Raises:
        CandidateRefused: at stage ``verify``.
    """
    with mlir.make_ir_context():
        module = exported.mlir_module(serialized=False)
        count, calls = 0, {}
        for operation, function in walk(module.operation):
            count += 1
            _check_operation(operation)
            if operation.name == "builtin.module" and count > 1:
                raise _refused("the program has a program inside; build it again.")
            if operation.name in CALLS:
                calls.setdefault(function, set()).add(_callee(operation))
        if count > MAX_OPERATIONS:
            raise _refused(f"the program has {count} operations, at most {MAX_OPERATIONS} are allowed; shorten it.")
    _check_no_recursion(calls)


def check_sizes(exported: Any, lanes: int) -> None:
    """Refuse arrays that are too large for ``lanes`` lanes, loops that may not end, and too much work.

    What differs between platforms is looked at for every platform, not only for the one at hand.

    Raises:
        CandidateRefused: at stage ``verify``.
    """
    for platform in exported.platforms if _branches(exported) else (None,):
        refined = _refined(exported, lanes, platform)
        with mlir.make_ir_context():
            Cost(mlir.ir.Module.parse(refined), lanes).check()


class Cost:
    """Elements that a program with known shapes computes, every function once and loops by their rounds.

    Args:
        module: the program.
        lanes: number of lanes that it was refined for.
    """

    def __init__(self, module: Any, lanes: int) -> None:
        self.lanes, self.module = lanes, module  # operations live as long as their module
        self.functions = {_symbol(op): op for op, _ in walk(module.operation) if op.name == "func.func"}
        self.work = functools.cache(self._work_of_function)

    def check(self) -> None:
        """Raises :class:`CandidateRefused` if the whole does more than :data:`MAX_WORK` per lane."""
        work = self.work("main")
        if work > MAX_WORK * self.lanes:
            raise _refused(
                f"the program computes {work // self.lanes:,} elements per transition, at most {MAX_WORK:,} are "
                "allowed; use smaller arrays or fewer rounds."
            )

    def _work_of_function(self, name: str) -> int:
        return sum(self._work(op) for op in _children(self.functions[name]))

    def _work(self, op: Any) -> int:
        own = sum(self._elements(result.type) for result in op.results)
        if op.name in CALLS:
            return own + self.work(_callee(op))
        inner = sum(self._work(child) for child in _children(op))
        if op.name == "stablehlo.while":
            return own + inner * _rounds(op)
        return own + self._repeats(op) * max(inner, 1) if op.name in REPEATING else own + inner

    def _repeats(self, op: Any) -> int:
        """How often an operation does its inner step: the region of a reduction, or a product."""
        results, operands = ([self._elements(value.type) for value in side] for side in (op.results, op.operands))
        if op.name == "stablehlo.dot_general":
            shape = mlir.ir.RankedTensorType(op.operands[0].type).shape
            numbers = str(op.attributes["dot_dimension_numbers"]).partition("lhs_contracting_dimensions = [")[2]
            sizes = [shape[int(i)] for i in numbers.partition("]")[0].split(",") if i.strip()]
            return results[0] * int(np.prod(sizes, dtype=object)) + sum(operands)
        if op.name == "stablehlo.reduce_window":
            window = list(mlir.ir.DenseI64ArrayAttr(op.attributes["window_dimensions"]))
            return max(results) * int(np.prod(window, dtype=object)) + sum(operands)
        if op.name == "stablehlo.sort":
            return sum(operands) * max(max(operands).bit_length(), 1)
        return sum(operands)

    def _elements(self, kind: Any) -> int:
        try:
            kind = mlir.ir.RankedTensorType(kind)
        except ValueError:
            raise _refused(f"the program has a value of type {kind}; use arrays only.") from None
        if not kind.has_static_shape:
            raise _refused(f"the size of an array ({kind}) depends on values; use arrays of constant size.")
        shape = kind.shape
        size = int(np.prod([int(n) for n in shape], dtype=object)) if len(shape) else 1
        if size > MAX_ELEMENTS * self.lanes:
            raise _refused(
                f"the program makes an array of {size // self.lanes:,} elements per transition ({kind}), at most "
                f"{MAX_ELEMENTS:,} are allowed; use smaller arrays."
            )
        return size


def walk(operation: Any, function: str = "") -> Iterator[tuple[Any, str]]:
    """Every operation with the name of the function that it is in; an explicit stack, as programs can be deep."""
    stack = [(operation, function)]
    while stack:
        op, name = stack.pop()
        yield op, name
        inside = _symbol(op) if op.name == "func.func" else name
        stack.extend((child, inside) for child in _children(op))


# --- parts ----------------------------------------------------------------------------------------------------------


def _branches(exported: Any) -> bool:
    """Whether the program may be another one on another platform."""
    with mlir.make_ir_context():
        module = exported.mlir_module(serialized=False)
        return any(op.name == "stablehlo.case" for op, _ in walk(module.operation))


def _refined(exported: Any, lanes: int, platform: str | None = None) -> bytes:
    """The program with the shapes that it has for so many lanes, on a platform or the one at hand."""
    import jax.extend.mlir

    avals = [jax.ShapeDtypeStruct((lanes, *aval.shape[1:]), aval.dtype) for aval in exported.in_avals]
    try:
        platforms = None if platform is None else (platform,)
        lowered = jax.jit(exported.call).trace(*avals).lower(lowering_platforms=platforms)
        module: Any = lowered.compiler_ir("stablehlo")
        return jax.extend.mlir.refine_polymorphic_shapes(mlir.module_to_bytecode(module))
    except Exception as error:
        text = str(error).splitlines()[0][:200] if str(error) else ""
        raise _refused(f"the shapes of the program do not fit together ({type(error).__name__}: {text}).") from None


def _check_operation(op: Any) -> None:
    if op.name not in ALLOWED:
        raise _refused(
            f"the operation {op.name.rpartition('.')[2]} is not allowed in a reward; use plain array arithmetic "
            "(no random numbers, FFT, convolutions, matrix decompositions, communication or callbacks)."
        )
    if op.name == "stablehlo.composite":
        _check_composite(op)
    if op.name == "stablehlo.custom_call":
        target = mlir.ir.StringAttr(op.attributes["call_target_name"]).value
        if target not in CUSTOM_CALLS:
            raise _refused(
                f"the call of the library function {target!r} is not allowed; use plain array arithmetic instead of "
                "matrix decompositions, special functions with callbacks, and kernels."
            )


def _check_composite(op: Any) -> None:
    name = mlir.ir.StringAttr(op.attributes["name"]).value
    if name not in ALLOWED:
        raise _refused(f"the composite operation {name[:40]!r} is not allowed in a reward; use plain array arithmetic.")


def _check_no_recursion(calls: dict[str, set[str]]) -> None:
    done: set[str] = set()
    for start in calls:
        stack, path = [(start, False)], []
        while stack:
            name, leaving = stack.pop()
            if leaving:
                path.pop()
                done.add(name)
            elif name in path:
                raise _refused(f"the function {name[:40]!r} of the program calls itself; write a bounded loop.")
            elif name not in done:
                path.append(name)
                stack.append((name, True))
                stack.extend((callee, False) for callee in calls.get(name, ()))


def _rounds(op: Any) -> int:
    """Number of rounds of ``for (i = constant; i < constant; i += constant)``, which is how JAX writes scan and fori.

    Raises:
        CandidateRefused: for any other loop, or one with more than :data:`MAX_ROUNDS`.
    """
    condition, body = (region.blocks[0] for region in op.regions)
    test = _defining(list(condition.operations)[-1].operands[0])
    if test is None or test.name != "stablehlo.compare" or "LT" not in str(test.attributes["comparison_direction"]):
        raise _unbounded()
    position = _position(test.operands[0], condition)
    step = _defining(list(body.operations)[-1].operands[position])
    if step is None or step.name != "stablehlo.add" or _position(step.operands[0], body) != position:
        raise _unbounded()
    first, limit, stride = map(_constant, (op.operands[position], test.operands[1], step.operands[1]))
    if stride < 1 or max(first, limit) + stride > _largest(op.operands[position].type):
        raise _unbounded()  # a counter that overflows starts again below the limit
    rounds = max(0, -(-(limit - first) // stride))
    if rounds > MAX_ROUNDS:
        raise _refused(f"a loop has {rounds:,} rounds, at most {MAX_ROUNDS:,} are allowed; shorten it.")
    return rounds


def _largest(kind: Any) -> int:
    """The largest value of an array of integers."""
    element = mlir.ir.IntegerType(mlir.ir.RankedTensorType(kind).element_type)
    return 2 ** (element.width - (0 if element.is_unsigned else 1)) - 1


def _position(value: Any, block: Any) -> int:
    for i, argument in enumerate(block.arguments):
        if argument == value:
            return i
    raise _unbounded()


def _constant(value: Any) -> int:
    op = _defining(value)
    if op is None or op.name != "stablehlo.constant":
        raise _unbounded()
    try:
        return int(mlir.ir.DenseIntElementsAttr(op.attributes["value"])[0])
    except ValueError:
        raise _unbounded() from None


def _defining(value: Any) -> Any:
    owner = value.owner
    return None if isinstance(owner, mlir.ir.Block) else getattr(owner, "operation", owner)


def _children(op: Any) -> list[Any]:
    return [child.operation for region in op.regions for block in region.blocks for child in block.operations]


def _callee(op: Any) -> str:
    return mlir.ir.FlatSymbolRefAttr(op.attributes[CALLS[op.name]]).value


def _symbol(op: Any) -> str:
    return mlir.ir.StringAttr(op.attributes["sym_name"]).value


def _unbounded() -> CandidateRefused:
    return _refused("a loop has no constant number of rounds; use lax.fori_loop with constants, or lax.scan.")


def _refused(reason: str) -> CandidateRefused:
    return CandidateRefused("verify", reason)
