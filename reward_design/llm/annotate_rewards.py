"""Rewards from what a language model thinks of a game's messages: looked up, classified or ranked.

All three pay r = v(message) / N(message)^beta, where N counts how often the message stood there in this episode, so
that nothing pays for being repeated. They differ in v and learn it beside an agent, from the labels of a
:class:`~reward_design.llm.annotate_worker.Labeller`, without waiting for it.

Source: Klissarov et al., "Motif: Intrinsic Motivation from Artificial Intelligence Feedback", 2023, arXiv:2310.00166
(ranking); Zheng et al., "Online Intrinsic Rewards for Decision Making Agents from Large Language Model Feedback", 2024,
arXiv:2410.23022 (all three, and the worker).
"""

from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from reward_design.agents.settings import at_least
from reward_design.constructors import from_step
from reward_design.core import Params, Reward, State, Transition
from reward_design.llm.annotate_keys import UNUSED, count, digest, is_spoken, look_up, no_counts
from reward_design.llm.annotate_learning import Fit, label_learner, table_learner
from reward_design.llm.annotate_worker import Labeller

Message = Callable[[Transition], Any]
"""``transition -> [B, length]`` uint8."""


def said(transition: Transition) -> Any:
    """The message of a transition: ``info["message"]``, or that of the next observation (MiniHack).

    Raises:
        ValueError: if there is none.
    """
    if "message" in transition.info:
        return transition.info["message"]
    if isinstance(transition.next_obs, dict) and "message" in transition.next_obs:
        return transition.next_obs["message"]
    raise ValueError(
        "rewards from messages need info['message'] or next_obs['message'], [B, length] uint8; give message=, a "
        "function of the transition, for those that are elsewhere."
    )


class CharNetwork(nn.Module):
    """A number for each message, from its letters: an embedding, two convolutions, their maxima, a dense layer.

    Attributes:
        channels: of the convolutions.
    """

    channels: int = 64

    @nn.compact
    def __call__(self, messages: Any) -> Array:
        """``[*batch, length]`` uint8 to ``[*batch]``."""
        x = nn.Embed(256, 16)(messages.astype(jnp.int32))
        for _ in range(2):
            x = nn.relu(nn.Conv(self.channels, (5,), strides=(2,))(x))
        return nn.Dense(1)(x.max(axis=-2))[..., 0]


def retrieval_reward(
    labeller: Labeller, *, beta: float | int = 3.0, message: Message = said, num_messages: int = 256
) -> Reward:
    """Reward from labels as they are: r = label(m) / N(m)^beta, 0 for a message without label.

    Keeps the optimal policy: no; it pays for what the model calls helpful, once and then ever less.

    Args:
        labeller: who labels, without pairs; its ``capacity`` is the size of the table.
        beta: exponent of the count; a param.
        message: where the message is.
        num_messages: that an episode can tell apart.

    Returns:
        A :class:`Reward` of kind ``CAUSAL`` that is learned beside an agent.

    Raises:
        ValueError: for a labeller of pairs, ``num_messages`` below 1, or ``beta`` below 0.
        TypeError: for anything but a labeller.

    Example:
        >>> from reward_design.llm import chat_model
        >>> from reward_design.llm.annotate_worker import Labeller
        >>> judge = chat_model(lambda m: '{"analysis": "", "label": "FOO"}')
        >>> retrieval_reward(Labeller(judge, "open the door")).kind.name
        'CAUSAL'
    """
    _check_pairs(labeller, False, "retrieval_reward")

    def params(key: Any, length: int) -> Params:
        keys = jnp.full((labeller.capacity, 2), UNUSED, jnp.uint32)
        return {"keys": keys, "labels": jnp.zeros(labeller.capacity)}

    def value(params: Params, messages: Any, key: Any) -> Any:
        return look_up(params["keys"], params["labels"], key)

    reward = _counted("retrieval_reward", params, value, beta, message, num_messages)
    return replace(reward, learner=table_learner(labeller, message))


def classification_reward(
    labeller: Labeller,
    *,
    threshold: float | int = 0.5,
    beta: float | int = 3.0,
    message: Message = said,
    num_messages: int = 256,
    network: nn.Module | None = None,
    fit: Fit | None = None,
) -> Reward:
    """Reward from a classifier of messages: r = 1[p(helpful | m) > threshold] / N(m)^beta, 0 before it is trained.

    Keeps the optimal policy: no; it pays for what looks like what the model calls helpful, once and then ever less.

    Args:
        labeller: who labels, without pairs.
        threshold: of the probability; a param.
        beta: exponent of the count; a param.
        message: where the message is.
        num_messages: that an episode can tell apart.
        network: ``[*batch, length]`` uint8 to log-odds ``[*batch]``; :class:`CharNetwork` by default.
        fit: how it is trained.

    Returns:
        A :class:`Reward` of kind ``CAUSAL`` that is learned beside an agent.

    Raises:
        ValueError: for a labeller of pairs, ``num_messages`` below 1, or ``beta`` below 0.
        TypeError: for anything but a labeller.
    """
    _check_pairs(labeller, False, "classification_reward")
    model: Any = CharNetwork() if network is None else network

    def params(key: Any, length: int) -> Params:
        weights = model.init(key, jnp.zeros((1, length), jnp.uint8))
        return {"network": weights, "threshold": jnp.float32(threshold), "trained": jnp.float32(0)}

    def value(params: Params, messages: Any, key: Any) -> Any:
        likely = jax.nn.sigmoid(model.apply(params["network"], messages)) > params["threshold"]
        return params["trained"] * likely

    reward = _counted("classification_reward", params, value, beta, message, num_messages)
    return replace(reward, learner=label_learner(labeller, model, message, Fit() if fit is None else fit))


def ranking_reward(
    labeller: Labeller,
    *,
    threshold: float | int = -0.5,
    beta: float | int = 3.0,
    message: Message = said,
    num_messages: int = 256,
    network: nn.Module | None = None,
    fit: Fit | None = None,
) -> Reward:
    """Reward from preferences between messages: r = z 1[z >= threshold] / N(m)^beta, with z = (f(m) - mean) / std.

    f is fitted by P(a better than b) = sigmoid(f(a) - f(b)), a tie counting as one half; mean and deviation are those
    over the messages that were compared. 0 before it is trained.

    Keeps the optimal policy: no; it pays for what looks better to the model, ever less.

    Args:
        labeller: who compares, with ``pairs=True``.
        threshold: below which nothing is paid, in standard deviations; a param.
        beta: exponent of the count; a param.
        message: where the message is.
        num_messages: that an episode can tell apart.
        network: f, ``[*batch, length]`` uint8 to ``[*batch]``; :class:`CharNetwork` by default.
        fit: how it is trained.

    Returns:
        A :class:`Reward` of kind ``CAUSAL`` that is learned beside an agent.

    Raises:
        ValueError: for a labeller of single messages, ``num_messages`` below 1, or ``beta`` below 0.
        TypeError: for anything but a labeller.
    """
    _check_pairs(labeller, True, "ranking_reward")
    model: Any = CharNetwork() if network is None else network

    def params(key: Any, length: int) -> Params:
        weights = model.init(key, jnp.zeros((1, length), jnp.uint8))
        scales = {"threshold": threshold, "trained": 0.0, "mean": 0.0, "deviation": 1.0}
        return {"network": weights, **{name: jnp.float32(number) for name, number in scales.items()}}

    def value(params: Params, messages: Any, key: Any) -> Any:
        z = (model.apply(params["network"], messages) - params["mean"]) / params["deviation"]
        return params["trained"] * jnp.where(z >= params["threshold"], z, 0.0)

    reward = _counted("ranking_reward", params, value, beta, message, num_messages)
    return replace(reward, learner=label_learner(labeller, model, message, Fit() if fit is None else fit))


def _counted(
    name: str,
    params: Callable[[Any, int], Params],
    value: Callable[[Params, Any, Any], Any],
    beta: float | int,
    message: Message,
    num_messages: int,
) -> Reward:
    """The reward r = value / N^beta of messages."""
    at_least(SimpleNamespace(beta=beta), 0, "beta")
    if num_messages < 1:
        raise ValueError(f"num_messages must be at least 1, got {num_messages}.")

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        batch, length = _read(message, example).shape
        return {**params(key, length), "beta": jnp.float32(beta)}, State(episode=no_counts(batch, num_messages))

    def step(params: Params, state: State, t: Transition) -> tuple[Any, State]:
        messages = _read(message, t)
        key, spoken = digest(messages), is_spoken(messages)
        number, seen = count(state.episode, key, spoken)
        paid = value(params, messages, key) / number.astype(jnp.float32) ** params["beta"]
        return jnp.where(spoken, paid, 0.0), state._replace(episode=seen)

    return from_step(name, init, step, settings={"beta": beta, "num_messages": num_messages})


def _read(message: Message, t: Transition) -> Any:
    """The messages ``[B, length]``.

    Raises:
        ValueError: for other shapes or types.
    """
    messages = jnp.asarray(message(t))
    if messages.ndim != 2 or messages.dtype != np.uint8:
        raise ValueError(f"messages must be [B, length] uint8, got {messages.dtype} of shape {messages.shape}.")
    return messages


def _check_pairs(labeller: Labeller, pairs: bool, name: str) -> None:
    if not isinstance(labeller, Labeller):
        raise TypeError(
            f"{name} needs a Labeller, got {type(labeller).__name__}; give Labeller(chat_model(...), goal)."
        )
    if labeller.pairs != pairs:
        raise ValueError(f"{name} needs a Labeller(..., pairs={pairs}), got one with pairs={labeller.pairs}.")
