import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from reward_design.core import Transition
from reward_design.envs.acrobot import acrobot
from reward_design.envs.acrobot import energy as acrobot_energy
from reward_design.envs.cartpole import cartpole, controller
from reward_design.envs.mountain_car import mountain_car
from reward_design.envs.pendulum import energy as pendulum_energy
from reward_design.envs.pendulum import pendulum

IDS = {
    "mountain_car": (mountain_car, "MountainCar-v0"),
    "cartpole": (cartpole, "CartPole-v1"),
    "acrobot": (acrobot, "Acrobot-v1"),
    "pendulum": (pendulum, "Pendulum-v1"),
}
TASKS = {name: build() for name, (build, _) in IDS.items()}


# --- against gymnasium ------------------------------------------------------------------------------------------------


def gymnasium_episode(name, seed, act):
    """One episode of the reference: float64 states before each step, actions and what the steps returned."""
    env = gymnasium.make(IDS[name][1])
    obs, _ = env.reset(seed=seed)
    rng = np.random.default_rng(seed)
    rows, done = [], False
    while not done:
        state = np.array(env.unwrapped.state, np.float64)
        action = act(name, obs, rng)
        obs, reward, terminated, truncated, _ = env.step(action)
        rows.append((state, action, obs, float(reward), terminated, truncated))
        done = terminated or truncated
    return [np.stack(column) for column in zip(*rows, strict=True)]


def random_action(name, obs, rng):
    if name == "pendulum":
        return rng.uniform(-2.5, 2.5, 1).astype(np.float32)
    return int(rng.integers(TASKS[name].env.action_space.n))


def skilled_action(name, obs, rng):
    """Reaches the ends that random actions do not: the flag, the time limit of the pole, high energies."""
    if name == "mountain_car":
        return 2 if obs[1] >= 0 else 0
    if name == "cartpole":
        return int(controller(obs))
    if name == "acrobot":
        return 2 if obs[5] >= 0 else 0
    return np.array([2.0 if obs[2] >= 0 else -2.0], np.float32)


def own_episode(env, states, actions, *, resync=False):
    """Whole episode of ours from ``states[0]``; with ``resync`` every step starts from the reference's state."""

    def body(state, row):
        state = state._replace(inner=row[0]) if resync else state
        obs, state, reward, terminated, truncated, _ = env.step(jax.random.key(0), state, row[1])
        return state, (obs, reward, terminated, truncated)

    _, start = env.reset(jax.random.key(0))
    start = start._replace(inner=states[0])
    return jax.jit(lambda *rows: jax.lax.scan(body, start, rows)[1])(states, actions)


@pytest.mark.parametrize("act", [random_action, skilled_action])
@pytest.mark.parametrize("name", IDS)
def test_whole_episodes_equal_gymnasium(name, act):
    """The balanced pole is unstable: without ``resync`` one rounding error grows by e^40 in 500 steps."""
    resync = name == "cartpole" and act is skilled_action
    for seed in (1, 2):
        states, actions, obs, rewards, terminated, truncated = gymnasium_episode(name, seed, act)
        with jax.enable_x64(True):
            ours = own_episode(TASKS[name].env, jnp.asarray(states), jnp.asarray(actions), resync=resync)
        np.testing.assert_allclose(ours[0], obs, atol=2e-6, rtol=2e-6)
        np.testing.assert_allclose(ours[1], rewards, atol=1e-5, rtol=1e-6)
        np.testing.assert_array_equal(ours[2], terminated)
        np.testing.assert_array_equal(ours[3], truncated & ~terminated)


@pytest.mark.parametrize("name", IDS)
def test_every_step_equals_gymnasium_in_single_precision(name):
    env = TASKS[name].env
    states, actions, obs, rewards, terminated, _ = gymnasium_episode(name, 3, skilled_action)

    def one(state, action):
        _, start = env.reset(jax.random.key(0))
        return env.step(jax.random.key(0), start._replace(inner=state), action)

    ours = jax.jit(jax.vmap(one))(jnp.asarray(states, jnp.float32), jnp.asarray(actions))
    assert ours[0].dtype == ours[2].dtype == jnp.float32
    np.testing.assert_allclose(ours[0], obs, atol=3e-5, rtol=1e-5)
    np.testing.assert_allclose(ours[2], rewards, atol=1e-4, rtol=1e-5)
    np.testing.assert_array_equal(ours[3], terminated)


@pytest.mark.parametrize("name", IDS)
def test_comparison_with_gymnasium_notices_a_small_difference(name):
    states, actions, obs, *_ = gymnasium_episode(name, 1, skilled_action)
    with jax.enable_x64(True):
        ours = own_episode(TASKS[name].env, jnp.asarray(states) + 1e-4, jnp.asarray(actions), resync=True)
    assert np.abs(np.asarray(ours[0]) - obs).max() > 5e-5


@pytest.mark.parametrize("name", IDS)
def test_spaces_and_limits_equal_gymnasium(name):
    env, reference = TASKS[name].env, gymnasium.make(IDS[name][1])
    assert env.observation_space == reference.observation_space
    assert env.action_space == reference.action_space
    assert env.horizon == reference.spec.max_episode_steps


@pytest.mark.parametrize("name", IDS)
def test_start_distribution_equals_gymnasium(name):
    env, reference = TASKS[name].env, gymnasium.make(IDS[name][1])
    reference.reset(seed=0)
    theirs = np.stack([(reference.reset(), np.array(reference.unwrapped.state))[1] for _ in range(2000)])
    obs, state = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 2000))
    ours = np.asarray(state.inner)
    assert ours.dtype == np.float32
    assert obs.dtype == jnp.float32
    for mine, other in zip(ours.T, theirs.T, strict=True):
        assert stats.ks_2samp(mine, other).pvalue > 1e-3
        if other.std() > 0:
            assert stats.ks_2samp(1.1 * (mine - mine.mean()) + mine.mean() + 0.2 * mine.std(), other).pvalue < 1e-3
    assert all(env.observation_space.contains(row) for row in np.asarray(obs[:50]))


# --- rewards, factors, potentials -------------------------------------------------------------------------------------


def trajectory(task, policy, num_envs=4, steps=None, key=0):
    """``[T, B]`` transitions of independent episodes; rows after the end are masked."""
    env = task.env
    keys = jax.random.split(jax.random.key(key), num_envs)

    def body(carry, key):
        obs, state, alive = carry
        action = policy(obs, key)
        next_obs, state, reward, terminated, truncated, info = env.step(key, state, action)
        row = Transition(obs, action, next_obs, reward, terminated, truncated, alive, info)
        return (next_obs, state, alive & ~(terminated | truncated)), row

    def episode(key):
        obs, state = env.reset(key)
        rows = jax.random.split(key, steps or env.horizon)
        return jax.lax.scan(body, (obs, state, jnp.bool_(True)), rows)[1]

    return jax.jit(jax.vmap(episode, out_axes=1))(keys)


def random_policy(task):
    if task.name == "pendulum":
        return lambda obs, key: jax.random.uniform(key, (1,), minval=-2.0, maxval=2.0)
    return lambda obs, key: jax.random.randint(key, (), 0, task.env.action_space.n)


@functools.cache
def random_rows(name):
    return trajectory(TASKS[name], random_policy(TASKS[name]), num_envs=8, steps=200)


def all_rewards(task):
    return [task.true_reward, task.sparse_reward, task.dense_reward, *task.auxiliary.values()]


def returns(reward, rows, gamma=1.0):
    """Discounted return of each lane under ``reward``."""
    params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], rows))
    output, _ = jax.jit(reward.unroll)(params, state, rows)
    return np.asarray((gamma ** np.arange(len(output.reward))[:, None] * output.reward).sum(0))


@pytest.mark.parametrize("name", IDS)
def test_parts_accept_any_leading_axes(name):
    task = TASKS[name]
    rows = random_rows(name)
    flat = jax.tree.map(lambda x: x.reshape(1600, *x.shape[2:]), rows)
    fns = [factor.fn for factor in task.factors.values()] + [task.success, lambda t: task.potential(t.obs)]
    evaluate = jax.jit(lambda t: [fn(t) for fn in fns])
    few = jax.tree.map(lambda x: np.asarray(x[:8]), flat)
    for fn, whole, folded in zip(fns, evaluate(rows), evaluate(flat)):
        assert whole.shape == (200, 8)
        np.testing.assert_allclose(np.ravel(whole), folded, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(fn(few), folded[:8], rtol=1e-5, atol=1e-6)
    for factor in task.factors.values():
        assert jnp.issubdtype(jax.eval_shape(factor.fn, flat).dtype, jnp.floating)
        assert factor.sign in (-1, 1)
    assert len(task.factors) >= 3


@pytest.mark.parametrize("name", IDS)
def test_terms_sum_to_the_reward_and_weights_are_params(name):
    task = TASKS[name]
    rows = random_rows(name)
    for reward in all_rewards(task):
        params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], rows))
        unroll = jax.jit(reward.unroll)
        output, _ = unroll(params, state, rows)
        np.testing.assert_allclose(sum(output.terms.values()), output.reward, atol=1e-5)
        if reward is task.true_reward:
            np.testing.assert_array_equal(output.reward, jnp.where(rows.mask, rows.reward, 0.0))
            continue
        double, _ = unroll(jax.tree.map(lambda x: 2 * x, params), state, rows)
        np.testing.assert_allclose(double.reward, 2 * output.reward, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", IDS)
def test_potential_lies_in_the_unit_interval_and_varies(name):
    task = TASKS[name]
    values = task.potential(random_rows(name).next_obs)
    assert values.min() >= 0
    assert values.max() <= 1
    assert values.std() > 0.01


def test_energy_is_conserved_without_torque():
    """Closed form: with no torque the energy that potentials and factors use stays (nearly) constant."""
    state = jnp.array([1.0, -0.5, 0.3, 0.2])
    energies = []
    for _ in range(20):
        obs, new, *_ = TASKS["acrobot"].env.step(jax.random.key(0), _state(state), jnp.int32(1))
        state, energies = new.inner, [*energies, float(acrobot_energy(obs))]
    assert np.ptp(energies) < 0.05 * np.mean(energies)
    pushed = TASKS["acrobot"].env.step(jax.random.key(0), _state(state), jnp.int32(2))[0]
    assert abs(float(acrobot_energy(pushed)) - energies[-1]) > 5e-3
    assert float(pendulum_energy(jnp.array([1.0, 0.0, 0.0]))) == 5.0
    assert float(pendulum_energy(jnp.array([-1.0, 0.0, 0.0]))) == -5.0
    assert float(TASKS["pendulum"].potential(jnp.array([1.0, 0.0, 0.0]))) == 1.0


def _state(inner):
    from reward_design.envs.base import EnvState

    return EnvState(inner, jnp.int32(0))


# --- what the policies that the auxiliary rewards suggest are worth ---------------------------------------------------

POLICIES = {
    "mountain_car": (
        lambda obs, key: jnp.where(obs[1] >= 0, 2, 0),
        lambda obs, key: jnp.int32(2),  # leans against the slope
    ),
    "cartpole": (
        lambda obs, key: controller(obs).astype(int),
        lambda obs, key: 1 - controller(obs).astype(int),
    ),
    "acrobot": (
        lambda obs, key: jnp.where(obs[5] >= 0, 2, 0),
        lambda obs, key: jnp.int32(1),  # hangs
    ),
    "pendulum": (
        lambda obs, key: _swing_up(obs),
        lambda obs, key: jnp.where(obs[2] >= 0, 2.0, -2.0)[None],
    ),
}


def _swing_up(obs):
    near = obs[0] > 0.9
    hold = -10.0 * jnp.arctan2(obs[1], obs[0]) - 2.0 * obs[2]
    pump = jnp.where(obs[2] >= 0, 2.0, -2.0) * jnp.where(pendulum_energy(obs) < 5.0, 1.0, -1.0)
    return jnp.clip(jnp.where(near, hold, pump), -2.0, 2.0)[None]


@pytest.mark.parametrize("name", IDS)
def test_good_policy_succeeds_and_the_misaligned_one_does_not(name):
    task, (good, bad) = TASKS[name], POLICIES[name]
    rows = {"good": trajectory(task, good), "bad": trajectory(task, bad), "random": random_rows(name)}
    wins = {key: (task.success(r) & r.mask).any(0).mean() for key, r in rows.items()}
    assert wins["good"] == 1
    assert wins["bad"] == 0

    def worth(reward):
        return {key: returns(reward, r, task.gamma).mean() for key, r in rows.items()}

    true, sparse, dense = worth(task.true_reward), worth(task.sparse_reward), worth(task.dense_reward)
    assert true["good"] > max(true["bad"], true["random"]) + 1
    assert sparse["good"] > max(sparse["bad"], sparse["random"])
    assert dense["good"] > max(dense["bad"], dense["random"])
    aligned, misaligned = worth(task.auxiliary["aligned"]), worth(task.auxiliary["misaligned"])
    assert true["good"] + aligned["good"] > max(true["bad"] + aligned["bad"], true["random"] + aligned["random"])
    assert true["bad"] + misaligned["bad"] > true["good"] + misaligned["good"]


# --- settings ---------------------------------------------------------------------------------------------------------


def test_mountain_car_can_pay_at_the_goal_only():
    task = mountain_car(reward="sparse", horizon=300)
    rows = trajectory(task, POLICIES["mountain_car"][0])
    np.testing.assert_array_equal(returns(task.true_reward, rows), 1.0)
    np.testing.assert_array_equal(returns(task.sparse_reward, rows), 1.0)
    assert (returns(mountain_car().true_reward, trajectory(mountain_car(), POLICIES["mountain_car"][0])) < -80).all()


@pytest.mark.parametrize("name", IDS)
def test_time_limit_setting(name):
    task = IDS[name][0](horizon=5, gamma=0.9)
    rows = trajectory(task, random_policy(task))
    np.testing.assert_array_equal(rows.truncated[:, 0], [False, False, False, False, True])
    assert task.gamma == 0.9
    assert not rows.terminated.any()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "cartpole: horizon must be a positive integer, got 0."),
        ({"gamma": 1.5}, "cartpole: gamma must be in \\[0, 1\\], got 1.5."),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        cartpole(**settings)


def test_unknown_reward_setting():
    with pytest.raises(ValueError, match="reward must be 'gymnasium' or 'sparse', got 'dense'"):
        mountain_car(reward="dense")


def test_rewards_for_speed_are_worth_most_without_arriving():
    """Swinging with the energy that fits below the flag; pumping, braking above 18 J below the line."""
    swing = lambda obs, key: (  # noqa: E731
        jnp.where(TASKS["mountain_car"].potential(obs) < 0.85, 1, -1) * jnp.where(obs[1] > 0, 1, -1) + 1
    )
    spin = lambda obs, key: jnp.where(acrobot_energy(obs) < 18.0, 1, -1) * jnp.where(obs[5] > 0, 1, -1) + 1  # noqa: E731
    for name, extra, loiter in (("mountain_car", "speed", swing), ("acrobot", "elbow_spin", spin)):
        task = TASKS[name]
        values = []
        for policy in (loiter, POLICIES[name][0]):
            rows = trajectory(task, policy)
            reward = returns(task.true_reward, rows, task.gamma) + returns(task.auxiliary[extra], rows, task.gamma)
            values.append((reward.mean(), bool((task.success(rows) & rows.mask).any())))
        assert values[0][0] > values[1][0] + 1
        assert [reached for _, reached in values] == [False, True]
