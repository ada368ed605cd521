"""How rewards from messages learn beside an agent: labels come from a thread, and nothing waits for them.

The learner of such a reward calls the host once per rollout. The call hands over the messages and takes what is
labelled by now; that is all that it does, so it returns at once. It works in every agent that trains rewards, on the
device and on the host, and what it brought is in ``params`` and in the learner's state, thus in checkpoints.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import io_callback
from jaxtyping import Array

from reward_design.agents.settings import at_least
from reward_design.core import Learner, Params, Transition
from reward_design.llm.annotate_keys import UNUSED, digest
from reward_design.llm.annotate_worker import COUNTS, Labeller
from reward_design.preferences.model import preference_loss


@dataclass(frozen=True)
class Fit:
    """How a network of messages is trained, after every rollout.

    Attributes:
        steps: gradient steps.
        batch_size: examples per step.
        learning_rate: of Adam.
        first: labels that there must be before anything is trained or paid.

    Raises:
        ValueError: for numbers below 1.
    """

    steps: int = 8
    batch_size: int = 64
    learning_rate: float = 1e-3
    first: int = 8

    def __post_init__(self) -> None:
        at_least(self, 1, "steps", "batch_size", "first")


def table_learner(labeller: Labeller, message: Callable[[Transition], Any]) -> Learner:
    """The learner of :func:`~reward_design.llm.annotate_rewards.retrieval_reward`: it writes labels into ``params``."""

    def init(key: Any, params: Params, example: Transition) -> Any:
        return _no_examples(labeller, jnp.shape(message(example))[-1])

    def update(params: Params, state: Any, batch: Transition, key: Any) -> tuple[Params, Any, dict[str, Array]]:
        state, metrics = _exchanged(labeller, message, state, batch)
        used = jnp.arange(labeller.capacity) < state["count"]
        keys = jnp.where(used[:, None], digest(state["messages"][:, 0]), jnp.uint32(UNUSED))
        order = jnp.lexsort((keys[:, 1], keys[:, 0]))
        return {**params, "keys": keys[order], "labels": state["labels"][order]}, state, metrics

    return Learner(init, update)


def label_learner(labeller: Labeller, network: Any, message: Callable[[Transition], Any], fit: Fit) -> Learner:
    """The learner of the classification and ranking rewards: it fits the network to the labels so far."""
    optimiser = optax.adam(fit.learning_rate)

    def init(key: Any, params: Params, example: Transition) -> Any:
        examples = _no_examples(labeller, jnp.shape(message(example))[-1])
        return {**examples, "optimiser": optimiser.init(params["network"])}

    def loss(weights: Any, messages: Any, labels: Any) -> Any:
        scores = network.apply(weights, messages)  # [batch, 1 or 2]
        log_odds = scores[:, 0] - scores[:, 1] if labeller.pairs else scores[:, 0]
        return preference_loss(log_odds, labels).mean()  # the log-likelihood of a label is that of a preference

    def update(params: Params, state: Any, batch: Transition, key: Any) -> tuple[Params, Any, dict[str, Array]]:
        optimiser_state = state["optimiser"]
        state, metrics = _exchanged(labeller, message, {k: v for k, v in state.items() if k != "optimiser"}, batch)
        ready = state["count"] >= fit.first

        def one(carry: Any, key: Any) -> Any:
            weights, inner = carry
            drawn = jax.random.randint(key, (fit.batch_size,), 0, jnp.maximum(state["count"], 1))
            value, slope = jax.value_and_grad(loss)(weights, state["messages"][drawn], state["labels"][drawn])
            change, inner = optimiser.update(slope, inner, weights)
            return (optax.apply_updates(weights, change), inner), value

        before = (params["network"], optimiser_state)
        # a loop and not a cond: under vmap over seeds a cond would train in every update
        keys = jax.random.split(key, fit.steps)
        after, losses = jax.lax.scan(one, before, keys)
        weights, optimiser_state = jax.tree.map(lambda a, b: jnp.where(ready, a, b), after, before)
        params = {**params, "network": weights, "trained": jnp.where(ready, 1.0, params["trained"])}
        if labeller.pairs:
            params = {**params, **_moments(network, weights, state)}
        metrics["loss"] = jnp.where(ready, losses[-1], jnp.nan)
        return params, {**state, "optimiser": optimiser_state}, metrics

    return Learner(init, update)


def _moments(network: Any, weights: Any, state: Any) -> dict[str, Array]:
    """Mean and deviation of the network over the messages that were compared."""
    scores = network.apply(weights, state["messages"])
    known = jnp.broadcast_to((jnp.arange(scores.shape[0]) < state["count"])[:, None], scores.shape)
    total = jnp.maximum(known.sum(), 1)
    mean = jnp.where(known, scores, 0.0).sum() / total
    square = jnp.where(known, (scores - mean) ** 2, 0.0).sum() / total
    return {"mean": mean, "deviation": jnp.where(square > 1e-12, jnp.sqrt(jnp.maximum(square, 1e-12)), 1.0)}


def _no_examples(labeller: Labeller, length: int) -> dict[str, Array]:
    shape = (labeller.capacity, 2 if labeller.pairs else 1, length)
    return {
        "messages": jnp.zeros(shape, jnp.uint8), "labels": jnp.zeros(labeller.capacity), "count": jnp.int32(0),
    }  # fmt: skip


def _exchanged(
    labeller: Labeller, message: Callable[[Transition], Any], state: dict[str, Array], batch: Transition
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The labelled examples by now, after the messages of a rollout were offered; and the labeller's counts."""
    rows = jax.tree.map(lambda x: jnp.reshape(x, (-1, *jnp.shape(x)[2:])), batch)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    counts = dict.fromkeys(COUNTS, jax.ShapeDtypeStruct((), jnp.float32))

    def exchange(messages: Any, mask: Any, held: Any) -> Any:
        number = int(held["count"])
        if number > len(labeller.labels):  # of the run that is resumed here
            labeller.remember(np.asarray(held["messages"])[:number], np.asarray(held["labels"])[:number])
        labeller.exchange(np.asarray(messages)[np.asarray(mask)])
        found, labels = labeller.examples(held["messages"].shape[-1])
        filled = {name: np.zeros(held[name].shape, held[name].dtype) for name in ("messages", "labels")}
        filled["messages"][: len(found)], filled["labels"][: len(found)] = found, labels
        said = {name: np.float32(value) for name, value in labeller.counts().items()}
        return {**filled, "count": np.int32(len(found))}, said

    return io_callback(exchange, (shapes, counts), message(rows), rows.mask, state)
