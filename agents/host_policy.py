"""Policies on the host: in NumPy where that is faster than a call to XLA, otherwise one jitted call per step."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces

from reward_design.agents import networks
from reward_design.agents.actor_critic import Acted, ActorCritic, num_outputs
from reward_design.agents.collector import HostPolicy, RecurrentPolicy
from reward_design.agents.recurrent import forget

Draw = Callable[[int, np.random.Generator], np.ndarray]
"""``(lanes, generator) -> noise [lanes, outputs]`` of :func:`reward_design.agents.actor_critic.sample`."""


def actor_policy(
    network: ActorCritic, params: Any, moments: networks.Moments, *, deterministic: bool = False
) -> HostPolicy | RecurrentPolicy:
    """The sampled policy of an actor-critic, with the extras of :meth:`ActorCritic.step`.

    Flat networks are evaluated in NumPy (for a few rows a tenth of the time of a call to XLA), torsos and memories by
    one jitted call per step.
    """
    draw = partial(_noise, network, deterministic)
    if not network.bodies:
        return _numpy_policy(network, params, moments, draw)
    held = jax.tree.map(jnp.copy, (params, moments))  # the update that comes next reuses the buffers
    if network.memory:
        step = lambda obs, rng, carry, fresh: _step(network, *held, obs, draw(len(fresh), rng), carry, fresh)  # noqa: E731
        return RecurrentPolicy(network.initial_carry, lambda *args: _to_host(step(*args)))

    def act(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        return jax.device_get(_act(network, *held, obs, draw(len(jax.tree.leaves(obs)[0]), rng)))

    return act


def _noise(network: ActorCritic, deterministic: bool, lanes: int, rng: np.random.Generator) -> np.ndarray:
    shape = (lanes, num_outputs(network.space))
    if deterministic:
        return np.zeros(shape, np.float32)
    if isinstance(network.space, spaces.Discrete):
        return rng.gumbel(size=shape).astype(np.float32)
    return rng.standard_normal(shape, np.float32)


def _numpy_policy(network: ActorCritic, params: Any, moments: networks.Moments, draw: Draw) -> HostPolicy:
    params, moments = jax.tree.map(np.array, (params, moments))  # copies: the update that comes next reuses the buffers
    space, observed = network.space, network.env.observation_space
    has_mask = isinstance(observed, spaces.Dict) and networks.MASK_KEY in observed.spaces
    mlp = numpy_mlp(params["actor"])
    spread = np.sqrt(moments.var + 1e-8)
    std = np.exp(params["log_std"])

    def act(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, Any]:
        x = networks.features(observed, obs, np)
        if network.normalises:
            x = np.clip((x - moments.mean) / spread, -10.0, 10.0)
        head, noise = mlp(x), draw(len(x), rng)
        if has_mask:
            head = networks.masked(head, networks.action_mask(observed, obs), np)
        if isinstance(space, spaces.Discrete):
            raw = np.argmax(head + noise, axis=-1).astype(np.int32)
            return raw + int(space.start), Acted(raw, head)
        assert isinstance(space, spaces.Box)
        raw = head + std * noise
        acted = Acted(raw, head, network.spread(params["log_std"], head.shape))
        return np.clip(raw.reshape(len(x), *space.shape), space.low, space.high), acted

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


def _to_host(results: tuple[Any, Any, Any]) -> tuple[np.ndarray, Any, Any]:
    """Action and extras in NumPy; the carry stays where it is."""
    action, extras, carry = results
    return *jax.device_get((action, extras)), carry


@partial(jax.jit, static_argnums=0)
def _act(network: ActorCritic, params: Any, moments: Any, obs: Any, noise: Any) -> Any:
    return network.act(params, moments, obs, noise)


@partial(jax.jit, static_argnums=0)
def _step(network: ActorCritic, params: Any, moments: Any, obs: Any, noise: Any, carry: Any, fresh: Any) -> Any:
    return network.step(params, moments, obs, noise, forget(carry, fresh))
