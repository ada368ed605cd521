"""Designed rewards as files: one file per reward, read back without running anything in it."""

import os
from pathlib import Path

import jax

from reward_design._names import suggestion
from reward_design.core import Reward
from reward_design.envs.base import Task
from reward_design.llm.artifact import MAX_FILE, Artifact, from_text
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
            than the task has; at stage ``terms``, if it names factors that the task does not have; at stage
            ``verify``, if its program is not what rewards consist of. The reason begins with the file.
        FileNotFoundError: if there is no such file, with the nearest name.
        IsADirectoryError: for a folder.

    Example:
        >>> load_reward("README.md")
        Traceback (most recent call last):
        reward_design.llm.refusal.CandidateRefused: refused at stage 'artifact': 'README.md': the file is not a ...
    """
    wanted, name, artifact = None if task is None else named_task(task), repr(os.fspath(path)), None
    try:
        artifact = _read(Path(path))
        if wanted is not None and artifact.task is not None and artifact.task[0] != wanted.name:
            name = f"{name}, which was made for task {artifact.task[0]!r}"
        return reward_of(artifact, wanted)
    except CandidateRefused as refused:
        raise CandidateRefused(refused.stage, f"{name}: {refused.reason}{_age(artifact, refused)}") from None


# --- parts ----------------------------------------------------------------------------------------------------------


def _age(artifact: Artifact | None, refused: CandidateRefused) -> str:
    """What to do about a program that another version of JAX wrote and this one does not accept."""
    versions = {} if artifact is None else artifact.provenance.get("versions", {})
    then = versions.get("jax", "") if isinstance(versions, dict) else ""
    if refused.stage != "verify" or then in ("", jax.__version__):
        return ""
    return f" It was built with JAX {then}, and here is {jax.__version__}: build it anew from its entry 'source'."


def _read(path: Path) -> Artifact:
    """What is in a file.

    Raises:
        CandidateRefused: at stage ``artifact``.
        FileNotFoundError: if there is no such file.
        IsADirectoryError: for a folder.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except FileNotFoundError:
        there = [found.name for found in path.parent.glob(f"*{SUFFIX}")]
        near = suggestion(path.name, there)
        raise FileNotFoundError(
            f"there is no reward file {str(path)!r}{near if near != '.' else '; save_reward writes one.'}"
        ) from None
    except IsADirectoryError:
        raise IsADirectoryError(f"{str(path)!r} is a folder; give the file of a reward in it.") from None
    if len(data) > MAX_FILE:
        raise CandidateRefused("artifact", f"the file has more than {MAX_FILE} bytes; it is not a saved reward.")
    try:
        return from_text(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise CandidateRefused("artifact", "the file is not text; save rewards with save_reward.") from None
