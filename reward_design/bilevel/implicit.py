"""Hypergradients: how the optimum of an inner problem, and what an outer objective makes of it, move with parameters.

For theta*(phi) with dI(theta*, phi)/dtheta = 0, H = d2I/dtheta2 and A = d2I/dtheta dphi,

    d O(theta*(phi), phi) / dphi = dO/dphi + A^T (-H)^{-1} v,      v = dO/dtheta.

All of it is computed from products with H and A, never from their entries, except by the dense method.
"""

import inspect
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float, PyTree

from reward_design._names import suggestion

Objective = Callable[[Any, Any], Any]
"""``(theta, phi) -> scalar``."""

METHODS = ("identity", "neumann", "cg", "exact", "unrolled")
"""Ways to apply (-H)^{-1}."""

POWER_ITERATIONS = 24
SAFETY = 0.9
"""Share of 1 / rho that a step takes when it is not given: power iteration finds rho from below."""


class Diagnostics(NamedTuple):
    """How far a hypergradient can be trusted.

    Attributes:
        a_rho: step size times the spectral radius of H (found by power iteration); a series needs less than 2. NaN
            for methods without a step.
        residual: ``|-H p + damping p - v| / |v|`` of the vector p that stands for (-H)^{-1} v; NaN for ``unrolled``.
        cosine: between this gradient and that of the dense method; NaN unless it was asked for.
        diverged: the series (or the unrolled ascent) does not converge; the gradient is then NaN.
    """

    a_rho: Float[Array, ""]
    residual: Float[Array, ""]
    cosine: Float[Array, ""]
    diverged: Bool[Array, ""]


class Hypergradient(NamedTuple):
    """A hypergradient.

    Attributes:
        gradient: d outer / d phi at the inner optimum, with the structure of phi.
        diagnostics: see :class:`Diagnostics`.
    """

    gradient: Any
    diagnostics: Diagnostics


def hypergradient(
    inner: Objective,
    outer: Objective,
    theta: PyTree,
    phi: PyTree,
    *,
    method: str = "cg",
    num_terms: int = 100,
    step_size: Any = None,
    num_steps: int = 100,
    damping: Any = 0.0,
    max_iterations: int | None = None,
    tolerance: float = 1e-10,
    compare_exact: bool = False,
) -> Hypergradient:
    """Gradient of ``outer(theta*(phi), phi)`` with respect to phi, where theta* maximises ``inner`` near ``theta``.

    With p for (-H + damping)^{-1} v the gradient is dO/dphi + A^T p:

    - ``identity``: p = a v, the first-order method; a is ``step_size`` (default 1).
    - ``neumann``: p = a sum_{k=0..K} (I + a (H - damping))^k v with K = ``num_terms``. It converges if all eigenvalues
      of a (H - damping) lie in (-2, 0), or are 0 where v has no share. K = 0 is ``identity``.
    - ``cg``: conjugate gradients on (-H + damping) p = v, for negative definite H.
    - ``exact``: the pseudo-inverse of the dense H, for small theta.
    - ``unrolled``: differentiates through ``num_steps`` steps of plain ascent from ``theta``, recomputed in the
      backward pass in blocks, so that memory grows by about 2 sqrt(``num_steps``) thetas. From the optimum, K + 1 steps
      give what ``neumann`` gives with K. The outer objective is then taken at the end of the ascent.

    Null directions of H (a softmax has one per state) do no harm as long as v has no share in them, which holds where
    they change nothing in the outer objective either.

    Args:
        inner: ``(theta, phi) -> scalar``, ascended; twice differentiable.
        outer: ``(theta, phi) -> scalar``.
        theta: floating-point pytree at, or near, the inner optimum.
        phi: floating-point pytree.
        method: one of :data:`METHODS`.
        num_terms: K >= 0 of the Neumann series.
        step_size: a > 0; by default 0.9 / rho(H - damping) from power iteration (``neumann`` and ``unrolled``).
        num_steps: steps of the unrolled ascent, at least 1.
        damping: >= 0, added to -H (``neumann``, ``cg``, ``exact``).
        max_iterations: of conjugate gradients; default 10 times the size of theta.
        tolerance: relative residual at which conjugate gradients stop, or 10 units of rounding if that is larger.
        compare_exact: also compute the dense answer and report the cosine.

    Returns:
        A :class:`Hypergradient`. Where the series diverges the gradient is NaN and ``diagnostics.diverged`` is set;
        conjugate gradients that stall or meet a direction of positive curvature are reported in the same way.

    Raises:
        ValueError: for an unknown method, a setting out of range, or an objective that is not a scalar.
        TypeError: for theta or phi that are not floating point.

    Example:
        >>> import jax.numpy as jnp
        >>> from reward_design.bilevel import hypergradient
        >>> inner = lambda theta, phi: -jnp.sum((theta - phi) ** 2)  # theta* = phi
        >>> outer = lambda theta, phi: -jnp.sum(theta**2)
        >>> theta = phi = jnp.array([1.0, -2.0])
        >>> hypergradient(inner, outer, theta, phi, method="neumann").gradient.round(4).tolist()
        [-2.0, 4.0]

    Source: J. Lorraine, P. Vicol, D. Duvenaud, "Optimizing Millions of Hyperparameters by Implicit Differentiation",
    2020, arXiv 1911.02590; D. Gupta et al., "Behavior Alignment via Reward Function Optimization", 2023, arXiv
    2310.19007, with whose released code ``neumann`` agrees in sign and in scale.
    """
    _check(method, num_terms, step_size, num_steps, damping, max_iterations)
    theta, phi = _floating("theta", theta), _floating("phi", phi)
    _check_scalar("inner", inner, theta, phi)
    _check_scalar("outer", outer, theta, phi)
    flat, as_theta = ravel_pytree(theta)
    inner_flat: Objective = lambda x, phi: inner(as_theta(x), phi)  # noqa: E731
    outer_flat: Objective = lambda x, phi: outer(as_theta(x), phi)  # noqa: E731

    curvature = hessian(inner_flat, flat, phi)
    damped = lambda x: curvature(x) - damping * x  # noqa: E731
    if method in ("neumann", "unrolled", "identity"):
        rho = spectral_radius(curvature if method == "unrolled" else damped, flat)
        step_size = (
            (1.0 if method == "identity" else SAFETY / jnp.maximum(rho, 1e-30)) if step_size is None else step_size
        )
        a_rho = step_size * rho
    else:
        a_rho = jnp.asarray(jnp.nan, flat.dtype)
    nan = jnp.asarray(jnp.nan, flat.dtype)
    residual, cosine = nan, nan
    v, direct = jax.grad(outer_flat, argnums=(0, 1))(flat, phi)
    through = lambda p: jax.tree.map(jnp.add, direct, mixed_product(inner_flat, flat, phi, p))  # noqa: E731
    if method == "unrolled":
        gradient, diverged = _unrolled(inner_flat, outer_flat, flat, phi, step_size, num_steps)
    else:
        if method == "identity":
            p, diverged = step_size * v, jnp.bool_(False)
        elif method == "neumann":
            p, diverged = neumann_series(damped, v, step_size=step_size, num_terms=num_terms)
        elif method == "cg":
            p, diverged = _conjugate_gradients(damped, v, max_iterations or 10 * flat.size, tolerance)
        else:
            p, diverged = _pseudo_inverse(inner_flat, flat, phi, v, damping), jnp.bool_(False)
        gradient = through(p)
        residual = jnp.linalg.norm(damped(p) + v) / jnp.maximum(jnp.linalg.norm(v), 1e-30)
    if method in ("neumann", "unrolled"):
        diverged = diverged | (a_rho >= 2)
    if compare_exact:
        cosine = _cosine(gradient, through(_pseudo_inverse(inner_flat, flat, phi, v, damping)))
    gradient = jax.tree.map(lambda g: jnp.where(diverged, jnp.nan, g), gradient)
    return Hypergradient(gradient, Diagnostics(jnp.asarray(a_rho), residual, cosine, diverged))


# --- products and solvers on flat vectors ---------------------------------------------------------------------------


def hessian(inner: Objective, theta: Float[Array, " n"], phi: PyTree) -> Callable[[Array], Array]:
    """``x -> H x``, H = d2 inner / dtheta2: the gradient, linearised once, so that a product costs no new gradient."""
    return jax.linearize(lambda t: jax.grad(inner)(t, phi), theta)[1]


def mixed_product(inner: Objective, theta: Float[Array, " n"], phi: PyTree, p: Float[Array, " n"]) -> PyTree:
    """A^T p, A = d2 inner / dtheta dphi: the gradient in phi of the derivative of ``inner`` along p."""
    return jax.grad(lambda phi: jax.jvp(lambda t: inner(t, phi), (theta,), (p,))[1])(phi)


def spectral_radius(
    product: Callable[[Array], Array], like: Float[Array, " n"], num_iterations: int = POWER_ITERATIONS
) -> Float[Array, ""]:
    """Largest absolute eigenvalue of a symmetric matrix given by its products, from below, by power iteration."""
    start = jax.random.normal(jax.random.key(0), like.shape, like.dtype)

    def body(_: Any, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        y = product(carry[0])
        norm = jnp.linalg.norm(y)
        return jnp.where(norm > 0, y / jnp.maximum(norm, 1e-30), carry[0]), norm

    unit = start / jnp.linalg.norm(start)
    return jax.lax.fori_loop(0, num_iterations, body, (unit, jnp.zeros((), like.dtype)))[1]


def neumann_series(
    product: Callable[[Array], Array], v: Float[Array, " n"], *, step_size: Any, num_terms: int
) -> tuple[Float[Array, " n"], Bool[Array, ""]]:
    """A sum_{k=0..K} (I + a M)^k v for symmetric M, and whether the series diverges.

    The norms of the terms are log-convex in k, so that one that is larger than the term before it is followed by larger
    ones only.

    Args:
        product: ``x -> M x``.
        v: the vector.
        step_size: a.
        num_terms: K.
    """

    def body(_: Any, carry: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        term, total, _ = carry
        new = term + step_size * product(term)
        return new, total + new, _grew(term, new)

    _, total, diverged = jax.lax.fori_loop(0, num_terms, body, (v, v, jnp.bool_(False)))
    return step_size * total, diverged | ~jnp.isfinite(total).all()


def _grew(before: Array, after: Array) -> Bool[Array, ""]:
    slack = 1 + 100 * jnp.finfo(after.dtype).eps
    unit = jnp.maximum(jnp.max(jnp.abs(before)), jnp.finfo(after.dtype).tiny)  # squares of large terms overflow
    return ~(jnp.linalg.norm(after / unit) <= slack * jnp.linalg.norm(before / unit))


def _conjugate_gradients(
    product: Callable[[Array], Array], v: Array, max_iterations: int, tolerance: Any
) -> tuple[Array, Bool[Array, ""]]:
    """(-M)^{-1} v; diverged where the residual stays large, or where M is not negative definite.

    Conjugate gradients do not notice a saddle, so the largest eigenvalue of M that has a share in v is looked for, by
    power iteration on M + rho from v.
    """
    eps = jnp.finfo(v.dtype).eps
    tolerance = jnp.maximum(tolerance, 10 * eps)  # beyond it directions are noise, and null ones are long
    p, _ = cg(lambda x: -product(x), v, tol=tolerance, maxiter=max_iterations)
    residual = jnp.linalg.norm(product(p) + v) / jnp.maximum(jnp.linalg.norm(v), 1e-30)
    rho = spectral_radius(product, v)
    shifted = lambda _, x: _unit(product(x) + rho * x)  # noqa: E731
    top = jax.lax.fori_loop(0, POWER_ITERATIONS, shifted, _unit(v))
    saddle = jnp.vdot(top, product(top)) > 100 * v.size * eps * rho
    return p, saddle | ~(residual <= jnp.maximum(10 * tolerance, jnp.sqrt(eps)))


def _unit(x: Array) -> Array:
    return x / jnp.maximum(jnp.linalg.norm(x), 1e-30)


def _pseudo_inverse(inner: Objective, theta: Array, phi: PyTree, v: Array, damping: Any) -> Array:
    matrix = damping * jnp.eye(theta.size, dtype=theta.dtype) - jax.hessian(inner)(theta, phi)
    rcond = theta.size * jnp.finfo(theta.dtype).eps ** 0.75  # zeros are as large as the rounding of what adds up to H
    return jnp.linalg.pinv(0.5 * (matrix + matrix.T), rtol=rcond, hermitian=True) @ v


def _unrolled(
    inner: Objective, outer: Objective, theta: Array, phi: PyTree, step_size: Any, num_steps: int
) -> tuple[PyTree, Bool[Array, ""]]:
    """Reverse mode through the ascent; diverged where the gradient of ``inner`` ended much larger than it began.

    Kept are the parameters at the start of every block of about sqrt(num_steps) steps, and those inside one block.
    """
    step_size = jax.lax.stop_gradient(step_size)
    slope = jax.grad(inner)
    length = max(1, math.isqrt(num_steps))

    @jax.checkpoint
    def step(theta: Array, phi: PyTree) -> Array:
        return theta + step_size * slope(theta, phi)

    def steps(theta: Array, phi: PyTree, number: int) -> Array:
        return jax.lax.scan(lambda theta, _: (step(theta, phi), None), theta, length=number)[0]

    block = jax.checkpoint(partial(steps, number=length))

    def at_the_end(phi: PyTree) -> tuple[Array, Array]:
        end, _ = jax.lax.scan(lambda theta, _: (block(theta, phi), None), theta, length=num_steps // length)
        end = steps(end, phi, num_steps % length)
        return outer(end, phi), end

    gradient, end = jax.grad(at_the_end, has_aux=True)(phi)
    finite = jnp.isfinite(ravel_pytree(gradient)[0]).all()
    first, last = (jnp.linalg.norm(slope(x, phi)) for x in (theta, end))
    return gradient, ~finite | ~(last <= 10 * first + 1e-3)


def _cosine(a: PyTree, b: PyTree) -> Float[Array, ""]:
    a, b = ravel_pytree(a)[0], ravel_pytree(b)[0]
    return jnp.vdot(a, b) / jnp.maximum(jnp.linalg.norm(a) * jnp.linalg.norm(b), 1e-30)


# --- checks ---------------------------------------------------------------------------------------------------------


def _check(method: str, num_terms: Any, step_size: Any, num_steps: Any, damping: Any, max_iterations: Any) -> None:
    if method not in METHODS:
        raise ValueError(
            f"hypergradient: unknown method {method!r}{suggestion(str(method), METHODS)} Known: {', '.join(METHODS)}."
        )
    for name, value, least in (
        ("num_terms", num_terms, 0),
        ("num_steps", num_steps, 1),
        ("max_iterations", 1 if max_iterations is None else max_iterations, 1),
    ):
        if value != int(value) or value < least:
            raise ValueError(f"hypergradient: {name} must be an integer of at least {least}, got {value}.")
    if step_size is not None and not isinstance(step_size, Tracer) and not step_size > 0:
        raise ValueError(f"hypergradient: step_size must be positive, got {step_size}; leave it out to have it found.")
    if not isinstance(damping, Tracer) and not damping >= 0:
        raise ValueError(f"hypergradient: damping must be at least 0, got {damping}.")


def _floating(name: str, tree: PyTree) -> PyTree:
    tree = jax.tree.map(jnp.asarray, tree)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            raise TypeError(
                f"hypergradient: {name}{jax.tree_util.keystr(path)} must be floating point, got {leaf.dtype}; cast it "
                "with .astype(float)."
            )
    return tree


def _check_scalar(name: str, objective: Objective, theta: PyTree, phi: PyTree) -> None:
    if not callable(objective) or len(inspect.signature(objective).parameters) < 2:
        raise TypeError(f"hypergradient: {name} must be a function (theta, phi) -> scalar, got {objective!r}.")
    shape = jax.eval_shape(objective, theta, phi)
    if getattr(shape, "shape", None) != () or not jnp.issubdtype(shape.dtype, jnp.floating):
        raise ValueError(
            f"hypergradient: {name}(theta, phi) must return one floating-point number, got {shape}; sum or average it."
        )
