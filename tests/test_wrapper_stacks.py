"""Stacks of wrappers as users build them, against a hand-written loop over the bare environment's steps.

The reward of these tests depends on everything that a wrong order or a wrong reset can spoil: both observations, the
action, the kind of end, and two memories (the time in the episode and where its first step led).
"""

# pyright: reportArgumentType=false

import copy
import functools

import gymnasium
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_envs import Walk, lane_actions, record
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper
from reward_design.envs.serial_vector import SerialVectorEnv

LANES, STEPS, SEED, GAMMA = 2, 16, 5, 0.9
MODES = list(AutoresetMode)


@functools.cache
def everything():
    """One reward for all stacks."""

    def size(obs):
        return jnp.abs(obs).sum(tuple(range(1, obs.ndim)))

    def init(key, example):
        return (), rd.State(episode={"time": jnp.zeros_like(example.reward), "first": jnp.zeros_like(example.next_obs)})

    def step(params, state, t):
        time = state.episode["time"]
        start = (time == 0).reshape(-1, *[1] * (t.next_obs.ndim - 1))
        first = jnp.where(start, t.next_obs, state.episode["first"])
        shaping = size(t.obs) - GAMMA * size(t.next_obs) * ~t.terminated
        value = t.reward + shaping - 0.1 * time + size(t.next_obs - first) - 0.5 * size(t.action) + 3.0 * t.truncated
        return value, state._replace(episode={"time": time + 1, "first": first})

    return rd.from_step("everything", init, step)


def by_hand(rows):
    """The same reward in a plain loop over ``(obs, action, next_obs, reward, terminated, truncated)``."""
    paid, time, first = [], 0, None
    for obs, action, next_obs, reward, terminated, truncated in rows:
        first = next_obs if time == 0 else first
        value = reward + np.abs(obs).sum() - 0.1 * time + np.abs(next_obs - first).sum() - 0.5 * np.abs(action).sum()
        value -= 0.0 if terminated else GAMMA * np.abs(next_obs).sum()
        paid.append(value + (3.0 if truncated and not terminated else 0.0))
        time = 0 if terminated or truncated else time + 1
    return paid


@functools.cache
def bare():
    """The bare environment, lane by lane; the agent asks for the actions of ``lane_actions``."""
    return [[row[:6] for row in rows] for rows in record(LANES, STEPS, "box", SEED)]


# --- what each wrapper does, in NumPy ---------------------------------------------------------------------------------


def same(rows):
    return rows


def tenfold(rows):
    return [(10 * o, a, 10 * n, *rest) for o, a, n, *rest in rows]


def asked(rows):
    """The action as the agent gives it, where the environment gets a tenth."""
    return [(o, 10 * a, *rest) for o, a, *rest in rows]


def framed(rows):
    """The last two observations, the first one twice at the start of an episode."""
    seen, fresh, before = [], True, None
    for o, a, n, r, terminated, truncated in rows:
        before = o if fresh else before
        seen.append((np.stack([before, o]), a, np.stack([o, n]), r, terminated, truncated))
        fresh, before = terminated or truncated, o
    return seen


def halved(rows):
    return [(o, a, n, r / 2, *rest) for o, a, n, r, *rest in rows]


# name: (wrapper, what the reward sees where it lies inside, the agent's actions times this)
SINGLE = {
    "none": (lambda env: env, same, 1),
    "TimeLimit": (lambda env: wrappers.TimeLimit(env, 50), same, 1),
    "RecordEpisodeStatistics": (wrappers.RecordEpisodeStatistics, same, 1),
    "OrderEnforcing": (wrappers.OrderEnforcing, same, 1),
    "TransformObservation": (lambda env: wrappers.TransformObservation(env, lambda o: 10 * o, None), tenfold, 1),
    "FrameStackObservation": (lambda env: wrappers.FrameStackObservation(env, 2), framed, 1),
    "RescaleAction": (lambda env: wrappers.RescaleAction(env, np.float32(-10), np.float32(10)), asked, 10),
    "ClipAction": (wrappers.ClipAction, same, 1),
    "TransformReward": (lambda env: wrappers.TransformReward(env, lambda r: r / 2), halved, 1),
}


def in_vector(make, mode, wrap=lambda envs: envs):
    return wrap(SyncVectorEnv([make] * LANES, autoreset_mode=mode))


def drive(envs, mode, factor=1):
    """Rewards ``[B, T]`` of the real steps; each lane takes its own actions, whatever resets in between."""
    actions = factor * np.stack([lane_actions(lane, STEPS) for lane in range(LANES)])
    envs.reset(seed=SEED)
    paid, resetting = [[] for _ in range(LANES)], np.zeros(LANES, bool)
    while min(map(len, paid)) < STEPS:
        cursor = [min(len(rows), STEPS - 1) for rows in paid]
        _, rewards, terminated, truncated, _ = envs.step(actions[np.arange(LANES), cursor])
        for lane in np.flatnonzero(~resetting):
            paid[lane].append(rewards[lane])
        ended = terminated | truncated
        resetting = ended & (mode is AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended.copy()})
    return np.array([rows[:STEPS] for rows in paid])


def walk():
    return Walk(reuse=False)


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
@pytest.mark.parametrize("name", SINGLE)
def test_single_wrappers_inside_and_outside(name, mode):
    wrap, seen, factor = SINGLE[name]
    below = [by_hand(seen(rows)) for rows in bare()]
    above = np.array([by_hand(rows) for rows in bare()]) / (2 if name == "TransformReward" else 1)
    inside = in_vector(lambda: RewardWrapper(wrap(walk()), everything()), mode)
    outside = in_vector(lambda: wrap(RewardWrapper(walk(), everything())), mode)
    around = VectorRewardWrapper(in_vector(lambda: wrap(walk()), mode), everything())
    for envs, expected in ((inside, below), (around, below), (outside, above)):
        np.testing.assert_allclose(drive(envs, mode, factor), expected, rtol=1e-4, atol=1e-4)
    if seen is not same:  # control: the order matters
        assert np.abs(np.array(below) - above).max() > 0.1
