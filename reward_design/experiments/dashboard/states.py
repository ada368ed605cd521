"""How far experiments are, from what they have written: finished, running, stopped; units, steps, candidates."""

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from reward_design.agents import agent as find_agent
from reward_design.agents import recipes
from reward_design.experiments import statistics, store
from reward_design.experiments.dashboard.reading import Experiment
from reward_design.experiments.dashboard.searches import candidates, refused, trained
from reward_design.experiments.results import Results

FRESH = 120.0
"""Seconds after which a program that cannot be asked, and has written nothing, counts as stopped."""


class Unit(NamedTuple):
    """One task and one design.

    Attributes:
        status: ``"done"``, ``"running"``, ``"failed"`` or ``"waiting"``.
        share: of its steps that are done.
        value: interquartile mean over seeds of the true return at the end, or None.
        reason: why it failed.
    """

    status: str
    share: float = 0.0
    value: float | None = None
    reason: str = ""


class State(NamedTuple):
    """How far an experiment is.

    Attributes:
        word: ``"finished"``, ``"running"``, ``"stopped"``, or ``"unknown"``.
        done: what is finished.
        total: of how much, None if that is not known.
        what: plural of what is counted.
        failed: how many failed.
        note: a sentence more, or empty.
    """

    word: str
    done: int
    total: int | None
    what: str
    failed: int = 0
    note: str = ""

    def __str__(self) -> str:
        """One line of text."""
        count = f"{self.done:,}" if self.total is None else f"{self.done:,} of {self.total:,}"
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"{self.word}: {count} {self.what}{failed}" if self.what else self.word


def state(experiment: Experiment) -> State:
    """How far an experiment is."""
    found = {"comparison": _comparison, "run": _run, "search": _search, "distances": _distances}
    return found.get(experiment.kind, _unknown)(experiment)


def units(experiment: Experiment, *, values: bool = True) -> dict[tuple[str, str], Unit]:
    """Every unit of a comparison, in the order asked for, with or without its value."""
    results = Results(experiment.records)
    doing = running(experiment)
    found = {}
    for name in ((t, r) for t in results.tasks for r in results.rewards):
        if name in doing:
            found[name] = Unit("running", doing[name]["steps"] / max(doing[name]["total"], 1))
        elif name not in results.units:
            found[name] = Unit("waiting")
        elif results.units[name].failed:
            found[name] = Unit("failed", reason=results.units[name].reason)
        else:
            found[name] = Unit("done", 1.0, _middle(results.units[name].final()) if values else None)
    return found


def running(experiment: Experiment) -> dict[tuple[str, str], Mapping[str, Any]]:
    """Units that are being trained now, as ``live.json`` has them; none if what wrote it has ended."""
    if not experiment.live or not is_written(experiment):
        return {}
    listed = experiment.live.get("units", [])
    return {(u["task"], u["reward"]): u for u in listed if {"task", "reward", "steps", "total", "curves"} <= {*u}}


def is_written(experiment: Experiment) -> bool:
    """Whether a program is at work on it: it holds the lock, or has written lately where that cannot be seen."""
    locked = _locked(experiment.folder / store.FILE)
    fresh = time.time() - experiment.written < FRESH
    return locked if locked is not None else fresh


def steps_per_update(experiment: Experiment) -> tuple[int, int | None]:
    """Environment steps of an update of a single run, and its number of updates; ``(1, None)`` if nobody knows."""
    identity = experiment.identity
    try:
        config = recipes.settings_from(find_agent(identity["agent"]), identity["config"], None, experiment.folder)
        return int(config.steps_per_update), int(config.num_updates)
    except (ValueError, TypeError, KeyError, ImportError):
        return 1, None


# --- parts ----------------------------------------------------------------------------------------------------------


def _comparison(experiment: Experiment) -> State:
    found = units(experiment, values=False)
    count = {status: sum(u.status == status for u in found.values()) for status in ("done", "failed", "running")}
    word = _word(experiment, count["done"] == len(found))
    note = ""
    if word == "running" and not experiment.live and not count["running"]:
        note = "It is being prepared, or trained where it does not say how far it is."
    return State(word, count["done"], len(found), "units", count["failed"], note)


def _run(experiment: Experiment) -> State:
    size, total = steps_per_update(experiment)
    done = max((r["update"] for r in experiment.records if r["kind"] == "evaluation"), default=0)
    word = _word(experiment, total is not None and done >= total)
    return State(word, done * size, None if total is None else total * size, "steps" if total else "updates")


def _search(experiment: Experiment) -> State:
    kinds = [r["kind"] for r in experiment.records]
    ended = "end" in kinds and kinds[::-1].index("end") < (kinds[::-1].index("session") if "session" in kinds else 0)
    listed = candidates(experiment.records)
    done, turned_down = sum(map(trained, listed)), sum(map(refused, listed))
    stops = [str(r.get("stopped") or "") for r in experiment.records if r["kind"] == "end"]
    note = f"It ended early: {stops[-1]}" if ended and stops[-1] else ""
    note = note or (f"{turned_down} refused before training." if turned_down else "")
    return State(_word(experiment, ended), done, len(listed), "candidates trained", note=note)


def _distances(experiment: Experiment) -> State:
    names = experiment.distances.get("names", [])
    return State("finished" if names else "unknown", len(names), None, "rewards measured")


def _unknown(experiment: Experiment) -> State:
    return State("running" if is_written(experiment) else "unknown", 0, None, "")


def _word(experiment: Experiment, complete: bool) -> str:
    if complete:
        return "finished"
    return "running" if is_written(experiment) else "stopped"


def _middle(values: Any) -> float | None:
    values = values[np.isfinite(values)]
    return float(statistics.interquartile_mean(values)) if len(values) else None


def _locked(path: Path) -> bool | None:
    """Whether a process holds the lock of a file, without touching it; None where the system does not tell."""
    try:
        table, status = Path("/proc/locks").read_text(), path.stat()
    except OSError:
        return None
    mark = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    return any(mark in line.split() for line in table.splitlines())


def age(experiment: Experiment) -> str:
    """``12 s ago``: when it was last written to."""
    seconds = max(0.0, time.time() - experiment.written)
    for size, name in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {name} ago"
    return "just now"
