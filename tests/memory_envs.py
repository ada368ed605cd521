"""Environments that need a memory or see more than a vector, on the device and for gymnasium."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from reward_design.envs import FunctionalEnv


class TMaze(FunctionalEnv):
    """A corridor: which way to turn at its end is shown at the first step only; pays 1 for the right way, once.

    The agent moves on by itself. Observation: cue (-1 or 1, then 0), whether this is the end.
    """

    name, gamma = "t_maze", 0.9
    observation_space = spaces.Box(-1.0, 1.0, (2,))
    action_space = spaces.Discrete(2)

    def __init__(self, length=6):
        self.length = length
        self.horizon = length

    def _reset(self, key):
        cue = 2.0 * jax.random.bernoulli(key) - 1.0
        return jnp.stack([cue, 0.0]), {"cue": cue, "time": jnp.int32(0)}

    def _step(self, key, inner, action):
        time = inner["time"] + 1
        decided = time == self.length
        right = (action == 1) == (inner["cue"] > 0)
        obs = jnp.stack([jnp.float32(0), (time == self.length - 1).astype(jnp.float32)])
        return obs, {**inner, "time": time}, (decided & right).astype(jnp.float32), decided, {}

    def success(self, transition):
        return transition.reward > 0


class Parts(gymnasium.Env):
    """Everything a torso reads: glyphs, codes, an image, text, numbers and a mask. Ends after 3 + episode % 4 steps.

    Pays 1 where the action is the parity of the middle glyph.
    """

    observation_space = spaces.Dict(
        {
            "glyphs": spaces.Box(0, 5976, (5, 5), np.int16),
            "cells": spaces.Box(0, 255, (4, 4, 3), np.uint8),
            "image": spaces.Box(0, 255, (36, 36, 3), np.uint8),
            "message": spaces.Box(0, 255, (64,), np.uint8),
            "blstats": spaces.Box(-(2**31), 2**31 - 1, (5,), np.int64),
            "inner": spaces.Dict({"kind": spaces.Discrete(3), "held": spaces.Box(0, 12, (2,), np.uint8)}),
            "action_mask": spaces.Box(0, 1, (3,), np.uint8),
        }
    )
    action_space = spaces.Discrete(3)

    def __init__(self, offset=0):
        self.rng, self.episode = np.random.default_rng(offset), offset

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.episode, self.time = self.episode + 1, 0
        return self._observe(), {}

    def step(self, action):
        self.time += 1
        reward = float(action == self.glyphs[2, 2] % 2)
        end = self.time == 3 + self.episode % 4
        return self._observe(), reward, end and self.episode % 2 == 0, end and self.episode % 2 == 1, {}

    def _observe(self):
        self.glyphs = self.rng.integers(2359, 2365, (5, 5)).astype(np.int16)
        message = np.zeros(64, np.uint8)
        message[:10] = self.rng.integers(97, 100, 10)
        return {
            "glyphs": self.glyphs,
            "cells": self.rng.integers(0, 11, (4, 4, 3)).astype(np.uint8),
            "image": self.rng.integers(0, 256, (36, 36, 3)).astype(np.uint8),
            "message": message,
            "blstats": self.rng.integers(0, 100, 5),
            "inner": {"kind": int(self.rng.integers(3)), "held": self.rng.integers(0, 13, 2).astype(np.uint8)},
            "action_mask": np.array([1, 1, 0], np.uint8),
        }
