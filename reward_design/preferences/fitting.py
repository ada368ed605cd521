"""Fitting a Bradley-Terry model to answers: gradient steps of every member, scales, and a report on held-out pairs."""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from reward_design.core import Params
from reward_design.preferences.model import Model, preference_loss, score
from reward_design.preferences.ranking import STARVED, level_shares
from reward_design.preferences.segments import Segments, step_weights
from reward_design.preferences.teachers import Answer


class Batch(NamedTuple):
    """Segments, and pairs of them with answers.

    Attributes:
        inputs: ``[S, T, d]``.
        length: ``[S]``.
        ended: ``[S]``.
        first: ``[P]`` indices into the segments.
        second: ``[P]``.
        answer: fields ``[P]``.
    """

    inputs: Float[Array, "segments time d"]
    length: Int[Array, " segments"]
    ended: Bool[Array, " segments"]
    first: Int[Array, " pairs"]
    second: Int[Array, " pairs"]
    answer: Answer


class Report(NamedTuple):
    """What a round of learning ended with; NaN where nothing is known."""

    loss: Float[Array, ""]
    accuracy: Float[Array, ""]
    by_level: Float[Array, " levels"]
    shares: Float[Array, " outcomes"]
    cycle_rate: Float[Array, ""]
    labels: Float[Array, ""]


Draw = Callable[[Any], Batch]
"""``key -> Batch``."""


class Fit:
    """The steps of learning that do not depend on where answers come from.

    Args:
        model: what is fitted.
        levels: names of what decides a pair.
        config: :class:`reward_design.preferences.PreferenceConfig`.
    """

    def __init__(self, model: Model, levels: tuple[str, ...], config: Any) -> None:
        self.model, self.levels, self.config = model, levels, config
        self.optimiser = optax.adamw(config.learning_rate, weight_decay=config.weight_decay)

    def optimiser_state(self, params: Params) -> Any:
        """State of the optimiser of each member."""
        return jax.vmap(self.optimiser.init)(params["members"])

    def differences(self, params: Params, member: Any, batch: Batch) -> Float[Array, " pairs"]:
        """Log-odds of the pairs, by one member."""
        rewards = self.model.member(params, member, batch.inputs)
        weights = step_weights(batch.length, batch.ended, batch.inputs.shape[1], absorbing=self.model.absorbing)
        scores = score(rewards, weights, self.config.pool)
        return scores[batch.first] - scores[batch.second]

    def loss(self, member: Any, params: Params, batch: Batch) -> Float[Array, ""]:
        """Mean loss over the pairs that count; 0 without any."""
        weight = self.weight(batch.answer)
        losses = preference_loss(self.differences(params, member, batch), batch.answer.preferred)
        return jnp.sum(weight * losses) / jnp.maximum(weight.sum(), 1e-9)

    def weight(self, answer: Answer) -> Float[Array, " pairs"]:
        """0 for pairs without an answer and for ties (unless kept); with ``stratified`` levels weigh the same."""
        weight = answer.weight if self.config.keep_ties else answer.weight * (answer.preferred != 0.5)
        if not self.config.stratified:
            return weight
        shares = level_shares(answer.level, len(self.levels), weight)
        return weight / jnp.maximum(shares[answer.level], 1e-3)

    def train(self, params: Params, opt_state: Any, draw: Draw, check: Batch | None, key: Any) -> tuple[Params, Any]:
        """``num_batches`` steps of every member on batches of its own; one that got worse on ``check`` stays."""

        def step(carry: Any, key: Any) -> tuple[Any, None]:
            member, opt_state = carry
            batch = draw(key)
            grads = jax.grad(self.loss)(member, params, batch)
            updates, new_state = self.optimiser.update(grads, opt_state, member)
            new = (optax.apply_updates(member, updates), new_state)
            undecided = self.weight(batch.answer).sum() == 0  # nothing to learn, so no decay of weights either
            return jax.tree.map(partial(jnp.where, undecided), carry, new), None

        def one(member: Any, opt_state: Any, key: Any) -> tuple[Any, Any]:
            keys = jax.random.split(key, self.config.num_batches)
            (new, opt_state), _ = jax.lax.scan(step, (member, opt_state), keys)
            if check is None:
                return new, opt_state
            worse = self.loss(new, params, check) > self.loss(member, params, check)
            return jax.tree.map(partial(jnp.where, worse), member, new), opt_state

        keys = jax.random.split(key, self.model.num_members)
        members, opt_state = jax.vmap(one)(params["members"], opt_state, keys)
        return {**params, "members": members}, opt_state

    def with_input_scale(self, params: Params, reference: Segments) -> Params:
        """Params that scale inputs by their moments over ``reference``; columns of zeros and ones stay as they are."""
        mask = jnp.broadcast_to(reference.mask[..., None], reference.inputs.shape)
        rows = jnp.where(mask, reference.inputs, 0.0)
        count = jnp.maximum(reference.mask.sum(), 1)
        mean = rows.sum(axis=(0, 1)) / count
        centred = jnp.where(mask, rows - mean.reshape(1, 1, -1), 0.0)
        std = jnp.sqrt(jnp.square(centred).sum(axis=(0, 1)) / count)
        indicator = ((rows == 0) | (rows == 1)).all(axis=(0, 1))
        scale = jnp.where(indicator | (std < 1e-6), 1.0, 1 / jnp.maximum(std, 1e-6))
        return {**params, "input_mean": jnp.where(indicator, 0.0, mean), "input_scale": scale}

    def normalised(self, params: Params, reference: Segments) -> Params:
        """Params with which the reward has spread 1 over ``reference``, and mean 0 if all its segments are as long.

        Preferences say nothing about a constant in the reward among segments of one length. Among those of several the
        constant is the price of time; it has been learned, and stays.
        """
        raw = self.model.members(params, reference.inputs)
        mask = jnp.broadcast_to(reference.mask, raw.shape)
        count = jnp.maximum(reference.mask.sum(), 1)
        mean = jnp.where(mask, raw, 0.0).sum(axis=(1, 2)) / count
        centred = jnp.where(mask, raw - mean.reshape(-1, 1, 1), 0.0)
        std = jnp.sqrt(jnp.square(centred).sum(axis=(1, 2)) / count)
        known = (reference.length > 0) & ~(reference.ended & self.model.absorbing)
        equal = jnp.where(known, reference.length, reference.length.max()).min() == reference.length.max()
        shift = jnp.where(equal | (self.config.pool == "mean"), mean, 0.0)
        return {**params, "shift": shift, "scale": jnp.where(std > 1e-6, 1 / jnp.maximum(std, 1e-6), 0.0)}

    def no_report(self) -> Report:
        """Before anything was learned."""
        nan = jnp.float32(jnp.nan)
        num = len(self.levels)
        return Report(nan, nan, jnp.full(num, jnp.nan), jnp.full(num + 1, jnp.nan), nan, jnp.float32(0))

    def report(self, params: Params, held_out: Batch, trained: Batch) -> Report:
        """Loss and accuracy on held-out pairs (by the members' mean), deciding levels of the others."""
        differences = jax.vmap(self.differences, in_axes=(None, 0, None))(params, params["members"], held_out)
        answer = held_out.answer
        right = ((differences.mean(axis=0) > 0) == (answer.preferred > 0.5)).astype(float)
        decided = answer.weight * (answer.preferred != 0.5)
        here = decided[None] * (answer.level[None] == jnp.arange(len(self.levels))[:, None])
        loss = jax.vmap(self.loss, in_axes=(0, None, None))(params["members"], params, held_out).mean()
        shares = level_shares(trained.answer.level, len(self.levels), trained.answer.weight)
        accuracy, by_level = (_mean(jnp.broadcast_to(right, w.shape), w) for w in (decided, here))
        return self.no_report()._replace(loss=loss, accuracy=accuracy, by_level=by_level, shares=shares)

    def metrics(self, report: Report) -> dict[str, Array]:
        """A report as named scalars."""
        named = {"loss": report.loss, "accuracy": report.accuracy, "cycle_rate": report.cycle_rate}
        named |= {"labels": report.labels, "decided/tie": report.shares[-1]}
        named |= {f"accuracy/{name}": report.by_level[i] for i, name in enumerate(self.levels)}
        named |= {f"decided/{name}": report.shares[i] for i, name in enumerate(self.levels)}
        if len(self.levels) > 1:
            named["starved"] = jnp.where(jnp.isnan(report.shares[0]), jnp.nan, report.shares[0] > STARVED)
        return named


def _mean(values: Float[Array, "*n pairs"], weight: Float[Array, "*n pairs"]) -> Float[Array, "*n"]:
    """Weighted mean over pairs, NaN without any."""
    total = weight.sum(axis=-1)
    return jnp.where(total > 0, (weight * values).sum(axis=-1) / jnp.maximum(total, 1e-9), jnp.nan)
