"""Candidates as one reward with a set of params each: what lets all of them train in one compiled function."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from reward_design.agents import scoring
from reward_design.core import Reward
from reward_design.envs.base import Task
from reward_design.llm.designers.alternatives import alternatives
from reward_design.llm.designers.term_table import table_params, term_table


class Pool(NamedTuple):
    """Several rewards as one.

    Attributes:
        reward: with numbered terms.
        params: by id of candidate, what makes it pay that candidate's reward.
        terms: by id, the names of its terms in the order of the numbers.
    """

    reward: Reward
    params: dict[str, Any]
    terms: dict[str, tuple[str, ...]]


def pool(task: Task, rewards: Mapping[str, Reward]) -> Pool:
    """One reward for all of them: a table for documents of ``terms``, otherwise :func:`alternatives`."""
    terms = {name: scoring.term_names(task.env, reward) for name, reward in rewards.items()}
    made = [getattr(reward.settings.get("artifact"), "language", None) for reward in rewards.values()]
    if set(made) == {"terms"}:
        sources = {name: reward.settings["artifact"].source for name, reward in rewards.items()}
        return Pool(term_table(task), {name: table_params(text, task) for name, text in sources.items()}, terms)
    reward = alternatives(list(rewards.values()))
    params, _ = reward.init(jax.random.key(0), scoring.reward_example(task.env))
    return Pool(reward, {name: {**params, "index": jnp.int32(i)} for i, name in enumerate(rewards)}, terms)
