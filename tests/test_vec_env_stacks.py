"""Stacks of stable-baselines3 wrappers against the hand-written loop of ``test_wrapper_stacks``."""

# pyright: reportArgumentType=false, reportOperatorIssue=false

import functools

import jax.numpy as jnp
import numpy as np
import pytest
from adapter_envs import lane_actions
from gymnasium.vector import AutoresetMode
from gymnasium.wrappers import vector
from test_wrapper_stacks import LANES, SEED, STEPS, Paid, bare, by_hand, everything, same, tenfold, walk, walks

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper

stable_baselines3 = pytest.importorskip("stable_baselines3")

from stable_baselines3.common import vec_env as sb3  # noqa: E402
from stable_baselines3.common.callbacks import EvalCallback  # noqa: E402
from stable_baselines3.common.monitor import Monitor  # noqa: E402

from reward_design.adapters.sb3 import GymnasiumVecEnv, VecRewardWrapper  # noqa: E402

CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def lanes(wrap=lambda env: env):
    return sb3.DummyVecEnv([lambda: wrap(walk())] * LANES)


def paying():
    """Environments that pay the numbers of the hand-written loop by themselves."""
    return sb3.DummyVecEnv([functools.partial(lambda paid: Paid(walk(), paid), by_hand(rows)) for rows in bare()])


def paid(venv):
    return VecRewardWrapper(venv, everything())


def drive(venv):
    """Rewards ``[B, T]``, observations after each step, and the infos of each step."""
    venv.seed(SEED)
    venv.reset()
    rows = [venv.step(action) for action in np.stack([lane_actions(lane, STEPS) for lane in range(LANES)], 1)]
    return np.stack([row[1] for row in rows], 1), np.stack([row[0] for row in rows], 1), [row[3] for row in rows]


def zero_framed(rows):
    """``VecFrameStack`` begins an episode with zeros."""
    seen, before = [], None
    for o, a, n, r, terminated, truncated in rows:
        before = np.zeros_like(o) if before is None else before
        seen.append((np.concatenate([before, o]), a, np.concatenate([o, n]), r, terminated, truncated))
        before = None if terminated or truncated else o
    return seen


INSIDE = {
    "Monitor": (lambda: lanes(Monitor), same),
    "VecMonitor": (lambda: sb3.VecMonitor(lanes()), same),
    "VecFrameStack": (lambda: sb3.VecFrameStack(lanes(), 2), zero_framed),
    "VecNormalize(norm_obs=False)": (lambda: sb3.VecNormalize(lanes(), norm_obs=False, norm_reward=False), same),
    "GymnasiumVecEnv": (lambda: GymnasiumVecEnv(walks(AutoresetMode.SAME_STEP)), same),
    "GymnasiumVecEnv DISABLED": (
        lambda: GymnasiumVecEnv(vector.TransformObservation(walks(AutoresetMode.DISABLED), lambda obs: 10 * obs)),
        tenfold,
    ),
}


@pytest.mark.parametrize("name", INSIDE)
def test_inside(name):
    make, seen = INSIDE[name]
    rewards, _, infos = drive(paid(make()))
    np.testing.assert_allclose(rewards, [by_hand(seen(rows)) for rows in bare()], **CLOSE)
    check_infos(infos, seen)


def check_infos(infos, seen):
    """Last observations, kinds of ends, and the environment's own reward and returns."""
    ends = 0
    for lane, rows in enumerate(bare()):
        total, expected = 0.0, seen(rows)
        for info, (_, _, next_obs, reward, terminated, truncated) in zip(infos, expected, strict=True):
            mine, total = info[lane], total + reward
            assert mine["env_reward"] == pytest.approx(reward, abs=1e-5)
            assert mine["TimeLimit.truncated"] == (truncated and not terminated)
            assert ("terminal_observation" in mine) == (terminated or truncated)
            if terminated or truncated:
                np.testing.assert_allclose(mine["terminal_observation"], next_obs, rtol=1e-5)
                assert mine.get("episode", {"r": total})["r"] == pytest.approx(total, abs=1e-4)
                total, ends = 0.0, ends + 1
    assert ends > 2 * LANES


OUTSIDE = {
    "VecMonitor": sb3.VecMonitor,
    "VecFrameStack": lambda venv: sb3.VecFrameStack(venv, 2),
    "VecNormalize": lambda venv: sb3.VecNormalize(venv, gamma=0.9),
    "all": lambda venv: sb3.VecCheckNan(sb3.VecFrameStack(sb3.VecNormalize(sb3.VecMonitor(venv), gamma=0.9), 2)),
}
REWARDED = {
    "vec": lambda: paid(lanes()),
    "single": lambda: lanes(lambda env: RewardWrapper(env, everything())),
    "vector": lambda: GymnasiumVecEnv(VectorRewardWrapper(walks(AutoresetMode.SAME_STEP), everything())),
}


@pytest.mark.parametrize("inner", REWARDED)
@pytest.mark.parametrize("name", OUTSIDE)
def test_outside(name, inner):
    wrap = OUTSIDE[name]
    (rewards, obs, infos), (expected, seen, others) = drive(wrap(REWARDED[inner]())), drive(wrap(paying()))
    np.testing.assert_allclose(rewards, expected, **CLOSE)
    np.testing.assert_allclose(obs, seen, **CLOSE)
    for ours, theirs in zip(infos, others, strict=True):
        for mine, other in zip(ours, theirs, strict=True):
            assert mine["TimeLimit.truncated"] == other["TimeLimit.truncated"]
            for key in {"terminal_observation", "episode"} & other.keys():
                one, two = (info[key] if key != "episode" else info[key]["r"] for info in (mine, other))
                np.testing.assert_allclose(one, two, **CLOSE)


def test_a_monitor_around_each_environment_logs_what_the_reward_pays():
    _, _, infos = drive(lanes(lambda env: Monitor(RewardWrapper(env, everything()))))
    counted = [info[0]["episode"]["r"] for info in infos if "episode" in info[0]]
    totals, total = [], 0.0
    for value, row in zip(by_hand(bare()[0]), bare()[0], strict=True):
        total += value
        if row[4] or row[5]:
            totals, total = [*totals, total], 0.0
    np.testing.assert_allclose(counted, totals, **CLOSE)


@functools.cache
def pointwise():
    def fn(t):
        return t.reward + jnp.abs(t.next_obs).sum(-1) * ~t.terminated + 5.0 * t.truncated - t.action[:, 0]

    return rd.pointwise("pointwise", fn)


@pytest.mark.parametrize("order", ["inside", "monitored", "stacked", "gymnasium"])
def test_replay_of_sac_holds_raw_observations_and_the_reward_of_each_transition(order):
    venv = {
        "inside": lambda: sb3.VecNormalize(VecRewardWrapper(lanes(), pointwise())),
        "monitored": lambda: sb3.VecMonitor(VecRewardWrapper(sb3.VecMonitor(lanes()), pointwise())),
        "stacked": lambda: sb3.VecFrameStack(VecRewardWrapper(lanes(), pointwise()), 2),
        "gymnasium": lambda: GymnasiumVecEnv(VectorRewardWrapper(walks(AutoresetMode.SAME_STEP), pointwise())),
    }[order]()
    agent = stable_baselines3.SAC(
        "MlpPolicy", venv, device="cpu", seed=0, learning_starts=30, buffer_size=99, policy_kwargs={"net_arch": [4]}
    ).learn(40)
    rows = agent.replay_buffer
    kept = slice(rows.pos)
    next_obs = np.abs(rows.next_observations[kept][..., -2:]).sum(-1)
    ended, cut = rows.dones[kept], rows.timeouts[kept]
    expected = (1.0 - next_obs) + next_obs * (1 - ended * (1 - cut)) + 5.0 * cut - rows.actions[kept][..., 0]
    np.testing.assert_allclose(rows.rewards[kept], expected, **CLOSE)
    assert 0 < cut.sum() < ended.sum()


def test_eval_callback_needs_the_same_wrappers_and_reports_what_monitors_below_log():
    def normalised(wrap, training=False):
        return sb3.VecNormalize(wrap(lanes(Monitor)), training=training)

    def large(venv):
        return VecRewardWrapper(venv, rd.scale(1e4))

    settings = {"n_steps": 16, "batch_size": 16, "n_epochs": 1, "device": "cpu"}
    agent = stable_baselines3.PPO("MlpPolicy", normalised(large, training=True), **settings)
    callback = EvalCallback(normalised(large), eval_freq=16, verbose=0)
    agent.learn(16 * LANES, callback=callback)
    assert 0 < abs(callback.last_mean_reward) < 100
    with pytest.raises(AssertionError, match="not being wrapped the same way as the evaluation env"):
        agent.learn(16 * LANES, callback=EvalCallback(normalised(lambda venv: venv), eval_freq=16, verbose=0))
