"""What exact dynamics say about designs: distances, regret, what each state pays, what policy is asked for."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from reward_design.agents.dynamic_programming import policy_iteration
from reward_design.core import Kind, Reward
from reward_design.distance import distance_matrix, policy_regret, reward_table
from reward_design.envs.base import Layout, Tabular, Task
from reward_design.experiments.looks import TRUE_REWARD

MAX_STATES = 2000
"""Larger models (dense arrays ``[S, A, S]``) are left out of reports."""


def exact(task: Task, rewards: Mapping[str, Reward]) -> dict[str, Any]:
    """Distances, regret, reward maps and greedy policies of designs on a task, as a record.

    Args:
        task: any task; one without exact dynamics gives a record with ``reason``.
        rewards: designs by name; those that are not POINTWISE are named in ``missing``.

    Returns:
        ``task``, ``description``, ``reason`` (None if there are exact dynamics), ``names`` (the true reward first),
        ``missing``, ``matrix``, ``regret`` by name, ``maps`` and ``greedy`` by name, ``terminal``, ``layout``.

    Example:
        >>> from reward_design.envs import task
        >>> record = exact(task("chain"), {"sparse": task("chain").sparse_reward})
        >>> record["names"], round(record["regret"]["sparse"], 6)
        (['true reward', 'sparse'], 0.0)
    """
    about = {"task": task.name, "description": " ".join(task.description.split())}
    try:
        model = task.tabular()
    except TypeError:
        return {**about, "reason": "this task has no exact dynamics"}
    if len(model.terminal) > MAX_STATES:
        return {**about, "reason": f"its exact model has {len(model.terminal)} states, too many to draw"}
    tables, missing = _tables(model, rewards)
    designs = {name: table for name, table in tables.items() if name != TRUE_REWARD}
    return {
        **about,
        "reason": None,
        "names": list(tables),
        "missing": missing,
        "matrix": distance_matrix(np.stack(list(tables.values())), model.transition, gamma=model.gamma),
        "regret": {name: _regret(model, table) for name, table in designs.items()},
        "maps": {name: _best(model, table) for name, table in tables.items()},
        "greedy": {name: _greedy(model, table) for name, table in tables.items()},
        "terminal": model.terminal,
        "layout": None if model.layout is None else _drawn(model.layout),
    }


def _tables(model: Tabular, rewards: Mapping[str, Reward]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    tables, missing = {TRUE_REWARD: np.asarray(model.reward, float)}, {}
    for name, reward in rewards.items():
        if reward.kind is not Kind.POINTWISE:
            missing[name] = "not pointwise: it depends on more than one transition"
            continue
        table = np.asarray(reward_table(reward, model), float)
        if np.isfinite(table).all():
            tables[name] = table
        else:
            missing[name] = "not finite on some transitions"
    return tables, missing


def _regret(model: Tabular, table: np.ndarray) -> float:
    return float(policy_regret(model.reward, table, model.transition, model.initial, gamma=model.gamma))


def _best(model: Tabular, table: np.ndarray) -> np.ndarray:
    """``[S]`` largest expected reward of one step; 0 in terminal states."""
    expected = (model.transition * table).sum(-1)
    return np.where(model.terminal, 0.0, expected.max(-1))


def _greedy(model: Tabular, table: np.ndarray) -> np.ndarray:
    """``[S, A]`` 1 for actions that are optimal for the table, else 0."""
    policy = policy_iteration(model.transition, table, gamma=model.gamma).policy
    return (np.asarray(policy) > 0).astype(int)


def _drawn(layout: Layout) -> dict[str, Any]:
    return {
        "walls": np.asarray(layout.walls, int),
        "cells": layout.cells,
        "layer": layout.layer,
        "layer_names": list(layout.layer_names),
        "arrows": layout.arrows,
        "marks": [[int(row), int(column), text] for (row, column), text in layout.marks.items()],
    }
