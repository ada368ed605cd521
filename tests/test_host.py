"""Training on gymnasium vector environments: rollouts in every autoreset mode, policies in NumPy, the update."""

import dataclasses

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.agents import ppo, q_learning
from reward_design.agents.actor_critic import ActorCritic
from reward_design.agents.collector import Collector
from reward_design.agents.host import described, evaluate_host, train_host
from reward_design.agents.host_policy import actor_policy
from reward_design.envs import task, task_from_gymnasium
from reward_design.envs.host import SpacesOnly

CONFIG = ppo.Config(total_timesteps=256, num_envs=3, num_steps=16, num_minibatches=2, hidden=(8,), gamma=0.9)
MODES = list(AutoresetMode)


class Count(gymnasium.Env):
    """Observes (episode, step, last action); ends after 2 + episode % 3 steps, every second time by truncation."""

    observation_space = spaces.Box(-100, 100, (3,), np.float32)
    action_space = spaces.Discrete(2, start=4)

    def __init__(self, offset=0):
        self.episode, self.time = offset - 1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return np.array([self.episode, 0, 0], np.float32), {"speed": np.float64(-1.0)}

    def step(self, action):
        self.time += 1
        end = self.time == 2 + self.episode % 3
        obs = np.array([self.episode, self.time, action], np.float32)
        flags = (end and self.episode % 2 == 0, end and self.episode % 2 == 1)
        return obs, float(10 * self.episode + self.time), *flags, {"speed": np.float64(self.time)}


class TextCount(Count):
    observation_space = spaces.Dict({"count": Count.observation_space, "text": spaces.Text(5)})

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return {"count": obs, "text": "hello"}, info


class DictCount(Count):
    observation_space = spaces.Dict({"count": Count.observation_space, "kind": spaces.Discrete(2)})

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return {"count": obs, "kind": 1}, info

    def step(self, action):
        obs, *rest = super().step(action)
        return {"count": obs, "kind": 0}, *rest


def vector(mode, kind=Count, lanes=3):
    return SyncVectorEnv([lambda i=i: kind(i) for i in range(lanes)], autoreset_mode=mode)


def toggle(obs, rng):
    count = obs["count"] if isinstance(obs, dict) else obs
    return 4 + count[:, 1].astype(int) % 2, np.zeros(len(count))


def test_rollouts_are_the_episodes_of_single_environments_in_every_autoreset_mode():
    for mode in MODES:
        envs = vector(mode)
        rows, _ = Collector(envs, SpacesOnly(envs, {"speed": ((), np.float64)}), 40).collect(
            toggle, np.random.default_rng(0)
        )
        for lane in range(3):
            env = Count(lane)
            obs, _ = env.reset()
            for t in np.flatnonzero(rows.mask[:, lane]):
                action = 4 + int(obs[1]) % 2
                next_obs, *rest, info = env.step(action)
                ours = (rows.reward[t, lane], rows.terminated[t, lane], rows.truncated[t, lane])
                assert ours == tuple(rest)
                assert rows.action[t, lane] == action
                assert rows.info["speed"][t, lane] == info["speed"]
                np.testing.assert_array_equal(rows.obs[t, lane], obs)
                np.testing.assert_array_equal(rows.next_obs[t, lane], next_obs)
                obs = env.reset()[0] if rest[1] or rest[2] else next_obs
            assert rows.mask[:, lane].sum() > 25


@pytest.mark.parametrize("mode", MODES)
def test_dict_observations(mode):
    envs = vector(mode, DictCount)
    rows, _ = Collector(envs, SpacesOnly(envs), 20).collect(toggle, np.random.default_rng(0))
    real = rows.mask
    assert set(rows.obs) == {"count", "kind"}
    np.testing.assert_array_equal(rows.obs["kind"][real], rows.obs["count"][real][:, 1] == 0)
    np.testing.assert_array_equal(rows.next_obs["kind"][real], 0)
    result = ppo.train_host(CONFIG, envs, rd.environment_reward(), jax.random.key(0))
    assert np.isfinite(result.metrics["policy_loss"]).all()


def test_observations_that_are_not_numbers_are_refused():
    envs = vector(AutoresetMode.SAME_STEP, TextCount)
    with pytest.raises(TypeError, match=r"expected a space of numbers, got Text"):
        ppo.train_host(CONFIG, envs, rd.environment_reward(), jax.random.key(0))


def test_a_missing_info_entry_is_named():
    envs = vector(AutoresetMode.SAME_STEP)
    env = SpacesOnly(envs, {"height": ((), np.float32)})
    with pytest.raises(ValueError, match="needs the info entry 'height' at every step, got"):
        Collector(envs, env, 4).collect(toggle, np.random.default_rng(0))


@pytest.mark.parametrize("action_space", [spaces.Discrete(3, start=2), spaces.Box(-0.5, 0.5, (2, 2), np.float32)])
@pytest.mark.parametrize("normalise", [True, False])
def test_the_policy_in_numpy_is_the_one_in_jax(action_space, normalise):
    envs = vector(AutoresetMode.SAME_STEP)
    env = SpacesOnly(envs)
    env.action_space = action_space
    network = ActorCritic(env, (16, 16), normalise)
    params, moments = network.init(jax.random.key(0))
    moments = moments.update(5 + 3 * jax.random.normal(jax.random.key(1), (100, 3)))
    obs = np.random.default_rng(0).normal(4, 3, (7, 3)).astype(np.float32)
    policy = actor_policy(network, params, moments, deterministic=True)
    action, acted = policy(obs, np.random.default_rng(0))
    expected, theirs = network.act(params, moments, jnp.asarray(obs), jnp.zeros_like(acted.head))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), acted, theirs)
    np.testing.assert_allclose(action, expected, atol=1e-6)
    assert all(action_space.contains(row) for row in action)


def test_sampled_actions_follow_the_policy():
    envs = vector(AutoresetMode.SAME_STEP)
    network = ActorCritic(described(envs), (8,), False)
    params, moments = network.init(jax.random.key(0))
    params["actor"]["params"]["Dense_1"]["bias"] = jnp.array([0.0, 1.0])
    action, (_, head, *_) = actor_policy(network, params, moments)(np.zeros((50_000, 3)), np.random.default_rng(0))
    assert np.mean(action == 5) == pytest.approx(float(jax.nn.softmax(head[0])[1]), abs=0.01)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("overlap", [False, True])
def test_metrics_count_real_episodes(mode, overlap):
    result = ppo.train_host(CONFIG, vector(mode), rd.environment_reward(), jax.random.key(0), overlap=overlap)
    assert result.metrics["true_return"].shape == (CONFIG.num_updates,)
    assert 2 <= result.metrics["length"][-1] <= 4
    assert result.metrics["episodes"].sum() > 50
    assert result.metrics["faults"].tolist() == [0] * CONFIG.num_updates
    np.testing.assert_allclose(result.metrics["true_return"], result.metrics["shaped_return"], rtol=1e-6)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))


def test_rows_that_are_no_experience_change_nothing():
    envs = vector(AutoresetMode.NEXT_STEP)
    env, reward = described(envs), rd.environment_reward()
    state = ppo.init(CONFIG, env, reward, jax.random.key(0))
    rows, extras = Collector(envs, env, 16).collect(ppo.host_policy(CONFIG, env, state), np.random.default_rng(0))
    dummy = ~rows.mask
    assert dummy.any()
    other = rows._replace(
        reward=np.where(dummy, 1e6, rows.reward), action=np.where(dummy, 9 - rows.action, rows.action)
    )
    real = rows._replace(reward=np.where(dummy, rows.reward, rows.reward + 7 * (rows.action == 4)))
    improve = jax.jit(lambda rows, extras: ppo.improve(CONFIG, env, reward, state, rows, extras))
    one, their, changed = (improve(x, extras) for x in (rows, other, real))
    jax.tree.map(np.testing.assert_array_equal, one[0].params, their[0].params)
    assert one[1]["true_return"] == their[1]["true_return"]
    with pytest.raises(AssertionError):
        jax.tree.map(np.testing.assert_array_equal, one[0].params, changed[0].params)


def test_the_same_key_gives_the_same_run():
    runs = [
        ppo.train_host(CONFIG, gymnasium.make_vec("CartPole-v1", num_envs=3), rd.environment_reward(), key)
        for key in (jax.random.key(0), jax.random.key(0), jax.random.key(1))
    ]
    np.testing.assert_array_equal(runs[0].metrics["policy_loss"], runs[1].metrics["policy_loss"])
    assert not np.array_equal(runs[0].metrics["policy_loss"], runs[2].metrics["policy_loss"])


def test_bad_input_is_refused_with_one_sentence():
    envs, reward, key = vector(AutoresetMode.SAME_STEP), rd.environment_reward(), jax.random.key(0)
    nan = rd.pointwise("broken", lambda t: jnp.where(t.next_obs[:, 1] > 1, jnp.nan, 1.0))
    with pytest.raises(rd.NonFiniteRewardError, match="'broken' was not finite"):
        ppo.train_host(CONFIG, envs, nan, key)
    shaping = rd.potential_shaping(lambda obs: obs[..., 0], gamma=0.5)
    with pytest.raises(ValueError, match=r"gamma 0.5, the agent with 0.9"):
        ppo.train_host(CONFIG, envs, shaping, key)
    with pytest.raises(TypeError, match="runs on the device only"):
        train_host(q_learning.AGENT, q_learning.Config(), envs, reward, key)
    with pytest.raises(TypeError, match="expected a gymnasium VectorEnv, got Count"):
        train_host(ppo.AGENT, CONFIG, Count(), reward, key)
    with pytest.raises(TypeError, match=r"is stepped on the host; train with train_host on task.vector"):
        ppo.train(CONFIG, task("gymnasium/CartPole-v1"), reward, key)


def test_evaluation_plays_as_many_episodes_in_every_lane():
    envs = task_from_gymnasium("CartPole-v1", success=lambda t: t.truncated).vector(4)
    result = ppo.train_host(dataclasses.replace(CONFIG, gamma=0.99), envs, rd.environment_reward(), jax.random.key(0))
    played = evaluate_host(ppo.AGENT, CONFIG, envs, result.state, num_episodes=10, seed=3)
    assert {len(values) for values in played.values()} == {12}
    np.testing.assert_array_equal(played["true_return"], played["length"])
    np.testing.assert_array_equal(played["success"], played["length"] == 500)


@pytest.mark.slow
@pytest.mark.parametrize("overlap", [False, True])
def test_ppo_learns_cartpole_on_the_host(overlap):
    config = ppo.Config(total_timesteps=60_000)
    envs = task("gymnasium/CartPole-v1").vector(8)
    result = ppo.train_host(config, envs, rd.environment_reward(), jax.random.key(0), overlap=overlap)
    assert np.mean(result.metrics["true_return"][-20:]) > 150  # random actions: 20
