"""The reward of behaviour alignment: a task's reward and a heuristic, blended by parameters that are learned."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from reward_design.combinators import composed, joined, part_state
from reward_design.core import ApplyFn, Kind, Output, Params, Reward, State, Transition, blank_masked
from reward_design.describe import missing_entry

MAX_DISCOUNT = 0.999
"""Largest learned discount."""
START = (0.0, 1.0, 1.0)
"""phi at the start: the naive sum of primary and auxiliary reward."""


def alignment_reward(
    primary: Reward,
    auxiliary: Reward,
    *,
    features: Callable[[Transition], Any] | None = None,
    network: Any = None,
    discount: float = 0.99,
) -> Reward:
    """Blend of a primary and an auxiliary reward: r_t = phi1(.) + phi2(.) r^primary_t + phi3(.) r^auxiliary_t.

    Without ``features`` and ``network`` phi1, phi2 and phi3 are three numbers. With them phi_i = c_i + w_i . x, where x
    is ``features(transition)``, what ``network`` makes of it, or of the observation if there are no features. All w_i
    start at zero and c at (0, 1, 1), so that every form starts at the naive sum of the two rewards.

    The discount of the inner learner is a parameter as well, min(sigmoid(v), 0.999).

    Keeps the optimal policy: no; that is what the outer loop of :func:`reward_design.bilevel.barfi` is for.

    Args:
        primary: the reward that counts. Its scale is the unit of phi1.
        auxiliary: the designer's heuristic.
        features: ``transition -> [B, d]`` floating point, for weights that depend on state and action.
        network: flax module from ``[B, d]`` to ``[B, h]`` below the linear heads, learned with them.
        discount: where the learned discount starts, in (0, 0.999].

    Returns:
        A :class:`Reward` with params ``{"phi": (phi1, phi2, phi3), "network": ..., "discount": v,
        "rewards": {"primary": ..., "auxiliary": ...}}``; each phi_i is a number, or ``{"c": number, "w": [h]}``. Terms:
        ``bonus`` (phi1), ``primary`` and ``auxiliary``, weighted.

    Raises:
        ValueError: for a discount outside (0, 0.999], or when it is initialised for a task whose transitions lack what
            one of the rewards reads.
        TypeError: for a primary reward of kind TRAJECTORY, or features that are not ``[B, d]`` floating point.

    Example:
        >>> import reward_design as rd
        >>> from reward_design.bilevel import alignment_reward
        >>> from reward_design.envs import task
        >>> cartpole = task("cartpole")
        >>> blend = alignment_reward(rd.environment_reward(), cartpole.auxiliary["misaligned"])
        >>> params, _ = blend.init(None, cartpole.example)
        >>> tuple(map(float, params["phi"]))
        (0.0, 1.0, 1.0)

    Source: D. Gupta, Y. Chandak, S. Jordan, P. Thomas, B. C. da Silva, "Behavior Alignment via Reward Function
    Optimization", 2023, arXiv 2310.19007. Their released heads start at small random weights; these at the naive sum.
    """
    _check(primary, auxiliary, discount)
    parts = {"primary": primary, "auxiliary": auxiliary}
    local = features is not None or network is not None

    def inputs(transition: Transition) -> Float[Array, "batch features"]:
        if features is None:
            leaves = jax.tree.leaves(transition.obs)
            batch = transition.mask.shape[0]
            return jnp.concatenate([jnp.reshape(x, (batch, -1)).astype(jnp.float32) for x in leaves], axis=-1)
        return _checked_features(features(transition), transition)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        key = jax.random.key(0) if key is None else key
        keys = jax.random.split(key, 3)
        made = {name: _init_part(part, k, example) for k, (name, part) in zip(keys, parts.items(), strict=False)}
        dtype = jnp.asarray(example.reward).dtype
        dtype = dtype if jnp.issubdtype(dtype, jnp.floating) else jnp.float32
        phi: Any = tuple(jnp.asarray(c, dtype) for c in START)
        trunk: Any = ()
        if local:
            x = inputs(example)
            if network is not None:
                trunk = network.init(keys[2], x)
                x = network.apply(trunk, x)
            phi = tuple({"c": c, "w": jnp.zeros(x.shape[-1], dtype)} for c in phi)
        params = {
            "phi": phi,
            "network": trunk,
            "discount": jnp.asarray(logit(discount), dtype),
            "rewards": {name: part_params for name, (part_params, _) in made.items()},
        }
        return params, joined({name: state for name, (_, state) in made.items()})

    def weights(params: Params, transition: Transition) -> Any:
        if not local:
            return params["phi"]
        shape = transition.mask.shape
        flat = jax.tree.map(lambda x: jnp.reshape(x, (-1, *jnp.shape(x)[len(shape) :])), transition)
        x = inputs(flat)
        if network is not None:
            x = network.apply(params["network"], x)
        return tuple((head["c"] + x @ head["w"]).reshape(shape) for head in params["phi"])

    def apply(which: str) -> ApplyFn:
        def run(params: Params, state: State, transition: Transition) -> tuple[Output, State]:
            phi1, phi2, phi3 = weights(params, blank_masked(transition))
            outputs, states = {}, {}
            for name, part in parts.items():
                own = part_state(state, name)
                outputs[name], states[name] = getattr(part, which)(params["rewards"][name], own, transition)
            terms = {
                "bonus": jnp.where(transition.mask, phi1, 0.0),
                "primary": phi2 * outputs["primary"].reward,
                "auxiliary": phi3 * outputs["auxiliary"].reward,
            }
            return Output(terms["bonus"] + terms["primary"] + terms["auxiliary"], terms), joined(states)

        return run

    rebuild = lambda new: alignment_reward(  # noqa: E731
        new["primary"], new["auxiliary"], features=features, network=network, discount=discount
    )
    settings = {"phi": "network" if network is not None else "linear" if local else "scalar", "discount": discount}
    return composed("alignment", parts, apply, init, rebuild, settings)


def learned_discount(params: Params) -> Float[Array, ""]:
    """The discount in the params of an alignment reward: min(sigmoid(v), 0.999)."""
    return jnp.minimum(jax.nn.sigmoid(params["discount"]), MAX_DISCOUNT)


def logit(p: float) -> float:
    """log(p / (1 - p))."""
    return math.log(p) - math.log1p(-p)


def is_alignment(reward: Reward) -> bool:
    """Whether a reward was made by :func:`alignment_reward`."""
    return reward.name == "alignment" and set(reward.children) == {"primary", "auxiliary"}


def _init_part(part: Reward, key: Any, example: Transition) -> tuple[Params, State]:
    """``part.init``, tried on the example, so that what it reads and the task does not have is known at once."""
    try:
        params, state = part.init(key, example)
        trajectory = jax.tree.map(lambda x: jnp.asarray(x)[None], example)
        jax.eval_shape(part.unroll, params, state, trajectory)
    except (KeyError, TypeError) as error:
        raise missing_entry(part, error, example) from error
    return params, state


def _checked_features(x: Any, transition: Transition) -> Float[Array, "batch features"]:
    x = jnp.asarray(x)
    batch = transition.mask.shape[0]
    if x.ndim != 2 or x.shape[0] != batch or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"alignment_reward: features must return floating point [B, d] with B = {batch}, got {x.dtype} {x.shape}; "
            "stack the features on the last axis."
        )
    return x


def _check(primary: Any, auxiliary: Any, discount: float) -> None:
    for name, reward in (("primary", primary), ("auxiliary", auxiliary)):
        if not isinstance(reward, Reward):
            raise TypeError(f"alignment_reward: {name} must be a Reward, got {type(reward).__name__}; see pointwise.")
        if reward.kind is Kind.TRAJECTORY:
            raise TypeError(
                f"alignment_reward: the {name} reward {reward.name!r} needs whole episodes (kind TRAJECTORY), which "
                "leaves the time of a reward open; give one of kind POINTWISE or CAUSAL, or wrap it in delayed(...)."
            )
    if not 0 < discount <= MAX_DISCOUNT:
        raise ValueError(f"alignment_reward: discount must be in (0, {MAX_DISCOUNT}], got {discount}.")
