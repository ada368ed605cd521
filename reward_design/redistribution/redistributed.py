"""Contributions of an estimator as a reward: what the methods of this package have in common."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from reward_design._arguments import finite, whole_number
from reward_design.agents.settings import check_floats
from reward_design.combinators import joined, part_state
from reward_design.constructors import checked_gamma, from_step, pointwise
from reward_design.core import ApplyFn, Kind, Output, Params, Reward, State, Transition
from reward_design.learners import within
from reward_design.redistribution import grounding, learning
from reward_design.redistribution.estimators import Estimator
from reward_design.redistribution.features import Features, flat_features
from reward_design.redistribution.learning import Fit
from reward_design.redistribution.losses import Loss
from reward_design.redistribution.returns import Correction, check_correction, segments

MODES = ("penalty", "bonus")


def redistributed(
    name: str,
    estimator: Estimator,
    loss: Loss,
    *,
    max_length: int,
    features: Features | None = None,
    fit: Fit | None = None,
    correction: Correction = "last",
    alpha: float | int = 1.0,
    valid: str | grounding.Grounding | None = None,
    beta: float | int = 0.5,
    mode: str = "penalty",
    discount_compensation: float | int | None = None,
) -> Reward:
    """Contributions of an estimator in place of the incoming reward; what all methods of this package but one are.

    r_t = α (c_t + e_t) + β g_t, with e_t the correction, g_t the grounding signal; see :func:`spa`.

    Keeps the optimal policy: only if corrected and without grounding, see :func:`spa`.

    Args:
        name: of the reward.
        estimator: of the contributions.
        loss: what it is trained with.
        max_length: longest episode in steps, see :func:`spa`; and so are all that follow.
        features: what it reads.
        fit: how it is trained.
        correction: ``"none"``, ``"equal"`` or ``"last"``.
        alpha: weight of the contributions.
        valid: the grounding signal.
        beta: its weight.
        mode: ``"penalty"`` or ``"bonus"``.
        discount_compensation: gamma of the agent, or None.

    Returns:
        A :class:`reward_design.Reward` with a learner.
    """
    check_correction(correction)
    if mode not in MODES:
        raise ValueError(f"mode must be 'penalty' or 'bonus', got {mode!r}.")
    whole_number("max_length", max_length, least=1)
    finite("alpha", alpha)
    finite("beta", beta)
    if not isinstance(fit, Fit | None):
        raise TypeError(f"fit must be a Fit or None, got {fit!r}; write Fit(batch_size=16).")
    if not (features is None or callable(features)):
        raise TypeError(f"features must be a function of a transition or None, got {features!r}.")
    check_floats(fit or Fit())
    fit, features = fit or Fit(), features or flat_features
    signal = grounding.resolved(valid)
    gamma = None if discount_compensation is None else checked_gamma(discount_compensation, "discount_compensation")
    split = correction == "equal"  # is paid as long as the estimator is not trusted
    contribution = _contribution(estimator, fit, features, falls_back_on_rate=split)
    account = _account(correction, fit, signal, mode, gamma)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        params, state = contribution.init(key, example)
        states = {"contribution": state, "account": account.init(key, _with(example, example.reward))[1]}
        weights = {"alpha": jnp.float32(alpha)}
        weights |= {} if signal is None else {"beta": jnp.float32(beta)}
        weights |= {} if gamma is None else {"gamma": jnp.float32(gamma)}
        return {"estimator": params, **weights}, joined(states)

    def apply(which: str) -> ApplyFn:
        def run(params: Params, state: State, transition: Transition) -> tuple[Output, State]:
            before, owing = part_state(state, "contribution"), part_state(state, "account")
            output, after = getattr(contribution, which)(params["estimator"], before, transition)
            share = _shares(output.reward, owing, transition, fit) if split else None
            rows = _with(transition, output.reward, share)
            output, owing = getattr(account, which)(params, owing, rows)
            return output, joined({"contribution": after, "account": owing})

        return run

    kind = Kind.TRAJECTORY if split else Kind.CAUSAL
    settings = {"estimator": estimator.name, "loss": loss.name, "correction": correction, "max_length": max_length}
    settings |= {} if gamma is None else {"gamma": gamma}
    settings |= {} if signal is None else {"mode": mode}
    learner = learning.learner(estimator, loss, fit, features, max_length, beyond_split=split)
    taught = within(learner, "estimator")
    step = None if kind is Kind.TRAJECTORY else apply("step")
    return Reward(name, kind, init, step, apply("unroll"), settings, learner=taught)


# --- parts ----------------------------------------------------------------------------------------------------------


def _contribution(estimator: Estimator, fit: Fit, features: Features, *, falls_back_on_rate: bool) -> Reward:
    """c_t as a reward: of the network, or where it is not trusted 0 or the mean reward per step."""

    def params(key: Any, example: Transition) -> Params:
        return learning.initial_params(estimator, fit, key, features(example).shape[-1])

    def scaled(params: Params, c: Float[Array, " batch"]) -> Float[Array, " batch"]:
        otherwise = params["rate"] if falls_back_on_rate else 0.0
        return jnp.where(params["trust"] > 0, params["scale"] * c, otherwise)

    if not estimator.memory:
        read = lambda p, t: scaled(p, estimator.step(p["network"], (), learning.read(p, fit, features, t))[0])  # noqa: E731
        return pointwise("contribution", read, params=params)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        made = params(key, example)
        return made, State(episode=estimator.initial(made["network"], example.mask.shape[0]))

    def step(params: Params, state: State, transition: Transition) -> tuple[Array, State]:
        c, carry = estimator.step(params["network"], state.episode, learning.read(params, fit, features, transition))
        return scaled(params, c), state._replace(episode=carry)

    return from_step("contribution", init, step)


def _account(correction: str, fit: Fit, signal: grounding.Grounding | None, mode: str, gamma: float | None) -> Reward:
    """What is paid: contributions, what is owed, grounding; reads ``info["contribution"]`` and ``info["share"]``."""

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        nothing = jnp.zeros_like(jnp.asarray(example.reward) * 1.0)
        return (), State(episode={"owed": nothing, "progress": nothing})

    def step(params: Params, state: State, t: Transition) -> tuple[Any, State]:
        reward = jnp.asarray(t.reward) * 1.0  # whole numbers as floats
        c = jnp.where(jnp.isfinite(reward), t.info["contribution"], jnp.nan)
        missing = jnp.where(_labelled(t, fit), state.episode["owed"] + reward - c, 0)
        if correction == "none":
            missing = jnp.where(params["estimator"]["trust"] > 0, 0, missing)
        corrected = t.info["share"] if correction == "equal" else missing
        progress = state.episode["progress"] + c + corrected
        terms = {"contribution": params["alpha"] * c, "correction": params["alpha"] * corrected}
        if gamma is not None:
            terms["discount"] = jnp.where(t.done, 0, -params["alpha"] * (1 - params["gamma"]) * progress)
        if signal is not None:
            terms["grounding"] = params["beta"] * (signal(t) - (1.0 if mode == "penalty" else 0.0))
        owed = state.episode["owed"] + reward - c - corrected
        episode = {"owed": owed.astype(reward.dtype), "progress": progress.astype(reward.dtype)}
        return (sum(terms.values()), terms), state._replace(episode=episode)

    return from_step("account", init, step)


def _labelled(t: Transition, fit: Fit) -> Array:
    """Rows that end an episode whose return is known."""
    return t.done & (jnp.asarray(t.terminated) | fit.truncated)


def _shares(c: Array, owing: State, t: Transition, fit: Fit) -> Array:
    """Equal parts of what is missing, over the rows of each episode that are in this rollout."""
    mask, owed = jnp.asarray(t.mask), owing.episode["owed"]
    missing = jnp.asarray(t.reward) - c
    found, _ = segments(missing, mask, t.done, _labelled(t, fit), owed, jnp.zeros_like(owed))
    return found.total / found.length


def _with(transition: Transition, contribution: Any, share: Any = None) -> Transition:
    share = jnp.zeros_like(contribution) if share is None else share
    return transition._replace(info={**transition.info, "contribution": contribution, "share": share})
