"""Answers of language models on disk, so that a run can be repeated, resumed and shared without asking again."""

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

FORMAT = 1
"""Version of the files; entries of another one are not found."""


class Cache:
    """One readable JSON file per answer, called by the hash of what was asked.

    The key has everything that decides what a model may answer, and nothing else: its name (with the hash of the file,
    for local models), messages, sampling settings, schema, version of the template, number of the sample. It has no
    address, no header and no key of the service; the same holds for the files.

    Files appear whole or not at all, and may be read and written by many processes at once. A file that cannot be read,
    or that answers another question than its name says, counts as absent and is overwritten.

    Args:
        folder: made when the first entry is written.

    Raises:
        ValueError: for a file in place of the folder: no answer that was paid for could be kept.

    Example:
        >>> import tempfile
        >>> cache = Cache(tempfile.mkdtemp())
        >>> cache.put({"model": "m", "sample": 0}, {"text": "hello"})
        >>> cache.get({"model": "m", "sample": 0}), cache.get({"model": "m", "sample": 1})
        ({'text': 'hello'}, None)
    """

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        if self.folder.exists() and not self.folder.is_dir():
            raise ValueError(
                f"the cache of answers must be a folder, got the file {str(folder)!r}; give another place."
            )

    def path(self, request: Mapping[str, Any]) -> Path:
        """The file of a request."""
        return self.folder / f"{key(request)}.json"

    def get(self, request: Mapping[str, Any]) -> dict[str, Any] | None:
        """The entry of a request, None if there is none."""
        try:
            entry = json.loads(self.path(request).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(entry, dict) or not isinstance(entry.get("result"), dict):
            return None
        known = entry.get("format") == FORMAT and entry.get("request") == _plain(request)
        return entry["result"] if known else None

    def put(self, request: Mapping[str, Any], result: Mapping[str, Any]) -> None:
        """Write the entry of a request, in the place of one that there may be."""
        self.folder.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "request": request, "result": result}, indent=1, ensure_ascii=False)
        number, name = tempfile.mkstemp(dir=self.folder, suffix=".part")
        try:
            with os.fdopen(number, "w", encoding="utf-8") as file:
                file.write(text + "\n")
            os.replace(name, self.path(request))
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def key(request: Mapping[str, Any]) -> str:
    """Hash of a request: SHA-256 of its canonical JSON.

    Example:
        >>> key({"a": 1, "b": 2.0}) == key({"b": 2.0, "a": 1}) != key({"a": 1, "b": 3.0})
        True
    """
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(request: Mapping[str, Any]) -> Any:
    """The request as JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(request))
