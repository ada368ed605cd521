"""A verified program as a function that JAX can transform."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.llm.verify import Program


def callable_program(program: Program) -> Callable[..., tuple[Any, ...]]:
    """``(*arrays [B, ...]) -> arrays [B, ...]``, under ``jit``, ``scan``, ``vmap`` and reverse-mode ``grad``.

    JAX knows no batching rule for a program that was exported. A ``vmap`` over seeds therefore folds its axis into the
    lanes, which the program has any number of; gradients are the exported derivative, folded in the same way.

    Args:
        program: the verified program.
    """
    exported = program.exported
    real_in, real_out = (
        [jnp.issubdtype(aval.dtype, jnp.floating) for aval in avals]
        for avals in (exported.in_avals, exported.out_avals)
    )

    def pull_back(*arrays: Any) -> tuple[Any, ...]:
        """Primals and the cotangents of the real outputs -> cotangents of the real inputs."""
        primals, given = arrays[: len(real_in)], iter(arrays[len(real_in) :])
        lanes = primals[0].shape[0]
        cotangents = [
            next(given) if real else np.zeros((lanes, *aval.shape[1:]), jax.dtypes.float0)
            for real, aval in zip(real_out, exported.out_avals)
        ]
        found = program.derivative.call(*primals, *cotangents)
        return tuple(c for c, real in zip(found, real_in) if real)

    forward, backward = _folding(program, exported.call), _folding(program, pull_back)

    @jax.custom_vjp
    def call(*arrays: Any) -> tuple[Any, ...]:
        return forward(*arrays)

    def primal(*arrays: Any) -> tuple[Any, Any]:
        return forward(*arrays), arrays

    def cotangent(arrays: Any, given: Any) -> tuple[Any, ...]:
        found = iter(backward(*arrays, *(c for c, real in zip(given, real_out) if real)) if any(real_in) else ())
        return tuple(
            next(found) if real else np.zeros(np.shape(x), jax.dtypes.float0) for x, real in zip(arrays, real_in)
        )

    call.defvjp(primal, cotangent)
    return call


def _folding(program: Program, fn: Callable[..., Any]) -> Callable[..., tuple[Any, ...]]:
    """``fn`` of ``[B, ...]`` arrays; under ``vmap`` of ``[S * B, ...]`` arrays."""

    @jax.custom_batching.custom_vmap
    def folded(*arrays: Any) -> tuple[Any, ...]:
        program.check_size(arrays[0].shape[0])
        return tuple(fn(*arrays))

    @folded.def_vmap
    def rule(size: int, batched: Any, *arrays: Any) -> tuple[Any, Any]:
        wide = [x if b else jnp.broadcast_to(x, (size, *x.shape)) for x, b in zip(arrays, batched)]
        outputs = folded(*(x.reshape(size * x.shape[1], *x.shape[2:]) for x in wide))
        lanes = wide[0].shape[1]
        return tuple(y.reshape(size, lanes, *y.shape[1:]) for y in outputs), (True,) * len(outputs)

    return folded
