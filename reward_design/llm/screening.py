"""A first reading of programs in a process of its own, so that bytes which crash the parser crash only that.

The parsers of serialised programs are native code: a few single flipped bytes end the process that reads them. One
walled worker that never sees a candidate's Python therefore reads every program before the trainer does.
"""

import atexit
import base64
import threading
from typing import Any

from reward_design.llm.refusal import CandidateRefused
from reward_design.llm.supervisor import Worker

TIME_LIMIT = 60.0
"""Seconds for reading and verifying one program."""
_LIFETIME = 10.0**6
_lock = threading.Lock()
_reader: Worker | None = None
_started = False


def prepare() -> None:
    """Start the reader, if there is none, without waiting for it."""
    with _lock:
        _running()


def screened(data: bytes, inputs: Any, outputs: Any) -> None:
    """Read, verify, compile and run a program once in the reader.

    Args:
        data: the serialised program.
        inputs: shape and dtype of each array that it takes, as for :func:`reward_design.llm.verify.verified`.
        outputs: the same of each array that it returns.

    Raises:
        CandidateRefused: at stage ``verify``, also if the reader crashed or took too long.
    """
    global _started
    job = {"program": base64.b64encode(data).decode(), "inputs": inputs, "outputs": outputs}
    with _lock:
        reader = _running()
        try:
            if not _started:
                reader.start()
                _started = True
            answer = reader.ask(job, TIME_LIMIT)
        except CandidateRefused as refused:
            if refused.stage == "verify":
                raise
            close()
            reason = f"reading the program ended its process ({refused.reason.partition(';')[0]}); build it again."
            raise CandidateRefused("verify", reason) from None
    if answer != {"verified": True}:
        raise CandidateRefused("verify", "the reader of programs gave no clear answer; build it again.")


def close() -> None:
    """End the reader; the next program starts a new one."""
    global _reader, _started
    if _reader is not None:
        _reader.__exit__(None, None, None)
    _reader, _started = None, False


def _running() -> Worker:
    global _reader
    if _reader is not None and _reader.process is not None and _reader.process.poll() is not None:
        close()
    if _reader is None:
        # Linux signals the death of the thread that started a process, and this process outlives threads; it ends when
        # its pipe closes, or when it sees that it has another parent.
        _reader = Worker(time_limit=_LIFETIME, skip=("dies_with_parent",)).__enter__()
    return _reader


atexit.register(close)
