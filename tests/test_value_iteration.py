"""Exact dynamic programming against naive loops, closed forms and a linear programme, and the agent built on it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linprog

import reward_design as rd
from reward_design.agents import evaluate, train_seeds, value_iteration
from reward_design.agents.value_iteration import (
    action_values,
    expected_return,
    greedy_policy,
    policy_evaluation,
    policy_iteration,
)
from reward_design.envs import task

S, A, GAMMA = 8, 3, 0.95
CONFIG = value_iteration.Config(total_timesteps=300, sweeps_per_update=20)


def random_mdp(seed):
    rng = np.random.default_rng(seed)
    return rng, rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A, S))


def naive_values(transition, reward, gamma, choose=max):
    values = [0.0] * S
    for _ in range(1000):
        values = [
            choose(
                [sum(transition[s, a, t] * (reward[s, a, t] + gamma * values[t]) for t in range(S)) for a in range(A)]
            )
            for s in range(S)
        ]
    return np.array(values)


# --- array functions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("solver", [value_iteration.value_iteration, policy_iteration])
def test_optimal_values_equal_naive_loops(solver):
    _, transition, reward = random_mdp(0)
    expected = naive_values(transition, reward, 0.9)
    solution = solver(transition, reward, gamma=0.9)
    np.testing.assert_allclose(solution.values, expected, atol=1e-9)
    q = (transition * (reward + 0.9 * expected)).sum(-1)
    np.testing.assert_allclose(solution.action_values, q, atol=1e-9)
    np.testing.assert_allclose(action_values(transition, reward, expected, gamma=0.9), q, atol=1e-12)
    assert (solution.policy.argmax(-1) == q.argmax(-1)).all()
    assert isinstance(solution.residual, float)
    assert solution.residual < 1e-9


def test_optimal_values_equal_the_linear_programme():
    _, transition, reward = random_mdp(1)
    paid, rows = (transition * reward).sum(-1).ravel(), transition.reshape(-1, S)
    system = GAMMA * rows - np.repeat(np.eye(S), A, axis=0)
    programme = linprog(np.ones(S), A_ub=system, b_ub=-paid, bounds=(None, None))
    np.testing.assert_allclose(policy_iteration(transition, reward, gamma=GAMMA).values, programme.x, atol=1e-8)


def test_closed_form_of_a_corridor():
    model = task("deep_sea", size=6).tabular()
    solution = policy_iteration(model.transition, model.reward, gamma=model.gamma)
    best = expected_return(model.transition, model.reward, solution.policy, model.initial, gamma=model.gamma)
    assert best == pytest.approx(model.initial @ solution.values, abs=1e-12)
    transition, reward = np.zeros((5, 1, 5)), np.zeros((5, 1, 5))
    transition[np.arange(4), 0, np.arange(1, 5)] = transition[4, 0, 4] = 1.0
    reward[3, 0, 4] = 1.0
    values = value_iteration.value_iteration(transition, reward, gamma=0.5).values
    np.testing.assert_allclose(values, [1 / 8, 1 / 4, 1 / 2, 1, 0], atol=1e-15)


def test_policy_evaluation_equals_naive_loop_and_simulation_of_returns():
    rng, transition, reward = random_mdp(2)
    policy = rng.dirichlet(np.ones(A), S)
    values = np.zeros(S)
    for _ in range(1000):
        values = (policy * (transition * (reward + GAMMA * values)).sum(-1)).sum(-1)
    np.testing.assert_allclose(policy_evaluation(transition, reward, policy, gamma=GAMMA), values, atol=1e-10)
    initial = rng.dirichlet(np.ones(S))
    j = expected_return(transition, reward, policy, initial, gamma=GAMMA)
    assert isinstance(j, float)
    assert j == pytest.approx(initial @ values, abs=1e-10)


def test_ties_are_shared_and_near_ties_are_not():
    q = np.array([[1.0, 1.0 + 1e-12, 0.5], [1.0, 1.0 + 1e-6, 0.5]])
    assert greedy_policy(q).tolist() == [[0.5, 0.5, 0.0], [0.0, 1.0, 0.0]]
    assert greedy_policy(q, tolerance=1e-3).tolist() == [[0.5, 0.5, 0.0]] * 2


@pytest.mark.parametrize("solver", [value_iteration.value_iteration, policy_iteration])
def test_batches_equal_loops(solver):
    rng = np.random.default_rng(3)
    rewards, transitions = rng.normal(size=(3, 1, S, A, S)), rng.dirichlet(np.ones(S), (2, S, A))
    gammas = np.array([0.5, 0.9])
    batch = solver(transitions, rewards, gamma=gammas)
    policy = rng.dirichlet(np.ones(A), S)
    values = policy_evaluation(transitions, rewards, policy, gamma=gammas)
    assert batch.policy.shape == (3, 2, S, A)
    for i in range(3):
        for j in range(2):
            one = solver(transitions[j], rewards[i, 0], gamma=gammas[j])
            np.testing.assert_allclose(batch.values[i, j], one.values, atol=1e-9)
            alone = policy_evaluation(transitions[j], rewards[i, 0], policy, gamma=gammas[j])
            np.testing.assert_allclose(values[i, j], alone, atol=1e-12)


def test_traced_calls_agree():
    _, transition, reward = random_mdp(4)

    @jax.jit
    def both(reward, gamma):
        return [
            solver(transition, reward, gamma=gamma).values
            for solver in (value_iteration.value_iteration, policy_iteration)
        ]

    expected = policy_iteration(transition, reward, gamma=0.9).values
    for values in both(jnp.asarray(reward), 0.9):
        assert values.dtype == jnp.float32
        np.testing.assert_allclose(values, expected, atol=1e-4)


def test_array_errors():
    _, transition, reward = random_mdp(5)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\), got 1"):
        value_iteration.value_iteration(transition, reward, gamma=1)
    with pytest.raises(ValueError, match=r"transition\[0, 0\] must be a distribution"):
        value_iteration.value_iteration(2 * transition, reward, gamma=0.9)
    with pytest.raises(ValueError, match=r"reward must have shape \[S, A, S\]"):
        policy_iteration(transition, reward[..., :3], gamma=0.9)
    with pytest.raises(ValueError, match="reward must be finite, got nan"):
        policy_iteration(transition, np.where(reward > 2, np.nan, reward), gamma=0.9)
    with pytest.raises(ValueError, match=r"policy\[0\] must be a distribution"):
        policy_evaluation(transition, reward, np.ones((S, A)), gamma=0.9)


# --- the agent ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def chain_run():
    chain = task("chain")
    config = value_iteration.Config(total_timesteps=300, sweeps_per_update=20, gamma=chain.gamma)
    return chain, config, value_iteration.train(config, chain, rd.environment_reward(), jax.random.key(0))


def test_train_reaches_the_exact_solution(chain_run):
    chain, config, result = chain_run
    model = chain.tabular()
    best = policy_iteration(model.transition, model.reward, gamma=model.gamma)
    optimum = expected_return(model.transition, model.reward, best.policy, model.initial, gamma=model.gamma)
    np.testing.assert_allclose(result.state.params["q"], best.action_values, atol=1e-10)
    metrics = result.metrics
    assert all(value.shape == (config.num_updates,) and value.dtype == np.float64 for value in metrics.values())
    assert metrics["true_return"][-1] == pytest.approx(optimum, abs=1e-10)
    assert metrics["shaped_return"][-1] == metrics["term/environment"][-1] == metrics["true_return"][-1]
    assert metrics["success"][-1] == pytest.approx(1, abs=1e-9)
    assert metrics["residual"][-1] < 1e-10 < metrics["residual"][0]
    assert metrics["env_steps"].tolist() == [20.0 * (i + 1) for i in range(config.num_updates)]


def test_metrics_equal_simulated_episodes(chain_run):
    chain, config, result = chain_run
    played = evaluate(value_iteration.AGENT, config, chain, result.state, jax.random.key(1), num_episodes=256)
    assert np.mean(played["success"]) == pytest.approx(result.metrics["success"][-1], abs=0.05)
    returns, lengths = result.metrics["undiscounted_return"][-1], result.metrics["length"][-1]
    assert np.mean(played["true_return"]) == pytest.approx(returns, abs=0.1)
    assert np.mean(played["length"]) == pytest.approx(lengths, rel=0.1)


def test_shaping_keeps_the_solution_and_q_moves_by_the_potential(chain_run):
    chain, config, plain = chain_run
    reward = rd.potential_shaping(chain.potential, gamma=chain.gamma)
    result = value_iteration.train(config, chain, reward, jax.random.key(0))
    model = chain.tabular()
    with jax.enable_x64(True):
        phi = np.asarray(chain.potential(jnp.asarray(model.observations)))
    moved = result.state.params["q"] + phi[:, None]
    np.testing.assert_allclose(moved[~model.terminal], plain.state.params["q"][~model.terminal], atol=1e-9)
    assert result.metrics["true_return"][-1] == pytest.approx(plain.metrics["true_return"][-1], abs=1e-9)
    shaped = plain.metrics["true_return"][-1] - model.initial @ phi
    assert result.metrics["shaped_return"][-1] == pytest.approx(shaped, abs=1e-9)
    terms = sum(value for name, value in result.metrics.items() if name.startswith("term/"))
    np.testing.assert_allclose(terms, result.metrics["shaped_return"], atol=1e-12)
    backwards = rd.weighted_sum(away=rd.environment_reward(), weights={"away": -1.0})
    worst = value_iteration.train(config, chain, backwards, jax.random.key(0))
    assert worst.metrics["true_return"][-1] < plain.metrics["true_return"][-1] - 0.1


def test_one_sweep_equals_the_bellman_operator():
    chain = task("chain")
    config = value_iteration.Config(total_timesteps=3, sweeps_per_update=1, gamma=chain.gamma)
    result = value_iteration.train(config, chain, rd.environment_reward(), jax.random.key(0))
    model = chain.tabular()
    q = np.zeros(model.transition.shape[:2])
    for _ in range(3):
        q = np.einsum("sat,sat->sa", model.transition, model.reward + model.gamma * q.max(-1))
    np.testing.assert_allclose(result.state.params["q"], q, atol=1e-14)


def test_vmapped_over_gamma_keys_and_reward_parameters(chain_run):
    chain, config, plain = chain_run
    reward = rd.weighted_sum(task=rd.environment_reward())

    def final(gamma, key, weight):
        config = value_iteration.Config(total_timesteps=300, sweeps_per_update=20, gamma=gamma)
        params = {"weights": {"task": weight}, "rewards": {"task": ()}}
        return value_iteration.train(config, chain, reward, key, reward_params=params).metrics

    keys = jax.random.split(jax.random.key(0), 2)
    metrics = jax.vmap(final)(jnp.array([0.5, chain.gamma]), keys, jnp.array([1.0, 2.0]))
    expected = plain.metrics["true_return"][-1]
    assert metrics["true_return"][1, -1] == pytest.approx(expected, abs=1e-4)
    assert metrics["shaped_return"][1, -1] == pytest.approx(2 * expected, abs=1e-4)
    assert metrics["true_return"][0, -1] < expected - 1e-3
    seeds = train_seeds(value_iteration.AGENT, config, chain, rd.environment_reward(), keys)
    np.testing.assert_allclose(seeds.metrics["true_return"][:, -1], expected, atol=1e-4)


def test_agent_errors():
    chain = task("chain")
    key = jax.random.key(0)
    bad = rd.pointwise("bad", lambda t: jnp.where(t.next_obs == 2, jnp.nan, 1.0))
    with pytest.raises(rd.NonFiniteRewardError, match="reward 'bad' was not finite: term 'bad' on the transition from"):
        value_iteration.train(CONFIG, chain, bad, key)
    with pytest.raises(TypeError, match="has no table"):
        value_iteration.train(CONFIG, chain, rd.delayed(rd.environment_reward()), key)
    with pytest.raises(TypeError, match="has no exact tabular dynamics"):
        value_iteration.train(CONFIG, task("cartpole"), rd.environment_reward(), key)
    with pytest.raises(ValueError, match="give both the same gamma"):
        value_iteration.train(CONFIG, chain, rd.potential_shaping(chain.potential, gamma=0.5), key)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\), got 1.0"):
        value_iteration.train(value_iteration.Config(gamma=1.0), chain, rd.environment_reward(), key)
    with pytest.raises(ValueError, match="sweeps_per_update must be in"):
        value_iteration.Config(total_timesteps=3)
