"""A first look at a candidate's text, in milliseconds and without running it; its messages are made for the model.

It is no wall: text that passes may still do harm, and runs only behind the walls of the worker.
"""

import ast
import math
from collections.abc import Iterator

from reward_design._names import suggestion
from reward_design.llm import scope
from reward_design.llm.inputs import INPUTS, MEMORY
from reward_design.llm.names import (
    BUILTINS,
    IMPORTS,
    JAX,
    LINALG,
    METHODS,
    NODES,
    NOT_IN_JNP,
    NOT_IN_LAX,
    REASONS,
)
from reward_design.llm.refusal import CandidateRefused

MAX_SOURCE, MAX_NODES, MAX_DEPTH = 20_000, 5_000, 60
MAX_TEXT, MAX_NUMBER, MAX_EXPONENT, MAX_REPEAT = 2_000, 2**63, 1_000, 10_000


def check(source: str) -> None:
    r"""Refuse a text that cannot be a reward.

    Args:
        source: Python text.

    Raises:
        CandidateRefused: at stage ``lint``, with the line and what to do.

    Example:
        >>> check("import os\ndef reward(obs): return obs")
        Traceback (most recent call last):
        reward_design.llm.refusal.CandidateRefused: refused at stage 'lint': line 1: 'os' cannot be imported; ...
    """
    tree = _parsed(source)
    nodes = list(_walk(tree))
    _check_definitions(tree)
    known, modules = scope.defined(nodes), scope.aliases(nodes)
    for node in nodes:
        for rule in (_check_node, _check_import, _check_constant, _check_function):
            rule(node)
        _check_name(node, known)
        _check_attribute(node, modules)
    for function in scope.recursive(nodes):
        reason = f"{function.name} calls itself; write a loop with a fixed number of rounds, or lax.scan."
        raise _refused(function, reason)


# --- reading --------------------------------------------------------------------------------------------------------


def _parsed(source: str) -> ast.Module:
    if len(source) > MAX_SOURCE:
        raise _refused(
            None, f"the code has {len(source)} characters, at most {MAX_SOURCE} are read; write a shorter reward."
        )
    try:
        return ast.parse(source)
    except SyntaxError as error:
        where = "" if error.lineno is None else f"line {error.lineno}: "
        what = str(error.msg).partition(";")[0]  # advice for people who may change the interpreter is none for a model
        raise CandidateRefused("lint", f"{where}syntax error: {what}; give plain Python code.") from None
    except (ValueError, RecursionError, MemoryError, UnicodeError) as error:
        raise _refused(
            None, f"the code cannot be read ({type(error).__name__}); write short, plain expressions."
        ) from None


def _walk(tree: ast.Module) -> Iterator[ast.AST]:
    """Every node; refuses deep and long programs before anything recursive sees them."""
    stack: list[tuple[ast.AST, int]] = [(tree, 0)]
    count = 0
    while stack:
        node, depth = stack.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_NODES:
            raise _refused(
                node, "the code is too long or too deeply nested; write a shorter reward with fewer brackets."
            )
        yield node
        stack.extend((child, depth + 1) for child in ast.iter_child_nodes(node))


def _check_definitions(tree: ast.Module) -> None:
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]
    if names.count("reward") != 1:
        raise _refused(
            None, f"define exactly one function called reward, got {names.count('reward')}: def reward(obs, ...)."
        )
    for node in tree.body:
        _check_outside(node)
    _check_parameters(functions["reward"])
    reads = [argument.arg for argument in functions["reward"].args.args + functions["reward"].args.kwonlyargs]
    if MEMORY in reads and "initial_memory" not in functions:
        raise _refused(
            functions["reward"], "reward reads memory; also define initial_memory() that returns its first value."
        )
    if "initial_memory" in functions and any(ast.iter_child_nodes(functions["initial_memory"].args)):
        raise _refused(functions["initial_memory"], "initial_memory takes no parameters; remove them.")


def _check_outside(node: ast.stmt) -> None:
    if isinstance(node, ast.Assign):
        allowed = all(isinstance(target, (ast.Name, ast.Tuple)) for target in node.targets)
    else:
        allowed = isinstance(node, (ast.FunctionDef, ast.Import, ast.ImportFrom, ast.AnnAssign)) or _is_text(node)
    if not allowed:
        raise _refused(node, "only imports, constants and functions may stand outside of functions; move it inside.")


def _check_parameters(reward: ast.FunctionDef) -> None:
    arguments = reward.args
    if arguments.vararg or arguments.kwarg or arguments.defaults or any(arguments.kw_defaults):
        raise _refused(reward, "reward takes its inputs by name, without *, ** and default values; remove them.")
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    if arguments.posonlyargs or not names:
        raise _refused(reward, f"reward must read some of its inputs by name: {', '.join(INPUTS)}, {MEMORY}.")
    for name in names:
        if name not in (*INPUTS, MEMORY):
            known = (*INPUTS, MEMORY)
            raise _refused(reward, f"reward has no input {name!r}{suggestion(name, known)} Inputs: {', '.join(known)}.")


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


# --- rules for one node ---------------------------------------------------------------------------------------------


def _check_node(node: ast.AST) -> None:
    name = type(node).__name__
    if name not in NODES:
        reason = REASONS.get(name, f"{name} is not part of the language of rewards; write plain array code.")
        raise _refused(node, reason)


def _check_import(node: ast.AST) -> None:
    if isinstance(node, ast.Import):
        modules = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        modules = [f"{node.module or ''}.{alias.name}" for alias in node.names]
        if node.level or node.module not in IMPORTS:
            raise _refused(node, f"{node.module or '.'!r} cannot be imported; {_importable()}.")
        for alias in node.names:
            _check_member(node, node.module, alias.name)
        return
    else:
        return
    for module in modules:
        if module not in IMPORTS:
            hint = "use jnp, which is at hand" if module.split(".")[0] == "numpy" else _importable()
            raise _refused(node, f"{module!r} cannot be imported; {hint}.")


def _check_constant(node: ast.AST) -> None:
    if isinstance(node, ast.Constant):
        value = node.value
        if isinstance(value, bytes) or (isinstance(value, str) and len(value) > MAX_TEXT):
            raise _refused(node, "bytes and long texts have no place in a reward; remove them.")
        if isinstance(value, int) and abs(value) >= MAX_NUMBER:
            raise _refused(node, "the number is too large; use one that fits 32 bits, or a float.")
        if isinstance(value, complex):
            raise _refused(node, "complex numbers have no place in a reward; use real ones.")
    if isinstance(node, ast.BinOp):
        _check_growth(node)


def _check_growth(node: ast.BinOp) -> None:
    """Python's own arithmetic on constants must not build giants."""
    limits: dict[type[ast.operator], float] = {ast.Pow: MAX_EXPONENT, ast.LShift: 64}
    limit = limits.get(type(node.op))
    if limit is not None and _largest(node.right) > limit:
        raise _refused(node, f"the exponent must be a plain number up to {limit}; use jnp.power for arrays.")
    if isinstance(node.op, ast.Mult):
        for one, other in ((node.left, node.right), (node.right, node.left)):
            text = isinstance(one, ast.Constant) and isinstance(one.value, str)
            if (text or isinstance(one, (ast.List, ast.Tuple, ast.ListComp))) and _largest(other) > MAX_REPEAT:
                raise _refused(node, "a list this long is too large; use jnp.zeros or jnp.full with a small shape.")
    if isinstance(node.op, ast.Mod) and isinstance(node.left, ast.Constant) and isinstance(node.left.value, str):
        raise _refused(node, "formatted text has no place in a reward; remove it.")


def _largest(node: ast.AST) -> float:
    """How large the numbers in an expression can become, by its constants and operators; at most 1e300."""
    if isinstance(node, ast.Constant):
        return float(min(abs(node.value), 1e300)) if isinstance(node.value, (int, float)) else 0.0
    if not isinstance(node, ast.BinOp):
        return max(map(_largest, ast.iter_child_nodes(node)), default=0.0)
    left, right = _largest(node.left), _largest(node.right)
    if isinstance(node.op, ast.Pow):
        return 10.0 ** min(right * math.log10(max(left, 1.0)), 300.0)
    if isinstance(node.op, ast.LShift):
        left, right = max(left, 1.0), 2.0 ** min(right, 900.0)
    product = isinstance(node.op, (ast.Mult, ast.LShift))
    return min(max(left, 1.0) * max(right, 1.0) if product else left + right, 1e300)


def _check_function(node: ast.AST) -> None:
    if isinstance(node, ast.FunctionDef):
        for decorator in node.decorator_list:
            if ast.unparse(decorator) not in ("jax.jit", "jit"):
                raise _refused(decorator, "remove the decorator; functions are compiled anyway.")
        _check_word(node, node.name)
    if isinstance(node, ast.arg):
        _check_word(node, node.arg)
    if isinstance(node, (ast.For, ast.comprehension)) and isinstance(node.iter, ast.Call):
        called, found = ast.unparse(node.iter.func), _largest(node.iter)
        if called == "range" and found > MAX_REPEAT:
            raise _refused(
                node, f"a Python loop has at most {MAX_REPEAT} rounds; use lax.fori_loop or an array operation."
            )


def _check_name(node: ast.AST, defined: set[str]) -> None:
    if isinstance(node, ast.keyword) and node.arg:
        _check_word(node.value, node.arg)
    if not isinstance(node, ast.Name):
        return
    _check_word(node, node.id)
    if isinstance(node.ctx, ast.Load) and node.id not in defined and node.id not in BUILTINS:
        if node.id in ("np", "numpy"):
            raise _refused(node, "numpy is not at hand; use jnp.")
        reason = REASONS.get(node.id, "define it first, or use what is at hand: the inputs, jax, jnp, lax, math")
        raise _refused(node, f"the name {node.id!r} is not at hand; {reason}.")


def _check_attribute(node: ast.AST, modules: dict[str, str]) -> None:
    if not isinstance(node, ast.Attribute):
        return
    _check_word(node, node.attr)
    owner = scope.module_of(node.value, modules)
    if owner is not None:
        _check_member(node, owner, node.attr)
    elif node.attr in METHODS:
        raise _refused(node, f".{node.attr} is not allowed; {METHODS[node.attr]}.")


def _check_member(node: ast.AST, module: str, name: str) -> None:
    """A member of one of the modules at hand."""
    _check_word(node, name)
    full = f"{module}.{name}"
    if name == "*":
        raise _refused(node, "import names one by one, not *.")
    if module == "jax" and name not in JAX:
        known = ", ".join(sorted(JAX))
        raise _refused(node, f"{full} is not allowed{suggestion(name, JAX)} Of jax there is {known}.")
    if module == "jax.numpy" and name in NOT_IN_JNP:
        raise _refused(node, f"{full} is not allowed; {NOT_IN_JNP[name]}.")
    if module == "jax.numpy.linalg" and name not in LINALG:
        raise _refused(node, f"{full} needs a library that rewards cannot call; of jnp.linalg use {', '.join(LINALG)}.")
    if module == "jax.lax" and (name in NOT_IN_LAX or name.endswith("callback")):
        raise _refused(node, f"{full} is not allowed; {NOT_IN_LAX.get(name, 'a reward calls nothing outside')}.")
    if module == "functools" and name not in ("partial", "reduce"):
        raise _refused(node, f"{full} is not allowed; of functools there are partial and reduce.")
    if module == "typing" and (name[0].islower() or "Forward" in name):
        raise _refused(node, f"{full} is not allowed; of typing there are types such as Any and Optional.")


def _check_word(node: ast.AST, name: str) -> None:
    if name.startswith("_") and name != "_":
        raise _refused(node, f"names must not begin with an underscore, got {name[:40]!r}; choose another one.")
    if not name.isascii():
        raise _refused(node, f"names must be plain letters, got {name[:40]!r}.")


def _importable() -> str:
    return f"a reward may import {', '.join(sorted(IMPORTS))}"


def _refused(node: ast.AST | None, reason: str) -> CandidateRefused:
    line = getattr(node, "lineno", None)
    return CandidateRefused("lint", f"line {line}: {reason}" if line else reason)
