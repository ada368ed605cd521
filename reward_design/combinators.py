"""Rewards made of rewards: one after the other, side by side, or with frozen statistics.

The parts keep their own parameters, state and episode guard; a combinator only routes transitions and names terms.
"""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array

from reward_design import learners
from reward_design.constructors import pointwise, scan_step
from reward_design.core import ApplyFn, Kind, Learner, Output, Params, Reward, State, Transition


def environment_reward() -> Reward:
    """The incoming reward, unchanged: r'_t = r_t. Always the same object, so that nothing compiles twice.

    Keeps the optimal policy: yes.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` whose only term is ``environment``.

    Example:
        >>> import reward_design as rd
        >>> rd.environment_reward().kind.name
        'POINTWISE'
    """
    return _environment()


@functools.cache
def _environment() -> Reward:
    return pointwise("environment", lambda transition: transition.reward)


def chain(*rewards: Reward) -> Reward:
    """One reward after the other: each link sees the previous link's output as ``transition.reward``.

    The terms of a chain show what every link contributed and sum to its reward: the term ``environment`` of a link
    stands for what came in and is replaced by the terms of the link before it.

    Keeps the optimal policy: only if every link does.

    Args:
        *rewards: links, in the order in which they are applied.

    Returns:
        A :class:`Reward` whose kind is the maximum of its links; params are a dict by link name (``name_2`` on
        repetition).

    Raises:
        ValueError: without any link.
        TypeError: if a link is not a :class:`Reward`.

    Example:
        >>> import reward_design as rd
        >>> shaped = rd.chain(rd.potential_shaping(lambda obs: -abs(obs), gamma=0.99), rd.clip(-5.0, 5.0))
        >>> list(shaped.children)
        ['potential_shaping', 'clip']
    """
    if not rewards:
        raise ValueError("chain needs at least one reward, got none; use environment_reward() for the incoming one.")
    links = dict(zip(_unique(checked_names("chain", rewards)), rewards, strict=True))

    def apply(which: str) -> ApplyFn:
        def run(params: Params, state: State, transition: Transition) -> tuple[Output, State]:
            terms, states = {}, {}
            for number, (name, link) in enumerate(links.items()):
                output, states[name] = getattr(link, which)(params[name], part_state(state, name), transition)
                terms = _merged_terms(terms, output.terms) if number else dict(output.terms)
                transition = transition._replace(reward=output.reward)
            return Output(transition.reward, terms), joined(states)

        return run

    rebuild = lambda parts: chain(*parts.values())  # noqa: E731
    return composed("chain", links, apply, init_each(links), rebuild, learner=learners.chained(links))


def weighted_sum(*, weights: Mapping[str, float | int] | None = None, **rewards: Reward) -> Reward:
    """Rewards side by side: r'_t = sum_i w_i r_i,t, all of them functions of the same transition.

    Keeps the optimal policy: no, in general.

    Args:
        weights: weight by name, default 1. They are params: ``{"weights": {name: w}, "rewards": {name: params}}``.
        **rewards: the parts. Terms are called ``name``, or ``name/term`` for parts with several, already weighted.

    Returns:
        A :class:`Reward` whose kind is the maximum of its parts.

    Raises:
        ValueError: without any reward, for a weight without a reward, or for a part called ``environment``.
        TypeError: if a part is not a :class:`Reward`.

    Example:
        >>> import reward_design as rd
        >>> energy = rd.pointwise("energy", lambda t: -(t.action**2).sum(-1))
        >>> total = rd.weighted_sum(task=rd.environment_reward(), energy=energy, weights={"energy": 0.1})
        >>> total.settings["weights"]
        {'task': 1.0, 'energy': 0.1}
    """
    given = _checked_weights(weights or {}, rewards)
    init_parts = init_each(rewards)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        params, state = init_parts(key, example)
        dtype = jnp.asarray(example.reward).dtype
        return {"weights": {k: jnp.asarray(w, dtype) for k, w in given.items()}, "rewards": params}, state

    def apply(which: str) -> ApplyFn:
        def run(params: Params, state: State, transition: Transition) -> tuple[Output, State]:
            terms, states, total = {}, {}, 0.0
            for name, part in rewards.items():
                output, states[name] = getattr(part, which)(
                    params["rewards"][name], part_state(state, name), transition
                )
                weight = params["weights"][name]
                total = total + weight * output.reward
                for term, value in output.terms.items():
                    terms[name if len(output.terms) == 1 else f"{name}/{term}"] = weight * value
            return Output(total, terms), joined(states)

        return run

    rebuild = lambda parts: weighted_sum(weights=given, **parts)  # noqa: E731
    learner = learners.within(learners.parts(rewards), "rewards")
    return composed("weighted_sum", rewards, apply, init, rebuild, {"weights": given}, learner=learner)


def freeze_running(reward: Reward) -> Reward:
    """The same reward with ``running`` held fixed (normalisers, visit counts), for evaluation.

    Every step of a rollout is scored with the running state that is handed in, also inside ``unroll`` and inside the
    parts of a composed reward. Parameters and state keep their structure, so a trained state can be handed over.

    Keeps the optimal policy: only if ``reward`` does.

    Args:
        reward: any reward. A leaf of kind ``TRAJECTORY`` must score with ``running`` as it was before the call.

    Returns:
        A :class:`Reward` of the same name and kind.

    Example:
        >>> import reward_design as rd
        >>> rd.freeze_running(rd.normalise_by_return(gamma=0.99)).settings["running"]
        'frozen'
    """
    checked_names("freeze_running", [reward])
    settings = {**reward.settings, "running": "frozen"}
    if reward.with_children is not None:
        parts = {name: freeze_running(child) for name, child in reward.children.items()}
        return dataclasses.replace(reward.with_children(parts), settings=settings)

    def frozen(apply: ApplyFn) -> ApplyFn:
        def run(params: Params, state: State, transition: Transition) -> tuple[Output, State]:
            output, new = apply(params, state, transition)
            return output, new._replace(running=state.running)

        return run

    step = None if reward.step is None else frozen(reward.step)

    def unroll(params: Params, state: State, trajectory: Transition) -> tuple[Output, State]:
        if step is not None and jax.tree.leaves(state.running):
            return scan_step(step)(params, state, trajectory)
        return frozen(reward.unroll)(params, state, trajectory)

    return dataclasses.replace(reward, step=step, unroll=unroll, settings=settings)


def with_params(reward: Reward, params: Params) -> Reward:
    """The same reward with these parameters: ``init`` gives them whatever the key, and nothing learns any more.

    For what initialises rewards itself, such as distances, audits and tables, to measure what was learned.

    Keeps the optimal policy: only if ``reward`` with these parameters does.

    Args:
        reward: any reward.
        params: of the structure that ``reward.init`` gives; they take its dtypes.

    Returns:
        A :class:`Reward` of the same name and kind.

    Raises:
        ValueError: from ``init``, for parameters of another structure.

    Example:
        >>> import reward_design as rd
        >>> from reward_design.envs import task
        >>> example, mixed = task("chain").example, rd.weighted_sum(task=rd.environment_reward())
        >>> params, _ = mixed.init(jax.random.key(0), example)
        >>> half = rd.with_params(mixed, {**params, "weights": {"task": 0.5}})
        >>> float(half.init(jax.random.key(0), example)[0]["weights"]["task"])
        0.5
    """
    checked_names("with_params", [reward])

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        own, state = reward.init(key, example)
        given, expected = jax.tree.structure(params), jax.tree.structure(own)
        if given != expected:
            raise ValueError(
                f"params of {reward.name!r} must have the structure that its init gives, {expected}, got {given}; give "
                "what training left of this very reward."
            )
        return jax.tree.map(lambda x, like: jnp.asarray(x, jnp.result_type(like)), params, own), state

    rebuild = reward.with_children
    again = None if rebuild is None else lambda parts: with_params(rebuild(parts), params)
    return dataclasses.replace(reward, init=init, learner=None, with_children=again)


# --- helpers shared by the combinators -------------------------------------------------------------------------------


def checked_names(where: str, rewards: Iterable[Any]) -> list[str]:
    """Names of the rewards; TypeError if one of them is something else."""
    names = []
    for reward in rewards:
        if not isinstance(reward, Reward):
            raise TypeError(
                f"{where} expects Reward objects, got {type(reward).__name__}; wrap a function in pointwise(name, fn)."
            )
        names.append(reward.name)
    return names


def _unique(names: Sequence[str]) -> list[str]:
    """Names with ``_2``, ``_3`` ... appended on repetition."""
    taken: list[str] = []
    for name in names:
        candidate, number = name, 2
        while candidate in taken:
            candidate, number = f"{name}_{number}", number + 1
        taken.append(candidate)
    return taken


def _merged_terms(before: Mapping[str, Array], link: Mapping[str, Array]) -> dict[str, Array]:
    """Terms of a link with its ``environment`` replaced by the terms of the links before it."""
    own = {name: value for name, value in link.items() if name != "environment"}
    kept = dict(before) if "environment" in link else {}
    names = _unique([*kept, *own])
    return dict(zip(names, [*kept.values(), *own.values()], strict=True))


def _checked_weights(weights: Mapping[str, float | int], rewards: Mapping[str, Any]) -> dict[str, float]:
    if not rewards:
        raise ValueError(
            "weighted_sum needs at least one reward, got none; pass them by name, task=environment_reward()."
        )
    checked_names("weighted_sum", rewards.values())
    if "environment" in rewards:
        raise ValueError(
            "weighted_sum: 'environment' is reserved for the incoming reward; call the part 'task' instead."
        )
    unknown = sorted(set(weights) - set(rewards))
    if unknown:
        raise ValueError(f"weighted_sum got weights for {unknown}, but its rewards are {sorted(rewards)}.")
    return {name: float(weights.get(name, 1.0)) for name in rewards}


def init_each(rewards: Mapping[str, Reward]) -> Any:
    """``init`` of named parts: params and state by name."""

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        keys = jax.random.split(key, len(rewards))
        made = {name: part.init(k, example) for k, (name, part) in zip(keys, rewards.items(), strict=True)}
        return {name: params for name, (params, _) in made.items()}, joined({n: s for n, (_, s) in made.items()})

    return init


def joined(states: Mapping[str, State]) -> State:
    """One state of the states of named parts."""
    return State(*({name: state[i] for name, state in states.items()} for i in range(3)))


def part_state(state: State, name: str) -> State:
    """The state of one part in a :func:`joined` one."""
    return State(state.episode[name], state.running[name], state.fresh[name])


def composed(
    name: str,
    children: Mapping[str, Reward],
    apply: Any,
    init: Any,
    rebuild: Any,
    settings: Mapping[str, Any] | None = None,
    *,
    learner: Learner | None = None,
) -> Reward:
    """Reward made of ``children``, with the maximum of their kinds; ``apply("step")`` makes its step, and so on."""
    kind = max(child.kind for child in children.values())
    step = None if kind is Kind.TRAJECTORY else apply("step")
    return Reward(name, kind, init, step, apply("unroll"), settings or {}, dict(children), rebuild, learner)
