"""Rewards of every kind with what naive NumPy loops say that they earn, and ways to drive an environment."""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportOptionalSubscript=false
# pyright: reportGeneralTypeIssues=false

import functools

import gymnasium
import jax.numpy as jnp
import numpy as np
from adapter_envs import LIMIT, Walk, lane_actions, record
from gymnasium.vector import AutoresetMode

import reward_design as rd

LANES, STEPS, SEED, GAMMA = 3, 20, 5, 0.9
gymnasium.register("Walk-v0", entry_point="adapter_envs:Walk")
MODES = [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP, AutoresetMode.DISABLED]


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
