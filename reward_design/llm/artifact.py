"""A checked reward as data: program or document, contract, source and provenance, in one file."""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from reward_design.llm.inputs import Spec
from reward_design.llm.refusal import CandidateRefused

_KIND = "reward-design reward"
FORMAT = f"{_KIND}, version 1"
MAX_FILE = 8 * 2**20


@dataclass(frozen=True, repr=False)
class Artifact:
    """What is kept of a candidate that passed all checks.

    Attributes:
        language: ``"code"`` or ``"terms"``.
        source: the text of the model, for people; it is never run again.
        task: name and settings with which :func:`reward_design.envs.task` makes the task, or None.
        used: inputs that the program reads, in order.
        specs: their shapes, dtypes and ranges.
        terms: names of the components, in order.
        remainder: whether the components do not add up to the reward, so that a term ``remainder`` does the rest.
        memory: dtype, shape and data of the arrays of the memory on the first step.
        program: the exported program (StableHLO with its derivative); empty for ``terms``.
        provenance: versions, isolation reached, range of the rewards in the smoke test, and what a designer adds.
    """

    language: str
    source: str
    task: tuple[str, dict[str, Any]] | None
    used: tuple[str, ...] = ()
    specs: Mapping[str, Spec] = field(default_factory=dict)
    terms: tuple[str, ...] = ()
    remainder: bool = False
    memory: tuple[Mapping[str, Any], ...] = ()
    program: bytes = b""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return f"<{self.language} {self.sha256[:12]}>"

    @property
    def sha256(self) -> str:
        """Hash of all that decides what the reward pays, and of the source."""
        return _digest(self._content())

    def to_text(self) -> str:
        """As the text of a file."""
        content = self._content()
        return json.dumps({"format": FORMAT, "sha256": _digest(content), **content}, indent=1, sort_keys=True) + "\n"

    def _content(self) -> dict[str, Any]:
        return {
            "language": self.language,
            "source": self.source,
            "task": list(self.task) if self.task else None,
            "used": list(self.used),
            "specs": dict(self.specs),
            "terms": list(self.terms),
            "remainder": self.remainder,
            "memory": [dict(part) for part in self.memory],
            "program": base64.b64encode(self.program).decode(),
            "provenance": dict(self.provenance),
        }


def from_text(text: str) -> Artifact:
    """The artifact in the text of a file. Its program is not looked at; :mod:`reward_design.llm.verify` does that.

    Raises:
        CandidateRefused: at stage ``artifact``, if it is not one, or was changed.
    """
    try:
        content = json.loads(text)
        written = content.pop("format")
        if written != FORMAT and str(written).startswith(_KIND):
            raise _refused(
                f"the file is a {written}, and this version of the package reads {FORMAT}; build the reward anew with "
                "build_reward from the entry 'source' of the file, and save it."
            )
        if written != FORMAT:
            raise _refused(f"the file is not a {FORMAT}; save it with save_reward.")
        claimed = content.pop("sha256")
        if claimed != _digest(content):
            raise _refused("the file was changed after it was saved (its hash differs); take an untouched copy.")
        return _artifact(content)
    except CandidateRefused:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _refused(f"the file is not a saved reward ({type(error).__name__}); save one with save_reward.") from None


def _artifact(content: dict[str, Any]) -> Artifact:
    task = content["task"]
    if not isinstance(content["source"], str) or content["language"] not in ("code", "terms"):
        raise _refused("the file has no source in a known language; save it again with save_reward.")
    return Artifact(
        language=content["language"], source=content["source"], task=(str(task[0]), dict(task[1])) if task else None,
        used=tuple(content["used"]), specs=dict(content["specs"]), terms=tuple(content["terms"]),
        remainder=bool(content["remainder"]), memory=tuple(dict(part) for part in content["memory"]),
        program=base64.b64decode(content["program"], validate=True), provenance=dict(content["provenance"]),
    )  # fmt: skip


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _refused(reason: str) -> CandidateRefused:
    return CandidateRefused("artifact", reason)
