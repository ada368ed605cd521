"""What networks read of an observation, optionally normalised, for every agent."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from reward_design.agents import networks, torsos
from reward_design.envs.base import FunctionalEnv, example_transition
from reward_design.envs.host import HostEnv


class Inputs:
    """Flat features of an observation without the action mask, or with ``torso="conv"`` its parts for a torso.

    Args:
        env: gives the observation space.
        normalise: scale by running moments: all features, but those of a Discrete or MultiDiscrete observation (they
            are one-hot), and for a torso the numbers only.
        torso: ``"mlp"`` or ``"conv"``, see :mod:`reward_design.agents.torsos`.

    Attributes:
        torso: the torso, or None.
        num_features: width of what is scaled: of the features, or of the numbers among the parts.
    """

    def __init__(self, env: FunctionalEnv | HostEnv, normalise: bool, torso: str = "mlp") -> None:
        self.env = env
        self.space = env.observation_space
        self.torso = torsos.torso(self.space) if torso == "conv" else None
        discrete = isinstance(self.space, (spaces.Discrete, spaces.MultiDiscrete))
        scaled = not discrete if self.torso is None else "floats" in dict(self.torso.parts)
        self.normalises = normalise and scaled
        self.num_features = self._scaled(self.example).shape[-1]

    @property
    def example(self) -> Any:
        """Features of zero observations ``[1, ...]``."""
        return self.features(example_transition(self.env).obs)

    def features(self, obs: Any) -> Any:
        """Flat floats ``[*batch, features]``, or the parts of :func:`reward_design.agents.torsos.prepare`."""
        return networks.features(self.space, obs) if self.torso is None else torsos.prepare(self.space, obs)

    def __call__(self, moments: networks.Moments, obs: Any) -> Any:
        """What the networks read."""
        x = self.features(obs)
        if not self.normalises:
            return x
        scaled = moments.normalise(self._scaled(x))
        return scaled if self.torso is None else {**x, "floats": scaled}

    def update_moments(self, moments: networks.Moments, obs: Any, mask: Any = None) -> networks.Moments:
        """Moments with a rollout's observations merged in, all or those of the rows that ``mask`` marks."""
        if not self.normalises:
            return moments
        return moments.update(self._scaled(self.features(obs)), None if mask is None else jnp.asarray(mask))

    def in_numpy(self, moments: networks.Moments) -> Callable[[Any], np.ndarray]:
        """Flat features in NumPy."""
        mean, spread = np.array(moments.mean), np.sqrt(np.array(moments.var) + 1e-8)

        def apply(obs: Any) -> np.ndarray:
            x = networks.features(self.space, obs, np)
            return np.clip((x - mean) / spread, -10.0, 10.0) if self.normalises else x

        return apply

    def _scaled(self, x: Any) -> Any:
        return x if self.torso is None else x.get("floats", jnp.zeros((1, 0)))
