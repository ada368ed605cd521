"""Wrappers in an order that would silently give wrong numbers are refused; those that work give the right ones."""

# pyright: reportArgumentType=false, reportOperatorIssue=false

import functools
import warnings

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_envs import Walk, lane_actions
from gymnasium import wrappers
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv

import reward_design as rd
from reward_design.adapters import _order
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper
from reward_design.agents import ppo
from reward_design.envs import task
from reward_design.experiments import compare

LANES = 2
NEXT_STEP, SAME_STEP = AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP


@functools.cache
def double():
    return rd.chain(rd.environment_reward(), rd.scale(2.0))


@functools.cache
def delayed():
    return rd.delayed(rd.environment_reward())


def walks(mode, wrap=lambda env: env):
    return SyncVectorEnv([lambda: wrap(Walk(reuse=False))] * LANES, autoreset_mode=mode)


def drive(env, num_steps=20):
    """Rewards, infos and ends of one environment."""
    env.reset(seed=0)
    rows = []
    for action in lane_actions(0, num_steps):
        _, reward, terminated, truncated, info = env.step(action)
        rows.append((reward, info, terminated or truncated))
        if terminated or truncated:
            env.reset()
    return rows


# --- single environments --------------------------------------------------------------------------------------------


def test_normalise_reward_below_is_refused():
    for refused in (
        lambda: RewardWrapper(wrappers.NormalizeReward(Walk()), double()),
        lambda: RewardWrapper(wrappers.ClipReward(wrappers.NormalizeReward(Walk()), -1, 1), double()),
        lambda: VectorRewardWrapper(wrappers.vector.NormalizeReward(walks(NEXT_STEP)), double()),
        lambda: VectorRewardWrapper(walks(SAME_STEP, wrappers.NormalizeReward), double()),
    ):
        with pytest.raises(ValueError, match=r"NormalizeReward must lie outside (Vector)?RewardWrapper: below it"):
            refused()
    drive(wrappers.NormalizeReward(RewardWrapper(Walk(), double())))


def test_episode_statistics_count_what_is_below_them():
    inside = drive(RewardWrapper(wrappers.RecordEpisodeStatistics(Walk()), double()))
    outside = drive(wrappers.RecordEpisodeStatistics(RewardWrapper(Walk(), double())))
    pairs = [(a["episode"]["r"], b["episode"]["r"]) for (_, a, end), (_, b, _) in zip(inside, outside) if end]
    assert pairs
    np.testing.assert_allclose([2 * a for a, _ in pairs], [b for _, b in pairs], rtol=1e-5)


class Endless(Walk):
    """Walk that never ends by itself."""

    def step(self, action):
        obs, reward, _, _, info = super().step(action)
        return obs, reward, False, False, info


def paid_in_all(env, num_episodes=3):
    env.reset(seed=0)
    total, left = 0.0, num_episodes
    while left:
        _, reward, terminated, truncated, _ = env.step(np.zeros(2, np.float32))
        total += reward
        if terminated or truncated:
            env.reset()
            left -= 1
    return total


def test_a_time_limit_outside_is_noticed():
    """Control: the limit inside pays every episode at its end; outside nothing is ever paid."""
    assert paid_in_all(RewardWrapper(wrappers.TimeLimit(Endless(), 12), delayed())) != 0
    env = wrappers.TimeLimit(RewardWrapper(Endless(), delayed()), 12)
    with pytest.warns(UserWarning, match=r"three episodes were cut after 12 steps each.*TimeLimit\(env, 12\), reward"):
        assert paid_in_all(env) == 0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        paid_in_all(env, 6)


def test_a_time_limit_outside_is_noticed_where_shaping_takes_it_for_an_end():
    """Control: inside, an episode pays back its first potential; outside, it pays the difference to the last."""

    def potential(obs):
        return 2.0 + obs[..., 0]

    shaping = rd.potential_shaping(potential, gamma=1.0, time_limit_is_terminal=True, add=False)
    reward = rd.chain(rd.environment_reward(), rd.weighted_sum(shaping=shaping))
    assert paid_in_all(RewardWrapper(wrappers.TimeLimit(Endless(), 12), reward)) < -3.0
    env = wrappers.TimeLimit(RewardWrapper(Endless(), reward), 12)
    with pytest.warns(UserWarning, match="three episodes were cut after 12 steps each"):
        assert paid_in_all(env) > -3.0


def test_cut_episodes_that_are_no_time_limit_pass():
    gymnasium.register("Endless-v0", entry_point=Endless, max_episode_steps=12)
    env = RewardWrapper(gymnasium.make("Endless-v0", disable_env_checker=True), delayed())
    paid_in_all(env, 4)
    for length in (3, 3, 3, 10, 11, 10, 11):
        env.reset()
        for _ in range(length):
            env.step(np.zeros(2, np.float32))
    for reward in (double(), rd.potential_shaping(lambda obs: obs[..., 0], gamma=0.9)):  # none reads the time limit
        paid_in_all(wrappers.TimeLimit(RewardWrapper(Endless(), reward), 12), 4)


def test_autoreset_may_lie_on_either_side():
    inside, outside = (
        drive_autoreset(RewardWrapper(wrappers.Autoreset(Walk()), delayed())),
        drive_autoreset(wrappers.Autoreset(RewardWrapper(Walk(), delayed()))),
    )
    np.testing.assert_allclose(inside, outside, atol=1e-6)
    assert np.count_nonzero(inside) >= 2


def drive_autoreset(env):
    env.reset(seed=0)
    return [env.step(action)[1] for action in lane_actions(0, 20)]


def test_action_wrappers_outside_show_the_reward_what_the_environment_gets():
    effort = rd.pointwise("effort", lambda t: -jnp.abs(t.action).sum(-1))
    outside = wrappers.RescaleAction(RewardWrapper(Walk(), effort), -10, 10)
    inside = RewardWrapper(wrappers.RescaleAction(Walk(), -10, 10), effort)
    for env, expected in ((outside, -1.0), (inside, -10.0)):
        env.reset(seed=0)
        assert env.step(np.array([5.0, -5.0]))[1] == pytest.approx(expected, abs=1e-5)


def test_frame_skipping_inside_is_one_step_for_the_reward():
    shaping = rd.potential_shaping(lambda obs: -jnp.abs(obs).sum(-1), gamma=0.5)
    only = rd.chain(rd.environment_reward(), rd.scale(0.0), shaping)
    inside = RewardWrapper(wrappers.MaxAndSkipObservation(Walk(reuse=False), skip=2), only)
    outside = wrappers.MaxAndSkipObservation(RewardWrapper(Walk(reuse=False), only), skip=2)
    first, _ = inside.reset(seed=0)
    outside.reset(seed=0)
    successor, paid, terminated, *_ = inside.step(np.zeros(2, np.float32))
    assert not terminated
    assert paid == pytest.approx(-0.5 * np.abs(successor).sum() + np.abs(first).sum(), abs=1e-5)
    assert abs(outside.step(np.zeros(2, np.float32))[1] - paid) > 0.01


# --- vector environments --------------------------------------------------------------------------------------------


def test_dict_info_to_list_below_is_refused():
    with pytest.raises(ValueError, match="DictInfoToList must lie outside VectorRewardWrapper"):
        VectorRewardWrapper(wrappers.vector.DictInfoToList(walks(NEXT_STEP)), double())


def normalised():
    return wrappers.NormalizeReward(gymnasium.make("Pendulum-v1"))


def test_normalise_reward_is_found_in_other_processes():
    for make, fits in ((normalised, False), (functools.partial(gymnasium.make, "Pendulum-v1"), True)):
        envs = AsyncVectorEnv([make], context="spawn", autoreset_mode=SAME_STEP)
        try:
            if fits:
                VectorRewardWrapper(envs, double()).reset()
                continue
            with pytest.raises(ValueError, match="NormalizeReward must lie outside VectorRewardWrapper: below it"):
                VectorRewardWrapper(envs, double())
            assert envs.reset()[0].shape == (1, 3)
        finally:
            envs.close()


def test_observation_wrappers_that_leave_final_obs_alone_are_refused():
    """gymnasium's own check reads a mode that all vector environments of a class share, so it can be got past."""
    envs = walks(SAME_STEP)
    walks(NEXT_STEP)  # writes its mode into the metadata of envs too
    scaled = tenfold(envs)
    with pytest.raises(ValueError, match=r"TransformObservation must lie outside VectorRewardWrapper.*SAME_STEP"):
        VectorRewardWrapper(scaled, double())
    VectorRewardWrapper(tenfold(walks(NEXT_STEP)), double())


def tenfold(envs):
    return wrappers.vector.TransformObservation(
        envs, lambda obs: 10 * obs, envs.observation_space, envs.single_observation_space
    )


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
def test_episode_statistics_are_refused_exactly_where_they_count_wrongly(mode):
    envs = wrappers.vector.RecordEpisodeStatistics(walks(mode))
    envs.reset(seed=0)
    lengths, time, wrong = [], np.zeros(LANES, int), False
    resetting = np.zeros(LANES, bool)
    for _ in range(40):
        *_, terminated, truncated, infos = envs.step(np.zeros((LANES, 2), np.float32))
        time += ~resetting
        ended = terminated | truncated
        if ended.any():
            lengths.append(time[ended].tolist())
            wrong |= lengths[-1] != infos["episode"]["l"][ended].tolist()
        time[ended] = 0
        resetting = ended if mode is NEXT_STEP else resetting
        if mode is AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended.copy()})
    assert wrong == (mode.name.lower() in _order._MISCOUNTED)
    if not wrong:
        VectorRewardWrapper(envs, double())
        return
    with pytest.raises(ValueError, match=f"counts wrongly in autoreset mode {mode.name} .*; wrap each environment"):
        VectorRewardWrapper(envs, double())


@pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)
@pytest.mark.parametrize("outer", ["lanes", "vector"])
def test_stacked_wrappers_keep_the_innermost_reward_at_every_step(outer, mode):
    if outer == "lanes":
        envs = VectorRewardWrapper(walks(mode, lambda env: RewardWrapper(env, double())), double())
    else:
        envs = VectorRewardWrapper(VectorRewardWrapper(walks(mode), double()), double())
    envs.reset(seed=0)
    ends = 0
    for _ in range(20):
        _, rewards, terminated, truncated, infos = envs.step(np.zeros((LANES, 2), np.float32))
        known = infos["_env_reward"]
        np.testing.assert_allclose(rewards[known], 4 * infos["env_reward"][known], rtol=1e-5)
        ended = terminated | truncated
        ends += ended.sum()
        if mode is AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended})
    assert ends > 4


# --- agents on the host ---------------------------------------------------------------------------------------------

HALF = gymnasium.spaces.Box(-1.0, 1.0, (1,), np.float32)
CONFIG = ppo.Config(total_timesteps=64, num_envs=LANES, num_steps=16, num_minibatches=1, hidden=(4,))


def trained(envs, config=CONFIG):
    return ppo.train_host(config, envs, rd.environment_reward(), jax.random.key(0))


def cartpoles(wrap=lambda env: env, mode=SAME_STEP):
    return SyncVectorEnv([lambda: wrap(gymnasium.make("CartPole-v1"))] * LANES, autoreset_mode=mode)


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda: VectorRewardWrapper(cartpoles(), double()),
        lambda: wrappers.vector.TransformReward(VectorRewardWrapper(cartpoles(), double()), np.sign),
        lambda: cartpoles(lambda env: RewardWrapper(env, double())),
        lambda: wrappers.vector.NormalizeReward(cartpoles()),
        lambda: cartpoles(wrappers.NormalizeReward),
    ],
    ids=["vector", "below another", "lanes", "normalised", "normalised lanes"],
)
def test_agents_on_the_host_refuse_rewards_that_would_count_as_the_true_return(wrapped):
    with pytest.raises(ValueError, match=r"train_host needs environments that pay their own reward, got \w*Reward"):
        trained(wrapped())


def test_agents_on_the_host_train_with_what_leaves_the_reward_alone():
    single = trained(cartpoles(lambda env: wrappers.TransformObservation(wrappers.ClipReward(env, -1, 1), tenth, None)))
    scaled = trained(tenfold(cartpoles(mode=NEXT_STEP)))
    for result in (single, scaled):
        assert (result.metrics["true_return"] > 5).all()
        np.testing.assert_array_equal(result.metrics["true_return"], result.metrics["length"])


def tenth(obs):
    return obs / 10


def test_agents_on_the_host_refuse_observations_and_infos_that_they_would_misread():
    with pytest.raises(ValueError, match="DictInfoToList cannot be used with train_host, which reads infos as a dict"):
        trained(wrappers.vector.DictInfoToList(cartpoles()))
    envs = walks(SAME_STEP)
    walks(NEXT_STEP)  # writes its mode into the metadata of envs too
    with pytest.raises(ValueError, match=r"TransformObservation cannot be used with train_host in .* SAME_STEP"):
        trained(tenfold(envs))
    pendulums = task("gymnasium/Pendulum-v1").vector(LANES)
    halved = wrappers.vector.TransformAction(
        pendulums, lambda action: 2 * action, gymnasium.vector.utils.batch_space(HALF, LANES), HALF
    )
    text = r"needs the actions of 'gymnasium/Pendulum-v1', Box\(-2.0, 2.0, .* makes Box\(-1.0, 1.0, .* task_from_gymn"
    with pytest.raises(ValueError, match=text):
        trained(halved)
    assert np.isfinite(trained(pendulums).metrics["policy_loss"]).all()


# --- rewards that read what is not there ----------------------------------------------------------------------------


def lost():
    return rd.potential_shaping(lambda obs: obs["goal"].sum(-1), gamma=0.99)


def test_a_missing_key_of_the_observation_is_named_with_those_there_are():
    text = r"'potential_shaping' reads 'goal', which is no key of the observation \(it has cell, position\)"
    with pytest.raises(ValueError, match=text + r" and not among info_keys = \(\)"):
        RewardWrapper(Walk("dict"), lost())
    with pytest.raises(ValueError, match=r"reads 'goal' by its name from an array, .* one array of shape \(2,\)"):
        RewardWrapper(Walk(), lost())


def test_compare_names_a_missing_key_before_it_trains(tmp_path):
    info = rd.pointwise("windy", lambda t: t.info["wind"])
    for reward, text in (
        (info, r"reward 'windy' reads 'wind', which is no entry of the info \(it has next_action\)"),
        (lost(), "reads 'goal' by its name from an array"),
    ):
        with pytest.raises(ValueError, match=text):
            compare(task("cartpole"), {"mine": reward}, out=tmp_path / "none", progress=False, report=False)
    assert not (tmp_path / "none").exists()


def test_other_errors_of_a_reward_are_its_own():
    def fn(t):
        return jnp.zeros(1) + None

    with pytest.raises(TypeError) as caught:
        RewardWrapper(Walk(), rd.pointwise("mistaken", fn))
    assert "by its name" not in str(caught.value)
