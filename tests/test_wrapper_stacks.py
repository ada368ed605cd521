"""Stacks of wrappers as users build them, against a hand-written loop over the bare environment's steps.

The reward of these tests depends on everything that a wrong order or a wrong reset can spoil: both observations, the
action, the kind of end, and two memories (the time in the episode and where its first step led).
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false

import functools

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from adapter_envs import LIMIT, Walk, lane_actions, record
from gymnasium import wrappers
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.wrappers import vector
from gymnasium.wrappers.utils import RunningMeanStd

import reward_design as rd
from reward_design.adapters import _order
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper
from reward_design.agents.collector import Collector
from reward_design.envs.host import SpacesOnly
from reward_design.envs.serial_vector import SerialVectorEnv

LANES, STEPS, SEED, GAMMA = 2, 16, 5, 0.9


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
def bare(limit=LIMIT):
    """The bare environment, lane by lane, with the actions of ``lane_actions``."""
    return [[row[:6] for row in rows] for rows in record(LANES, STEPS, "box", SEED, limit)]


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


def centred(rows):
    """Running mean and variance over every observation, those of resets included, as at that moment."""
    seen, fresh, before, statistics = [], True, None, RunningMeanStd(shape=(2,))

    def normalise(obs):
        statistics.update(obs[None])
        return ((obs - statistics.mean) / np.sqrt(statistics.var + 1e-8)).astype(np.float32)

    for o, a, n, r, terminated, truncated in rows:
        before = normalise(o) if fresh else before
        seen.append((before, a, normalise(n), r, terminated, truncated))
        fresh, before = terminated or truncated, seen[-1][2]
    return seen


class Paid(gymnasium.Wrapper):
    """The bare environment with rewards from a list."""

    def __init__(self, env, rewards):
        super().__init__(env)
        self.rewards = iter([*rewards, *np.zeros(STEPS)])

    def step(self, action):
        obs, _, *rest = super().step(action)
        return obs, next(self.rewards), *rest


def walk():
    return Walk(reuse=False)


def walks(mode, wrap=lambda env: env):
    return SyncVectorEnv([lambda: wrap(walk())] * LANES, autoreset_mode=mode)


def paid_walks(mode, wrap=lambda env: env, rewards=None):
    rewards = rewards or [by_hand(rows) for rows in bare()]
    lanes = [functools.partial(lambda lane: wrap(Paid(walk(), lane)), lane) for lane in rewards]
    return SyncVectorEnv(lanes, autoreset_mode=mode)


def drive(envs, mode, factor=1):
    """Each lane takes its own actions, whatever resets in between.

    Returns rewards ``[B, T]`` of the real steps, the observations that came with them, and the returns of all episodes
    that ``RecordEpisodeStatistics`` counted in each lane.
    """
    actions = factor * np.stack([lane_actions(lane, STEPS) for lane in range(LANES)])
    envs.reset(seed=SEED)
    paid, seen, returns = ([[] for _ in range(LANES)] for _ in range(3))
    resetting = np.zeros(LANES, bool)
    while min(map(len, paid)) < STEPS:
        cursor = [min(len(rows), STEPS - 1) for rows in paid]
        obs, rewards, terminated, truncated, infos = envs.step(actions[np.arange(LANES), cursor])
        ended = terminated | truncated
        for lane in np.flatnonzero(~resetting):
            paid[lane].append(rewards[lane])
            seen[lane].append(np.array(obs[lane]) if isinstance(obs, np.ndarray) else 0)
        for lane in np.flatnonzero(ended & ~resetting):
            counted = infos.get("final_info", infos) if isinstance(infos, dict) else {}
            if "episode" in counted and len(paid[lane]) <= STEPS:
                returns[lane].append(float(counted["episode"]["r"][lane]))
        resetting = ended & (mode is AutoresetMode.NEXT_STEP)
        if mode is AutoresetMode.DISABLED and ended.any():
            envs.reset(options={"reset_mask": ended.copy()})
    return np.array([rows[:STEPS] for rows in paid]), [np.array(rows[:STEPS]) for rows in seen], returns


def equal(one, other):
    for ours, theirs in zip(one, other, strict=True):
        for lane in range(LANES):
            np.testing.assert_allclose(ours[lane], theirs[lane], rtol=1e-4, atol=1e-4)


# --- wrappers of single environments ----------------------------------------------------------------------------------


def customary(env):
    """The usual stack for continuous control."""
    env = wrappers.ClipAction(wrappers.RecordEpisodeStatistics(env))
    env = wrappers.TransformObservation(wrappers.NormalizeObservation(env), lambda obs: np.clip(obs, -10, 10), None)
    return wrappers.TransformReward(wrappers.NormalizeReward(env, gamma=GAMMA), lambda r: np.clip(r, -10, 10))


# name: (wrapper, what the reward sees where it lies inside or None where that is refused, the agent's actions x this)
SINGLE = {
    "TimeLimit": (lambda env: wrappers.TimeLimit(env, 4), same, 1),
    "RecordEpisodeStatistics": (wrappers.RecordEpisodeStatistics, same, 1),
    "OrderEnforcing": (wrappers.OrderEnforcing, same, 1),
    "TransformObservation": (lambda env: wrappers.TransformObservation(env, lambda obs: 10 * obs, None), tenfold, 1),
    "FrameStackObservation": (lambda env: wrappers.FrameStackObservation(env, 2), framed, 1),
    "NormalizeObservation": (wrappers.NormalizeObservation, centred, 1),
    "NormalizeReward": (wrappers.NormalizeReward, None, 1),
    "RescaleAction": (lambda env: wrappers.RescaleAction(env, np.float32(-10), np.float32(10)), asked, 10),
    "ClipAction": (wrappers.ClipAction, same, 1),
    "TransformReward": (lambda env: wrappers.TransformReward(env, lambda r: r / 2), halved, 1),
    "all": (customary, None, 1),
}
every_mode = pytest.mark.parametrize("mode", list(AutoresetMode), ids=lambda mode: mode.name)


def limited(name):
    """The bare episodes below the reward: those of a time limit of 4 are shorter."""
    return bare(4) if name == "TimeLimit" else bare()


@every_mode
@pytest.mark.parametrize("name", SINGLE)
def test_single_wrappers_inside(name, mode):
    wrap, seen, factor = SINGLE[name]
    if seen is None:
        with pytest.raises(ValueError, match="NormalizeReward must lie outside RewardWrapper"):
            RewardWrapper(wrap(walk()), everything())
        with pytest.raises(ValueError, match="NormalizeReward must lie outside VectorRewardWrapper"):
            VectorRewardWrapper(walks(mode, wrap), everything())
        return
    expected = np.array([by_hand(seen(rows)) for rows in limited(name)])
    inside = walks(mode, lambda env: RewardWrapper(wrap(env), everything()))
    around = VectorRewardWrapper(walks(mode, wrap), everything())
    for envs in (inside, around):
        np.testing.assert_allclose(drive(envs, mode, factor)[0], expected, rtol=1e-4, atol=1e-4)
    if seen is not same:  # control: what the wrapper does matters
        assert np.abs(expected - [by_hand(rows) for rows in bare()]).max() > 0.1


@every_mode
@pytest.mark.parametrize("name", [name for name in SINGLE if name != "TimeLimit"])
def test_single_wrappers_outside(name, mode):
    """As around an environment that pays the numbers of the hand-written loop by itself."""
    wrap, _, factor = SINGLE[name]
    ours = drive(walks(mode, lambda env: wrap(RewardWrapper(env, everything()))), mode, factor)
    equal(ours, drive(paid_walks(mode, wrap), mode, factor))
    assert bool(ours[2][0]) == (name in ("RecordEpisodeStatistics", "all"))


# --- wrappers of vector environments ----------------------------------------------------------------------------------

VECTOR = {
    "RecordEpisodeStatistics": (vector.RecordEpisodeStatistics, same, 1),
    "TransformObservation": (lambda envs: vector.TransformObservation(envs, lambda obs: 10 * obs), tenfold, 1),
    "NormalizeObservation": (vector.NormalizeObservation, None, 1),
    "NormalizeReward": (vector.NormalizeReward, None, 1),
    "RescaleAction": (lambda envs: vector.RescaleAction(envs, np.float32(-10), np.float32(10)), asked, 10),
    "ClipAction": (vector.ClipAction, same, 1),
    "TransformReward": (lambda envs: vector.TransformReward(envs, lambda r: r / 2), halved, 1),
    "DictInfoToList": (vector.DictInfoToList, None, 1),
}


def fits(name, mode):
    """Whether gymnasium itself allows the wrapper in this mode; its own assertion says nothing more."""
    return mode is AutoresetMode.NEXT_STEP or not (
        name == "NormalizeObservation" or (name == "TransformObservation" and mode is AutoresetMode.SAME_STEP)
    )


@every_mode
@pytest.mark.parametrize("name", [name for name, (_, seen, _) in VECTOR.items() if seen])
def test_vector_wrappers_inside(name, mode):
    wrap, seen, factor = VECTOR[name]
    if not fits(name, mode):
        return
    if name == "RecordEpisodeStatistics" and mode.name.lower() in _order._MISCOUNTED:
        return  # refused, see test_wrapper_order.py
    envs = VectorRewardWrapper(wrap(walks(mode)), everything())
    expected = [by_hand(seen(rows)) for rows in bare()]
    np.testing.assert_allclose(drive(envs, mode, factor)[0], expected, rtol=1e-4, atol=1e-4)


@every_mode
@pytest.mark.parametrize("name", VECTOR)
def test_vector_wrappers_outside(name, mode):
    wrap, _, factor = VECTOR[name]
    if not fits(name, mode):
        with pytest.raises(AssertionError):
            wrap(VectorRewardWrapper(walks(mode), everything()))
        return
    ours = drive(wrap(VectorRewardWrapper(walks(mode), everything())), mode, factor)
    equal(ours, drive(wrap(paid_walks(mode)), mode, factor))


@every_mode
def test_vector_wrappers_at_once(mode):
    """Statistics below count the environment's rewards, those above what the reward pays; the reward sees all else."""

    def counted(env):  # gymnasium wants another name for the second statistics
        return wrappers.RecordEpisodeStatistics(env, stats_key="own")

    def below(envs):
        return vector.RescaleAction(envs, np.float32(-10), np.float32(10))

    def above(envs):
        return vector.NormalizeReward(vector.ClipAction(vector.RecordEpisodeStatistics(envs)), gamma=GAMMA)

    ours = drive(above(VectorRewardWrapper(below(walks(mode, counted)), everything())), mode, 10)
    lanes = [by_hand(asked(rows)) for rows in bare()]
    theirs = drive(above(below(paid_walks(mode, rewards=lanes))), mode, 10)
    equal(ours[:2], theirs[:2])


# --- observations in parts --------------------------------------------------------------------------------------------


PARTS = {
    "nested": lambda obs: obs["body"]["position"].sum(-1) + obs["body"]["cell"],
    "tuple": lambda obs: obs[0].sum(-1) + obs[1]["cell"],
}


def serial(layout):
    make = functools.partial(Walk, layout, reuse=False)
    spaces = {"observation_space": make().observation_space, "action_space": make().action_space}
    return SerialVectorEnv(make, LANES, **spaces)


@pytest.mark.parametrize("layout", PARTS)
@pytest.mark.parametrize("kind", ["SyncVectorEnv", "SerialVectorEnv", "GymnasiumVecEnv"])
def test_last_observations_in_nested_parts(layout, kind):
    phi, reward = PARTS[layout], rd.potential_shaping(PARTS[layout], gamma=GAMMA)
    if kind == "SyncVectorEnv":
        envs = SyncVectorEnv(
            [functools.partial(Walk, layout, reuse=False)] * LANES, autoreset_mode=AutoresetMode.SAME_STEP
        )
    else:
        envs = serial(layout)
    if kind == "GymnasiumVecEnv":
        sb3 = pytest.importorskip("reward_design.adapters.sb3")
        venv = sb3.VecRewardWrapper(sb3.GymnasiumVecEnv(envs), reward)
        venv.seed(SEED)
        venv.reset()
        actions = np.stack([lane_actions(lane, STEPS) for lane in range(LANES)], 1)
        paid = np.stack([venv.step(action)[1] for action in actions], 1)
    else:
        paid, *_ = drive(VectorRewardWrapper(envs, reward), AutoresetMode.SAME_STEP)
    expected = [
        [r + GAMMA * phi(n) * (not end) - phi(o) for o, _, n, r, end, *_ in rows]
        for rows in record(LANES, STEPS, layout, SEED)
    ]
    np.testing.assert_allclose(paid, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("layout", PARTS)
def test_rollouts_of_agents_keep_last_observations_in_nested_parts(layout):
    envs = serial(layout)
    actions = iter(np.stack([lane_actions(lane, STEPS) for lane in range(LANES)], 1))
    collector = Collector(envs, SpacesOnly(envs), STEPS, seed=SEED)
    rows, _ = collector.collect(lambda obs, rng: (next(actions), np.zeros(LANES)), np.random.default_rng(0))
    for lane, expected in enumerate(record(LANES, STEPS, layout, SEED)):
        for step, row in enumerate(expected):
            for ours, theirs in ((rows.obs, row[0]), (rows.next_obs, row[2])):
                mine = jax.tree.map(lambda part, at=(step, lane): part[at], ours)
                jax.tree.map(np.testing.assert_array_equal, mine, theirs)
