"""Checkpoints with orbax: agent, optimiser, reward state, environment lanes and random key in one, resumed exactly."""

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

SUMS = "sha256.json"
"""File in the folder of a checkpoint with the hashes of all others."""
_FILES = 200_000  # bytes of a checkpoint beside its arrays


class Saved(NamedTuple):
    """The newest checkpoint of a folder: whose it is, and the number of updates done."""

    identity: dict[str, Any]
    step: int


def save(folder: str | os.PathLike[str], state: Any, *, step: int, identity: Mapping[str, Any]) -> None:
    """Write the state atomically; the two newest checkpoints are kept.

    Args:
        folder: where the checkpoints of this run live.
        state: any agent state, with or without a seed axis.
        step: updates done, the name of the checkpoint.
        identity: what the run is (task, reward, config), as JSON values; :func:`restore` refuses another one.

    Raises:
        ValueError: if it could not be written, for example because the disk is full.
    """
    args = ocp.args.Composite(state=ocp.args.StandardSave(_unwrap(state)), identity=ocp.args.JsonSave(dict(identity)))
    try:
        _check_room(Path(folder), size(state))  # first, as orbax meets a full disk with pages of what its threads saw
        with _manager(folder) as manager:
            manager.save(step, args=args, force=True)
        _write_sums(Path(folder) / str(step))
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ValueError(
            f"the checkpoint {Path(folder) / str(step)} could not be written ({reason}); earlier ones are kept: make "
            "room there if the disk is full, and run the same command again."
        ) from error


def size(state: Any) -> int:
    """Bytes that a checkpoint of a state takes, at most: its arrays, and the files that describe them.

    Args:
        state: arrays or their shapes.
    """
    return _FILES + sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(jax.eval_shape(_unwrap, state)))


def restore(folder: str | os.PathLike[str], like: Any, *, identity: Mapping[str, Any]) -> tuple[Any, int] | None:
    """Read the newest checkpoint.

    Args:
        folder: where the checkpoints of this run live.
        like: a state of the same structure, shapes and devices, such as a fresh ``init``.
        identity: must equal what was saved.

    Returns:
        The state and the number of updates done, or None where there is no checkpoint.

    Raises:
        ValueError: if the folder belongs to another run (names what differs), or the checkpoint is damaged.
    """
    saved = newest(folder)
    if saved is None:
        return None
    differs = sorted(k for k in {*saved.identity, *identity} if saved.identity.get(k) != identity.get(k))
    if differs:
        was = ", ".join(f"{k} = {saved.identity.get(k)!r} (now {identity.get(k)!r})" for k in differs)
        raise ValueError(f"the checkpoint in {folder} belongs to another run: {was}; choose another folder.")
    abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _unwrap(like))
    return _rewrap(_read(folder, saved.step, "state", ocp.args.StandardRestore(abstract)), like), saved.step


def newest(folder: str | os.PathLike[str]) -> Saved | None:
    """Whose the newest checkpoint is, or None where there is no checkpoint.

    Raises:
        ValueError: if it is damaged.
    """
    if not Path(folder).is_dir():
        return None
    with _manager(folder, create=False) as manager:
        step = manager.latest_step()
    if step is None:
        return None
    _check_sums(Path(folder) / str(step))
    return Saved(_read(folder, step, "identity", ocp.args.JsonRestore()), step)


def restore_part(folder: str | os.PathLike[str], like: Mapping[str, Any]) -> dict[str, Any]:
    """Some fields of the state in the newest checkpoint, as NumPy arrays.

    Args:
        folder: where the checkpoints live.
        like: the fields by name, with arrays or shapes in the structure that was saved.

    Returns:
        The fields.

    Raises:
        ValueError: if there is no checkpoint, it is damaged, or what it holds has another structure.
    """
    saved = newest(folder)
    if saved is None:
        raise ValueError(f"there is no checkpoint in {folder}.")
    shapes = jax.eval_shape(_unwrap, dict(like))
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), shapes)
    part = ocp.args.PyTreeRestore(item=shapes, restore_args=as_numpy, partial_restore=True)
    found = _read(folder, saved.step, "state", part)
    for (path, wanted), leaf in zip(jax.tree_util.tree_leaves_with_path(shapes), jax.tree.leaves(found), strict=True):
        where = jax.tree_util.keystr(path, simple=True, separator=".")
        has = f"{leaf.dtype}{list(leaf.shape)}" if isinstance(leaf, np.ndarray) else "nothing"
        if has != f"{wanted.dtype}{list(wanted.shape)}":
            raise ValueError(
                f"the checkpoint in {folder} has {has} where {wanted.dtype}{list(wanted.shape)} was expected, in "
                f"{where}; the environment or the settings have changed."
            )
    return _rewrap(found, dict(like))


def _read(folder: str | os.PathLike[str], step: int, item: str, args: Any) -> Any:
    with _manager(folder, create=False) as manager:
        try:
            return manager.restore(step, args=ocp.args.Composite(**{item: args}))[item]
        except Exception as error:
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ValueError(
                f"the checkpoint {Path(folder) / str(step)} does not fit ({lines[0][:160]}); it is damaged, or the "
                "environment, the settings or a library have changed."
            ) from error


def _check_room(folder: Path, needed: int) -> None:
    place = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    free = shutil.disk_usage(place).free
    if free < needed:
        raise OSError(f"it may take {needed / 1e3:,.0f} kB, {free / 1e3:,.0f} kB are free")


def _write_sums(place: Path) -> None:
    """A hash of every file beside them, once all are in place."""
    sums = {path.relative_to(place).as_posix(): _hash(path) for path in _files(place)}
    new = place / f"{SUMS}.new"
    new.write_text(json.dumps(sums, indent=1))
    new.replace(place / SUMS)


def _check_sums(place: Path) -> None:
    """Refuse files that are not what was written; a run that was killed before the hashes has none to check."""
    if not (place / SUMS).is_file():
        return
    try:
        sums = json.loads((place / SUMS).read_text())
        wrong = [name for name, known in sums.items() if not (place / name).is_file() or _hash(place / name) != known]
    except (ValueError, AttributeError):
        wrong = [SUMS]
    if wrong:
        raise ValueError(
            f"the checkpoint {place} is damaged: {wrong[0]} is not what was written; delete that folder to use an "
            "older checkpoint, if there is one."
        )


def _files(place: Path) -> list[Path]:
    return sorted(path for path in place.rglob("*") if path.is_file() and not path.name.startswith(SUMS))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manager(folder: str | os.PathLike[str], *, create: bool = True) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, create=create, enable_async_checkpointing=False)
    return ocp.CheckpointManager(Path(folder).absolute(), options=options)


def _unwrap(state: Any) -> Any:
    """Typed random keys as their raw words."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _rewrap(raw: Any, like: Any) -> Any:

    def wrap(x: Any, ref: Any) -> Any:
        if not _is_key(ref):
            return x
        return jax.random.wrap_key_data(x, impl=jax.random.key_impl(ref) if isinstance(ref, jax.Array) else None)

    return jax.tree.unflatten(jax.tree.structure(like), map(wrap, jax.tree.leaves(raw), jax.tree.leaves(like)))


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
