"""Policies on the host: in NumPy for a few rows at a time, which takes a tenth of a call to XLA."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from gymnasium import spaces

from reward_design.agents import networks
from reward_design.agents.actor_critic import ActorCritic, num_outputs
from reward_design.agents.collector import HostPolicy


def actor_policy(
    network: ActorCritic, params: Any, moments: networks.Moments, *, deterministic: bool = False
) -> HostPolicy:
    """The sampled policy of an actor-critic, with ``(raw actions, heads)`` as extras.

    For Box observations in NumPy, for others one jitted call per step.
    """
    params, moments = jax.tree.map(np.array, (params, moments))  # copies: the update that comes next reuses the buffers
    space = network.space
    outputs = num_outputs(space)

    def draw(lanes: int, rng: np.random.Generator) -> np.ndarray:
        if deterministic:
            return np.zeros((lanes, outputs), np.float32)
        if isinstance(space, spaces.Discrete):
            return rng.gumbel(size=(lanes, outputs)).astype(np.float32)
        return rng.standard_normal((lanes, outputs), np.float32)

    if not isinstance(network.env.observation_space, spaces.Box):

        def jitted(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
            return jax.device_get(_act(network, params, moments, obs, draw(len(jax.tree.leaves(obs)[0]), rng)))

        return jitted

    mlp = numpy_mlp(params["actor"])
    scale = 255.0 if network.env.observation_space.dtype == np.uint8 else 1.0
    spread = np.sqrt(moments.var + 1e-8)
    std = np.exp(params["log_std"])

    def act(obs: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        x = obs.reshape(len(obs), -1).astype(np.float32) / np.float32(scale)
        if network.normalises:
            x = np.clip((x - moments.mean) / spread, -10.0, 10.0)
        head, noise = mlp(x), draw(len(obs), rng)
        if isinstance(space, spaces.Discrete):
            raw = np.argmax(head + noise, axis=-1).astype(np.int32)
            return raw + int(space.start), (raw, head)
        assert isinstance(space, spaces.Box)
        raw = head + std * noise
        return np.clip(raw.reshape(len(obs), *space.shape), space.low, space.high), (raw, head)

    return act


def numpy_mlp(params: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The forward pass of :class:`reward_design.agents.networks.MLP` in NumPy."""
    layers = params["params"]
    weights = [(layers[f"Dense_{i}"]["kernel"], layers[f"Dense_{i}"]["bias"]) for i in range(len(layers))]

    def apply(x: np.ndarray) -> np.ndarray:
        for kernel, bias in weights[:-1]:
            x = np.tanh(x @ kernel + bias)
        return x @ weights[-1][0] + weights[-1][1]

    return apply


@partial(jax.jit, static_argnums=0)
def _act(network: ActorCritic, params: Any, moments: Any, obs: Any, noise: Any) -> Any:
    return network.act(params, moments, obs, noise)
