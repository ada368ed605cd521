"""What real agents of stable-baselines3 and sbx store and log is the reward of the raw transition, by NumPy."""

# pyright: reportArgumentType=false

import copy
import functools
import os
import pathlib
import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_envs import LIMIT, Walk, lane_actions, record
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd

stable_baselines3 = pytest.importorskip("stable_baselines3")

from stable_baselines3 import PPO, SAC, HerReplayBuffer  # noqa: E402
from stable_baselines3.common.callbacks import BaseCallback  # noqa: E402
from stable_baselines3.common.evaluation import evaluate_policy  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize  # noqa: E402

from reward_design.adapters.gymnasium import RewardWrapper  # noqa: E402
from reward_design.adapters.sb3 import GymnasiumVecEnv, VecRewardWrapper  # noqa: E402

LANES, GAMMA = 2, 0.9
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sbx's distributions use names that JAX moved
BUFFER = {"learning_starts": 30, "buffer_size": 400, "batch_size": 16, "train_freq": 4}


def off_policy():
    """Settings; new ones every time, because the libraries write into them."""
    return {**BUFFER, "policy_kwargs": {"net_arch": [8]}, "device": "cpu", "seed": 1}


@pytest.fixture(autouse=True)
def ranks():
    """The distributions that sbx uses promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


@functools.cache
def shaping():
    return rd.potential_shaping(lambda obs: -jnp.abs(obs[..., :2]).sum(-1), gamma=GAMMA)


def phi(obs):
    return -np.abs(obs[..., :2]).sum(-1)


def walks(wrap=lambda env: env):
    return DummyVecEnv([lambda: wrap(Walk(reuse=False))] * LANES)


def poles():
    return DummyVecEnv([lambda: gymnasium.make("CartPole-v1", max_episode_steps=20)] * LANES)


def stored(model):
    """Rows of the replay buffer, as raw transitions: obs, next_obs, reward, done, timeout."""
    buffer = model.replay_buffer
    rows = slice(0, buffer.pos)
    arrays = buffer.observations, buffer.next_observations, buffer.rewards, buffer.dones, buffer.timeouts
    assert not buffer.full
    return [array[rows] for array in arrays]


def check_walk(model, paid):
    """``paid(obs, next_obs, reward, terminated)`` is what the reward pays for a raw transition."""
    obs, next_obs, rewards, dones, timeouts = stored(model)
    terminated = next_obs[..., 0] > 0.9
    assert terminated.any()
    assert (dones.astype(bool) & ~terminated).any()
    np.testing.assert_array_equal(dones.astype(bool) & ~timeouts.astype(bool), terminated)
    np.testing.assert_allclose(rewards, paid(obs, next_obs, 1.0 - np.abs(next_obs).sum(-1), terminated), atol=1e-5)
    np.testing.assert_array_equal(obs[1:][dones[:-1] == 0], next_obs[:-1][dones[:-1] == 0])


def shaped(obs, next_obs, reward, terminated):
    return reward + GAMMA * phi(next_obs) * ~terminated - phi(obs)


# --- what agents store ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("library", ["stable_baselines3", "sbx"])
def test_sac_stores_the_reward_of_the_raw_transition(library):
    algorithm = pytest.importorskip(library).SAC
    model = algorithm("MlpPolicy", VecRewardWrapper(walks(), shaping()), **off_policy())
    model.learn(96)
    check_walk(model, shaped)
    batch = model.replay_buffer.sample(200)
    terminated = np.asarray(batch.next_observations)[:, 0] > 0.9
    np.testing.assert_array_equal(np.asarray(batch.dones)[:, 0].astype(bool), terminated)


@pytest.mark.parametrize("library", ["stable_baselines3", "sbx"])
def test_dqn_stores_the_reward_of_the_raw_transition(library):
    algorithm = pytest.importorskip(library).DQN
    model = algorithm("MlpPolicy", VecRewardWrapper(poles(), shaping()), exploration_final_eps=1.0, **off_policy())
    model.learn(200)
    obs, next_obs, rewards, dones, timeouts = stored(model)
    terminated = dones.astype(bool) & ~timeouts.astype(bool)
    fallen = (np.abs(next_obs[..., 2]) > 12 * np.pi / 180) | (np.abs(next_obs[..., 0]) > 2.4)
    np.testing.assert_array_equal(terminated, fallen)
    assert terminated.any()
    assert timeouts.any()
    np.testing.assert_allclose(rewards, shaped(obs, next_obs, 1.0, terminated), atol=1e-5)


@pytest.mark.parametrize("library", ["stable_baselines3", "sbx"])
def test_ppo_learns_from_the_reward_and_bootstraps_time_limits(library):
    algorithm = pytest.importorskip(library).PPO
    venv = VecRewardWrapper(walks(), shaping())
    model = algorithm("MlpPolicy", venv, n_steps=24, batch_size=16, n_epochs=1, gamma=GAMMA, seed=1, device="cpu")
    seen = Steps()
    model.learn(24 * LANES, callback=seen)
    assert model.num_timesteps == 24 * LANES
    buffer, rewards, dones, infos = model.rollout_buffer, np.array(seen.rewards), np.array(seen.dones), seen.infos
    last = [[info.get("terminal_observation", obs) for info, obs in zip(*step)] for step in zip(infos, seen.obs)]
    terminated = np.array(last)[..., 0] > 0.9
    truncated = dones & ~terminated
    np.testing.assert_array_equal(truncated, [[info["TimeLimit.truncated"] for info in row] for row in infos])
    original = [[info["env_reward"] for info in row] for row in infos]
    np.testing.assert_allclose(original, 1.0 - np.abs(last).sum(-1), rtol=1e-5)
    before = buffer.observations.reshape(LANES, 24, 2).swapaxes(0, 1)  # PPO has flattened them, lane by lane
    np.testing.assert_allclose(rewards, shaped(before, np.array(last), np.array(original), terminated), atol=1e-5)
    bootstrapped = buffer.rewards - rewards
    assert (bootstrapped[truncated] != 0).all()
    np.testing.assert_allclose(bootstrapped[~truncated], 0.0, atol=1e-6)


class Steps(BaseCallback):
    """Keeps what the agent got at every step."""

    def __init__(self):
        super().__init__()
        self.rewards, self.dones, self.infos, self.obs = [], [], [], []

    def _on_step(self):
        for name, kept in (("rewards", self.rewards), ("dones", self.dones), ("infos", self.infos)):
            kept.append(copy.copy(self.locals[name]))
        self.obs.append(self.locals["new_obs"].copy())
        return True


# --- VecNormalize, Monitor ------------------------------------------------------------------------------------------


def test_vec_normalize_above_leaves_raw_transitions_in_the_buffer():
    venv = VecNormalize(VecRewardWrapper(walks(), shaping()), gamma=GAMMA)
    model = SAC("MlpPolicy", venv, **off_policy())
    model.learn(96)
    check_walk(model, shaped)
    rewards = model.replay_buffer.sample(64, env=venv).rewards.numpy()
    raw = stored(model)[2]
    known = venv.normalize_reward(raw).ravel()
    assert np.isin(rewards.round(4), known.round(4)).all()
    assert np.abs(known - raw.ravel()).max() > 0.1


def test_vec_normalize_below_does_not_take_the_reward_away_from_replay_buffers():
    """Control: stable-baselines3 asks VecNormalize for rewards, wherever it lies; that would be the environment's."""
    triple = rd.chain(rd.environment_reward(), rd.scale(3.0))
    venv = VecRewardWrapper(VecNormalize(walks(), norm_reward=False), triple)
    model = SAC("MlpPolicy", venv, **off_policy())
    model.learn(96)
    check_walk(model, lambda obs, next_obs, reward, terminated: 3.0 * reward)
    with pytest.raises(ValueError, match=r"VecNormalize\(norm_reward=True\) must lie outside VecRewardWrapper"):
        VecRewardWrapper(VecNormalize(walks()), triple)


def test_monitor_keeps_the_original_reward_while_the_agent_learns():
    venv = VecRewardWrapper(walks(wrap=Monitor), shaping())
    model = PPO("MlpPolicy", venv, n_steps=24, batch_size=16, n_epochs=1, gamma=GAMMA, seed=1, device="cpu")
    seen = Steps()
    model.learn(48, callback=seen)
    original = np.array([[info["env_reward"] for info in row] for row in seen.infos])
    ends = np.flatnonzero(np.array(seen.dones)[:, 0])
    sums = [part.sum() for part in np.split(original[:, 0], ends + 1)[:-1]]
    logged = [row[0]["episode"]["r"] for row in np.array(seen.infos)[ends]]
    np.testing.assert_allclose(logged, sums, atol=1e-4)
    paid = np.array(seen.rewards)[:, 0]
    assert np.abs(np.subtract(logged, [part.sum() for part in np.split(paid, ends + 1)[:-1]])).max() > 0.1
    mean, _ = evaluate_policy(model, venv, n_eval_episodes=4)
    assert np.isfinite(mean)


# --- saved, copied, elsewhere ---------------------------------------------------------------------------------------


def test_a_model_is_saved_loaded_and_goes_on(tmp_path):
    venv = VecNormalize(VecRewardWrapper(walks(), shaping()), gamma=GAMMA)
    model = SAC("MlpPolicy", venv, **off_policy())
    model.learn(40)
    model.save(tmp_path / "model")
    venv.save(tmp_path / "moments.pkl")
    again = VecNormalize.load(tmp_path / "moments.pkl", VecRewardWrapper(walks(), shaping()))
    loaded = SAC.load(tmp_path / "model", env=again, device="cpu")
    obs = np.ones((LANES, 2), np.float32)
    np.testing.assert_array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    loaded.learn(40, reset_num_timesteps=False)
    assert loaded.num_timesteps == 80
    check_walk(loaded, shaped)


def test_copies_go_on_alike():
    venv = VecRewardWrapper(walks(), rd.chain(shaping(), rd.normalise_by_return(gamma=GAMMA)))
    venv.seed(3)
    venv.reset()
    venv.step(np.ones((LANES, 2), np.float32))
    other = copy.deepcopy(venv)
    for actions in np.random.default_rng(0).uniform(-1, 1, (2 * LIMIT, LANES, 2)).astype(np.float32):
        obs, rewards, dones, _ = venv.step(actions)
        for ours, theirs in zip((obs, rewards, dones), other.step(actions)):
            np.testing.assert_array_equal(ours, theirs)
    assert other.get_attr("layout") == ["box"] * LANES


ELSEWHERE = """
import cloudpickle, jax.numpy as jnp, numpy as np
from adapter_envs import Walk, lane_actions
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv
import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper
from reward_design.adapters.sb3 import VecRewardWrapper

if __name__ == "__main__":
    reward = rd.potential_shaping(lambda obs: -jnp.abs(obs).sum(-1), gamma=0.9)
    inside = SubprocVecEnv([lambda: RewardWrapper(Walk(reuse=False), reward)], start_method="forkserver")
    outside = VecRewardWrapper(DummyVecEnv([lambda: Walk(reuse=False)]), reward)
    second = cloudpickle.loads(cloudpickle.dumps(outside))
    for venv in (inside, outside, second):
        venv.seed(5)
        venv.reset()
    for action in lane_actions(0, 20):
        paid = inside.step(action[None])[1]
        for venv in (outside, second):
            np.testing.assert_allclose(venv.step(action[None])[1], paid, atol=1e-5)
    assert inside.get_attr("layout") == ["box"]
    assert inside.env_method("has_wrapper_attr", "reward_params", indices=[0]) == [True]
    inside.close()
"""


def test_pickled_and_in_subprocesses(tmp_path):
    """In a process of its own, because functions under the type-checking import hook cannot be pickled."""
    script = tmp_path / "elsewhere.py"
    script.write_text(ELSEWHERE)
    tests = pathlib.Path(__file__).parent
    path = f"{tests}{os.pathsep}{tests.parent}"
    subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=120)


# --- hindsight replay -----------------------------------------------------------------------------------------------


class Reach(gymnasium.Env):
    """Walk to a goal, with observations and ``compute_reward`` as hindsight replay wants them."""

    def __init__(self):
        box = gymnasium.spaces.Box(-5.0, 5.0, (2,), np.float32)
        names = ("observation", "achieved_goal", "desired_goal")
        self.observation_space = gymnasium.spaces.Dict(dict.fromkeys(names, box))
        self.action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.at, self.time = np.zeros(2, np.float32), 0
        return self._observed(), {}

    def step(self, action):
        self.at, self.time = np.clip(self.at + action, -5, 5).astype(np.float32), self.time + 1
        reward = float(self.compute_reward(self.at, np.ones(2), {}))
        return self._observed(), reward, False, self.time == LIMIT, {}

    def compute_reward(self, achieved_goal, desired_goal, info):
        return -(np.linalg.norm(achieved_goal - desired_goal, axis=-1) > 0.5).astype(np.float32)

    def _observed(self):
        return {"observation": self.at.copy(), "achieved_goal": self.at.copy(), "desired_goal": np.ones(2, np.float32)}


def test_hindsight_replay_is_refused_because_it_would_pay_another_reward():
    def learn(venv):
        her = {"replay_buffer_class": HerReplayBuffer, "replay_buffer_kwargs": {"n_sampled_goal": 2}}
        SAC("MultiInputPolicy", venv, **off_policy(), **her).learn(40)

    double = rd.chain(rd.environment_reward(), rd.scale(2.0))
    for venv in (VecRewardWrapper(DummyVecEnv([Reach]), double), DummyVecEnv([lambda: RewardWrapper(Reach(), double)])):
        with pytest.raises(TypeError, match=r"relabelled goals .* would earn another reward than the steps themselves"):
            learn(venv)
    learn(DummyVecEnv([Reach]))
    with pytest.raises(AttributeError):
        RewardWrapper(Walk(), double).get_wrapper_attr("compute_reward")


# --- gymnasium vector environments as VecEnv ------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED], ids=lambda mode: mode.name)
@pytest.mark.parametrize("layout", ["box", "dict"])
def test_gymnasium_vector_environments_equal_dummy_vec_env(layout, mode):
    make = functools.partial(Walk, layout, reuse=False, render_mode="rgb_array")
    ours = GymnasiumVecEnv(SyncVectorEnv([make] * LANES, autoreset_mode=mode))
    theirs = DummyVecEnv([make] * LANES)
    actions = np.stack([lane_actions(lane, 20) for lane in range(LANES)], 1)
    for venv in (ours, theirs):
        venv.seed(5)
    assert_alike(ours.reset(), theirs.reset())
    for action in actions:
        assert_alike(ours.step(action), theirs.step(action))
        assert ours.reset_infos == theirs.reset_infos
    assert ours.get_attr("layout", indices=[1]) == [layout]
    assert ours.env_method("has_wrapper_attr", "layout", indices=0) == [True]
    assert ours.env_is_wrapped(Monitor) == [False] * LANES
    assert len(ours.get_images()) == LANES
    ours.set_attr("layout", "other", indices=0)
    assert ours.get_attr("layout") == ["other", layout]
    ours.close()


def assert_alike(ours, theirs):
    if isinstance(theirs, dict):
        assert set(ours) == set(theirs)
        for name in theirs:
            assert_alike(ours[name], theirs[name])
    elif isinstance(theirs, (list, tuple)):
        for a, b in zip(ours, theirs, strict=True):
            assert_alike(a, b)
    else:
        np.testing.assert_array_equal(ours, theirs)


def test_rewards_on_a_gymnasium_vector_environment_equal_the_recorded_episodes():
    mode = AutoresetMode.SAME_STEP
    envs = SyncVectorEnv([functools.partial(Walk, reuse=False)] * LANES, autoreset_mode=mode)
    venv = VecRewardWrapper(GymnasiumVecEnv(envs), shaping(), info_keys=("speed",))
    venv.seed(5)
    venv.reset()
    paid = [venv.step(action)[1] for action in np.stack([lane_actions(lane, 20) for lane in range(LANES)], 1)]
    for lane, rows in enumerate(record(LANES, 20, seed=5)):
        expected = [shaped(o, n, r, np.bool_(end)) for o, _, n, r, end, _, _ in rows]
        np.testing.assert_allclose(np.array(paid)[:, lane], expected, atol=1e-5)


def test_options_reach_the_environments():
    seen = []

    class Optional(Walk):
        def reset(self, *, seed=None, options=None):
            seen.append(options)
            return super().reset(seed=seed, options=options)

    venv = GymnasiumVecEnv(SyncVectorEnv([Optional] * LANES, autoreset_mode=AutoresetMode.SAME_STEP))
    venv.set_options({"level": 3})
    venv.reset()
    venv.reset()
    assert seen == [{"level": 3}] * LANES + [None] * LANES
    venv.set_options([{"level": 1}, {"level": 2}])
    with pytest.raises(ValueError, match="resets all lanes with the same options"):
        venv.reset()


def test_steps_that_are_no_experience_are_refused():
    with pytest.raises(ValueError, match="needs autoreset mode SAME_STEP or DISABLED, got NEXT_STEP"):
        GymnasiumVecEnv(SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.NEXT_STEP))
