"""SAC: densities, one gradient step written out by hand, ensembles, and known answers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from gymnasium import spaces

import reward_design as rd
from reward_design.agents import evaluate, networks, off_policy, sac
from reward_design.agents.host import evaluate_host
from reward_design.agents.sac_networks import squashed_sample
from reward_design.envs import task
from tests.agent_envs import Target

DIMS, ROWS = 2, 6
CONFIG = sac.Config(
    total_timesteps=64, num_envs=4, num_steps=4, batch_size=ROWS, learning_starts=32, hidden=(5, 4), gamma=0.9
)
ENV = Target()
ENV.action_space = spaces.Box(np.array([-1, 0], np.float32), np.array([3, 1], np.float32))


def learner(config, **scales):
    """A learner some way from its start, so that nothing is zero."""
    state = sac.init(config, ENV, rd.environment_reward(), jax.random.key(0))
    drawn = iter(jax.random.split(jax.random.key(1), 200))
    move = lambda x: x + 0.3 * jax.random.normal(next(drawn), x.shape)  # noqa: E731
    return off_policy.Learner(jax.tree.map(move, state.params), state.opt_state, jnp.int32(0))


def batch():
    rng = np.random.default_rng(0)
    action = rng.uniform(ENV.action_space.low, ENV.action_space.high, (ROWS, DIMS))
    drawn = rng.normal(size=(2, ROWS))
    return off_policy.Batch(
        *(jnp.float32(x) for x in (rng.normal(size=(ROWS, 1)), action, drawn[0], 0.5 + drawn[1] ** 2))
    )


def noise(config):
    keys = jax.random.split(jax.random.key(2), 3)
    made = {name: jax.random.normal(key, (ROWS, DIMS)) for name, key in zip(("now", "next"), keys, strict=False)}
    return {**made, "order": jax.random.uniform(keys[2], (config.num_critics,))}


def dense(x, params, num_hidden, xp=np):
    """The network in float64."""
    layers = params["params"]
    for i in range(num_hidden + 1):
        x = x @ layers[f"Dense_{i}"]["kernel"] + layers[f"Dense_{i}"]["bias"]
        x = xp.maximum(x, 0) if i < num_hidden else x
    return x


def test_the_density_of_squashed_actions_is_that_of_a_change_of_variables():
    rng = np.random.default_rng(0)
    mean, log_std, drawn = rng.normal(size=(3, 50, DIMS))
    action, log_prob = squashed_sample(*(jnp.float32(x) for x in (mean, log_std, drawn)))
    u, step = mean + np.exp(log_std) * drawn, 1e-6
    cumulative = lambda a: scipy.stats.norm.cdf(np.arctanh(a), mean, np.exp(log_std))  # noqa: E731
    np.testing.assert_allclose(action, np.tanh(u), rtol=1e-5)
    inside, at = np.abs(np.tanh(u)).max(axis=1) < 0.999, np.clip(np.tanh(u), -0.9995, 0.9995)
    density = (cumulative(at + step) - cumulative(at - step)) / (2 * step)
    np.testing.assert_allclose(log_prob[inside], np.log(density).sum(axis=1)[inside], rtol=1e-3, atol=1e-3)
    far, finite = squashed_sample(jnp.full((1, 1), 40.0), jnp.zeros((1, 1)), jnp.zeros((1, 1)))
    assert np.isfinite(finite).all()
    assert far == 1


def test_a_gradient_step_is_the_one_written_out_by_hand(float64):
    """Losses and Adam's first step, with gradients by central differences of a NumPy loss in double precision."""
    old = jax.tree.map(lambda x: np.asarray(x, np.float64), learner(CONFIG).params)
    nets, rows, draws = sac._nets(CONFIG, ENV), batch(), noise(CONFIG)
    moments = networks.initial_moments(1)
    start = off_policy.Learner(jax.tree.map(jnp.asarray, old), learner(CONFIG).opt_state, jnp.int32(0))
    start = start._replace(opt_state={k: sac.OPTIMISER.init(start.params[k]) for k in start.opt_state})
    rows = jax.tree.map(lambda x: jnp.asarray(x, jnp.float64), rows)
    new, error, metrics = sac._fit(CONFIG, ENV, start, moments, rows, draws)
    x, y, weight = (np.asarray(v, np.float64) for v in (rows.obs, rows.target, rows.weight))
    low, high = ENV.action_space.low, ENV.action_space.high
    scaled = 2 * (np.asarray(rows.action) - low) / (high - low) - 1

    def q(params, action):
        both = np.concatenate([x, action], axis=1)
        each = [jax.tree.map(lambda leaf, i=i: leaf[i], params) for i in range(2)]
        return np.stack([dense(both, one, 2)[:, 0] for one in each])

    def critic_loss(params):
        return sum(0.5 * np.mean(weight * (values - y) ** 2) for values in q(params, scaled))

    def actor_parts(params, critic):
        mean, log_std = np.split(dense(x, params, 2), 2, axis=1)
        std = np.exp(np.clip(log_std, -20, 2))
        u = mean + std * np.asarray(draws["now"])
        log_prob = (scipy.stats.norm.logpdf(u, mean, std) - np.log(1 - np.tanh(u) ** 2)).sum(axis=1)
        return log_prob, q(critic, np.tanh(u)).min(axis=0)

    def actor_loss(params, critic):
        log_prob, value = actor_parts(params, critic)
        return np.mean(np.exp(old["log_temperature"]) * log_prob - value)

    def first_adam_step(loss, params):
        leaves, structure = jax.tree.flatten(params)
        made = []
        for number, leaf in enumerate(leaves):
            grads = np.zeros_like(leaf)
            for i in np.ndindex(leaf.shape):
                ends = []
                for h in (1e-6, -1e-6):
                    moved = leaf.copy()
                    moved[i] += h
                    ends.append(loss(jax.tree.unflatten(structure, [*leaves[:number], moved, *leaves[number + 1 :]])))
                grads[i] = (ends[0] - ends[1]) / 2e-6
            made.append(leaf - 3e-4 * grads / (np.abs(grads) + 1e-8))
        return jax.tree.unflatten(structure, made)

    critic = first_adam_step(critic_loss, old["critic"])
    compare = lambda got, want: jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), got, want)  # noqa: E731
    compare(new.params["critic"], critic)
    compare(new.params["target"], jax.tree.map(lambda t, c: 0.995 * t + 0.005 * c, old["target"], critic))
    compare(new.params["actor"], first_adam_step(lambda p: actor_loss(p, critic), old["actor"]))
    log_prob, _ = actor_parts(old["actor"], critic)
    raised = np.sign(log_prob.mean() - 2)  # the temperature rises where the entropy is below -dims
    np.testing.assert_allclose(new.params["log_temperature"], old["log_temperature"] + 3e-4 * raised, atol=1e-6)
    np.testing.assert_allclose(metrics["critic_loss"], critic_loss(old["critic"]), rtol=1e-5)
    np.testing.assert_allclose(metrics["actor_loss"], actor_loss(old["actor"], critic), rtol=1e-4)
    np.testing.assert_allclose(error, np.abs(q(old["critic"], scaled) - y).mean(axis=0), rtol=1e-5)
    assert nets.num_actions == DIMS


def test_the_target_is_the_minimum_over_a_random_subset_of_critics():
    config = dataclasses.replace(CONFIG, num_critics=5, subset_size=2)
    one, draws, rows = learner(config), noise(config), batch()
    nets, moments = sac._nets(config, ENV), networks.initial_moments(1)
    action, value = sac._bootstrap(config, ENV, one, moments, rows.obs, draws)
    sampled, log_prob = nets.sample(one.params["actor"], rows.obs, draws["next"])
    np.testing.assert_allclose(action, [-1, 0] + 0.5 * (np.asarray(sampled) + 1) * [4, 1], rtol=1e-5)
    values = np.asarray(nets.q(one.params["target"], rows.obs, sampled))
    chosen = np.argsort(draws["order"])[:2]
    expected = values[chosen].min(axis=0) - np.exp(one.params["log_temperature"]) * log_prob
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert not np.allclose(values[chosen].min(axis=0), values.min(axis=0))
    orders = jax.vmap(lambda key: jnp.argsort(jax.random.uniform(key, (5,)))[:2])(
        jax.random.split(jax.random.key(0), 200)
    )
    assert len({tuple(sorted(pair)) for pair in np.asarray(orders).tolist()}) == 10


def test_the_actor_moves_at_every_policy_delay_and_a_fixed_temperature_never():
    config = dataclasses.replace(CONFIG, policy_delay=2, learn_temperature=False, temperature=0.2, actor_q="mean")
    one, moments = learner(config), networks.initial_moments(1)
    step = jax.jit(lambda one: sac._fit(config, ENV, one, moments, batch(), noise(config))[0])
    states = [one]
    for _ in range(2):
        states.append(step(states[-1]))
    first, second, third = (state.params for state in states)
    jax.tree.map(np.testing.assert_array_equal, first["actor"], second["actor"])
    assert not np.allclose(
        second["actor"]["params"]["Dense_0"]["kernel"], third["actor"]["params"]["Dense_0"]["kernel"]
    )
    assert not np.allclose(
        first["critic"]["params"]["Dense_0"]["kernel"], second["critic"]["params"]["Dense_0"]["kernel"]
    )
    assert third["log_temperature"] == first["log_temperature"]


def test_layer_norm_is_in_the_critics_alone():
    config = dataclasses.replace(CONFIG, layer_norm=True)
    params = sac.init(config, ENV, rd.environment_reward(), jax.random.key(0)).params
    assert "LayerNorm_0" in params["critic"]["params"]
    assert "LayerNorm_0" not in params["actor"]["params"]


@pytest.mark.slow
def test_sac_finds_the_best_action_of_a_bandit():
    config = sac.Config(
        total_timesteps=5_000, num_steps=1, batch_size=64, hidden=(32, 32), gamma=0.9, learning_rate=1e-3
    )
    result = sac.train(config, Target(), rd.environment_reward(), jax.random.key(0))
    score = evaluate(sac.AGENT, config, Target(), result.state, jax.random.key(1))
    assert float(score["true_return"].mean()) > -0.02


def test_actions_stay_within_bounds_that_rounding_would_leave():
    space = spaces.Box(np.array([-1.3, -3.1], np.float32), np.array([0.7, 0.1], np.float32))
    nets = dataclasses.replace(sac._nets(CONFIG, ENV), space=space)
    extreme = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
    assert all(space.contains(np.asarray(action)) for action in nets.to_env(extreme))
    assert float(space.low[0] + np.float32(0.5) * 2 * (space.high[0] - space.low[0])) > space.high[0]


@pytest.mark.slow
def test_sac_swings_up_the_pendulum():
    config = sac.Config(
        total_timesteps=8_000, num_envs=4, num_steps=4, batch_size=128, hidden=(64, 64), learning_rate=1e-3
    )
    result = sac.train(config, task("pendulum"), rd.environment_reward(), jax.random.key(0))
    score = evaluate(sac.AGENT, config, task("pendulum"), result.state, jax.random.key(1))
    assert float(score["true_return"].mean()) > -250


@pytest.mark.slow
def test_sac_swings_up_the_pendulum_on_the_host():
    config = sac.Config(total_timesteps=8_000, num_steps=4, batch_size=128, hidden=(64, 64), learning_rate=1e-3)
    envs = task("gymnasium/Pendulum-v1").vector(4)
    result = sac.train_host(config, envs, rd.environment_reward(), jax.random.key(0), overlap=True)
    score = evaluate_host(sac.AGENT, config, envs, result.state, num_episodes=20)
    assert score["true_return"].mean() > -250
