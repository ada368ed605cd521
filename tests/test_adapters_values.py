"""Rewards and values that adapters would misread are refused in one sentence, and those beside them are paid right."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false

import math

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.vector import SyncVectorEnv

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper


class Line(gymnasium.Env):
    """Walks along the integers from ``start``, which it shows as ``dtype``, and pays ``reward``."""

    action_space = spaces.Discrete(2)

    def __init__(self, start=0, dtype=np.float32, reward=1.0):
        high = 2**62 if np.issubdtype(dtype, np.integer) else 1e6
        self.observation_space = spaces.Box(0, high, (1,), dtype)
        self.start, self.reward = start, reward

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.place = self.start
        return self._observed(), {}

    def step(self, action):
        self.place += 1
        return self._observed(), self.reward, False, False, {"place": self.place}

    def _observed(self):
        return np.array([self.place], self.observation_space.dtype)


def first_step(env):
    env.reset(seed=0)
    return env.step(0)


# --- rewards that read the batch wrongly ----------------------------------------------------------------------------


@pytest.mark.parametrize("num_envs", [1, 2, 4, 11])
def test_a_reward_that_takes_a_row_for_the_batch_is_refused_for_every_number_of_environments(num_envs):
    """CartPole observes four numbers, so that obs[0] has the right shape for four environments."""
    envs = SyncVectorEnv([lambda: gymnasium.make("CartPole-v1")] * num_envs)
    wrong = rd.potential_shaping(lambda obs: obs[0], gamma=1.0, add=False)
    with pytest.raises(ValueError, match=r"the potential must return shape \[B\] = \(\d+,\), got \(4,\)"):
        VectorRewardWrapper(envs, wrong)
    right = VectorRewardWrapper(envs, rd.potential_shaping(lambda obs: obs[..., 0], gamma=1.0, add=False))
    obs, _ = right.reset(seed=0)
    next_obs, paid, *_ = right.step(np.zeros(num_envs, int))
    np.testing.assert_allclose(paid, next_obs[:, 0] - obs[:, 0], atol=1e-6)


def test_the_other_number_of_rows_is_no_length_of_an_observation():
    """Eleven rows would fit here."""
    wrong = rd.pointwise("rowed", lambda t: t.obs["far"][0] if len(t.obs["near"]) != 4 else t.obs["near"][0])
    env = gymnasium.wrappers.TransformObservation(
        Line(),
        lambda obs: {"near": np.zeros(4, np.float32), "far": np.zeros(11, np.float32)},
        spaces.Dict(near=spaces.Box(-1, 1, (4,)), far=spaces.Box(-1, 1, (11,))),
    )
    text = r"'rowed' must take a batch of any number of rows.* it takes 4 and fails with 12: .*\(12,\), got \(11,\)"
    with pytest.raises(ValueError, match=text):
        VectorRewardWrapper(SyncVectorEnv([lambda: env] * 4), wrong)


def test_an_init_written_with_numpy_is_called_with_numbers():
    def init(key, example):
        return (), rd.State(episode=jnp.asarray(np.asarray(example.obs)[:, 0]))

    def step(params, state, t):
        return t.obs[:, 0] - state.episode, state

    env = RewardWrapper(Line(start=5), rd.from_step("numpy", init, step))
    assert first_step(env)[1] == 5


@pytest.mark.parametrize(
    "fn",
    [
        lambda t: np.sin(t.obs[:, 0]),
        lambda t: t.reward * math.sin(t.obs[0, 0]),
        lambda t: t.reward if t.obs[0, 0] > 0 else -t.reward,
        lambda t: t.reward * float(t.obs[0, 0]),
        lambda t: t.reward * int(t.obs[0, 0]),
        lambda t: t.obs[t.obs > 0],
    ],
    ids=["numpy", "math", "if", "float", "int", "selection"],
)
def test_a_reward_that_is_not_written_with_jax_says_so(fn):
    text = r"reward 'mine' must be written with jax.numpy \(jnp.sin in place of np.sin and math.sin, jnp.where in place"
    with pytest.raises(TypeError, match=text) as caught:
        RewardWrapper(Line(), rd.pointwise("mine", fn))
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is not None  # whose traceback leads to the line


# --- what environments pay and show ---------------------------------------------------------------------------------


@pytest.mark.parametrize("paid", [np.array([2.0]), [2.0], np.array([[2]]), np.float32(2), 2], ids=str)
def test_an_array_of_one_number_is_a_reward(paid):
    _, reward, _, _, info = first_step(RewardWrapper(Line(reward=paid), rd.scale(3.0)))
    assert (reward, info["env_reward"]) == (6.0, 2.0)


@pytest.mark.parametrize("paid", [np.array([1.0, 2.0]), [], None, "a"], ids=str)
def test_anything_else_is_none_and_leaves_the_state_as_it_was(paid):
    env = RewardWrapper(Line(reward=paid), rd.normalise_by_return(gamma=0.9))
    env.reset(seed=0)
    before = env.reward_state
    with pytest.raises(ValueError, match="the environment's reward must be one number, got "):
        env.step(0)
    jax.tree.map(np.testing.assert_array_equal, env.reward_state, before)


def moved():
    return rd.pointwise("moved", lambda t: (t.next_obs - t.obs)[:, 0].astype(float))


@pytest.mark.parametrize(("dtype", "last"), [(np.int64, 2**31 - 1), (np.uint64, 2**32 - 1)], ids=["int64", "uint64"])
def test_integers_that_need_more_than_32_bits_are_refused(dtype, last):
    env = RewardWrapper(Line(start=last - 1, dtype=dtype), moved())
    assert first_step(env)[1] in (0.0, 1.0, 256.0)  # as far as float32 tells
    with pytest.raises(
        ValueError, match=rf"the observation has the integer {last + 1}, more than the 32 bits that JAX"
    ):
        env.step(0)


def test_integers_of_info_that_need_more_than_32_bits_are_refused():
    reward = rd.pointwise("place", lambda t: t.info["place"].astype(float))
    assert first_step(RewardWrapper(Line(start=1000), reward, info_keys=("place",)))[1] == 1001
    with pytest.raises(ValueError, match=rf"info\['place'\] has the integer {2**40 + 1}, more than the 32 bits"):
        first_step(RewardWrapper(Line(start=2**40), reward, info_keys=("place",)))


def test_with_64_bits_large_integers_are_paid(float64):
    assert first_step(RewardWrapper(Line(start=2**40, dtype=np.int64), moved()))[1] == 1.0
    reward = rd.pointwise("place", lambda t: t.info["place"].astype(float))
    assert first_step(RewardWrapper(Line(start=2**40), reward, info_keys=("place",)))[1] == 2**40 + 1
