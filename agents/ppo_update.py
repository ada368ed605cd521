"""The update of PPO: advantages, minibatches of rows or of sequences, and the clipped loss."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from reward_design.agents import base
from reward_design.agents.actor_critic import ActorCritic
from reward_design.agents.recurrent import Memory, sequences, starts
from reward_design.core import Transition
from reward_design.envs.host import HostEnv


class Batch(NamedTuple):
    """One rollout as the loss needs it: rows ``[T * B, ...]``, or sequences ``[time, sequences, ...]`` with memory.

    Attributes:
        features: what the networks read.
        action: raw actions.
        log_prob: of the actions under the policy that took them.
        value: V(s) before the update.
        advantage: generalised advantages.
        target: of the critic.
        allowed: actions that were allowed, None for all.
        weight: 0 for rows of sequences that are no experience, None for 1 everywhere.
        memory: where the hidden states start, None without memory.
    """

    features: Any
    action: Array
    log_prob: Array
    value: Array
    advantage: Array
    target: Array
    allowed: Any = None
    weight: Any = None
    memory: Memory | None = None


def hidden(network: ActorCritic, params: Any, moments: Any, trajectory: Transition, extras: Any) -> Any:
    """What the heads read at each step of a rollout ``[T, B]``; a memory starts as the policy that collected it did."""
    x = network.inputs(moments, trajectory.obs)
    return network.latents(params, x, _memory(network, trajectory, extras))


def _memory(network: ActorCritic, trajectory: Transition, extras: Any) -> Memory | None:
    if not network.memory:
        return None
    return Memory(jax.tree.map(lambda h: h[:1], extras.carry), starts(trajectory))


def batch(
    config: Any,
    network: ActorCritic,
    params: Any,
    moments: Any,
    trajectory: Transition,
    z: Any,
    extras: Any,
    reward: Array,
) -> tuple[Batch, Float[Array, ""]]:
    """Values, log-probabilities and advantages of the whole rollout at once, and the policy's mean entropy.

    Args:
        config: settings.
        network: the networks.
        params: their parameters.
        moments: of the observations.
        trajectory: ``[T, B]``.
        z: of :func:`hidden`.
        extras: of the policy that collected it, see :meth:`ActorCritic.step`.
        reward: what is learned from, ``[T, B]``.
    """
    value = network.value(params, z)
    next_z = network.follow(params, z, network.inputs(moments, trajectory.next_obs))
    advantage = advantages(
        reward, value, network.value(params, next_z), trajectory.terminated, trajectory.truncated,
        gamma=config.gamma, gae_lambda=config.gae_lambda,
    )  # fmt: skip
    log_prob, entropy = network.acted_log_prob_entropy(params, extras)
    x, allowed = network.inputs(moments, trajectory.obs), network.mask(trajectory.obs)
    rows = Batch(x, extras.raw, log_prob, value, advantage, advantage + value, allowed)
    if network.memory:
        return _sequences(config, network, trajectory, extras.carry, rows), entropy.mean()
    return _experience(network, trajectory, rows), entropy.mean()


def _sequences(config: Any, network: ActorCritic, trajectory: Transition, carry: Any, rows: Batch) -> Batch:
    """Sequences with the hidden states that were used at their first steps."""
    weight = trajectory.mask.astype(jnp.float32) if isinstance(network.env, HostEnv) else None
    cut = partial(sequences, length=config.sequence_length or config.num_steps)
    rows = jax.tree.map(cut, rows._replace(weight=weight))
    return rows._replace(memory=Memory(jax.tree.map(lambda h: cut(h)[:1], carry), cut(starts(trajectory))))


def _experience(network: ActorCritic, trajectory: Transition, rows: Batch) -> Batch:
    """Flat rows; those that are no experience make way for others (on the device there are none)."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)
    if not isinstance(network.env, HostEnv):
        return flat
    index = jnp.nonzero(trajectory.mask.ravel(), size=trajectory.mask.size, fill_value=-1)[0]
    index = index[jnp.arange(len(index)) % jnp.maximum(trajectory.mask.sum(), 1)]
    return jax.tree.map(lambda leaf: leaf[index], flat)


def learn(
    config: Any, network: ActorCritic, params: Any, opt_state: Any, num_updates: Any, rows: Batch, key: Any
) -> tuple[Any, Any, dict[str, Array]]:
    """Epochs of minibatch steps. Returns parameters, optimiser state and mean losses."""
    schedule = partial(base.linear, step=num_updates, num_steps=config.num_updates)
    learning_rate = schedule(config.learning_rate, config.learning_rate_end)
    entropy_coef = schedule(config.entropy_coef, config.entropy_coef_end)
    optimise = optimiser(config)
    vector, as_params = ravel_pytree(params)  # one vector: the optimiser is a few kernels, not a few per layer

    def step(carry: Any, index: Array) -> tuple[Any, dict[str, Array]]:
        vector, opt_state = carry
        minibatch = jax.tree.map(lambda leaf: leaf[index] if rows.memory is None else leaf[:, index], rows)
        grads, losses = jax.grad(
            lambda vector: loss(config, network, entropy_coef, as_params(vector), minibatch), has_aux=True
        )(vector)
        updates, opt_state = optimise.update(grads, opt_state)
        return (vector - learning_rate * updates, opt_state), losses

    size = config.steps_per_update if rows.memory is None else rows.advantage.shape[1]
    index = permutations(key, config.num_epochs, size).reshape(config.num_epochs * config.num_minibatches, -1)
    (vector, opt_state), losses = jax.lax.scan(step, (vector, opt_state), index)
    return as_params(vector), opt_state, jax.tree.map(jnp.mean, losses)


def loss(
    config: Any, network: ActorCritic, entropy_coef: Any, params: Any, rows: Batch
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The clipped surrogate, the critic's squared error and the entropy bonus of a minibatch."""
    mean = jnp.mean if rows.weight is None else partial(_weighted_mean, weight=rows.weight)
    z = network.latents(params, rows.features, rows.memory)
    value, head = network.value(params, z), network.head(params, z, rows.allowed)
    log_prob, entropy = network.log_prob_entropy(params, head, rows.action)

    ratio = jnp.exp(log_prob - rows.log_prob)
    centred = rows.advantage - mean(rows.advantage)
    advantage = centred / (jnp.sqrt(mean(jnp.square(centred))) + 1e-8)
    clipped = jnp.clip(ratio, 1 - config.clip_ratio, 1 + config.clip_ratio)
    policy_loss = -mean(jnp.minimum(ratio * advantage, clipped * advantage))

    error = jnp.square(value - rows.target)
    if config.clip_value:
        near = rows.value + jnp.clip(value - rows.value, -config.clip_ratio, config.clip_ratio)
        error = jnp.maximum(error, jnp.square(near - rows.target))
    value_loss = 0.5 * mean(error)
    losses = {"policy_loss": policy_loss, "value_loss": value_loss}
    return policy_loss + config.value_coef * value_loss - entropy_coef * mean(entropy), losses


def _weighted_mean(values: Array, weight: Array) -> Float[Array, ""]:
    return jnp.sum(values * weight) / jnp.maximum(weight.sum(), 1.0)


def optimiser(config: Any) -> optax.GradientTransformation:
    """Adam behind a global norm; the learning rate is applied in :func:`learn`."""
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5))


def advantages(
    reward: Float[Array, "time lanes"],
    value: Float[Array, "time lanes"],
    next_value: Float[Array, "time lanes"],
    terminated: Bool[Array, "time lanes"],
    truncated: Bool[Array, "time lanes"],
    *,
    gamma: Any,
    gae_lambda: Any,
) -> Float[Array, "time lanes"]:
    """Generalised advantages: A_t = d_t + gamma lambda (1 - done_t) A_{t+1}, d_t = r_t + gamma (1 - term_t) V'_t - V_t.

    Bootstraps from the true successor unless the episode terminated; the recursion is cut at every episode end.

    Args:
        reward: rewards.
        value: V(s_t).
        next_value: V of the true successor of each step.
        terminated: terminal steps.
        truncated: steps where a time limit cut the episode.
        gamma: discount per environment step.
        gae_lambda: in [0, 1].

    Returns:
        Advantages ``[T, B]``.
    """
    delta = reward + gamma * next_value * ~terminated - value
    decay = gamma * gae_lambda * ~(terminated | truncated)

    def body(carry: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        carry = xs[0] + xs[1] * carry
        return carry, carry

    return jax.lax.scan(body, jnp.zeros_like(delta[0]), (delta, decay), reverse=True, unroll=16)[1]


def permutations(key: Any, num: int, size: int) -> Int[Array, "num size"]:
    """``num`` independent random orders of ``range(size)``, for the epochs of a rollout.

    Each row number, in the low bits of a random word, is sorted by the random bits above it: sorting plain numbers
    takes a quarter of the time of the sort by key in ``jax.random.permutation``, which serves sizes that would leave
    fewer than 16 random bits. Two rows with equal random bits keep their order.

    Args:
        key: random key.
        num: number of orders.
        size: length of each.

    Returns:
        Indices ``[num, size]``.
    """
    low = (size - 1).bit_length()
    if low > 16:
        return jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, num))
    random = jax.random.bits(key, (num, size), jnp.uint32) >> low << low
    rows = jnp.sort(random | jnp.arange(size, dtype=jnp.uint32)[None], axis=1)
    return (rows & (2**low - 1)).astype(jnp.int32)
