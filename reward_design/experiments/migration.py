"""Records that an older version of this package has written, brought into the format of this one."""

import contextlib
import os
import shutil
from pathlib import Path

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


def migrate(folder: str | os.PathLike[str]) -> list[Path]:
    """Bring all records in a folder and below it, as of a suite, into the format of this version.

    Each file is replaced whole or not at all; what it was lies beside it as ``records.format<n>.jsonl``.

    Args:
        folder: that some command has written with ``--out``.

    Returns:
        The files that were in an older format.

    Raises:
        StoreError: if there are no records, another process is writing them, they are damaged or of a newer
            version, or what is new does not fit on the disk.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> _ = (folder / FILE).write_text('{"kind":"comparison","format":1,"identity":{}}' + chr(10))
        >>> [path.name for path in migrate(folder)], migrate(folder)
        (['records.jsonl'], [])
    """
    paths = sorted(Path(folder).rglob(FILE))
    if not paths:
        raise StoreError(f"no {FILE} in {folder} or below it; name a folder that was given as --out.")
    return [path for path in paths if _migrated(path)]


def _migrated(path: Path) -> bool:
    file = opened(path.parent)
    try:
        records, _, damaged = whole(content(file), path)
        old = format_of(records)
        if old == FORMAT:
            return False
        if damaged:
            raise StoreError(f"line {len(records) + 1} of {path} is damaged; delete the line to do without.")
        now = [r | {"format": FORMAT} if r["kind"] == "comparison" else r for r in records]
        _replace(path, path.with_name(f"records.format{old}.jsonl"), b"".join(map(encoded, now)))
        return True
    finally:
        os.close(file)


def _replace(path: Path, copy: Path, data: bytes) -> None:
    """Put other data in a file, whole or not at all, and what it held beside it."""
    new = path.with_name(f"{FILE}.part")
    try:
        shutil.copyfile(path, copy)
        with new.open("wb", buffering=0) as target:
            write(target.fileno(), data)
        new.replace(path)
    except OSError as error:
        for rest in (new, copy):
            with contextlib.suppress(OSError):
                rest.unlink(missing_ok=True)
        raise StoreError(
            f"{path} could not be migrated ({error.strerror}) and is as it was: make room there, and run the same "
            "command again."
        ) from error
