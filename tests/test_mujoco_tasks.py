"""MuJoCo: the vector environment against gymnasium's own, step by step."""

import copy
import pickle
from typing import Any

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

pytest.importorskip("mujoco")

import reward_design as rd
from reward_design.adapters.gymnasium import VectorRewardWrapper
from reward_design.agents import ppo
from reward_design.agents.collector import Collector
from reward_design.envs import task
from reward_design.envs.mujoco_lanes import MujocoVectorEnv
from reward_design.envs.mujoco_maths import MODELS

LANES = 3


def theirs(name, horizon=None):
    make = [lambda: gymnasium.make(f"{name}-v5", max_episode_steps=horizon)] * LANES
    return gymnasium.vector.SyncVectorEnv(make, autoreset_mode=AutoresetMode.SAME_STEP)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("horizon", [None, 37])
def test_every_step_is_that_of_gymnasium(name, horizon):
    ours, reference = MujocoVectorEnv(name, LANES, horizon=horizon), theirs(name, horizon)
    np.testing.assert_array_equal(ours.reset(seed=5)[0], reference.reset(seed=5)[0])
    reference.action_space.seed(1)
    ends = 0
    for _ in range(300 if horizon is None else 80):
        action = reference.action_space.sample()
        one, two = ours.step(action), reference.step(action)
        for a, b in zip(one[:4], two[:4], strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)
        ended = one[2] | one[3]
        final = two[4].get("final_info", {})
        for lane in range(LANES):
            infos = final if ended[lane] else two[4]
            for key in MODELS[name].info:
                np.testing.assert_allclose(one[4][key][lane], infos[key][lane], rtol=1e-6, atol=1e-9)
            if ended[lane]:
                np.testing.assert_allclose(one[4]["final_obs"][lane], two[4]["final_obs"][lane], rtol=1e-9, atol=1e-9)
        ends += ended.sum()
    assert ends >= (2 * LANES if horizon or name in ("Hopper", "Walker2d", "InvertedPendulum", "Humanoid") else 0)


def test_a_seed_fixes_everything_that_follows():
    def returns(seed):
        envs = task("mujoco/Hopper").vector(2, seed=seed)
        envs.reset()
        return [envs.step(np.full((2, 3), 0.3, np.float32))[0].tolist() for _ in range(60)]

    assert returns(3) == returns(3) != returns(4)


def test_observations_are_not_overwritten_later():
    envs = MujocoVectorEnv("HalfCheetah", 2, seed=0)
    first = envs.reset()[0]
    kept = first.copy()
    rows = [envs.step(np.ones((2, 6), np.float32))[0] for _ in range(3)]
    np.testing.assert_array_equal(first, kept)
    assert not np.array_equal(rows[0], rows[1])


@pytest.mark.parametrize("field", ["qpos", "qvel"])
def test_a_simulator_that_breaks_ends_its_episode_alone(field):
    ours, reference = (MujocoVectorEnv("HalfCheetah", LANES, seed=0) for _ in range(2))
    ours.reset()
    reference.reset()
    action = np.full((LANES, 6), 0.1, np.float32)
    before = ours.step(action)[0]
    reference.step(action)
    getattr(ours.lanes[1].data, field)[3] = np.nan
    obs, reward, terminated, truncated, infos = ours.step(action)
    expected = reference.step(action)
    assert infos["simulator_fault"].tolist() == truncated.tolist() == [False, True, False]
    assert not terminated.any()
    assert reward[1] == 0
    np.testing.assert_array_equal(infos["final_obs"][1], before[1])
    assert np.isfinite(obs).all()
    for lane in (0, 2):
        np.testing.assert_array_equal(obs[lane], expected[0][lane])
        assert reward[lane] == expected[1][lane]
    assert np.isfinite(ours.step(action)[0]).all()


def test_a_fault_before_the_first_step_of_an_episode_is_seen():
    envs = MujocoVectorEnv("HalfCheetah", 2, seed=0)
    envs.reset()
    envs.lanes[0].data.qvel[2] = np.inf
    _, reward, _, truncated, infos = envs.step(np.zeros((2, 6)))
    assert infos["simulator_fault"].tolist() == truncated.tolist() == [True, False]
    assert reward[0] == 0
    assert not envs.step(np.zeros((2, 6)))[4]["simulator_fault"].any()


@pytest.mark.parametrize("name", ["HalfCheetah", "Ant", "Hopper-sparse", "HalfCheetah-episodic"])
@pytest.mark.parametrize("field", ["qpos", "qvel"])
def test_a_single_simulator_that_breaks_ends_its_episode(name, field):
    known = task(f"mujoco/{name}")
    env = known.make()
    env.reset(seed=0)
    action = np.full(known.env.action_space.shape or (), 0.1, np.float32)
    before, *_, info = env.step(action)
    assert info["simulator_fault"] is False
    getattr(env.unwrapped.data, field)[3] = np.nan
    obs, reward, terminated, truncated, info = env.step(action)
    assert (reward, terminated, truncated, info["simulator_fault"]) == (0.0, False, True, True)
    np.testing.assert_array_equal(obs, before)
    assert all(np.isfinite(value).all() for value in info.values())
    assert set(known.env.info) <= set(info)
    env.reset()
    obs, *_, info = env.step(action)
    assert np.isfinite(obs).all()
    assert info["simulator_fault"] is False
    with pytest.raises(ValueError, match="actions must be finite"):
        env.step(np.full_like(action, np.nan))


def test_a_single_simulator_that_breaks_is_counted_in_training():
    known = task("mujoco/HalfCheetah")
    envs = gymnasium.vector.SyncVectorEnv([known.make] * 2, autoreset_mode=AutoresetMode.SAME_STEP)
    collector = Collector(envs, known.env, 3)  # pyright: ignore[reportArgumentType]
    zeros = lambda obs, rng: (np.zeros((2, 6), np.float32), np.zeros(2))  # noqa: E731
    collector.collect(zeros, np.random.default_rng(0))
    envs.envs[1].unwrapped.data.qvel[2] = np.nan
    rows, _ = collector.collect(zeros, np.random.default_rng(0))
    assert rows.truncated.tolist() == [[False, True], [False, False], [False, False]]
    assert collector.faults == 1
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rows))


def assert_goes_on(envs, other, steps):
    rng = np.random.default_rng(3)
    for _ in range(steps):
        action = rng.uniform(-1, 1, envs.action_space.shape).astype(np.float32)
        one, two = envs.step(action), other.step(action)
        for a, b in zip(one[:4], two[:4], strict=True):
            np.testing.assert_array_equal(a, b)
        assert one[4].keys() == two[4].keys()
        jax.tree.map(np.testing.assert_array_equal, one[4], two[4])


@pytest.mark.parametrize("name", [*MODELS, "Hopper-episodic", "Ant-sparse"])
@pytest.mark.parametrize("through", [copy.deepcopy, lambda envs: pickle.loads(pickle.dumps(envs))])
def test_a_copy_goes_on_as_the_original(name, through):
    envs = task(f"mujoco/{name}", horizon=30).vector(2, seed=0)
    other = through(envs)  # before the first reset
    np.testing.assert_array_equal(envs.reset()[0], other.reset()[0])
    assert_goes_on(envs, other, 7)
    other = through(envs)  # in an episode
    assert_goes_on(envs, other, 40)  # new ones among them
    envs.step(np.ones(envs.action_space.shape or (), np.float32))  # moves one alone
    assert other.host_env.name == envs.host_env.name
    assert (other.host_env is envs.host_env) == (through is copy.deepcopy)
    for each in (envs, other):
        each.close()


def test_info_can_be_written_to():
    one, two = (MujocoVectorEnv("Ant", 2, seed=0) for _ in range(2))
    one.reset()
    two.reset()
    for value in one.step(np.ones((2, 8)))[4].values():
        value[:] = 7
    two.step(np.ones((2, 8)))
    np.testing.assert_array_equal(one.step(np.ones((2, 8)))[1], two.step(np.ones((2, 8)))[1])


@pytest.mark.parametrize("num_threads", [1, 3])
def test_threads_change_nothing(num_threads):
    envs, reference = (
        MujocoVectorEnv("Hopper", 4, seed=0, num_threads=num_threads),
        MujocoVectorEnv("Hopper", 4, seed=0),
    )
    envs.reset()
    reference.reset()
    for _ in range(50):
        action = np.random.default_rng(1).uniform(-1, 1, (4, 3))
        np.testing.assert_array_equal(envs.step(action)[0], reference.step(action)[0])
    envs.close()
    envs.close()


def recorded(name, steps=300):
    """Transitions of random play ``[T, B]`` and the task."""
    known = task(f"mujoco/{name}")
    envs = known.vector(2, seed=0)
    envs.action_space.seed(0)
    obs, rows = envs.reset()[0], []
    for _ in range(steps):
        action = envs.action_space.sample()
        after, reward, terminated, truncated, infos = envs.step(action)
        ended = (terminated | truncated)[:, None]
        next_obs = np.where(ended, infos.get("final_obs", after), after)
        info = {key: np.asarray(infos[key], np.float32) for key in known.env.info}
        rows.append((obs, action, next_obs, reward, terminated, truncated, info))
        obs = after
    stacked = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(v) for v in x]), *rows)
    *parts, info = stacked
    return known, rd.Transition(*parts, jnp.ones((steps, 2), bool), info)


@pytest.mark.parametrize("name", [*MODELS, "HalfCheetah-sparse", "Reacher-sparse", "Hopper-episodic"])
def test_what_a_task_says_of_recorded_steps(name):
    known, rows = recorded(name)
    for factor in known.factors.values():
        values = np.asarray(factor.fn(rows))
        assert values.shape == (300, 2)
        assert np.isfinite(values).all()
        assert factor.sign in (-1, 1)
    assert known.potential(rows.obs).shape == (300, 2)
    for reward in (known.true_reward, known.sparse_reward, known.dense_reward, *known.auxiliary.values()):
        params, state = reward.init(jax.random.key(0), known.example._replace())
        example = jax.tree.map(lambda x: jnp.concatenate([x, x]), known.example)
        params, state = reward.init(jax.random.key(0), example)
        output, _ = reward.unroll(params, state, rows)
        assert np.isfinite(output.reward).all()
    assert np.asarray(known.success(rows)).shape == (300, 2)
    assert len(known.description) > 100


def test_the_forward_factor_is_the_velocity():
    known, rows = recorded("HalfCheetah", 50)
    np.testing.assert_allclose(known.factors["forward_velocity"].fn(rows), rows.info["x_velocity"])
    np.testing.assert_allclose(rows.reward, known.factors["forward_velocity"].fn(rows)
                               - 0.1 * known.factors["effort"].fn(rows), atol=1e-5)  # fmt: skip


def test_episodic_pays_the_same_in_the_end():
    envs, episodic = (task(f"mujoco/Hopper{variant}").vector(2, seed=0) for variant in ("", "-episodic"))
    single = task("mujoco/Hopper-episodic").make()
    envs.reset(seed=9)
    episodic.reset(seed=9)
    episodic.step(np.ones((2, 3)))  # what an episode has earned is forgotten when it is reset
    envs.reset(seed=0)
    episodic.reset(seed=np.int64(0))  # pyright: ignore[reportArgumentType]
    single.reset(seed=0)
    rng, total, ends = np.random.default_rng(0), np.zeros(2), 0
    while ends < 4:
        action = rng.uniform(-1, 1, (2, 3)).astype(np.float32)
        (_, reward, terminated, truncated, _), (_, paid, *_) = envs.step(action), episodic.step(action)
        total, ended = total + reward, terminated | truncated
        np.testing.assert_allclose(paid, np.where(ended, total, 0.0), rtol=1e-12)
        if single is not None:
            single_paid = single.step(action[0])[1]
            assert single_paid == pytest.approx(paid[0])
            single = None if ended[0] else single
        total[ended] = 0
        ends += ended.sum()


def test_sparse_pays_past_the_distance_only():
    known = task("mujoco/HalfCheetah-sparse", distance=0.02)
    envs = known.vector(2, seed=0)
    envs.reset()
    for _ in range(100):
        _, reward, _, _, infos = envs.step(np.random.default_rng(0).uniform(-1, 1, (2, 6)).astype(np.float32))
        np.testing.assert_array_equal(reward, infos["x_position"] > 0.02)


def test_wrapped_and_copied():
    known = task("mujoco/Swimmer")
    for env in (copy.deepcopy(known.env), pickle.loads(pickle.dumps(known.env))):
        assert env.observation_space == known.env.observation_space
    speed = rd.pointwise("speed", lambda t: t.info["x_velocity"])
    envs = VectorRewardWrapper(task("mujoco/Hopper").vector(2, seed=0), speed, info_keys=["x_velocity"])
    envs.reset()
    ends = 0
    while ends < 3:
        _, reward, terminated, truncated, infos = envs.step(np.ones((2, 3), np.float32))
        np.testing.assert_allclose(reward, infos["x_velocity"], rtol=1e-6)
        ends += (terminated | truncated).sum()
    assert known.make().spec.id == "Swimmer-v5"


def test_ppo_trains_on_it():
    known = task("mujoco/InvertedPendulum")
    config = ppo.Config(total_timesteps=512, num_steps=64, hidden=(8,))
    shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(known.potential, gamma=known.gamma))
    result = ppo.train_host(config, known.vector(4), shaped, jax.random.key(0))
    assert 1 < result.metrics["true_return"][-1] < 200
    assert np.isfinite(result.metrics["value_loss"]).all()


# --- the weight of the control cost, and the heuristics of BARFI's study ---------------------------------------------


def test_heuristics_of_the_control_cost_equal_a_loop():
    known, rows = recorded("HalfCheetah", 120)
    actions = np.asarray(rows.action, np.float64)
    expected = np.array([[-sum(a * a for a in lane) for lane in step] for step in actions])
    assert np.abs(expected).max() > 1

    def paid(name, rows=rows):
        reward = known.auxiliary[name]
        params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], rows))
        return np.asarray(reward.unroll(params, state, rows)[0].reward)

    np.testing.assert_allclose(paid("control_cost"), expected, rtol=1e-5)
    np.testing.assert_allclose(paid("control_cost_4"), 4 * expected, rtol=1e-5)
    np.testing.assert_allclose(paid("control_cost"), rows.info["reward_ctrl"] / 0.1, rtol=1e-5)
    ended = rows._replace(truncated=jnp.ones_like(rows.truncated))  # paid on the last step as well
    np.testing.assert_array_equal(paid("control_cost", ended), paid("control_cost"))
    assert not paid("none").any()


def test_the_primary_reward_of_the_study_is_the_velocity():
    known = task("mujoco/HalfCheetah", ctrl_cost_weight=0.0)
    envs, usual, single = known.vector(2), task("mujoco/HalfCheetah").vector(2), known.make()
    for each in (envs, usual):
        each.reset(seed=3)
    single.reset(seed=3)
    rng, costs = np.random.default_rng(0), 0.0
    for _ in range(100):
        before = np.array([lane.data.qpos[0] for lane in envs.lanes])  # pyright: ignore[reportAttributeAccessIssue]
        action = rng.uniform(-1, 1, (2, 6)).astype(np.float32)
        (obs, reward, *_, info), (same_obs, less, *_) = envs.step(action), usual.step(action)
        after = np.array([lane.data.qpos[0] for lane in envs.lanes])  # pyright: ignore[reportAttributeAccessIssue]
        np.testing.assert_allclose(reward, (after - before) / 0.05, rtol=1e-9, atol=1e-12)
        np.testing.assert_array_equal(reward, info["x_velocity"])
        np.testing.assert_array_equal(obs, same_obs)
        np.testing.assert_allclose(reward - less, 0.1 * np.square(action).sum(1), rtol=1e-5)
        assert float(single.step(action[0])[1]) == pytest.approx(reward[0], rel=1e-9)
        costs += (reward - less).sum()
    assert costs > 20
    assert "weight of the squared torques or forces is 0 instead" in known.description


@pytest.mark.parametrize("name", [name for name, model in MODELS.items() if model.control])
def test_any_weight_gives_what_gymnasium_gives(name):
    keyword, default = MODELS[name].control or ("", 0.0)
    weight = 3 * default
    ours, usual = (MujocoVectorEnv(name, 1, ctrl_cost_weight=w) for w in (weight, None))
    ours = pickle.loads(pickle.dumps(ours))
    settings: dict[str, Any] = {keyword: weight}
    reference = gymnasium.make(f"{name}-v5", **settings)
    single = task(f"mujoco/{name}", ctrl_cost_weight=weight).make()
    for each in (ours, usual, reference, single):
        each.reset(seed=1)
    rng, apart = np.random.default_rng(0), 0.0
    for _ in range(15):
        action = rng.uniform(reference.action_space.low, reference.action_space.high).astype(np.float32)
        _, reward, terminated, *_ = ours.step(action[None])
        assert reward[0] == pytest.approx(float(reference.step(action)[1]), rel=1e-9, abs=1e-9)
        assert reward[0] == pytest.approx(float(single.step(action)[1]), rel=1e-9, abs=1e-9)
        apart = max(apart, abs(reward[0] - usual.step(action[None])[1][0]))
        if terminated[0]:
            break
    assert apart > default * 0.05


def test_a_weight_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match=r"'InvertedPendulum' has no control cost, got ctrl_cost_weight=0.5; leave it"):
        task("mujoco/InvertedPendulum", ctrl_cost_weight=0.5)
    for weight in (-1.0, float("nan"), float("inf")):
        with pytest.raises(ValueError, match=f"of 'Ant' must be finite and not negative, got {weight}"):
            task("mujoco/Ant", ctrl_cost_weight=weight)
    with pytest.raises(ValueError, match="has no control cost"):
        MujocoVectorEnv("InvertedPendulum", 1, ctrl_cost_weight=0.0)


def test_bad_input_is_refused_with_one_sentence():
    with pytest.raises(ValueError, match=r"unknown MuJoCo environment 'HalfCheeta'; did you mean 'HalfCheetah'\?"):
        task("mujoco/HalfCheeta")
    with pytest.raises(ValueError, match="'Humanoid' has no variant 'dense'; there are sparse, episodic"):
        task("mujoco/Humanoid-dense")
    envs = MujocoVectorEnv("Hopper", 2)
    with pytest.raises(ValueError, match="horizon must be a positive integer, got 0"):
        task("mujoco/Hopper", horizon=0)
    with pytest.raises(ValueError, match="num_envs must be at least 1, got 0"):
        MujocoVectorEnv("Hopper", 0)
    with pytest.raises(gymnasium.error.ResetNeeded, match="must be reset before the first step"):
        envs.step(np.zeros((2, 3)))
    envs.reset()
    with pytest.raises(ValueError, match=r"actions of 'Hopper' must be \(2, 3\), got \(2, 4\)"):
        envs.step(np.zeros((2, 4)))
    with pytest.raises(ValueError, match=r"actions of 'Hopper' must be finite, got .* in lane 1"):
        envs.step(np.array([[0, 0, 0], [0, np.nan, 0]]))
