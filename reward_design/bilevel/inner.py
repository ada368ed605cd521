"""The inner level of behaviour alignment: the policy learns from the blended reward, with phi held fixed.

Two learners: ``reinforce`` ascends the surrogate of :func:`reward_design.bilevel.segments.objective` on whole episodes,
new or from a ring; ``ppo`` is the update of :mod:`reward_design.agents.ppo` on the newest rollouts. The latter keeps a
second critic, of the primary reward, for the outer level.
"""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from reward_design.agents import ppo, ppo_update, scoring
from reward_design.agents.actor_critic import ActorCritic
from reward_design.bilevel import outer, segments
from reward_design.bilevel.alignment import learned_discount
from reward_design.core import Transition

LEARNERS = ("reinforce", "ppo")


class Critic(NamedTuple):
    """V of the primary reward, which the outer level's advantages need where the inner learner is ``ppo``."""

    params: Any
    opt_state: Any


def init(config: Any, network: ActorCritic, key: Any) -> tuple[Any, Any, Any, Critic | tuple[()]]:
    """Parameters, moments, optimiser state, and the critic of the primary reward (``()`` for ``reinforce``)."""
    params, moments = network.init(key)
    if config.learner == "reinforce":
        params = outer.policy(params)
        return params, moments, _optimiser(config).init(params), ()
    settings = _ppo_settings(config, config.gamma)
    opt_state = ppo_update.optimiser(settings).init(ravel_pytree(params)[0])
    primary = network.init(jax.random.fold_in(key, 1))[0]["critic"]
    return params, moments, opt_state, Critic(primary, _optimiser(config).init(primary))


def phase(
    level: "outer.Level", state: Any, fresh: Any, trajectory: Transition, extras: Any, lanes_state: Any, key: Any
) -> tuple[Any, dict[str, Array]]:
    """One inner phase.

    Args:
        level: what both levels read.
        state: of the run.
        fresh: the newest rollouts as segments.
        trajectory: the same ``[T, B]``.
        extras: of the policy that collected them.
        lanes_state: state of the reward where the trajectory starts.
        key: random key.

    Returns:
        The state with a new policy, and losses.
    """
    if level.config.learner == "ppo":
        return _ppo(level, state, trajectory, extras, lanes_state, key)
    return _reinforce(level, state, fresh, key)


def _reinforce(level: "outer.Level", state: Any, fresh: Any, key: Any) -> tuple[Any, dict[str, Array]]:
    """``inner_steps`` steps of ascent, each on a batch from the ring or on the newest rollouts."""
    config = level.config
    size = config.batch_size if config.replay else config.num_envs
    start = segments.lane_state(level.reward, scoring.reward_example(level.env, size))

    def ascend(carry: Any, key: Any) -> tuple[Any, dict[str, Array]]:
        params, opt_state, sensitivity = carry
        batch = segments.draw(state.ring, key, size) if config.replay else fresh
        inner = partial(level.inner, batch=batch, fresh=start)
        grads, aux = jax.grad(inner, has_aux=True)(params, state.reward_params)
        if config.outer == "imgl":
            sensitivity = outer.advance_sensitivity(level, state, params, sensitivity, batch, start)
        updates, opt_state = _optimiser(config).update(jax.tree.map(jnp.negative, grads), opt_state)
        params = jax.tree.map(lambda p, u: p - config.learning_rate * u, params, updates)
        return (params, opt_state, sensitivity), aux

    carry = (state.params, state.opt_state, state.sensitivity)
    (params, opt_state, sensitivity), aux = jax.lax.scan(ascend, carry, jax.random.split(key, config.inner_steps))
    state = state._replace(params=params, opt_state=opt_state, sensitivity=sensitivity)
    return state, {"entropy": aux["entropy"].mean()}


def _ppo(
    level: "outer.Level", state: Any, trajectory: Transition, extras: Any, lanes_state: Any, key: Any
) -> tuple[Any, dict[str, Array]]:
    """``inner_steps`` epochs of PPO on the newest rollouts, and as many steps of the primary reward's critic."""
    config, network = level.config, level.network
    gamma = learned_discount(state.reward_params) if config.learn_discount else config.gamma
    settings = _ppo_settings(config, gamma)
    paid = level.reward.unroll(state.reward_params, lanes_state, trajectory)[0]
    z = ppo_update.hidden(network, state.params, level.moments, trajectory, extras)
    rows, entropy = ppo_update.batch(
        settings, network, state.params, level.moments, trajectory, z, extras, paid.reward / level.scale
    )
    params, opt_state, losses = ppo_update.learn(
        settings, network, state.params, state.opt_state, state.num_updates, rows, key
    )
    critic = state.critic
    if config.outer != "none":
        part = level.reward.children["primary"]
        own = lanes_state._replace(
            episode=lanes_state.episode["primary"], running=lanes_state.running["primary"],
            fresh=lanes_state.fresh["primary"],
        )  # fmt: skip
        primary = part.unroll(state.reward_params["rewards"]["primary"], own, trajectory)[0].reward / level.scale
        critic = _fit(level, critic, trajectory, primary)
    return state._replace(params=params, opt_state=opt_state, critic=critic), {"entropy": entropy, **losses}


def _fit(level: "outer.Level", critic: Critic, trajectory: Transition, reward: Array) -> Critic:
    """The critic of the primary reward, moved towards its lambda returns on the newest rollouts."""
    config, network = level.config, level.network
    x, next_x = (network.inputs(level.moments, obs) for obs in (trajectory.obs, trajectory.next_obs))
    value = lambda params, x: network.value({"critic": params}, x)  # noqa: E731
    now = value(critic.params, x)
    target = now + ppo_update.advantages(
        reward, now, value(critic.params, next_x), trajectory.terminated, trajectory.truncated,
        gamma=config.gamma, gae_lambda=config.gae_lambda,
    )  # fmt: skip
    weight = trajectory.mask / jnp.maximum(trajectory.mask.sum(), 1)
    loss = lambda params: jnp.sum(weight * jnp.square(value(params, x) - target))  # noqa: E731

    def step(critic: Critic, _: Any) -> tuple[Critic, None]:
        updates, opt_state = _optimiser(config).update(jax.grad(loss)(critic.params), critic.opt_state)
        params = jax.tree.map(lambda p, u: p - config.learning_rate * u, critic.params, updates)
        return Critic(params, opt_state), None

    return jax.lax.scan(step, critic, length=config.inner_steps * config.num_minibatches)[0]


def _ppo_settings(config: Any, gamma: Any) -> ppo.Config:
    return ppo.Config(
        total_timesteps=config.total_timesteps, num_envs=config.num_envs, num_steps=config.horizon,
        num_epochs=config.inner_steps, num_minibatches=config.num_minibatches, hidden=config.hidden,
        normalise_obs=config.normalise_obs, learning_rate=config.learning_rate, learning_rate_end=config.learning_rate,
        entropy_coef=config.entropy_coef, entropy_coef_end=config.entropy_coef, gamma=gamma,
        gae_lambda=config.gae_lambda, clip_ratio=config.clip_ratio, max_grad_norm=config.max_grad_norm,
    )  # fmt: skip


def _optimiser(config: Any) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5))


def check(config: Any) -> None:
    """Refuse settings that do not go together, one sentence each."""
    if config.learner != "ppo":
        return
    if config.replay:
        raise ValueError(f"learner='ppo' learns from the newest rollouts alone: set replay to 0, got {config.replay}.")
    if config.outer == "imgl":
        raise ValueError("outer='imgl' accumulates steps of plain ascent, which learner='ppo' does not take.")
    if config.advice is not None:
        raise ValueError("advice is added to returns, which learner='ppo' does not use; take learner='reinforce'.")
    _ppo_settings(config, 0.99)
