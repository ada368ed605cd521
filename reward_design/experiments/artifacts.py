"""Rewards that were read from files, in records: which file, and the hash of what it held."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reward_design.core import Reward
from reward_design.experiments import designs
from reward_design.experiments.store import Store, StoreError, read
from reward_design.llm.artifact import Artifact

KIND = "artifact"
"""Of the records: ``{"kind": "artifact", "reward": label, "sha256": [...], "file": path or null}``."""


def hashes(reward: Reward) -> list[str]:
    """Hashes of the designed rewards that a reward is, or is made of, in order.

    Example:
        >>> from reward_design.llm import build_reward
        >>> text = '{"terms": [{"factor": "tilt", "shape": "tanh", "direction": "decrease", "weight": 1, "scale": 1}]}'
        >>> [len(mark) for mark in hashes(build_reward(text, "cartpole", language="terms"))]
        [64]
    """
    own = reward.settings.get("artifact")
    found = [own.sha256] if isinstance(own, Artifact) else []
    return found + [mark for child in reward.children.values() for mark in hashes(child)]


def check(folder: str | os.PathLike[str] | None, rewards: Mapping[str, Reward]) -> None:
    """Refuse rewards that came from other files than those which a folder was made with.

    Folders of versions that kept no hashes pass; what the program computes is compared in any case.

    Raises:
        StoreError: naming the reward, and what to do.
    """
    known: Mapping[str, Mapping[str, Any]] = {}
    with contextlib.suppress(StoreError):  # nothing there; or damaged, which the store reports
        known = {} if folder is None else recorded(read(folder))
    for label, reward in rewards.items():
        now, then = hashes(reward), known.get(label, {}).get("sha256")
        if then is not None and now != then:
            was, is_ = (", ".join(mark[:12] for mark in marks) or "none" for marks in (then, now))
            raise StoreError(
                f"reward {label!r} is another one than {folder} was made with (hash {was} there, {is_} here): its file "
                "was changed or replaced; put the old file back, use another --out, or --overwrite."
            )


def note(store: Store, rewards: Mapping[str, tuple[Any, Reward]]) -> None:
    """Record the hashes of designed rewards that the store does not know yet.

    Args:
        store: open.
        rewards: by label ``(design as it was given, reward)``.
    """
    known = recorded(store.records)
    for label, (design, reward) in rewards.items():
        if (marks := hashes(reward)) and label not in known:
            file = str(Path(design).resolve()) if designs.is_file(design) else None
            store.append({"kind": KIND, "reward": label, "sha256": marks, "file": file})


def recorded(records: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The artifact records by label of the reward."""
    return {r["reward"]: r for r in records if r["kind"] == KIND}
