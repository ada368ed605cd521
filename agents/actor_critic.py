"""A stochastic policy and a value function for any Box, Discrete or Dict observation and Box or Discrete action."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Float

from reward_design.agents import networks, recurrent
from reward_design.agents.inputs import Inputs
from reward_design.envs.base import FunctionalEnv
from reward_design.envs.host import HostEnv


class Acted(NamedTuple):
    """What an update recomputes the probability of actions ``[*batch]`` from.

    Attributes:
        raw: actions as they were sampled, not clipped.
        head: logits, or means, ``[*batch, outputs]``.
        log_std: of Box actions on the host, where the policy may be older than the update's; otherwise ``()``.
        carry: hidden states that were used, ``()`` without memory.
    """

    raw: Any
    head: Any
    log_std: Any = ()
    carry: Any = ()


class ActorCritic:
    """Actor and critic networks over (normalised) features of the observation.

    With ``torso="mlp"`` and no memory they share nothing. Otherwise a torso, a memory or one after the other lies below
    both heads, in common or once for each.

    What the heads read is called ``z``: the features themselves, or a tuple of the torso's output or the hidden state,
    of two (the actor's and the critic's) where nothing is shared. With memory ``z`` is the carry.

    Args:
        env: gives the spaces.
        hidden: widths of the tanh layers of both networks.
        normalise_obs: scale features by running moments, see :class:`~reward_design.agents.inputs.Inputs`.
        torso: ``"mlp"`` flattens the observation, ``"conv"`` encodes each part, see :mod:`reward_design.agents.torsos`.
        memory: width of the memory, 0 for none.
        shared: whether actor and critic share torso and memory.
    """

    def __init__(
        self,
        env: FunctionalEnv | HostEnv,
        hidden: Sequence[int],
        normalise_obs: bool,
        *,
        torso: str = "mlp",
        memory: int = 0,
        shared: bool = True,
    ) -> None:
        networks.check_action_mask(env.observation_space, env.action_space)
        self.env = env
        self.space = env.action_space
        self.actor = networks.MLP(hidden, num_outputs(env.action_space), output_scale=0.01)
        self.critic = networks.MLP(hidden, 1)
        self._inputs = Inputs(env, normalise_obs, torso)
        self.torso, self.normalises = self._inputs.torso, self._inputs.normalises
        self.memory = memory
        self.bodies = () if self.torso is None and not memory else ("shared",) if shared else ("actor", "critic")

    def init(self, key: Any) -> tuple[dict[str, Any], networks.Moments]:
        """Parameters ``{"actor", "critic", "log_std"}`` (and ``"bodies"``), and initial moments of the features."""
        actor_key, critic_key = jax.random.split(key)
        x = self._inputs.example
        params: dict[str, Any] = {}
        if self.bodies:
            keys = jax.random.split(jax.random.fold_in(key, 2), len(self.bodies))
            params["bodies"] = {name: self._init_body(k, x) for name, k in zip(self.bodies, keys, strict=True)}
        z = self.follow(params, self.initial_carry(1), x)
        params |= {
            "actor": self.actor.init(actor_key, _part(z, 0)),
            "critic": self.critic.init(critic_key, _part(z, 1)),
            "log_std": jnp.zeros(num_outputs(self.space)),
        }
        return params, networks.initial_moments(self._inputs.num_features)

    def inputs(self, moments: networks.Moments, obs: Any) -> Any:
        """What the networks read: features ``[*batch, features]``, or the parts of the observation for a torso."""
        return self._inputs(moments, obs)

    def update_moments(self, moments: networks.Moments, obs: Any, mask: Any = None) -> networks.Moments:
        """Moments with a rollout's observations merged in, all or those of the rows that ``mask`` marks."""
        return self._inputs.update_moments(moments, obs, mask)

    def act(
        self, params: Any, moments: networks.Moments, obs: Any, noise: Float[Array, "*batch outputs"], carry: Any = ()
    ) -> tuple[Array, Acted]:
        """Action for the environment, and what the update recomputes its probability from."""
        action, extras, _ = self.step(params, moments, obs, noise, carry)
        return action, extras

    def step(
        self, params: Any, moments: networks.Moments, obs: Any, noise: Float[Array, "*batch outputs"], carry: Any = ()
    ) -> tuple[Array, Acted, Any]:
        """:meth:`act` of a policy with memory: the carry of the next step comes last."""
        z = self.follow(params, carry, self.inputs(moments, obs))
        head = self.head(params, z, self.mask(obs))
        raw = sample(self.space, head, params["log_std"], noise)
        acted = Acted(raw, head, self.spread(params["log_std"], head.shape), carry if self.memory else ())
        return to_env(self.space, raw), acted, z if self.memory else ()

    def spread(self, log_std: Any, shape: tuple[int, ...]) -> Any:
        """:attr:`Acted.log_std`: only on the host may a rollout come from an older policy than the update's."""
        xp = np if isinstance(log_std, np.ndarray) else jnp
        by_row = isinstance(self.space, spaces.Box) and isinstance(self.env, HostEnv)
        return xp.broadcast_to(log_std, shape) if by_row else ()

    def initial_carry(self, num_envs: int) -> Any:
        """Hidden states at the start of an episode, ``()`` without memory."""
        return tuple(jnp.zeros((num_envs, self.memory)) for _ in self.bodies) if self.memory else ()

    def latents(self, params: Any, x: Any, memory: recurrent.Memory | None = None) -> Any:
        """``z`` of inputs ``[*batch, ...]``; with memory of sequences ``[time, sequences, ...]``."""
        if not self.bodies:
            return x
        if memory is None:
            return self._each(lambda body: self._encode(body, x), params)
        unroll = lambda body, h: recurrent.gru_unroll(body["gru"], h[0], self._encode(body, x), memory.fresh)  # noqa: E731
        return self._each(unroll, params, memory.carry)

    def follow(self, params: Any, z: Any, x: Any) -> Any:
        """``z`` one step later, where the networks read ``x``; without memory the same as ``latents(params, x)``."""
        if not self.memory:
            return self.latents(params, x)
        return self._each(lambda body, h: recurrent.gru_step(body["gru"], h, self._encode(body, x)), params, z)

    def mask(self, obs: Any) -> Any:
        """Which actions are allowed, or None, see :func:`reward_design.agents.networks.action_mask`."""
        return networks.action_mask(self.env.observation_space, obs)

    def head(self, params: Any, z: Any, mask: Any = None) -> Array:
        """Logits (very low for actions that ``mask`` does not allow) or means."""
        return networks.masked(jnp.asarray(self.actor.apply(params["actor"], _part(z, 0))), mask)

    def value(self, params: Any, z: Any) -> Float[Array, "*batch"]:
        """V(s)."""
        return jnp.asarray(self.critic.apply(params["critic"], _part(z, 1)))[..., 0]

    def log_prob_entropy(self, params: Any, head: Array, raw: Array) -> tuple[Array, Array]:
        """Log pi(raw | s) and the policy's entropy, from the head's output."""
        return log_prob_entropy(self.space, head, params["log_std"], raw)

    def acted_log_prob_entropy(self, params: Any, acted: Acted) -> tuple[Array, Array]:
        """:meth:`log_prob_entropy` of the policy that collected a rollout ``[T, B]``; ``params`` are its, or newer."""
        log_std = params["log_std"] if isinstance(acted.log_std, tuple) else acted.log_std
        return log_prob_entropy(self.space, acted.head, log_std, acted.raw)

    def _init_body(self, key: Any, x: Any) -> dict[str, Any]:
        torso_key, gru_key = jax.random.split(key)
        body = {} if self.torso is None else {"torso": self.torso.init(torso_key, x)}
        if self.memory:
            body["gru"] = recurrent.gru(gru_key, self._encode(body, x).shape[-1], self.memory)
        return body

    def _encode(self, body: Any, x: Any) -> Array:
        return x if self.torso is None else jnp.asarray(self.torso.apply(body["torso"], x))

    def _each(self, fn: Callable[..., Array], params: Any, *args: Any) -> tuple[Array, ...]:
        """``fn`` of every body."""
        return tuple(map(fn, (params["bodies"][name] for name in self.bodies), *args))


def _part(z: Any, index: int) -> Any:
    """What the actor (0) or the critic (1) reads."""
    return z[min(index, len(z) - 1)] if isinstance(z, tuple) else z


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
