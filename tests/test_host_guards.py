"""Training on the host: rows that only reset, rewards that are not finite beside an update, episodes without an end."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.agents import host, ppo, ppo_update, sac
from reward_design.agents.collector import Collector
from reward_design.envs import task

KEY = jax.random.key(0)
NAN = rd.pointwise("nan", lambda t: t.reward * np.nan)


class OneStep(gymnasium.Env):
    """Starts at 0 and ends at 1000 after one step: a policy only ever acts at 0."""

    observation_space = spaces.Box(-np.inf, np.inf, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.full(1, 1000, np.float32), 0.0, True, False, {}


class Endless(OneStep):
    """Never ends, has no time limit, pays 1, and counts the steps of all."""

    steps = 0

    def step(self, action):
        type(self).steps += 1
        return np.zeros(1, np.float32), 1.0, False, False, {}


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_rows_that_only_reset_a_lane_are_no_observations(mode):
    envs = SyncVectorEnv([OneStep] * 2, autoreset_mode=mode)
    config = ppo.Config(total_timesteps=64, num_envs=2, num_steps=8, hidden=(8,), normalise_obs=True)
    moments = ppo.train_host(config, envs, rd.environment_reward(), KEY).state.moments
    np.testing.assert_allclose(moments.mean, 0, atol=1e-6)
    np.testing.assert_allclose(moments.var, 0, atol=1e-4)
    rows = 32 if mode == AutoresetMode.NEXT_STEP else 64
    np.testing.assert_allclose(moments.count, rows, rtol=1e-4)


@pytest.mark.parametrize(("overlap", "rollouts"), [(False, 1), (True, 2)])
def test_a_reward_that_is_not_finite_stops_the_environments(overlap, rollouts):
    Endless.steps = 0
    envs = SyncVectorEnv([Endless] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    config = ppo.Config(total_timesteps=320, num_envs=2, num_steps=8, hidden=(8,))
    with pytest.raises(rd.NonFiniteRewardError):
        ppo.train_host(config, envs, NAN, KEY, overlap=overlap)
    assert Endless.steps == rollouts * 16


@pytest.mark.parametrize("torso", ["mlp", "conv"])
def test_probabilities_are_those_of_the_policy_that_collected(torso):
    """With overlap the update's parameters are newer, the widths of Gaussians among them."""
    envs = gymnasium.make_vec("Pendulum-v1", num_envs=2)
    config = ppo.Config(total_timesteps=64, num_envs=2, num_steps=8, num_minibatches=2, hidden=(8,), torso=torso)
    env, reward = host.described(envs), rd.environment_reward()
    older = ppo.init(config, env, reward, KEY)
    older = older._replace(params={**older.params, "log_std": jnp.array([-0.7])})
    newer = older._replace(params={**older.params, "log_std": jnp.array([0.4])})
    collected = Collector(envs, env, 8).collect(ppo.host_policy(config, env, older), np.random.default_rng(0))
    rows, acted = jax.tree.map(jnp.asarray, collected)
    network = ppo._network(config, env)
    z = ppo_update.hidden(network, newer.params, newer.moments, rows, acted)
    found, _ = ppo_update.batch(config, network, newer.params, newer.moments, rows, z, acted, rows.reward)
    assert rows.mask.all()
    expected = scipy.stats.norm(acted.head, np.exp(-0.7)).logpdf(acted.raw)[..., 0]
    np.testing.assert_allclose(found.log_prob, expected.ravel(), rtol=1e-4)


@pytest.mark.parametrize("overlap", [False, True])
def test_updates_are_told_in_order_with_a_state_that_can_be_read(overlap):
    told = []

    def on_update(done, metrics, state):
        told.append((done, float(metrics["env_steps"]), int(state.num_updates), float(state.params["log_std"].sum())))

    config = ppo.Config(total_timesteps=64, num_envs=2, num_steps=8, num_minibatches=2, hidden=(8,))
    envs = gymnasium.make_vec("CartPole-v1", num_envs=2)
    args = (ppo.AGENT, config, envs, rd.environment_reward(), KEY)
    result = host.train_host(*args, overlap=overlap, on_update=on_update)
    assert [row[:3] for row in told] == [(n, 16.0 * n, n) for n in range(1, 5)]
    assert result.metrics["env_steps"].tolist() == [16, 32, 48, 64]


def test_an_episode_without_an_end_is_judged_as_far_as_it_was_played(monkeypatch):
    monkeypatch.setattr(host, "MAX_STEPS", 20)
    envs = SyncVectorEnv([Endless] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    config = ppo.Config(total_timesteps=32, num_envs=2, num_steps=8, hidden=(8,))
    state = ppo.train_host(config, envs, rd.environment_reward(), KEY).state
    played = host.evaluate_host(ppo.AGENT, config, envs, state, num_episodes=3)
    np.testing.assert_array_equal(played["length"], [20, 20, 20, 20])
    np.testing.assert_array_equal(played["true_return"], [20, 20, 20, 20])


def test_the_entropy_of_an_actor_that_moves_now_and_then():
    config = sac.Config(
        total_timesteps=16, num_envs=1, num_steps=1, learning_starts=2, batch_size=4, hidden=(8,), policy_delay=4
    )
    metrics = sac.train(config, task("pendulum"), rd.environment_reward(), KEY).metrics
    moved = np.isfinite(metrics["entropy"])
    assert moved.tolist() == [t in (4, 8, 12) for t in range(16)]
    np.testing.assert_array_equal(np.isfinite(metrics["actor_loss"]), moved)
    assert (np.abs(metrics["entropy"][moved] - np.log(2)) < 1).all()  # near uniform on [-1, 1] at the start
    assert np.isfinite(metrics["critic_loss"][1:]).all()
