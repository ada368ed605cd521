"""Networks of the off-policy agents: relu layers in flax, the same in NumPy for the host, and action masks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float

from reward_design.agents import networks
from reward_design.envs.base import FunctionalEnv, example_transition
from reward_design.envs.host import HostEnv

ACTION_MASK = "action_mask"
"""Key of a Dict observation that says which actions are allowed (1) and which are not (0)."""
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
        self.space = without_mask(env.observation_space)
        self.normalises = normalise and not isinstance(self.space, (spaces.Discrete, spaces.MultiDiscrete))
        self.num_features = self.features(example_transition(env).obs).shape[-1]

    def features(self, obs: Any) -> Float[Array, "*batch features"]:
        """Flat floats."""
        return networks.features(self.space, _without(obs))

    def __call__(self, moments: networks.Moments, obs: Any) -> Float[Array, "*batch features"]:
        """What the networks read."""
        x = self.features(obs)
        return moments.normalise(x) if self.normalises else x

    def update_moments(self, moments: networks.Moments, obs: Any) -> networks.Moments:
        """Moments with a rollout's observations merged in."""
        return moments.update(self.features(obs)) if self.normalises else moments

    def in_numpy(self, moments: networks.Moments) -> Callable[[Any], np.ndarray] | None:
        """The same for one large Box in NumPy; None for other spaces."""
        if not isinstance(self.space, spaces.Box) or isinstance(self.env.observation_space, spaces.Dict):
            return None
        scale = np.float32(255.0 if self.space.dtype == np.uint8 else 1.0)
        mean, spread = np.array(moments.mean), np.sqrt(np.array(moments.var) + 1e-8)

        def apply(obs: np.ndarray) -> np.ndarray:
            x = obs.reshape(len(obs), -1).astype(np.float32) / scale
            return np.clip((x - mean) / spread, -10.0, 10.0) if self.normalises else x

        return apply


# --- action masks ---------------------------------------------------------------------------------------------------


def without_mask(space: spaces.Space) -> spaces.Space:
    """The observation space without its action mask."""
    if not isinstance(space, spaces.Dict) or ACTION_MASK not in space.spaces:
        return space
    parts = {name: part for name, part in space.items() if name != ACTION_MASK}
    return spaces.Dict(parts)


def action_mask(obs: Any, num_actions: int) -> Bool[Array, "*batch actions"] | None:
    """Allowed actions of a Dict observation with the key ``"action_mask"``; None without one.

    Where nothing is allowed (the padding after an episode's end) everything is, so that a maximum exists.

    Raises:
        ValueError: if the mask has another number of entries than there are actions.
    """
    if not isinstance(obs, Mapping) or ACTION_MASK not in obs:
        return None
    mask = jnp.asarray(obs[ACTION_MASK]) > 0
    if mask.shape[-1] != num_actions:
        raise ValueError(
            f"observation[{ACTION_MASK!r}] must have an entry for each of the {num_actions} actions, "
            f"got {mask.shape[-1]}."
        )
    return mask | ~mask.any(axis=-1, keepdims=True)


def allowed(values: Float[Array, "*batch actions"], obs: Any) -> Float[Array, "*batch actions"]:
    """Values with minus infinity for actions that the observation's mask forbids."""
    mask = action_mask(obs, values.shape[-1])
    return values if mask is None else jnp.where(mask, values, -jnp.inf)


def _without(obs: Any) -> Any:
    if not isinstance(obs, Mapping):
        return obs
    return {name: part for name, part in obs.items() if name != ACTION_MASK}


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
