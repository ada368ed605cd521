"""Networks of the off-policy agents: relu layers in flax, and the same in NumPy for the host."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float

from reward_design.agents import networks
from reward_design.envs.base import FunctionalEnv, example_transition
from reward_design.envs.host import HostEnv

INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(-1, 1) / sqrt(fan_in)
EPSILON = 1e-6


class ReluMLP(nn.Module):
    """Dense layers with relu, and a linear layer.

    Attributes:
        hidden: widths.
        num_outputs: width of the last layer.
        layer_norm: normalise before each relu.
    """

    hidden: Sequence[int]
    num_outputs: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """Apply the network."""
        for i, width in enumerate(self.hidden):
            x = nn.Dense(width, kernel_init=INIT, name=f"Dense_{i}")(x)
            if self.layer_norm:
                x = nn.LayerNorm(epsilon=EPSILON, name=f"LayerNorm_{i}")(x)
            x = nn.relu(x)
        return nn.Dense(self.num_outputs, kernel_init=INIT, name=f"Dense_{len(self.hidden)}")(x)


def numpy_relu_mlp(params: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The forward pass of :class:`ReluMLP` in NumPy."""
    layers = params["params"]
    num_hidden = sum(name.startswith("Dense") for name in layers) - 1
    dense = [(layers[f"Dense_{i}"]["kernel"], layers[f"Dense_{i}"]["bias"]) for i in range(num_hidden + 1)]
    norms = [layers.get(f"LayerNorm_{i}") for i in range(num_hidden)]

    def apply(x: np.ndarray) -> np.ndarray:
        for (kernel, bias), norm in zip(dense[:-1], norms, strict=True):
            x = x @ kernel + bias
            if norm is not None:
                spread = np.sqrt(x.var(axis=-1, keepdims=True) + EPSILON)
                x = (x - x.mean(axis=-1, keepdims=True)) / spread * norm["scale"] + norm["bias"]
            x = np.maximum(x, 0.0)
        return x @ dense[-1][0] + dense[-1][1]

    return apply


class Inputs:
    """What the networks read of an observation: its features, without the action mask, optionally normalised.

    Args:
        env: gives the observation space.
        normalise: scale by running moments; discrete observations are one-hot and left as they are.
    """

    def __init__(self, env: FunctionalEnv | HostEnv, normalise: bool) -> None:
        self.env = env
        self.space = env.observation_space
        self.normalises = normalise and not isinstance(self.space, (spaces.Discrete, spaces.MultiDiscrete))
        self.num_features = self.features(example_transition(env).obs).shape[-1]

    def features(self, obs: Any) -> Float[Array, "*batch features"]:
        """Flat floats."""
        return networks.features(self.space, obs)

    def __call__(self, moments: networks.Moments, obs: Any) -> Float[Array, "*batch features"]:
        """What the networks read."""
        x = self.features(obs)
        return moments.normalise(x) if self.normalises else x

    def update_moments(self, moments: networks.Moments, obs: Any) -> networks.Moments:
        """Moments with a rollout's observations merged in."""
        return moments.update(self.features(obs)) if self.normalises else moments

    def in_numpy(self, moments: networks.Moments) -> Callable[[Any], np.ndarray]:
        """The same in NumPy."""
        mean, spread = np.array(moments.mean), np.sqrt(np.array(moments.var) + 1e-8)

        def apply(obs: Any) -> np.ndarray:
            x = networks.features(self.space, obs, np)
            return np.clip((x - mean) / spread, -10.0, 10.0) if self.normalises else x

        return apply


def bounded_box(space: spaces.Space, agent: str) -> spaces.Box:
    """The action space, if it is a Box with finite bounds.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(space, spaces.Box):
        raise TypeError(f"{agent} needs Box actions, got {type(space).__name__}; use dqn or ppo for Discrete actions.")
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all()):
        raise TypeError(
            f"{agent} needs Box actions with finite bounds, got {space}; "
            "bound them with gymnasium.wrappers.TransformAction, or use ppo."
        )
    return space


def discrete(space: spaces.Space, agent: str) -> spaces.Discrete:
    """The action space, if it is Discrete.

    Raises:
        TypeError: for anything else.
    """
    if not isinstance(space, spaces.Discrete):
        raise TypeError(f"{agent} needs Discrete actions, got {type(space).__name__}; use sac or ppo.")
    return space
