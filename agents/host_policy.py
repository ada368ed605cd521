"""Policies on the host: in NumPy for a few rows at a time, which takes a tenth of a call to XLA."""

from collections.abc import Callable, Mapping
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
    """The sampled policy of an actor-critic, with ``(raw actions, heads)`` as extras."""
    params, moments = jax.tree.map(np.array, (params, moments))  # copies: the update that comes next reuses the buffers
    space = network.space
    outputs = num_outputs(space)

    def draw(lanes: int, rng: np.random.Generator) -> np.ndarray:
        if deterministic:
            return np.zeros((lanes, outputs), np.float32)
        if isinstance(space, spaces.Discrete):
            return rng.gumbel(size=(lanes, outputs)).astype(np.float32)
        return rng.standard_normal((lanes, outputs), np.float32)

    mlp = numpy_mlp(params["actor"])
    observed = network.env.observation_space
    spread = np.sqrt(moments.var + 1e-8)
    std = np.exp(params["log_std"])

    def act(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        x = networks.features(observed, obs, np)
        if network.normalises:
            x = np.clip((x - moments.mean) / spread, -10.0, 10.0)
        head, noise = networks.masked(mlp(x), networks.action_mask(observed, obs), np), draw(len(x), rng)
        if isinstance(space, spaces.Discrete):
            raw = np.argmax(head + noise, axis=-1).astype(np.int32)
            return raw + int(space.start), (raw, head)
        assert isinstance(space, spaces.Box)
        raw = head + std * noise
        return np.clip(raw.reshape(len(x), *space.shape), space.low, space.high), (raw, head)

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
