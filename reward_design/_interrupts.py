"""Ctrl-C and SIGTERM that reach the program wherever they arrive."""

import _thread
import contextlib
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

AGAIN = 0.01
"""Seconds until an interrupt that was lost comes again."""


@contextlib.contextmanager
def interruptible() -> Iterator[list[int]]:
    """SIGTERM raises ``KeyboardInterrupt`` as Ctrl-C does, and neither is lost.

    Where Python cannot raise, in callbacks of the garbage collector (JAX has one, which runs at any time), of weak
    references and in ``__del__``, it prints what was raised and goes on. An interrupt that arrives just there comes
    again until it gets through, and nothing is printed of it.

    Yields:
        A list that gets the number of each SIGTERM.
    """
    got: list[int] = []
    coming: list[threading.Timer] = []

    def stop(number: int, _: Any) -> None:
        got.append(number)
        raise KeyboardInterrupt

    def unraisable(lost: Any) -> None:
        if not issubclass(lost.exc_type, KeyboardInterrupt):
            return ignored(lost)
        coming.append(threading.Timer(AGAIN, _thread.interrupt_main, got[-1:]))
        coming[-1].daemon = True
        return coming[-1].start()

    ignored, before = sys.unraisablehook, None
    sys.unraisablehook = unraisable
    try:
        with contextlib.suppress(ValueError):  # only the main thread may
            before = signal.signal(signal.SIGTERM, stop)
        yield got
    finally:
        sys.unraisablehook = ignored
        for again in coming:
            again.cancel()
        if before is not None:
            signal.signal(signal.SIGTERM, before)
