"""Logs for TensorBoard and Weights & Biases (``pip install 'reward-design[track]'``), one per run.

A log is written anew unless it is complete, so that an interrupt neither loses nor doubles a point. Nothing uses the
network: runs of Weights & Biases are kept offline, and ``wandb sync`` sends them when you say so.
"""

import importlib.util
import os
import shutil
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable
from urllib.parse import quote

from reward_design._names import suggestion
from reward_design._optional import require

PATIENCE = 10.0
"""Seconds in which the process of Weights & Biases has written what it was given."""
HELD = 60.0
"""Seconds in which it has noticed that the run it wrote for was killed."""
_QUIET: dict[str, Any] = {
    "silent": True, "console": "off", "disable_git": True, "disable_code": True, "disable_job_creation": True,
    "x_disable_stats": True, "x_disable_meta": True, "x_disable_machine_info": True, "x_save_requirements": False,
}  # fmt: skip
_BLOCK, _PART, _LAST = 32_768, struct.Struct("<IHB"), (1, 4)
COMPLETE = "complete"
"""File in the folder of a log that was written to its end; it holds what identifies the run."""
PROJECT = "reward-design"
"""Project at Weights & Biases; the environment variable ``WANDB_PROJECT`` names another."""


class Track(NamedTuple):
    """One run to be logged.

    Attributes:
        name: task, design, and ``seed_<n>`` or ``all_seeds``.
        settings: of the agent, and what else tells runs apart.
        digest: of everything that the log is written from; a log with another digest is not this run's.
    """

    name: tuple[str, ...]
    settings: Mapping[str, Any]
    digest: str


class Point(NamedTuple):
    """Values after ``steps`` environment steps, at the time ``at`` in seconds (None: now)."""

    steps: int
    values: Mapping[str, float]
    at: float | None = None


@runtime_checkable
class Writer(Protocol):
    """Something that writes one run after the other."""

    def prepare(self) -> None:
        """Load and start what takes a second or two, so that it need not when the first run begins."""
        ...

    def has(self, track: Track) -> bool:
        """Whether the log of this run is complete."""
        ...

    def begin(self, track: Track) -> None:
        """Start the log of a run, in place of what an earlier attempt left of it."""
        ...

    def add(self, point: Point) -> None:
        """Write a point."""
        ...

    def end(self, summary: Mapping[str, float] | None) -> None:
        """Finish the log with values for the whole run; None for a run that was interrupted."""
        ...


class TensorBoard:
    """Event files in ``folder/tensorboard/<task>/<design>/seed_<n>``, for ``tensorboard --logdir folder``.

    Args:
        folder: of the records.

    Raises:
        ImportError: without the extra ``track``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        _installed("tensorboard")
        self.folder = Path(folder) / "tensorboard"
        self._file: Any = None
        self._last = 0

    def prepare(self) -> None:
        """See :class:`Writer`."""
        for module in ("summary.writer.event_file_writer", "compat.proto.event_pb2", "plugins.hparams.summary_v2"):
            _tensorboard(module)

    def has(self, track: Track) -> bool:
        """See :class:`Writer`."""
        return _is_complete(self._place(track), track)

    def begin(self, track: Track) -> None:
        """See :class:`Writer`. Settings become hyper-parameters."""
        shutil.rmtree(self._place(track), ignore_errors=True)
        self._track, self._last = track, 0
        self._file = _tensorboard("summary.writer.event_file_writer").EventFileWriter(str(self._place(track)))
        known = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in track.settings.items()}
        hparams = _tensorboard("plugins.hparams.summary_v2").hparams_pb(known, trial_id=track.digest)
        self._write(hparams, 0, None)

    def add(self, point: Point) -> None:
        """See :class:`Writer`; it can be read at once."""
        summary = _tensorboard("compat.proto.summary_pb2").Summary
        values = [summary.Value(tag=name, simple_value=value) for name, value in point.values.items()]
        self._write(summary(value=values), point.steps, point.at)
        self._last = point.steps

    def end(self, summary: Mapping[str, float] | None) -> None:
        """See :class:`Writer`. The summary is written as values after the last step."""
        if summary:
            self.add(Point(self._last, summary))
        self._file.close()
        if summary is not None:
            _complete(self._place(self._track), self._track)

    def _place(self, track: Track) -> Path:
        return self.folder.joinpath(*map(_file_name, track.name))

    def _write(self, summary: Any, steps: int, at: float | None) -> None:
        now = time.time() if at is None else at
        event = _tensorboard("compat.proto.event_pb2").Event
        self._file.add_event(event(wall_time=now, step=steps, summary=summary))
        self._file.flush()


class WandB:
    """Offline runs in ``folder/wandb/offline-run-<time>-<id>``, for ``wandb sync folder/wandb/offline-run-*``.

    The id belongs to the run: one that is sent twice stays one. A group is a task and a design.

    Args:
        folder: of the records.

    Raises:
        ImportError: without the extra ``track``.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        _installed("wandb")
        self.folder = Path(folder)
        self._run: Any = None

    def prepare(self) -> None:
        """See :class:`Writer`; starts the process that writes."""
        _wandb().setup(settings=_wandb().Settings(**_QUIET))

    def has(self, track: Track) -> bool:
        """See :class:`Writer`."""
        return any(_is_complete(place, track) for place in self._places(track))

    def begin(self, track: Track) -> None:
        """See :class:`Writer`."""
        for place in self._places(track):
            shutil.rmtree(place)
        self.folder.mkdir(parents=True, exist_ok=True)
        self._track = track
        self._run = self._when_free(
            mode="offline", project=os.environ.get("WANDB_PROJECT", PROJECT), dir=self.folder, id=_identifier(track),
            name="/".join(track.name), group="/".join(track.name[:-1]), config=dict(track.settings),
            settings=_wandb().Settings(**_QUIET), reinit="create_new",
        )  # fmt: skip
        self._run.define_metric("env_steps", hidden=True)
        self._run.define_metric("*", step_metric="env_steps")

    def add(self, point: Point) -> None:
        """See :class:`Writer`; it can be read after the end."""
        self._run.log({**point.values, "env_steps": point.steps})

    def end(self, summary: Mapping[str, float] | None) -> None:
        """See :class:`Writer`. A file that is not on disk soon is not complete, and will be written anew."""
        self._run.summary.update(summary or {})
        self._run.finish(exit_code=0 if summary is not None else 1)
        place = self._places(self._track)[-1]
        if self._is_on_disk(next(place.glob("run-*.wandb"))) and summary is not None:
            _complete(place, self._track)

    def _when_free(self, **settings: Any) -> Any:
        """Start a run; a process that writes for one that was killed holds its id until it has noticed."""
        deadline = time.monotonic() + HELD
        while True:
            try:
                return _wandb().init(**settings)
            except Exception as error:
                if "is in use" not in str(error):
                    raise
                if time.monotonic() > deadline:
                    raise TimeoutError(
                        f"the log of {settings['name']} is still held by a process of Weights & Biases, from a run "
                        "that was killed or goes on; wait for it to end, and run the same command again."
                    ) from error
            time.sleep(0.2)

    def _is_on_disk(self, file: Path) -> bool:
        """Wait until another process, which returns before, has written the record of the end."""
        record = _wandb().proto.wandb_internal_pb2.Record
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            *_, last = (b"", *_offline_records(file.read_bytes()))
            if record.FromString(last).WhichOneof("record_type") == "exit":
                return True
            time.sleep(0.01)
        return False

    def _places(self, track: Track) -> list[Path]:
        return sorted((self.folder / "wandb").glob(f"offline-run-*-{_identifier(track)}"))


WRITERS: dict[str, type[TensorBoard] | type[WandB]] = {"tensorboard": TensorBoard, "wandb": WandB}
"""Names on the command line."""


def writers(names: str | Sequence[str], folder: str | os.PathLike[str] | None) -> list[Writer]:
    """Writers by name, for the records in ``folder``.

    Raises:
        ValueError: for an unknown name, with the nearest one, or without a folder.
        ImportError: without the extra ``track``.

    Example:
        >>> writers(["tensorbord"], "results/compare")
        Traceback (most recent call last):
        ValueError: unknown log 'tensorbord'; did you mean 'tensorboard'? Known: tensorboard, wandb.
    """
    chosen = list(dict.fromkeys([names] if isinstance(names, str) else names))
    for name in chosen:
        if name not in WRITERS:
            raise ValueError(f"unknown log {name!r}{suggestion(name, WRITERS)} Known: {', '.join(WRITERS)}.")
        if folder is None:
            raise ValueError(f"--log {name} expects a folder for the log, got none; give one with --out.")
    return [WRITERS[name](folder) for name in chosen if folder is not None]


def clear(folder: str | os.PathLike[str]) -> None:
    """Delete the logs of records that are being replaced."""
    for name in WRITERS:
        shutil.rmtree(Path(folder) / name, ignore_errors=True)


# --- parts ----------------------------------------------------------------------------------------------------------


def _tensorboard(module: str) -> Any:
    return require(f"tensorboard.{module}", "track", "logs for TensorBoard")


def _wandb() -> Any:
    return require("wandb", "track", "logs for Weights & Biases")


def _installed(package: str) -> None:
    """Raise what the import of a package would that is not there, without the second that the import takes."""
    if importlib.util.find_spec(package) is None:
        _wandb() if package == "wandb" else _tensorboard("summary")


def _offline_records(data: bytes) -> Iterator[bytes]:
    """Records of a file of Weights & Biases: after seven bytes, LevelDB's log of parts in blocks of 32 KiB."""
    at, record = 7, b""
    while at + _PART.size <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _PART.size:
            at += left
            continue
        _, length, kind = _PART.unpack_from(data, at)
        at += _PART.size + length
        record += data[at - length : at]
        if kind in _LAST and at <= len(data):
            yield record
            record = b""


def _identifier(track: Track) -> str:
    return f"rd{track.digest}"


def _file_name(name: str) -> str:
    """Part of a path that every system takes and that cannot lead elsewhere; slashes make sub-folders."""
    parts = (part for part in quote(name, safe="/ =,+").split("/") if part)
    return "/".join(part if part.strip(".") else part.replace(".", "%2E") for part in parts)


def _is_complete(place: Path, track: Track) -> bool:
    mark = place / COMPLETE
    return mark.is_file() and mark.read_text() == track.digest


def _complete(place: Path, track: Track) -> None:
    (place / COMPLETE).write_text(track.digest)
