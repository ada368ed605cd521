"""Played episodes in words: how each ended, and the steps of one that matter."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from reward_design.core import Transition
from reward_design.envs.base import MissingPotentialError, Task
from reward_design.llm.designers.reflection import number

SUCCESS = "achieved the task"
EARLY = "ended early without achieving the task"
STUCK = "time ran out: nothing changed in the last half"
AWAY = "time ran out: came closer, then moved away again"
CLOSER = "time ran out: still closer to the goal than at the start"
NEVER = "time ran out: never came closer to the goal"
LATE = "time ran out"
MAX_STEPS = 10
"""Steps of a compressed episode."""


def outcomes(task: Task, episodes: Transition) -> list[str]:
    """How each of the episodes ``[T, B]`` ended, one per lane, masked rows after its end.

    Where the task has a potential, what a time limit cut is told apart by it: with first value a, largest value m and
    last value z of an episode, and s the range of the potential over all episodes, it "came closer" if m − a > s / 10,
    and "moved away again" if then m − z > (m − a) / 2.
    """
    ends = episodes.mask & (episodes.terminated | episodes.truncated)
    success = (np.asarray(task.success(episodes)) & ends).any(0)
    early = (episodes.terminated & ends).any(0)
    potential = _potential(task, episodes)
    return [
        SUCCESS if success[b] else EARLY if early[b] else _late(episodes, potential, b)
        for b in range(episodes.mask.shape[1])
    ]


def _late(episodes: Transition, potential: np.ndarray | None, lane: int) -> str:
    length = int(episodes.mask[:, lane].sum())
    half = [np.asarray(x)[length // 2 : length, lane] for x in jax.tree.leaves(episodes.next_obs)]
    if length > 1 and all((x == x[:1]).all() for x in half):
        return STUCK
    if potential is None:
        return LATE
    values = potential[: length + 1, lane]
    start, top, last = values[0], values.max(), values[-1]
    if top - start <= 0.1 * max(np.nanmax(potential) - np.nanmin(potential), 1e-9):
        return NEVER
    return AWAY if top - last > 0.5 * (top - start) else CLOSER


def _potential(task: Task, episodes: Transition) -> np.ndarray | None:
    """``[T + 1, B]`` potential before the first step and after every one, NaN after the end; None without one."""
    try:
        first = np.asarray(task.potential(jax.tree.map(lambda x: x[:1], episodes.obs)), float)
        after = np.asarray(task.potential(episodes.next_obs), float)
    except MissingPotentialError:
        return None
    return np.concatenate([first, np.where(episodes.mask, after, np.nan)])


def histogram(task: Task, episodes: Transition) -> dict[str, int]:
    """How many episodes ended in which way, the most frequent first."""
    return dict(Counter(outcomes(task, episodes)).most_common())


def events(episodes: Transition) -> dict[str, int]:
    """By flag of ``info``, in how many episodes it was raised."""
    flags = {
        name: np.asarray(value)
        for name, value in episodes.info.items()
        if np.asarray(value).dtype == bool and np.ndim(value) == 2
    }
    return {name: int((value & episodes.mask).any(0).sum()) for name, value in flags.items()}


def trace(
    task: Task, episodes: Transition, lane: int, terms: Mapping[str, Any] | None = None, *, max_steps: int = MAX_STEPS
) -> str:
    """The steps of an episode that matter, with the task's factors and what the reward paid.

    Kept are the first and the last step, steps that the true reward pays unusually, steps where a flag is raised, and
    others at equal distances; actions in between are counted.

    Args:
        task: of the episodes.
        episodes: ``[T, B]``.
        lane: which one.
        terms: ``[T, B]`` what the reward paid, by component.
        max_steps: lines.
    """
    length = int(np.asarray(episodes.mask)[:, lane].sum())
    row = jax.tree.map(lambda x: np.asarray(x)[:length, lane], episodes)
    factors = {name: np.asarray(factor.fn(row), float) for name, factor in task.factors.items()}
    paid = {name: np.asarray(value)[:length, lane] for name, value in (terms or {}).items()}
    kept = _key_steps(row, length, max_steps)
    lines = [f"{length} steps, {outcomes(task, episodes)[lane]}"]
    for before, t in zip([-1, *kept], kept, strict=False):
        if t - before > 1:
            lines.append(f"  ... {t - before - 1} steps: {_actions(row.action[before + 1 : t])}")
        raised = [name for name, flag in row.info.items() if np.asarray(flag).dtype == bool and np.all(flag[t])]
        parts = [f"step {t}: action {_action(row.action[t])}"]
        parts += [" ".join(f"{name}={number(values[t])}" for name, values in factors.items())]
        parts += ["flags " + " ".join(raised)] if raised else []
        parts += ["paid " + " ".join(f"{name}={number(values[t])}" for name, values in paid.items())] if paid else []
        lines.append("  " + "; ".join(part for part in parts if part))
    return "\n".join(lines)


def _key_steps(row: Transition, length: int, max_steps: int) -> list[int]:
    usual = np.median(row.reward)
    odd = [t for t in range(length) if abs(row.reward[t] - usual) > 1e-6]
    for flag in row.info.values():
        if np.asarray(flag).dtype == bool and np.ndim(flag) == 1:
            odd += np.flatnonzero(np.diff(flag.astype(int), prepend=0) > 0).tolist()
    kept = {0, length - 1, *sorted(set(odd))[: max_steps - 2]}
    for t in np.linspace(0, length - 1, max_steps).astype(int).tolist():
        if len(kept) < max_steps:
            kept.add(t)
    return sorted(kept)


def _action(action: Any) -> str:
    values = np.asarray(action)
    return number(float(values)) if values.ndim == 0 else "[" + " ".join(number(v) for v in values.ravel()) + "]"


def _actions(actions: np.ndarray) -> str:
    if actions.ndim > 1 or not np.issubdtype(actions.dtype, np.integer):
        return f"mean action {_action(np.mean(actions, axis=0))}"
    counts = Counter(actions.tolist()).most_common(3)
    return ", ".join(f"action {action} x{count}" for action, count in counts)
