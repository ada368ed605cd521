"""Memory: hidden states against a loop over episodes, the ratio of the update, and tasks that need it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.agents import base, ppo, ppo_update, recurrent, rollout, train_seeds
from reward_design.agents.actor_critic import action_noise
from reward_design.agents.collector import Collector, RecurrentPolicy
from reward_design.agents.host import described, evaluate_host
from tests.agent_envs import Counter
from tests.memory_envs import Parts, TMaze

REWARD = rd.environment_reward()
CONFIG = ppo.Config(
    total_timesteps=256, num_envs=4, num_steps=16, num_minibatches=2, hidden=(8,), recurrent=6, gamma=0.9
)
ENV = Counter(horizon=5, stoppable=True)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def naive_gru(params, h, x):
    weights = {name: np.asarray(value, np.float64) for name, value in params.items()}
    n = h.shape[-1]
    a, b = x @ weights["input"] + weights["bias"], h @ weights["state"]
    r, z = sigmoid(a[:n] + b[:n]), sigmoid(a[n : 2 * n] + b[n : 2 * n])
    candidate = np.tanh(a[2 * n :] + r * (b[2 * n :] + weights["candidate_bias"]))
    return (1 - z) * candidate + z * h


def collected(config, env=ENV, updates=2):
    """The last rollout of some updates on the device: state before its update, trajectory, extras."""
    state, network = ppo.init(config, env, REWARD, jax.random.key(0)), ppo._network(config, env)
    carry, lanes = state.carry, state.lanes
    for i in range(updates):
        key = jax.random.key(i)
        noise = action_noise(env.action_space, key, (config.num_steps, config.num_envs))
        policy = lambda *args: network.step(state.params, state.moments, *args)  # noqa: E731
        carry, lanes, trajectory, extras = rollout.collect_with_memory(
            env, policy, lanes, carry, key, noise, config.num_steps
        )
    return network, state, trajectory, extras


def on_host(config, mode, kind=Parts):
    envs = SyncVectorEnv([lambda i=i: kind(i) for i in range(4)], autoreset_mode=mode)
    env = described(envs)
    network, state = ppo._network(config, env), ppo.init(config, env, REWARD, jax.random.key(0))
    collector = Collector(envs, env, config.num_steps)
    for _ in range(2):  # the second rollout goes on with the memory of the first
        rows, extras = collector.collect(ppo.host_policy(config, env, state), np.random.default_rng(0))
    return network, state, jax.tree.map(jnp.asarray, rows), jax.tree.map(jnp.asarray, extras)


def check_hidden_states(network, state, rows, extras):
    """Carries and unrolled hidden states equal a loop in NumPy; a rollout begins where the recorded carry says."""
    z = ppo_update.hidden(network, state.params, state.moments, rows, extras)
    x = network.inputs(state.moments, rows.obs)
    for part, name in enumerate(network.bodies):
        body = state.params["bodies"][name]
        encoded = np.asarray(network._encode(body, x), np.float64)
        for lane in range(rows.mask.shape[1]):
            h = np.asarray(extras.carry[part][0, lane], np.float64)
            for t in range(rows.mask.shape[0]):
                np.testing.assert_allclose(extras.carry[part][t, lane], h, atol=1e-5)
                h = naive_gru(body["gru"], h, encoded[t, lane])
                np.testing.assert_allclose(z[part][t, lane], h, atol=1e-5)
                if rows.done[t, lane] or not rows.mask[t, lane]:
                    h = np.zeros_like(h)


@pytest.mark.parametrize("shared", [True, False])
def test_hidden_states_are_those_of_a_loop_over_the_episodes_on_the_device(shared):
    network, state, rows, extras = collected(replace(CONFIG, shared_torso=shared))
    assert rows.done.any()
    assert not rows.done[-1].all()
    check_hidden_states(network, state, rows, extras)


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_hidden_states_are_those_of_a_loop_over_the_episodes_on_the_host(mode):
    network, state, rows, extras = on_host(replace(CONFIG, num_steps=12, total_timesteps=96), mode)
    assert rows.mask.all() == (mode is not AutoresetMode.NEXT_STEP)
    check_hidden_states(network, state, rows, extras)


@pytest.mark.parametrize("length", [0, 4])
@pytest.mark.parametrize("shared", [True, False])
def test_before_the_first_step_the_ratio_is_one_and_the_loss_is_that_of_all_rows(length, shared):
    config = replace(CONFIG, sequence_length=length, shared_torso=shared)
    network, state, rows, extras = collected(config)
    z = ppo_update.hidden(network, state.params, state.moments, rows, extras)
    batch, _ = ppo_update.batch(config, network, state.params, state.moments, rows, z, extras, rows.reward)
    steps = length or config.num_steps
    assert batch.advantage.shape == (steps, config.steps_per_update // steps)
    again = network.latents(state.params, batch.features, batch.memory)
    log_prob, _ = network.log_prob_entropy(state.params, network.head(state.params, again), batch.action)
    np.testing.assert_allclose(jnp.exp(log_prob - batch.log_prob), 1.0, atol=1e-5)
    np.testing.assert_allclose(network.value(state.params, again), batch.value, atol=1e-5)
    _, losses = ppo_update.loss(config, network, 0.01, state.params, batch)
    assert abs(float(losses["policy_loss"])) < 1e-5
    np.testing.assert_allclose(losses["value_loss"], 0.5 * np.mean(np.square(batch.advantage)), rtol=1e-4)


def test_successors_are_valued_with_the_memory_of_their_episode():
    network, state, rows, extras = collected(CONFIG)
    z = ppo_update.hidden(network, state.params, state.moments, rows, extras)
    following = network.follow(state.params, z, network.inputs(state.moments, rows.next_obs))
    value, next_value = network.value(state.params, z), network.value(state.params, following)
    inside = ~rows.done[:-1]
    np.testing.assert_allclose(next_value[:-1][inside], value[1:][inside], atol=1e-5)
    assert not np.allclose(next_value[:-1][~inside], value[1:][~inside], atol=1e-4)


def test_rows_that_are_no_experience_change_nothing():
    config = replace(CONFIG, num_steps=12, total_timesteps=96)
    network, state, rows, extras = on_host(config, AutoresetMode.NEXT_STEP)
    dummy = ~rows.mask
    assert dummy.any()
    other = rows._replace(reward=jnp.where(dummy, 1e6, rows.reward), action=jnp.where(dummy, 1, rows.action))
    improve = jax.jit(lambda rows: ppo.improve(config, network.env, REWARD, state, rows, extras))
    one, their = improve(rows), improve(other)
    jax.tree.map(np.testing.assert_array_equal, one[0].params, their[0].params)
    real = improve(rows._replace(reward=rows.reward + 7 * (rows.action == 0)))
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, one[0].params, real[0].params)


@pytest.mark.parametrize("torso", ["mlp", "conv"])
@pytest.mark.parametrize("overlap", [False, True])
def test_ppo_with_memory_trains_on_the_host(torso, overlap):
    config = replace(CONFIG, total_timesteps=128, sequence_length=8, torso=torso, num_epochs=1)
    envs = SyncVectorEnv([lambda i=i: Parts(i) for i in range(4)], autoreset_mode=AutoresetMode.NEXT_STEP)
    result = ppo.train_host(config, envs, REWARD, jax.random.key(0), overlap=overlap)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))
    policy = ppo.host_policy(config, described(envs), result.state)
    assert isinstance(policy, RecurrentPolicy)


def test_evaluation_and_seeds_carry_the_memory():
    envs = SyncVectorEnv([lambda i=i: Parts(i) for i in range(4)], autoreset_mode=AutoresetMode.SAME_STEP)
    state = ppo.init(CONFIG, described(envs), REWARD, jax.random.key(0))
    assert len(evaluate_host(ppo.AGENT, CONFIG, envs, state, num_episodes=8)["length"]) == 8
    result = train_seeds(ppo.AGENT, CONFIG, ENV, REWARD, jax.random.split(jax.random.key(0), 2))
    assert result.state.carry[0].shape == (2, 4, 6)
    one = jax.tree.map(lambda x: x[0], result.state)
    played = base.evaluate(ppo.AGENT, CONFIG, ENV, one, jax.random.key(1), num_episodes=3)
    assert played["length"].shape == (3,)


def test_act_takes_and_returns_the_carry():
    state, obs = ppo.init(CONFIG, ENV, REWARD, jax.random.key(0)), jnp.ones((3, 2))
    carry = ppo.initial_carry(CONFIG, ENV, 3)
    action, after = ppo.act(CONFIG, ENV, state, obs, jax.random.key(0), carry=carry)
    assert action.shape == (3,)
    assert jax.tree.map(jnp.shape, after) == jax.tree.map(jnp.shape, carry) == ((3, 6),)
    with pytest.raises(TypeError, match="a policy with memory needs its carry"):
        ppo.act(CONFIG, ENV, state, obs, jax.random.key(0))
    plain = replace(CONFIG, recurrent=0)
    state = ppo.init(plain, ENV, REWARD, jax.random.key(0))
    action, after = ppo.act(plain, ENV, state, obs, jax.random.key(0), carry=ppo.initial_carry(plain, ENV, 3))
    np.testing.assert_array_equal(action, ppo.act(plain, ENV, state, obs, jax.random.key(0)))
    assert after == ()


def test_sequences_are_consecutive_steps_of_one_lane():
    leaf = jnp.arange(8)[:, None] * 10 + jnp.arange(3)[None]
    cut = np.asarray(recurrent.sequences(leaf, 4))
    assert cut.shape == (4, 6)
    np.testing.assert_array_equal(np.diff(cut, axis=0), 10)
    assert sorted(cut[0].tolist()) == [0, 1, 2, 40, 41, 42]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_minibatches": 8}, r"must divide the number of sequences, .* / sequence_length = 4, got 8"),
        ({"sequence_length": 5}, "sequence_length must divide num_steps = 16, got 5"),
        ({"recurrent": -1}, "recurrent must be at least 0, got -1"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        replace(CONFIG, **settings)


@pytest.mark.slow
@pytest.mark.parametrize("sequence_length", [0, 16])
def test_only_a_policy_with_memory_remembers_the_cue(sequence_length):
    maze = TMaze(length=8)
    config = ppo.Config(
        total_timesteps=81_920, num_envs=16, num_steps=64, gamma=0.9, learning_rate=3e-3, recurrent=16,
        sequence_length=sequence_length,
    )  # fmt: skip
    result = ppo.train(config, maze, REWARD, jax.random.key(0))
    assert result.metrics["success"][-5:].mean() > 0.95
    played = base.evaluate(ppo.AGENT, config, maze, result.state, jax.random.key(1), num_episodes=64)
    assert played["success"].mean() > 0.95
    if not sequence_length:
        forgetful = replace(config, recurrent=0)
        assert ppo.train(forgetful, maze, REWARD, jax.random.key(0)).metrics["success"][-10:].mean() < 0.6
