"""What a person answered, in a file of JSON lines: a first one that says about what, then one for every answer."""

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

ANSWERS = {"first": 1.0, "second": 0.0, "equal": 0.5, "skip": None}
"""What a person can say, and the preference it stands for."""


class Question(NamedTuple):
    """A pair of clips to compare.

    Attributes:
        number: of the question, from 0.
        first: index of the clip on the left.
        second: index of the clip on the right.
    """

    number: int
    first: int
    second: int


@dataclass(frozen=True)
class Given:
    """An answer: clips ``first`` and ``second``, which is better, after how many seconds, and words about each clip."""

    first: int
    second: int
    answer: str
    seconds: float
    words: tuple[str, str] = ("", "")


class AnswerFile:
    """A file of answers, each on the disk when :meth:`add` returns; a crash in mid-write costs the last one at most.

    Args:
        path: of the file; its folder is made if needed.
        mark: what tells these clips and questions from others.
        questions: in the order in which they are asked.

    Attributes:
        found: answers that were there.

    Raises:
        ValueError: for a path that cannot be written to, a file about other clips, or a damaged one.
    """

    def __init__(self, path: str | os.PathLike[str], mark: str, questions: Sequence[Question]) -> None:
        self.path, self._mark, self._questions = Path(path), mark, questions
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if self.path.exists() and not self.path.is_file():
                raise ValueError(f"out must be a file for the answers, got {self.path}, which is none; name another.")
            with self.path.open("ab"):
                data = self.path.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot write answers to {self.path} ({error.strerror}); give another out=.") from error
        self.found = self._read(data)
        if data and not data.endswith(b"\n"):
            self.rewrite(self.found)

    def add(self, given: Sequence[Given]) -> None:
        """Write the last of all answers, whole or not at all.

        Raises:
            OSError: if it does not fit on the disk.
        """
        if not self.path.exists() or not self.path.stat().st_size:  # new, or somebody took it away
            self.rewrite(given)
            return
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            line = _line(vars(given[-1]))
            try:
                if file.write(line) != len(line):
                    raise OSError(f"{self.path} takes no more; make room there.")
                os.fsync(file.fileno())
            except BaseException:
                with contextlib.suppress(OSError):
                    file.truncate(end)
                raise

    def rewrite(self, given: Sequence[Given]) -> None:
        """Put these answers in the place of all that are there, in one step.

        Raises:
            OSError: if they do not fit on the disk; what was there stays.
        """
        path = Path(os.path.realpath(self.path))
        beside = path.with_name(f"{path.name}.{os.getpid()}.new")
        try:
            with beside.open("wb") as file:
                file.write(_line({"clips": self._mark}) + b"".join(_line(vars(one)) for one in given))
                file.flush()
                os.fsync(file.fileno())
            os.replace(beside, path)
        finally:
            beside.unlink(missing_ok=True)

    def _read(self, data: bytes) -> list[Given]:
        """The answers of a file, without a torn last line."""
        if _line({"clips": self._mark}).startswith(data):
            return []
        head, *lines = data.split(b"\n")
        mark = _decoded(head).get("clips")
        if not isinstance(mark, str):
            raise ValueError(f"line 1 of {self.path} is not that of a file of answers; give another out=.")
        if mark != self._mark:
            raise ValueError(f"{self.path} holds answers about other clips or questions; give another file.")
        found: list[Given] = []
        for number, line in enumerate(lines):
            torn = number == len(lines) - 1
            one = self._answer(line, number)
            if one is not None:
                found.append(one)
            elif not torn:
                raise ValueError(
                    f"line {number + 2} of {self.path} is no answer to question {number}; delete it and all lines "
                    "below it to go on from there, or give another out=."
                )
        return found

    def _answer(self, line: bytes, number: int) -> Given | None:
        said = _decoded(line)
        try:
            _, first, second = self._questions[number]
            one, two = said.get("words", ("", ""))
            given = Given(first, second, said["answer"], float(said["seconds"]), (str(one), str(two)))
            fits = [said["first"], said["second"]] == [first, second] and given.answer in ANSWERS
        except (IndexError, KeyError, TypeError, ValueError):
            return None
        return given if fits else None


def checked_words(words: Any) -> tuple[str, str]:
    """Words about two clips.

    Raises:
        ValueError: for anything but two texts.
    """
    if isinstance(words, (list, tuple)) and len(words) == 2 and all(isinstance(text, str) for text in words):
        return words[0], words[1]
    raise ValueError(f"words must be two texts, about the first and about the second clip, got {words!r}.")


def _line(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content).encode() + b"\n"


def _decoded(line: bytes) -> dict[str, Any]:
    """An object of JSON; empty for anything else."""
    try:
        content = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
