"""Training on the host: rows that only reset, rewards that are not finite beside an update, episodes without an end."""

import gymnasium
import jax
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.agents import host, ppo, sac
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
