"""Where requests run: an event loop in a thread of its own, which also works where a loop runs already (notebooks)."""

import asyncio
import os
import queue
import threading
from collections.abc import Callable, Coroutine
from typing import Any

_LOOPS: dict[int, asyncio.AbstractEventLoop] = {}
_LOCK = threading.Lock()


def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine to its end; an interrupt of the caller cancels it."""
    future = asyncio.run_coroutine_threadsafe(coroutine, _loop())
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


async def in_thread(fn: Callable[[], Any]) -> Any:
    """The result of a function of the user; a call that is given up goes on in a thread that keeps nobody waiting."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    result: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def work() -> None:
        try:
            result.put((True, fn()))
        except BaseException as error:
            result.put((False, error))
        loop.call_soon_threadsafe(done.set)

    threading.Thread(target=work, name="model of the user", daemon=True).start()
    await done.wait()
    good, value = result.get()
    if not good:
        raise value
    return value


def _loop() -> asyncio.AbstractEventLoop:
    """The loop of this process; a fork does not take threads with it."""
    with _LOCK:
        if os.getpid() not in _LOOPS:
            _LOOPS.clear()
            loop = _LOOPS[os.getpid()] = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="requests", daemon=True).start()
        return _LOOPS[os.getpid()]
