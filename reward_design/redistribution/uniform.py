"""The return of an episode in equal parts to its steps: the baseline that needs no estimator."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from reward_design.constructors import from_trajectory
from reward_design.core import Learner, Params, Reward, State, Transition
from reward_design.redistribution import estimators, losses
from reward_design.redistribution.features import Features
from reward_design.redistribution.learning import Fit
from reward_design.redistribution.redistributed import redistributed
from reward_design.redistribution.returns import segments


def ircr(*, normalise: bool = True) -> Reward:
    """Iterative relative credit refinement: each step earns its episode's mean reward, r_t = (R / T - m) / (M - m).

    m and M are the least and the largest R / T of the run so far (the paper forgets the least with its replay). An
    episode that does not end in the rollout earns the mean R / T of the last episodes.

    Keeps the optimal policy: no; without ``normalise`` only if gamma is 1.

    Args:
        normalise: scale into [0, 1]; as long as all R / T are equal the reward is 0. False is the uniform split
            r_t = R / T, which adds up to R; what a rollout's cut leaves over is spread over the steps after it.

    Returns:
        A :class:`reward_design.Reward` of kind ``TRAJECTORY`` whose learner keeps m, M and the mean.

    Example:
        >>> from reward_design.redistribution import ircr
        >>> ircr(normalise=False).kind.name
        'TRAJECTORY'

    Source: Gangwani, Zhou and Peng, "Learning Guidance Rewards with Trajectory-space Smoothing", 2020,
    arXiv:2010.12718.
    """

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        zeros = jnp.zeros_like(jnp.asarray(example.reward) * 1.0)
        params = {name: jnp.zeros((), zeros.dtype) for name in ("rate", "least", "largest", "episodes")}
        return params, State(episode={"total": zeros, "length": zeros})

    def unroll(params: Params, state: State, t: Transition) -> tuple[Array, State]:
        rate, done = params["rate"], t.done
        reward = jnp.asarray(t.reward) * 1.0  # whole numbers as floats
        values = reward if normalise else reward - rate
        length = state.episode["length"] if normalise else jnp.zeros_like(state.episode["length"])
        found, left = segments(values, jnp.asarray(t.mask), done, done, state.episode["total"], length)
        share = found.total / found.length
        paid = _relative(jnp.where(found.known, share, rate), params) if normalise else rate + share
        paid = jnp.where(jnp.isfinite(reward), paid, jnp.nan)
        return paid, state._replace(episode={"total": left[0], "length": left[1]})

    reward = from_trajectory("ircr", init, unroll, settings={"normalise": normalise})
    return _taught(reward)


def smoothed_ircr(
    *, max_length: int, num_steps: int = 64, features: Features | None = None, fit: Fit | None = None
) -> Reward:
    """The mean of :func:`ircr` over the episodes through a transition: r(s, a, s') = E[R / T | s, a, s'].

    An estimator of the mean reward of an episode in place of a sample, which agents that learn off-policy can ask.

    Keeps the optimal policy: no.

    Args:
        max_length: longest episode in steps.
        num_steps: steps of an episode that an update sees.
        features: what is read, see :func:`spa`.
        fit: how the estimator is trained.

    Returns:
        A :class:`reward_design.Reward` of kind ``CAUSAL`` with a learner.

    Example:
        >>> from reward_design.redistribution import smoothed_ircr
        >>> smoothed_ircr(max_length=100).settings["loss"]
        'equal_shares'

    Source: Gangwani, Zhou and Peng, 2020, arXiv:2010.12718, the expectation that its algorithm samples.
    """
    return redistributed(
        "smoothed_ircr", estimators.mlp(), losses.equal_shares(num_steps), max_length=max_length, features=features,
        fit=fit, correction="none",
    )  # fmt: skip


def _relative(share: Array, params: Params) -> Array:
    width = params["largest"] - params["least"]
    return jnp.where(width > 0, (share - params["least"]) / jnp.where(width > 0, width, 1), 0)


def _taught(reward: Reward) -> Reward:
    """The reward with a learner of its params: the mean, the least and the largest R / T."""

    def init(key: Any, params: Params, example: Transition) -> Any:
        nothing = jnp.zeros_like(jnp.asarray(example.reward) * 1.0)
        return {"total": nothing, "length": nothing}

    def update(params: Params, state: Any, batch: Transition, key: Any) -> tuple[Params, Any, Mapping[str, Any]]:
        mask, done, reward = jnp.asarray(batch.mask), batch.done, jnp.asarray(batch.reward) * 1.0
        found, left = segments(reward, mask, done, done, state["total"], state["length"])
        ended = mask & done
        number, share = ended.sum(), found.total / found.length
        fresh = params["episodes"] == 0
        low = jnp.min(share, where=ended, initial=jnp.inf)
        high = jnp.max(share, where=ended, initial=-jnp.inf)
        least = jnp.where(fresh & (number > 0), low, jnp.minimum(params["least"], low))
        largest = jnp.where(fresh & (number > 0), high, jnp.maximum(params["largest"], high))
        rate = jnp.where(number > 0, jnp.sum(share, where=ended) / jnp.maximum(number, 1), params["rate"])
        seen = {"rate": rate, "least": least, "largest": largest, "episodes": params["episodes"] + number}
        params = {name: jnp.asarray(value, params[name].dtype) for name, value in seen.items()}
        return params, {"total": left[0], "length": left[1]}, {"rate": rate}

    return dataclasses.replace(reward, learner=Learner(init, update))
