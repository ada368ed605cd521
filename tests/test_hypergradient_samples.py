"""Sums over sampled episodes: autodiff, hypergradients and exact expectations against the sums as they are written."""

from functools import partial

import bilevel_oracle as oracle
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bilevel_oracle import X

from reward_design.bilevel import hypergradient

pytestmark = pytest.mark.usefixtures("float64")


def surrogate(batch, x, theta, *, entropy, bonus, baseline):
    """Delta of a linear softmax policy, as a function of theta and x, by autodiff of one scalar per term."""
    features, mask = jnp.asarray(batch.features), jnp.asarray(batch.mask, float)
    log_pi = jax.nn.log_softmax(features @ theta)
    chosen = jnp.take_along_axis(log_pi, jnp.asarray(batch.action)[..., None], -1)[..., 0]
    gamma = jax.nn.sigmoid(x[3])
    reward = x[0] + x[1] * batch.primary + x[2] * batch.auxiliary
    reward = mask * (reward if bonus else reward - entropy * chosen)
    to_go = jax.lax.scan(lambda g, r: (r + gamma * g,) * 2, jnp.zeros(len(mask)), reward.T, reverse=True)[1].T
    if baseline:
        to_go = to_go - jnp.sum(mask * to_go) / jnp.sum(mask)
    return chosen, to_go, mask, -jnp.sum(jnp.exp(log_pi) * log_pi, -1)


def episodes(seed=0):
    """Masked episodes of 1 to 6 steps with dense features; what lies behind their ends is far from zero."""
    rng = np.random.default_rng(seed)
    mask = np.arange(6) < np.array([6, 1, 4, 2, 5])[:, None]
    features, rewards = rng.normal(size=(5, 6, 4)), rng.normal(size=(2, 5, 6)) + 100 * ~mask
    return oracle.Batch(features, rng.integers(0, 3, (5, 6)), mask, *rewards), rng.normal(size=(4, 3))


@pytest.mark.parametrize("baseline", [False, True])
@pytest.mark.parametrize("bonus", [False, True])
def test_autodiff_equals_the_sums_over_steps_and_later_steps(bonus, baseline):
    batch, theta = episodes()
    settings = {"entropy": 0.4, "bonus": bonus, "baseline": baseline}
    sums = oracle.sampled_sums(batch, theta, X, gamma=0.9, **settings)

    @jax.jit
    def autodiff(theta, x):
        def delta(theta, x):
            def scalar(t):  # the returns stay those at theta while t moves
                chosen, _, mask, entropy = surrogate(batch, x, t, **settings)
                to_go = surrogate(batch, x, theta, **settings)[1]
                return jnp.sum(mask * (chosen * to_go + settings["entropy"] * bonus * entropy))

            return jax.grad(scalar)(theta).ravel()

        return delta(theta, x), *jax.jacobian(delta, (0, 1))(theta, x)

    delta, hessian, mixed = autodiff(theta, X)
    np.testing.assert_allclose(delta, sums.delta.sum(0), atol=1e-8)
    np.testing.assert_allclose(hessian.reshape(12, 12), sums.hessian.sum(0), atol=1e-8)
    np.testing.assert_allclose(mixed, np.concatenate([sums.a.sum(0), sums.b.sum(0)[:, None]], -1), atol=1e-8)
    alone = oracle.sampled_sums(batch, theta, np.array([0, 1, 0, np.log(9)]), gamma=0.9, entropy=0, baseline=baseline)
    np.testing.assert_allclose(alone.delta, sums.v, atol=1e-12)
    unmasked = oracle.sampled_sums(batch._replace(mask=batch.mask | True), theta, X, gamma=0.9, **settings)
    assert np.abs(unmasked.a.sum(0) - sums.a.sum(0)).max() > 1


@pytest.mark.parametrize("baseline", [False, True])
def test_hypergradient_of_a_sampled_surrogate_equals_the_sums(baseline):
    batch, theta = episodes()
    settings = {"entropy": 0.4, "bonus": True, "baseline": baseline}
    sums = oracle.sampled_sums(batch, theta, X, gamma=0.9, **settings)
    h, v = sums.hessian.sum(0) - 200 * np.eye(12), sums.v.sum(0)  # the damping that makes a maximum of it
    mixed = np.concatenate([sums.a.sum(0), sums.b.sum(0)[:, None]], -1)

    def inner(theta, x):
        chosen, to_go, mask, entropy = surrogate(batch, x, theta, **settings)
        return jnp.sum(mask * (chosen * to_go + 0.4 * entropy))

    def outer(theta, _):
        primary = jnp.array([0.0, 1.0, 0.0, np.log(9)])
        chosen, to_go, mask, _ = surrogate(batch, primary, theta, **settings | {"entropy": 0.0})
        return jnp.sum(mask * chosen * to_go)

    assert np.linalg.eigvalsh(h).max() < -10
    for method, answer in (("cg", mixed.T @ np.linalg.solve(-h, v)), ("identity", mixed.T @ v)):
        call = jax.jit(partial(hypergradient, inner, outer, method=method, damping=200.0))
        np.testing.assert_allclose(call(jnp.asarray(theta), jnp.asarray(X)).gradient, answer, rtol=1e-8, atol=1e-10)


def test_sums_tend_to_their_expectations_with_the_root_of_the_number_of_episodes():
    problem = oracle.random_problem(0, 0.5)
    theta = np.random.default_rng(1).normal(size=(3, 2))
    batch = oracle.sample(problem, theta, 4096, 40)
    assert not batch.mask[:, -1].any()
    assert batch.mask.sum(1).std() > 1
    sums = oracle.sampled_sums(batch, theta, X, gamma=problem.gamma, entropy=problem.entropy)
    each = np.concatenate([sums.v, sums.a.reshape(4096, -1), sums.b], 1)
    v, mixed = oracle.expected_sums(problem, theta, X)
    expected = np.concatenate([v, mixed[:, :3].ravel(), mixed[:, 3]])
    errors = (each.mean(0) - expected) / (each.std(0) / 64)
    assert np.abs(errors).max() < 4
    assert np.abs((each.mean(0) - 1.1 * expected) / (each.std(0) / 64)).max() > 4
    spread = [np.sqrt(np.mean((each.reshape(-1, n, 30).mean(1) - expected) ** 2)) for n in (16, 256)]
    assert np.log(spread[1] / spread[0]) / np.log(16) == pytest.approx(-0.5, abs=0.12)


def test_memory_of_the_unrolled_ascent_grows_with_the_root_of_its_length():
    rows = jax.random.normal(jax.random.key(1), (256, 32), jnp.float32)
    inner = lambda theta, phi: -jnp.mean(jnp.square(jnp.tanh(rows @ theta) - phi[None]))  # noqa: E731
    outer = lambda theta, phi: -jnp.mean(jnp.square(rows @ theta))  # noqa: E731

    def temporary(num_steps: int) -> int:
        def call(theta, phi):
            made = hypergradient(inner, outer, theta, phi, method="unrolled", num_steps=num_steps, step_size=0.1)
            return made.gradient

        shapes = jax.ShapeDtypeStruct((32, 32), jnp.float32), jax.ShapeDtypeStruct((32,), jnp.float32)
        return jax.jit(call).lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    growth, theta = temporary(1024) - temporary(16), 32 * 32 * 4
    assert (32 - 4) * theta / 2 < growth < 3 * (32 - 4) * theta
