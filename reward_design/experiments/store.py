"""Results on disk: one folder, one file ``records.jsonl``, one JSON object per line, appended whole or not at all.

The file is the only source of truth. It survives a kill at any moment (a torn last line is dropped on the next start),
a full disk (a line that did not fit is taken back), and a second process that wants the same folder (refused).
"""

import json
import math
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

FILE = "records.jsonl"
REPORT = "report.html"
FORMAT = 1


class StoreError(ValueError):
    """The output folder cannot be used as asked; the message says what to do."""


class Store:
    """Append-only records of one comparison.

    Args:
        folder: made if needed.
        identity: what makes this comparison another one: agent, settings, seeds, tasks, rewards. A folder with a
            different identity is refused. A function gets the records that are there.
        overwrite: delete the records of another comparison instead.
        extend: accept a folder that lacks some of ``tasks`` and ``rewards``, and add to it.

    Raises:
        StoreError: if the folder belongs to another comparison, to another process, or is damaged.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with Store(folder, {"seeds": [0, 1]}) as store:
        ...     store.append({"kind": "unit", "task": "chain", "final": float("nan")})
        >>> [record["kind"] for record in read(folder)]
        ['comparison', 'unit']
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        identity: Mapping[str, Any] | Callable[[list[dict[str, Any]]], Mapping[str, Any]],
        *,
        overwrite: bool = False,
        extend: bool = False,
    ) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise StoreError(f"--out must be a folder, got the file {self.folder}; choose another --out.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self._file = os.open(self.folder / FILE, os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o644)
        try:
            _lock(self._file, self.folder)
            if overwrite:
                os.ftruncate(self._file, 0)
                (self.folder / REPORT).unlink(missing_ok=True)
            self.records = _recover(self._file, self.folder / FILE)
            wanted = identity(self.records) if callable(identity) else identity
            self.identity = self._settle(_plain(wanted), extend)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self._file)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, whole or not at all, and keep it in :attr:`records`. NaN and infinities become null."""
        plain = _plain(record)
        line = json.dumps(plain, allow_nan=False, separators=(",", ":")).encode() + b"\n"
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            written = 0
            while written < len(line):
                written += os.write(self._file, line[written:])
            os.fsync(self._file)
        except BaseException:
            os.ftruncate(self._file, end)
            raise
        self.records.append(plain)

    def extend(self, identity: Mapping[str, Any]) -> None:
        """Go on with an identity that has more tasks, designs or settings of new ones; others are refused."""
        self.identity = self._settle(_plain(identity), True)

    def _settle(self, identity: dict[str, Any], extend: bool) -> dict[str, Any]:
        known = [r for r in self.records if r["kind"] == "comparison"]
        changes = differences(known[-1]["identity"], identity) if known else {}
        refused = {k: v for k, v in changes.items() if not (extend and _grows(k, *v))}
        if refused:
            raise StoreError(_refusal(self.folder, refused))
        if changes or not known:
            self.append({"kind": "comparison", "format": FORMAT, "identity": identity})
        return identity


def read(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Records of a folder, without a torn last line; nothing is changed on disk.

    Raises:
        StoreError: if there are none, or a line in the middle is damaged.
    """
    path = Path(folder) / FILE
    if not path.is_file():
        raise StoreError(f"no {FILE} in {folder}; run `reward-design compare --out {folder}` first.")
    records = [record for record, _ in _parse(path.read_bytes(), path)]
    if not records:
        raise StoreError(f"{path} has no records yet; run `reward-design compare --out {folder}` first.")
    return records


def differences(old: Any, new: Any, path: str = "") -> dict[str, tuple[Any, Any]]:
    """Leaves in which two JSON values differ: ``{dotted path: (old, new)}``, None where one has nothing.

    Example:
        >>> differences({"seeds": 20, "config": {"gamma": 0.9}}, {"seeds": 6, "config": {"gamma": 0.9}})
        {'seeds': (20, 6)}
    """
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found: dict[str, tuple[Any, Any]] = {}
        for key in [*old, *(k for k in new if k not in old)]:
            found |= differences(old.get(key), new.get(key), f"{path}.{key}" if path else str(key))
        return found
    return {} if old == new else {path: (old, new)}


# --- parts ----------------------------------------------------------------------------------------------------------


def _refusal(folder: Path, changes: Mapping[str, tuple[Any, Any]]) -> str:
    shown = [f"{name} {_short(old)} there, {_short(new)} here" for name, (old, new) in list(changes.items())[:3]]
    more = f", and {len(changes) - 3} more" if len(changes) > 3 else ""
    lists = {name.split(".")[0] for name in changes} <= {"tasks", "rewards", "config"} and {"tasks", "rewards"} & {
        *changes
    }
    extend = " --extend to add to it," if lists else ""
    return (
        f"{folder} belongs to a different configuration ({'; '.join(shown)}{more}): "
        f"use another --out,{extend} or --overwrite to replace it."
    )


def _grows(name: str, old: Any, new: Any) -> bool:
    """True for a difference that only adds tasks, designs, or the settings of a new task."""
    if name in ("tasks", "rewards"):
        return {*old} <= {*new}
    return old is None and name.startswith("config.")


def _short(value: Any) -> str:
    if isinstance(value, list):
        if len(value) > 3 and value == list(range(len(value))):
            return f"0..{value[-1]}"
        return "[" + " ".join(map(str, value[:6])) + (" ..." if len(value) > 6 else "") + "]"
    return "nothing" if value is None else str(value)


def _recover(file: int, path: Path) -> list[dict[str, Any]]:
    """Read everything, cut a torn last line off the file."""
    size = os.lseek(file, 0, os.SEEK_END)
    os.lseek(file, 0, os.SEEK_SET)
    parts: list[bytes] = []
    while sum(map(len, parts)) < size:
        parts.append(os.read(file, size))
    parsed = list(_parse(b"".join(parts), path))
    os.ftruncate(file, parsed[-1][1] if parsed else 0)
    return [record for record, _ in parsed]


def _parse(data: bytes, path: Path) -> Iterator[tuple[dict[str, Any], int]]:
    """Records and the position after each; stops before a last line without its end."""
    end = 0
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if not line.endswith(b"\n"):
            return
        try:
            record = json.loads(line)
            record["kind"]
        except (ValueError, TypeError, KeyError):
            raise StoreError(
                f"line {number} of {path} is damaged; delete that line to keep the others, or use --overwrite."
            ) from None
        end += len(line)
        yield record, end


def _plain(value: Any) -> Any:
    """JSON types only: arrays to lists of numbers with 6 significant digits, NaN and infinities to None."""
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return _plain(_rounded(value.tolist()))
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _lock(file: int, folder: Path) -> None:
    """One writer per folder, where the system has advisory locks; released when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise StoreError(f"another process is writing to {folder}; wait for it to end, or use another --out.") from None
