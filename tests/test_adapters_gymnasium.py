"""The same episodes earn the same through every gymnasium adapter, as counted by naive NumPy loops."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false
# pyright: reportGeneralTypeIssues=false

import copy
import itertools
import os
import pathlib
import subprocess
import sys

import gymnasium
import jax
import numpy as np
import pytest
from adapter_envs import LIMIT, Walk, lane_actions, record
from adapter_oracle import (
    CASES,
    GAMMA,
    LANES,
    MODES,
    SEED,
    STEPS,
    built,
    drive_single,
    drive_vector,
    naive_shaping,
    shaping,
    thunks,
)
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.adapters import _compiled
from reward_design.adapters.functional import recorded, score
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper

# --- the same episodes, the same rewards ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", CASES)
def test_single_equals_naive_loop(name):
    reward, expected, layout, keys = built(name)
    for lane in range(LANES):
        env = RewardWrapper(Walk(layout), reward, info_keys=keys)
        paid, infos = drive_single(env, lane)
        np.testing.assert_allclose(paid, expected[lane], atol=1e-5)
        original = [row[3] for row in record(LANES, STEPS, layout, SEED)[lane]]
        np.testing.assert_allclose([info["env_reward"] for info in infos], original)
        sums = [sum(info["reward_terms"].values()) for info in infos]
        np.testing.assert_allclose(sums, paid, atol=1e-5)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", CASES)
def test_vector_equals_naive_loop(name, mode):
    reward, expected, layout, keys = built(name)
    envs = SyncVectorEnv(thunks(mode, layout), autoreset_mode=mode)
    paid, _ = drive_vector(VectorRewardWrapper(envs, reward, info_keys=keys), mode)
    np.testing.assert_allclose(paid, expected, atol=1e-5)


def test_episodes_end_in_both_ways_and_at_once():
    """Control: the recorded episodes contain what the tests above are about."""
    ends = {(row[4], row[5]) for lane in range(40) for row in record(LANES, STEPS, seed=SEED + lane)[0]}
    assert ends == {(False, False), (True, False), (False, True), (True, True)}
    rows = [row for lane in record(LANES, STEPS, seed=SEED) for row in lane]
    assert any(row[4] for row in rows)
    assert any(row[5] for row in rows)


def test_using_the_reset_observation_would_be_far():
    """Control: shaping with the first observation of the next episode as successor is another reward."""
    rows = record(LANES, STEPS, "box", SEED)[0]
    wrong = [(o, a, b[0] if t else n, *rest) for (o, a, n, *rest), b in itertools.pairwise(rows) for t in [rest[2]]]
    gap = np.abs(np.array(naive_shaping(wrong)) - naive_shaping(rows)[:-1])
    assert gap.max() > 0.1


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("context", ["forkserver", "spawn"])
def test_async_equals_naive_loop(mode, context):
    reward, expected, layout, keys = built("dict shaping" if context == "spawn" else "informed")
    envs = AsyncVectorEnv(thunks(mode, layout), context=context, autoreset_mode=mode, copy=False)
    envs = VectorRewardWrapper(envs, reward, info_keys=keys)
    try:
        paid, _ = drive_vector(envs, mode)
    finally:
        envs.close()
    np.testing.assert_allclose(paid, expected, atol=1e-5)


IN_WORKERS = """
import cloudpickle, jax.numpy as jnp, numpy as np
from adapter_envs import Walk, lane_actions
from gymnasium.vector import AsyncVectorEnv
import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper

if __name__ == "__main__":
    shaped = rd.potential_shaping(lambda obs: -jnp.abs(obs).sum(-1), gamma=0.9)
    reward = rd.chain(shaped, rd.normalise_by_return(gamma=0.9))
    first = RewardWrapper(Walk(), reward)
    first.reset(seed=5)
    first.step(lane_actions(0, 3)[0])
    second = cloudpickle.loads(cloudpickle.dumps(first))
    envs = AsyncVectorEnv([lambda: RewardWrapper(Walk(), reward)], context="forkserver")
    envs.reset(seed=5)
    envs.step(lane_actions(0, 3)[:1])
    for action in lane_actions(0, 3)[1:]:
        paid = first.step(action)[1]
        infos = envs.step(action[None])[4]
        terms = infos["reward_terms"]
        assert second.step(action)[1] == paid
        np.testing.assert_allclose(sum(v[0] for k, v in terms.items() if k[0] != "_"), paid, atol=1e-5)
    envs.close()
"""


def test_wrapper_is_pickled_into_async_workers(tmp_path):
    """In a process of its own, because functions under the type-checking import hook cannot be pickled."""
    script = tmp_path / "in_workers.py"
    script.write_text(IN_WORKERS)
    tests = pathlib.Path(__file__).parent
    path = f"{tests}{os.pathsep}{tests.parent}"
    subprocess.run([sys.executable, script], env={**os.environ, "PYTHONPATH": path}, check=True, timeout=120)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("make", [rd.count_bonus, lambda: rd.normalise_by_return(gamma=GAMMA)], ids=["count", "return"])
def test_shared_running_state_equals_unroll_on_the_recorded_rollout(make, mode):
    reward = make()
    paid, trajectory = [], []
    envs = VectorRewardWrapper(SyncVectorEnv(thunks(mode), autoreset_mode=mode), reward)
    bare = SyncVectorEnv(thunks(mode), autoreset_mode=mode)
    obs = bare.reset(seed=SEED)[0]
    envs.reset(seed=SEED)
    mask = np.ones(LANES, bool)
    for step in range(STEPS):
        action = np.stack([lane_actions(lane, STEPS)[step] for lane in range(LANES)])
        paid.append(envs.step(action)[1])
        next_obs, rewards, terminated, truncated, infos = bare.step(action)
        final = next_obs.copy()
        for lane in np.flatnonzero(infos.get("_final_obs", np.zeros(LANES, bool))):
            final[lane] = infos["final_obs"][lane]
        trajectory.append((obs, action, final, rewards, terminated, truncated, mask))
        done = terminated | truncated
        mask = ~done if mode is AutoresetMode.NEXT_STEP else np.ones(LANES, bool)
        if mode is AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done.copy()})
            next_obs, _ = bare.reset(options={"reset_mask": done.copy()})
        obs = next_obs
    *arrays, masks = (np.stack(column) for column in zip(*trajectory))
    expected = score(reward, recorded(*arrays, mask=masks)).reward
    np.testing.assert_allclose(paid, expected, atol=1e-5)


def test_autoreset_wrapper_below_earns_zero_at_the_reset():
    reward, expected, layout, _ = built("trail")
    env = RewardWrapper(gymnasium.wrappers.Autoreset(Walk(layout)), reward)
    env.reset(seed=SEED)
    paid, ended = [], False
    actions = iter(lane_actions(0, STEPS))
    while len(paid) < STEPS:
        _, value, terminated, truncated, _ = env.step(np.zeros(2, np.float32) if ended else next(actions))
        if ended:
            assert value == 0
        else:
            paid.append(value)
        ended = terminated or truncated
    np.testing.assert_allclose(paid, expected[0], atol=1e-5)


def test_steps_after_the_end_without_reset_change_nothing():
    reward, *_ = built("trail")
    env = RewardWrapper(Walk(), reward)
    env.reset(seed=SEED)
    for _ in range(LIMIT):
        env.step(np.zeros(2, np.float32))
    before = env.reward_state
    assert env.step(np.ones(2, np.float32))[1] == 0
    np.testing.assert_array_equal(env.reward_state.episode["time"], before.episode["time"])


# --- info -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_vector_info_follows_gymnasium(mode):
    reward, *_ = built("shaping")
    envs = VectorRewardWrapper(SyncVectorEnv(thunks(mode), autoreset_mode=mode), reward)
    _, everything = drive_vector(gymnasium.wrappers.vector.DictInfoToList(envs), mode)
    for rewards, infos, resetting in everything:
        for lane, info in enumerate(infos):
            assert ("env_reward" in info) == (not resetting[lane])
            if not resetting[lane]:
                np.testing.assert_allclose(sum(info["reward_terms"].values()), rewards[lane], atol=1e-5)
                np.testing.assert_allclose(info["env_reward"], info["reward_terms"]["environment"], atol=1e-5)


def test_stacked_wrappers_keep_the_innermost_reward():
    scaled = RewardWrapper(RewardWrapper(Walk(), rd.scale(2.0)), rd.scale(3.0))
    scaled.reset(seed=SEED)
    _, value, _, _, info = scaled.step(np.zeros(2, np.float32))
    np.testing.assert_allclose(value, 6 * info["env_reward"], rtol=1e-5)


def test_reward_that_reads_info_without_info_keys():
    with pytest.raises(ValueError, match=r"'informed' reads 'speed', which is not among info_keys = \(\)"):
        RewardWrapper(Walk(), built("informed")[0])


def test_missing_info_names_what_there_is():
    reward, *_ = built("informed")
    keys = ("speed", "event", "wind")
    env = RewardWrapper(Walk(), reward, info_keys=keys)
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"'wind', but the info of this step has only \['event', 'speed'\]"):
        env.step(np.zeros(2, np.float32))
    envs = VectorRewardWrapper(SyncVectorEnv([Walk] * LANES), reward, info_keys=keys)
    envs.reset(seed=0)
    with pytest.raises(ValueError, match="info_keys names 'wind'"):
        envs.step(np.zeros((LANES, 2), np.float32))


def test_info_that_is_not_numeric():
    class Talking(Walk):
        def step(self, action):
            *outcome, _ = super().step(action)
            return *outcome, {"text": "hello"}

    env = RewardWrapper(Talking(), rd.environment_reward(), info_keys=["text"])
    env.reset(seed=0)
    with pytest.raises(TypeError, match=r"info\['text'\] must be numbers, got str"):
        env.step(np.zeros(2, np.float32))
    with pytest.raises(TypeError, match="info_keys must be a sequence of names"):
        RewardWrapper(Walk(), rd.environment_reward(), info_keys="speed")


# --- being a good gymnasium wrapper ---------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*A Box observation space (min|max)imum value is .*infinity.*:UserWarning")
def test_check_env():
    check_env(RewardWrapper(gymnasium.make("CartPole-v1"), shaping()), skip_render_check=True)
    check_env(RewardWrapper(gymnasium.make("CartPole-v1"), rd.delayed(rd.environment_reward())), skip_render_check=True)
    walk = gymnasium.make("Walk-v0", layout="dict", reuse=False, render_mode="rgb_array")
    check_env(RewardWrapper(walk, built("dict shaping")[0]))


def test_nothing_but_the_reward_changes():
    env = RewardWrapper(Walk("dict", render_mode="rgb_array"), built("dict shaping")[0])
    assert env.observation_space == env.unwrapped.observation_space
    assert env.action_space is env.unwrapped.action_space
    assert env.reset(seed=0)[1] == {"start": 1}
    env.step(np.zeros(2, np.float32))
    assert (env.render() == 1).all()
    envs = VectorRewardWrapper(SyncVectorEnv([lambda: Walk(render_mode="rgb_array")] * LANES), built("shaping")[0])
    assert envs.single_observation_space == envs.unwrapped.single_observation_space
    envs.reset(seed=0)
    assert len(envs.render()) == LANES


def test_spec_rebuilds_the_wrapper():
    reward, *_ = built("shaping")
    env = RewardWrapper(gymnasium.make("Walk-v0"), reward, seed=3)
    again = gymnasium.make(env.spec)
    assert drive_single(again, 0)[0] == drive_single(env, 0)[0]
    assert "RewardWrapper" in str(again)


def test_copies_go_on_alike():
    env = RewardWrapper(Walk(), rd.chain(built("trail")[0], rd.normalise_by_return(gamma=GAMMA)))
    env.reset(seed=SEED)
    for action in lane_actions(0, 4):
        env.step(action)
    other = copy.deepcopy(env)
    actions = lane_actions(1, 3)
    assert [env.step(a)[1] for a in actions] == [other.step(a)[1] for a in actions]


def test_one_compilation_for_many_wrappers():
    reward = shaping()
    before = _compiled.apply._cache_size()
    for seed in range(4):
        drive_single(RewardWrapper(Walk(), reward, seed=seed), 0)
        drive_single(copy.deepcopy(RewardWrapper(Walk(), reward)), 0)
    assert _compiled.apply._cache_size() == before + 1


def test_state_and_params_are_saved_and_restored():
    reward = rd.chain(rd.count_bonus(), rd.normalise_by_return(gamma=GAMMA), rd.scale(2.0))
    first = RewardWrapper(Walk(), reward)
    drive_single(first, 0)
    saved = first.reward_params, first.reward_state
    before = copy.deepcopy(saved)
    expected = drive_single(first, 1)[0]
    jax.tree.map(np.testing.assert_array_equal, saved, before)
    second = RewardWrapper(Walk(), reward, seed=1)
    assert drive_single(copy.deepcopy(second), 1)[0] != expected
    second.reward_params, second.reward_state = saved
    assert drive_single(second, 1)[0] == expected
    wide = VectorRewardWrapper(SyncVectorEnv([Walk] * LANES), reward)
    with pytest.raises(ValueError, match="reward_state must have the structure and shapes"):
        wide.reward_state = saved[1]
    wide.reward_state = wide.reward_state._replace(running=saved[1].running)
    counts = wide.reward_state.running["count_bonus"]
    np.testing.assert_array_equal(counts, saved[1].running["count_bonus"])


def test_state_of_a_reward_that_reads_info_can_be_set_before_the_first_step():
    reward = rd.chain(built("informed")[0], rd.normalise_by_return(gamma=GAMMA))
    first, second = (RewardWrapper(Walk(), reward, info_keys=("speed", "event")) for _ in range(2))
    assert first.reward_state is None
    drive_single(first, 0)
    second.reward_state = first.reward_state
    assert drive_single(second, 1)[0] == drive_single(first, 1)[0]


def test_params_are_taken():
    env = RewardWrapper(Walk(), rd.scale(2.0), params={"factor": -1.0})
    env.reset(seed=0)
    _, value, _, _, info = env.step(np.zeros(2, np.float32))
    np.testing.assert_allclose(value, -info["env_reward"], rtol=1e-6)
    with pytest.raises(ValueError, match="params must have the structure and shapes"):
        RewardWrapper(Walk(), rd.scale(2.0), params={"wrong": 1.0})


def test_the_seed_of_reset_leaves_running_statistics():
    env = RewardWrapper(Walk(), rd.count_bonus(num_bins=16))
    once, twice = (drive_single(env, 0)[0] for _ in range(2))
    assert once[0] > twice[0]
    frozen = RewardWrapper(Walk(), rd.freeze_running(rd.count_bonus(num_bins=16)))
    assert drive_single(frozen, 0)[0] == drive_single(frozen, 0)[0]


def test_text_in_observations_is_left_out():
    class Speaking(Walk):
        def __init__(self):
            super().__init__("dict")
            self.observation_space = gymnasium.spaces.Dict(
                {**self.observation_space.spaces, "mission": gymnasium.spaces.Text(20)}
            )

        def _observed(self):
            return {**super()._observed(), "mission": "go right"}

    env = RewardWrapper(Speaking(), built("dict shaping")[0])
    np.testing.assert_allclose(drive_single(env, 0)[0], built("dict shaping")[1][0], atol=1e-5)
