"""One run of an agent of stable-baselines3 or sbx: a line per evaluation, the algorithm saved at the end."""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward_design.agents import recipes, sb3
from reward_design.core import Reward
from reward_design.envs.base import Task
from reward_design.experiments import artifacts, tracking, units, writers
from reward_design.experiments.progress import Lines
from reward_design.experiments.provenance import provenance
from reward_design.experiments.store import Store

MODEL, MOMENTS = "model.zip", "vecnormalize.pkl"
"""What ``--out`` holds: the algorithm for its ``load``, and ``VecNormalize`` where the agent learned with it."""
NUM_EPISODES = 32
"""Episodes of the evaluation after training."""


def train(
    learner: sb3.SB3Agent,
    config: Any,
    task: Task,
    reward: Reward,
    identity: Mapping[str, Any],
    *,
    seed: int,
    out: str | None,
    evaluations: int,
    overwrite: bool,
    command: str | None,
    lines: Lines,
    logs: Sequence[writers.Writer] = (),
    design: Any = None,
) -> dict[str, float]:
    """Train, print, keep; a finished run in ``out`` is evaluated again, an unfinished one starts anew.

    Args:
        learner: from :func:`reward_design.agents.sb3.agent`.
        config: its settings.
        task: the task.
        reward: the reward.
        identity: of the run.
        seed: of the run.
        out: folder; without it nothing is kept.
        evaluations: lines to print (about).
        overwrite: delete what ``out`` holds.
        command: how to run this again, for the records.
        lines: where to print.
        logs: of :func:`reward_design.experiments.writers.writers`, if there is a folder.
        design: what the reward was made from, for the records.

    Returns:
        Means over episodes played after training: ``true_return``, ``success``, ``length``.
    """

    def go(keep: Callable[[int, Mapping[str, Any]], None]) -> Any:
        report = _Reports(config, evaluations, lines, keep)
        return sb3.train(learner, config, task, reward, seed, on_update=report).state

    def judged(model: Any, moments: Any) -> dict[str, float]:
        played = sb3.evaluate(learner, config, task, model, num_episodes=NUM_EPISODES, seed=seed, moments=moments)
        means = {name: float(np.mean(values)) for name, values in played.items()}
        lines.evaluated(means, NUM_EPISODES)
        return means

    if out is None:
        return judged(go(lambda *_: None), None)
    with Store(out, identity, overwrite=overwrite) as store:
        artifacts.note(store, {identity["reward"]: (design, reward)})
        _begin(learner, store, overwrite, command)
        with tracking.live(logs, identity, store.records, config.steps_per_update) as followed:
            means = judged(*_kept(learner, config, store, go, lines, followed))
            followed.finish(means)
    return means


class _Reports:
    """Prints and keeps a line for every few rows of metrics."""

    def __init__(self, config: Any, evaluations: int, lines: Lines, keep: Callable[[int, Mapping[str, Any]], None]):
        self.config, self.lines, self.keep = config, lines, keep
        self.chunk = max(1, config.num_updates // evaluations)
        self.rows: list[Mapping[str, float]] = []
        self.tick = time.perf_counter()

    def __call__(self, updates: int, row: Mapping[str, float]) -> None:
        self.rows.append(row)
        if len(self.rows) < self.chunk and updates < self.config.num_updates:
            return
        steps = self.config.steps_per_update
        stacked = {name: np.array([[row[name] for row in self.rows]]) for name in row}
        line = units.line(stacked, steps)
        now = time.perf_counter()
        self.lines.row(updates * steps, line, len(self.rows) * steps / (now - self.tick))
        if updates >= self.config.num_updates and (note := units.faults_note(line["losses"])) is not None:
            self.lines.console.print(f"note: {note}.")
        self.keep(updates, line)
        self.rows.clear()
        self.tick = time.perf_counter()


def _begin(learner: sb3.SB3Agent, store: Store, overwrite: bool, command: str | None) -> None:
    """Delete what is to be replaced, and note the session of a run that is not finished."""
    if overwrite:
        (store.folder / MODEL).unlink(missing_ok=True)
        (store.folder / MOMENTS).unlink(missing_ok=True)
        writers.clear(store.folder)
    if not (store.folder / MODEL).is_file():
        details = provenance()
        details["versions"] |= learner.versions()
        store.append({"kind": "session", "command": command or "train", **details})


def _kept(
    learner: sb3.SB3Agent, config: Any, store: Store, go: Any, lines: Lines, followed: tracking.Live
) -> tuple[Any, Any]:
    """The algorithm and its moments: those in the folder, or of a new run, which is then saved there."""
    model_file, moments_file = store.folder / MODEL, store.folder / MOMENTS
    if model_file.is_file():
        lines.console.print(f"finished before: {config.num_updates * config.steps_per_update:,} steps ({model_file})")
        return learner.algorithm.load(model_file, device="cpu"), _load_moments(moments_file)
    known = {record["update"] for record in store.records if record["kind"] == "evaluation"}

    def keep(updates: int, line: Mapping[str, Any]) -> None:
        if updates not in known:
            store.append({"kind": "evaluation", "update": updates, **line})
            followed.add(store.records[-1])

    model = go(keep)
    moments = model.get_vec_normalize_env()
    if moments is not None:
        moments.save(str(moments_file))
    draft = model_file.with_name("model.part.zip")
    model.save(draft)
    os.replace(draft, model_file)
    lines.console.print(f"saved: {model_file}", soft_wrap=True)
    return model, moments


def settings(learner: sb3.SB3Agent, recorded: Mapping[str, Any], given: Any, folder: Path) -> Any:
    """The settings of a run; ``given`` in their place if it says the same.

    Raises:
        ValueError: if it says something else.
    """
    if given is None:
        return learner.Config(**recorded)
    if not isinstance(given, learner.Config) or recipes.plain_settings(given) != recorded:
        raise ValueError(f"{folder} was made with other settings than those given; leave config out.")
    return given


def saved(learner: sb3.SB3Agent, folder: Path) -> sb3.Saved:
    """What a finished run left.

    Raises:
        ValueError: for one that is not finished.
    """
    if not (folder / MODEL).is_file():
        raise ValueError(
            f"{folder} has no {MODEL} yet: {learner.name!r} is saved when it is finished; run its command again."
        )
    with sb3.contained():
        return sb3.Saved(learner.algorithm.load(folder / MODEL, device="cpu"), _load_moments(folder / MOMENTS))


def _load_moments(path: Path) -> Any:
    """A pickle that this package wrote, without its environment."""
    import pickle

    return pickle.loads(path.read_bytes()) if path.is_file() else None
