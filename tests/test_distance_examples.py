"""Exact reward distances of examples that were derived by hand, and of the package's own rewards."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.distance import (
    canonicalise,
    dard_distance,
    distance_matrix,
    epic_distance,
    reward_table,
    reward_tables,
    starc_distance,
)
from reward_design.envs import task

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
