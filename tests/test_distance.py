"""Exact reward distances: invariances with their negative controls, metric properties, and refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_design.agents.dynamic_programming import policy_evaluation
from reward_design.distance import (
    CANONICALISATIONS,
    canonicalise,
    dard_distance,
    distance_matrix,
    epic_distance,
    epic_distance_matrix,
    starc_distance,
)

S, A, GAMMA = 8, 3, 0.95


def random_mdp(seed, num_states=S, num_actions=A):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(num_states), (num_states, num_actions))
    return rng, transition, rng.normal(size=(num_states, num_actions, num_states))


def shaped(rng, reward, gamma=GAMMA):
    phi = 5 * rng.normal(size=reward.shape[-1])
    return reward + gamma * phi - phi[:, None, None]


def redistributed(rng, reward, transition):
    noise = 3 * rng.normal(size=reward.shape)
    return reward + noise - (transition * noise).sum(-1, keepdims=True)


def naive_val(reward, transition, gamma, policy):
    """Value-adjusted levelling written as loops, with values from plain fixed-point iteration."""
    num_states, num_actions, _ = reward.shape
    values = np.zeros(num_states)
    for _ in range(2000):
        values = np.array([
            sum(
                policy[s, a] * transition[s, a, t] * (reward[s, a, t] + gamma * values[t])
                for a in range(num_actions) for t in range(num_states)
            )
            for s in range(num_states)
        ])  # fmt: skip
    c = np.zeros_like(reward)
    for s, a in itertools.product(range(num_states), range(num_actions)):
        c[s, a, :] = sum(
            transition[s, a, t] * (reward[s, a, t] + gamma * values[t] - values[s]) for t in range(num_states)
        )
    return c


# --- invariances ----------------------------------------------------------------------------------------------------


def distance_of(name, a, b, transition, gamma=GAMMA):
    if name == "epic_distance":
        return 2 * epic_distance(a, b, gamma=gamma)
    if name == "dard_distance":
        return 2 * dard_distance(a, b, transition, gamma=gamma)
    return starc_distance(a, b, transition, gamma=gamma, canonicalisation=name)


INVARIANT = {
    "val": {"scale", "shaping", "redistribution"},
    "minimal": {"scale", "shaping", "redistribution"},
    "minimal_weighted": {"scale", "shaping", "redistribution"},
    "val_potential": {"scale", "shaping"},
    "minimal_potential": {"scale", "shaping"},
    "epic": {"scale", "shaping"},
    "dard": {"scale", "shaping"},
    "none": {"scale"},
    "epic_distance": {"scale", "shaping"},
    "dard_distance": {"scale", "shaping"},
}


def test_every_canonicalisation_has_a_row():
    assert set(CANONICALISATIONS) < set(INVARIANT)


@pytest.mark.parametrize(("name", "invariant"), list(INVARIANT.items()))
def test_invariance_matrix(name, invariant):
    worst = dict.fromkeys(("scale", "shaping", "redistribution"), 0.0)
    for seed in range(20):
        rng, transition, reward = random_mdp(seed)
        moved = {
            "scale": 7.3 * reward,
            "shaping": shaped(rng, reward),
            "redistribution": redistributed(rng, reward, transition),
        }
        for move, other in moved.items():
            worst[move] = max(worst[move], float(distance_of(name, reward, other, transition)))  # pyright: ignore
        assert distance_of(name, reward, -reward, transition) == pytest.approx(2, abs=1e-12)
        assert 0.5 < distance_of(name, reward, rng.normal(size=reward.shape), transition) < 1.8
    for move, d in worst.items():
        assert d < 1e-9 if move in invariant else d > 0.3, (move, d)


@pytest.mark.parametrize("norm", [1, 2, np.inf])
def test_val_invariances_in_every_norm(norm):
    rng, transition, reward = random_mdp(0)
    other = 3 * redistributed(rng, shaped(rng, reward), transition)
    kwargs = {"gamma": GAMMA, "norm": norm, "metric": norm}
    assert starc_distance(reward, other, transition, **kwargs) < 1e-9
    assert starc_distance(reward, -other, transition, **kwargs) == pytest.approx(2, abs=1e-9)


def test_epic_with_other_distributions_is_pearson():
    rng, _, reward = random_mdp(3)
    other = rng.normal(size=reward.shape)
    states, actions = rng.dirichlet(np.ones(S)), rng.dirichlet(np.ones(A))
    weights = np.einsum("s,a,t->sat", states, actions, states)

    def canonical(table):
        mean = np.array([
            sum(actions[a] * states[t] * table[s, a, t] for a in range(A) for t in range(S)) for s in range(S)
        ])  # fmt: skip
        return table + GAMMA * mean - mean[:, None, None] - GAMMA * states @ mean

    x, y = canonical(reward), canonical(other)
    x, y = x - (weights * x).sum(), y - (weights * y).sum()
    rho = (weights * x * y).sum() / np.sqrt((weights * x * x).sum() * (weights * y * y).sum())
    kwargs = {"gamma": GAMMA, "state_distribution": states, "action_distribution": actions}
    assert epic_distance(reward, other, **kwargs) == pytest.approx(np.sqrt((1 - rho) / 2), abs=1e-12)
    assert epic_distance(reward, shaped(rng, reward), **kwargs) < 1e-9
    assert epic_distance(reward, shaped(rng, reward, 1.0), gamma=1.0) < 1e-9
    assert epic_distance(reward, shaped(rng, reward, 1.0), gamma=0.5) > 0.1


def test_val_is_the_advantage_and_equals_loops():
    rng, transition, reward = random_mdp(4)
    policy = rng.dirichlet(np.ones(A), S)
    c = canonicalise(reward, transition, gamma=0.9, policy=policy)[..., 0]
    np.testing.assert_allclose((policy * c).sum(-1), 0, atol=1e-13)
    values = policy_evaluation(transition, reward, policy, gamma=0.9)
    q = (transition * (reward + 0.9 * values)).sum(-1)
    np.testing.assert_allclose(c, q - values[:, None], atol=1e-13)
    full = naive_val(reward, transition, 0.9, policy)
    np.testing.assert_allclose(np.broadcast_to(c[..., None], full.shape), full, atol=1e-12)
    again = canonicalise(full, transition, gamma=0.9, policy=policy)[..., 0]
    np.testing.assert_allclose(again, c, atol=1e-12)


@pytest.mark.parametrize(("norm", "metric"), list(itertools.product([1, 2, np.inf], repeat=2)))
def test_opposites_with_mixed_norms(norm, metric):
    _, transition, reward = random_mdp(5, 5, 3)
    c = naive_val(reward, transition, 0.9, np.full((5, 3), 1 / 3)).ravel()
    expected = 2 * np.linalg.norm(c, metric) / np.linalg.norm(c, norm)
    kwargs = {"gamma": 0.9, "norm": norm, "metric": metric}
    assert starc_distance(reward, -reward, transition, **kwargs) == pytest.approx(expected, rel=1e-9)
    assert distance_matrix([reward, -reward], transition, **kwargs)[0, 1] == pytest.approx(expected, rel=1e-9)


def test_trivial_rewards():
    rng, transition, reward = random_mdp(6)
    zero = np.zeros_like(reward)
    only_shaping = redistributed(rng, shaped(rng, zero), transition)
    for norm in (1, 2, np.inf):
        kwargs = {"gamma": GAMMA, "norm": norm, "metric": norm}
        assert starc_distance(only_shaping, zero, transition, **kwargs) == 0
        assert starc_distance(1e6 * only_shaping, -1e-6 * only_shaping, transition, **kwargs) == 0
        assert starc_distance(only_shaping, reward, transition, **kwargs) == pytest.approx(1, abs=1e-9)
    assert epic_distance(shaped(rng, zero), zero, gamma=GAMMA) == 0
    assert epic_distance(shaped(rng, zero), reward, gamma=GAMMA) == pytest.approx(0.5, abs=1e-9)


# --- metric properties ----------------------------------------------------------------------------------------------


@given(seed=st.integers(0, 10_000), norm=st.sampled_from([1, 2, "inf"]), gamma=st.sampled_from([0.0, 0.5, 0.99]))
def test_metric_axioms(seed, norm, gamma):
    rng, transition, _ = random_mdp(seed, 4, 2)
    rewards = rng.normal(size=(4, 4, 2, 4)) * rng.lognormal(sigma=3, size=(4, 1, 1, 1))
    rewards[3] = 2 * shaped(rng, redistributed(rng, rewards[0], transition), gamma)
    for d in (
        distance_matrix(rewards, transition, gamma=gamma, norm=norm, metric=norm),
        2 * epic_distance_matrix(rewards, gamma=gamma),
    ):
        assert np.array_equal(d, d.T)
        assert not np.diag(d).any()
        assert d.max() <= 2 + 1e-12
        assert (d[:, None, :] <= d[:, :, None] + d[None, :, :] + 1e-12).all()
    d = distance_matrix(rewards, transition, gamma=gamma, norm=norm, metric=norm)
    assert d[0, 3] < 1e-8
    assert d[0, 1] > 1e-3
    assert starc_distance(rewards[0], -rewards[3], transition, gamma=gamma, norm=norm, metric=norm) > 2 - 1e-8


@pytest.mark.parametrize("metric", [1, 2, "inf", "weighted_1", "weighted_2", "weighted_inf"])
@pytest.mark.parametrize("canonicalisation", list(CANONICALISATIONS))
def test_matrix_equals_pairs(canonicalisation, metric):
    rng, transition, reward = random_mdp(7)
    rewards = np.stack([reward, rng.normal(size=reward.shape), reward + 1e-7 * rng.normal(size=reward.shape), -reward])
    kwargs = {"gamma": GAMMA, "canonicalisation": canonicalisation, "metric": metric}
    pairs = np.array([[starc_distance(a, b, transition, **kwargs) for b in rewards] for a in rewards])
    np.testing.assert_allclose(distance_matrix(rewards, transition, **kwargs), pairs, rtol=1e-7, atol=1e-14)
    np.testing.assert_allclose(distance_matrix(rewards.astype(np.float32), transition, **kwargs), pairs, atol=1e-5)
    epic = np.array([[epic_distance(a, b, gamma=GAMMA) for b in rewards] for a in rewards])
    np.testing.assert_allclose(epic_distance_matrix(list(rewards), gamma=GAMMA), epic, rtol=1e-7, atol=1e-14)


def test_batch_axes_equal_loops():
    rng = np.random.default_rng(8)
    a, b = rng.normal(size=(2, 1, S, A, S)), rng.normal(size=(3, S, A, S))
    transition = rng.dirichlet(np.ones(S), (3, S, A))
    d = starc_distance(a, b, transition, gamma=np.array([0.5, 0.9, 0.99]))
    e = epic_distance(a, b, gamma=GAMMA)
    matrix = distance_matrix(b, transition, gamma=GAMMA, metric=1)
    for i, j in itertools.product(range(2), range(3)):
        one = starc_distance(a[i, 0], b[j], transition[j], gamma=[0.5, 0.9, 0.99][j])
        assert d[i, j] == pytest.approx(one, abs=1e-12)
        assert e[i, j] == pytest.approx(epic_distance(a[i, 0], b[j], gamma=GAMMA), abs=1e-12)
        alone = starc_distance(b[i], b[j], transition[2], gamma=GAMMA, metric=1)
        assert matrix[2, i, j] == pytest.approx(alone, abs=1e-12)
    shared = starc_distance(a, b, transition[0], gamma=GAMMA)
    assert shared[1, 2] == pytest.approx(starc_distance(a[1, 0], b[2], transition[0], gamma=GAMMA), abs=1e-12)


def test_traced_in_single_precision():
    assert not jax.config.jax_enable_x64
    rng, transition, reward = random_mdp(9)
    others = rng.normal(size=(4, *reward.shape))
    others[3] = 2 * shaped(rng, reward)

    @jax.jit
    def distances(reward, others, gamma):
        starc = jax.vmap(lambda other: starc_distance(reward, other, transition, gamma=gamma))(others)
        epic = jax.vmap(lambda other: epic_distance(reward, other, gamma=gamma))(others)
        return starc, epic, distance_matrix(others, transition, gamma=gamma)

    for name in CANONICALISATIONS:
        traced = jax.jit(lambda a, b, name=name: starc_distance(a, b, transition, gamma=GAMMA, canonicalisation=name))(
            jnp.asarray(reward), jnp.asarray(others[0])
        )
        known = starc_distance(reward, others[0], transition, gamma=GAMMA, canonicalisation=name)
        assert float(traced) == pytest.approx(known, abs=1e-4), name

    single = distances(jnp.asarray(reward), jnp.asarray(others), GAMMA)
    double = (
        starc_distance(reward, others, transition, gamma=GAMMA),
        epic_distance(reward, others, gamma=GAMMA),
        distance_matrix(others, transition, gamma=GAMMA),
    )
    for x, y in zip(single, double, strict=True):
        assert (x.dtype, y.dtype, type(y)) == (jnp.float32, np.float64, np.ndarray)
        np.testing.assert_allclose(x, y, atol=2e-5)
    assert starc_distance(jnp.asarray(reward), jnp.asarray(reward), transition, gamma=GAMMA) < 1e-9


# --- bad input ------------------------------------------------------------------------------------------------------


def test_errors():
    _, transition, reward = random_mdp(10)
    wrong, bad = transition.copy(), reward.copy()
    wrong[3, 1, 0] += 0.5
    bad[1, 2, 3] = np.nan
    cases = [
        (r"transition\[3, 1\] must be a distribution", (reward, reward, wrong), {}),
        (r"gamma must be in \[0, 1\), got 1.0", (reward, reward, transition), {"gamma": 1.0}),
        (r"norm must be one of 1, 2, inf, weighted_1, weighted_2, weighted_inf, got 3", (reward, reward, transition),
         {"norm": 3}),
        (r"metric must be one of 1, 2, inf, .*, got 'l2'", (reward, reward, transition), {"metric": "l2"}),
        (r"canonicalisation must be one of val, minimal, .*, none, got 'starc'", (reward, reward, transition),
         {"canonicalisation": "starc"}),
        (r"policy belongs to the canonicalisations val and val_potential, got one for 'epic'",
         (reward, reward, transition), {"canonicalisation": "epic", "policy": np.full((S, A), 1 / A)}),
        (r"reward_b must have shape \[S, A, S\] = \(8, 3, 8\)", (reward, reward[:, :2], transition), {}),
        (r"transition must have shape \[..., S, A, S\], got \(3, 8, 8\)", (reward, reward, transition.swapaxes(0, 1)),
         {}),
        (r"reward_b must be finite, got nan at index \[1, 2, 3\]", (reward, bad, transition), {}),
        (r"leading batch axes must broadcast", (reward[None].repeat(2, 0), reward[None].repeat(3, 0), transition), {}),
        (r"policy must have shape \[S, A\]", (reward, reward, transition), {"policy": np.full((S, 2), 0.5)}),
    ]  # fmt: skip
    for message, arguments, keywords in cases:
        with pytest.raises(ValueError, match=message):
            starc_distance(*arguments, **{"gamma": GAMMA, **keywords})
    with pytest.raises(ValueError, match="rewards must be finite, got inf"):
        distance_matrix([reward, np.where(np.isnan(bad), np.inf, bad)], transition, gamma=GAMMA)
    with pytest.raises(ValueError, match=r"rewards must have shape \[..., M, S, A, S\]"):
        distance_matrix(reward, transition, gamma=GAMMA)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got 1.5"):
        epic_distance(reward, reward, gamma=1.5)
    with pytest.raises(ValueError, match=r"coverage must hold weights"):
        dard_distance(reward, reward, transition, gamma=GAMMA, coverage=-np.ones_like(reward))
    with pytest.raises(ValueError, match="reward_b must be finite, got nan"):
        dard_distance(reward, bad, transition, gamma=GAMMA)
    with pytest.raises(ValueError, match="reward_a must be finite"):
        epic_distance(bad, reward, gamma=GAMMA)
