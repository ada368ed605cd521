"""The command ``distance``: all distances between reward designs on a task, as a table, a picture and JSON."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import scipy.cluster.hierarchy as hierarchy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich.markup import escape
from rich.table import Table
from scipy.spatial.distance import squareform

from reward_design.core import Kind, Reward
from reward_design.distance import (
    CANONICALISATIONS,
    SampledDistances,
    distance_matrix,
    policy_regret,
    reward_tables,
    sampled_distances,
    worst_case_regret,
)
from reward_design.distance.audit_sampled import draw, known_potentials
from reward_design.distance.audits import is_tabular
from reward_design.distance.canonicalisation import STARC
from reward_design.distance.findings import percent
from reward_design.envs.base import Task
from reward_design.envs.exact import check_finite
from reward_design.experiments import plots

TRUE_REWARD = plots.TRUE_REWARD


@dataclass(frozen=True, eq=False)
class Distances:
    """Distances between the task's reward and designs.

    Attributes:
        task: name of the task.
        names: of the rewards, the task's first.
        matrix: ``[M, M]``.
        low: lower ends of the intervals; the matrix itself if exact.
        high: upper ends.
        settings: canonicalisation, norms, gamma, number of samples.
        notes: sentences that belong under the table: why it is sampled, which rewards the samples cannot tell from an
            indifferent one, which differences look like shaping outside the features, what is not a STARC metric.
        regret: by name, loss of the policy that is optimal for the design; empty if not exact.
        worst_regret: by name, worst-case regret; empty if not exact.
    """

    task: str
    names: tuple[str, ...]
    matrix: np.ndarray
    low: np.ndarray
    high: np.ndarray
    settings: Mapping[str, Any]
    regret: Mapping[str, float]
    worst_regret: Mapping[str, float]
    notes: tuple[str, ...] = ()

    def record(self) -> dict[str, Any]:
        """Everything as plain numbers, for JSON."""
        return {
            "task": self.task, "names": list(self.names), "matrix": self.matrix.tolist(), "low": self.low.tolist(),
            "high": self.high.tolist(), "settings": dict(self.settings), "regret": dict(self.regret),
            "worst_regret": dict(self.worst_regret), "notes": list(self.notes),
        }  # fmt: skip


def measure(
    task: Task,
    rewards: Mapping[str, Reward],
    *,
    gamma: float | None = None,
    canonicalisation: str | None = None,
    norm: Any = None,
    num_samples: int = 4000,
    seed: int = 0,
) -> Distances:
    """Distances between the task's reward and designs: exact on tabular tasks, else from samples.

    Args:
        task: the task.
        rewards: designs by name; of kind POINTWISE, or CAUSAL (then from recorded rollouts of random actions).
        gamma: discount per step, by default the task's.
        canonicalisation: as in :func:`reward_design.distance.starc_distance`, by default ``"val"``; on samples
            ``"minimal_weighted"``, the default there, or ``"val"``, whose values need far more samples than features.
        norm: both norms, by default 2; where there are only samples ``"weighted_2"``, and no other.
        num_samples: samples of tasks that are not tabular.
        seed: of the samples.

    Returns:
        :class:`Distances`.

    Raises:
        TypeError: for a reward of kind TRAJECTORY.
        ValueError: as the distances do, and for a canonicalisation or norm that samples do not allow.

    Example:
        >>> from reward_design.envs import task
        >>> chain = task("chain")
        >>> measure(chain, {"sparse": chain.sparse_reward}).names
        ('true reward', 'sparse')
    """
    named = {TRUE_REWARD: task.true_reward, **rewards}
    discount = task.gamma if gamma is None else gamma
    if all(reward.kind is Kind.POINTWISE for reward in named.values()) and is_tabular(task):
        return _exact(task, named, discount, canonicalisation or "val", 2 if norm is None else norm)
    if norm not in (None, "weighted_2"):
        raise ValueError(
            f"norm must be weighted_2 where distances come from samples, as on {task.name}, got {norm}; leave it out."
        )
    return _sampled(task, named, discount, canonicalisation or "minimal_weighted", num_samples, seed)


def _exact(task: Task, named: Mapping[str, Reward], gamma: float, canonicalisation: str, norm: Any) -> Distances:
    model = task.tabular()
    tables = reward_tables(named, model)
    for name, table in zip(named, tables):
        check_finite(table, **{f"reward {name!r}": table})
    kwargs: dict[str, Any] = {"gamma": gamma, "canonicalisation": canonicalisation, "norm": norm, "metric": norm}
    matrix = np.asarray(distance_matrix(tables, model.transition, **kwargs))
    pairs = {name: (tables[0], table, model.transition, model.initial) for name, table in zip(named, tables)}
    regret = {name: float(policy_regret(*pair, gamma=gamma)) for name, pair in pairs.items()}
    worst = {name: worst_case_regret(*pair, gamma=gamma).regret for name, pair in pairs.items()}
    settings = {"canonicalisation": canonicalisation, "gamma": gamma, "norm": str(norm), "exact": True}
    notes = () if canonicalisation in STARC else (f"{canonicalisation}: {CANONICALISATIONS[canonicalisation]}.",)
    return Distances(task.name, tuple(named), matrix, matrix, matrix, settings, regret, worst, notes)


def _sampled(
    task: Task, named: Mapping[str, Reward], gamma: float, canonicalisation: str, num_samples: int, seed: int
) -> Distances:
    memory = next((reward for reward in named.values() if reward.kind is not Kind.POINTWISE), task.true_reward)
    samples = draw(task, memory, num_samples=num_samples, steps=min(task.horizon or 200, 200), seed=seed)
    found = sampled_distances(
        list(named.values()), samples, gamma=gamma, canonicalisation=canonicalisation, seed=seed,
        potentials=known_potentials(task, samples),
    )  # fmt: skip
    settings = {"canonicalisation": canonicalisation, "gamma": gamma, "norm": "weighted_2", "exact": False,
                "num_samples": samples.num_samples, "guarantees": samples.guarantees}  # fmt: skip
    notes = (*_memory_note(task, named), *_notes(list(named), found))
    return Distances(task.name, tuple(named), found.distance, found.low, found.high, settings, {}, {}, notes)


def _memory_note(task: Task, named: Mapping[str, Reward]) -> Iterator[str]:
    """Why a tabular task is sampled."""
    memory = [name for name, reward in named.items() if reward.kind is not Kind.POINTWISE]
    if memory and is_tabular(task):
        yield (
            f"All distances come from rollouts of random actions, because what {', '.join(memory)} pays depends on the "
            "past of the episode; without it they would be exact."
        )


def _notes(names: list[str], found: SampledDistances) -> Iterator[str]:
    """What a reader of sampled distances must know about them."""
    blank = [name for name, trivial in zip(names, found.trivial) if trivial]
    if blank:
        yield (
            f"On these samples {', '.join(blank)} cannot be told from a reward that is indifferent to all policies "
            "(random actions may never reach what it pays for): distances to it (1, or 0 between two such rewards) say "
            "nothing about the task."
        )
    shaped = [
        f"{names[i]} and {names[j]} ({percent(float(found.outside_span[i, j]))})"
        for i, j in zip(*np.nonzero(np.triu(found.outside_span > 0.5, 1)))
        if not (found.trivial[i] or found.trivial[j])
    ]
    if shaped:
        yield (
            "The difference looks like shaping by a potential outside the features, and the distance may be too large, "
            f"between {', '.join(shaped)}."
        )


def order_and_tree(matrix: np.ndarray) -> tuple[list[int], Any]:
    """Order of the leaves and linkage of average-linkage clustering, None for fewer than two rewards."""
    if len(matrix) < 2:
        return list(range(len(matrix))), None
    tree = hierarchy.linkage(squareform(matrix, checks=False), method="average", optimal_ordering=True)
    return [int(i) for i in hierarchy.leaves_list(tree)], tree


def table(found: Distances) -> Table:
    """The matrix for the terminal, with regrets where they are exact."""
    exact = bool(found.settings["exact"])
    title = f"STARC distances on {found.task}: 0 the same task, 2 the opposite"
    made = Table(title=title, title_justify="left", title_style="dim", box=None, padding=(0, 2, 0, 0))
    made.add_column("")
    shown = plots.shown(found.names)
    for name in found.names:
        made.add_column(escape(shown[name]), justify="right")
    for column in ("regret", "worst case") if exact else ():
        made.add_column(column, justify="right")
    for i, name in enumerate(found.names):
        cells = [f"{d:.3f}" for d in found.matrix[i]]
        if not exact:
            cells = [
                f"{c} [{a:.2f}, {b:.2f}]".replace("[", r"\[") for c, a, b in zip(cells, found.low[i], found.high[i])
            ]
        regrets = [f"{x[name]:.3f}" for x in (found.regret, found.worst_regret)] if exact else []
        made.add_row(escape(shown[name]), *cells, *regrets)
    return made


def heatmap(found: Distances, axes: Sequence[Axes]) -> Sequence[Axes]:
    """The matrix in the order of a dendrogram, which stands beside it; ``axes``: dendrogram, matrix."""
    beside, main = axes
    order, tree = order_and_tree(found.matrix)
    names = [found.names[i] for i in order]
    plots.distance_heatmap({"names": names, "matrix": found.matrix[np.ix_(order, order)]}, main)
    if tree is not None and found.matrix.max() > 0:  # equal rewards have no branches to draw
        hierarchy.dendrogram(
            tree, ax=beside, orientation="left", no_labels=True, color_threshold=0,
            above_threshold_color=plots.MUTED,
        )  # fmt: skip
        beside.invert_yaxis()
    beside.set_xlabel("distance of clusters")
    beside.set_yticks([])
    for side in ("left", "top", "right"):
        beside.spines[side].set_visible(False)
    return axes


def write(found: Distances, out: str | os.PathLike[str]) -> list[Path]:
    """Write ``distances.json`` and ``distances.svg`` into a folder; returns their paths."""
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    numbers, picture = folder / "distances.json", folder / "distances.svg"
    numbers.write_text(json.dumps(found.record(), indent=1) + "\n", encoding="utf-8")
    side = 2.4 + 0.75 * len(found.names)
    style: Any = {**plots.STYLE, "figure.facecolor": "white"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(side + 3.0, side), layout="constrained")
        axes = figure.subplots(1, 2, width_ratios=[1.0, 2.5])
        heatmap(found, list(axes))
        figure.savefig(picture)
    return [numbers, picture]
