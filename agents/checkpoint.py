"""Checkpoints with orbax: agent, optimiser, reward state, environment lanes and random key in one, resumed exactly."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp


def save(folder: str | os.PathLike[str], state: Any, *, step: int, identity: Mapping[str, Any]) -> None:
    """Write the state atomically; the two newest checkpoints are kept.

    Args:
        folder: where the checkpoints of this run live.
        state: any agent state, with or without a seed axis.
        step: updates done, the name of the checkpoint.
        identity: what the run is (task, reward, config), as JSON values; :func:`restore` refuses another one.
    """
    with _manager(folder) as manager:
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(_unwrap(state)), identity=ocp.args.JsonSave(dict(identity))
        )
        manager.save(step, args=args, force=True)


def restore(folder: str | os.PathLike[str], like: Any, *, identity: Mapping[str, Any]) -> tuple[Any, int] | None:
    """Read the newest checkpoint.

    Args:
        folder: where the checkpoints of this run live.
        like: a state of the same structure, shapes and devices, such as a fresh ``init``.
        identity: must equal what was saved.

    Returns:
        The state and the number of updates done, or None where there is no checkpoint.

    Raises:
        ValueError: if the folder belongs to another run; names what differs.
    """
    if not Path(folder).is_dir():
        return None
    with _manager(folder) as manager:
        step = manager.latest_step()
        if step is None:
            return None
        saved = manager.restore(step, args=ocp.args.Composite(identity=ocp.args.JsonRestore()))["identity"]
        differs = sorted(k for k in {*saved, *identity} if saved.get(k) != identity.get(k))
        if differs:
            was = ", ".join(f"{k} = {saved.get(k)!r} (now {identity.get(k)!r})" for k in differs)
            raise ValueError(f"the checkpoint in {folder} belongs to another run: {was}; choose another folder.")
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, _unwrap(like))
        state = manager.restore(step, args=ocp.args.Composite(state=ocp.args.StandardRestore(abstract)))["state"]
    return _rewrap(state, like), step


def _manager(folder: str | os.PathLike[str]) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
    return ocp.CheckpointManager(Path(folder).absolute(), options=options)


def _unwrap(state: Any) -> Any:
    """Typed random keys as their raw words."""
    return jax.tree.map(lambda x: jax.random.key_data(x) if _is_key(x) else x, state)


def _rewrap(raw: Any, like: Any) -> Any:
    wrap = lambda x, ref: jax.random.wrap_key_data(x, impl=jax.random.key_impl(ref)) if _is_key(ref) else x  # noqa: E731
    return jax.tree.unflatten(jax.tree.structure(like), map(wrap, jax.tree.leaves(raw), jax.tree.leaves(like)))


def _is_key(x: Any) -> bool:
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
