"""Hypergradients against the closed form of a soft-optimal tabular problem and dense NumPy."""

from functools import cache, partial
from typing import Any

import bilevel_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bilevel_oracle import X

from reward_design.bilevel import METHODS, hypergradient

pytestmark = pytest.mark.usefixtures("float64")

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


# --- the oracles agree with each other, and the methods with them ---------------------------------------------------


@pytest.mark.parametrize("ending", [0.0, 0.5])
@pytest.mark.parametrize("seed", range(4))
def test_closed_form_equals_solving_again_and_the_implicit_function_theorem(seed, ending):
    problem, theta, parts, _ = solved(seed, ending)
    answer = oracle.closed_form(problem, X)
    assert np.abs(answer).max() > 0.05
    np.testing.assert_allclose(oracle.central_differences(problem, X), answer, atol=1e-6)
    np.testing.assert_allclose(oracle.implicit(parts), answer, atol=1e-9)
    assert np.abs(oracle.inner_slope(problem, theta, X)).max() < 1e-12
    assert np.abs(oracle.inner_slope(problem, theta + [[0.5, 0.0]] * 3, X)).max() > 1e-3
    np.testing.assert_allclose(exact(problem), answer, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
def test_hessian_has_one_zero_eigenvalue_per_state_and_the_others_are_negative(seed):
    _, theta, parts, _ = solved(seed)
    values, vectors = np.linalg.eigh(parts.hessian)
    assert (np.abs(values) < 1e-10).sum() == len(theta)
    assert (values < -1e-3).sum() == len(theta)
    null = vectors[:, np.abs(values) < 1e-10]
    assert np.abs(null.T @ parts.v).max() < 1e-12 < 1e-2 < np.linalg.norm(parts.v)


@pytest.mark.parametrize("method", CONVERGENT)
def test_every_method_converges_to_the_closed_form(method):
    for seed in (0, 3):
        problem, theta, _, rho = solved(seed)
        step = 0.9 / rho if method in SERIES else None
        result = run(problem, theta, X, method, step_size=step)
        assert_reported(result, False, oracle.closed_form(problem, X))
        far = run(problem, theta + 0.3 * np.eye(3, 2), X, method, step_size=step)
        if method == "unrolled":  # ascends to the optimum by itself
            assert_reported(far, False, oracle.closed_form(problem, X))
        else:
            assert np.abs(far.gradient - oracle.closed_form(problem, X)).max() > 1e-2


@pytest.mark.parametrize("num_terms", range(11))
def test_neumann_equals_the_dense_series_and_as_many_steps_of_ascent(num_terms):
    problem, theta, parts, rho = solved()
    step = 1 / rho
    dense, answer = oracle.neumann(parts, step, num_terms), oracle.implicit(parts)
    np.testing.assert_allclose(oracle.unrolled(problem, theta, X, step, num_terms + 1), dense, atol=1e-10)
    result = model("neumann", num_terms=num_terms, step_size=step)
    np.testing.assert_allclose(result.gradient, dense, atol=1e-9)
    if num_terms in (0, 4):
        ascent = model("unrolled", num_steps=num_terms + 1, step_size=step).gradient
        np.testing.assert_allclose(ascent, dense, atol=1e-9)
        real = run(problem, theta, X, "neumann", num_terms=num_terms, step_size=step).gradient
        np.testing.assert_allclose(real, dense, atol=1e-6)
    diagnostics = result.diagnostics
    assert not diagnostics.diverged
    assert diagnostics.a_rho == pytest.approx(1.0, abs=0.02)
    powers = [np.linalg.matrix_power(np.eye(6) + step * parts.hessian, k) for k in range(num_terms + 1)]
    residual = np.linalg.norm(parts.hessian @ (step * sum(powers)) @ parts.v + parts.v) / np.linalg.norm(parts.v)
    assert diagnostics.residual == pytest.approx(residual, abs=1e-9)
    assert residual > 0.05
    one_more = oracle.neumann(parts, step, num_terms + 1)
    assert np.abs(result.gradient - one_more).max() > 1e-3
    assert cosine(one_more, answer) > cosine(dense, answer) + 1e-4


def test_more_terms_bring_direction_and_length():
    problem, _, _, rho = solved()
    answer = oracle.closed_form(problem, X)
    series = [model("neumann", num_terms=k, step_size=1 / rho).gradient for k in (0, 5, 50)]
    directions = [cosine(g, answer) for g in series]
    lengths = [np.linalg.norm(g) / np.linalg.norm(answer) for g in series]
    assert directions[0] < 0.9 < 0.95 < directions[1] < directions[2]
    assert directions[2] > 0.9999
    assert lengths[0] < 0.5 < lengths[1] < 0.9 < lengths[2] < 1


def test_unrolled_equals_complex_steps_through_the_ascent_from_anywhere():
    problem, root, parts, rho = solved()
    series = oracle.neumann(parts, 1 / rho, 4)
    for away, near in ((0.0, True), (0.4, False)):
        theta = root + away * np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
        gradient = run(problem, theta, X, "unrolled", num_steps=5, step_size=1 / rho).gradient
        np.testing.assert_allclose(gradient, oracle.unrolled(problem, theta, X, 1 / rho, 5), rtol=1e-9, atol=1e-12)
        assert (np.abs(gradient - series).max() < 1e-9) if near else (np.abs(gradient - series).max() > 1e-3)


def test_identity_is_the_step_times_v_and_so_is_a_series_of_tiny_steps():
    problem, theta, parts, rho = solved()
    first_order = parts.mixed.T @ parts.v
    np.testing.assert_allclose(run(problem, theta, X, "identity").gradient, first_order, rtol=1e-9, atol=1e-12)
    for step, scale in ((None, 1.0), (0.3, 0.3)):
        result = model("identity", step_size=step)
        np.testing.assert_allclose(result.gradient, scale * first_order, rtol=1e-9, atol=1e-12)
        assert result.diagnostics.a_rho == pytest.approx(scale * rho, rel=0.02)
        assert not result.diagnostics.diverged
    tiny = model("neumann", num_terms=5, step_size=1e-4).gradient
    np.testing.assert_allclose(tiny, 6e-4 * first_order, rtol=1e-3, atol=1e-12)
    assert np.abs(first_order - oracle.implicit(parts)).max() > 0.1


@pytest.mark.parametrize("method", ["exact", "cg", "neumann"])
def test_damping_is_added_to_minus_the_hessian(method):
    parts = solved()[2]
    damped = oracle.implicit(parts, damping=0.2)
    result = model(method, damping=0.2)
    assert_reported(result, False, damped, atol=1e-8)
    assert result.diagnostics.residual < 1e-8
    assert np.abs(damped - oracle.implicit(parts)).max() > 0.1


def test_the_cosine_is_that_to_the_dense_answer():
    parts, rho = solved()[2:]
    for damping in (0.0, 0.2):
        result = model("neumann", num_terms=2, step_size=1 / rho, damping=damping, compare_exact=True)
        series = oracle.neumann(parts, 1 / rho, 2, damping)
        np.testing.assert_allclose(result.gradient, series, atol=1e-9)
        angle = cosine(series, oracle.implicit(parts, damping))
        assert result.diagnostics.cosine == pytest.approx(angle, abs=1e-9)
        assert 0.5 < angle < 0.999
    assert model("cg", compare_exact=True).diagnostics.cosine == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("method", CONVERGENT)
def test_diagnostics_at_the_default_step(method):
    problem = solved()[0]
    result = model(method)
    assert_reported(result, False, oracle.closed_form(problem, X))
    diagnostics = result.diagnostics
    assert np.isnan(diagnostics.cosine)
    assert np.isnan(diagnostics.residual) if method == "unrolled" else diagnostics.residual < 1e-6
    assert 0.85 < diagnostics.a_rho < 0.95 if method in SERIES else np.isnan(diagnostics.a_rho)
    assert all(x.shape == () for x in diagnostics)


def test_conjugate_gradients_stop_where_told():
    answer = oracle.implicit(solved()[2])
    loose = model("cg", tolerance=0.2)
    assert 1e-6 < loose.diagnostics.residual < 0.2
    assert not loose.diagnostics.diverged
    assert np.abs(loose.gradient - answer).max() > 1e-3
    assert_reported(model("cg", max_iterations=3), False, answer, atol=1e-8)
    assert_reported(model("cg", max_iterations=1), True)


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


# --- no answer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", SERIES)
@pytest.mark.parametrize(("share", "diverges"), [(0.5, False), (1.8, False), (2.1, True), (30.0, True)])
def test_a_step_beyond_two_over_rho_is_reported(method, share, diverges):
    problem, theta, _, rho = solved()
    for result in (run(problem, theta, X, method, step_size=share / rho), model(method, step_size=share / rho)):
        assert_reported(result, diverges, oracle.closed_form(problem, X), atol=1e-5)
        assert result.diagnostics.a_rho == pytest.approx(share, rel=0.02)


@pytest.mark.parametrize("method", ["neumann", "cg", "unrolled"])
def test_an_inner_objective_of_the_wrong_sign_is_reported(method):
    problem, theta, _, rho = solved()
    away = theta + 1e-6 * np.eye(3, 2) if method == "unrolled" else theta  # which does not leave a stationary point
    for sign, tell in ((1.0, False), (-1.0, True)):
        step = 0.9 / rho if method in SERIES else None
        result = run(problem, away, X, method, scale=sign, step_size=step)
        assert result.diagnostics.diverged == tell
        assert np.isnan(result.gradient).all() == tell


@pytest.mark.parametrize("method", ["neumann", "cg", "unrolled"])
@pytest.mark.parametrize("curvature", [-0.1, 0.1])
@pytest.mark.parametrize("share", [0.1, 3.0])
def test_a_saddle_is_reported(method, curvature, share):
    """Whatever share v has in the rising direction: v (-H)^{-1} v can be positive at a saddle."""
    diagonal, v = np.array([-1.0, -0.5, curvature, -0.8, -0.9, -1]), np.array([1.0, 1.0, share, 1, 1, 1])
    parts = oracle.Parts(np.diag(diagonal), np.eye(6, 4), v)
    for precision in (True, False):
        with jax.enable_x64(precision):
            theta = np.full(6, 1e-6 * (method == "unrolled"))
            result = run(parts, theta, np.zeros(4), method, levels=quadratic)
        assert_reported(result, curvature > 0, (v / -diagonal)[:4], atol=1e-3)


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


# --- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"method": "neuman"}, ValueError, "unknown method 'neuman'; did you mean 'neumann'"),
        ({"num_terms": -1}, ValueError, "num_terms must be .* got -1"),
        ({"num_steps": 0}, ValueError, "num_steps must be .* got 0"),
        ({"max_iterations": 0}, ValueError, "max_iterations must be .* got 0"),
        ({"step_size": 0.0}, ValueError, "step_size must be positive, got 0.0"),
        ({"step_size": float("nan")}, ValueError, "step_size must be positive, got nan"),
        ({"damping": -0.1}, ValueError, "damping must be at least 0, got -0.1"),
        ({"inner": lambda theta, x: theta}, ValueError, r"inner\(theta, phi\) must return one .*\(2,\)"),
        ({"outer": lambda theta, x: theta[None, :1]}, ValueError, r"outer\(theta, phi\) must return one .*\(1, 1\)"),
        ({"outer": lambda theta, x: jnp.argmax(theta)}, ValueError, "outer.* one floating-point number, got .*int"),
        ({"inner": lambda theta: theta.sum()}, TypeError, r"inner must be a function \(theta, phi\)"),
        ({"outer": lambda: 3.0}, TypeError, r"outer must be a function \(theta, phi\)"),
        ({"theta": {"a": jnp.arange(2)}}, TypeError, r"theta\['a'\] must be floating point, got int"),
        ({"phi": jnp.arange(2)}, TypeError, "phi must be floating point, got int"),
    ],
)
def test_bad_input_is_named(changes, error, message):
    inner = lambda theta, x: -jnp.sum((theta - x) ** 2)  # noqa: E731
    arguments = {"inner": inner, "outer": inner, "theta": jnp.ones(2), "phi": jnp.ones(2)} | changes
    with pytest.raises(error, match=message):
        hypergradient(**arguments)
