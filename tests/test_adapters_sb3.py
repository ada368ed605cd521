"""The same episodes earn the same through the stable-baselines3 adapter as by naive NumPy loops."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false
# pyright: reportGeneralTypeIssues=false

import functools
import subprocess
import sys

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_envs import LIMIT, Walk, lane_actions, record
from adapter_oracle import GAMMA, LANES, SEED, STEPS, naive_delayed, naive_dict_shaping, naive_informed, naive_shaping
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode, SyncVectorEnv

import reward_design as rd

stable_baselines3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common.env_checker import check_env  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecFrameStack, VecMonitor, VecNormalize  # noqa: E402

from reward_design.adapters.functional import recorded, score  # noqa: E402
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper  # noqa: E402
from reward_design.adapters.sb3 import GymnasiumVecEnv, VecRewardWrapper  # noqa: E402


@functools.cache
def shaping(layout="box"):
    phi = {
        "box": lambda obs: -jnp.abs(obs).sum(-1),
        "dict": lambda obs: -jnp.abs(obs["position"]).sum(-1) + 0.1 * obs["cell"],
    }
    return rd.potential_shaping(phi[layout], gamma=GAMMA)


@functools.cache
def informed():
    return rd.pointwise("informed", lambda t: -t.info["speed"] + 2.0 * t.info["event"][:, 0])


@functools.cache
def delayed():
    return rd.delayed(rd.environment_reward())


CASES = {
    "shaping": (shaping, naive_shaping, "box", ()),
    "dict shaping": (functools.partial(shaping, "dict"), naive_dict_shaping, "dict", ()),
    "informed": (informed, naive_informed, "box", ("speed", "event")),
    "delayed": (delayed, naive_delayed, "dict", ()),
}


def thunks(layout="box", wrap=lambda env: env):
    return [lambda: wrap(Walk(layout, reuse=False))] * LANES


def drive(venv):
    venv.seed(SEED)
    venv.reset()
    actions = np.stack([lane_actions(lane, STEPS) for lane in range(LANES)])
    paid, infos = [], []
    for step in range(STEPS):
        _, rewards, _, info = venv.step(actions[:, step])
        paid.append(rewards)
        infos.append(info)
    return np.array(paid).T, infos


def walk_to_the_end(venv):
    for _ in range(LIMIT):
        venv.step(np.zeros((LANES, 2), np.float32))


@pytest.mark.parametrize("name", CASES)
def test_equals_naive_loop(name):
    reward, naive, layout, keys = CASES[name]
    paid, infos = drive(VecRewardWrapper(DummyVecEnv(thunks(layout)), reward(), info_keys=keys))
    lanes = record(LANES, STEPS, layout, SEED)
    np.testing.assert_allclose(paid, [naive(rows) for rows in lanes], atol=1e-5)
    for lane, rows in enumerate(lanes):
        np.testing.assert_allclose([info[lane]["env_reward"] for info in infos], [row[3] for row in rows], rtol=1e-6)
        sums = [sum(info[lane]["reward_terms"].values()) for info in infos]
        np.testing.assert_allclose(sums, paid[lane], atol=1e-5)


def test_subprocesses_equal_naive_loop():
    venv = VecRewardWrapper(SubprocVecEnv([functools.partial(Walk, "dict", reuse=False)] * LANES), shaping("dict"))
    try:
        paid, _ = drive(venv)
    finally:
        venv.close()
    expected = [naive_dict_shaping(rows) for rows in record(LANES, STEPS, "dict", SEED)]
    np.testing.assert_allclose(paid, expected, atol=1e-5)


def test_time_limits_are_not_terminal():
    """Control: had every end counted as terminal, shaping would pay something else."""
    rows = [row for lane in record(LANES, STEPS, "box", SEED) for row in lane]
    as_terminal = [(o, a, n, r, end or cut, cut, info) for o, a, n, r, end, cut, info in rows]
    assert np.abs(np.array(naive_shaping(as_terminal)) - naive_shaping(rows)).max() > 0.1


@pytest.mark.parametrize("make", [rd.count_bonus, lambda: rd.normalise_by_return(gamma=GAMMA)], ids=["count", "return"])
def test_running_state_equals_gymnasium_and_unroll(make):
    reward = make()
    lanes = record(LANES, STEPS, "box", SEED)
    columns = [np.array([[row[i] for row in rows] for rows in lanes]).swapaxes(0, 1) for i in range(6)]
    expected = score(reward, recorded(*columns)).reward.T
    np.testing.assert_allclose(drive(VecRewardWrapper(DummyVecEnv(thunks()), reward))[0], expected, atol=1e-5)
    mode = gymnasium.vector.AutoresetMode.SAME_STEP
    envs = VectorRewardWrapper(gymnasium.vector.SyncVectorEnv(thunks(), autoreset_mode=mode), reward)
    envs.reset(seed=SEED)
    paid = [envs.step(columns[1][step])[1] for step in range(STEPS)]
    np.testing.assert_allclose(np.array(paid).T, expected, atol=1e-5)


def test_the_single_wrapper_inside_a_vec_env():
    reward = shaping()
    paid, infos = drive(DummyVecEnv(thunks(wrap=lambda env: RewardWrapper(env, reward))))
    expected, other = drive(VecRewardWrapper(DummyVecEnv(thunks()), reward))
    np.testing.assert_allclose(paid, expected, atol=1e-5)
    for ours, theirs in zip(infos, other, strict=True):
        for a, b in zip(ours, theirs, strict=True):
            assert a["env_reward"] == pytest.approx(b["env_reward"])
            assert a["reward_terms"] == pytest.approx(b["reward_terms"], abs=1e-5)


def test_monitors_log_what_is_below_them():
    rows = record(LANES, STEPS, "box", SEED)[0]
    first = next(i for i, row in enumerate(rows) if row[4] or row[5]) + 1
    original = sum(row[3] for row in rows[:first])
    shaped = sum(naive_shaping(rows[:first]))
    assert abs(original - shaped) > 0.1
    below = VecRewardWrapper(DummyVecEnv(thunks(wrap=Monitor)), shaping())
    assert drive(below)[1][first - 1][0]["episode"]["r"] == pytest.approx(original, abs=1e-4)
    vec_below = VecRewardWrapper(VecMonitor(DummyVecEnv(thunks())), shaping())
    assert drive(vec_below)[1][first - 1][0]["episode"]["r"] == pytest.approx(original, abs=1e-4)
    above = VecMonitor(VecRewardWrapper(DummyVecEnv(thunks()), shaping()))
    assert drive(above)[1][first - 1][0]["episode"]["r"] == pytest.approx(shaped, abs=1e-4)


def test_above_and_below_vec_normalize():
    expected, _ = drive(VecRewardWrapper(DummyVecEnv(thunks()), shaping()))
    below = VecNormalize(VecRewardWrapper(DummyVecEnv(thunks()), shaping()), norm_reward=False)
    np.testing.assert_allclose(drive(below)[0], expected, atol=1e-5)
    above = VecRewardWrapper(VecNormalize(DummyVecEnv(thunks()), norm_reward=False), shaping())
    paid, infos = drive(above)
    assert np.abs(paid - expected).max() > 0.1
    original = [[row[3] for row in rows] for rows in record(LANES, STEPS, "box", SEED)]
    np.testing.assert_allclose(np.transpose([[i["env_reward"] for i in info] for info in infos]), original, rtol=1e-5)
    stacked = VecFrameStack(VecRewardWrapper(DummyVecEnv(thunks()), shaping()), 2)
    np.testing.assert_allclose(drive(stacked)[0], expected, atol=1e-5)


def test_attributes_and_methods_pass():
    def wrap(env):
        env.render_mode = "rgb_array"
        return env

    venv = VecRewardWrapper(DummyVecEnv(thunks(wrap=wrap)), shaping())
    venv.reset()
    venv.step(np.zeros((LANES, 2), np.float32))
    assert venv.get_attr("layout") == ["box"] * LANES
    assert venv.env_method("has_wrapper_attr", "layout", indices=[0]) == [True]
    venv.set_attr("layout", "other")
    assert venv.get_attr("layout", indices=1) == ["other"]
    assert venv.env_is_wrapped(Monitor) == [False] * LANES
    assert venv.observation_space == venv.venv.observation_space
    assert (venv.render()[:4, :4] == 1).all()


def test_state_is_restored():
    reward = rd.normalise_by_return(gamma=GAMMA)
    first, second = (VecRewardWrapper(DummyVecEnv(thunks()), reward) for _ in range(2))
    drive(first)
    second.reward_params, second.reward_state = first.reward_params, first.reward_state
    paid = drive(second)[0]
    np.testing.assert_array_equal(paid, drive(first)[0])
    assert (paid != drive(VecRewardWrapper(DummyVecEnv(thunks()), reward))[0]).any()


@pytest.mark.filterwarnings("ignore:.*Box action space.*:UserWarning")
def test_sb3_check_env():
    check_env(RewardWrapper(gymnasium.make("CartPole-v1"), shaping()), skip_render_check=True)
    check_env(RewardWrapper(Walk("dict", reuse=False), shaping("dict")), skip_render_check=True)


def test_ppo_learns_on_it():
    venv = VecRewardWrapper(DummyVecEnv(thunks()), rd.chain(shaping(), rd.normalise_by_return(gamma=GAMMA)))
    agent = stable_baselines3.PPO("MlpPolicy", venv, n_steps=16, batch_size=16, n_epochs=1, seed=0, device="cpu")
    agent.learn(96)
    assert agent.num_timesteps == 96


def test_bad_input():
    whole = rd.from_trajectory("spa", lambda key, example: ((), ()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match=r"'spa' needs whole episodes \(kind TRAJECTORY\)"):
        VecRewardWrapper(DummyVecEnv(thunks()), whole)
    with pytest.raises(ValueError, match=r"must have shape \[B\] = \(3,\), got \(3, 2\)"):
        VecRewardWrapper(DummyVecEnv(thunks()), rd.pointwise("wide", lambda t: t.obs))
    bad = rd.pointwise("bad", lambda t: jnp.log(-jnp.abs(t.action[:, 0])))
    venv = VecRewardWrapper(DummyVecEnv(thunks()), bad)
    venv.reset()
    with pytest.raises(rd.NonFiniteRewardError, match="'bad' must be finite, got nan from term 'bad' at step 0"):
        venv.step(np.ones((LANES, 2), np.float32))
    venv = VecRewardWrapper(DummyVecEnv(thunks()), informed(), info_keys=("speed", "wind", "event"))
    venv.reset()
    with pytest.raises(ValueError, match="info_keys names 'wind', but the info of this step has only"):
        venv.step(np.ones((LANES, 2), np.float32))


def normalised(layout="box"):
    return wrappers.NormalizeReward(Walk(layout, reuse=False))


def test_normalise_reward_below_is_refused_wherever_it_is():
    same = AutoresetMode.SAME_STEP
    below = [
        DummyVecEnv([lambda: Monitor(normalised())]),
        SubprocVecEnv([normalised], start_method="spawn"),
        GymnasiumVecEnv(SyncVectorEnv([normalised], autoreset_mode=same)),
        GymnasiumVecEnv(wrappers.vector.NormalizeReward(SyncVectorEnv([Walk], autoreset_mode=same))),
    ]
    for venv in below:
        with pytest.raises(ValueError, match="NormalizeReward must lie outside VecRewardWrapper: below it normalises"):
            VecRewardWrapper(VecFrameStack(venv, 2), rd.environment_reward())
        venv.close()
    plain = GymnasiumVecEnv(SyncVectorEnv([functools.partial(Walk, reuse=False)], autoreset_mode=same))
    assert VecRewardWrapper(plain, rd.environment_reward()).reset().shape == (1, 2)


def test_wrappers_that_give_wrong_last_observations_are_refused():
    same = SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.SAME_STEP)
    SyncVectorEnv([Walk], autoreset_mode=AutoresetMode.DISABLED)  # gymnasium's own check reads what this one writes
    scaled = wrappers.vector.TransformObservation(same, np.negative)
    with pytest.raises(ValueError, match=r"TransformObservation must lie outside GymnasiumVecEnv in .* SAME_STEP"):
        GymnasiumVecEnv(scaled)
    with pytest.raises(ValueError, match="DictInfoToList must lie outside GymnasiumVecEnv, which reads infos"):
        GymnasiumVecEnv(wrappers.vector.DictInfoToList(same))


def test_wrong_kind_of_environment(untyped):
    with pytest.raises(TypeError, match="expects a stable-baselines3 VecEnv, got Walk; use DummyVecEnv"):
        VecRewardWrapper(Walk(), rd.environment_reward())


def test_missing_package_names_the_extra():
    code = "import sys; sys.modules['stable_baselines3'] = None; import reward_design.adapters.sb3"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert "need the extra 'sb3': pip install 'reward-design[sb3]'" in done.stderr


def test_reused_buffers_are_suspected():
    venv = VecRewardWrapper(DummyVecEnv([Walk] * LANES), rd.environment_reward())
    venv.reset()
    with pytest.warns(UserWarning, match="wrap each environment in gymnasium.wrappers.TransformObservation"):
        walk_to_the_end(venv)


def test_each_wrapper_names_the_one_that_takes_the_environment(untyped):
    venv, envs = DummyVecEnv(thunks()), SyncVectorEnv([Walk])
    for wrapper in (RewardWrapper, VectorRewardWrapper):
        with pytest.raises(TypeError, match=r"got DummyVecEnv; use reward_design.adapters.sb3.VecRewardWrapper\."):
            wrapper(venv, rd.environment_reward())
    with pytest.raises(TypeError, match="got SyncVectorEnv; use DummyVecEnv, GymnasiumVecEnv around a gymnasium"):
        VecRewardWrapper(envs, rd.environment_reward())
    for other in (venv, Walk()):
        with pytest.raises(
            TypeError, match=f"GymnasiumVecEnv expects a gymnasium VectorEnv, got {type(other).__name__}"
        ):
            GymnasiumVecEnv(other)


class Forgetful(Walk):
    """Its observations lack an entry of its space."""

    def _observed(self):
        return {"position": super()._observed()["position"]}


def test_an_observation_without_an_entry_of_its_space_is_named():
    env = RewardWrapper(Forgetful("dict"), shaping("dict"))
    with pytest.raises(ValueError, match=r"has the entry 'cell', but this value has only \['position'\]; give every"):
        env.reset(seed=0)
