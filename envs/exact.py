"""Ground rules of exact computation on finite MDPs, for value iteration, distances and regret.

Concrete arrays are computed on the host in NumPy float64, whatever ``jax_enable_x64`` says: a distance of exactly
equivalent rewards is then about 1e-15 and not 1e-4, nothing is compiled, and no large table is copied to a device.
Traced arrays (inside ``jax.jit`` or ``jax.vmap``) are computed by JAX in the dtype they have. The same code serves
both: the array namespace is picked by :func:`floats`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from reward_design.envs.base import Tabular

S = TypeVar("S")

Numbers = ArrayLike | Sequence[Any]
"""Arrays of NumPy or JAX, traced ones included, and nested lists."""

quiet = np.errstate(invalid="ignore", over="ignore", divide="ignore")
"""NaN and infinity are reported by :func:`check_finite` afterwards, not by warnings on the way."""


def is_traced(*arrays: Any) -> bool:
    """True if any leaf is an abstract value of a JAX transformation."""
    return any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(arrays))


def floats(*arrays: Any) -> tuple[Any, ...]:
    """The array namespace to compute in, followed by the arrays as floats in it.

    Args:
        *arrays: anything that NumPy takes as an array, or traced arrays.

    Returns:
        ``(numpy, *arrays)`` in float64 if all are concrete, else ``(jax.numpy, *arrays)`` in their common float dtype.

    Example:
        >>> xp, x = floats([[1, 2]])
        >>> xp.__name__, x.dtype.name
        ('numpy', 'float64')
    """
    if not is_traced(arrays):
        return np, *(np.asarray(x, np.float64) for x in arrays)
    dtype = jnp.result_type(float, *(x for x in arrays if isinstance(x, Tracer)))
    return jnp, *(jnp.asarray(x, dtype) for x in arrays)


def zero_tolerance(x: Any) -> float:
    """Relative size below which a result of cancellation counts as zero: 1e-10 in float64, 1e-5 in float32."""
    return 1e-10 if x.dtype == np.float64 else 1e-5


def while_loop(xp: Any, condition: Callable[[S], Any], body: Callable[[S], S], state: S) -> S:
    """``jax.lax.while_loop``, or the same in Python for NumPy."""
    if xp is not np:
        return jax.lax.while_loop(condition, body, state)
    while condition(state):
        state = body(state)
    return state


def solve(xp: Any, system: Any, target: Any) -> Any:
    """Solve ``system x = target`` for ``[..., S, S]`` and ``[..., S]``; one factorisation if all share a system."""
    if system.size == system.shape[-1] ** 2:
        size = system.shape[-1]
        return xp.linalg.solve(system.reshape(size, size), target.reshape(-1, size).T).T.reshape(target.shape)
    batch = np.broadcast_shapes(system.shape[:-2], target.shape[:-1])
    system = xp.broadcast_to(system, (*batch, *system.shape[-2:]))
    return xp.linalg.solve(system, xp.broadcast_to(target, (*batch, target.shape[-1]))[..., None])[..., 0]


def align(*arrays_and_ranks: tuple[Any, int]) -> tuple[Any, ...]:
    """Give all arrays the same number of leading batch axes (of size 1 where they had none).

    Args:
        *arrays_and_ranks: pairs of an array and the number of its trailing axes that are not batch axes.

    Raises:
        ValueError: if the leading axes do not broadcast.
    """
    leads = [x.shape[: x.ndim - rank] for x, rank in arrays_and_ranks]
    try:
        num_batch = len(np.broadcast_shapes(*leads))
    except ValueError:
        raise ValueError(
            f"leading batch axes must broadcast against each other, got {', '.join(map(str, leads))}; "
            "add axes of size 1 where an array is shared."
        ) from None
    return tuple(
        x.reshape((1,) * (num_batch - len(lead)) + x.shape)
        for (x, _), lead in zip(arrays_and_ranks, leads, strict=True)
    )


def as_result(x: Any) -> Any:
    """Python float for a NumPy scalar, anything else unchanged."""
    return float(x) if isinstance(x, (np.ndarray, np.generic)) and x.ndim == 0 else x


# --- checks ---------------------------------------------------------------------------------------------------------


def check_discount(gamma: Any, *, one_allowed: bool = False) -> None:
    """Raise a ValueError unless ``gamma`` is in [0, 1), or in [0, 1] if ``one_allowed``. Traced values pass."""
    if is_traced(gamma):
        return
    values = np.atleast_1d(np.asarray(gamma, float))
    wrong = ~((values >= 0) & ((values <= 1) if one_allowed else (values < 1)))
    if wrong.any():
        interval = "[0, 1]" if one_allowed else "[0, 1)"
        hint = "" if one_allowed else "; exact values need a discount below 1"
        raise ValueError(f"gamma must be in {interval}, got {values[wrong][0]}{hint}.")


def check_transition(transition: Any) -> None:
    """Raise a ValueError unless ``transition`` is ``[..., S, A, S]`` with rows that are distributions."""
    shape = np.shape(transition)
    if len(shape) < 3 or shape[-3] != shape[-1]:
        raise ValueError(
            f"transition must have shape [..., S, A, S], got {shape}; the axes are state, action, next state."
        )
    check_distribution("transition", transition)


def check_distribution(name: str, probabilities: Any) -> None:
    """Raise a ValueError unless the last axis holds probabilities that sum to 1. Traced values pass."""
    if is_traced(probabilities):
        return
    values = np.asarray(probabilities)
    total = values.sum(-1, dtype=np.float64)
    wrong = ~(np.abs(total - 1) <= 1e-5) | (values < 0).any(-1)
    if wrong.any():
        index = np.argwhere(wrong)[0]
        row = f"{name}[{', '.join(map(str, index))}]" if index.size else name
        raise ValueError(
            f"{row} must be a distribution over its last axis, got the sum {total[tuple(index)]:.6g} and the least "
            f"entry {values[tuple(index)].min():.3g}; normalise it, or check the order of the axes."
        )


def check_table(name: str, table: Any, shape: tuple[int, ...], axes: str = "[S, A, S]") -> None:
    """Raise a ValueError unless the trailing axes of ``table`` are ``shape``."""
    if np.shape(table)[-len(shape) :] != tuple(shape):
        raise ValueError(
            f"{name} must have shape {axes} = {tuple(shape)} (after leading batch axes), got {np.shape(table)}; "
            "all arrays must describe the same MDP."
        )


def check_finite(result: Any, **inputs: Any) -> None:
    """Raise a ValueError that says where an input is NaN or infinite, if ``result`` is. Traced values pass.

    Looking at the (small) result first spares a pass over the (large) inputs.
    """
    if is_traced(result, inputs) or np.isfinite(result).all():
        return
    for name, value in inputs.items():
        bad = ~np.isfinite(value)
        if bad.any():
            index = tuple(int(i) for i in np.argwhere(bad)[0])
            raise ValueError(
                f"{name} must be finite, got {np.asarray(value)[index]} at index {list(index)} "
                f"({math.prod(bad.shape)} entries, {int(bad.sum())} not finite); fix the reward."
            )
    raise ValueError(f"the result overflowed: {', '.join(inputs)} are finite but too large; rescale them.")


def check_model(model: Tabular) -> None:
    """Raise a ValueError unless the dynamics of ``model`` are those of a discounted MDP."""
    check_transition(model.transition)
    check_discount(model.gamma)
