"""What is said when a gymnasium adapter is used wrongly."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false
# pyright: reportGeneralTypeIssues=false

import copy

import gymnasium
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from adapter_envs import Walk
from adapter_oracle import LANES, built, drive_vector, walk_to_the_end
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper


@pytest.fixture
def untyped():
    """As without the type-checking import hook, which has its own words for a wrong argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def test_trajectory_reward_is_refused():
    whole = rd.from_trajectory("spa", lambda key, example: ((), ()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match=r"'spa' needs whole episodes \(kind TRAJECTORY\); a step-by-step wrapper"):
        RewardWrapper(Walk(), whole)
    with pytest.raises(TypeError, match="wrap it in delayed"):
        VectorRewardWrapper(SyncVectorEnv([Walk]), whole)


def test_wrong_kind_of_environment(untyped):
    envs = SyncVectorEnv([Walk])
    with pytest.raises(TypeError, match=r"expects a single gymnasium.Env, got the vector .*use VectorRewardWrapper"):
        RewardWrapper(envs, rd.environment_reward())
    with pytest.raises(TypeError, match=r"expects a gymnasium VectorEnv, got Walk.*use RewardWrapper"):
        VectorRewardWrapper(Walk(), rd.environment_reward())
    with pytest.raises(TypeError, match="expected a Reward, got function"):
        RewardWrapper(Walk(), lambda t: t.reward)
    for wrapper, make in ((RewardWrapper, "make"), (VectorRewardWrapper, "make_vec")):
        with pytest.raises(TypeError, match=rf"got str; make it first: gymnasium\.{make}\('CartPole-v1'\)\."):
            wrapper("CartPole-v1", rd.environment_reward())
        with pytest.raises(TypeError, match="got Reward; the environment comes first, then the reward"):
            wrapper(rd.environment_reward(), Walk())


def test_an_observation_of_another_shape_than_its_space_is_named():
    env = RewardWrapper(Cropped(), rd.pointwise("own", lambda p, t: t.reward))
    with pytest.raises(ValueError, match=r"has the shape \(4,\), but this observation has \(3,\); correct the space"):
        env.reset(seed=0)


@pytest.mark.parametrize("actions", [np.array([1]), np.array([1, 0]), 1], ids=["one", "two", "scalar"])
def test_a_wrong_number_of_actions_is_refused(actions):
    envs = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * 3)
    envs = VectorRewardWrapper(envs, rd.environment_reward())
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"expected one action for each environment \(num_envs = 3\), got [12]\."):
        envs.step(actions)
    with pytest.raises(ValueError, match=r"action space has the shape \(\), but this action has \(3, 1\); give one"):
        envs.step(np.zeros((3, 1), int))
    assert envs.step(np.array([1, 0, 1]))[1].tolist() == [1, 1, 1]


class Cropped(gymnasium.Wrapper):
    """CartPole that leaves out a number of its observations, and says so nowhere."""

    def __init__(self):
        super().__init__(gymnasium.make("CartPole-v1", disable_env_checker=True))

    def reset(self, **settings):
        obs, info = self.env.reset(**settings)
        return obs[:3], info


def test_an_action_of_another_shape_than_its_space_is_named():
    env = RewardWrapper(gymnasium.make("Pendulum-v1"), rd.pointwise("own", lambda p, t: t.reward))
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"action space has the shape \(1,\), but this action has \(2,\); give"):
        env.step(np.zeros(2, np.float32))


def test_wrong_shape_is_found_at_construction():
    with pytest.raises(ValueError, match=r"must have shape \[B\] = \(1,\), got \(1, 2\)"):
        RewardWrapper(Walk(), rd.pointwise("wide", lambda t: t.obs))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_non_finite_reward_is_named(value):
    bad = rd.pointwise("speedy", lambda t: jnp.where(t.action[:, 0] > 0.5, value, 0.0))
    reward = rd.chain(rd.environment_reward(), rd.weighted_sum(task=rd.environment_reward(), fast=bad))
    env = RewardWrapper(Walk(), reward)
    env.reset(seed=0)
    env.step(np.zeros(2, np.float32))
    text = rf"'chain' must be finite, got {value} from term 'fast' at step 1 of environment 0"
    with pytest.raises(rd.NonFiniteRewardError, match=text):
        env.step(np.ones(2, np.float32))
    envs = VectorRewardWrapper(SyncVectorEnv([Walk] * LANES), reward)
    envs.reset(seed=0)
    with pytest.raises(rd.NonFiniteRewardError, match="term 'fast' at step 0 of environment 2"):
        envs.step(np.array([[0, 0], [0, 0], [1, 1]], np.float32))


def test_step_before_reset():
    env = RewardWrapper(Walk(), rd.environment_reward())
    with pytest.raises(gymnasium.error.ResetNeeded, match="call reset before step"):
        env.step(np.zeros(2, np.float32))


def test_autoreset_mode_must_be_known():
    class Silent(gymnasium.vector.VectorEnv):
        num_envs = 2

    with pytest.raises(ValueError, match="must state its autoreset mode"):
        VectorRewardWrapper(Silent(), rd.environment_reward())


def test_lost_final_observation():
    class Forgetful(gymnasium.vector.VectorWrapper):
        def step(self, actions):
            *outcome, infos = self.env.step(actions)
            infos.pop("final_obs", None)
            return *outcome, infos

    envs = Forgetful(SyncVectorEnv([Walk] * LANES, autoreset_mode=AutoresetMode.SAME_STEP))
    envs = VectorRewardWrapper(envs, rd.environment_reward())
    envs.reset(seed=0)
    with pytest.raises(ValueError, match=r"needs info\['final_obs'\] of lanes that ended"):
        walk_to_the_end(envs)


def test_reused_buffers_are_suspected_where_they_do_harm():
    mode = AutoresetMode.SAME_STEP
    envs = VectorRewardWrapper(SyncVectorEnv([Walk] * LANES, autoreset_mode=mode), rd.environment_reward())
    envs.reset(seed=0)
    with pytest.warns(UserWarning, match="wrap each environment in gymnasium.wrappers.TransformObservation"):
        walk_to_the_end(envs)
    copied = [lambda: gymnasium.wrappers.TransformObservation(Walk(), copy.deepcopy, None)] * LANES
    reward, expected, *_ = built("shaping")
    paid, _ = drive_vector(VectorRewardWrapper(SyncVectorEnv(copied, autoreset_mode=mode), reward), mode)
    np.testing.assert_allclose(paid, expected, atol=1e-5)
