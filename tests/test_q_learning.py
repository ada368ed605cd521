"""Tabular Q-learning against exact values, and its exact relations to shaping and advice."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents import base, q_learning
from reward_design.agents.value_iteration import expected_return, greedy_policy, policy_iteration
from reward_design.envs import task

EXPLORE = q_learning.Config(
    total_timesteps=100_000, num_envs=16, num_steps=125, epsilon_end=0.8, learning_rate_end=0.01
)


def optimal_q(model, reward=None):
    reward = model.reward if reward is None else reward
    return policy_iteration(model.transition, reward, gamma=model.gamma).action_values


def potential_of(a_task):
    return np.asarray(a_task.potential(jnp.asarray(a_task.tabular().observations, jnp.int32)))


# --- the backup -----------------------------------------------------------------------------------------------------


def test_backup_of_one_lane_is_the_textbook_rule():
    q = jnp.arange(6.0).reshape(3, 2)
    args = (jnp.array([1]), jnp.array([0]), jnp.array([10.0]), jnp.array([5.0]))
    new, error = q_learning.backup(q, *args, jnp.array([False]), gamma=0.5, learning_rate=0.1)
    assert error.tolist() == [10.0 + 0.5 * 5.0 - 2.0]
    np.testing.assert_allclose(new, q.at[1, 0].add(0.1 * error[0]))
    new, error = q_learning.backup(q, *args, jnp.array([True]), gamma=0.5, learning_rate=0.1)
    assert error.tolist() == [8.0]


def test_backup_of_crowded_cells_equals_successive_updates_to_the_mean():
    q = jnp.zeros((2, 2))
    reward, zeros = jnp.array([1.0, 2.0, 6.0, 5.0]), jnp.zeros(4)
    cells = (jnp.array([0, 0, 0, 1]), jnp.array([1, 1, 1, 0]))
    new, _ = q_learning.backup(q, *cells, reward, zeros, jnp.ones(4, bool), gamma=0.9, learning_rate=0.3)
    value = 0.0
    for _ in range(3):
        value += 0.3 * (3.0 - value)
    np.testing.assert_allclose(new, [[0, value], [0.3 * 5, 0]], atol=1e-6)
    new, _ = q_learning.backup(q, *cells, reward, zeros, jnp.ones(4, bool), gamma=0.9, learning_rate=1.0)
    np.testing.assert_allclose(new, [[0, 3], [5, 0]], atol=1e-6)


# --- learning -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "shaped", "steps", "tolerance"),
    [("chain", True, 100_000, 0.01), ("four_rooms", False, 800_000, 0.01), ("random_mdp", False, 200_000, 0.06)],
)
def test_converges_to_exact_values(name, shaped, steps, tolerance):
    """With shaping Q is lower by the potential; random_mdp has no terminal state: time limits must not end values."""
    a_task = task(name)
    model = a_task.tabular()
    config = dataclasses.replace(EXPLORE, gamma=a_task.gamma, total_timesteps=steps)
    reward = rd.potential_shaping(a_task.potential, gamma=a_task.gamma) if shaped else rd.environment_reward()
    result = q_learning.train(config, a_task, reward, jax.random.key(0))
    phi = potential_of(a_task)[:, None] if shaped else 0.0
    q, exact = np.asarray(result.state.params["q"], float) + phi, optimal_q(model)
    policy = np.eye(q.shape[1])[(q - phi).argmax(-1)]
    alive = ~model.terminal
    assert np.abs(q - exact)[alive].max() < tolerance * np.abs(exact).max()
    assert not shaped or np.abs(q - phi - exact)[alive].max() > 0.1
    returns = [
        expected_return(model.transition, model.reward, p, model.initial, gamma=model.gamma)
        for p in (policy, greedy_policy(exact))
    ]
    assert returns[0] == pytest.approx(returns[1], rel=0.05)
    assert result.metrics["episodes"].sum() > 100
    assert result.metrics["td_error"][-1] < result.metrics["td_error"].max()
    assert result.metrics["epsilon"][-1] == pytest.approx(0.8)
    assert result.metrics["epsilon"][0] > 0.95


@functools.cache
def runner(config, env, reward, num_updates=8):
    @jax.jit
    def run(q, key):
        state = q_learning.init(config, env, reward, key)._replace(params={"q": q})
        return base.updates(q_learning.AGENT, env, reward, config, state, num_updates)[0].params["q"]

    return lambda q, key: np.asarray(run(jnp.asarray(q, jnp.float32), key))


RANDOM = q_learning.Config(num_envs=4, num_steps=64, epsilon=1.0, epsilon_end=1.0)
PLAIN = rd.environment_reward()


def test_shaping_equals_starting_from_the_potential():
    """Wiewiora 2003: shaping from Q = 0 makes the same updates as no shaping from Q = potential."""
    chain, key = task("chain"), jax.random.key(3)
    alive = ~chain.tabular().terminal
    phi = np.where(alive, 1 + potential_of(chain), 0.0)
    table, look = np.repeat(phi[:, None], chain.env.action_space.n, axis=1), jnp.asarray(phi, jnp.float32)
    reward = rd.potential_shaping(lambda obs: look[obs], gamma=RANDOM.gamma)
    shaped = runner(RANDOM, chain.env, reward)(0 * table, key)
    started = runner(RANDOM, chain.env, PLAIN)(table, key)
    np.testing.assert_allclose((shaped + table)[alive], started[alive], atol=1e-4)
    assert np.abs(shaped - started).max() > 0.1


def test_advice_on_actions_needs_the_correction():
    """Look-ahead advice with actions from argmax (Q + advice) equals plain Q-learning from Q = advice."""
    chain, key = task("chain"), jax.random.key(4)
    env, alive = chain.functional(), ~chain.tabular().terminal
    advice = np.random.default_rng(0).normal(size=(env.observation_space.n, env.action_space.n))
    look = jnp.asarray(advice, jnp.float32)

    def phi(obs, action):
        return look[obs, action]

    config = dataclasses.replace(RANDOM, advice=phi)
    advised = runner(config, env, rd.look_ahead_advice(phi, gamma=config.gamma))(0 * advice, key)
    started = runner(RANDOM, env, PLAIN)(advice, key)
    np.testing.assert_allclose((advised + advice)[alive], started[alive], atol=1e-4)
    assert np.abs(advised - started).max() > 0.1

    state = jax.jit(lambda key: q_learning.init(config, env, PLAIN, key))(key)
    obs = jnp.arange(env.observation_space.n)
    corrected, plain = (
        q_learning.act(c, env, state._replace(params={"q": -0.9 * look}), obs, key, deterministic=True)
        for c in (config, RANDOM)
    )
    assert corrected.tolist() == advice.argmax(-1).tolist()
    assert plain.tolist() == advice.argmin(-1).tolist()


def test_optimism_explores_where_greed_is_stuck():
    deep = task("deep_sea", size=8)
    config = q_learning.Config(
        total_timesteps=40_000, num_envs=8, num_steps=250, epsilon=0.0, epsilon_end=0.0, learning_rate_end=0.5,
        initial_q=1.0, gamma=deep.gamma,
    )  # fmt: skip
    result = q_learning.train(config, deep, rd.environment_reward(), jax.random.key(0))
    assert result.metrics["success"][-1] == 1.0


def test_memory_seeds_and_sweeps():
    """A reward with memory, vmapped over keys and learning rates, equals single runs."""
    chain, keys = task("chain"), jax.random.split(jax.random.key(0), 2)

    def step(params, state, t):
        return t.reward - 0.01 * state.episode, state._replace(episode=state.episode + 1)

    tired = rd.from_step("tired", lambda key, example: ((), rd.State(episode=jnp.zeros_like(example.reward))), step)
    config = q_learning.Config(total_timesteps=8_000, num_envs=8, num_steps=125, gamma=chain.gamma)

    def final(key, rate):
        swept = dataclasses.replace(config, learning_rate=rate)
        return q_learning.train(swept, chain, tired, key)

    many = jax.vmap(final)(keys, jnp.array([0.3, config.learning_rate]))
    one = q_learning.train(config, chain, tired, keys[1])
    np.testing.assert_allclose(many.state.params["q"][1], one.state.params["q"], atol=1e-5)
    assert np.abs(many.state.params["q"][0] - one.state.params["q"]).max() > 1e-3
    ended = one.metrics["episodes"] > 0
    assert ended.any()
    assert (one.metrics["shaped_return"][ended] < one.metrics["true_return"][ended]).all()


def test_errors():
    chain, key = task("chain"), jax.random.key(0)
    config = q_learning.Config(total_timesteps=1000, num_envs=4, num_steps=50, gamma=chain.gamma)
    whole = rd.from_trajectory("whole", lambda *_: ((), ()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match="'whole' needs whole episodes"):
        q_learning.train(config, chain, whole, key)
    with pytest.raises(ValueError, match="give both the same gamma"):
        q_learning.train(config, chain, rd.potential_shaping(chain.potential, gamma=0.5), key)
    with pytest.raises(TypeError, match="q_learning needs Discrete observations, got Box from"):
        q_learning.train(config, task("cartpole"), rd.environment_reward(), key)
    bad = rd.pointwise("bad", lambda t: jnp.where(t.next_obs == 2, jnp.nan, 1.0))
    with pytest.raises(rd.NonFiniteRewardError, match="reward 'bad' was not finite: term 'bad' at step"):
        q_learning.train(config, chain, bad, key)
    with pytest.raises(ValueError, match="total_timesteps must be at least num_envs"):
        q_learning.Config(total_timesteps=10)
