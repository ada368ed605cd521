"""MuJoCo on the device against gymnasium's environments, from the same states with the same actions."""

import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.agents import ppo
from reward_design.envs import mjx_tasks, task
from reward_design.envs.base import EnvState

pytest.importorskip("mujoco.mjx")

KEY = jax.random.key(0)


@pytest.mark.parametrize("name", ["InvertedPendulum", "Reacher", "HalfCheetah"])
def test_steps_equal_those_of_gymnasium(name, float64):
    """Observation, reward, end and info of 30 steps, the fall of the pole among them; and a fault of the simulator."""
    env = mjx_tasks.MjxEnv(name, horizon=None, gamma=0.99)
    there = gymnasium.make(f"{name}-v5").unwrapped
    there.reset(seed=1)
    state = EnvState(jax.jit(env.at)(there.data.qpos.copy(), there.data.qvel.copy()), jnp.int32(0))
    step, rng, ended = jax.jit(env.step), np.random.default_rng(0), False
    for _ in range(30):
        action = rng.uniform(there.action_space.low, there.action_space.high).astype(np.float32)
        obs, reward, terminated, _, info = there.step(action)
        found, state, paid, over, cut, told = step(KEY, state, action)
        np.testing.assert_allclose(found, obs, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(paid, float(reward), rtol=1e-4, atol=1e-5)
        assert bool(over) == terminated
        assert not cut
        assert set(told) == {*info, "simulator_fault"}
        for key, value in info.items():
            np.testing.assert_allclose(told[key], value, rtol=1e-4, atol=1e-5)
        ended |= terminated
    assert ended == (name == "InvertedPendulum")
    broken, _, reward, terminated, truncated, info = step(KEY, state, np.full_like(action, np.nan))
    np.testing.assert_array_equal(broken, found)
    assert (float(reward), bool(terminated), bool(truncated), bool(info["simulator_fault"])) == (0, False, True, True)
    assert not any(np.any(value) for key, value in info.items() if key != "simulator_fault")


def test_episodes_start_as_those_of_gymnasium_do():
    reset = {name: jax.vmap(task(f"mjx/{name}").env._reset) for name in ("HalfCheetah", "Hopper", "Reacher")}
    inner = {name: jax.jit(fn)(jax.random.split(KEY, 500))[1] for name, fn in reset.items()}
    start = gymnasium.make("HalfCheetah-v5").unwrapped.init_qpos
    away = np.asarray(inner["HalfCheetah"]["qpos"]) - start
    assert 0.09 < np.abs(away).max() <= 0.1 + 1e-6
    np.testing.assert_allclose(np.std(inner["HalfCheetah"]["qvel"], axis=0), 0.1, atol=0.02)
    speed = np.asarray(inner["Hopper"]["qvel"])
    assert 0.0045 < np.abs(speed).max() <= 0.005
    target, speed = (np.asarray(inner["Reacher"][name]) for name in ("qpos", "qvel"))
    radius = np.linalg.norm(target[:, 2:], axis=1)
    assert radius.max() <= 0.2
    np.testing.assert_allclose(np.mean(radius**2), 0.02, atol=0.002)  # uniform in the disc
    assert np.abs(speed[:, :2]).max() <= 0.005
    assert not speed[:, 2:].any()


@pytest.mark.slow
def test_agents_train_on_the_device():
    problem = task("mjx/InvertedPendulum")
    config = ppo.Config(total_timesteps=512, num_envs=8, num_steps=16, num_minibatches=2, hidden=(16,))
    metrics = ppo.train(config, problem, problem.true_reward, KEY).metrics
    assert np.isfinite(np.asarray(metrics["true_return"])[1:]).all()
    assert float(metrics["length"][-1]) > 2


def test_other_names_and_a_missing_extra_are_said(monkeypatch):
    with pytest.raises(ValueError, match=r"unknown MJX environment 'Ant'.*On the host there is 'mujoco/Ant'"):
        task("mjx/Ant")
    with pytest.raises(ValueError, match="did you mean 'Hopper'"):
        task("mjx/Hoper")
    monkeypatch.setitem(sys.modules, "mujoco.mjx", None)
    with pytest.raises(ImportError, match=r"need the extra 'mjx'"):
        mjx_tasks.MjxEnv("Hopper", horizon=None, gamma=0.99)
