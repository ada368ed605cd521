"""What DQN and SAC share: rewards computed when sampled, n-step targets, the contract of ``train`` and of the host."""

import dataclasses
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.agents import checkpoint, dqn, off_policy, replay, sac, scoring, train_seeds
from reward_design.agents.host import described, evaluate_host, train_host
from reward_design.core import Kind
from reward_design.testing import random_trajectory
from tests.agent_envs import Counter, Target

SIZES = {"total_timesteps": 64, "num_envs": 4, "num_steps": 4, "batch_size": 8, "learning_starts": 32, "hidden": (8,)}
SMALL = dqn.Config(**SIZES, gamma=0.9, n_step=3, prioritised=True, train_every=8)
SMALL_SAC = sac.Config(**SIZES, gamma=0.9, updates_per_step=0.25)
REWARD = rd.environment_reward()
ENV, BOX = Counter(stoppable=True), Target()
AGENTS = [pytest.param(dqn, SMALL, ENV, id="dqn"), pytest.param(sac, SMALL_SAC, BOX, id="sac")]
LANES, STEPS = 3, 12


def same(a, b, **tolerance):
    jax.tree.map(partial(np.testing.assert_allclose, **tolerance), a, b)


def numbers(tree):
    return jax.tree.map(lambda x: jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x, tree)


# --- the reward of a sample -----------------------------------------------------------------------------------------


def memory():
    """Pays the time since the episode began, times a weight; remembers it per lane."""

    def step(params, state, t):
        return params["weight"] * state.episode, state._replace(episode=state.episode + 1)

    return rd.from_step("memory", lambda key, t: ({"weight": 1.0}, rd.State(episode=jnp.zeros_like(t.reward))), step)


CAUSAL = {
    "memory": memory(),
    "delayed": rd.delayed(REWARD),
    "dynamic": rd.potential_shaping(lambda obs: obs[..., 0], gamma=0.9, dynamic=True),
    "chain": rd.chain(memory(), rd.delayed(memory()), rd.scale(2.0)),
}


def stored(reward, trajectories):
    """A replay with everything that was collected, and the rewards as they were."""
    row = trajectories[0]._replace(**{k: v[0] for k, v in trajectories[0]._asdict().items() if k != "info"}, info={})
    params, state = reward.init(jax.random.key(0), jax.tree.map(jnp.asarray, row))
    buffer, paid = replay.empty(jax.tree.map(jnp.asarray, row), state.episode, 60), []
    for trajectory in trajectories:
        output, state, episode = off_policy.collected(reward, params, state, jax.tree.map(jnp.asarray, trajectory))
        buffer = replay.insert(buffer, trajectory, episode)
        paid.append(np.asarray(output.reward))
    return params, state, buffer, np.concatenate(paid)


def recorded(num=3):
    flag = np.zeros(LANES, bool)
    obs = np.zeros((LANES, 2), np.float32)
    row = rd.Transition(obs, np.zeros((LANES, 1), np.float32), obs, np.zeros(LANES, np.float32), flag, flag, ~flag, {})
    whole = random_trajectory(row, seed=1, time=num * STEPS, lanes=LANES)
    return whole, [jax.tree.map(lambda x, i=i: x[i * STEPS : (i + 1) * STEPS], whole) for i in range(num)]


@pytest.mark.parametrize("reward", [*CAUSAL.values(), REWARD], ids=[*CAUSAL, "environment"])
def test_a_sampled_row_earns_what_it_earned_within_its_episode(reward):
    whole, parts = recorded()
    params, state, buffer, paid = stored(reward, parts)
    for lane in range(LANES):
        held = int(buffer.count[lane])
        index = jnp.arange(held) * LANES + lane
        window = replay.windows(buffer, index, 3)
        output = off_policy.sampled_reward(reward, params, state, window, jnp.zeros((held, 1)))
        expected = paid[whole.mask[:, lane], lane]
        for k in range(3):
            counts = np.asarray(window.rows.mask[k])
            np.testing.assert_allclose(output.reward[k][counts], expected[k:][counts[: held - k]], rtol=1e-5, atol=1e-6)
            np.testing.assert_array_equal(output.reward[k][~counts], 0)


def test_changed_params_change_the_reward_of_rows_that_are_stored():
    reward = memory()
    params, state, buffer, _ = stored(reward, recorded()[1])
    window = replay.windows(buffer, jnp.arange(30), 1)
    sampled = partial(off_policy.sampled_reward, reward)
    before = sampled(params, state, window, jnp.zeros((30, 1))).reward
    after = sampled({"weight": 3.0}, state, window, jnp.zeros((30, 1))).reward
    np.testing.assert_allclose(after, 3 * before)
    assert float(before.max()) > 1


def test_running_statistics_are_those_of_now():
    reward = rd.normalise_by_return(gamma=0.9)
    params, state, buffer, paid = stored(reward, recorded()[1])
    window = replay.windows(buffer, jnp.arange(20), 1)
    got = off_policy.sampled_reward(reward, params, state, window, jnp.zeros((20, 1))).reward[0]
    now = np.sqrt(state.running["m2"] / state.running["count"])
    np.testing.assert_allclose(got, window.rows.reward[0] / now, rtol=1e-5)
    assert not np.allclose(got, paid.ravel()[:20])


def test_n_step_targets_equal_a_loop_over_recorded_episodes():
    whole, parts = recorded()
    params, state, buffer, _ = stored(REWARD, parts)
    value = lambda obs: 10.0 + obs[..., 0]  # noqa: E731
    for lane in range(LANES):
        rows = [i for i in range(len(whole.mask)) if whole.mask[i, lane]]
        window = replay.windows(buffer, jnp.arange(len(rows)) * LANES + lane, 4)
        reward = off_policy.sampled_reward(REWARD, params, state, window, jnp.zeros((len(rows), 1))).reward
        following = value(replay.last_row(window, window.rows.next_obs))
        got = off_policy.n_step_target(reward, window.rows.terminated, window.last, following, gamma=0.9)
        for start in range(len(rows)):
            target, discount = 0.0, 1.0
            for row in rows[start : start + 4]:
                target, discount = target + discount * whole.reward[row, lane], discount * 0.9
                if whole.terminated[row, lane] or whole.truncated[row, lane]:
                    break
            if not whole.terminated[row, lane]:
                target += discount * value(whole.next_obs[row, lane])
            np.testing.assert_allclose(got[start], target, rtol=1e-5)


def test_the_next_action_is_the_stored_one_or_that_of_the_policy():
    _, parts = recorded()
    advice = rd.look_ahead_advice(lambda obs, action: action[..., 0], gamma=0.9, add=False)
    buffer = replay.insert(replay.empty(jax.tree.map(lambda x: jnp.asarray(x[0]), parts[0]), (), 20), parts[0], ())
    window = replay.windows(buffer, jnp.arange(10), 2)
    params = {"gamma": jnp.float32(0.9), "potential": ()}
    got = off_policy.sampled_reward(advice, params, rd.State((), (), ()), window, jnp.full((10, 1), 5.0)).reward
    for i in range(10):
        actions = [window.rows.action[k, i, 0] for k in range(int(window.last[i]) + 1)] + [5.0]
        for k in range(len(actions) - 1):
            following = 0.0 if window.rows.terminated[k, i] else 0.9 * actions[k + 1]
            np.testing.assert_allclose(got[k, i], following - actions[k], rtol=1e-5, atol=1e-6)


# --- training on the device -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("agent", "config", "env"), AGENTS)
def test_train_returns_metrics_per_iteration_and_learns_after_the_start(agent, config, env):
    result = agent.train(config, env, REWARD, jax.random.key(0))
    expected = {"shaped_return", "true_return", "success", "length", "episodes", "term/environment", "env_steps"}
    assert expected <= set(result.metrics)
    assert all(v.shape == (config.num_updates,) for v in result.metrics.values())
    loss = result.metrics["td_loss" if agent is dqn else "critic_loss"]
    np.testing.assert_array_equal(np.isnan(loss), [True, False, False, False])
    assert result.state.num_gradient_steps == 3 * config.num_gradient_steps
    assert result.state.replay.count.tolist() == [16] * 4
    assert result.metrics["env_steps"][-1] == 64


@pytest.mark.parametrize(("agent", "config", "env"), AGENTS)
def test_runs_are_vmappable_sharded_and_resumed_with_equal_results(agent, config, env, tmp_path):
    keys = jax.random.split(jax.random.key(0), 2)
    alone = [agent.train(config, env, REWARD, key) for key in keys]
    saved = {}

    def keep(done, metrics, state):
        if done == 2:
            checkpoint.save(tmp_path, state, step=done, identity={})
            saved["like"] = jax.tree.map(jnp.copy, state)

    many = train_seeds(agent.AGENT, config, env, REWARD, keys, num_chunks=2, on_chunk=keep)
    for i in range(2):
        one = jax.tree.map(lambda x, i=i: x[i], many.state)
        same(numbers(one.params), numbers(alone[i].state.params), rtol=1e-4, atol=1e-5)
    restored = checkpoint.restore(tmp_path, saved["like"], identity={})
    assert restored is not None
    resumed = train_seeds(agent.AGENT, config, env, REWARD, keys, state=restored[0], num_chunks=1)
    jax.tree.map(np.testing.assert_array_equal, numbers(resumed.state), numbers(many.state))
    rates = jax.vmap(lambda rate: agent.train(dataclasses.replace(config, learning_rate=rate), env, REWARD, keys[0]))
    swept = rates(jnp.array([config.learning_rate, 1e-2])).state.params
    same(jax.tree.map(lambda x: x[0], swept), alone[0].state.params, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("agent", "config", "env"), AGENTS)
def test_a_nan_reward_is_named_and_reaches_no_parameter(agent, config, env):
    broken = rd.pointwise("broken", lambda t: jnp.full_like(t.reward, jnp.nan))
    with pytest.raises(rd.NonFiniteRewardError, match="'broken' was not finite: term 'broken' at step 0 of lane 0"):
        agent.train(config, env, broken, jax.random.key(0))


def test_a_stored_row_that_turns_nan_stops_the_run_before_it_reaches_a_parameter():
    state = jax.jit(partial(dqn.init, SMALL, ENV, REWARD))(jax.random.key(0))
    update = jax.jit(partial(dqn.update, SMALL, ENV, REWARD))
    for _ in range(2):
        state, _ = update(state)
    rows = state.replay.rows
    poisoned = state._replace(replay=state.replay._replace(rows=rows._replace(reward=rows.reward.at[:8].set(jnp.nan))))
    stopped, _ = update(poisoned)
    assert stopped.fault.step == 2 * SMALL.num_steps
    jax.tree.map(np.testing.assert_array_equal, stopped.params, state.params)
    with pytest.raises(rd.NonFiniteRewardError, match="term 'environment' at step 8"):
        scoring.raise_on_fault(stopped.fault, ENV, REWARD)


def test_bad_input_is_refused_with_one_sentence():
    key = jax.random.key(0)
    whole = rd.from_trajectory("whole", lambda key, t: ((), rd.State()), lambda p, s, t: (t.reward, s))
    assert whole.kind is Kind.TRAJECTORY
    with pytest.raises(TypeError, match=r"'whole' needs whole episodes .*dqn, which computes rewards when it samples"):
        dqn.train(SMALL, ENV, whole, key)
    with pytest.raises(TypeError, match=r"dqn needs Discrete actions, got Box.*; use ppo or sac"):
        dqn.train(SMALL, BOX, REWARD, key)
    with pytest.raises(TypeError, match="sac needs Box actions, got Discrete"):
        sac.train(SMALL_SAC, ENV, REWARD, key)
    for space in (spaces.Box(-np.inf, np.inf, (1,)), spaces.Dict({"a": spaces.Discrete(2)})):
        env = Target()
        env.action_space = space
        with pytest.raises(TypeError, match=r"finite bounds|got Dict"):
            sac.train(SMALL_SAC, env, REWARD, key)
    with pytest.raises(ValueError, match=r"gamma 0\.5"):
        dqn.train(SMALL, ENV, rd.potential_shaping(lambda obs: obs[..., 0], gamma=0.5), key)


@pytest.mark.parametrize(
    ("config", "settings", "message"),
    [
        (SMALL, {"total_timesteps": 8}, "total_timesteps must be at least"),
        (SMALL, {"learning_starts": 64}, "learning_starts must be below total_timesteps = 64, got 64"),
        (SMALL, {"train_every": 3}, "must be a whole number of gradient steps, at least 1, got 5.33"),
        (SMALL, {"n_step": 0}, "n_step must be at least 1, got 0"),
        (SMALL_SAC, {"updates_per_step": 0.01}, "num_steps \\* updates_per_step must be a whole number"),
        (SMALL_SAC, {"subset_size": 3}, "subset_size must be in \\[1, num_critics = 2\\], got 3"),
        (SMALL_SAC, {"target_entropy": "low"}, "target_entropy must be 'auto' or a finite number, got 'low'"),
    ],
)
def test_impossible_settings_are_refused(config, settings, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(config, **settings)


# --- training on the host -------------------------------------------------------------------------------------------


class Steps(gymnasium.Env):
    """Observes (episode, step, last action); ends after 2 + episode % 3 steps, every second time by truncation."""

    observation_space = spaces.Box(-100, 100, (3,), np.float32)

    def __init__(self, action_space, offset):
        self.action_space, self.episode, self.time = action_space, offset - 1, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return np.array([self.episode, 0, 0], np.float32), {}

    def step(self, action):
        self.time += 1
        end = self.time == 2 + self.episode % 3
        obs = np.array([self.episode, self.time, np.sum(action)], np.float32)
        return obs, float(self.time), end and self.episode % 2 == 0, end and self.episode % 2 == 1, {}


def vector(mode, action_space):
    return SyncVectorEnv([lambda i=i: Steps(action_space, i) for i in range(4)], autoreset_mode=mode)


SPACES = {
    "dqn": spaces.Discrete(2, start=4),
    "sac": spaces.Box(np.array([-1, 2], np.float32), np.array([3, 4], np.float32)),
}


@pytest.mark.parametrize("mode", list(AutoresetMode))
@pytest.mark.parametrize(("agent", "config", "env"), AGENTS)
def test_every_stored_row_is_experience_in_every_autoreset_mode(agent, config, env, mode):
    envs = vector(mode, SPACES[agent.AGENT.name])
    result = agent.train_host(config, envs, REWARD, jax.random.key(0), overlap=mode is AutoresetMode.DISABLED)
    rows, count = result.state.replay.rows, np.asarray(result.state.replay.count)
    assert (count < 16).all() if mode is AutoresetMode.NEXT_STEP else (count == 16).all()
    for lane in range(4):
        got = jax.tree.map(lambda x, lane=lane: np.asarray(x)[: count[lane], lane], rows._replace(mask=()))
        np.testing.assert_array_equal(got.next_obs[:, 1], got.obs[:, 1] + 1)
        np.testing.assert_array_equal(got.next_obs[:, 0], got.obs[:, 0])
        np.testing.assert_allclose(got.next_obs[:, 2], got.action.reshape(len(got.action), -1).sum(axis=1), rtol=1e-5)
        np.testing.assert_array_equal(got.reward, got.next_obs[:, 1])
        assert all(envs.single_action_space.contains(a) for a in got.action)
        end = got.next_obs[:, 1] == 2 + got.obs[:, 0] % 3
        np.testing.assert_array_equal(got.terminated, end & (got.obs[:, 0] % 2 == 0))
        np.testing.assert_array_equal(got.truncated, end & (got.obs[:, 0] % 2 == 1))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result.state.params))


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize(("agent", "config", "env"), AGENTS)
def test_the_policy_in_numpy_is_the_one_in_jax(agent, config, env, normalise):
    envs = vector(AutoresetMode.SAME_STEP, SPACES[agent.AGENT.name])
    host_env = described(envs)
    config = dataclasses.replace(config, normalise_obs=normalise, hidden=(16, 16))
    state = agent.init(config, host_env, REWARD, jax.random.key(0))
    state = state._replace(moments=state.moments.update(2 + 3 * jax.random.normal(jax.random.key(1), (100, 3))))
    obs = np.random.default_rng(0).normal(4, 3, (7, 3)).astype(np.float32)
    action, _ = agent.host_policy(config, host_env, state, deterministic=True)(obs, np.random.default_rng(0))
    expected = agent.act(config, host_env, state, jnp.asarray(obs), jax.random.key(0), deterministic=True)
    np.testing.assert_allclose(action, expected, atol=1e-5)
    assert len(np.unique(action.round(3), axis=0)) > 1


def test_a_run_goes_on_from_its_state_with_new_episodes():
    envs, key = vector(AutoresetMode.SAME_STEP, SPACES["dqn"]), jax.random.key(0)
    first = train_host(dqn.AGENT, SMALL, envs, memory(), key, num_updates=2)
    assert float(first.state.reward_state.episode.max()) > 0
    second = train_host(dqn.AGENT, SMALL, envs, memory(), key, state=first.state)
    assert second.state.num_updates == SMALL.num_updates
    rows, remembered = second.state.replay.rows, second.state.replay.episode
    np.testing.assert_array_equal(remembered, rows.obs[..., 1])
    played = evaluate_host(dqn.AGENT, SMALL, envs, second.state, num_episodes=8)
    assert {len(v) for v in played.values()} == {8}
