"""The outer level of behaviour alignment: a step on phi towards the primary return, by a long or a short gradient.

``implicit`` is BARFI. The two others come from the literature and share data and inner learner with it:

- ``lirpg``: the gradient through one inner step alone, dO/dphi + eta A^T v, on the newest rollouts for both.
- ``imgl``: the sensitivity M = dtheta/dphi is carried along all inner steps, M <- M + eta (H M + A); dO/dphi = M^T v.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from reward_design.agents import scoring
from reward_design.agents.actor_critic import ActorCritic
from reward_design.agents.settings import at_least, one_of
from reward_design.bilevel import implicit, segments
from reward_design.bilevel.alignment import MAX_DISCOUNT, learned_discount, logit
from reward_design.core import Reward, State

OUTER = ("implicit", "lirpg", "imgl", "none")
INVERSES = ("identity", "neumann", "cg", "exact")
POWER_ITERATIONS = 8


class Level(NamedTuple):
    """What both levels read and do not change within an update; ``critics`` is None for ``learner="reinforce"``."""

    config: Any
    env: Any
    reward: Reward
    network: ActorCritic
    moments: Any
    running: Any
    scale: Any
    critics: Any = None

    def inner(self, params: Any, reward_params: Any, *, batch: Any, fresh: State) -> tuple[Array, dict[str, Array]]:
        """The inner objective on a batch: what the policy is paid, in units of the warm start's returns."""
        paid = segments.rewards(self.reward, reward_params, self.running, batch, fresh) / self.scale
        gamma = learned_discount(reward_params) if self.config.learn_discount else self.config.gamma
        return segments.objective(
            self.network, params, self.moments, batch, paid,
            gamma=gamma, baseline=self.config.baseline, entropy_coef=self.config.entropy_coef,
            advice=self.config.advice, **self._critic("blend"),
        )  # fmt: skip

    def primary(self, params: Any, reward_params: Any, *, batch: Any, fresh: State) -> Array:
        """The outer objective: the primary return with the environment's discount and no entropy, minus penalties."""
        part = self.reward.children["primary"]
        own = State(fresh.episode["primary"], (), fresh.fresh["primary"])
        running = self.running["primary"]
        paid = segments.rewards(part, reward_params["rewards"]["primary"], running, batch, own) / self.scale
        config = self.config
        value, _ = segments.objective(
            self.network, params, self.moments, batch, paid,
            gamma=config.gamma, baseline=config.baseline, entropy_coef=0.0, **self._critic("primary"),
        )  # fmt: skip
        norms = sum(_norm(head) for head in reward_params["phi"])
        penalty = config.reward_penalty * norms
        if config.learn_discount:
            penalty = penalty + config.discount_penalty * learned_discount(reward_params)
        return value - penalty

    def _critic(self, name: str) -> dict[str, Any]:
        """What :func:`segments.objective` needs for advantages from a critic, frozen at both levels."""
        return {} if self.critics is None else {"critic": self.critics[name], "gae_lambda": self.config.gae_lambda}


def step(level: Level, state: Any, fresh: segments.Segments, key: Any, *, active: Any) -> tuple[Any, dict[str, Array]]:
    """One outer step; nothing moves unless ``active``, nor where the gradient is not finite."""
    config = level.config
    newest = segments.lane_state(level.reward, scoring.reward_example(level.env, config.num_envs))
    learned_params = learned(config, state.reward_params)
    outer_objective = lambda params, phi: level.primary(  # noqa: E731
        params, merged(state.reward_params, phi), batch=fresh, fresh=newest
    )
    nan = jnp.float32(jnp.nan)
    a_rho, residual = nan, nan
    if config.outer == "imgl":
        gradient = _through_sensitivity(state, outer_objective, learned_params)
    else:
        batch, start = fresh, newest
        if config.outer == "implicit" and config.replay:
            batch = segments.draw(state.ring, key, config.outer_batch_size, skip=config.num_envs)
            start = segments.lane_state(level.reward, scoring.reward_example(level.env, config.outer_batch_size))
        inner_objective = lambda params, phi: level.inner(  # noqa: E731
            params, merged(state.reward_params, phi), batch=batch, fresh=start
        )[0]
        theta = policy(state.params)
        gradient, a_rho, residual = _implicit(config, inner_objective, outer_objective, theta, learned_params)
    flat, _ = ravel_pytree(gradient)
    moves = active & jnp.isfinite(flat).all()
    gradient = jax.tree.map(lambda g: jnp.where(moves, -g, 0.0), gradient)
    updates: Any
    updates, opt_state = optimiser(config).update(gradient, state.reward_opt_state)
    rates = {"phi": config.reward_learning_rate, "network": config.reward_learning_rate}
    rates["discount"] = config.discount_learning_rate
    new = {
        name: jax.tree.map(lambda p, u, r=rates[name]: p - r * u, learned_params[name], updates[name])
        for name in updates
    }
    if "discount" in new:
        new["discount"] = jnp.minimum(new["discount"], logit(MAX_DISCOUNT))
    choose = lambda a, b: jax.tree.map(lambda x, y: jnp.where(moves, x, y), a, b)  # noqa: E731
    reward_params = merged(state.reward_params, choose(new, learned_params))
    state = state._replace(reward_params=reward_params, reward_opt_state=choose(opt_state, state.reward_opt_state))
    heads = [head["c"] if isinstance(head, dict) else head for head in reward_params["phi"]]
    metrics = {f"phi{i + 1}": head.astype(jnp.float32) for i, head in enumerate(heads)}
    metrics |= {"discount": learned_discount(reward_params), "a_rho": a_rho, "residual": residual}
    return state, metrics | {"outer_gradient": jnp.linalg.norm(flat)}


def _implicit(config: Any, inner: Any, outer: Any, params: Any, phi: Any) -> tuple[Any, Array, Array]:
    """dO/dphi + A^T p with p for (damping rho - H)^{-1} v, which ``damping >= 1`` makes positive definite."""
    theta, as_params = ravel_pytree(params)
    inner_flat = lambda x, phi: inner(as_params(x), phi)  # noqa: E731
    outer_flat = lambda x, phi: outer(as_params(x), phi)  # noqa: E731
    if config.outer == "lirpg":
        made = implicit.hypergradient(
            inner_flat, outer_flat, theta, phi, method="identity", step_size=config.learning_rate
        )
        return made.gradient, made.diagnostics.a_rho, made.diagnostics.residual
    curvature = implicit.hessian(inner_flat, theta, phi)
    if config.method == "neumann":  # the solver's own diagnostics would find the spectral radius a second time
        rho = jax.lax.stop_gradient(implicit.spectral_radius(curvature, theta, POWER_ITERATIONS))
        shift = config.damping * rho
        damped = lambda x: curvature(x) - shift * x  # noqa: E731
        a = 1.0 / ((1.0 + config.damping) * jnp.maximum(rho, 1e-8))
        v, direct = jax.grad(outer_flat, argnums=(0, 1))(theta, phi)
        p, _ = implicit.neumann_series(damped, v, step_size=a, num_terms=config.num_terms)
        residual = jnp.linalg.norm(-damped(p) - v) / jnp.maximum(jnp.linalg.norm(v), 1e-30)
        gradient = jax.tree.map(jnp.add, direct, implicit.mixed_product(inner_flat, theta, phi, p))
        return gradient, a * (1.0 + config.damping) * rho, residual
    rho = implicit.spectral_radius(curvature, theta, POWER_ITERATIONS) if config.method != "identity" else 0.0
    made = implicit.hypergradient(
        inner_flat, outer_flat, theta, phi, method=config.method, damping=config.damping * rho
    )
    return made.gradient, made.diagnostics.a_rho, made.diagnostics.residual


# --- what of the reward's params is learned -------------------------------------------------------------------------


def learned(config: Any, reward_params: Any) -> dict[str, Any]:
    """The parts of an alignment reward's params that the outer level moves."""
    phi = {
        str(i): head
        for i, (head, wanted) in enumerate(zip(reward_params["phi"], config.learn_phi, strict=True))
        if wanted
    }
    chosen: dict[str, Any] = {"phi": phi}
    if jax.tree.leaves(reward_params["network"]):
        chosen["network"] = reward_params["network"]
    if config.learn_discount:
        chosen["discount"] = reward_params["discount"]
    return chosen


def merged(reward_params: Any, chosen: dict[str, Any]) -> Any:
    """Params with the learned parts put in."""
    phi = tuple(chosen["phi"].get(str(i), head) for i, head in enumerate(reward_params["phi"]))
    others = {name: value for name, value in chosen.items() if name != "phi"}
    return {**reward_params, **others, "phi": phi}


def optimiser(config: Any) -> optax.GradientTransformation:
    """Adam behind a global norm; the rates are applied in :func:`step`."""
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-8))


def _norm(head: Any) -> Array:
    """Euclidean norm of a head, with gradient 0 at 0."""
    flat, _ = ravel_pytree(head)
    square = jnp.sum(jnp.square(flat))
    return jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)


# --- the sensitivity of the policy ----------------------------------------------------------------------------------


def policy(params: Any) -> Any:
    """The part of the parameters that decides what the policy does: theta."""
    return {name: value for name, value in params.items() if name != "critic"}


def initial_sensitivity(config: Any, params: Any, chosen: Any) -> Any:
    """dtheta/dphi = 0 as a matrix ``[phi, theta]`` for ``imgl``, nothing for the others."""
    if config.outer != "imgl":
        return ()
    return jnp.zeros((ravel_pytree(chosen)[0].size, ravel_pytree(params)[0].size))


def advance_sensitivity(level: Level, state: Any, params: Any, sensitivity: Array, batch: Any, start: State) -> Array:
    """M + eta (H M + A), row by row: the derivative of one step of plain ascent."""
    theta, as_params = ravel_pytree(params)
    phi, as_phi = ravel_pytree(learned(level.config, state.reward_params))

    def slope(theta: Array, phi: Array) -> Array:
        reward_params = merged(state.reward_params, as_phi(phi))
        objective = lambda x: level.inner(as_params(x), reward_params, batch=batch, fresh=start)[0]  # noqa: E731
        return jax.grad(objective)(theta)

    along = lambda row, unit: jax.jvp(slope, (theta, phi), (row, unit))[1]  # noqa: E731
    change = jax.vmap(along)(sensitivity, jnp.eye(phi.size, dtype=phi.dtype))
    return sensitivity + level.config.learning_rate * change


def _through_sensitivity(state: Any, outer: Any, chosen: Any) -> Any:
    v, direct = jax.grad(outer, argnums=(0, 1))(state.params, chosen)
    flat, as_phi = ravel_pytree(direct)
    return as_phi(flat + state.sensitivity @ ravel_pytree(v)[0])


def check(config: Any) -> None:
    """Refuse settings out of range, one sentence each."""
    one_of(config, "outer", OUTER)
    one_of(config, "method", INVERSES)
    at_least(config, 1, "batch_size", "inner_steps", "outer_batch_size")
    at_least(config, 0, "replay", "warm_start", "num_terms")
    for name, high in (("gamma", 1.0), ("damping", float("inf"))):
        value = getattr(config, name)
        if isinstance(value, (int, float)) and not 0 <= value < high:
            raise ValueError(f"{name} must be in [0, {high:g}), got {value}.")
