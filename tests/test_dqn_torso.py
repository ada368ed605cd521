"""DQN on observations with many parts: what the torso gives, on the device and on the host, and what it learns."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.agents import dqn, networks, off_policy
from reward_design.agents.collector import Collector
from reward_design.agents.host import described, evaluate_host
from reward_design.envs import task
from tests.memory_envs import Parts

REWARD = rd.environment_reward()
CONFIG = dqn.Config(
    total_timesteps=64, num_envs=2, num_steps=8, batch_size=8, learning_starts=16, hidden=(8,), torso="conv",
    normalise_obs=True, learning_rate=1e-2,
)  # fmt: skip


def vector(lanes=2):
    return SyncVectorEnv([lambda i=i: Parts(i) for i in range(lanes)], autoreset_mode=AutoresetMode.SAME_STEP)


def new_state(config, env, key):
    return jax.jit(partial(dqn.init, config, env, REWARD))(key)


def test_dqn_trains_every_part_of_the_torso_on_the_host():
    config = dataclasses.replace(CONFIG, dueling=True)
    envs = vector()
    env = described(envs)
    result = dqn.train_host(config, envs, REWARD, jax.random.key(0))
    state = result.state
    assert np.isfinite(result.metrics["td_loss"][1:]).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.moments)))
    assert state.moments.mean.shape == (5,)
    fresh = new_state(config, env, jax.random.split(jax.random.key(0))[0])
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), state.params["online"], fresh.params["online"])
    assert set(moved) == {"torso", "mlp"}
    assert all(jax.tree.leaves(moved)), moved
    assert len(evaluate_host(dqn.AGENT, config, envs, state, num_episodes=4)["length"]) == 4


def test_the_policy_on_the_host_takes_the_best_allowed_action_of_the_network():
    envs = vector()
    env = described(envs)
    state = new_state(CONFIG, env, jax.random.key(0))
    policy = dqn.host_policy(CONFIG, env, state, deterministic=True)
    rows, _ = Collector(envs, env, 12).collect(policy, np.random.default_rng(0))
    obs = jax.tree.map(lambda x: jnp.asarray(x).reshape(-1, *x.shape[2:]), rows.obs)
    q = np.asarray(jax.jit(dqn._nets(CONFIG, env).q)(state.params["online"], state.moments, obs))
    allowed = np.asarray(networks.action_mask(env.observation_space, obs))
    np.testing.assert_array_equal(rows.action.ravel(), np.where(allowed, q, -np.inf).argmax(axis=-1))
    assert not allowed.all()
    assert q.std(axis=0).max() > 1e-3


def test_the_host_policy_survives_the_donation_of_its_parameters():
    envs = vector()
    env, obs = described(envs), envs.reset()[0]
    state = new_state(CONFIG, env, jax.random.key(0))
    policy = dqn.host_policy(CONFIG, env, state, deterministic=True)
    before = policy(obs, np.random.default_rng(0))[0]
    jax.tree.map(lambda leaf: leaf.delete(), state.params)
    np.testing.assert_array_equal(policy(obs, np.random.default_rng(0))[0], before)


def test_a_gradient_step_descends_on_the_loss_through_the_torso():
    env = described(vector())
    config = dataclasses.replace(CONFIG, learning_rate=1e-3)
    state = new_state(config, env, jax.random.key(0))
    example = jax.tree.map(jnp.asarray, Parts(0).reset()[0])
    obs = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *x.shape)), example)
    batch = off_policy.Batch(obs, jnp.zeros(8, jnp.int32), jnp.full(8, 3.0), jnp.ones(8))
    learner = off_policy.Learner(state.params, state.opt_state, jnp.int32(0))
    fit = jax.jit(lambda learner: dqn._fit(config, env, learner, state.moments, batch, None))
    losses = []
    for _ in range(30):
        learner, error, metrics = fit(learner)
        losses.append(float(metrics["td_loss"]))
    assert losses[-1] < 0.1 * losses[0]
    assert abs(float(error[0])) < 1.0
    assert metrics["q"] > 2.0


def test_unknown_torsos_are_refused():
    with pytest.raises(ValueError, match=r"torso must be 'mlp' or 'conv', got 'cnv'; did you mean 'conv'\?"):
        dataclasses.replace(CONFIG, torso="cnv")


def test_dqn_with_a_torso_trains_on_a_level_of_minihack():
    pytest.importorskip("nle")
    room = task("minihack/Room-5x5")
    config = dataclasses.replace(CONFIG, total_timesteps=96, gamma=room.gamma)
    envs = room.vector(2)
    try:
        result = dqn.train_host(config, envs, REWARD, jax.random.key(0))
    finally:
        envs.close()
    assert int(result.state.num_gradient_steps) == 6 * config.num_gradient_steps
    assert np.isfinite(result.metrics["td_loss"]).all()


@pytest.mark.slow
def test_dqn_with_a_torso_solves_a_room_of_minihack():
    pytest.importorskip("nle")
    room = task("minihack/Room-5x5")
    config = dqn.Config(
        total_timesteps=8_000, num_envs=4, num_steps=8, train_every=4, batch_size=64, hidden=(128,), torso="conv",
        gamma=room.gamma, learning_rate=5e-4, learning_starts=500, n_step=3, target_period=100, capacity=20_000,
        exploration_fraction=0.3, huber_delta=1.0, normalise_obs=True,
    )  # fmt: skip
    envs = room.vector(4)
    try:
        metrics = dqn.train_host(config, envs, REWARD, jax.random.key(0)).metrics
    finally:
        envs.close()
    first = np.flatnonzero(~np.isnan(metrics["length"]))[:10]  # random actions
    assert metrics["success"][-40:].mean() > 0.9
    assert metrics["length"][-40:].mean() < 0.5 * metrics["length"][first].mean()
