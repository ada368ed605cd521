"""Which names a candidate defines, which of them stand for modules, and which functions call themselves."""

import ast
from collections.abc import Iterator

MODULES = frozenset(
    {"jax", "jax.numpy", "jax.numpy.linalg", "jax.lax", "jax.nn", "jax.scipy", "math", "functools", "typing"}
)
"""Modules whose members the linter knows."""


def defined(nodes: list[ast.AST]) -> set[str]:
    """Names that are at hand or get a value somewhere."""
    names = {"jax", "jnp", "lax", "math", "functools", "typing"}
    for node in nodes:
        if isinstance(node, ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.alias):
            names.add(node.asname or node.name.partition(".")[0])
    return names


def aliases(nodes: list[ast.AST]) -> dict[str, str]:
    """Which names stand for which modules."""
    names = {"jax": "jax", "jnp": "jax.numpy", "lax": "jax.lax"} | {n: n for n in ("math", "functools", "typing")}
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.asname: alias.name for alias in node.names if alias.asname}
        elif isinstance(node, ast.ImportFrom):
            full = {alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names}
            names |= {name: module for name, module in full.items() if module in MODULES}
        elif isinstance(node, ast.Assign) and module_of(node.value, names):
            names |= {t.id: str(module_of(node.value, names)) for t in node.targets if isinstance(t, ast.Name)}
    return names


def module_of(node: ast.AST, names: dict[str, str]) -> str | None:
    """The module that an expression stands for."""
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = module_of(node.value, names)
        full = f"{owner}.{node.attr}"
        return full if owner and full in MODULES else None
    return None


def recursive(nodes: list[ast.AST]) -> Iterator[ast.FunctionDef]:
    """Functions that reach themselves through calls by name."""
    functions = {node.name: node for node in nodes if isinstance(node, ast.FunctionDef)}
    reached = {name: _names_in(node) & set(functions) for name, node in functions.items()}
    for name, node in functions.items():
        seen: set[str] = set()
        todo = set(reached[name])
        while todo:
            seen |= todo
            todo = {further for found in todo for further in reached[found]} - seen
        if name in seen:
            yield node


def _names_in(function: ast.FunctionDef) -> set[str]:
    own = {node.arg for node in ast.walk(function) if isinstance(node, ast.arg)}
    found = {node.id for node in ast.walk(function) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    return found - own
