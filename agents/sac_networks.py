"""The networks of SAC: a squashed Gaussian policy and an ensemble of critics, on actions scaled to [-1, 1]."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float

from reward_design.agents import networks
from reward_design.agents.action_spaces import bounded_box
from reward_design.agents.collector import HostPolicy
from reward_design.agents.inputs import Inputs
from reward_design.agents.q_networks import ReluMLP, numpy_relu_mlp
from reward_design.envs.base import FunctionalEnv
from reward_design.envs.host import HostEnv, device_dtype

LOG_STD = (-20.0, 2.0)
"""Bounds of the Gaussian's log standard deviation."""


def squashed_sample(
    mean: Float[Array, "*batch dims"], log_std: Float[Array, "*batch dims"], noise: Float[Array, "*batch dims"]
) -> tuple[Float[Array, "*batch dims"], Float[Array, "*batch"]]:
    """Action a = tanh(u) with u = μ + σ ε, and log π(a) = Σ log N(u; μ, σ) - Σ log(1 - tanh²u).

    The last term is computed as 2 (log 2 - u - softplus(-2u)), which does not lose small values.

    Args:
        mean: μ.
        log_std: log σ.
        noise: ε, standard normal; 0 gives the mode of u.

    Returns:
        Action in (-1, 1) and its log-density there.
    """
    u = mean + jnp.exp(log_std) * noise
    log_normal = -0.5 * jnp.square(noise) - log_std - 0.5 * np.float32(np.log(2 * np.pi))
    log_slope = 2 * (np.float32(np.log(2)) - u - jax.nn.softplus(-2 * u))
    return jnp.tanh(u), jnp.sum(log_normal - log_slope, axis=-1)


@dataclass(frozen=True, eq=False)
class Networks:
    """The networks of one configuration, and how actions are scaled."""

    inputs: Inputs
    actor: ReluMLP
    critic: ReluMLP
    space: spaces.Box

    @property
    def num_actions(self) -> int:
        """Action dimensions."""
        return int(np.prod(self.space.shape))

    def sample(self, params: Any, x: Array, noise: Array) -> tuple[Array, Array]:
        """Scaled action in [-1, 1] and its log-density."""
        mean, log_std = jnp.split(jnp.asarray(self.actor.apply(params, x)), 2, axis=-1)
        return squashed_sample(mean, jnp.clip(log_std, *LOG_STD), noise)

    def q(self, params: Any, x: Array, action: Array) -> Float[Array, "critics samples"]:
        """Values of all critics in ``params``."""
        both = jnp.concatenate([x, action], axis=-1)
        return jnp.asarray(jax.vmap(lambda p: self.critic.apply(p, both))(params))[..., 0]

    def to_env(self, action: Array) -> Array:
        """From [-1, 1] to the space."""
        action = action.reshape(*action.shape[:-1], *self.space.shape)
        low, high = (jnp.broadcast_to(jnp.asarray(b), action.shape) for b in (self.space.low, self.space.high))
        scaled = jnp.clip(low + 0.5 * (action + 1) * (high - low), low, high)
        return scaled.astype(device_dtype(self.space.dtype))

    def from_env(self, action: Array) -> Array:
        """From the space to [-1, 1], flat."""
        low, high = (jnp.broadcast_to(jnp.asarray(b), action.shape) for b in (self.space.low, self.space.high))
        return (2 * (action - low) / (high - low) - 1).astype(jnp.float32).reshape(action.shape[0], -1)

    def host_policy(self, params: Any, moments: networks.Moments, *, deterministic: bool) -> HostPolicy:
        """The policy on the host, in NumPy; parameters are copied, since gradient steps reuse their buffers."""
        actor, moments = jax.tree.map(np.array, (params, moments))
        inputs, mlp = self.inputs.in_numpy(moments), numpy_relu_mlp(actor)
        low, high, shape = self.space.low, self.space.high, self.space.shape

        def policy(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, tuple[()]]:
            mean, log_std = np.split(mlp(inputs(obs)), 2, axis=-1)
            noise = np.zeros_like(mean) if deterministic else rng.standard_normal(mean.shape, np.float32)
            action = np.tanh(mean + np.exp(np.clip(log_std, *LOG_STD)) * noise)
            scaled = np.clip(low + 0.5 * (action.reshape(-1, *shape) + 1) * (high - low), low, high)
            return scaled.astype(self.space.dtype), ()

        return policy

    def uniform_policy(self) -> HostPolicy:
        """Uniformly random actions on the host."""
        low, high, shape, dtype = self.space.low, self.space.high, self.space.shape, self.space.dtype
        lanes = lambda obs: len(jax.tree.leaves(obs)[0])  # noqa: E731
        return lambda obs, rng: (rng.uniform(low, high, (lanes(obs), *shape)).astype(dtype), ())


@lru_cache(maxsize=64)
def networks_for(
    env: FunctionalEnv | HostEnv, hidden: tuple[int, ...], normalise_obs: bool, layer_norm: bool
) -> Networks:
    """The networks of a configuration, always the same object.

    Raises:
        TypeError: for actions that are not a Box with finite bounds, or observations that a network cannot read.
    """
    space = bounded_box(env.action_space, "sac")
    actor = ReluMLP(hidden, 2 * int(np.prod(space.shape)))
    return Networks(Inputs(env, normalise_obs), actor, ReluMLP(hidden, 1, layer_norm), space)
