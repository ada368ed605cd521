"""What both levels learn from: rollouts of whole episodes, a ring of them, and policy-gradient objectives on them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from reward_design.agents import ppo_update, rollout
from reward_design.agents.actor_critic import ActorCritic
from reward_design.agents.reinforce import returns_to_go
from reward_design.core import Reward, State, Transition


class Segments(NamedTuple):
    """``N`` rollouts of ``T`` steps, one behind the other in time only inside a rollout; leaves ``[N, T, ...]``.

    Attributes:
        transition: what happened; ``mask`` is False after the last episode end, whose return is not known.
        raw: the policy's raw actions.
    """

    transition: Transition
    raw: Any


class Ring(NamedTuple):
    """The newest rollouts.

    Attributes:
        segments: ``[capacity, T, ...]``.
        count: rollouts inserted so far.
    """

    segments: Segments
    count: Int[Array, ""]


def segments(trajectory: Transition, raw: Any) -> Segments:
    """Rollouts of a trajectory ``[T, B]``, with the steps after the last end of an episode masked."""
    mask = jnp.asarray(trajectory.mask) & rollout.before_last(trajectory.done & trajectory.mask)
    return jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), Segments(trajectory._replace(mask=mask), raw))


def empty(like: Segments, capacity: int) -> Ring:
    """A ring without rollouts, of the shapes of ``like`` (arrays or shapes ``[N, T, ...]``)."""
    return Ring(jax.tree.map(lambda x: jnp.zeros((capacity, *x.shape[1:]), x.dtype), like), jnp.int32(0))


def insert(ring: Ring, new: Segments) -> Ring:
    """The ring with new rollouts in the places of the oldest."""
    capacity, num = (tree.transition.mask.shape[0] for tree in (ring.segments, new))
    at = (ring.count + jnp.arange(num)) % capacity
    stored = jax.tree.map(lambda old, x: old.at[at].set(x.astype(old.dtype)), ring.segments, new)
    return Ring(stored, ring.count + num)


def draw(ring: Ring, key: Any, num: int, *, skip: int = 0) -> Segments:
    """``num`` rollouts with replacement, without the newest ``skip`` (all the same while there are no others)."""
    capacity = ring.segments.transition.mask.shape[0]
    stored = jnp.minimum(ring.count, capacity)
    eligible = jnp.maximum(stored - skip, 1)
    back = jnp.minimum(skip, stored - 1) + jnp.floor(jax.random.uniform(key, (num,)) * eligible).astype(jnp.int32)
    at = (ring.count - 1 - back) % capacity
    return jax.tree.map(lambda x: x[at], ring.segments)


def rewards(reward: Reward, params: Any, running: Any, batch: Segments, fresh: State) -> Float[Array, "time rollouts"]:
    """What ``reward`` pays, ``[T, N]``; differentiable in ``params``. ``fresh`` is its state for N lanes at a start."""
    trajectory = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch.transition)
    return reward.unroll(params, fresh._replace(running=running), trajectory)[0].reward


def lane_state(reward: Reward, example: Transition) -> State:
    """The state of a reward at the start of episodes in as many lanes as ``example`` has."""
    return reward.init(jax.random.key(0), example)[1]


def objective(
    network: ActorCritic,
    params: Any,
    moments: Any,
    batch: Segments,
    reward: Float[Array, "time rollouts"],
    *,
    gamma: Any,
    baseline: bool,
    entropy_coef: Any,
    advice: Callable[[Any, Any], Any] | None = None,
    critic: Any = None,
    gae_lambda: Any = 1.0,
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """The policy-gradient surrogate: mean_t log pi(a_t | s_t) (G_t - b) + c H, over the steps that count.

    G_t is the discounted return to go, which is not bootstrapped at a time limit; b is the mean of all G_t, a function
    of the reward's params like G_t itself; H is the mean entropy of the policy in the visited states. With a critic the
    generalised advantage takes the place of G_t - b; it bootstraps at a time limit.

    Args:
        network: the policy.
        params: its parameters.
        moments: of the observations.
        batch: rollouts, from whichever policy; there are no importance weights.
        reward: ``[T, N]`` what the policy is paid.
        gamma: discount.
        baseline: whether to subtract b.
        entropy_coef: c.
        advice: added to G_t, as ``(obs [N], action [N]) -> [N]``.
        critic: parameters of V, held fixed; None for returns.
        gae_lambda: of the generalised advantage.
    """
    transition, raw = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch)
    mask = transition.mask
    returns = returns_to_go(reward, jnp.zeros_like(reward), transition.done | ~mask, gamma=gamma)
    if advice is not None:
        flat = jax.tree.map(lambda x: jnp.reshape(x, (-1, *x.shape[2:])), (transition.obs, transition.action))
        returns = returns + jnp.asarray(advice(*flat), returns.dtype).reshape(returns.shape)
    mean = lambda x: jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(mask.sum(), 1)  # noqa: E731
    advantage = returns - (mean(returns) if baseline else 0.0)
    x = network.inputs(moments, transition.obs)
    if critic is not None:
        value = lambda x: network.value({"critic": critic}, x)  # noqa: E731
        advantage = ppo_update.advantages(
            reward, value(x), value(network.inputs(moments, transition.next_obs)), transition.terminated,
            transition.truncated | ~mask, gamma=gamma, gae_lambda=gae_lambda,
        )  # fmt: skip
    z = network.latents(params, x)
    log_prob, entropy = network.log_prob_entropy(params, network.head(params, z, network.mask(transition.obs)), raw)
    surrogate, entropy = mean(log_prob * advantage), mean(entropy)
    return surrogate + entropy_coef * entropy, {"entropy": entropy, "return": mean(returns)}


def returns_scale(reward: Float[Array, "time rollouts"], batch: Segments, gamma: Any) -> Float[Array, ""]:
    """Standard deviation of the returns to go, 1 where there is none."""
    transition = jax.tree.map(lambda x: jnp.swapaxes(x, 0, 1), batch.transition)
    returns = returns_to_go(reward, jnp.zeros_like(reward), transition.done | ~transition.mask, gamma=gamma)
    weight: Bool[Array, "time rollouts"] = transition.mask
    total = jnp.maximum(weight.sum(), 1)
    mean = jnp.sum(returns * weight) / total
    deviation = jnp.sqrt(jnp.sum(jnp.square(returns - mean) * weight) / total)
    return jnp.where(deviation > 0, deviation, 1.0)
