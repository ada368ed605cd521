"""Environments of each family pass the checkers of gymnasium and stable-baselines3, alone and in the reward wrapper."""

# pyright: reportArgumentType=false

import copy
import functools
import pickle

import gymnasium
import jax
import numpy as np
import pytest
from adapter_envs import Walk
from gymnasium.utils.env_checker import check_env

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper
from reward_design.envs import task
from reward_design.envs.process_vector import ProcessVectorEnv
from reward_design.envs.serial_vector import SerialVectorEnv

EXTRAS = {"mujoco": "mujoco", "robotics": "gymnasium_robotics", "minigrid": "minigrid", "minihack": "minihack"}
FAMILIES = [
    "cartpole",
    "mujoco/HalfCheetah",
    "mujoco/Reacher-sparse",
    "mujoco/Hopper-episodic",
    "robotics/FetchReach",
    "robotics/PointMaze_UMaze",
    "minigrid/BabyAI-GoToObj-v0",
    "minihack/Room-5x5",
]
ADVICE = [
    "ignore:.*different from the unwrapped version",
    "ignore:.*Box (observation space|action space)",
    "ignore:.*symmetric and normalized",
    "ignore:.*unconventional shape",
    "ignore:.*upper and lower bounds are not in",
    "ignore:The minimal resolution for an image is",
]
every_family = pytest.mark.parametrize("name", FAMILIES)
pytestmark = [pytest.mark.filterwarnings(text) for text in ADVICE]


@functools.cache
def double():
    return rd.pointwise("double", lambda t: 2 * t.reward)


def opened(name):
    family = name.split("/")[0]
    if family in EXTRAS:
        pytest.importorskip(EXTRAS[family])
    return task(name)


def play(env, actions, seed=None):
    if seed is not None:
        env.reset(seed=seed)
    return [env.step(action)[:4] for action in actions]


def assert_same(one, other):
    jax.tree.map(np.testing.assert_array_equal, one, other)


@every_family
@pytest.mark.parametrize("wrap", [lambda env: env, lambda env: RewardWrapper(env, double())], ids=["alone", "wrapped"])
def test_checkers(name, wrap):
    known = opened(name)
    check_env(wrap(known.make()), skip_render_check=True)
    sb3 = pytest.importorskip("stable_baselines3.common.env_checker")
    env = wrap(known.make())
    if isinstance(env, RewardWrapper) and name.startswith("robotics"):
        with pytest.raises(TypeError, match="compute_reward is the environment's own reward"):
            sb3.check_env(env, skip_render_check=True)
        return
    sb3.check_env(env, skip_render_check=True)


@every_family
def test_the_spec_makes_the_same_environment_again(name):
    env = RewardWrapper(opened(name).make(), double())
    if env.spec is None:  # environments of this package's own have no id
        assert name.split("/")[0] in ("cartpole", "minihack")
        return
    actions = [env.action_space.sample() for _ in range(5)]
    assert_same(play(gymnasium.make(env.spec), actions, seed=3), play(env, actions, seed=3))


@every_family
@pytest.mark.parametrize("kind", ["deepcopy", "pickle"])
def test_a_copy_goes_on_alike_or_says_why_not(name, kind):
    """Pickles of bare environments: functions under the type-checking import hook cannot be pickled."""
    if kind == "pickle":
        if name == "cartpole":  # a function of JAX, see above
            return
        env, through = opened(name).make(), lambda env: pickle.loads(pickle.dumps(env))
    else:
        env, through = RewardWrapper(opened(name).make(), double()), copy.deepcopy
    actions = [env.action_space.sample() for _ in range(5)]
    play(env, actions, seed=3)
    if name.startswith("minihack"):
        with pytest.raises(TypeError, match=r"MiniHackLane cannot be copied or pickled, .* with Task\.make\(\)"):
            through(env)
        return
    other = through(env)
    if name.split("/")[0] in ("mujoco", "robotics"):
        with pytest.raises(gymnasium.error.ResetNeeded, match=r"a copy of a MuJoCo environment .* call reset before"):
            other.step(actions[0])
        assert_same(play(other, actions, seed=3), play(env, actions, seed=3))
        return
    assert_same(play(other, actions), play(env, actions))


@every_family
def test_vector_environments_repeat_by_their_seed(name):
    known = opened(name)

    def played(seed):
        envs = VectorRewardWrapper(known.vector(2, seed=seed), double())
        first = envs.reset()
        envs.action_space.seed(0)
        rows = first[0], play(envs, [envs.action_space.sample() for _ in range(10)])
        envs.close()
        return rows

    once, again, other = played(7), played(7), played(8)
    assert_same(once, again)
    leaves = zip(jax.tree.leaves(once), jax.tree.leaves(other), strict=True)
    assert any(not np.array_equal(a, b) for a, b in leaves)


@pytest.mark.parametrize("through", [copy.copy, copy.deepcopy, pickle.dumps])
def test_shared_memory_is_not_copied(through):
    """A copy's environments and its arrays would no longer be the same memory."""
    make = functools.partial(Walk, reuse=False)
    spaces = {"observation_space": make().observation_space, "action_space": make().action_space}
    for envs in (SerialVectorEnv(make, 2, **spaces), ProcessVectorEnv(make, 2, num_workers=1)):
        with pytest.raises(TypeError, match=rf"{type(envs).__name__} cannot be copied or pickled, as the state"):
            through(envs)
        envs.close()
