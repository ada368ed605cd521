"""Agents refuse settings and arguments that cannot be meant, in one sentence and before anything runs."""

from dataclasses import replace

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces

import reward_design as rd
from reward_design.agents import dqn, ppo, q_learning, reinforce, sac
from reward_design.agents.action_spaces import bounded_box, discrete_or_box
from reward_design.agents.host import train_host
from reward_design.agents.settings import RANGES, Interval
from reward_design.bilevel import BarfiConfig
from reward_design.envs import task
from reward_design.redistribution import Fit

CONFIGS = (ppo.Config, dqn.Config, sac.Config, reinforce.Config, q_learning.Config, BarfiConfig, Fit)
SMALL = ppo.Config(total_timesteps=64, num_envs=2, num_steps=8, hidden=(8,))
ENVIRONMENT = rd.environment_reward()
KEY = jax.random.key(0)


def float_settings():
    return [(c, f) for c in CONFIGS for f in c.__dataclass_fields__ if c.__dataclass_fields__[f].type is float]


@pytest.mark.parametrize(("config", "name"), float_settings(), ids=lambda x: getattr(x, "__module__", x))
def test_a_number_outside_of_its_range_is_named(config, name):
    interval = RANGES.get(name, Interval())
    wrong = [float("nan"), *([] if interval.infinite else [float("inf")])]
    wrong += [x for x in (interval.low - 0.5, interval.high + 0.5) if np.isfinite(x)]
    wrong += [interval.low] if interval.strictly else []
    for value in wrong:
        with pytest.raises(ValueError, match=f"^{name} must be .*got {value}"):
            config(**{name: float(value)})


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"total_timesteps": 1e6}, "total_timesteps must be a whole number, got 1000000.0; write 1_000_000."),
        ({"total_timesteps": "2048"}, "total_timesteps must be a whole number, got '2048'."),
        ({"num_envs": 2.5}, "num_envs must be a whole number, got 2.5."),
        ({"num_epochs": True}, "num_epochs must be a whole number, got True."),
        ({"hidden": [8]}, r"hidden must be a tuple of widths, such as \(64, 64\) or \(64,\), got \[8\]."),
        ({"hidden": 8}, "hidden must be a tuple of widths"),
        ({"hidden": (8.5,)}, "each width of hidden must be a whole number of at least 1, got 8.5"),
        ({"normalise_obs": "no"}, "normalise_obs must be True or False, got 'no'."),
    ],
)
def test_a_setting_of_another_type_is_named(settings, words):
    with pytest.raises(TypeError, match=words):
        ppo.Config(**settings)


def test_widths_and_periods():
    with pytest.raises(ValueError, match="each width of hidden must be at least 1, got 0"):
        ppo.Config(hidden=(0,))
    with pytest.raises(TypeError, match="target_period must be a whole number, got 1"):
        dqn.Config(target_period=1.5)  # type: ignore[arg-type]
    assert ppo.Config(hidden=()).hidden == ()
    assert dqn.Config(target_period=None).target_period is None
    assert ppo.Config(num_envs=np.int64(4)).num_envs == 4  # type: ignore[arg-type]


@pytest.mark.parametrize("value", [float("nan"), None, "none"])
def test_the_target_entropy_is_a_number(value):
    with pytest.raises(ValueError, match="target_entropy must be 'auto' or a finite number"):
        sac.Config(target_entropy=value)


def test_nothing_would_be_learned_in_whole_iterations():
    with pytest.raises(ValueError, match="at most 64, what whole iterations have of it, got 90"):
        dqn.Config(total_timesteps=100, num_envs=8, num_steps=8, learning_starts=90)


def test_jax_may_put_anything_in_place_of_a_leaf():
    assert jax.tree.map(lambda _: None, SMALL).gamma is None
    assert jax.tree.map(lambda _: 0, SMALL).clip_ratio == 0
    rates = jnp.array([1e-3, 1e-2])

    def run(rate):
        return ppo.train(replace(SMALL, learning_rate=rate), task("chain"), ENVIRONMENT, KEY).metrics["true_return"]

    assert jax.vmap(run)(rates).shape == (2, 4)


@pytest.mark.parametrize(
    ("value", "error", "words"),
    [
        (None, TypeError, "learning_rate must be a number, got None."),
        ("3e-4", TypeError, "learning_rate must be a number, got '3e-4'."),
        (-1, ValueError, "learning_rate must be a number of at least 0, got -1."),
        (np.array([1e-3, -1e-3]), ValueError, "learning_rate must be a number of at least 0"),
    ],
)
def test_what_stands_in_a_leaf_when_training_begins_is_checked(value, error, words):
    with pytest.raises(error, match=words):
        ppo.train(replace(SMALL, learning_rate=value), task("chain"), ENVIRONMENT, KEY)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((dqn.Config(), task("chain"), ENVIRONMENT, KEY), "agent 'ppo' needs a ppo.Config, got .*dqn.Config"),
        (({"gamma": 0.9}, task("chain"), ENVIRONMENT, KEY), "agent 'ppo' needs a ppo.Config, got builtins.dict"),
        ((SMALL, "chain", ENVIRONMENT, KEY), r"got 'chain'; make one with task\('chain'\)"),
        ((SMALL, task("chain"), "dense", KEY), "expected a reward_design.Reward, got 'dense'; only the command line"),
        ((SMALL, task("chain"), lambda t: t.reward, KEY), "expected a reward_design.Reward, got <function"),
        ((SMALL, task("chain"), ENVIRONMENT, 3), r"expected a random key of JAX, got 3; write jax.random.key\(3\)"),
    ],
)
def test_arguments_that_cannot_be_meant(untyped, arguments, words):
    with pytest.raises(TypeError, match=words):
        ppo.train(*arguments)


def test_environments_of_the_host_and_of_the_device(untyped):
    envs = gymnasium.make_vec("CartPole-v1", num_envs=2)
    with pytest.raises(TypeError, match="CartPoleVectorEnv is stepped on the host; train on it with train_host"):
        ppo.train(SMALL, envs, ENVIRONMENT, KEY)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"got Task; make one with task.vector\(2\)"):
        train_host(ppo.AGENT, SMALL, task("gymnasium/CartPole-v1"), ENVIRONMENT, KEY)
    with pytest.raises(TypeError, match=r"got 0; write jax.random.key\(0\)"):
        train_host(ppo.AGENT, SMALL, envs, ENVIRONMENT, 0)
    envs.close()


@pytest.mark.parametrize(
    "space",
    [
        spaces.Box(np.array([-1, 0], np.float32), np.array([1, 0], np.float32)),
        spaces.Box(-np.finfo(np.float32).max, np.finfo(np.float32).max, (2,)),
    ],
)
def test_bounds_by_which_nothing_can_be_scaled(space):
    with pytest.raises(TypeError, match="sac scales actions by high - low, which must be above 0 and fit a float32"):
        bounded_box(space, "sac")
    assert discrete_or_box(space, "ppo") is space


def test_no_actions_at_all():
    for check in (bounded_box, discrete_or_box):
        with pytest.raises(TypeError, match="needs at least one action"):
            check(spaces.Box(-1, 1, (0,)), "sac")


def test_a_reward_written_with_numpy_is_told_how_to_write_it():
    reward = rd.pointwise("curved", lambda t: np.sin(t.next_obs[..., 0]))
    config = ppo.Config(total_timesteps=64, num_envs=2, num_steps=8, num_minibatches=2, hidden=(8,))
    with pytest.raises(TypeError, match=r"reward 'curved' must be written with jax.numpy \(jnp.sin in place of np.sin"):
        ppo.train(config, task("cartpole"), reward, jax.random.key(0))
