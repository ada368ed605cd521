"""Learners of composed rewards: every part that learns is taught by the transitions that it scores."""

from collections.abc import Iterable, Mapping
from typing import Any

import jax

from reward_design.core import Learner, Params, Reward, Transition


def chained(links: Mapping[str, Reward]) -> Learner | None:
    """The learner of a chain; its params are a dict by link.

    A link learns from what the link before it pays, so the learner scores each rollout with the links up to the last
    that learns, with a state of its own. Metrics are called ``link/metric``.

    Args:
        links: rewards in the order in which they are applied.

    Returns:
        A :class:`reward_design.Learner`, or None where no link learns.
    """
    names = list(links)
    taught = [name for name in names if links[name].learner is not None]
    if not taught:
        return None
    before = names[: names.index(taught[-1])]

    def init(key: Any, params: Params, example: Transition) -> Any:
        learners = parts({name: links[name] for name in taught}).init(key, params, example)  # pyright: ignore
        states = {name: links[name].init(key, example)[1] for name in before}
        return {"learners": learners, "states": states}

    def update(params: Params, state: Any, batch: Transition, key: Any) -> tuple[Params, Any, Mapping[str, Any]]:
        params, learners, states, metrics = dict(params), dict(state["learners"]), dict(state["states"]), {}
        for number, name in enumerate(names[: len(before) + 1]):
            if name in learners:
                one = parts({name: links[name]})
                key_now = jax.random.fold_in(key, number)
                params, made, new = one.update(params, {name: learners[name]}, batch, key_now)  # pyright: ignore
                learners |= made
                metrics |= new
            if name in states:
                output, states[name] = links[name].unroll(params[name], states[name], batch)
                batch = batch._replace(reward=output.reward)
        return params, {"learners": learners, "states": states}, metrics

    return Learner(init, update, _shortest(links[name].learner for name in taught))


def parts(rewards: Mapping[str, Reward]) -> Learner | None:
    """The learner of rewards that all see the same transitions; its params are a dict by name.

    Args:
        rewards: the parts.

    Returns:
        A :class:`reward_design.Learner`, or None where no part learns.
    """
    taught = {name: reward.learner for name, reward in rewards.items() if reward.learner is not None}
    if not taught:
        return None

    def init(key: Any, params: Params, example: Transition) -> Any:
        keys = jax.random.split(key, len(taught))
        return {name: one.init(k, params[name], example) for k, (name, one) in zip(keys, taught.items(), strict=True)}

    def update(params: Params, state: Any, batch: Transition, key: Any) -> tuple[Params, Any, Mapping[str, Any]]:
        params, state, metrics = dict(params), dict(state), {}
        for number, (name, one) in enumerate(taught.items()):
            made = one.update(params[name], state[name], batch, jax.random.fold_in(key, number))
            params[name], state[name], new = made
            metrics |= {f"{name}/{metric}": value for metric, value in new.items()}
        return params, state, metrics

    return Learner(init, update, _shortest(taught.values()))


def within(learner: Learner | None, name: str) -> Learner | None:
    """The same learner where its params are the entry ``name`` of a dict.

    Args:
        learner: a learner, or None.
        name: of the entry.

    Returns:
        A :class:`reward_design.Learner`, or None.
    """
    if learner is None:
        return None

    def init(key: Any, params: Params, example: Transition) -> Any:
        return learner.init(key, params[name], example)

    def update(params: Params, state: Any, batch: Transition, key: Any) -> tuple[Params, Any, Mapping[str, Any]]:
        inner, state, metrics = learner.update(params[name], state, batch, key)
        return {**params, name: inner}, state, metrics

    return Learner(init, update, learner.max_length)


def members(learner: Learner | None, num: int) -> Learner | None:
    """The learner of ``num`` copies with params of their own (leading axis ``num``), each with its own randomness.

    Args:
        learner: of one copy, or None.
        num: copies.

    Returns:
        A :class:`reward_design.Learner` whose metrics are means over the copies, or None.
    """
    if learner is None:
        return None

    def init(key: Any, params: Params, example: Transition) -> Any:
        return jax.vmap(lambda k, p: learner.init(k, p, example))(jax.random.split(key, num), params)

    def update(params: Params, state: Any, batch: Transition, key: Any) -> tuple[Params, Any, Mapping[str, Any]]:
        each = jax.vmap(learner.update, in_axes=(0, 0, None, 0))
        params, state, metrics = each(params, state, batch, jax.random.split(key, num))
        return params, state, {name: value.mean(axis=0) for name, value in metrics.items()}

    return Learner(init, update, learner.max_length)


def _shortest(learners: Iterable[Learner | None]) -> int | None:
    """The longest episode that all of them learn from."""
    return min((one.max_length for one in learners if one is not None and one.max_length is not None), default=None)
