"""The loop that trains an estimator beside an agent: keep finished episodes, fit their returns, judge the fit."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from reward_design.agents import base, networks
from reward_design.agents.settings import at_least
from reward_design.core import Learner, Params, Transition
from reward_design.redistribution import episodes as store
from reward_design.redistribution.estimators import Estimator
from reward_design.redistribution.features import Features
from reward_design.redistribution.losses import Loss, random_steps


@base.config
class Fit:
    """How an estimator is trained; ``float`` fields become params of the reward.

    Attributes:
        capacity: finished episodes that are kept, oldest out first.
        batch_size: episodes of a gradient step.
        num_updates: gradient steps each time.
        period: rollouts between the times.
        min_episodes: finished episodes before the first time.
        holdout: one episode in so many is never trained on and judges the fit; at least 2.
        floor: least share of what simple predictions of held-out returns leave open that contributions must explain to
            be used: their mean and, where equal parts are paid otherwise, the better of it and a constant per step.
        normalise: whether features are scaled by their running moments.
        truncated: whether the return of an episode that a time limit cut is known; otherwise it is left out, and its
            contributions are not corrected.
        lessons: draw episodes in proportion to the error of their return, |R - Σ c|, as it was before the updates of
            this time, in place of all alike: rare returns are learned sooner, at the price of a fit that is no longer
            that of the mean, and of a look at every stored episode.
        learning_rate: of Adam.
        l2: weight λ of T Σ_t (c_t - R / T)² beside (R - Σ c)², or of both over T² where the loss is one of means over
            the steps: of estimators that fit alike the one that is nearest to equal shares.
        max_grad_norm: global gradient clipping.
    """

    capacity: int = 256
    batch_size: int = 32
    num_updates: int = 4
    period: int = 1
    min_episodes: int = 20
    holdout: int = 10
    floor: float = 0.1
    normalise: bool = True
    truncated: bool = True
    lessons: bool = False
    learning_rate: float = 1e-3
    l2: float = 1e-3
    max_grad_norm: float = 10.0

    def __post_init__(self) -> None:
        at_least(self, 1, "batch_size", "num_updates", "period")
        at_least(self, 2, "holdout")
        at_least(self, self.holdout, "capacity", "min_episodes")
        if self.min_episodes > self.capacity:
            raise ValueError(
                f"min_episodes must be at most capacity = {self.capacity}, got {self.min_episodes}; no more are kept, "
                "and nothing would be learned."
            )


def initial_params(estimator: Estimator, fit: Fit, key: Any, num_features: int) -> Params:
    """Params of the contributions: a network that nothing is known about, so that its ``trust`` is 0."""
    return {
        "network": estimator.init(key, num_features),
        "moments": networks.initial_moments(num_features),
        "scale": jnp.float32(1.0),
        "rate": jnp.float32(0.0),
        "trust": jnp.float32(0.0),
        "learning_rate": jnp.float32(fit.learning_rate),
        "l2": jnp.float32(fit.l2),
        "floor": jnp.float32(fit.floor),
    }


def read(params: Params, fit: Fit, features: Features, transition: Transition) -> Float[Array, "*batch features"]:
    """What the network reads of transitions ``[B]`` or ``[T, B]``."""
    lead = jnp.shape(transition.mask)
    flat = jax.tree.map(lambda x: jnp.reshape(x, (-1, *jnp.shape(x)[len(lead) :])), transition)
    x = features(flat)
    x = params["moments"].normalise(x) if fit.normalise else x
    return x.reshape(*lead, x.shape[-1])


def learner(
    estimator: Estimator, loss: Loss, fit: Fit, features: Features, max_length: int, *, beyond_split: bool = True
) -> Learner:
    """Train ``estimator`` on finished episodes.

    After each rollout: its episodes are stored, features' moments updated, and on every ``period``-th the network takes
    ``num_updates`` steps towards R / σ, σ the largest standard deviation that the stored returns have had: with that of
    now, labels would grow without bound as a policy settles (returns are not shifted: a mean could not be given back
    step by step). Then held-out episodes judge it: R² = 1 - mean (R - Σ c)² / Var R, and likewise with
    min(Var R, mean (R - b T)²) in place of Var R, b the best constant reward per step of the episodes learned from:
    where returns are hardly more than lengths, a network explains them without telling which steps were good, and equal
    parts do as well. Where the latter (the former, unless ``beyond_split``) is below ``floor``, and as long as all
    returns were equal, its contributions are not used until the next time (``trust`` 0). Returns that have become
    equal, as those of a policy that always succeeds, teach nothing, and the error is then measured by σ.

    Args:
        estimator: the network.
        loss: what is to be small.
        fit: settings.
        features: what it reads.
        max_length: longest episode in steps.
        beyond_split: whether contributions that are not used are replaced by equal parts, which are to be beaten then.

    Returns:
        A :class:`reward_design.Learner` for params of :func:`initial_params`. Metrics: ``loss``,
        ``explained_variance`` and ``explained_beyond_split`` (0 as long as they are unknown), ``fallback`` (1 where
        contributions are not used), ``episodes``, ``too_long``, ``last_step_share`` of the absolute contributions,
        ``drift``, the mean absolute change of a contribution in this update.
    """
    optimiser = optax.chain(optax.clip_by_global_norm(fit.max_grad_norm), optax.scale_by_adam())

    def init(key: Any, params: Params, example: Transition) -> Any:
        episodes = store.empty(example, capacity=fit.capacity, max_length=max_length)
        state = {"episodes": episodes, "optimiser": optimiser.init(params["network"])}
        return {**state, "rollouts": jnp.int32(0), "taught": jnp.bool_(False)}

    def predicted(network: Any, params: Params, batch: store.Batch) -> Float[Array, "time samples"]:
        return estimator.unroll(network, read(params, fit, features, batch.rows))

    def objective(network: Any, params: Params, batch: store.Batch) -> Float[Array, ""]:
        length, mask = jnp.maximum(batch.length, 1).astype(jnp.float32), jnp.asarray(batch.rows.mask)
        mask = mask | (batch.weight == 0)[None]
        c = predicted(network, params, batch)
        total = batch.total / params["scale"]
        error = loss.fn(c, mask, length, total)
        apart = jnp.where(mask, jnp.square(c - (total / length)[None]), 0).sum(axis=0) / mask.sum(axis=0)
        size = apart if loss.per_step else apart * jnp.square(length)
        return jnp.sum(batch.weight * (error + params["l2"] * size)) / jnp.maximum(batch.weight.sum(), 1)

    def drawn(episodes: store.Episodes, odds: Any, key: Any) -> store.Batch:
        index_key, step_key = jax.random.split(key)
        index = training(episodes, index_key, fit, odds)
        if loss.num_steps is None:
            return store.whole(episodes, index, max_length)
        offset = random_steps(step_key, episodes.length[index], loss.num_steps, max_length)
        return store.read(episodes, index, offset)

    def train(params: Params, optimiser_state: Any, episodes: store.Episodes, key: Any) -> Any:
        odds = lessons(predicted, params, episodes, fit, max_length) if fit.lessons else None

        def step(carry: Any, key: Any) -> tuple[Any, Any]:
            network, state = carry
            value, grads = jax.value_and_grad(objective)(network, params, drawn(episodes, odds, key))
            updates, state = optimiser.update(grads, state)
            return (jax.tree.map(lambda p, u: p - params["learning_rate"] * u, network, updates), state), value

        carry = (params["network"], optimiser_state)
        (network, state), values = jax.lax.scan(step, carry, jax.random.split(key, fit.num_updates))
        return network, state, values.mean()

    def update(params: Params, state: Any, batch: Transition, key: Any) -> tuple[Params, Any, Mapping[str, Any]]:
        episodes = store.insert(state["episodes"], batch, max_length=max_length, truncated=fit.truncated)
        scale, rate, known = _returns(episodes)
        widest = jnp.where(state["taught"], jnp.maximum(scale, params["scale"]), scale)
        params = {**params, "scale": jnp.where(known, widest, params["scale"]), "rate": rate}
        if fit.normalise:
            params["moments"] = _observed(params["moments"], features, batch)
        ready = known & (episodes.count >= fit.min_episodes) & (state["rollouts"] % fit.period == fit.period - 1)
        old = (params["network"], state["optimiser"], jnp.float32(0))
        args = (params, state["optimiser"], episodes, key)
        network, optimiser_state, value = jax.lax.cond(ready, train, lambda *_: old, *args)
        judged = _judged(predicted, {**params, "network": network}, params["network"], episodes, fit, max_length)
        taught = state["taught"] | ready
        explained = judged["explained_beyond_split" if beyond_split else "explained_variance"]
        trust = taught & (explained >= params["floor"])
        params = {**params, "network": network, "trust": trust.astype(jnp.float32)}
        metrics = {
            "loss": value, "fallback": 1 - params["trust"], "too_long": episodes.skipped,
            "episodes": jnp.minimum(episodes.count, fit.capacity), **judged,
        }  # fmt: skip
        state = {
            "episodes": episodes, "optimiser": optimiser_state, "rollouts": state["rollouts"] + 1, "taught": taught,
        }  # fmt: skip
        return params, state, metrics

    return Learner(init, update, max_length)


# --- parts ----------------------------------------------------------------------------------------------------------


def lessons(
    predicted: Any, params: Params, episodes: store.Episodes, fit: Fit, max_length: int
) -> Float[Array, " episodes"]:
    """Log-odds of drawing each entry of the list, log |R - Σ c|; -inf for what is held out.

    Args:
        predicted: ``(network, params, batch) -> contribution [T, M]`` in units of ``params["scale"]``.
        params: of the contributions.
        episodes: what there is to draw.
        fit: settings.
        max_length: longest episode.

    Returns:
        ``[N]``.

    Source: the lessons buffer of Arjona-Medina et al., 2018, arXiv:1806.07857, which in addition keeps such episodes
    for longer; here the oldest go first whatever their error.
    """
    entries = jnp.arange(fit.capacity)
    batch = store.whole(episodes, entries, max_length)
    c = jnp.where(jnp.asarray(batch.rows.mask), predicted(params["network"], params, batch), 0)
    error = jnp.abs(batch.total / params["scale"] - c.sum(axis=0))
    odds = jnp.where(batch.weight > 0, jnp.log(error + 1e-6), -1e6)  # 1e-6: of no error at all, all alike
    return jnp.where(entries % fit.holdout == 0, -jnp.inf, odds)


def training(episodes: store.Episodes, key: Any, fit: Fit, odds: Any = None) -> Int[Array, " samples"]:
    """Entries of the list that are not held out, each as likely, or by the log-odds of :func:`lessons`.

    Args:
        episodes: what there is to draw.
        key: random key.
        fit: settings.
        odds: log-odds ``[N]``, or None.

    Returns:
        ``batch_size`` entries.
    """
    if odds is not None:
        return jax.random.categorical(key, odds, shape=(fit.batch_size,))
    count = jnp.minimum(episodes.count, fit.capacity)
    number = count - -(-count // fit.holdout)
    draw = jax.random.randint(key, (fit.batch_size,), 0, jnp.maximum(number, 1))
    return draw // (fit.holdout - 1) * fit.holdout + draw % (fit.holdout - 1) + 1


def _returns(episodes: store.Episodes) -> tuple[Array, Array, Bool[Array, ""]]:
    """Spread of the stored returns, their mean per step, and whether they differ at all."""
    there = store.present(episodes)
    number = jnp.maximum(there.sum(), 1)
    mean = jnp.sum(episodes.total, where=there) / number
    spread = jnp.sqrt(jnp.sum(jnp.square(episodes.total - mean), where=there) / number)
    known = spread > 1e-6 * (1 + jnp.abs(mean))
    rate = jnp.sum(episodes.total / jnp.maximum(episodes.length, 1), where=there) / number
    return spread, rate, known


def _per_step(episodes: store.Episodes, fit: Fit) -> Float[Array, ""]:
    """The b of least Σ (R - b T)² over the episodes that are learned from, T their lengths."""
    there = store.present(episodes) & (jnp.arange(fit.capacity) % fit.holdout != 0)
    length = episodes.length.astype(jnp.float32)
    squares = jnp.sum(jnp.square(length), where=there)
    return jnp.sum(episodes.total * length, where=there) / jnp.maximum(squares, 1)


def _observed(moments: networks.Moments, features: Features, batch: Transition) -> networks.Moments:
    """Moments with the experience of a rollout merged in."""
    flat = jax.tree.map(lambda x: jnp.reshape(x, (-1, *jnp.shape(x)[2:])), batch)
    return moments.update(features(flat), jnp.asarray(flat.mask))


def _judged(
    predicted: Any, params: Params, before: Any, episodes: store.Episodes, fit: Fit, max_length: int
) -> dict[str, Array]:
    """How well the held-out episodes are explained, and how the contributions look."""
    batch = store.whole(episodes, jnp.arange(0, fit.capacity, fit.holdout), max_length)
    mask, weight = jnp.asarray(batch.rows.mask), batch.weight
    c = jnp.where(mask, params["scale"] * predicted(params["network"], params, batch), 0)
    old = jnp.where(mask, params["scale"] * predicted(before, params, batch), 0)
    number = jnp.maximum(weight.sum(), 1)
    mean = jnp.sum(weight * batch.total) / number
    var = jnp.sum(weight * jnp.square(batch.total - mean)) / number
    differ = jnp.sqrt(var) > 1e-6 * (1 + jnp.abs(mean))
    var = jnp.where(differ, var, jnp.square(params["scale"]))
    split = jnp.sum(weight * jnp.square(batch.total - _per_step(episodes, fit) * batch.length)) / number
    left = jnp.where(differ, jnp.minimum(var, jnp.maximum(split, 1e-6 * var)), var)  # 0 where length is all there is
    error = jnp.sum(weight * jnp.square(batch.total - c.sum(axis=0))) / number
    size, last = jnp.abs(c), mask & (jnp.arange(max_length)[:, None] == batch.length[None] - 1)
    return {
        "explained_variance": jnp.where(weight.any(), 1 - error / var, 0.0),
        "explained_beyond_split": jnp.where(weight.any(), 1 - error / left, 0.0),
        "last_step_share": jnp.where(last, size, 0).sum() / jnp.maximum(size.sum(), 1e-20),
        "drift": jnp.abs(c - old).sum() / jnp.maximum(mask.sum(), 1),
    }
