"""Environments for tests in worker processes; imports little, so that workers start fast."""

import os
import signal
import time

import gymnasium
import numpy as np
from gymnasium import spaces

RAISE, HANG, DIE = 2, 3, 4


class Count(gymnasium.Env):
    """Observes (step, last action, a random number); ends after 5 steps; some actions are fatal."""

    observation_space = spaces.Box(-10, 100, (3,), np.float32)
    action_space = spaces.Discrete(5)

    def __init__(self):
        self._obs = np.zeros(3, np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if options is not None:
            raise ValueError(options["text"])
        self._obs[:] = 0, -1, self.np_random.random()
        return self._obs, {"time": 0}

    def step(self, action):
        if action == RAISE:
            raise ZeroDivisionError("the reactor is on fire")
        if action == HANG:
            time.sleep(1000)
        if action == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        self._obs[:2] += 1, 0
        self._obs[1] = action
        end = self._obs[0] >= 5
        return (
            self._obs,
            float(self._obs[0]),
            bool(end and action == 0),
            bool(end and action == 1),
            {"time": self._obs[0]},
        )


class Tree(Count):
    observation_space = spaces.Dict(
        {"z": Count.observation_space, "a": spaces.Tuple((spaces.Discrete(9), spaces.MultiBinary(2)))}
    )
    action_space = spaces.Dict({"move": spaces.Discrete(2), "push": spaces.Box(-1, 1, (2,), np.float32)})

    def observed(self):
        return {"z": self._obs, "a": (int(self._obs[0]), np.array([1, 0], np.int8))}

    def reset(self, *, seed=None, options=None):
        _, info = super().reset(seed=seed)
        return self.observed(), info

    def step(self, action):
        _, _, *rest = super().step(int(action["move"]))
        return self.observed(), float(action["push"].sum()), *rest


class Broken(Count):
    def __init__(self):
        raise OSError("no reactor found")


class BrokenReset(Count):
    def reset(self, *, seed=None, options=None):
        raise OSError("the reactor does not start")


class Half(Tree):
    """Its observations lack a part of their space."""

    def observed(self):
        return {"z": self._obs}


class Narrow(Count):
    """Its observations have shape (1,) and not (3,)."""

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed, options=options)
        return obs[:1], info


class Late(Count):
    """Its last observation of an episode has shape (1,) and not (3,)."""

    def step(self, action):
        obs, *rest = super().step(action)
        return obs[:1] if obs[0] >= 5 else obs, *rest


class Listed(Tree):
    """A part of its observations has shape (1,) and not ()."""

    def observed(self):
        return {"z": self._obs, "a": (self._obs[:1].astype(int), np.array([1, 0], np.int8))}
