"""A stochastic policy and a value function for any Box, Discrete or Dict observation and Box or Discrete action."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float

from reward_design.agents import networks
from reward_design.envs.base import FunctionalEnv, example_transition
from reward_design.envs.host import HostEnv


class ActorCritic:
    """Separate actor and critic networks over (normalised) features of the observation.

    Args:
        env: gives the spaces.
        hidden: widths of the tanh layers of both networks.
        normalise_obs: scale features by running moments; discrete observations are one-hot and left as they are.
    """

    def __init__(self, env: FunctionalEnv | HostEnv, hidden: Sequence[int], normalise_obs: bool) -> None:
        networks.check_action_mask(env.observation_space, env.action_space)
        self.env = env
        self.space = env.action_space
        self.actor = networks.MLP(hidden, num_outputs(env.action_space), output_scale=0.01)
        self.critic = networks.MLP(hidden, 1)
        discrete = isinstance(env.observation_space, (spaces.Discrete, spaces.MultiDiscrete))
        self.normalises = normalise_obs and not discrete

    def init(self, key: Any) -> tuple[dict[str, Any], networks.Moments]:
        """Parameters ``{"actor", "critic", "log_std"}`` and initial moments of the features."""
        actor_key, critic_key = jax.random.split(key)
        x = networks.features(self.env.observation_space, example_transition(self.env).obs)
        params = {
            "actor": self.actor.init(actor_key, x),
            "critic": self.critic.init(critic_key, x),
            "log_std": jnp.zeros(num_outputs(self.space)),
        }
        return params, networks.initial_moments(x.shape[-1])

    def inputs(self, moments: networks.Moments, obs: Any) -> Float[Array, "*batch features"]:
        """What both networks read."""
        x = networks.features(self.env.observation_space, obs)
        return moments.normalise(x) if self.normalises else x

    def update_moments(self, moments: networks.Moments, obs: Any) -> networks.Moments:
        """Moments with a rollout's observations merged in."""
        return moments.update(networks.features(self.env.observation_space, obs)) if self.normalises else moments

    def act(
        self, params: Any, moments: networks.Moments, obs: Any, noise: Float[Array, "*batch outputs"]
    ) -> tuple[Array, tuple[Array, Array]]:
        """Action for the environment, and ``(raw action, head)`` from which the update recomputes its probability."""
        head = self.head(params, self.inputs(moments, obs), self.mask(obs))
        raw = sample(self.space, head, params["log_std"], noise)
        return to_env(self.space, raw), (raw, head)

    def mask(self, obs: Any) -> Any:
        """Which actions are allowed, or None, see :func:`reward_design.agents.networks.action_mask`."""
        return networks.action_mask(self.env.observation_space, obs)

    def head(self, params: Any, x: Float[Array, "*batch features"], mask: Any = None) -> Array:
        """Logits (very low for actions that ``mask`` does not allow) or means."""
        return networks.masked(jnp.asarray(self.actor.apply(params["actor"], x)), mask)

    def value(self, params: Any, x: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        """V(s)."""
        return jnp.asarray(self.critic.apply(params["critic"], x))[..., 0]

    def log_prob_entropy(self, params: Any, head: Array, raw: Array) -> tuple[Array, Array]:
        """Log pi(raw | s) and the policy's entropy, from the head's output."""
        return log_prob_entropy(self.space, head, params["log_std"], raw)


# --- action distributions: the head's output is logits (Discrete) or means (Box, with a learned log_std) ------------


def num_outputs(space: spaces.Space) -> int:
    """Outputs that a policy head needs for an action space.

    Raises:
        TypeError: for action spaces other than Discrete and bounded or unbounded Box.
    """
    if isinstance(space, spaces.Discrete):
        return int(space.n)
    if isinstance(space, spaces.Box):
        return int(np.prod(space.shape))
    raise TypeError(f"this agent needs Discrete or Box actions, got {type(space).__name__}.")


def action_noise(space: spaces.Space, key: Any, shape: tuple[int, ...]) -> Float[Array, "*shape outputs"]:
    """Noise for :func:`sample`, with leading axes ``shape``: one call for a whole rollout."""
    draw = jax.random.gumbel if isinstance(space, spaces.Discrete) else jax.random.normal
    return draw(key, (*shape, num_outputs(space)))


def sample(space: spaces.Space, head: Array, log_std: Array, noise: Array) -> Array:
    """Raw action; noise 0 gives the mode. For Box the result is unclipped, see :func:`to_env`."""
    if isinstance(space, spaces.Discrete):
        return jnp.argmax(head + noise, axis=-1).astype(jnp.int32)
    return head + jnp.broadcast_to(jnp.exp(log_std), noise.shape) * noise


def to_env(space: spaces.Space, action: Array) -> Array:
    """What the environment is given: Box actions in the space's shape, clipped to its bounds."""
    if isinstance(space, spaces.Discrete):
        return action + int(space.start) if space.start else action
    assert isinstance(space, spaces.Box)
    action = action.reshape(*action.shape[:-1], *space.shape)
    low, high = (jnp.broadcast_to(jnp.asarray(bound), action.shape) for bound in (space.low, space.high))
    return jnp.clip(action, low, high)


def log_prob_entropy(space: spaces.Space, head: Array, log_std: Array, action: Array) -> tuple[Array, Array]:
    """Log pi(action) and entropy, both ``[*batch]``."""
    if isinstance(space, spaces.Discrete):
        log_p = jax.nn.log_softmax(head)
        chosen = jnp.sum(log_p * jax.nn.one_hot(action, log_p.shape[-1]), axis=-1)
        return chosen, -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)
    log_std = jnp.broadcast_to(log_std, head.shape)
    z = (action - head) * jnp.exp(-log_std)
    log_p = jnp.sum(-0.5 * z**2 - log_std - 0.5 * jnp.log(2 * jnp.pi), axis=-1)
    return log_p, jnp.sum(0.5 + 0.5 * jnp.log(2 * jnp.pi) + log_std, axis=-1)
