"""Processes forked after JAX had started: its threads are not in them, and what it compiles there waits for ever."""

import os

from jax._src import xla_bridge  # its documented interface cannot tell without starting JAX

_started_in: int | None = None
"""The first process that had started JAX when it forked."""


def forked() -> bool:
    """Whether JAX would hang in this process."""
    return _started_in is not None and _started_in != os.getpid()


def refuse_forked() -> None:
    """Refuse to use JAX where it would hang.

    Raises:
        RuntimeError: in a process that was forked after JAX had started.
    """
    if forked():
        raise RuntimeError(
            "this process was forked after JAX had started, where JAX would hang; start the processes with "
            "AsyncVectorEnv(..., context='forkserver') or SubprocVecEnv(..., start_method='forkserver'), or 'spawn'."
        )


def _remember() -> None:
    global _started_in
    if _started_in is None and xla_bridge.backends_are_initialized():
        _started_in = os.getpid()


if hasattr(os, "register_at_fork"):  # not on Windows, which cannot fork
    os.register_at_fork(before=_remember)
