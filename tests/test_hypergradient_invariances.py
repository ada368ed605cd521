"""What leaves a hypergradient as it is, and what does not: constants, potentials, units, trees, lanes, precision."""

from functools import partial

import bilevel_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bilevel_oracle import X
from hypergradient_runs import (
    CONVERGENT,
    SERIES,
    assert_reported,
    cosine,
    eigenvalues,
    exact,
    frozen,
    model,
    quadratic,
    run,
    solved,
    tabular,
)

from reward_design.bilevel import METHODS, hypergradient

pytestmark = pytest.mark.usefixtures("float64")


# --- directions that change nothing ---------------------------------------------------------------------------------


def test_a_constant_bonus_changes_nothing_until_episodes_end():
    for ending, zero in ((0.0, True), (0.5, False)):
        problem = solved(0, ending)[0]
        constant = exact(problem)[0]
        assert constant == pytest.approx(oracle.closed_form(problem, X)[0], abs=1e-9)
        assert (abs(constant) < 1e-12) if zero else (abs(constant) > 1e-3)


@pytest.mark.parametrize(
    ("ending", "mismatch", "at_the_end", "zero"),
    [(0.0, 0.0, 0.0, True), (0.5, 0.0, 0.0, True), (0.0, 0.1, 0.0, False), (0.5, 0.0, 2.0, False)],
)
def test_the_weight_of_a_potential_changes_nothing_at_the_same_discount(ending, mismatch, at_the_end, zero):
    problem = solved(0, ending)[0]
    potential = np.array([1.0, -2.0, 0.5])
    advice = oracle.shaping(problem, potential, oracle.sigmoid(X[3]) - mismatch, at_the_end)
    gradient = exact(problem._replace(auxiliary=advice))
    np.testing.assert_allclose(gradient, oracle.closed_form(problem._replace(auxiliary=advice), X), atol=1e-9)
    assert (abs(gradient[2]) < 1e-12) if zero else (abs(gradient[2]) > 1e-3)
    assert abs(gradient[1]) > 0.1


@pytest.mark.parametrize("method", METHODS)
def test_reward_and_entropy_scaled_together_leave_the_answer(method):
    problem, theta, _, rho = solved()
    plain, scaled = (model(method, scale=c).gradient for c in (1.0, 7.0))
    if method == "identity":  # the first-order method has a unit
        np.testing.assert_allclose(scaled, 7 * plain, rtol=1e-9, atol=1e-12)
        assert np.abs(scaled - plain).max() > 0.1
        return
    np.testing.assert_allclose(scaled, plain, atol=1e-6)
    step = 0.9 / rho / 7 if method in SERIES else None
    real = run(problem, theta, X, method, scale=7.0, step_size=step).gradient
    np.testing.assert_allclose(real, plain, atol=1e-6)


def test_entropy_scaled_alone_changes_the_answer_and_with_the_weights_it_is_that_of_the_chain_rule():
    problem, theta, _, _ = solved()
    stiffer, weights = problem._replace(entropy=7 * problem.entropy), X * [7, 7, 7, 1]
    np.testing.assert_allclose(oracle.soft_optimum(stiffer, weights), theta, atol=1e-10)
    np.testing.assert_allclose(exact(stiffer, weights) * [7, 7, 7, 1], exact(problem), atol=1e-9)
    assert np.abs(exact(stiffer) - exact(problem)).max() > 0.1


@pytest.mark.parametrize("c", [-5.0, 0.0, 5.0])
def test_a_constant_moves_the_hessian_of_frozen_data_and_not_the_exact_one(c):
    problem, theta, parts, _ = solved()
    answer, x = oracle.closed_form(problem, X)[:3], X + np.array([c, 0, 0, 0])
    moved = oracle.parts(problem, theta, x)
    np.testing.assert_allclose(moved.hessian, parts.hessian, atol=1e-10)
    np.testing.assert_allclose(exact(problem, x, theta)[:3], answer, atol=1e-8)
    hessian = oracle.frozen_hessian(problem, theta, x)
    assert np.abs(hessian - oracle.frozen_hessian(problem, theta, x + np.array([1, 0, 0, 0]))).max() > 0.1
    assert ((eigenvalues(hessian) > 1e-9).sum(), (eigenvalues(hessian) < -1e-9).sum()) == ((3, 0) if c < 0 else (0, 3))
    biased = oracle.implicit(moved._replace(hessian=hessian))
    np.testing.assert_allclose(exact(problem, x, theta, levels=frozen), biased, atol=1e-9)
    assert np.linalg.norm(biased[:3]) < 0.5 * np.linalg.norm(answer)
    assert cosine(biased[:3], answer) < -0.99 if c < 0 else cosine(biased[:3], answer) > 0.99
    for method in ("cg", "neumann"):
        assert_reported(model(method, moved._replace(hessian=hessian)), c < 0, biased)


# --- trees, transformations, precision ------------------------------------------------------------------------------


def scattered(problem):
    """The tabular problem with trees for theta and x, and an outer objective that also penalises x."""
    inner, outer = tabular(problem, 1.0, None)
    join = lambda tree: jnp.concatenate([tree["first"], *tree["rest"]])  # noqa: E731
    flat = lambda x: jnp.stack([*x["phi"], x["varphi"]])  # noqa: E731
    penalty = lambda x: 0.3 * jax.nn.sigmoid(x["varphi"]) + 0.1 * sum(p**2 for p in x["phi"])  # noqa: E731
    return (
        lambda theta, x: inner(join(theta), flat(x)),
        lambda theta, x: outer(join(theta), flat(x)) - penalty(x),
    )


def test_trees_and_the_direct_term():
    problem, theta, _, _ = solved()
    theta = jax.tree.map(jnp.asarray, {"first": theta[:1], "rest": [theta[1:2], theta[2:]]})
    x = jax.tree.map(jnp.asarray, {"phi": tuple(X[:3]), "varphi": X[3]})
    result = jax.jit(lambda theta, x: hypergradient(*scattered(problem), theta, x, method="cg"))(theta, x)
    assert jax.tree.structure(result.gradient) == jax.tree.structure(x)
    assert all(g.shape == () and g.dtype == jnp.float64 for g in jax.tree.leaves(result.gradient))
    gamma = oracle.sigmoid(X[3])
    indirect, direct = oracle.closed_form(problem, X), -np.array([*0.2 * X[:3], 0.3 * gamma * (1 - gamma)])
    got = np.array([*result.gradient["phi"], result.gradient["varphi"]])
    np.testing.assert_allclose(got, indirect + direct, atol=1e-8)
    assert np.abs(direct).min() > 0.01


@pytest.mark.parametrize("method", ["neumann", "cg", "unrolled"])
def test_an_outer_objective_of_penalties_alone_has_their_slope(method):
    parts = solved()[2]

    def levels(parts, scale, theta):
        return quadratic(parts, scale, theta)[0], lambda theta, x: -0.3 * jax.nn.sigmoid(x[3]) - jnp.sum(x[:3] ** 2)

    gradient = run(parts, np.zeros(6), X, method, levels=levels).gradient
    gamma = oracle.sigmoid(X[3])
    np.testing.assert_allclose(gradient, [*-2 * X[:3], -0.3 * gamma * (1 - gamma)], atol=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_jit_and_vmap_leave_the_answer_and_a_diverged_lane_to_itself(method):
    diagonals = jnp.array([[-1.0, -0.5, -0.2], [-1.0, -0.5, 0.2], [-2.0, -0.1, -0.9]])
    x = {"d": diagonals, "b": jnp.full((3, 3), 0.5)}
    theta = {"t": jnp.full((3, 3), 0.3)}
    inner = lambda theta, x: jnp.sum(x["d"] * theta["t"] ** 2 / 2 + x["b"] * theta["t"])  # noqa: E731
    outer = lambda theta, x: jnp.sum(jnp.sin(theta["t"]))  # noqa: E731
    settings = {"neumann": {"num_terms": 300}, "unrolled": {"num_steps": 300}}.get(method, {})
    call = partial(hypergradient, inner, outer, method=method, **settings)
    lanes, compiled = jax.jit(jax.vmap(call))(theta, x), jax.jit(call)
    indefinite = method in ("neumann", "cg", "unrolled")
    assert lanes.diagnostics.diverged.tolist() == [False, indefinite, False]
    for i in range(3):
        alone = compiled(*jax.tree.map(lambda y, i=i: y[i], (theta, x)))
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-9, atol=1e-12), lanes.gradient, alone.gradient
        )
    if method in ("exact", "cg"):
        np.testing.assert_allclose(alone.gradient["b"], np.cos(0.3) / -diagonals[2], rtol=1e-9)
    if method in ("cg", "neumann"):
        eager = call(*jax.tree.map(lambda y: y[2], (theta, x)))
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12), eager, alone)


@pytest.mark.parametrize("method", CONVERGENT)
def test_single_precision(method):
    """With the null directions of a softmax, which rounding must not blow up."""
    with jax.enable_x64(False):
        for seed in range(4):
            problem, _, parts, _ = solved(seed)
            result, answer = model(method, parts), oracle.closed_form(problem, X)
            assert result.gradient.dtype == np.float32
            loose = 0.02 if method in SERIES else 1e-4  # 600 terms at this seed's condition number
            assert_reported(result, False, answer, atol=loose * np.abs(answer).max())


def test_conjugate_gradients_in_single_precision_stop_before_they_walk_along_null_directions():
    """The gradient is p itself; beyond what rounding allows, search directions are noise that nothing holds back."""
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(size=(50, 50)))[0]
    spectrum = -np.geomspace(1, 1e-2, 50) * (np.arange(50) >= 10)
    hessian = basis * spectrum @ basis.T
    parts = oracle.Parts(hessian, np.eye(50), hessian @ rng.normal(size=50))
    with jax.enable_x64(False):
        result = model("cg", parts)
    answer = oracle.implicit(parts)
    assert_reported(result, False, answer, atol=1e-3 * np.abs(answer).max())
    assert result.diagnostics.residual < 1e-4
