"""Results on disk: one folder, one file ``records.jsonl``, one JSON object per line, appended whole or not at all.

The file is the only source of truth. It survives a kill at any moment (a torn last line is dropped on the next start),
a full disk (a line that did not fit is taken back), damage to its last records (they have checksums; what is damaged is
set aside and computed again), and a second process that wants the same folder (refused).
"""

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from reward_design.experiments.records import (
    FILE,
    FORMAT,
    StoreError,
    content,
    encoded,
    format_of,
    opened,
    whole,
    write,
)

REPORT = "report.html"
DAMAGED = "records.damaged"
"""File beside the records that gets the bytes of damaged last records."""


class Store:
    """Append-only records of one comparison.

    Args:
        folder: made if needed.
        identity: what makes this comparison another one: agent, settings, seeds, tasks, rewards. A folder with a
            different identity is refused. A function gets the records that are there.
        overwrite: delete the records of another comparison instead.
        extend: accept a folder that lacks some of ``tasks`` and ``rewards``, and add to it.

    Raises:
        StoreError: if the folder belongs to another comparison or to another process, cannot be written to, has records
            in an older format, or is damaged before its last records.

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
        self._file = opened(self.folder)
        try:
            if overwrite:
                os.ftruncate(self._file, 0)
                (self.folder / REPORT).unlink(missing_ok=True)
            self.records = _recover(self._file, self.folder)
            wanted = identity(self.records) if callable(identity) else identity
            self.identity = self._settle(plain(wanted), extend)
        except BaseException:
            os.close(self._file)
            raise

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *_: Any) -> None:
        os.close(self._file)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record, whole or not at all, and keep it in :attr:`records`. NaN and infinities become null.

        Raises:
            StoreError: if it does not fit on the disk.
        """
        kept = plain(record)
        line = encoded(kept)
        end = os.lseek(self._file, 0, os.SEEK_END)
        try:
            write(self._file, line)
        except BaseException as error:
            os.ftruncate(self._file, end)
            if isinstance(error, OSError):
                raise StoreError(
                    f"a record could not be written to {self.folder} ({error.strerror}); what was finished before is "
                    "kept: make room there and run the same command again."
                ) from error
            raise
        self.records.append(kept)

    def extend(self, identity: Mapping[str, Any]) -> None:
        """Go on with an identity that has more tasks, designs or settings of new ones; others are refused."""
        self.identity = self._settle(plain(identity), True)

    def _settle(self, identity: dict[str, Any], extend: bool) -> dict[str, Any]:
        known = [r for r in self.records if r["kind"] == "comparison"]
        changes = checked(self.folder, known[-1]["identity"], identity, extend=extend) if known else {}
        if changes or not known:
            self.append({"kind": "comparison", "format": FORMAT, "identity": identity})
        return identity


def checked(
    folder: str | os.PathLike[str], old: Mapping[str, Any], new: Mapping[str, Any], *, extend: bool = False
) -> dict[str, tuple[Any, Any]]:
    """:func:`differences` of the identity that a folder has and the one that is wanted.

    Args:
        folder: for the message.
        old: what is there.
        new: what is wanted.
        extend: whether more tasks, designs, or settings of new ones are welcome.

    Raises:
        StoreError: for others, with what can be done.
    """
    changes = differences(old, new)
    refused = {k: v for k, v in changes.items() if not (extend and _grows(k, *v))}
    if refused:
        raise StoreError(_refusal(Path(folder), refused))
    return changes


def read(folder: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Records of a folder, without a torn last line; nothing is changed on disk.

    Raises:
        StoreError: if there are none, or a line in the middle is damaged.
    """
    path = Path(folder) / FILE
    if Path(folder).is_file():
        raise StoreError(f"expected a folder with results, got the file {folder}; name the folder that it lies in.")
    if not path.is_file():
        if below := folders_below(folder):
            raise StoreError(
                f"no {FILE} in {folder}, but in {len(below)} folders below it, as a suite has them: name one of those, "
                f"as {Path(folder) / below[0]}, or the suite with --suite where the command has that."
            )
        raise StoreError(f"no {FILE} in {folder}; run `reward-design compare --out {folder}` first.")
    records, _, damaged = whole(path.read_bytes(), path)
    if damaged:
        raise StoreError(
            f"line {len(records) + 1} of {path} is damaged; run the command that wrote it again to compute that once "
            "more, or delete the line to do without."
        )
    if not records:
        raise StoreError(f"{path} has no records yet; run `reward-design compare --out {folder}` first.")
    return records


def folders_below(folder: str | os.PathLike[str]) -> list[str]:
    """Paths of the folders with records one or two below a folder without, as ``block/task`` of a suite."""
    if (Path(folder) / FILE).is_file():
        return []
    found = [path for depth in ("*", "*/*") for path in Path(folder).glob(f"{depth}/{FILE}")]
    return sorted(path.parent.relative_to(folder).as_posix() for path in found)


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


def _recover(file: int, folder: Path) -> list[dict[str, Any]]:
    """Read everything, cut a torn last line off the file, and set damaged last lines aside."""
    data, path = content(file), folder / FILE
    records, end, damaged = whole(data, path)
    if format_of(records) < FORMAT:
        raise StoreError(
            f"{path} has the format {format_of(records)}, this version of reward-design writes {FORMAT}: run "
            f"`reward-design migrate {folder}` once to add to it."
        )
    if damaged:
        with (folder / DAMAGED).open("ab") as aside:
            aside.write(data[end:])
    os.ftruncate(file, end)
    return records


def plain(value: Any) -> Any:
    """JSON types only: arrays to lists of numbers with 6 significant digits, NaN and infinities to None."""
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if hasattr(value, "tolist"):
        return plain(_rounded(value.tolist()))
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if callable(value):
        return f"{value.__module__}.{getattr(value, '__qualname__', type(value).__qualname__)}"
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(v) for v in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
