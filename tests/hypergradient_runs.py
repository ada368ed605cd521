"""Two levels of a tabular problem and of its quadratic model, and hypergradients of them, each compiled once."""

from functools import cache
from typing import Any

import bilevel_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
from bilevel_oracle import X

from reward_design.bilevel import METHODS, hypergradient

MANY: dict[str, Any] = {"neumann": {"num_terms": 600}, "unrolled": {"num_steps": 600}}
SERIES = tuple(MANY)
CONVERGENT = tuple(m for m in METHODS if m != "identity")


@cache
def solved(seed=0, ending=0.0):
    """Problem, log-probabilities at the inner optimum, parts, largest absolute eigenvalue of H."""
    problem = oracle.random_problem(seed, ending)
    theta = oracle.soft_optimum(problem, X)
    parts = oracle.parts(problem, theta, X)
    return problem, theta, parts, np.abs(eigenvalues(parts.hessian)).max()


def eigenvalues(matrix):
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-12)
    return np.linalg.eigvalsh(matrix)


def value(problem, pi, reward, gamma):
    """Return of a policy, by a linear solve."""
    chain = jnp.einsum("sa,sat->st", pi, problem.transition)
    return problem.initial @ jnp.linalg.solve(jnp.eye(3) - gamma * chain, jnp.sum(pi * reward, -1))


def tabular(problem, scale, _):
    """The two levels of a problem; ``scale`` multiplies the aligned reward and lambda alike."""

    def inner(theta, x):
        log_pi = jax.nn.log_softmax(theta)
        reward = x[0] + x[1] * problem.primary + x[2] * problem.auxiliary - problem.entropy * log_pi
        return value(problem, jnp.exp(log_pi), scale * reward, jax.nn.sigmoid(x[3]))

    return inner, lambda theta, x: value(problem, jax.nn.softmax(theta), problem.primary, problem.gamma)


def frozen(problem, scale, theta):
    """The same from data that do not move: states, actions and later entropies are those of softmax(theta)."""
    log_pi = jax.nn.log_softmax(theta)
    pi = jnp.exp(log_pi)
    chain = jnp.einsum("sa,sat->st", pi, problem.transition)

    def inner(theta, x):
        system = jnp.eye(3) - jax.nn.sigmoid(x[3]) * chain
        reward = x[0] + x[1] * problem.primary + x[2] * problem.auxiliary
        v = jnp.linalg.solve(system, jnp.sum(pi * (reward - problem.entropy * log_pi), -1))
        visits = jax.lax.stop_gradient(jnp.linalg.solve(system.T, problem.initial))
        q = reward + jax.nn.sigmoid(x[3]) * problem.transition @ v
        now = jax.nn.log_softmax(theta)
        return scale * visits @ jnp.sum(pi * (now * q - problem.entropy / 2 * now**2), -1)

    return inner, tabular(problem, scale, theta)[1]


def quadratic(parts, scale, _):
    """The model of an inner problem around its optimum: the same H, A and v at every theta."""

    def inner(theta, x):
        return scale * (theta @ parts.hessian @ theta / 2 + theta @ (parts.mixed @ x))

    return inner, lambda theta, x: parts.v @ theta


@cache
def compiled(levels, method, **static):
    def call(data, theta, x, scale, step_size, damping):
        inner, outer = levels(data, scale, theta)
        return hypergradient(
            inner, outer, theta, x, method=method, step_size=step_size, damping=damping, **MANY.get(method, {}) | static
        )

    return jax.jit(call)


def run(data, theta, x, method, *, levels=tabular, scale=1.0, step_size=None, damping=0.0, **static):
    """``hypergradient``, compiled once for every kind of problem and settings, as NumPy."""
    arguments = jax.tree.map(jnp.asarray, (data, theta, x))
    result = compiled(levels, method, **static)(*arguments, scale, step_size, damping)
    return jax.tree.map(np.asarray, result)


def model(method, parts=None, **settings):
    """``run`` on the quadratic model."""
    parts = solved()[2] if parts is None else parts
    return run(parts, np.zeros(len(parts.v)), np.zeros(parts.mixed.shape[1]), method, levels=quadratic, **settings)


def exact(problem, x=X, theta=None, **settings):
    return run(problem, oracle.soft_optimum(problem, x) if theta is None else theta, x, "exact", **settings).gradient


def cosine(a, b):
    return a @ b / np.linalg.norm(a) / np.linalg.norm(b)


def assert_reported(result, wrong, answer: Any = None, atol=1e-6):
    assert result.diagnostics.diverged == wrong
    if wrong:
        assert np.isnan(result.gradient).all()
    else:
        np.testing.assert_allclose(result.gradient, answer, atol=atol)
