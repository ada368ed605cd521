"""Designed rewards as files: one file per reward, read back without running anything in it."""

import os
from pathlib import Path

from reward_design.core import Reward
from reward_design.envs.base import Task
from reward_design.llm.artifact import MAX_FILE, from_text
from reward_design.llm.build import artifact_of, reward_of
from reward_design.llm.describe import named_task
from reward_design.llm.refusal import CandidateRefused

SUFFIX = ".reward"
"""How the files end; commands take a name that ends so for a file."""


def save_reward(path: str | os.PathLike[str], reward: Reward) -> Path:
    """Write a reward of :func:`build_reward` to one file: program or document, contract, source, hash, provenance.

    The file appears whole or not at all.

    Args:
        path: where; ``.reward`` is added if it ends in something else.
        reward: from :func:`build_reward`, :func:`check_many` or :func:`load_reward`.

    Returns:
        The path written.

    Raises:
        TypeError: for a reward that was made in another way.

    Example:
        >>> import tempfile
        >>> from reward_design.llm import build_reward, load_reward
        >>> text = '{"terms": [{"factor": "tilt", "shape": "tanh", "direction": "decrease", "weight": 1, "scale": 1}]}'
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = save_reward(folder + "/upright", build_reward(text, "cartpole", language="terms"))
        ...     path.name, list(load_reward(path).settings["weights"])
        ('upright.reward', ['tilt'])
    """
    path = Path(path)
    path = path if path.suffix == SUFFIX else path.with_name(path.name + SUFFIX)
    text = artifact_of(reward).to_text()
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(text, encoding="utf-8")
    os.replace(partial, path)
    return path


def load_reward(path: str | os.PathLike[str], task: Task | str | None = None) -> Reward:
    """A reward from a file. Its hash is compared, its program verified anew; its source is never run.

    Args:
        path: written by :func:`save_reward`.
        task: the task to use it on, or its name; by default the one that it was made for.

    Returns:
        The same :class:`Reward`.

    Raises:
        CandidateRefused: at stage ``artifact``, if the file is not a saved reward, was changed, or is for other inputs
            than the task has; at stage ``verify``, if its program is not what rewards consist of.
        FileNotFoundError: if there is no such file.

    Example:
        >>> load_reward("README.md")
        Traceback (most recent call last):
        reward_design.llm.refusal.CandidateRefused: refused at stage 'artifact': the file is not a saved reward ...
    """
    with open(path, "rb") as file:
        data = file.read(MAX_FILE + 1)
    if len(data) > MAX_FILE:
        raise CandidateRefused("artifact", f"the file has more than {MAX_FILE} bytes; it is not a saved reward.")
    try:
        artifact = from_text(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise CandidateRefused("artifact", "the file is not text; save rewards with save_reward.") from None
    return reward_of(artifact, None if task is None else named_task(task))
