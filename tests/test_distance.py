"""Exact reward distances: worked examples, invariances with their negative controls, and metric properties."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reward_design as rd
from reward_design.agents.dynamic_programming import policy_evaluation
from reward_design.distance import (
    CANONICALISATIONS,
    canonicalise,
    dard_distance,
    distance_matrix,
    epic_distance,
    epic_distance_matrix,
    reward_table,
    reward_tables,
    starc_distance,
)
from reward_design.envs import task

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


# --- worked examples, derived by hand -------------------------------------------------------------------------------

TWO_STATES = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)  # actions stay and switch
POSITION = np.zeros((2, 2, 2))
POSITION[1] = 1.0
MOVING = np.zeros((2, 2, 2))
MOVING[:, 1] = 1.0
IMPOSSIBLE = (TWO_STATES == 0).astype(float)


def test_example_a_canonical_forms():
    c = canonicalise(np.stack([POSITION, MOVING]), TWO_STATES, gamma=0.5)[..., 0]
    np.testing.assert_allclose(c[0].ravel(), [-0.25, 0.25, 0.25, -0.25], atol=1e-15)
    np.testing.assert_allclose(c[1].ravel(), [-0.5, 0.5, -0.5, 0.5], atol=1e-15)


@pytest.mark.parametrize(("norm", "expected"), [(1, 1.0), (2, np.sqrt(2)), (np.inf, 2.0), ("inf", 2.0)])
def test_example_a_norms(norm, expected):
    d = starc_distance(POSITION, MOVING, TWO_STATES, gamma=0.5, norm=norm, metric=norm)
    assert isinstance(d, float)
    assert d == pytest.approx(expected, abs=1e-12)
    assert epic_distance(POSITION, MOVING, gamma=0.5) == pytest.approx(np.sqrt(0.5), abs=1e-12)


@pytest.mark.parametrize(("weight", "expected"), [(0.5, 0.765367), (1.0, 1.051462), (2.0, 1.230824)])
def test_example_a_mixtures(weight, expected):
    mixed = POSITION + weight * MOVING
    assert starc_distance(POSITION, mixed, TWO_STATES, gamma=0.5) == pytest.approx(expected, abs=1e-6)
    minimal = np.sqrt(2 - 2 / np.sqrt(1 + 5 * weight**2))
    for name in ("minimal", "minimal_weighted"):
        d = starc_distance(POSITION, mixed, TWO_STATES, gamma=0.5, canonicalisation=name)
        assert d == pytest.approx(minimal, abs=1e-12)
    assert epic_distance(POSITION, mixed, gamma=0.5) == pytest.approx(expected / 2, abs=1e-6)


def test_example_a_reward_on_arrival_is_equivalent():
    arrival = np.zeros((2, 2, 2))
    arrival[:, :, 1] = 1.0
    assert starc_distance(POSITION, arrival, TWO_STATES, gamma=0.5) < 1e-12
    assert epic_distance(POSITION, arrival, gamma=0.5) < 1e-12


@pytest.mark.parametrize(
    ("size", "dard_opposite", "dard_same"),
    [(1.0, 0.816497, 1.087889), (10.0, 0.089353, 1.382261), (100.0, 0.008944, 1.411048)],
)
def test_example_b_epic_and_dard_read_impossible_transitions(size, dard_opposite, dard_same):
    up, down = POSITION + size * IMPOSSIBLE, -POSITION + size * IMPOSSIBLE
    rho = 1 / np.sqrt(4 * size**2 + 1)
    for name in ("val", "minimal", "minimal_weighted"):
        kwargs = {"gamma": 0.5, "canonicalisation": name}
        assert starc_distance(up, down, TWO_STATES, **kwargs) == pytest.approx(2, abs=1e-12)
        assert starc_distance(up, POSITION, TWO_STATES, **kwargs) < 1e-12
    assert epic_distance(up, down, gamma=0.5) == pytest.approx(rho, abs=1e-12)
    assert epic_distance(up, POSITION, gamma=0.5) == pytest.approx(np.sqrt((1 - rho) / 2), abs=1e-12)
    for other, expected in ((down, dard_opposite), (POSITION, dard_same)):
        dard = starc_distance(up, other, TWO_STATES, gamma=0.5, canonicalisation="dard")
        assert dard == pytest.approx(expected, abs=1e-6)


def test_example_b_weighted_norms_rescue_the_potential_and_not_the_others():
    up, down = POSITION + 100 * IMPOSSIBLE, -POSITION + 100 * IMPOSSIBLE
    expected = {"epic": (0.0100, 1.4107), "dard": (0.0200, 1.4071), "val_potential": (2.0, 0.0)}
    for name, (opposite, same) in expected.items():
        kwargs = {"gamma": 0.5, "canonicalisation": name, "norm": "weighted_2", "metric": "weighted_2"}
        assert starc_distance(up, down, TWO_STATES, **kwargs) == pytest.approx(opposite, abs=1e-4)
        assert starc_distance(up, POSITION, TWO_STATES, **kwargs) == pytest.approx(same, abs=1e-4)


def test_example_c_stochastic():
    transition = np.array([[[0.2, 0.8], [0.6, 0.4]]] * 2)
    arrival = np.zeros((2, 2, 2))
    arrival[:, :, 1] = 1.0
    expected = np.broadcast_to((transition * arrival).sum(-1, keepdims=True), arrival.shape)
    other = np.zeros((2, 2, 2))
    other[1, 0] = 1.0
    np.testing.assert_allclose(
        canonicalise(arrival, transition, gamma=0.9)[..., 0], [[0.2, -0.2], [0.2, -0.2]], atol=1e-14
    )
    np.testing.assert_allclose(
        canonicalise(other, transition, gamma=0.9)[..., 0], [[0.09, -0.09], [0.59, -0.59]], atol=1e-14
    )
    assert starc_distance(arrival, expected, transition, gamma=0.9) < 1e-12
    assert epic_distance(arrival, expected, gamma=0.9) == pytest.approx(np.sqrt(0.5), abs=1e-12)
    for name, norm, value in (
        ("val_potential", 2, np.sqrt(2)), ("val_potential", "weighted_2", np.sqrt(2 - 2 / np.sqrt(6))),
        ("dard", 2, np.sqrt(2)),
    ):  # fmt: skip
        d = starc_distance(arrival, expected, transition, gamma=0.9, canonicalisation=name, norm=norm, metric=norm)
        assert d == pytest.approx(value, abs=1e-6)
    for norm, value in ((1, 25 / 34), (2, np.sqrt(2 - 2 * 0.68 / np.sqrt(0.7124))), (np.inf, 50 / 59)):
        d = starc_distance(arrival, other, transition, gamma=0.9, norm=norm, metric=norm)
        assert d == pytest.approx(value, abs=1e-12)


GOLDEN = {  # pair: (EPIC, DARD, VAL / 2, minimal / 2) on the 3 x 3 grid
    "sparse-center": (0.7500, 0.7518, 0.7695, 0.7718), "sparse-path": (0.1602, 0.1524, 0.1292, 0.1553),
    "sparse-cliff": (0.3676, 0.3805, 0.4203, 0.3801), "center-penalty": (0.6614, 0.6594, 0.6387, 0.6358),
    "center-path": (0.7071, 0.7126, 0.7419, 0.7324), "center-cliff": (0.6692, 0.6764, 0.7094, 0.6926),
    "penalty-path": (0.9871, 0.9883, 0.9916, 0.9879), "penalty-cliff": (0.9300, 0.9248, 0.9074, 0.9250),
    "path-cliff": (0.2672, 0.2888, 0.3529, 0.2852), "sparse-penalty": (1.0, 1.0, 1.0, 1.0),
    "sparse-dense": (0.0, 0.0, 0.0, 0.0), "sparse-shaped": (0.0, 0.0, 0.0, 0.0),
}  # fmt: skip


def grid_world():
    transition = np.zeros((9, 5, 9))
    for (row, column), (a, (dr, dc)) in itertools.product(
        itertools.product(range(3), range(3)), enumerate([(0, 0), (0, -1), (0, 1), (-1, 0), (1, 0)])
    ):
        r, c = (row + dr, column + dc) if 0 <= row + dr < 3 and 0 <= column + dc < 3 else (row, column)
        transition[3 * row + column, a, 3 * r + c] = 1.0
    states = {
        "sparse": [0, 0, 0, 0, 0, 0, 0, 0, 1],
        "center": [0, 0, 0, 0, 1, 0, 0, 0, 0],
        "penalty": [0, 0, 0, 0, 0, 0, 0, 0, -1],
        "path": [0, -1, -1, 0, 0, 0, -1, -1, 4],
        "cliff": [0, -1, -1, 0, 0, 0, -4, -4, 4],
    }
    tables = {k: np.broadcast_to(np.array(v, float)[:, None, None], (9, 5, 9)) for k, v in states.items()}
    phi = -np.array([4.0, 3, 2, 3, 2, 1, 2, 1, 0])
    tables["dense"] = 4 * tables["sparse"] - 1 + 0.99 * phi - phi[:, None, None]
    tables["shaped"] = 4 * tables["sparse"] - 1
    return transition, tables


@pytest.mark.parametrize("pair", list(GOLDEN))
def test_golden_grid(pair):
    transition, tables = grid_world()
    a, b = (tables[name] for name in pair.split("-"))
    epic, dard, val, minimal = GOLDEN[pair]
    assert epic_distance(a, b, gamma=0.99) == pytest.approx(epic, abs=1e-4)
    assert dard_distance(a, b, transition, gamma=0.99) == pytest.approx(dard, abs=1e-4)
    assert starc_distance(a, b, transition, gamma=0.99) / 2 == pytest.approx(val, abs=1e-4)
    for name, value in {"minimal": minimal, "epic": epic, "minimal_potential": epic, "dard": dard}.items():
        d = starc_distance(a, b, transition, gamma=0.99, canonicalisation=name)
        assert d / 2 == pytest.approx(value, abs=1e-4), name


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


# --- rewards of the package -----------------------------------------------------------------------------------------


def test_shaping_is_free_and_misaligned_is_far():
    four_rooms = task("four_rooms")
    model = four_rooms.tabular()
    rewards = {
        "sparse": four_rooms.sparse_reward,
        "shaped": rd.potential_shaping(four_rooms.potential, gamma=four_rooms.gamma),
        "wrong gamma": rd.potential_shaping(four_rooms.potential, gamma=0.5),
        "misaligned": four_rooms.auxiliary["misaligned"],
    }
    d = distance_matrix(reward_tables(rewards, model), model.transition, gamma=model.gamma)
    assert d[0, 1] < 1e-9
    assert d[0, 2] > 1e-2
    assert d[0, 3] > 1e-1


def test_reward_table_equals_the_reward_itself():
    chain = task("chain")
    model = chain.tabular()
    reward = rd.weighted_sum(task=rd.environment_reward(), bonus=rd.potential_shaping(chain.potential, gamma=0.9))
    table = reward_table(reward, model)
    assert table.dtype == np.float64
    params, state = reward.init(jax.random.key(0), chain.example)
    s, a, t = (x.ravel() for x in np.indices(table.shape))
    rows = rd.Transition(
        *(jnp.asarray(x, jnp.int32) for x in (s, a, t)), jnp.asarray(model.reward.ravel(), jnp.float32),
        jnp.asarray(model.terminal[t]), jnp.zeros(s.shape, bool), jnp.asarray(~model.terminal[s]),
    )  # fmt: skip
    expected = reward.step(params, state, rows)[0].reward.reshape(table.shape)
    np.testing.assert_allclose(table, expected, atol=1e-6)
    assert not table[model.terminal].any()
    assert table[~model.terminal].any()


def test_reward_table_over_parameters():
    model = task("chain").tabular()
    goal = rd.pointwise("goal", lambda p, t: p["weight"] * (t.next_obs == 3).astype(float), params={"weight": 1.0})
    tables = jax.vmap(lambda w: reward_table(goal, model, params={"weight": w}))(jnp.array([1.0, 2.0]))
    np.testing.assert_allclose(
        tables, np.stack([1, 2])[:, None, None, None] * reward_table(goal, model)[None], atol=1e-6
    )
    np.testing.assert_allclose(reward_table(goal, model, params={"weight": 2.0}), tables[1], atol=1e-6)


def test_reward_table_names_what_is_missing():
    with pytest.raises(ValueError, match="reward 'asks' reads 'speed', which is nothing that the environment gives"):
        reward_table(rd.pointwise("asks", lambda t: t.info["speed"]), task("chain").tabular())


def test_reward_table_refuses_memory():
    model = task("chain").tabular()
    with pytest.raises(TypeError, match="'memory' has kind CAUSAL: it depends on the past"):
        reward_table(rd.from_step("memory", lambda *_: ((), ()), lambda p, s, t: (t.reward, s)), model)
    whole = rd.from_trajectory("whole", lambda *_: ((), ()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match="'whole' has kind TRAJECTORY: it depends on whole episodes"):
        reward_table(whole, model)


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
