"""The reward abstraction: a pair of pure functions and the data that flows through them.

A :class:`Reward` is to rewards what an optax transformation is to gradients: ``init`` makes parameters and state,
``step`` scores one batched transition, ``unroll`` scores a recorded rollout. Everything else in the package builds
rewards, adapts them to an environment interface, or measures them.
"""

import enum
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cloudpickle
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, PyTree

Params = Any
"""Pytree of everything about a reward that may be swept, trained or differentiated."""


class Transition(NamedTuple):
    """One batched environment step. Every leaf has leading axis ``B``; ``[T, B]`` in a trajectory.

    Attributes:
        obs: observation before the action (pytree).
        action: action taken (pytree).
        next_obs: true successor observation, never the observation after a reset (pytree).
        reward: ``[B]`` what the environment, or the previous link of a chain, gave.
        terminated: ``[B]`` bool, the episode ended in a terminal state.
        truncated: ``[B]`` bool, the episode was cut (time limit). Where both are true, ``terminated`` wins.
        mask: ``[B]`` bool, False for rows that are not experience (autoreset dummies, padding).
        info: named arrays ``[B, ...]``: reward factors, event flags, messages as uint8.
    """

    obs: Any
    action: Any
    next_obs: Any
    reward: Any
    terminated: Any
    truncated: Any
    mask: Any
    info: Mapping[str, Any] = {}

    @property
    def done(self) -> Bool[Array, "*batch"]:
        """True where the episode ended, for either reason."""
        return jnp.logical_or(self.terminated, self.truncated)


class State(NamedTuple):
    """State of a reward.

    Attributes:
        episode: per lane, leaves ``[B, ...]``; set back to ``fresh`` when a lane's episode ends.
        running: shared by all lanes, survives episodes (normalisers, visit counts).
        fresh: what ``episode`` is at the start of an episode. Constructors fill it in when it is left out.
    """

    episode: Any = ()
    running: Any = ()
    fresh: Any = None


class Kind(enum.IntEnum):
    """What a reward needs to see; a composed reward has the maximum of its parts."""

    POINTWISE = 0
    """The transition alone."""
    CAUSAL = 1
    """The transition and the past."""
    TRAJECTORY = 2
    """Whole episodes: there is no ``step``."""


class Output(NamedTuple):
    """What a reward returns.

    Attributes:
        reward: ``[B]`` (``[T, B]`` from ``unroll``).
        terms: named contributions of the same shape; they sum to ``reward``. The term ``environment`` is the incoming
            ``transition.reward``, which :func:`reward_design.chain` replaces by the terms of the previous link.
    """

    reward: Any
    terms: Mapping[str, Any]


InitFn = Callable[[Any, Transition], tuple[Params, State]]
ApplyFn = Callable[[Params, State, Transition], tuple[Output, State]]


@dataclass(frozen=True, eq=False)
class Reward:
    """A reward as pure functions. Use :func:`pointwise`, :func:`from_step` or :func:`from_trajectory` to make one.

    It never changes, so a copy is the reward itself. It can be pickled where cloudpickle can pickle its functions.

    Attributes:
        name: used in logs, errors and :func:`reward_design.describe`.
        kind: what it needs to see.
        init: ``(key, example) -> (params, state)``; ``example`` is a batched :class:`Transition` of the right shapes.
        step: ``(params, state, transition) -> (Output, state)``, or None for ``Kind.TRAJECTORY``.
        unroll: ``(params, state, trajectory) -> (Output, state)`` with ``[T, B]`` leaves; always present.
        settings: constructor settings, for ``describe`` and for checks against the agent's.
        children: the rewards this one is composed of, by name.
        with_children: rebuilds a composed reward around other children of the same names; None for a leaf.
        learner: what changes ``params`` from experience while an agent trains; None for a reward that is not learned.
            Add one with :func:`dataclasses.replace`.
    """

    name: str
    kind: Kind
    init: InitFn
    step: ApplyFn | Any
    unroll: ApplyFn
    settings: Mapping[str, Any] = field(default_factory=dict)
    children: Mapping[str, "Reward"] = field(default_factory=dict)
    with_children: Callable[[Mapping[str, "Reward"]], "Reward"] | None = None
    learner: "Learner | None" = None

    def __post_init__(self) -> None:
        if (self.step is None) != (self.kind is Kind.TRAJECTORY):
            raise ValueError(
                f"reward {self.name!r}: exactly the rewards of kind TRAJECTORY have no step, got kind {self.kind.name} "
                f"with step={'None' if self.step is None else 'a function'}."
            )

    def __copy__(self) -> "Reward":
        return self

    def __deepcopy__(self, memo: Any) -> "Reward":
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        packed = io.BytesIO()
        _Pickler(packed).dump(self)
        return pickle.loads, (packed.getvalue(),)


class _Pickler(cloudpickle.Pickler):
    """Pickles the functions of a reward, and what several of its parts share once: each part as it is, unpacked."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Reward):
            return object.__new__, (type(obj),), vars(obj)
        return super().reducer_override(obj)


class Learner(NamedTuple):
    """Learns the params of a reward, outside the reward itself.

    Agents that can (:attr:`reward_design.agents.base.Agent.learns_reward`) call ``update`` once per rollout, in the
    same compiled function: on-policy ones before they score that rollout, off-policy ones before they sample. What it
    needs of the past (finished episodes, an optimiser) is in its state.

    Attributes:
        init: ``(key, params, example) -> learner_state``; ``example`` is a batched :class:`Transition` ``[B, ...]``.
        update: ``(params, learner_state, batch, key) -> (params, learner_state, metrics)``, pure and jittable; a batch
            is a rollout ``[T, B]`` whose lanes go on where the one before it stopped, metrics are scalars by name.
        max_length: longest episode in steps that it learns from, None for any; agents warn where episodes may be
            longer.
    """

    init: Callable[[Any, Params, Transition], Any]
    update: Callable[[Params, Any, Any, Any], tuple[Params, Any, Mapping[str, Any]]]
    max_length: int | None = None


class NonFiniteRewardError(FloatingPointError):
    """A reward was NaN or infinite; it was stopped before it reached a parameter of an agent."""


# --- the episode guard: the only place that knows about masks and resets --------------------------------------------


def select_lanes(mask: Bool[Array, "*batch"], on_true: PyTree, on_false: PyTree) -> PyTree:
    """``where(mask, on_true, on_false)`` leaf by leaf; ``mask`` has the leading axes of each leaf."""

    def pick(a: Any, b: Any) -> Array:
        a, b = jnp.asarray(a), jnp.asarray(b)
        return jnp.where(mask.reshape(mask.shape + (1,) * (a.ndim - mask.ndim)), a, b)

    return jax.tree.map(pick, on_true, on_false)


def guard(name: str, fn: Callable[[Params, Any, Transition], tuple[Any, Any]]) -> ApplyFn:
    """An author's ``step`` or ``unroll`` under the episode protocol, its output checked and its state completed."""

    def guarded(params: Params, state: State, transition: Transition) -> tuple[Output, State]:
        raw, new = fn(params, state, blank_masked(transition))
        output = _checked_output(name, raw, transition)
        return output, _finish_lanes(state, as_state(new), transition)

    return guarded


def _finish_lanes(old: State, new: State, transition: Transition) -> State:
    """Keep lanes without experience, reset lanes that ended; ``[B]`` and ``[T, B]`` transitions alike."""
    if not jax.tree.leaves(old.episode):
        return new._replace(episode=old.episode, fresh=old.fresh)
    mask, done = jnp.asarray(transition.mask), transition.done
    if mask.ndim == 2:
        last = mask.shape[0] - 1 - jnp.argmax(mask[::-1], axis=0)
        done, mask = jnp.take_along_axis(done, last[None], axis=0)[0], mask.any(axis=0)
    episode = select_lanes(mask, new.episode, old.episode)
    return State(select_lanes(mask & done, old.fresh, episode), new.running, old.fresh)


def blank_masked(transition: Transition) -> Transition:
    """Zero the masked rows, so that garbage in padding reaches neither running statistics nor gradients."""
    mask = jnp.asarray(transition.mask)
    blank = select_lanes(mask, transition, jax.tree.map(jnp.zeros_like, transition))
    return blank._replace(mask=mask)


def _checked_output(name: str, raw: Any, transition: Transition) -> Output:
    reward, terms = raw if isinstance(raw, tuple) else (raw, None)
    mask = jnp.asarray(transition.mask)
    reward = _checked_array(f"reward {name!r}", reward, mask, transition)
    if not terms:
        return Output(reward, {name: reward})
    checked = {k: _checked_array(f"term {k!r} of reward {name!r}", v, mask, transition) for k, v in terms.items()}
    return Output(reward, checked)


def _checked_array(what: str, value: Any, mask: Array, transition: Transition) -> Float[Array, "*batch"]:
    value = jnp.asarray(value)
    if value.shape != mask.shape:
        axes = "[T, B]" if mask.ndim == 2 else "[B]"
        raise ValueError(
            f"{what} must have shape {axes} = {mask.shape}, got {value.shape}; reduce or squeeze the extra axes."
        )
    if not jnp.issubdtype(value.dtype, jnp.floating):
        raise TypeError(f"{what} must be floating point, got {value.dtype}; cast it with .astype(float).")
    incoming = jnp.asarray(transition.reward).dtype
    return jnp.where(mask, value, 0).astype(incoming if jnp.issubdtype(incoming, jnp.floating) else value.dtype)


def as_state(state: Any) -> State:
    """What an author returned as a :class:`State`: anything else is per-lane episode state."""
    state = state if isinstance(state, State) else State(episode=state)
    return state._replace(fresh=state.episode) if state.fresh is None else state
