"""DQN: targets and losses against NumPy, action masks, and known answers."""

import dataclasses
from functools import partial

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import reward_design as rd
from reward_design.agents import dqn, networks, off_policy
from reward_design.agents.dynamic_programming import policy_iteration
from reward_design.agents.host import described
from reward_design.envs import task

CONFIG = dqn.Config(
    total_timesteps=64,
    num_envs=4,
    num_steps=4,
    batch_size=8,
    learning_starts=32,
    hidden=(8,),
    gamma=0.9,
    huber_delta=1.0,
)
REWARD = rd.environment_reward()


class Masked(gymnasium.Env):
    """Action ``time % 3`` is forbidden, and asking for it is an error."""

    observation_space = spaces.Dict({"time": spaces.Box(0, 9, (1,), np.float32), "action_mask": spaces.MultiBinary(3)})
    action_space = spaces.Discrete(3)

    def _obs(self):
        mask = np.ones(3, np.int8)
        mask[self.time % 3] = 0
        return {"time": np.full(1, self.time, np.float32), "action_mask": mask if self.time < 9 else 0 * mask}

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.time = 0
        return self._obs(), {}

    def step(self, action):
        if action == self.time % 3:
            raise AssertionError(f"action {action} was forbidden at {self.time}")
        self.time += 1
        return self._obs(), 1.0, self.time == 9, False, {}


def networks_of(config, env, seed=0):
    nets = dqn._nets(config, env)
    keys = jax.random.split(jax.random.key(seed), 2)
    online, target = (nets.mlp.init(key, jnp.zeros(nets.inputs.num_features)) for key in keys)
    params = {"online": online, "target": target}
    return nets, off_policy.Learner(params, dqn._optimiser(config).init(online), jnp.int32(0))


@pytest.mark.parametrize("double", [True, False])
def test_the_bootstrap_is_the_target_networks_value_of_the_chosen_action(double):
    config, env, moments = dataclasses.replace(CONFIG, double=double), task("cartpole").env, networks.initial_moments(4)
    nets, one = networks_of(config, env)
    obs = jax.random.normal(jax.random.key(3), (50, 4))
    action, value = dqn._bootstrap(config, env, one, moments, obs, None)
    online, target = (np.asarray(nets.q(one.params[name], moments, obs)) for name in ("online", "target"))
    chosen = (online if double else target).argmax(axis=1)
    np.testing.assert_array_equal(action, chosen)
    np.testing.assert_allclose(value, target[np.arange(50), chosen])
    assert (online.argmax(axis=1) != target.argmax(axis=1)).any()


def test_the_loss_is_the_weighted_huber_loss_and_the_target_network_follows():
    env, moments = task("cartpole").env, networks.initial_moments(4)
    rng = np.random.default_rng(0)
    obs, target, weight = rng.normal(size=(8, 4)), 3 * rng.normal(size=8), rng.uniform(size=8)
    action = rng.integers(0, 2, 8)
    batch = off_policy.Batch(jnp.float32(obs), jnp.int32(action), jnp.float32(target), jnp.float32(weight))
    for settings in ({}, {"target_period": 2}):
        config = dataclasses.replace(CONFIG, **settings)
        nets, one = networks_of(config, env)
        error = np.asarray(nets.q(one.params["online"], moments, batch.obs))[np.arange(8), action] - target
        huber = np.where(np.abs(error) <= 1, 0.5 * error**2, np.abs(error) - 0.5)
        new, got, metrics = dqn._fit(config, env, one, moments, batch, None)
        np.testing.assert_allclose(got, error, rtol=1e-4)
        np.testing.assert_allclose(metrics["td_loss"], np.mean(weight * huber), rtol=1e-5)
        assert (np.abs(error) > 1).any()
        share = 0.005 if not settings else 0.0
        move = lambda t, p, share=share: t + share * (p - t)  # noqa: E731
        near = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
        jax.tree.map(near, new.params["target"], jax.tree.map(move, one.params["target"], new.params["online"]))
    again, _, _ = dqn._fit(config, env, new, moments, batch, None)
    jax.tree.map(near, again.params["target"], again.params["online"])


def test_dueling_values_have_the_state_value_as_their_mean():
    config, env = dataclasses.replace(CONFIG, dueling=True), task("cartpole").env
    nets, one = networks_of(config, env)
    obs, moments = jax.random.normal(jax.random.key(3), (5, 4)), networks.initial_moments(4)
    out = np.asarray(nets.mlp.apply(one.params["online"], obs))
    q = nets.q(one.params["online"], moments, obs)
    np.testing.assert_allclose(q.mean(axis=1), out[:, 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(q[:, 1] - q[:, 0], out[:, 2] - out[:, 1], rtol=1e-4, atol=1e-6)


def test_forbidden_actions_are_neither_taken_nor_assumed():
    envs = gymnasium.vector.SyncVectorEnv([Masked] * 4, autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP)
    result = dqn.train_host(CONFIG, envs, REWARD, jax.random.key(0))
    env, state = described(envs), result.state
    obs = {"time": jnp.zeros((3, 1)), "action_mask": jnp.array([[0, 1, 0], [1, 0, 0], [0, 0, 0]])}
    for seed in range(5):
        assert dqn.act(CONFIG, env, state, obs, jax.random.key(seed)).tolist()[:2] == [1, 0]
        action, value = dqn._bootstrap(CONFIG, env, networks_of(CONFIG, env, seed)[1], state.moments, obs, None)
        assert action.tolist()[:2] == [1, 0]
        assert np.isfinite(value).all()
    assert np.isfinite(result.metrics["td_loss"][1:]).all()


def test_runs_of_more_steps_than_an_int32_counts():
    config = dqn.Config(total_timesteps=3_000_000_000, num_envs=8, num_steps=8, capacity=1_000, learning_starts=100)
    late = jnp.int32(2**31 // config.steps_per_update + 5)
    assert float(dqn._epsilon(config, late)) == pytest.approx(config.epsilon_end)
    assert int(late) * config.steps_per_update > 2**31
    assert [float(dqn._epsilon(config, jnp.int32(n))) < 1 for n in (0, 1, 2)] == [False, False, True]


def test_exploration_goes_from_uniform_to_its_end():
    config = dqn.Config(
        total_timesteps=6_400, learning_starts=640, epsilon=0.8, epsilon_end=0.1, exploration_fraction=0.5
    )
    got = [float(dqn._epsilon(config, update)) for update in (0, 9, 10, 30, 50, 99)]
    np.testing.assert_allclose(got, [1.0, 1.0, 0.66, 0.38, 0.1, 0.1], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"n_step": 3, "prioritised": True, "dueling": True, "target_period": 100}])
def test_values_of_a_chain_are_those_of_value_iteration(settings):
    chain = task("chain")
    config = dqn.Config(
        total_timesteps=40_000, num_envs=8, num_steps=4, train_every=4, batch_size=64, hidden=(64,), gamma=chain.gamma,
        learning_rate=1e-3, learning_starts=1_000, epsilon=1.0, epsilon_end=1.0 if not settings else 0.1, **settings,
    )  # fmt: skip
    state = dqn.train(config, chain, chain.true_reward, jax.random.key(0)).state
    model = chain.tabular()
    expected = policy_iteration(model.transition, model.reward, gamma=model.gamma)
    q = np.asarray(
        dqn._nets(config, chain.env).q(state.params["online"], state.moments, jnp.asarray(model.observations))
    )
    live = ~model.terminal
    if not settings:  # n-step returns of exploring actions are biased, so only the best action's value is known
        np.testing.assert_allclose(q[live], expected.action_values[live], atol=0.05)
    np.testing.assert_allclose(q.max(axis=1)[live], expected.values[live], atol=0.05)


@pytest.mark.slow
def test_dqn_learns_cartpole():
    config = dqn.Config(
        total_timesteps=80_000, batch_size=64, hidden=(64, 64), learning_rate=1e-3, learning_starts=1_000, n_step=3,
        exploration_fraction=0.3, target_period=100, huber_delta=100.0,
    )  # fmt: skip
    keys = jax.random.split(jax.random.key(0), 3)[:2]
    metrics = jax.vmap(lambda key: dqn.train(config, task("cartpole"), REWARD, key).metrics)(keys)
    assert float(metrics["true_return"][:, -100:].mean()) > 300
