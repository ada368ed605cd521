"""Small functional environments with known answers, for testing agents and rollouts."""

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from reward_design.envs import FunctionalEnv


class Counter(FunctionalEnv):
    """Observation is (time, random offset); pays 1 per step; cut after ``horizon`` steps, or ended by action 1."""

    name = "counter"
    observation_space = spaces.Box(-10.0, 1e3, (2,))
    action_space = spaces.Discrete(2)
    gamma = 0.9

    def __init__(self, horizon=5, stoppable=False):
        self.horizon = horizon
        self.stoppable = stoppable
        self.traces = 0

    def _reset(self, key):
        obs = jnp.stack([jnp.float32(0), jax.random.uniform(key)])
        return obs, obs

    def _step(self, key, inner, action):
        self.traces += 1
        obs = inner.at[0].add(1.0)
        terminated = (action == 1) & self.stoppable
        return obs, obs, jnp.float32(1), terminated, {"time": obs[0]}

    def success(self, transition):
        return transition.truncated & ~transition.terminated


class Target(FunctionalEnv):
    """One-step continuous bandit: reward -(a - 0.7)^2, best return 0."""

    name = "target"
    observation_space = spaces.Box(-1.0, 1.0, (1,))
    action_space = spaces.Box(-5.0, 5.0, (1,))  # wide: where actions are clipped the reward is flat
    gamma = 0.9
    horizon = 1

    def _reset(self, key):
        return jnp.zeros(1), ()

    def _step(self, key, inner, action):
        return jnp.zeros(1), (), -jnp.square(action[0] - 0.7), jnp.bool_(True), {}

    def success(self, transition):
        return transition.reward > -0.01


class Endless(gymnasium.Env):
    """Nothing ends."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}
