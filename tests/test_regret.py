"""Exact regret: known answers and scaling."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.distance import policy_regret

GAMMA = 0.9


def random_mdp(seed, num_states=6, num_actions=3):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(num_states, 0.5), (num_states, num_actions))
    return rng, transition, rng.dirichlet(np.ones(num_states))


def brute_force(a, b, transition, initial, gamma):
    """Regret by going through all deterministic policies."""
    num_states, num_actions, _ = a.shape

    def returns(reward):
        for choice in itertools.product(range(num_actions), repeat=num_states):
            rows = transition[np.arange(num_states), choice]
            paid = (rows * reward[np.arange(num_states), choice]).sum(-1)
            yield initial @ np.linalg.solve(np.eye(num_states) - gamma * rows, paid)

    under_a, under_b = np.array(list(returns(a))), np.array(list(returns(b)))
    return (under_a.max() - under_a[under_b.argmax()]) / (under_a.max() - under_a.min())


def test_hand_worked():
    transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
    position, moving = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    position[1], moving[:, 1] = 1.0, 1.0
    regret = policy_regret(position, moving, transition, [1.0, 0.0], gamma=0.5)
    assert isinstance(regret, float)
    assert regret == pytest.approx(1 / 3, abs=1e-12)
    assert policy_regret(position, moving, transition, [1, 0], gamma=0.5, normalise=False) == pytest.approx(1 / 3)
    assert policy_regret(3 * position, moving, transition, [1, 0], gamma=0.5, normalise=False) == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_equals_enumeration(seed):
    rng, transition, initial = random_mdp(seed, 4, 3)
    a, b = rng.normal(size=(2, 4, 3, 4))
    expected = brute_force(a, b, transition, initial, GAMMA)
    assert policy_regret(a, b, transition, initial, gamma=GAMMA) == pytest.approx(expected, abs=1e-10)


def test_equivalents_and_opposites():
    for seed in range(5):
        rng, transition, initial = random_mdp(seed)
        reward, noise, phi = rng.normal(size=(6, 3, 6)), rng.normal(size=(6, 3, 6)), 5 * rng.normal(size=6)
        same = 2 * (reward + GAMMA * phi - phi[:, None, None]) + noise - (transition * noise).sum(-1, keepdims=True)
        assert policy_regret(reward, same, transition, initial, gamma=GAMMA) < 1e-12
        assert policy_regret(same, reward, transition, initial, gamma=GAMMA) < 1e-12
        assert policy_regret(reward, -same, transition, initial, gamma=GAMMA) == pytest.approx(1, abs=1e-10)
        assert policy_regret(0 * reward, same, transition, initial, gamma=GAMMA) == 0
        assert 0.05 < policy_regret(reward, 0 * reward, transition, initial, gamma=GAMMA) < 0.95


def test_batch_axes_and_traced_calls():
    rng, transition, initial = random_mdp(0)
    a, b = rng.normal(size=(2, 4, 6, 3, 6))
    batch = policy_regret(a, b[:, None], transition, initial, gamma=GAMMA)
    assert batch.shape == (4, 4)
    one = policy_regret(a[3], b[1], transition, initial, gamma=GAMMA)
    assert batch[1, 3] == pytest.approx(one, abs=1e-12)
    traced = jax.jit(lambda a, b: policy_regret(a, b, transition, initial, gamma=GAMMA))(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(traced, np.diagonal(batch), atol=1e-4)


def test_errors():
    rng, transition, initial = random_mdp(0)
    reward = rng.normal(size=(6, 3, 6))
    bad = np.where(np.arange(6) == 2, np.inf, reward)
    for message, arguments in [
        ("initial must be a distribution", (reward, reward, transition, 2 * initial)),
        (r"initial must have shape \[S\] = \(6,\)", (reward, reward, transition, initial[:3])),
        ("reward_b must be finite, got inf", (reward, bad, transition, initial)),
        ("reward_b must have shape", (reward, reward[:3], transition, initial)),
    ]:
        with pytest.raises(ValueError, match=message):
            policy_regret(*arguments, gamma=GAMMA)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\)"):
        policy_regret(reward, reward, transition, initial, gamma=1.0)
