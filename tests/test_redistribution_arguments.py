"""Redistribution refuses what cannot be meant, says what it will not learn from, and pays exact sums."""

import gymnasium
import jax
import numpy as np
import pytest

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper
from reward_design.agents import ppo
from reward_design.envs import task
from reward_design.redistribution import Fit, correct_return, delayed_reward, rrd, rudder, smoothed_ircr, spa


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"max_length": "100"}, TypeError, "max_length must be a whole number of at least 1, got '100'"),
        ({"max_length": 100.5}, TypeError, "max_length must be a whole number"),
        ({"max_length": 0}, ValueError, "max_length must be at least 1, got 0"),
        ({"hidden": (-3,)}, ValueError, "each width of hidden must be at least 1, got -3"),
        ({"hidden": 64}, TypeError, r"hidden must be a sequence of widths, such as \(64, 64\), got 64"),
        ({"hidden": (), "model": "gru"}, ValueError, "hidden must have at least 1 width"),
        ({"hidden": (7,), "model": "transformer"}, ValueError, "must be a multiple of its 4 heads, got 7"),
        ({"fit": {"batch_size": 4}}, TypeError, "fit must be a Fit or None"),
        ({"fit": Fit}, TypeError, "fit must be a Fit or None"),
        ({"fit": Fit(floor="a")}, TypeError, "floor must be a number, got 'a'"),  # type: ignore[arg-type]
        ({"alpha": "1"}, TypeError, "alpha must be a number, got '1'"),
        ({"alpha": float("nan")}, ValueError, "alpha must be finite, got nan"),
        ({"beta": "x"}, TypeError, "beta must be a number, got 'x'"),
        ({"features": "obs"}, TypeError, "features must be a function of a transition or None, got 'obs'"),
        ({"valid": "moved"}, ValueError, "valid must be 'change', 'mask', a function or None, got 'moved'"),
        ({"discount_compensation": 1.5}, ValueError, r"discount_compensation must be in \[0, 1\], got 1.5"),
        ({"discount_compensation": "a"}, TypeError, "discount_compensation must be a number in"),
    ],
)
def test_settings_of_spa(untyped, settings, error, words):
    with pytest.raises(error, match=words):
        spa(**{"max_length": 5, **settings})


def test_settings_of_other_methods(untyped):
    with pytest.raises(TypeError, match="num_steps must be a whole number of at least 1, got '4'"):
        rrd(max_length=5, num_steps="4")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="num_steps must be at least 2, got 1"):
        rrd(max_length=5, num_steps=1, unbiased=True)
    with pytest.raises(ValueError, match="width must be at least 1, got 0"):
        rudder(max_length=5, width=0)
    with pytest.raises(ValueError, match="prediction must be finite and at least 0, got -1"):
        rudder(max_length=5, prediction=-1)
    with pytest.raises(ValueError, match="min_episodes must be at most capacity = 256, got 500"):
        Fit(min_episodes=500)


@pytest.mark.parametrize("every", ["5", True, float("inf"), float("nan"), 2.5, 0])
def test_delayed_rewards_are_paid_every_whole_number_of_steps(untyped, every):
    with pytest.raises(ValueError, match="every must be a whole number of at least 1"):
        delayed_reward(task("pendulum"), every=every)


def test_delayed_rewards_are_those_of_tasks(untyped):
    with pytest.raises(TypeError, match=r"expects a task, got 'cartpole'; make one with task\('cartpole'\)"):
        delayed_reward("cartpole")  # type: ignore[arg-type]


@pytest.mark.parametrize("around", [lambda r: r, lambda r: rd.chain(rd.environment_reward(), r)])
def test_episodes_that_are_too_long_are_announced(around):
    config = ppo.Config(total_timesteps=128, num_envs=2, num_steps=64, hidden=(8,))
    reward = around(spa(max_length=50, hidden=(8,)))
    with pytest.warns(UserWarning, match="at most max_length = 50 steps, and those of 'pendulum' may have 200"):
        ppo.train(config, task("pendulum"), reward, jax.random.key(0))


def test_a_wrapper_says_that_it_teaches_nothing():
    reward = smoothed_ircr(max_length=500, num_steps=4)
    with pytest.warns(UserWarning, match="has to be learned, which no wrapper does.*params=result.state.reward_params"):
        env = RewardWrapper(gymnasium.make("CartPole-v1"), reward)
    params = env.reward_params
    RewardWrapper(gymnasium.make("CartPole-v1"), reward, params=params)  # no warning: those may be learned


@pytest.mark.parametrize("length", [1, 3, 1000, 5000])
@pytest.mark.parametrize("correction", ["equal", "last"])
def test_sums_are_exact_whatever_the_length(length, correction):
    rng = np.random.default_rng(0)
    contributions = rng.normal(10, 1, (length, 4)).astype(np.float32)
    mask = np.arange(length)[:, None] < np.array([length, max(1, length // 2), 1, 0])
    contributions[~mask] = np.nan
    returns = np.array([1, -2.5, 3, np.nan], np.float32)
    paid = np.asarray(correct_return(contributions, returns, mask, correction=correction), np.float64)
    np.testing.assert_allclose(paid.sum(axis=0), [1, -2.5, 3, 0], atol=2e-6 if correction == "equal" else 2e-3)
    assert not paid[~mask].any()
