"""Reads a results folder that others may be writing to: changes nothing, and names what it cannot read."""

import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from reward_design.experiments import live, store

DISTANCES, PICTURE = "distances.json", "distances.svg"
SKIPPED = frozenset({"checkpoints", "training", "answers", "rewards", "episodes", "node_modules", "__pycache__"})
"""Folders that hold nothing to look at."""
CLIPS, PICTURES, PAGES = frozenset({".mp4", ".webm", ".gif"}), frozenset({".png", ".jpg", ".svg"}), frozenset({".html"})
MAX_FOLDERS, MAX_DEPTH = 5000, 12
PERIOD = 1.0
"""Seconds between two looks at the tree, at least."""
_NEEDED = {
    "comparison": ("identity",),
    "unit": ("task", "reward", "status", "seeds"),
    "exact": ("task",),
    "evaluation": ("update",),
}


class File(NamedTuple):
    """A file to look at: its path below the root, and when it was written."""

    path: str
    written: float


@dataclass
class Log:
    """The records of one folder; a second look reads only what was appended since.

    Args:
        path: of the file.

    Attributes:
        records: readable ones, in order.
        troubles: sentences about the others.
    """

    path: Path
    records: list[dict[str, Any]] = field(default_factory=list)
    troubles: list[str] = field(default_factory=list)
    _end: int = 0
    _lines: int = 0
    _known: tuple[int, int, int] = (0, 0, 0)
    _tail: bytes = b""

    @property
    def version(self) -> str:
        """Another text whenever the file has changed."""
        return "-".join(map(str, self._known))

    def look(self) -> "Log":
        """Read what is new; a file that is not the same any more is read from its beginning."""
        try:
            status = self.path.stat()
            known = (status.st_ino, status.st_size, status.st_mtime_ns)
            if known == self._known:
                return self
            with self.path.open("rb") as file:
                if not self._goes_on(file, known):
                    self.records, self.troubles, self._end, self._lines = [], [], 0, 0
                file.seek(self._end)
                self._take(file.read())
            self._known = known
        except OSError as error:
            self.troubles = [f"{self.path.name} cannot be read ({error.strerror})."]
        return self

    def _goes_on(self, file: Any, known: tuple[int, int, int]) -> bool:
        if known[0] != self._known[0] or known[1] < self._end:
            return False
        file.seek(max(0, self._end - len(self._tail)))
        return file.read(len(self._tail)) == self._tail

    def _take(self, data: bytes) -> None:
        for line in data.splitlines(keepends=True):
            if not line.endswith(b"\n"):
                return  # still being written
            self._end, self._lines = self._end + len(line), self._lines + 1
            self._tail = line[-200:]
            try:
                self.records.append(_sound(json.loads(line)))
            except (ValueError, TypeError, KeyError, RecursionError):
                self.troubles.append(f"Line {self._lines} of {self.path.name} is damaged and left out.")


def _sound(record: Any) -> dict[str, Any]:
    """A record that has what its kind needs, else KeyError."""
    missing = [key for key in _NEEDED.get(record["kind"], ()) if record[key] is None]
    if missing or (record["kind"] == "comparison" and not isinstance(record["identity"], dict)):
        raise KeyError(record["kind"])
    return record


@dataclass(frozen=True, eq=False)
class Experiment:
    """What a folder of results holds.

    Attributes:
        path: below the root; empty for the root itself.
        folder: on disk.
        kind: ``"comparison"``, ``"run"``, ``"search"``, ``"distances"``, or ``"unknown"`` for records without a
            readable beginning.
        identity: what was asked for.
        records: of the store.
        live: what it is doing now, ``{}`` if it does not say.
        distances: of ``distances.json``, ``{}`` without one.
        troubles: sentences about what could not be read.
        version: another text whenever something has changed.
        written: when it was last written to, in seconds since 1970.
    """

    path: str
    folder: Path
    kind: str
    identity: Mapping[str, Any]
    records: list[dict[str, Any]]
    live: Mapping[str, Any]
    distances: Mapping[str, Any]
    troubles: list[str]
    version: str
    written: float


@dataclass(frozen=True, eq=False)
class Tree:
    """Everything below a root.

    Attributes:
        experiments: by path, in order.
        files: clips, pictures and pages.
        troubles: about the tree itself.
    """

    experiments: Mapping[str, Experiment]
    files: tuple[File, ...]
    troubles: tuple[str, ...] = ()

    def below(self, path: str) -> list[Experiment]:
        """Experiments under a path, that of the path itself left out."""
        return [e for name, e in self.experiments.items() if name != path and _is_below(name, path)]

    def files_below(self, path: str, suffixes: frozenset[str]) -> list[File]:
        """Files under a path."""
        return [f for f in self.files if _is_below(f.path, path) and Path(f.path).suffix.lower() in suffixes]


class Reader:
    """Looks at a folder again and again.

    Args:
        root: the folder.

    Raises:
        ValueError: if there is no such folder.

    Example:
        >>> import tempfile
        >>> Reader(tempfile.mkdtemp()).look().experiments
        {}
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root = Path(root)
        if not self.root.is_dir():
            what = "a file" if self.root.exists() else "nothing"
            raise ValueError(f"expected a folder with results, got {self.root}, which is {what}; give its --out.")
        self._logs: dict[Path, Log] = {}
        self._json: dict[Path, tuple[tuple[int, int], Any]] = {}
        self._tree, self._looked = Tree({}, ()), float("-inf")

    def look(self) -> Tree:
        """The tree as it is now, at most :data:`PERIOD` seconds old."""
        if time.monotonic() - self._looked >= PERIOD:
            self._tree, self._looked = self._walk(), time.monotonic()
        return self._tree

    def _walk(self) -> Tree:
        experiments, files, troubles = {}, [], []
        for number, (path, names) in enumerate(self._folders()):
            if number == MAX_FOLDERS:
                troubles.append(f"There are more than {MAX_FOLDERS:,} folders; only the first are shown.")
                break
            if store.FILE in names or DISTANCES in names:
                experiments[path] = self._experiment(path, names)
            for name in names:
                drawn_here = name == PICTURE and DISTANCES in names
                if Path(name).suffix.lower() in CLIPS | PICTURES | PAGES and not drawn_here:
                    files.append(_file(self.root, f"{path}/{name}" if path else name))
        return Tree(experiments, tuple(f for f in files if f is not None), tuple(troubles))

    def _folders(self) -> Iterator[tuple[str, list[str]]]:
        """Path and names of files of every folder, in order."""
        for where, folders, names in os.walk(self.root):
            path = Path(where).relative_to(self.root).as_posix()
            path = "" if path == "." else path
            deep = path.count("/") + 2 > MAX_DEPTH
            folders[:] = [] if deep else sorted(n for n in folders if n not in SKIPPED and not n.startswith("."))
            yield path, sorted(n for n in names if not n.startswith("."))

    def _experiment(self, path: str, names: list[str]) -> Experiment:
        folder = self.root / path
        log = self._logs.setdefault(folder, Log(folder / store.FILE))
        troubles: list[str] = []
        if store.FILE in names:
            troubles += log.look().troubles
        doing = self._object(folder / live.FILE, troubles) if live.FILE in names else {}
        distances = self._object(folder / DISTANCES, troubles) if DISTANCES in names else {}
        identity = next((r["identity"] for r in reversed(log.records) if r["kind"] == "comparison"), {})
        kind = _kind(identity) if store.FILE in names else "distances"
        if kind == "unknown":
            troubles.append(f"{store.FILE} does not say yet what it is about.")
        written = max((_written(folder / name) for name in (store.FILE, live.FILE, DISTANCES)), default=0.0)
        version = f"{log.version}|{written}|{len(troubles)}"
        return Experiment(path, folder, kind, identity, log.records, doing, distances, troubles, version, written)

    def _object(self, path: Path, troubles: list[str]) -> dict[str, Any]:
        """A JSON object; empty, and a sentence, if there is none."""
        try:
            status = path.stat()
            mark = (status.st_ino, status.st_mtime_ns)
            if self._json.get(path, (None,))[0] != mark:
                self._json[path] = (mark, json.loads(path.read_text(encoding="utf-8")))
            found = self._json[path][1]
            if isinstance(found, dict):
                return found
            troubles.append(f"{path.name} is damaged and left out.")
        except FileNotFoundError:
            pass  # gone since the folder was listed: it ended
        except (OSError, ValueError, RecursionError):
            troubles.append(f"{path.name} is damaged and left out.")
        return {}


# --- parts ----------------------------------------------------------------------------------------------------------


def _kind(identity: Mapping[str, Any]) -> str:
    for key, kind in (("tasks", "comparison"), ("preset", "search"), ("task", "run")):
        if key in identity:
            return kind
    return "unknown"


def _is_below(path: str, parent: str) -> bool:
    return not parent or path == parent or path.startswith(f"{parent}/")


def _written(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def _file(root: Path, path: str) -> File | None:
    """A file, if it is one and does not lead out of the folder."""
    full = root / path
    try:
        inside = full.resolve().is_relative_to(root.resolve())
        return File(path, full.stat().st_mtime) if inside and full.is_file() else None
    except OSError:
        return None
