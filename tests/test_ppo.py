"""PPO: the update against NumPy, the contract of ``train``, and known answers."""

import collections
import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

import reward_design as rd
from reward_design.agents import evaluate, ppo, ppo_update, reinforce
from reward_design.agents.networks import orthogonal
from reward_design.envs import task
from tests.agent_envs import Counter, Target

SMALL = ppo.Config(total_timesteps=128, num_envs=4, num_steps=8, num_minibatches=2, hidden=(8,), gamma=0.9)
SMALL_REINFORCE = reinforce.Config(total_timesteps=160, num_envs=4, horizon=10, hidden=(8,), gamma=0.9)
AGENTS = [pytest.param(ppo, SMALL, id="ppo"), pytest.param(reinforce, SMALL_REINFORCE, id="reinforce")]
REWARD = rd.environment_reward()
ENV = Counter(stoppable=True)  # one environment and one reward for most tests: one compilation for most tests


def same(a, b, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), a, b)


@pytest.mark.parametrize(("agent", "config"), AGENTS)
def test_train_returns_metrics_per_update(agent, config):
    result = agent.train(config, ENV, REWARD, jax.random.key(0))
    expected = {"shaped_return", "true_return", "success", "length", "episodes", "term/environment", "env_steps"}
    assert expected <= set(result.metrics)
    assert all(v.shape == (config.num_updates,) for v in result.metrics.values())
    np.testing.assert_array_equal(result.metrics["true_return"], result.metrics["length"])
    assert result.metrics["env_steps"][-1] == config.num_updates * config.steps_per_update


@pytest.mark.parametrize(("agent", "config"), AGENTS)
def test_one_compilation_serves_repeated_calls_and_other_settings(agent, config):
    agent.train(config, ENV, REWARD, jax.random.key(0))
    traces = ENV.traces
    agent.train(config, ENV, REWARD, jax.random.key(1))
    agent.train(dataclasses.replace(config, learning_rate=1e-2, entropy_coef=0.1), ENV, REWARD, jax.random.key(1))
    assert ENV.traces == traces > 0


@pytest.mark.parametrize(("agent", "config"), AGENTS)
def test_train_is_vmappable_over_keys_and_numeric_settings(agent, config):
    keys = jax.random.split(jax.random.key(0), 2)
    rates = jnp.array([1e-3, 1e-2])

    def run(key, rate):
        return agent.train(dataclasses.replace(config, learning_rate=rate), ENV, REWARD, key)

    both = jax.vmap(run)(keys, rates)
    for i in range(2):
        one = run(keys[i], float(rates[i]))
        same(jax.tree.map(lambda x, i=i: x[i], both.state.params), one.state.params, rtol=1e-4, atol=1e-5)
    assert not np.allclose(both.metrics["entropy"][0], both.metrics["entropy"][1])


@pytest.mark.parametrize(("agent", "config"), AGENTS)
def test_reward_params_can_be_swept(agent, config):
    reward = rd.weighted_sum(task=REWARD)
    params, _ = reward.init(jax.random.key(0), rd.agents.scoring.reward_example(ENV, config.num_envs))

    def run(weight):
        swept = jax.tree.map(lambda _: weight, params)
        return agent.train(config, ENV, reward, jax.random.key(0), reward_params=swept).metrics

    metrics = jax.vmap(run)(jnp.array([0.0, 3.0]))
    np.testing.assert_allclose(metrics["shaped_return"][0], 0.0)
    np.testing.assert_allclose(metrics["shaped_return"][1], 3 * metrics["true_return"][1], rtol=1e-5)


@pytest.mark.parametrize(("agent", "config"), AGENTS)
def test_a_nan_reward_is_named_and_reaches_no_parameter(agent, config):
    env = Counter(horizon=7)

    def fn(transition):
        late = transition.info["time"] == 6
        parts = {"good": jnp.ones_like(transition.reward), "broken": jnp.where(late, jnp.nan, 0.0)}
        return sum(parts.values()), parts

    config = dataclasses.replace(config, **({"horizon": 10} if agent is reinforce else {}))
    reward = rd.pointwise("faulty", fn)
    with pytest.raises(rd.NonFiniteRewardError, match="'faulty' was not finite: term 'broken' at step 5 of lane 0,"):
        agent.train(config, env, reward, jax.random.key(0))
    state = jax.vmap(lambda key: agent.train(config, env, reward, key))(jax.random.split(jax.random.key(0), 1)).state
    assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves((state.params, state.opt_state)))
    assert state.fault.step.tolist() == [5]


@pytest.mark.parametrize(("agent", "config"), AGENTS)
def test_a_gamma_mismatch_is_refused(agent, config):
    env = Counter()
    shaping = rd.potential_shaping(lambda obs: obs[..., 0], gamma=0.5)
    with pytest.raises(ValueError, match=r"gamma 0\.5"):
        agent.train(config, env, shaping, jax.random.key(0))
    agent.train(dataclasses.replace(config, gamma=0.5), env, shaping, jax.random.key(0))


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"num_minibatches": 3}, "num_minibatches must divide"), ({"total_timesteps": 8}, "total_timesteps must be at")],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(SMALL, **settings)


def test_reinforce_refuses_a_horizon_that_cuts_episodes():
    with pytest.raises(ValueError, match="horizon must be at least the horizon of 'counter' = 50, got 10"):
        reinforce.train(SMALL_REINFORCE, Counter(horizon=50), REWARD, jax.random.key(0))


def test_a_reward_of_the_wrong_shape_is_refused_with_its_name():
    wrong = rd.pointwise("wide", lambda t: t.obs)
    with pytest.raises(ValueError, match=r"reward 'wide' must have shape \[B\]"):
        ppo.train(SMALL, Counter(), wrong, jax.random.key(0))


def test_look_ahead_advice_gets_the_next_action():
    env = Counter(horizon=5)
    advice = rd.look_ahead_advice(lambda obs, action: action.astype(float), gamma=0.9)
    result = ppo.train(SMALL, env, advice, jax.random.key(0))
    assert np.isfinite(result.metrics["shaped_return"][-1])


def test_loss_equals_the_formula_in_numpy():
    state = ppo.init(SMALL, ENV, REWARD, jax.random.key(0))
    rng = np.random.default_rng(0)
    rows = 16
    x, adv, target = rng.normal(size=(rows, 2)), rng.normal(size=rows), rng.normal(size=rows)
    action, old = rng.integers(0, 2, rows), np.log(rng.uniform(0.2, 0.8, rows))
    floats = [jnp.asarray(v, "float32") for v in (old, np.zeros(rows), adv, target)]
    batch = ppo_update.Batch(jnp.asarray(x, "float32"), jnp.asarray(action, "int32"), *floats[:3], floats[3])
    loss, parts = ppo_update.loss(SMALL, ppo._network(SMALL, ENV), 0.01, state.params, batch)

    def dense(layer, z):
        return z @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"], np.float64)

    def network(params):
        return dense(params["params"]["Dense_1"], np.tanh(dense(params["params"]["Dense_0"], x)))

    logits, value = network(state.params["actor"]), network(state.params["critic"])[:, 0]
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    entropy = -(np.exp(log_p) * log_p).sum(-1).mean()
    ratio = np.exp(log_p[np.arange(rows), action] - old)
    scaled = (adv - adv.mean()) / adv.std()
    policy = -np.minimum(ratio * scaled, np.clip(ratio, 0.8, 1.2) * scaled).mean()
    critic = 0.5 * ((value - target) ** 2).mean()
    np.testing.assert_allclose(parts["policy_loss"], policy, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(parts["value_loss"], critic, rtol=1e-4)
    np.testing.assert_allclose(loss, policy + 0.5 * critic - 0.01 * entropy, rtol=1e-4, atol=1e-6)


def test_normalised_reward_learns_what_the_normalising_reward_would():
    config = dataclasses.replace(SMALL, normalise_reward=True)
    ours = ppo.train(config, ENV, REWARD, jax.random.key(0))
    chained = rd.chain(REWARD, rd.normalise_by_return(gamma=SMALL.gamma))
    theirs = ppo.train(SMALL, ENV, chained, jax.random.key(0))
    plain = ppo.train(SMALL, ENV, REWARD, jax.random.key(0))
    same(ours.state.params, theirs.state.params, rtol=1e-6)
    np.testing.assert_array_equal(ours.metrics["shaped_return"], ours.metrics["true_return"])
    with pytest.raises(AssertionError):
        same(ours.state.params, plain.state.params, rtol=1e-3)


def test_every_order_of_rows_is_as_likely():
    orders = np.asarray(ppo.permutations(jax.random.key(0), 24_000, 4))
    counts = collections.Counter(map(tuple, orders))
    assert set(counts) == set(itertools.permutations(range(4)))
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-3


@pytest.mark.parametrize("size", [1, 2, 3, 512, 700, 65_536, 65_537])
def test_every_row_is_used_once_per_epoch(size):
    orders = np.asarray(ppo.permutations(jax.random.key(1), 3, size))
    np.testing.assert_array_equal(np.sort(orders), np.broadcast_to(np.arange(size), (3, size)))
    if size > 3:
        assert (orders[0] != orders[1]).any()


def test_schedules_reach_their_end():
    frozen = dataclasses.replace(SMALL, learning_rate=0.0, learning_rate_end=0.0)
    start = ppo.init(frozen, ENV, REWARD, jax.random.key(0))
    same(ppo.train(frozen, ENV, REWARD, jax.random.key(0)).state.params, start.params, rtol=1e-5)
    rising = dataclasses.replace(SMALL, learning_rate=0.0, learning_rate_end=1e-2)
    moved = ppo.train(rising, ENV, REWARD, jax.random.key(0)).state.params
    assert not np.allclose(
        moved["critic"]["params"]["Dense_1"]["bias"], start.params["critic"]["params"]["Dense_1"]["bias"]
    )


def test_observation_moments_are_those_of_the_rollouts():
    env = Counter(horizon=5)
    moments = ppo.train(SMALL, env, REWARD, jax.random.key(0)).state.moments
    assert moments.count == pytest.approx(SMALL.total_timesteps, rel=1e-4)
    np.testing.assert_allclose(moments.mean[0], np.mean(np.arange(32) % 5), rtol=1e-3)
    np.testing.assert_allclose(moments.var[0], np.var(np.arange(32) % 5), rtol=1e-3)


@pytest.mark.slow
def test_time_limits_are_bootstrapped_and_terminations_are_not():
    """Reward 1, gamma 0.9: the value is 1 / (1 - 0.9) = 10 under a time limit, 1 where every step terminates."""
    config = ppo.Config(
        total_timesteps=40_000, num_envs=4, num_steps=32, gamma=0.9, learning_rate=5e-3, normalise_obs=False
    )
    cut = ppo.train(config, Counter(horizon=5), REWARD, jax.random.key(0)).state
    obs = jnp.array([[0.0, 0.5], [4.0, 0.5]])
    network = ppo._network(config, Counter())
    np.testing.assert_allclose(network.value(cut.params, obs), 10.0, atol=1.0)
    ended = ppo.train(config, Target(), rd.pointwise("one", lambda t: jnp.ones_like(t.reward)), jax.random.key(0)).state
    np.testing.assert_allclose(ppo._network(config, Target()).value(ended.params, jnp.zeros((1, 1))), 1.0, atol=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("agent", [ppo, reinforce])
def test_continuous_actions_find_the_optimum(agent):
    sizes = {"num_steps": 32} if agent is ppo else {"horizon": 32, "learning_rate": 1e-3}
    config = agent.Config(
        total_timesteps=60_000, num_envs=4, gamma=0.9, entropy_coef=0.0, entropy_coef_end=0.0, **sizes
    )
    result = agent.train(config, Target(), REWARD, jax.random.key(0))
    score = evaluate(agent.AGENT, config, Target(), result.state, jax.random.key(1))
    assert float(score["true_return"].mean()) > -0.02


@pytest.mark.slow
@pytest.mark.parametrize(("agent", "steps"), [(ppo, 80_000), (reinforce, 160_000)])
def test_shaping_solves_four_rooms(agent, steps):
    rooms = task("four_rooms")
    reward = rd.chain(rd.environment_reward(), rd.potential_shaping(rooms.potential, gamma=rooms.gamma))
    sizes = {} if agent is ppo else {"horizon": rooms.horizon}
    config = agent.Config(total_timesteps=steps, gamma=rooms.gamma, **sizes)
    result = agent.train(config, rooms, reward, jax.random.key(0))
    assert float(result.metrics["success"][-1]) > 0.9


@pytest.mark.slow
def test_ppo_learns_cartpole():
    config = ppo.Config(total_timesteps=150_000)
    keys = jax.random.split(jax.random.key(0), 8)
    metrics = jax.vmap(lambda key: ppo.train(config, task("cartpole"), REWARD, key))(keys).metrics
    later = metrics["true_return"][:, config.num_updates // 2 :].mean(axis=1)
    assert float(jnp.median(later)) > 300  # a policy that always succeeds may drift away again, in some runs at the end


@pytest.mark.parametrize("shape", [(3, 64), (64, 64), (256, 256), (64, 2), (3, 3, 4, 8)])
def test_weights_start_orthogonal(shape):
    keys = jax.random.split(jax.random.key(0), 8)
    weights = np.asarray(jax.vmap(lambda key: orthogonal(2.0)(key, shape))(keys))
    matrices = weights.reshape(8, -1, shape[-1])
    singular = np.linalg.svd(matrices, compute_uv=False)
    np.testing.assert_allclose(singular, 2.0, rtol=1e-4)
    assert np.abs(matrices[0] - matrices[1]).max() > 0.1
    assert abs(matrices.mean()) < 0.1
