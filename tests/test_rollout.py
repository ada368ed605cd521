"""Rollouts and episode statistics against explicit loops."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design import Output, Transition, environment_reward
from reward_design.agents import base, ppo, reinforce, rollout
from tests.agent_envs import Counter

TIME, LANES = 12, 3


def alternate(obs, noise):
    """Action 1 at odd times of lane-dependent phase, as a function of the observation alone."""
    return (obs[:, 0].astype(jnp.int32) >= 3).astype(jnp.int32), obs[:, 0]


def collect(env, num_steps=TIME, lanes=None):
    lanes = lanes or rollout.reset_lanes(env, jax.random.key(0), LANES, ("environment",))
    return rollout.collect(env, alternate, lanes, jax.random.key(1), jnp.zeros((num_steps, LANES, 1)), num_steps)


@pytest.mark.parametrize("stoppable", [False, True])
def test_rollout_keeps_the_true_successor_and_restarts_lanes(stoppable):
    env = Counter(horizon=5, stoppable=stoppable)
    _, trajectory, extras = collect(env)
    length = 4 if stoppable else 5
    times = np.arange(TIME) % length
    np.testing.assert_array_equal(trajectory.obs[..., 0], np.repeat(times[:, None], LANES, 1))
    np.testing.assert_array_equal(trajectory.next_obs[..., 0], trajectory.obs[..., 0] + 1)
    np.testing.assert_array_equal(trajectory.next_obs[..., 1], trajectory.obs[..., 1])
    np.testing.assert_array_equal(trajectory.done[:, 0], times == length - 1)
    np.testing.assert_array_equal(trajectory.terminated, trajectory.done & stoppable)
    np.testing.assert_array_equal(trajectory.truncated, trajectory.done & (not stoppable))
    np.testing.assert_array_equal(extras, trajectory.obs[..., 0])
    offsets = np.asarray(trajectory.obs[..., 1])
    assert len(np.unique(offsets)) == LANES * (TIME // length + (TIME % length > 0))


def test_rollouts_continue_where_the_last_one_stopped():
    env = Counter(horizon=5)
    lanes, first, _ = collect(env, num_steps=7)
    _, second, _ = collect(env, num_steps=7, lanes=lanes)
    times = np.concatenate([first.obs[..., 0], second.obs[..., 0]])
    np.testing.assert_array_equal(times, np.repeat((np.arange(14) % 5)[:, None], LANES, 1))


def naive_metrics(rewards, dones, carried):
    """Totals of the episodes that end, lane by lane and step by step."""
    ended, totals = [], list(carried)
    for t in range(len(rewards)):
        for b in range(len(totals)):
            totals[b] += rewards[t, b]
            if dones[t, b]:
                ended.append(totals[b])
                totals[b] = 0.0
    return ended, totals


def test_episode_metrics_equal_a_loop_over_two_rollouts():
    rng = np.random.default_rng(0)
    env = Counter()
    lanes = rollout.reset_lanes(env, jax.random.key(0), LANES, ("environment",))
    carried = np.zeros(LANES)
    for _ in range(2):
        reward = rng.normal(size=(TIME, LANES)).astype(np.float32)
        truncated = rng.random((TIME, LANES)) < 0.2
        zeros = np.zeros((TIME, LANES), bool)
        trajectory = Transition(0, 0, 0, reward, zeros, truncated, ~zeros)
        output = Output(2 * reward, {"environment": 2 * reward})
        lanes, metrics = rollout.episode_metrics(env, lanes, trajectory, output)
        ended, carried = naive_metrics(reward, truncated, carried)
        assert metrics["episodes"] == len(ended) > 1
        np.testing.assert_allclose(metrics["true_return"], np.mean(ended), rtol=1e-4)
        np.testing.assert_allclose(metrics["shaped_return"], 2 * np.mean(ended), rtol=1e-4)
        np.testing.assert_allclose(metrics["term/environment"], metrics["shaped_return"])
        np.testing.assert_allclose(lanes.sums["true_return"], carried, rtol=1e-4, atol=1e-6)
        assert metrics["success"] == 1.0


def test_metrics_without_an_ended_episode_repeat_the_last_value_and_start_as_nan():
    env = Counter()
    lanes = rollout.reset_lanes(env, jax.random.key(0), LANES, ("environment",))
    quiet, noisy = np.zeros((2, TIME, LANES), bool)
    noisy = noisy | (np.arange(TIME) == 5)[:, None]
    reward = np.ones((TIME, LANES), np.float32)
    output = Output(reward, {"environment": reward})
    seen = []
    for done in (quiet, noisy, quiet):
        trajectory = Transition(0, 0, 0, reward, quiet, done, ~quiet)
        lanes, metrics = rollout.episode_metrics(env, lanes, trajectory, output)
        seen.append(float(metrics["true_return"]))
    assert np.isnan(seen[0])
    assert seen[1:] == [TIME + 6.0, TIME + 6.0]


def test_next_action_is_the_action_taken_next_unless_the_episode_or_rollout_ends():
    env = Counter(horizon=5)
    _, trajectory, _ = collect(env)
    sampled = jnp.full((TIME, LANES), 7)
    got = rollout.with_next_action(trajectory, sampled).info["next_action"]
    for t in range(TIME):
        ends = t == TIME - 1 or bool(trajectory.done[t, 0])
        assert int(got[t, 0]) == (7 if ends else int(trajectory.action[t + 1, 0]))


@pytest.mark.parametrize("gae_lambda", [0.0, 0.5, 0.95, 1.0])
def test_advantages_equal_the_definition(gae_lambda):
    rng = np.random.default_rng(1)
    reward, value, next_value = rng.normal(size=(3, TIME, LANES)).astype(np.float32)
    terminated, truncated = rng.random((2, TIME, LANES)) < 0.2
    truncated &= ~terminated
    inputs = map(jnp.asarray, (reward, value, next_value, terminated, truncated))
    got = ppo.advantages(*inputs, gamma=0.9, gae_lambda=gae_lambda)
    for b in range(LANES):
        for t in range(TIME):
            want, decay = 0.0, 1.0
            for k in range(t, TIME):
                bootstrap = 0.0 if terminated[k, b] else next_value[k, b]
                want += decay * (reward[k, b] + 0.9 * bootstrap - value[k, b])
                decay *= 0.9 * gae_lambda
                if terminated[k, b] or truncated[k, b]:
                    break
            np.testing.assert_allclose(got[t, b], want, rtol=2e-4, atol=1e-5)


def test_returns_to_go_equal_the_definition():
    rng = np.random.default_rng(2)
    reward, bootstrap = rng.normal(size=(2, TIME, LANES)).astype(np.float32)
    done = rng.random((TIME, LANES)) < 0.25
    got = reinforce.returns_to_go(*map(jnp.asarray, (reward, bootstrap, done)), gamma=0.9)
    ended = np.asarray(rollout.before_last(jnp.asarray(done)))
    for b in range(LANES):
        for t in np.flatnonzero(ended[:, b]):
            end = t + np.argmax(done[t:, b])
            want = (
                sum(0.9 ** (k - t) * reward[k, b] for k in range(t, end + 1)) + 0.9 ** (end + 1 - t) * bootstrap[end, b]
            )
            np.testing.assert_allclose(got[t, b], want, rtol=2e-4, atol=1e-5)


def test_evaluation_plays_whole_episodes_once():
    env = Counter(horizon=5)
    config = ppo.Config(total_timesteps=64, num_envs=2, num_steps=8, num_minibatches=1, gamma=0.9)
    state = ppo.init(config, env, environment_reward(), jax.random.key(0))
    result = base.evaluate(ppo.AGENT, config, env, state, jax.random.key(1), num_episodes=4)
    assert {k: v.tolist() for k, v in result.items()} == {
        "true_return": [5.0] * 4, "success": [1.0] * 4, "length": [5.0] * 4,
    }  # fmt: skip
