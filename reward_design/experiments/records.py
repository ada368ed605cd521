"""The lines of a file of records: JSON with a checksum each, and what is still whole in a file that was damaged.

A line of the format 2 is an object of JSON that ends in ``"crc":"<8 digits>"``, the CRC-32 of everything before it in
the line; so a changed digit is noticed as well as a cut line. Lines of the format 1 have no checksum.
"""

import json
import os
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = "records.jsonl"
FORMAT = 2
"""Of files that are written; older ones can be read, and are migrated before anything is added to them."""
_BINARY = getattr(os, "O_BINARY", 0)
_CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"}\n\Z')


class StoreError(ValueError):
    """The output folder cannot be used as asked; the message says what to do."""


class Line(NamedTuple):
    """One line that was written to its end.

    Attributes:
        record: what it says, None if it is damaged.
        end: position in the file behind it.
    """

    record: dict[str, Any] | None
    end: int


def encoded(record: Mapping[str, Any]) -> bytes:
    r"""A record of JSON types, with at least one entry, as a line.

    Example:
        >>> encoded({"kind": "unit"})
        b'{"kind":"unit","crc":"d5ec523d"}\n'
    """
    body = json.dumps(record, allow_nan=False, separators=(",", ":")).encode()[:-1]
    return body + b',"crc":"%08x"}\n' % zlib.crc32(body)


def lines(data: bytes) -> list[Line]:
    """The lines of a file, without a last one that has no end.

    Example:
        >>> [line.record for line in lines(encoded({"kind": "unit"}) + b'{"kind":"un')]
        [{'kind': 'unit'}]
    """
    complete = re.findall(rb"[^\n]*\n", data)
    unchecked = bool(complete) and (_decoded(complete[0]) or {}).get("format") == 1
    found, end = [], 0
    for line in complete:
        end += len(line)
        found.append(Line(_decoded(line) if unchecked else _checked(line), end))
    return found


def whole(data: bytes, path: Path) -> tuple[list[dict[str, Any]], int, bool]:
    """Records up to the last one that is not damaged, the position behind it, and whether damaged ones follow there.

    Raises:
        StoreError: for a damaged line before that one, for a file without any record that is whole, and for a format
            that this version does not know.
    """
    found = lines(data)
    good = [number for number, line in enumerate(found) if line.record is not None]
    last = good[-1] if good else -1
    broken = next((number for number, line in enumerate(found) if line.record is None), None)
    if broken is not None and broken <= max(last, 0):
        raise StoreError(
            f"line {broken + 1} of {path} is damaged; delete that line to keep the others, or use --overwrite."
        )
    records = [line.record for line in found[: last + 1] if line.record is not None]
    if format_of(records) > FORMAT:
        raise StoreError(
            f"{path} has the format {format_of(records)}, this version of reward-design knows formats up to {FORMAT}; "
            "install a newer version."
        )
    return records, found[last].end if good else 0, last + 1 < len(found)


def format_of(records: Sequence[Mapping[str, Any]]) -> int:
    """The format of a file with these records; of a file without any that of new ones.

    Example:
        >>> format_of([{"kind": "comparison", "format": 1}]), format_of([])
        (1, 2)
    """
    return next((r.get("format", 1) for r in records if r["kind"] == "comparison"), FORMAT)


def opened(folder: Path) -> int:
    """The file of records, made if needed, with a lock on it.

    Raises:
        StoreError: if the folder cannot be written to, or another process is writing there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | _BINARY, 0o644)
    except (FileExistsError, NotADirectoryError) as error:
        raise StoreError(f"--out must be a folder, got the file {error.filename}; choose another --out.") from error
    except OSError as error:
        raise StoreError(
            f"cannot write to {folder} ({error.strerror}); choose another --out, or make it one that you may write to."
        ) from error
    try:
        _lock(file, folder)
    except BaseException:
        os.close(file)
        raise
    return file


def content(file: int) -> bytes:
    """All that a file holds."""
    size = os.lseek(file, 0, os.SEEK_END)
    os.lseek(file, 0, os.SEEK_SET)
    data = b""
    while len(data) < size and (part := os.read(file, size)):
        data += part
    return data


def write(file: int, data: bytes) -> None:
    """All of it, down to the disk."""
    written = 0
    while written < len(data):
        written += os.write(file, data[written:])
    os.fsync(file)


# --- parts ----------------------------------------------------------------------------------------------------------


def _checked(line: bytes) -> dict[str, Any] | None:
    match = _CHECKSUM.search(line)
    if match is None or int(match[1], 16) != zlib.crc32(line[: match.start()]):
        return None
    record = _decoded(line)
    return None if record is None else {key: value for key, value in record.items() if key != "crc"}


def _decoded(line: bytes) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
        record["kind"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return None
    return record


def _lock(file: int, folder: Path) -> None:
    """One writer per folder, where the system has advisory locks; released when the process ends, however it ends."""
    try:
        import fcntl
    except ImportError:
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        mine = os.path.samestat(os.fstat(file), os.stat(folder / FILE))
    except OSError:
        mine = False
    if not mine:
        raise StoreError(f"another process is writing to {folder}; wait for it to end, or use another --out.")
