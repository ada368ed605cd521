"""Exact dynamics of the tabular tasks, and their simulation."""

import dataclasses
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from reward_design.core import Reward
from reward_design.envs import task
from reward_design.envs.base import Layout, Tabular
from reward_design.envs.grid import parse_grid, slipping
from reward_design.envs.random_mdp import random_reward, random_transition
from reward_design.envs.tables import reward_table
from reward_design.envs.tabular import AliasTable, TabularEnv
from reward_design.envs.tabular_model import check_tabular, model_from_branches, optimal_values, shortest_steps

SETTINGS = [
    ("chain", {}),
    ("chain", {"num_states": 6, "slip": 0.2, "distractor": 0.002}),
    ("deep_sea", {}),
    ("deep_sea", {"size": 5, "stochastic": True, "mapping_seed": 3}),
    ("cliff", {}),
    ("four_rooms", {}),
    ("four_rooms", {"slip": 1 / 3, "start": "random", "goal": (6, 2)}),
    ("key_door", {}),
    ("key_door", {"slip": 0.3, "start": "random"}),
    ("random_mdp", {}),
    ("random_mdp", {"num_states": 9, "num_actions": 3, "num_goals": 2, "seed": 4}),
]
IDS = [f"{name}-{'-'.join(settings) or 'default'}" for name, settings in SETTINGS]
FEW = [case for case in zip(SETTINGS, IDS) if case[1] not in ("chain-default", "key_door-slip-start")]
every_model = pytest.mark.parametrize(("name", "settings"), SETTINGS, ids=IDS)


def enumerate_steps(env: TabularEnv, draws: int):
    """Step `draws` times from every (state, action): successors and rewards [S, A, draws]."""
    num_states, num_actions = env.tabular().transition.shape[:2]

    def one(key, state, action):
        obs, _, reward, terminated, _, _ = env.step(key, initial._replace(inner=state), action)
        return obs, reward, terminated

    initial = env.reset(jax.random.key(0))[1]
    over = jax.vmap(jax.vmap(jax.vmap(one, (0, None, None)), (0, None, 0)), (0, 0, None))
    keys = jax.random.split(jax.random.key(1), (num_states, num_actions, draws))
    states, actions = jnp.arange(num_states, dtype=jnp.int32), jnp.arange(num_actions, dtype=jnp.int32)
    return jax.tree.map(np.asarray, jax.jit(over)(keys, states, actions))


def drawn(model: Tabular) -> Layout:
    assert model.layout is not None
    return model.layout


def table(reward: Reward, model: Tabular) -> np.ndarray:
    return np.asarray(reward_table(reward, model))


def reach(model: Tabular, policy: np.ndarray, goal: np.ndarray, horizon: int) -> float:
    """Probability to be in an absorbing set after `horizon` steps of a deterministic policy."""
    moves = model.transition[np.arange(len(policy)), policy]
    return float(model.initial @ np.linalg.matrix_power(moves, horizon) @ goal)


def true_return(model: Tabular, policy: np.ndarray) -> float:
    """Discounted return of a deterministic policy, by a linear solve."""
    rows = np.arange(len(policy))
    moves, pay = model.transition[rows, policy], (model.transition * model.reward).sum(-1)[rows, policy]
    return float(model.initial @ np.linalg.solve(np.eye(len(rows)) - model.gamma * moves, pay))


# --- arrays ---------------------------------------------------------------------------------------------------------


@every_model
def test_arrays_are_an_mdp(name, settings):
    model = task(name, **settings).tabular()
    assert model.transition.dtype == model.reward.dtype == model.initial.dtype == np.float64
    np.testing.assert_allclose(model.transition.sum(-1), 1, atol=1e-12)
    np.testing.assert_allclose(model.initial.sum(), 1, atol=1e-12)
    assert (model.transition >= 0).all()
    assert (model.initial[model.terminal] == 0).all()
    for state in np.flatnonzero(model.terminal):
        assert (model.transition[state, :, state] == 1).all()
        assert (model.reward[state] == 0).all()
    assert np.any(model.reward[~model.terminal] != 0)
    if name not in ("cliff", "random_mdp"):  # no state that nobody can ever see
        from_start = shortest_steps(
            dataclasses.replace(
                model, transition=np.repeat(model.transition.mean(1).T[:, None], model.transition.shape[1], 1)
            ),
            model.initial > 0,
        )
        assert np.isfinite(from_start).all()


@every_model
def test_simulation_agrees_with_the_arrays(name, settings):
    env = task(name, **settings).functional()
    assert isinstance(env, TabularEnv)
    model = env.tabular()
    support = (model.transition > 0).sum(-1)
    successors, rewards, terminated = enumerate_steps(env, 1 if support.max() == 1 else 400)
    num_states, num_actions, draws = successors.shape
    rows = np.arange(num_states)[:, None, None], np.arange(num_actions)[None, :, None]
    np.testing.assert_allclose(rewards, model.reward[*rows, successors], rtol=1e-6)
    np.testing.assert_array_equal(terminated, model.terminal[successors])
    counts = np.zeros(model.transition.shape)
    np.add.at(counts, (*rows, successors), 1)
    assert (counts[model.transition == 0] == 0).all()
    if support.max() == 1:
        np.testing.assert_array_equal(counts, model.transition)
        return
    expected = draws * model.transition
    statistic = np.where(expected > 0, (counts - expected) ** 2 / np.where(expected > 0, expected, 1), 0).sum()
    assert stats.chi2.sf(statistic, (support - 1).sum()) > 1e-4
    shifted = draws * np.roll(model.transition, 1, axis=1)  # control: another action's probabilities are refused
    wrong = ((counts - shifted) ** 2 / np.maximum(shifted, 1)).sum()
    assert stats.chi2.sf(wrong, (support - 1).sum()) < 1e-12


def test_start_states_follow_the_initial_distribution():
    model = task("random_mdp", num_states=9, num_actions=3, num_goals=2, seed=4).tabular()
    initial = np.array([0.5, 0.0, 0.2, 0.1, 0.1, 0.1, 0.0, 0.0, 0.0])
    env = TabularEnv("start", dataclasses.replace(model, initial=initial), horizon=5, success=lambda t: t.terminated)
    obs, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(2), 4000))
    counts = np.bincount(np.asarray(obs), minlength=9)
    assert (counts[initial == 0] == 0).all()
    assert stats.chisquare(counts[initial > 0], 4000 * initial[initial > 0]).pvalue > 1e-4
    np.testing.assert_array_equal(state.inner, obs)
    assert (np.asarray(state.time) == 0).all()


@pytest.mark.parametrize("width", [1, 2, 5])
def test_alias_table_is_exact(width):
    rng = np.random.default_rng(width)
    probabilities = np.zeros((20, 8))
    for row in probabilities:
        count = rng.integers(1, width + 1)
        row[rng.choice(8, count, replace=False)] = rng.dirichlet(np.ones(count))
    drawer = AliasTable(probabilities)
    mass = np.zeros_like(probabilities)
    outcome = drawer.outcome.reshape(-1)
    for position in range(outcome.size):
        row = position // drawer.width
        mass[row, outcome[position]] += drawer.threshold[position] / drawer.width
        if drawer.threshold[position] < 1:
            mass[row, outcome[drawer.alias[position]]] += (1 - drawer.threshold[position]) / drawer.width
    np.testing.assert_allclose(mass, probabilities, atol=1e-12)
    assert (mass[probabilities == 0] == 0).all()


def test_step_does_no_work_of_the_size_of_the_state_space():
    env = task("random_mdp", num_states=60).functional()
    _, state = env.reset(jax.random.key(0))
    jaxpr = jax.make_jaxpr(env.step)(jax.random.key(0), state, jnp.int32(1))
    sizes = [v.aval.size for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "size")]
    assert max(sizes) <= 2
    assert any(np.size(c) >= 60 for c in jaxpr.consts)  # control: the tables are there, as constants


# --- against the published environments -----------------------------------------------------------------------------


def test_cliff_is_gymnasiums():
    env: Any = gymnasium.make("CliffWalking-v1").unwrapped
    published, model = env.P, task("cliff").tabular()
    assert env.observation_space.n == len(model.initial)
    np.testing.assert_array_equal(model.initial, env.initial_state_distrib)
    for state, actions in published.items():
        for action, outcomes in actions.items():
            if state == 47:
                assert model.terminal[state]
                continue
            expected, pay = np.zeros(48), np.zeros(48)
            for probability, successor, reward, terminated in outcomes:
                expected[successor] += probability
                pay[successor] = reward
                assert model.terminal[successor] == terminated
            np.testing.assert_array_equal(model.transition[state, action], expected)
            np.testing.assert_array_equal(model.reward[state, action], pay)
    assert optimal_values(dataclasses.replace(model, gamma=1 - 1e-9))[0][36] == pytest.approx(-13, abs=1e-5)


@pytest.mark.parametrize("mapping_seed", [None, 0, 7])
def test_deep_sea_follows_the_published_rules(mapping_seed):
    """Side by side with bsuite's rules, written out: row, column, cost 0.01 / N, treasure 1 at the last column."""
    size = 6
    problem = task("deep_sea", size=size, mapping_seed=mapping_seed)
    env, cells = problem.functional(), drawn(problem.tabular()).cells
    mapping = np.ones((size, size), int)
    if mapping_seed is not None:
        mapping = np.random.RandomState(mapping_seed).binomial(1, 0.5, [size, size])
    rng, step = np.random.default_rng(0), jax.jit(env.step)
    returns = []
    for episode in range(20):
        obs, state = env.reset(jax.random.key(0))
        row = column = 0
        total = 0.0
        for time in range(size):
            assert tuple(cells[int(obs)]) == (row, column)
            action = int(mapping[row, column]) if episode == 0 else int(rng.integers(2))
            went_right = action == mapping[row, column]
            expected = float(column == size - 1 and went_right) - 0.01 / size * went_right
            column = int(np.clip(column + (1 if went_right else -1), 0, size - 1))
            row = time + 1
            obs, state, reward, terminated, truncated, _ = step(jax.random.key(0), state, action)
            total += float(reward)
            assert float(reward) == pytest.approx(expected, abs=1e-6)
            assert (bool(terminated), bool(truncated)) == (time == size - 1, False)
        returns.append(total)
    assert returns[0] == pytest.approx(0.99, abs=1e-6)
    assert -0.01 < np.median(returns[1:]) < 0


def test_deep_sea_in_gymnax_pays_the_same():
    gymnax_deep_sea = pytest.importorskip("gymnax.environments.bsuite.deep_sea")
    size = 5
    theirs = gymnax_deep_sea.DeepSea(size=size)
    params = theirs.default_params.replace(randomize_actions=False)
    ours = task("deep_sea", size=size).functional()
    rng, step, their_step = np.random.default_rng(1), jax.jit(ours.step), jax.jit(theirs.step_env)
    start, their_start = ours.reset(jax.random.key(0))[1], theirs.reset_env(jax.random.key(0), params)[1]
    for _ in range(15):
        state, their_state = start, their_start
        for action in np.where(rng.uniform(size=size) < 0.8, 1, 0):
            _, state, reward, terminated, _, _ = step(jax.random.key(0), state, int(action))
            _, their_state, their_reward, done, _ = their_step(jax.random.key(0), their_state, int(action), params)
            assert float(reward) == pytest.approx(float(their_reward), abs=1e-6)
            assert bool(terminated) == bool(done)


def test_deep_sea_stochastic_fails_to_move_right():
    model = task("deep_sea", size=5, stochastic=True).tabular()
    cells = [tuple(cell) for cell in drawn(model).cells]
    start, moved, failed = cells.index((0, 0)), cells.index((1, 1)), cells.index((1, 0))
    assert model.transition[start, 1, moved] == pytest.approx(0.8)
    assert model.transition[start, 1, failed] == pytest.approx(0.2)
    assert model.transition[start, 0, failed] == 1


def test_four_rooms_is_the_published_house():
    model = task("four_rooms", slip=1 / 3).tabular()
    assert len(model.initial) == 104
    cells = {tuple(cell): i for i, cell in enumerate(drawn(model).cells)}
    for hallway in [(3, 6), (6, 2), (7, 9), (10, 6)]:
        assert hallway in cells
    assert drawn(model).walls.sum() + 104 == 169
    corner, right = cells[1, 1], cells[1, 2]
    assert model.transition[corner, 1, right] == pytest.approx(2 / 3)
    assert model.transition[corner, 0, corner] == pytest.approx(2 / 3 + 1 / 9)
    assert shortest_steps(model, model.terminal)[corner] == 20


def test_key_door_needs_key_then_door():
    model = task("key_door").tabular()
    states = {(int(layer), *cell): i for i, (layer, cell) in enumerate(zip(drawn(model).layer, drawn(model).cells))}
    shut, right = states[0, 4, 4], 1
    assert model.transition[shut, right, shut] == 1  # locked without the key
    assert model.transition[states[1, 4, 4], right, states[2, 4, 5]] == 1  # opens with it
    assert model.transition[states[0, 1, 2], 3, states[1, 1, 1]] == 1  # picked up by walking onto it
    assert (0, 1, 1) not in states  # nobody stands on the key without having it
    assert shortest_steps(model, model.terminal)[model.initial > 0] == 5 + 3 + 6 + 1 + 6
    assert {layer for layer, row, column in states if column > 5} == {2}


def test_random_mdp_recipe():
    rng = np.random.default_rng(0)
    transition = random_transition(rng, 32, 4)
    assert 4 < (transition > 0).sum(-1).mean() < 6.5
    assert (random_transition(rng, 3, 2) > 0).any(-1).all()
    first, again = task("random_mdp", seed=1).tabular(), task("random_mdp", seed=1, horizon=50).tabular()
    np.testing.assert_array_equal(first.transition, again.transition)
    assert np.any(first.transition != task("random_mdp", seed=2).tabular().transition)
    assert not first.terminal.any()
    rewards = [random_reward(rng, 32, 4, gamma=0.95) for _ in range(200)]
    sparse = [np.mean(reward == 0) > 0.99 for reward in rewards]
    assert 0.02 < np.mean(sparse) < 0.2  # 0.2 * 0.7 (not moved) * 0.5 (not shaped) = 0.07


def test_chain_pays_at_the_right_end_and_tempts_at_the_left():
    model = task("chain", num_states=5, distractor=0.1).tabular()
    assert model.reward[3, 1, 4] == 1
    assert model.reward[0, 0, 0] == 0.1
    assert np.count_nonzero(model.reward) == 2


# --- what the rewards of a task do to an optimal agent, exactly -----------------------------------------------------


@pytest.mark.parametrize(("name", "settings"), [case for case, _ in FEW], ids=[label for _, label in FEW])
def test_what_the_rewards_do_to_an_optimal_agent(name, settings):
    problem = task(name, **settings)
    model = problem.tabular()
    sparse, possible = table(problem.sparse_reward, model), model.transition > 0
    assert set(np.unique(sparse[possible])) == {0.0, 1.0}
    if name in ("four_rooms", "key_door") or (name == "random_mdp" and model.terminal.any()):
        np.testing.assert_array_equal(sparse[possible], model.reward[possible])
    policies = {"true": optimal_values(model)[1], "sparse": optimal_values(model, sparse)[1]}
    policies["dense"] = optimal_values(model, table(problem.dense_reward, model))[1]
    for label, reward in problem.auxiliary.items():
        policies[label] = optimal_values(model, model.reward + table(reward, model))[1]
    returns = {label: true_return(model, policy) for label, policy in policies.items()}
    best = returns["true"]
    assert best - returns["aligned"] <= 0.02 * abs(best)
    assert best - returns["dense"] <= 0.1 * abs(best)
    assert best - returns["misaligned"] > 0.5 * abs(best)
    if not model.terminal.any():
        return
    obs = np.argmin(model.terminal) * np.ones(len(model.initial), np.int32)
    entering = problem.example._replace(obs=obs, next_obs=np.arange(len(obs), dtype=np.int32))
    goal = np.asarray(problem.success(entering)).astype(float)
    reached = {label: reach(model, policy, goal, problem.horizon) for label, policy in policies.items()}
    for label in ("sparse", "dense", "aligned"):
        assert reached[label] >= 0.95 * reached["true"], label
    assert reached["true"] > 0.3
    if name != "random_mdp":  # chance leads to its goals, whatever the agent wants
        assert reached["misaligned"] < 0.35 * reached["true"]


def test_optimal_values_against_value_iteration():
    model = task("random_mdp", num_states=9, num_actions=3, num_goals=2, seed=4).tabular()
    values = np.zeros(9)

    def backup(state, action):
        outcomes = zip(model.transition[state, action], model.reward[state, action], values)
        return sum(p * (r + model.gamma * v) for p, r, v in outcomes)

    for _ in range(600):
        values = np.array([max(backup(state, action) for action in range(3)) for state in range(9)])
    np.testing.assert_allclose(optimal_values(model)[0], values, atol=1e-9)


# --- bad input ------------------------------------------------------------------------------------------------------


def _two_states(**changes) -> Tabular:
    transition = np.zeros((2, 1, 2))
    transition[:, :, 1] = 1
    arrays = {
        "transition": transition,
        "reward": np.zeros((2, 1, 2)),
        "initial": np.array([1.0, 0.0]),
        "gamma": 0.9,
        "terminal": np.array([False, True]),
        "observations": np.arange(2),
    }
    return Tabular(**(arrays | changes))


def test_good_model_passes():
    check_tabular(_two_states())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transition": np.full((2, 1, 2), 0.4)}, r"transition must sum to 1, got 0.8 for state 0, action 0"),
        ({"transition": np.array([[[1.5, -0.5]], [[0.0, 1.0]]])}, r"must not be negative, got -0.5"),
        ({"initial": np.array([0.5, 0.0])}, r"initial must sum to 1, got 0.5"),
        ({"gamma": 1.5}, r"gamma must be in \[0, 1\], got 1.5"),
        ({"terminal": np.array([True, False])}, r"terminal states must lead to themselves, got state 0"),
        ({"reward": np.ones((2, 1, 2))}, r"terminal states must pay 0, got a reward out of terminal state 1"),
        ({"reward": np.full((2, 1, 2), np.nan)}, r"must be finite"),
    ],
)
def test_bad_models_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        check_tabular(_two_states(**changes))


def test_two_rewards_for_one_transition_are_refused():
    with pytest.raises(ValueError, match="must be a function of state, action and successor"):
        model_from_branches(
            ["a", "b"], 1, lambda s, a: [(0.5, "b", 0.0), (0.5, "b", 1.0)],
            initial={"a": 1.0}, is_terminal=lambda s: s == "b", gamma=0.9,
        )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("chain", {"num_states": 1}, "at least 2 states, got num_states=1"),
        ("chain", {"slip": 1.5}, r"slip must be a probability in \[0, 1\], got 1.5"),
        ("deep_sea", {"size": 1}, "at least 2 rows, got size=1"),
        ("four_rooms", {"goal": (0, 0)}, r"free cell off the start, got \(0, 0\)"),
        ("four_rooms", {"start": "anywhere"}, "start must be 'fixed' or 'random', got 'anywhere'"),
        ("four_rooms", {"horizon": 0}, "at least 1 step, got 0"),
        ("four_rooms", {"gamma": 1.1}, r"gamma must be in \[0, 1\], got 1.1"),
        ("key_door", {"plan": "S.KD"}, r"the map lacks \['G'\]"),
        ("key_door", {"plan": "SK#DG"}, "cannot be reached from any start state"),
        ("random_mdp", {"num_states": 2, "num_goals": 2}, "more states than goals"),
    ],
)
def test_bad_settings_are_refused(name, settings, message):
    with pytest.raises(ValueError, match=message):
        task(name, **settings)


@pytest.mark.parametrize(
    ("plan", "message"), [("##\n#", "equal length"), ("SS", "each letter once"), ("S?", "each letter once")]
)
def test_bad_maps_are_refused(plan, message):
    with pytest.raises(ValueError, match=message):
        parse_grid(plan)


def test_slipping_is_a_distribution():
    for slip in (0.0, 0.3, 1.0):
        assert sum(p for p, _ in slipping(2, slip)) == pytest.approx(1)
    assert {a: p for p, a in slipping(2, 0.3)}[2] == pytest.approx(0.7)


def test_tabular_without_a_model_says_so():
    with pytest.raises(TypeError, match="'cartpole' has no exact tabular dynamics"):
        task("cartpole").tabular()
