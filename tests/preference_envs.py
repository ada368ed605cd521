"""A small environment with two factors that pull apart, and settings that learn from few segments."""

import jax.numpy as jnp
from gymnasium import spaces

from reward_design.envs import FunctionalEnv
from reward_design.preferences import Factor, PreferenceConfig


class TwoArms(FunctionalEnv):
    """Action 0 earns factor ``a``, action 1 factor ``b``, action 2 neither; the environment pays for action 2 alone.

    Observation is the time; an episode is cut after ``horizon`` steps, or ended by action 3 where there is one.
    """

    name = "two_arms"
    observation_space = spaces.Box(0.0, 100.0, (1,))
    gamma = 0.9

    def __init__(self, horizon=8, num_actions=3):
        self.horizon = horizon
        self.action_space = spaces.Discrete(num_actions)

    def _reset(self, key):
        return jnp.zeros(1), jnp.zeros(1)

    def _step(self, key, inner, action):
        obs = inner + 1.0
        return obs, obs, (action == 2).astype(jnp.float32), action == 3, {}

    def success(self, transition):
        return transition.truncated & (transition.reward > 0)


A = Factor("a", lambda t: (t.action == 0).astype(jnp.float32))
B = Factor("b", lambda t: (t.action == 1).astype(jnp.float32))
SMALL = PreferenceConfig(
    segment_length=4, capacity=128, num_calibration=40, refresh_every=128, num_batches=8, batch_segments=16,
    pretrain_rounds=4, learning_rate=1e-2,
)  # fmt: skip


def changed(**changes):
    return PreferenceConfig(**{**vars(SMALL), **changes})
