"""What the records of runs hold, as logs for other tools to show; the records stay the source of truth."""

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any

from reward_design.experiments.results import Results
from reward_design.experiments.writers import Point, Track, Writer


def log(results: Results, to: Sequence[Writer]) -> int:
    """Write the logs of all finished units that are not complete yet.

    A unit has a log per seed: learning curves as in the records, ``final/<metric>`` over the last tenth of training,
    the settings. What the records keep as means over seeds, the agent's metrics, is in the log ``all_seeds``.

    Args:
        results: of a comparison.
        to: of :func:`reward_design.experiments.writers.writers`.

    Returns:
        How many were written.

    Example:
        >>> import tempfile
        >>> from reward_design.experiments import compare
        >>> from reward_design.experiments.writers import writers
        >>> folder = tempfile.mkdtemp()
        >>> results = compare("chain", "sparse", seeds=2, total_timesteps=512, out=folder,
        ...                   config={"num_envs": 4, "num_steps": 64}, progress=False, report=False)
        >>> log(results, writers(["tensorboard"], folder)), log(results, writers(["tensorboard"], folder))
        (3, 0)
    """
    return sum(log_unit(unit.record, to) for unit in results.done.values())


def log_unit(record: Mapping[str, Any], to: Sequence[Writer]) -> int:
    """:func:`log` of one unit, as its record is stored."""
    written = 0
    for track, points, summary in _runs(record) if to and record["status"] == "done" else ():
        for writer in to:
            if not writer.has(track):
                with _open(writer, track) as closing:
                    for point in points:
                        writer.add(point)
                    closing.update(summary)
                written += 1
    return written


@contextlib.contextmanager
def beside(to: Sequence[Writer]) -> Iterator["Beside"]:
    """Write logs in a thread, while this one goes on; waits for them at the end, unless something was raised.

    A log that is not complete is written anew the next time, so that an interrupt need not wait.

    Args:
        to: of :func:`reward_design.experiments.writers.writers`.
    """
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="logs") as thread:
        logs = Beside(to, thread)
        try:
            yield logs
        except BaseException:
            thread.shutdown(wait=False, cancel_futures=True)
            raise
        logs.wait()


class Beside:
    """What :func:`beside` gives.

    Args:
        to: writers, used by the thread alone.
        thread: a pool of one.
    """

    def __init__(self, to: Sequence[Writer], thread: ThreadPoolExecutor) -> None:
        self.to, self.thread = to, thread
        self.pending: list[Future[Any]] = []

    def submit(self, do: Callable[..., Any], *args: Any) -> None:
        """Do something in the thread. Raises what was raised there before."""
        for future in [future for future in self.pending if future.done()]:
            self.pending.remove(future)
            future.result()
        if self.to:
            self.pending.append(self.thread.submit(do, *args))

    def prepare(self) -> None:
        """Get the writers ready for the first run."""
        for writer in self.to:
            self.submit(writer.prepare)

    def log_unit(self, record: Mapping[str, Any]) -> None:
        """:func:`log_unit`, in the thread."""
        self.submit(log_unit, record, self.to)

    def wait(self) -> None:
        """Until all is written."""
        for future in self.pending:
            future.result()


@contextlib.contextmanager
def live(
    to: Sequence[Writer], identity: Mapping[str, Any], records: Sequence[Mapping[str, Any]], steps_per_update: int
) -> Iterator["Live"]:
    """The log of a single run while it trains; it begins with the evaluations that the records have.

    Args:
        to: of :func:`reward_design.experiments.writers.writers`.
        identity: of the run.
        records: of its folder.
        steps_per_update: environment steps.
    """
    first = next((record for record in records if record["kind"] == "session"), {})
    name = (identity["task"], identity["reward"], f"seed_{identity['seed']}")
    settings = {**identity["config"], **{k: identity[k] for k in ("task", "reward", "agent", "seed")}}
    track = Track(name, settings, _digest([identity, first]))
    with contextlib.ExitStack() as stack:
        open_ = [(w, stack.enter_context(_open(w, track))) for w in to if not w.has(track)]
        run = Live(open_, steps_per_update)
        for record in records:
            if record["kind"] == "evaluation":
                run.add(record)
        yield run


class Live:
    """What :func:`live` gives.

    Args:
        to: open writers, with where their summary goes.
        steps_per_update: environment steps.
    """

    def __init__(self, to: Sequence[tuple[Writer, dict[str, float]]], steps_per_update: int) -> None:
        self.to, self.steps_per_update = to, steps_per_update

    def add(self, record: Mapping[str, Any]) -> None:
        """An evaluation, as its record is stored."""
        names = [k for k in record if k not in ("kind", "update", "losses")]
        values = {_grouped(k): record[k] for k in names}
        values |= {f"agent/{k}": v for k, v in record.get("losses", {}).items()}
        for writer, _ in self.to:
            writer.add(Point(record["update"] * self.steps_per_update, _known(values)))

    def finish(self, means: Mapping[str, float]) -> None:
        """The evaluation after training; without it the log counts as interrupted."""
        for _, summary in self.to:
            summary |= {f"evaluated/{name}": value for name, value in means.items()}


# --- parts ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _open(writer: Writer, track: Track) -> Iterator[dict[str, float]]:
    """A log that is complete if its summary was filled in and nothing was raised."""
    summary: dict[str, float] = {}
    writer.begin(track)
    try:
        yield summary
    except BaseException:
        writer.end(None)
        raise
    writer.end(summary or None)


def _runs(record: Mapping[str, Any]) -> Iterator[tuple[Track, list[Point], dict[str, float]]]:
    """The logs of a unit: one per seed, and one of what is kept for all of them."""
    digest = _digest(record)
    about = ("task", "reward", "agent", "fingerprint", "commit")
    settings = {**record["config"], **{k: record[k] for k in about if record.get(k) is not None}}
    steps = record["steps"]
    start, wall = datetime.fromisoformat(record["time"]).timestamp(), record["wall_s"]
    times = [start + wall * done / steps[-1] for done in steps]

    def points(curves: Mapping[str, Sequence[Any]]) -> list[Point]:
        rows = [_known({name: curve[p] for name, curve in curves.items()}) for p in range(len(steps))]
        return [Point(s, row, at) for s, row, at in zip(steps, rows, times, strict=True) if row]

    for i, seed in enumerate(record["seeds"]):
        track = Track(
            (record["task"], record["reward"], f"seed_{seed}"), {**settings, "seed": seed}, _digest([digest, seed])
        )
        summary = _known({f"final/{name}": values[i] for name, values in record["final"].items()})
        summary["final/episodes"] = record["episodes"][i]
        yield track, points({_grouped(k): curve[i] for k, curve in record["curves"].items()}), summary
    track = Track((record["task"], record["reward"], "all_seeds"), settings, _digest([digest, "all"]))
    summary = {f"final/{name}": record[name] for name in ("wall_s", "compile_s", "env_steps", "steps_per_s")}
    yield track, points({f"agent/{k}": curve for k, curve in record["losses"].items()}), _known(summary)


def _grouped(name: str) -> str:
    """Names without a group of their own are about episodes."""
    return name if "/" in name else f"episode/{name}"


def _known(values: Mapping[str, Any]) -> dict[str, float]:
    """Without those that are missing: no episode had ended."""
    return {name: value for name, value in values.items() if value is not None}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
