"""The same episodes earn the same through every gymnasium adapter, as counted by naive NumPy loops."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false
# pyright: reportGeneralTypeIssues=false

import copy
import functools
import itertools
import os
import pathlib
import subprocess
import sys

import gymnasium
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from adapter_envs import LIMIT, Walk, lane_actions, record
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.adapters import _bridge
from reward_design.adapters.functional import recorded, score
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper

LANES, STEPS, SEED, GAMMA = 3, 20, 5, 0.9
gymnasium.register("Walk-v0", entry_point="adapter_envs:Walk")
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


@pytest.fixture
def untyped():
    """As without the type-checking import hook, which has its own words for a wrong argument."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def shaping():
    return rd.potential_shaping(lambda obs: -jnp.abs(obs).sum(-1), gamma=GAMMA)


def dict_shaping():
    return rd.potential_shaping(lambda obs: -jnp.abs(obs["position"]).sum(-1) + 0.1 * obs["cell"], gamma=GAMMA)


def trail():
    """Episode state: pays for time and for the distance to where the episode's first step led."""

    def init(key, example):
        return (), rd.State(episode={"time": jnp.zeros_like(example.reward), "first": jnp.zeros_like(example.next_obs)})

    def step(params, state, t):
        time = state.episode["time"]
        first = jnp.where(time[:, None] == 0, t.next_obs, state.episode["first"])
        value = t.reward - 0.1 * time + jnp.abs(t.next_obs - first).sum(-1)
        return value, state._replace(episode={"time": time + 1, "first": first})

    return rd.from_step("trail", init, step)


def informed():
    def fn(t):
        terms = {"speed": -t.info["speed"], "event": t.info["event"][:, 0] * 2.0}
        return sum(terms.values()), terms

    return rd.pointwise("informed", fn)


def naive_shaping(rows, phi=lambda obs: -np.abs(obs).sum()):
    return [r + GAMMA * phi(n) * (not end) - phi(o) for o, _, n, r, end, _, _ in rows]


def naive_dict_shaping(rows):
    return naive_shaping(rows, lambda obs: -np.abs(obs["position"]).sum() + 0.1 * obs["cell"])


def naive_trail(rows):
    paid, time, first = [], 0, None
    for _, _, next_obs, reward, terminated, truncated, _ in rows:
        first = next_obs if time == 0 else first
        paid.append(reward - 0.1 * time + np.abs(next_obs - first).sum())
        time = 0 if terminated or truncated else time + 1
    return paid


def naive_delayed(rows):
    paid, total = [], 0.0
    for _, _, _, reward, terminated, truncated, _ in rows:
        total += reward
        paid.append(total if terminated or truncated else 0.0)
        total = 0.0 if terminated or truncated else total
    return paid


def naive_informed(rows):
    return [-info["speed"] + 2 * info["event"][0] for *_, info in rows]


CASES = {
    "shaping": (shaping, naive_shaping, "box", ()),
    "dict shaping": (dict_shaping, naive_dict_shaping, "dict", ()),
    "clipped": (
        lambda: rd.chain(shaping(), rd.clip(-0.5, 0.5)),
        lambda rows: np.clip(naive_shaping(rows), -0.5, 0.5),
        "box",
        (),
    ),
    "delayed": (lambda: rd.delayed(rd.environment_reward()), naive_delayed, "dict", ()),
    "trail": (trail, naive_trail, "box", ()),
    "informed": (informed, naive_informed, "box", ("speed", "event")),
}


@functools.cache
def built(name):
    """One reward object per case, so that each is compiled once for all tests."""
    make, naive, layout, keys = CASES[name]
    return make(), np.array([naive(rows) for rows in record(LANES, STEPS, layout, SEED)]), layout, keys


def thunks(mode, layout="box"):
    return [functools.partial(Walk, layout, reuse=mode is not AutoresetMode.SAME_STEP)] * LANES


def drive_single(env, lane, seed=SEED):
    """Rewards and infos of one lane, resetting by hand."""
    env.reset(seed=seed + lane)
    paid, infos = [], []
    for action in lane_actions(lane, STEPS):
        _, reward, terminated, truncated, info = env.step(action)
        paid.append(reward)
        infos.append(info)
        if terminated or truncated:
            env.reset()
    return paid, infos


def drive_vector(envs, mode, num_steps=STEPS):
    """Each lane takes its own actions at its real steps; returns ``[B, T]`` rewards and the infos of all steps."""
    actions = np.stack([lane_actions(lane, num_steps) for lane in range(LANES)])
    envs.reset(seed=SEED)
    paid, everything = [[] for _ in range(LANES)], []
    resetting = np.zeros(LANES, bool)
    while min(map(len, paid)) < num_steps:
        cursor = [min(len(rows), num_steps - 1) for rows in paid]
        _, rewards, terminated, truncated, infos = envs.step(actions[np.arange(LANES), cursor])
        everything.append((rewards, infos, resetting))
        assert (rewards[resetting] == 0).all()
        for lane in np.flatnonzero(~resetting):
            paid[lane].append(rewards[lane])
        done = terminated | truncated
        resetting = done if mode is AutoresetMode.NEXT_STEP else np.zeros(LANES, bool)
        if mode is AutoresetMode.DISABLED and done.any():
            envs.reset(options={"reset_mask": done})
    return np.array([rows[:num_steps] for rows in paid]), everything


def walk_to_the_end(envs):
    for _ in range(LIMIT):
        envs.step(np.zeros((LANES, 2), np.float32))


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
    before = _bridge._apply._cache_size()
    for seed in range(4):
        drive_single(RewardWrapper(Walk(), reward, seed=seed), 0)
        drive_single(copy.deepcopy(RewardWrapper(Walk(), reward)), 0)
    assert _bridge._apply._cache_size() == before + 1


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


# --- bad input ------------------------------------------------------------------------------------------------------


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


def test_an_observation_of_another_shape_than_its_space_is_named():
    env = RewardWrapper(Cropped(), rd.pointwise("own", lambda p, t: t.reward))
    with pytest.raises(ValueError, match=r"space has the shape \(4,\), but this value has \(3,\); correct the space"):
        env.reset(seed=0)


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
    with pytest.raises(ValueError, match=r"has the shape \(1,\), but this value has \(2,\)"):
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
