"""Rewards around functional environments and on recorded data, against naive loops."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false
# pyright: reportGeneralTypeIssues=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_envs import record

import reward_design as rd
from reward_design.adapters.functional import RewardEnv, recorded, score
from reward_design.adapters.gymnasium import RewardWrapper
from reward_design.envs import task

LANES, STEPS, SEED, GAMMA = 3, 40, 5, 0.9


def shaping():
    return rd.potential_shaping(lambda obs: -jnp.abs(obs).sum(-1), gamma=GAMMA)


def rollout(env, params, state, key, num_steps=STEPS):
    """Scan of random actions; returns everything that ``step`` gave, and what it started from."""

    def body(state, key):
        action = jax.vmap(lambda k: jax.random.uniform(k, (1,), minval=-1.0, maxval=1.0))(jax.random.split(key, LANES))
        before = state.obs
        obs, state, reward, terminated, truncated, info = env.step(key, params, state, action)
        return state, (before, action, obs, reward, terminated, truncated, info)

    return jax.jit(lambda s: jax.lax.scan(body, s, jax.random.split(key, num_steps)))(state)


def short_pendulum(horizon=7):
    env = task("pendulum").env
    other = object.__new__(type(env))
    other.__dict__.update(env.__dict__)
    other.horizon = horizon
    return other


def test_equals_naive_loop_and_keeps_true_successors():
    env = RewardEnv(short_pendulum(), shaping(), num_envs=LANES)
    params, state = env.init(jax.random.key(0))
    _, (before, _, obs, reward, terminated, truncated, info) = rollout(env, params, state, jax.random.key(1))
    before, obs, final = np.asarray(before), np.asarray(obs), np.asarray(info["final_obs"])
    done = np.asarray(terminated | truncated)
    assert done.any()
    np.testing.assert_array_equal(obs[~done], final[~done])
    assert (obs[done] != final[done]).any(axis=-1).all()
    expected = np.zeros((STEPS, LANES))
    for t in range(STEPS):
        for lane in range(LANES):
            bootstrap = GAMMA * -np.abs(final[t, lane]).sum() * (not terminated[t, lane])
            expected[t, lane] = info["env_reward"][t, lane] + bootstrap + np.abs(before[t, lane]).sum()
    np.testing.assert_allclose(reward, expected, atol=1e-4)
    np.testing.assert_allclose(sum(info["reward_terms"].values()), reward, atol=1e-4)


@pytest.mark.parametrize(
    "make",
    [lambda: rd.normalise_by_return(gamma=GAMMA), rd.count_bonus, lambda: rd.delayed(rd.environment_reward())],
    ids=["return", "count", "delayed"],
)
def test_step_by_step_equals_score_of_the_recorded_rollout(make):
    reward = make()
    env = RewardEnv(short_pendulum(), reward, num_envs=LANES)
    params, state = env.init(jax.random.key(0))
    _, (before, action, _, paid, terminated, truncated, info) = rollout(env, params, state, jax.random.key(1))
    data = recorded(before, action, info["final_obs"], info["env_reward"], terminated, truncated)
    np.testing.assert_allclose(paid, score(reward, data, params=params).reward, atol=1e-4)


def test_equals_the_gymnasium_wrapper():
    """The functional environment and its gymnasium view, paid step by step for the same transitions."""
    reward = rd.chain(shaping(), rd.clip(-5.0, 5.0))
    view = RewardWrapper(task("pendulum").make(), reward)
    obs, _ = view.reset(seed=SEED)
    rows, paid = [], []
    for step in range(8):
        action = np.array([np.sin(step)], np.float32)
        next_obs, value, terminated, truncated, info = view.step(action)
        rows.append((obs, action, next_obs, info["env_reward"], terminated, truncated))
        paid.append(value)
        obs = next_obs
    columns = [np.array([row[i] for row in rows])[:, None] for i in range(6)]
    np.testing.assert_allclose(score(reward, recorded(*columns)).reward[:, 0], paid, atol=1e-5)


def test_reset_starts_episodes_and_keeps_running_state():
    env = RewardEnv(
        short_pendulum(100), rd.chain(rd.delayed(rd.environment_reward()), rd.count_bonus()), num_envs=LANES
    )
    params, state = env.init(jax.random.key(0))
    state, _ = rollout(env, params, state, jax.random.key(1), 5)
    _, again = env.reset(jax.random.key(2), state)
    assert any(np.any(leaf != 0) for leaf in jax.tree.leaves(state.reward.episode))
    jax.tree.map(np.testing.assert_array_equal, again.reward.episode, state.reward.fresh)
    jax.tree.map(np.testing.assert_array_equal, again.reward.running, state.reward.running)


def test_params_are_swept_and_differentiated():
    energy = rd.pointwise("energy", lambda p, t: t.reward - p["weight"] * (t.action**2).sum(-1), params={"weight": 0.5})
    env = RewardEnv(short_pendulum(), energy, num_envs=LANES)
    _, state = env.init(jax.random.key(0))
    action = jnp.full((LANES, 1), 2.0)

    def paid(weight):
        return env.step(jax.random.key(1), {"weight": weight}, state, action)[2].sum()

    sums = jax.vmap(paid)(jnp.array([0.0, 1.0]))
    np.testing.assert_allclose(sums[0] - sums[1], 4.0 * LANES, rtol=1e-4)
    np.testing.assert_allclose(jax.grad(paid)(0.5), -4.0 * LANES, rtol=1e-4)


def time_first(lanes):
    return np.array(lanes).swapaxes(0, 1)


def test_score_equals_naive_loop_for_dict_observations():
    lanes = record(LANES, 20, "dict", SEED)
    obs, action, next_obs, *ends = ([[row[i] for row in rows] for rows in lanes] for i in range(6))
    obs, next_obs = (
        {k: time_first([[o[k] for o in r] for r in x]) for k in ("position", "cell")} for x in (obs, next_obs)
    )
    data = recorded(obs, time_first(action), next_obs, *map(time_first, ends))
    reward = rd.potential_shaping(lambda obs: 0.1 * obs["cell"] - jnp.abs(obs["position"]).sum(-1), gamma=GAMMA)

    def phi(obs):
        return 0.1 * obs["cell"] - np.abs(obs["position"]).sum()

    expected = [[r[3] + GAMMA * phi(r[2]) * (not r[4]) - phi(r[0]) for r in rows] for rows in lanes]
    np.testing.assert_allclose(score(reward, data).reward.T, expected, atol=1e-5)


def test_score_serves_whole_episodes_and_padding():
    def unroll(params, state, t):
        return jnp.broadcast_to(t.reward.sum(0), t.reward.shape) / t.mask.sum(0, keepdims=True), state

    reward = rd.from_trajectory("even", lambda key, example: ((), ()), unroll)
    mask = np.array([[True, True], [True, True], [True, False]])
    zeros = np.zeros((3, 2))
    data = recorded(zeros, zeros, zeros, np.arange(6.0).reshape(3, 2), zeros > 1, mask=mask)
    np.testing.assert_allclose(score(reward, data).reward, [[2, 2], [2, 2], [2, 0]])


def test_terminated_wins_in_recorded_data():
    ones = np.ones((2, 1))
    assert not recorded(ones, ones, ones, ones, ones > 0, ones > 0).truncated.any()
    assert recorded(ones, ones, ones, ones, ones < 0, ones > 0).truncated.all()


def test_bad_input():
    zeros = np.zeros((3, 2))
    with pytest.raises(ValueError, match=r"reward must have shape \[T, B\], got \(3,\)"):
        recorded(zeros, zeros, zeros, zeros[:, 0], zeros > 1)
    with pytest.raises(ValueError, match=r"next_obs\['x'\] must start with the axes \[T, B\] = \(3, 2\) of reward"):
        recorded({"x": zeros}, zeros, {"x": zeros[:2]}, zeros, zeros > 1)
    data = recorded(zeros, zeros, zeros, zeros, zeros > 1)
    with pytest.raises(rd.NonFiniteRewardError, match=r"'zero_by_zero' must be finite, got nan from term .* at step 0"):
        score(rd.pointwise("zero_by_zero", lambda t: t.reward / t.reward), data)
    with pytest.raises(ValueError, match=r"trajectory must have leaves \[T, B\], got reward of shape \(2,\)"):
        score(rd.environment_reward(), jax.tree.map(lambda x: x[0], data))
    whole = rd.from_trajectory("spa", lambda key, example: ((), ()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match=r"'spa' needs whole episodes \(kind TRAJECTORY\); RewardEnv cannot serve it"):
        RewardEnv(short_pendulum(), whole, num_envs=2)
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        RewardEnv(short_pendulum(), rd.environment_reward(), num_envs=0)
