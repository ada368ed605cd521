"""The network of DQN: Q of all actions, dueling or not, and how actions are chosen from it."""

from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float, Int

from reward_design.agents import networks
from reward_design.agents.action_spaces import discrete
from reward_design.agents.collector import HostPolicy
from reward_design.agents.inputs import Inputs
from reward_design.agents.q_networks import ReluMLP, numpy_relu_mlp
from reward_design.envs.base import FunctionalEnv
from reward_design.envs.host import HostEnv


@dataclass(frozen=True, eq=False)
class Networks:
    """The network of one configuration, and how actions are chosen from its values."""

    inputs: Inputs
    mlp: ReluMLP
    dueling: bool
    space: spaces.Discrete

    @property
    def num_actions(self) -> int:
        """Actions."""
        return int(self.space.n)

    def init(self, key: Any) -> Any:
        """Parameters: the layers', or ``{"torso", "mlp"}``."""
        if self.inputs.torso is None:
            return self.mlp.init(key, jnp.zeros(self.inputs.num_features))
        torso_key, key = jax.random.split(key)
        params = self.inputs.torso.init(torso_key, self.inputs.example)
        return {"torso": params, "mlp": self.mlp.init(key, self.inputs.torso.apply(params, self.inputs.example))}

    def q(self, params: Any, moments: networks.Moments, obs: Any) -> Float[Array, "batch actions"]:
        """Q(s, ·) of all actions, allowed or not."""
        x = self.inputs(moments, obs)
        if self.inputs.torso is not None:
            params, x = params["mlp"], self.inputs.torso.apply(params["torso"], x)
        out = jnp.asarray(self.mlp.apply(params, x))
        return duel(out, jnp) if self.dueling else out

    def allowed(self, values: Any, obs: Any, xp: Any = jnp) -> Any:
        """Values ``[batch, actions]`` with those of forbidden actions very low."""
        return networks.masked(values, networks.action_mask(self.inputs.space, obs), xp)

    def greedy(self, q: Array, obs: Any) -> Int[Array, " batch"]:
        """Index of the best allowed action."""
        return jnp.argmax(self.allowed(q, obs), axis=-1)

    def explore(self, q: Array, obs: Any, epsilon: Any, draws: Array) -> Int[Array, " batch"]:
        """Epsilon-greedy actions of the space; ``draws`` are uniform ``[batch, 1 + actions]``."""
        random = jnp.argmax(self.allowed(draws[:, 1:], obs), axis=-1)
        return self.to_env(jnp.where(draws[:, 0] < epsilon, random, self.greedy(q, obs)))

    def to_env(self, index: Array) -> Int[Array, " batch"]:
        """From 0, 1, ... to the space."""
        return index.astype(jnp.int32) + int(self.space.start)

    def host_policy(self, params: Any, moments: networks.Moments, epsilon: float) -> HostPolicy:
        """Epsilon-greedy on the host: flat networks in NumPy, a torso by one jitted call per step."""
        values = self._on_host(params, moments)

        def policy(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, tuple[()]]:
            lanes = len(jax.tree.leaves(obs)[0])
            best = self.allowed(values(obs), obs, np).argmax(axis=-1)
            random = self.allowed(rng.random((lanes, self.num_actions)), obs, np).argmax(axis=-1)
            action = np.where(rng.random(lanes) < epsilon, random, best)
            return action.astype(np.int32) + int(self.space.start), ()

        return policy

    def _on_host(self, params: Any, moments: networks.Moments) -> Any:
        """``obs -> Q`` in NumPy; parameters are copied, since the gradient steps that follow reuse their buffers."""
        if self.inputs.torso is not None:
            held = jax.tree.map(jnp.copy, (params, moments))
            return lambda obs: np.asarray(_values(self, *held, obs))
        params, moments = jax.tree.map(np.array, (params, moments))
        inputs, mlp = self.inputs.in_numpy(moments), numpy_relu_mlp(params)
        return lambda obs: duel(mlp(inputs(obs)), np) if self.dueling else mlp(inputs(obs))


def duel(out: Any, xp: Any) -> Any:
    """Q = V + A - mean A, from V and A side by side."""
    value, advantage = out[..., :1], out[..., 1:]
    return xp.broadcast_to(value - advantage.mean(axis=-1, keepdims=True), advantage.shape) + advantage


@lru_cache(maxsize=64)  # one object, which compiled policies on the host are kept for
def networks_for(
    env: FunctionalEnv | HostEnv, hidden: tuple[int, ...], normalise_obs: bool, dueling: bool, torso: str
) -> Networks:
    """The networks of a configuration, always the same object.

    Raises:
        TypeError: for actions that are not Discrete, or observations that a network cannot read.
    """
    space = discrete(env.action_space, "dqn")
    networks.check_action_mask(env.observation_space, space)
    return Networks(Inputs(env, normalise_obs, torso), ReluMLP(hidden, int(space.n) + dueling), dueling, space)


@partial(jax.jit, static_argnums=0)
def _values(nets: Networks, params: Any, moments: Any, obs: Any) -> Array:
    return nets.q(params, moments, obs)
