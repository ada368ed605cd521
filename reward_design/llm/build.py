"""Rewards from what a model wrote: checked, compiled, and free of its Python."""

import dataclasses
import math
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from typing import Any

import jax.numpy as jnp

from reward_design._cores import num_cores
from reward_design.constructors import from_step, pointwise
from reward_design.core import Reward, State, Transition
from reward_design.envs import recipe
from reward_design.envs import task as task_by_name
from reward_design.envs.base import Task
from reward_design.llm.artifact import Artifact
from reward_design.llm.checking import check_code
from reward_design.llm.describe import check_language, named_task
from reward_design.llm.inputs import described_kinds, flat_inputs, input_specs
from reward_design.llm.isolation import Isolation
from reward_design.llm.program import callable_program
from reward_design.llm.refusal import CandidateRefused
from reward_design.llm.terms import terms_reward
from reward_design.llm.verify import start_memory, verified_artifact

MIN_ISOLATION = Isolation.CONFINED
"""What a worker must reach unless the caller accepts less."""
NAME = "designed"
"""Name of the rewards that are built here."""


def build_reward(
    source: str,
    task: Task | str,
    *,
    language: str = "code",
    time_limit: float = 10.0,
    min_isolation: Isolation = MIN_ISOLATION,
) -> Reward:
    """A reward from the text of a model. Its Python never runs in this process.

    ``terms`` are data that we compile. ``code`` is linted, then loaded, traced, tried and exported by a worker behind
    the walls of :class:`Isolation`, and the exported program is verified here before it is loaded.

    Keeps the optimal policy: no, in general; audit it.

    Args:
        source: the text, see :func:`reward_contract` for what it may be.
        task: the task that it is for, or its name.
        language: ``"code"`` or ``"terms"``.
        time_limit: seconds of wall-clock time that the checks of the candidate may take, above 0.
        min_isolation: lowest isolation of the worker to accept; ``Isolation.PROCESS`` on machines without more.

    Returns:
        A :class:`Reward` with the named components as terms; ``POINTWISE``, or ``CAUSAL`` if it has memory. It works
        under ``jit``, ``scan``, ``vmap`` and ``grad`` (not forward-mode differentiation) on every platform of JAX.

    Raises:
        CandidateRefused: with ``stage`` and ``reason``.
        ValueError: for an unknown language or a time limit that is not positive.

    Example:
        >>> from reward_design.llm import build_reward
        >>> build_reward("def reward(obs): return obs.secret", "cartpole")
        Traceback (most recent call last):
        reward_design.llm.refusal.CandidateRefused: refused at stage ...
    """
    made = named_task(task)
    return reward_of(_checked(source, made, language, time_limit, min_isolation), made)


def check_many(
    sources: Iterable[str],
    task: Task | str,
    *,
    language: str = "code",
    workers: int | None = None,
    time_limit: float = 10.0,
    min_isolation: Isolation = MIN_ISOLATION,
) -> list[Reward | CandidateRefused]:
    """:func:`build_reward` for many candidates at once; a refusal takes the place of its reward.

    Args:
        sources: the texts.
        task: the task, or its name.
        language: ``"code"`` or ``"terms"``.
        workers: how many to check at a time; the number of cores if left out.
        time_limit: seconds for each candidate.
        min_isolation: lowest isolation to accept.

    Returns:
        A reward or a :class:`CandidateRefused` per source, in order.

    Raises:
        TypeError: for one text in place of a list.

    Example:
        >>> from reward_design.llm import check_many
        >>> [type(found).__name__ for found in check_many(["{}", "[]"], "chain", language="terms")]
        ['CandidateRefused', 'CandidateRefused']
    """
    if isinstance(sources, (str, bytes)):
        raise TypeError("sources must be a list of texts, got one text; put it into a list, or use build_reward.")
    made = named_task(task)

    def one(source: str) -> Reward | CandidateRefused:
        try:
            return reward_of(_checked(source, made, language, time_limit, min_isolation), made)
        except CandidateRefused as refused:
            return refused

    check_language(language)
    with ThreadPoolExecutor(workers or num_cores()) as pool:
        return list(pool.map(one, sources))


def artifact_of(reward: Reward) -> Artifact:
    """What a designed reward was made of: source, contract, program, provenance.

    Raises:
        TypeError: if :func:`build_reward` did not make it.
    """
    found = reward.settings.get("artifact")
    if not isinstance(found, Artifact):
        raise TypeError(f"reward {reward.name!r} was not made by build_reward, so there is nothing to save of it.")
    return found


def reward_of(artifact: Artifact, task: Task | None = None) -> Reward:
    """The reward that an artifact describes; its program is verified first.

    Args:
        artifact: from :func:`build_reward` or a file.
        task: the task to use it on; by default the one that it was made for.

    Raises:
        CandidateRefused: if the program is not what it says, or not for this task.
    """
    if artifact.language == "terms":
        return _of_terms(artifact, task or _own_task(artifact))
    if task is not None:
        _check_inputs(artifact, task)
    call = callable_program(verified_artifact(artifact))
    start = start_memory(artifact)
    settings = {"artifact": artifact}
    if not start:
        return pointwise(NAME, lambda t: _split(artifact, call(*_inputs(artifact, t)))[0], settings=settings)

    def init(key: Any, example: Transition) -> tuple[Any, State]:
        lanes = jnp.shape(example.mask)[0]
        return (), State(episode=tuple(jnp.broadcast_to(x, (lanes, *x.shape)) for x in start))

    def step(params: Any, state: State, t: Transition) -> tuple[Any, State]:
        output, memory = _split(artifact, call(*_inputs(artifact, t), *state.episode))
        return output, state._replace(episode=memory)

    return from_step(NAME, init, step, settings=settings)


def check_limits(time_limit: float, min_isolation: Isolation) -> None:
    """Raise ValueError for limits of the checks that are none."""
    if not (isinstance(time_limit, Real) and 0 < time_limit < math.inf):
        raise ValueError(f"time_limit must be seconds, above 0 and finite, got {time_limit!r}.")
    if min_isolation not in tuple(Isolation):
        levels = ", ".join(f"Isolation.{level.name}" for level in Isolation)
        raise ValueError(f"min_isolation must be one of {levels}, got {min_isolation!r}.")


# --- parts ----------------------------------------------------------------------------------------------------------


def _checked(source: str, task: Task, language: str, time_limit: float, min_isolation: Isolation) -> Artifact:
    check_language(language)
    if not isinstance(source, str):
        raise TypeError(f"source must be text, got {type(source).__name__}; give the code or the JSON as a string.")
    check_limits(time_limit, min_isolation)
    if language == "code":
        return check_code(source, task, time_limit=float(time_limit), min_isolation=Isolation(min_isolation))
    terms_reward(source, task)
    return Artifact("terms", source, recipe(task))


def _of_terms(artifact: Artifact, task: Task) -> Reward:
    """The reward of a document. JAX reads the last entry where an index is too large: other inputs are refused."""
    compiled, specs = terms_reward(artifact.source, task), input_specs(task)

    def init(key: Any, example: Transition) -> tuple[Any, State]:
        flat_inputs(specs, ("obs", "next_obs"), example)
        return compiled.init(key, example)

    settings = {**compiled.settings, "artifact": artifact}
    return dataclasses.replace(compiled, name=NAME, init=init, settings=settings)


def _own_task(artifact: Artifact) -> Task:
    if artifact.task is None:
        raise CandidateRefused("artifact", "the file does not say for which task the reward is; give the task.")
    name, settings = artifact.task
    return task_by_name(name, **settings)


def _check_inputs(artifact: Artifact, task: Task) -> None:
    here = input_specs(task)
    for name in artifact.used:
        wanted, found = (described_kinds(name, specs[name]) for specs in (artifact.specs, here))
        if wanted != found:
            raise CandidateRefused(
                "artifact",
                f"the reward reads {'; '.join(wanted)}, and task {task.name!r} has {'; '.join(found)}; use it on "
                "the task that it was made for.",
            )


def _inputs(artifact: Artifact, transition: Transition) -> list[Any]:
    return flat_inputs(artifact.specs, artifact.used, transition)


def _split(artifact: Artifact, outputs: tuple[Any, ...]) -> tuple[Any, tuple[Any, ...]]:
    """``((reward, components), memory)``."""
    count = len(artifact.terms)
    reward, terms = outputs[0], dict(zip(artifact.terms, outputs[1 : 1 + count]))
    if artifact.remainder:
        terms["remainder"] = reward - sum(terms.values())
    return (reward, terms or {NAME: reward}), outputs[1 + count :]
