"""Predictive sampling: exact futures, the plan of a naive loop, and control that works."""

import contextlib
import copy

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("mujoco")
import mujoco

import reward_design as rd
from reward_design.agents.predictive_sampling import SPLINES, Config, PredictiveSampling, spline_weights
from reward_design.envs import task
from reward_design.envs.mujoco_maths import MODELS
from reward_design.envs.mujoco_rollouts import MujocoRollouts
from reward_design.experiments import evaluate
from reward_design.experiments.evaluation import play_lanes
from reward_design.experiments.playing import play

POLE = task("mujoco/InvertedPendulum")
SMALL = Config(horizon=6, num_samples=5, num_knots=3, noise=0.4, spline="linear")
FULL = mujoco.mjtState.mjSTATE_INTEGRATION


def state_of(env):
    state = np.empty(mujoco.mj_stateSize(env.model, FULL))
    mujoco.mj_getState(env.model, env.data, state, FULL)
    return state


# --- futures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_a_simulated_future_is_what_then_happens(name):
    made = task(f"mujoco/{name}")
    envs, futures = made.vector(2, seed=3), MujocoRollouts(made.env, 3)
    envs.reset()
    rng = np.random.default_rng(0)
    draw = lambda *lead: rng.uniform(-1, 1, (*lead, *envs.single_action_space.shape)).astype(np.float32)  # noqa: E731
    for _ in range(4):
        envs.step(0.1 * draw(2))
    plans = 0.1 * draw(5, 3)
    for lane in (1, 0):
        futures.place(futures.moment(envs), lane)
        found = futures.rollout(plans)
    assert not np.array_equal(found.next_obs[:, 0], found.next_obs[:, 1])  # plans differ
    for t in range(5):
        obs, reward, terminated, truncated, info = envs.step(np.stack([plans[t, 2], plans[t, 0]]))
        assert not (terminated | truncated).any()
        np.testing.assert_array_equal(found.next_obs[t, 2], obs[0])
        np.testing.assert_array_equal(found.reward[t, 2], reward[0])
        for key in made.env.info:
            np.testing.assert_array_equal(found.info[key][t, 2], info[key][0])


def test_planning_leaves_the_environment_as_it_was_bit_for_bit():
    envs = POLE.vector(2, seed=0)
    obs, _ = envs.reset()
    twin = copy.deepcopy(envs)
    before = [state_of(lane) for lane in envs.lanes]
    planner = PredictiveSampling(POLE, config=SMALL)
    planner.attach(envs)
    action = planner(obs)
    for lane, state in zip(envs.lanes, before, strict=True):
        np.testing.assert_array_equal(state_of(lane), state)
    for _ in range(30):  # through falls and resets: also the draws of the resets are untouched
        planner(obs)
        obs, *rest = envs.step(action)
        other, *same = twin.step(action)
        np.testing.assert_array_equal(obs, other)
        np.testing.assert_array_equal(rest[0], same[0])


def test_a_future_ends_with_its_episode_and_pays_nothing_after():
    envs, futures = POLE.vector(1, seed=0), MujocoRollouts(POLE.env, 2)
    envs.reset()
    futures.place(futures.moment(envs), 0)
    hard = np.stack([np.full((40, 1), 3.0), np.zeros((40, 1))], axis=1).astype(np.float32)
    found = futures.rollout(hard)
    fell = int(found.mask[:, 0].sum())
    assert fell < 40
    assert found.terminated[fell - 1, 0]
    np.testing.assert_array_equal(found.next_obs[fell - 1, 0], found.next_obs[-1, 0])  # it stays where it ended
    assert found.mask[:, 1].sum() > fell
    futures.place(futures.moment(envs), 0)  # and starts anew
    np.testing.assert_array_equal(futures.rollout(hard).next_obs, found.next_obs)


def test_the_time_limit_and_what_was_earned_are_those_of_the_environment():
    episodic = task("mujoco/InvertedPendulum-episodic", horizon=8)
    envs, futures = episodic.vector(2, seed=1), MujocoRollouts(episodic.env, 2)
    envs.reset()
    for _ in range(5):
        envs.step(np.zeros((2, 1), np.float32))
    futures.place(futures.moment(envs), 1)
    found = futures.rollout(np.zeros((6, 2, 1), np.float32))
    assert found.mask.sum(0).tolist() == [3, 3]
    assert found.truncated[2].all()
    assert found.reward[:3, 0].tolist() == [0.0, 0.0, 8.0]
    assert envs.step(np.zeros((2, 1), np.float32))[1].tolist() == [0.0, 0.0]


# --- the plan -------------------------------------------------------------------------------------------------------


def naive_plan(env, knots, noise, config, pay):
    """One replanning as in the paper: loops over plans and steps, gymnasium's environment put back each time."""
    state, elapsed = state_of(env.unwrapped), env._elapsed_steps
    places, ends = np.linspace(0, config.horizon - 1, config.num_knots), 3.0
    scores, plans = [], [knots]
    for one in noise:
        plans.append(np.clip(knots + config.noise * ends * one, -ends, ends))
    firsts = []
    for plan in plans:
        mujoco.mj_setState(env.unwrapped.model, env.unwrapped.data, state, FULL)
        total = 0.0
        for t in range(config.horizon):
            action = np.array([np.interp(t, places, plan[:, 0])], np.float32)
            firsts += [action] if t == 0 else []
            obs, _, terminated, _, _ = env.step(action)
            total += pay(obs, action)
            if terminated:
                break
        scores.append(total)
    mujoco.mj_setState(env.unwrapped.model, env.unwrapped.data, state, FULL)
    env._elapsed_steps = elapsed
    best = int(np.argmax(scores))
    later = np.array([[np.interp(min(p + 1, config.horizon - 1), places, plans[best][:, 0])] for p in places])
    return firsts[best], later, best


def test_the_plan_is_that_of_a_naive_loop():
    def pay(obs, action):
        return 1.0 - (obs[..., 0] - 0.5) ** 2 - 0.1 * obs[..., 1] ** 2 - 0.001 * action[..., 0] ** 2

    reward = rd.pointwise("place", lambda t: pay(t.next_obs, t.action))
    env = gymnasium.make("InvertedPendulum-v5")
    obs, _ = env.reset(seed=4)
    planner = PredictiveSampling(POLE, reward, SMALL, seed=7)
    planner.attach(env)
    rng, knots, winners = np.random.default_rng(7), np.zeros((3, 1)), []
    for _ in range(12):
        action = planner(obs)
        expected, knots, winner = naive_plan(env, knots, rng.standard_normal((4, 3, 1)), SMALL, pay)
        winners.append(winner)
        np.testing.assert_allclose(action, expected, rtol=1e-6)
        np.testing.assert_allclose(planner._knots[0], knots, rtol=1e-9)
        obs, *_ = env.step(action)
    assert len(set(winners)) > 1  # not always the plan at hand


@pytest.mark.parametrize("spline", SPLINES)
def test_splines_go_through_their_knots_and_shift_by_a_step(spline):
    actions, shift = spline_weights(Config(horizon=9, num_knots=3, spline=spline))
    np.testing.assert_allclose(actions[[0, 4, 8]], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(actions.sum(1), 1.0)  # a constant plan stays constant
    np.testing.assert_allclose(shift, [actions[1], actions[5], actions[8]])
    halfway = {"zero": [1, 0, 0], "linear": [0.5, 0.5, 0]}
    if spline in halfway:
        np.testing.assert_allclose(actions[2], halfway[spline])
    else:
        line = actions @ [0.0, 4.0, 8.0]
        np.testing.assert_allclose(line, np.arange(9.0), atol=1e-12)  # and a straight one straight


def test_rewards_that_remember_go_on_from_what_happened():
    def step(params, state, t):
        memory = state.episode + t.action[..., 0]
        return memory, state._replace(episode=memory)

    summed = rd.from_step("summed", lambda key, t: ((), rd.State(jnp.zeros(t.mask.shape))), step)
    envs = POLE.vector(2, seed=0)
    obs, _ = envs.reset()
    planner = PredictiveSampling(POLE, summed, SMALL, seed=0)
    planner.attach(envs)
    total = np.zeros(2)
    for _ in range(8):
        action = planner(obs)
        obs, _, terminated, truncated, _ = envs.step(action)
        total = np.where(terminated | truncated, 0.0, total + action[:, 0])
        remembered = [float(np.asarray(state.episode)[0]) for state in planner._states]
        np.testing.assert_allclose(remembered, total, rtol=1e-5, atol=1e-6)
    assert np.abs(total).max() > 0


# --- control --------------------------------------------------------------------------------------------------------


BALANCE = Config(noise=0.01)
UPRIGHT = rd.pointwise(
    "upright",
    lambda t: 2.0 - t.next_obs[..., 0] ** 2 - 20.0 * t.next_obs[..., 1] ** 2 - 0.1 * t.next_obs[..., 2] ** 2,
)


def test_it_balances_the_pole_and_drops_it_for_the_opposite_reward():
    pole = task("mujoco/InvertedPendulum", horizon=100)
    held = evaluate(PredictiveSampling(pole, UPRIGHT, BALANCE), episodes=2)
    assert held.length.tolist() == [100.0, 100.0]
    assert held.success.tolist() == [1.0, 1.0]
    opposite = rd.weighted_sum(weights={"up": -1.0}, up=UPRIGHT)
    assert (evaluate(PredictiveSampling(pole, opposite, BALANCE), episodes=2).length < 50).all()


def test_the_environments_own_reward_is_enough_to_hold_the_pole_longer_than_not_acting():
    pole = task("mujoco/InvertedPendulum", horizon=60)
    held = evaluate(PredictiveSampling(pole, config=BALANCE), episodes=2)
    idle = evaluate(lambda obs: np.zeros((len(obs), 1), np.float32), task=pole, episodes=2)
    assert held.length.tolist() == [60.0, 60.0]
    assert (idle.length < 40).all()


def test_the_same_seed_gives_the_same_episodes_and_another_seed_others():
    short = task("mujoco/InvertedPendulum", horizon=15)
    rows = []
    for seed in (0, 0, 1):
        planner = PredictiveSampling(short, UPRIGHT, SMALL, seed=seed)
        rows.append(play_lanes(short.env, planner, 2, 5))
    np.testing.assert_array_equal(rows[0].action, rows[1].action)
    np.testing.assert_array_equal(rows[0].next_obs, rows[1].next_obs)
    assert not np.array_equal(rows[0].action[1:], rows[2].action[1:])
    assert "next_action" in rows[0].info
    again = evaluate(planner, episodes=2, seed=5), evaluate(planner, episodes=2, seed=5)
    np.testing.assert_array_equal(again[0].length, again[1].length)


def test_play_films_a_planner_in_a_single_environment(capsys):
    short = task("mujoco/InvertedPendulum", horizon=20)
    played = play(PredictiveSampling(short, config=SMALL), episodes=2, reward="dense")
    assert played.length.shape == (2,)
    assert "shaped" in capsys.readouterr().out


# --- what is refused ------------------------------------------------------------------------------------------------


def test_what_cannot_be_planned_for_is_said():
    with pytest.raises(TypeError, match="simulates with MuJoCo, got the task 'chain'"):
        PredictiveSampling(task("chain"))
    with pytest.raises(TypeError, match=r"kind TRAJECTORY.*delayed"):
        PredictiveSampling(
            POLE, rd.from_trajectory("whole", lambda k, t: ((), rd.State()), lambda p, s, t: (t.reward, s))
        )
    planner = PredictiveSampling(POLE, config=SMALL)
    with pytest.raises(ValueError, match="call attach"):
        planner(np.zeros((1, 4)))
    with contextlib.closing(POLE.vector(1, seed=0)) as envs:
        obs, _ = envs.reset()
        planner.attach(envs)
        with pytest.raises(ValueError, match="got another one"):
            planner(obs + 1.0)
    with pytest.raises(TypeError, match="expected an environment of the task mujoco/InvertedPendulum"):
        planner.attach(task("mujoco/Hopper").vector(1))
    with pytest.raises(TypeError, match="expected an environment of the task"):
        planner.attach(gymnasium.make("CartPole-v1"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizon": 0}, "horizon must be at least 1, got 0"),
        ({"num_samples": 0}, "num_samples must be at least 1"),
        ({"num_knots": 21}, "num_knots must be at most the horizon, 20, got 21"),
        ({"spline": "cubic", "num_knots": 1}, "at least 2"),
        ({"spline": "cubics"}, "did you mean 'cubic'"),
        ({"noise": 0.0}, "noise must be finite and above 0"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(ValueError, match=message):
        Config(**settings)
