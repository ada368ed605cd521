"""Hypergradients against the closed form of a soft-optimal tabular problem and dense NumPy."""

import bilevel_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bilevel_oracle import X
from hypergradient_runs import CONVERGENT, SERIES, assert_reported, cosine, exact, model, quadratic, run, solved

from reward_design.bilevel import hypergradient

pytestmark = pytest.mark.usefixtures("float64")


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
