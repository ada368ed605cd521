"""Walls around the worker, built by the worker itself: what a platform offers is found out, used, and then tried.

Linux: namespaces, Landlock, seccomp and resource limits through ctypes, without rights of an administrator. Elsewhere
(macOS, old kernels): a process of its own with resource limits, which is :attr:`Isolation.PROCESS` and refused by
default. The level that is reported is what trying gave, not what was asked of the kernel.
"""

import contextlib
import ctypes
import enum
import os
import signal
import socket
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from reward_design.llm import kernel

NULL_FD = -1
"""An open /dev/null, once :func:`enter` was called."""
PARENT_EVERY = 1.0
"""Seconds between two looks at whether the process that started this one is still there, where no signal tells."""


class Isolation(enum.IntEnum):
    """How far the worker that runs a candidate is shut off. Each level includes the ones before."""

    PROCESS = 1
    """A process of its own: empty environment and folder, limits on memory, CPU and files, a wall-clock limit."""
    CONFINED = 2
    """The kernel also refuses it all files but Python's own (read only), the network, and new processes."""
    ISOLATED = 3
    """It also has namespaces of its own: the machine's users, processes, network and mounts are not there."""


class Reached(NamedTuple):
    """What the walls turned out to be.

    Attributes:
        level: the level, by trying.
        features: what the kernel granted, and what trying showed to be ``no_...``.
    """

    level: Isolation
    features: tuple[str, ...]


_granted: list[str] = []


def enter(limits: Mapping[str, Any]) -> None:
    """The walls that must stand before any thread exists: namespaces and Landlock.

    Args:
        limits: ``readable`` paths, and ``skip``, names of walls to leave out (tests of the others).
    """
    global NULL_FD
    NULL_FD = os.open(os.devnull, os.O_RDWR)
    skip, parent = limits["skip"], os.getppid()
    if not sys.platform.startswith("linux"):
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
        return
    _try("no_new_privileges", kernel.no_new_privileges, skip)
    _try("dies_with_parent", kernel.die_with_parent, skip)
    if "namespaces" not in skip and _single_threaded() and _try("namespaces", kernel.enter_namespaces, skip):
        _become_first_process(parent)
        _try("read_only_mounts", kernel.make_mounts_read_only, skip)
    elif "dies_with_parent" in skip:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    _try("landlock", lambda: kernel.landlock(limits["readable"]), skip)


def seal(limits: Mapping[str, Any]) -> Reached:
    """The walls that go up once JAX has loaded all it needs: limits, no capabilities, seccomp. Then all are tried.

    Args:
        limits: ``address_space`` in bytes, ``cpu`` in seconds, ``files``, and ``skip``.
    """
    skip = limits["skip"]
    _try("limits", lambda: _limit_resources(limits), skip)
    if sys.platform.startswith("linux"):
        _try("no_capabilities", kernel.drop_capabilities, skip)
        _try("seccomp", kernel.seccomp, skip)
    walls = {f"no_{name}": _stopped(attempt) for name, attempt in ATTEMPTS.items()}
    level = Isolation.PROCESS
    if all(walls.values()):
        level = Isolation.ISOLATED if "namespaces" in _granted else Isolation.CONFINED
    return Reached(level, (*_granted, *(name for name, stands in walls.items() if stands)))


# --- trying ---------------------------------------------------------------------------------------------------------


def _write_file() -> None:
    for folder in (os.curdir, tempfile.gettempdir()):
        with contextlib.suppress(OSError):
            os.close(os.open(os.path.join(folder, "probe"), os.O_CREAT | os.O_WRONLY))
            os.unlink(os.path.join(folder, "probe"))
            return
    raise OSError("no folder can be written to")


def _fork() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)


ATTEMPTS: dict[str, Callable[[], Any]] = {
    "writing": _write_file,
    "reading": lambda: os.listdir("/"),
    "network": lambda: socket.socket().close(),
    "processes": _fork,
}
"""What a candidate must not be able to do; each is tried once the walls stand."""


def _stopped(attempt: Callable[[], Any]) -> bool:
    try:
        attempt()
    except OSError:
        return True
    return False


# --- parts ----------------------------------------------------------------------------------------------------------


def _try(name: str, wall: Callable[[], Any], skip: Any) -> bool:
    """Whether the kernel granted a wall; one that it does not know is simply not there."""
    if name in skip:
        return False
    try:
        wall()
    except (OSError, ValueError, AttributeError, ctypes.ArgumentError):
        return False
    _granted.append(name)
    return True


def _single_threaded() -> bool:
    return len(os.listdir("/proc/self/task")) == 1


def _become_first_process(parent: int) -> None:
    """Go on as the first process of the new process namespace; this one buries it, or ends it with ``parent``."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        child = os.fork()
    if child == 0:
        _try("first_process", kernel.die_with_parent, ())
        return
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGKILL))
    for fd in (0, 1, 2):
        os.dup2(NULL_FD, fd)
    os.closerange(3, 64)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    ended = 0
    while not ended:
        ended, status = os.waitpid(child, os.WNOHANG)
        if not ended and signal.sigtimedwait({signal.SIGCHLD}, PARENT_EVERY) is None and os.getppid() != parent:
            os.kill(child, signal.SIGKILL)
    os._exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))


def _end_with(parent: int) -> None:
    """End this process once the one that started it has."""
    while os.getppid() == parent:
        time.sleep(PARENT_EVERY)
    os._exit(1)


def _limit_resources(limits: Mapping[str, Any]) -> None:
    import resource  # not on Windows, where the language terms still works

    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + limits["cpu"]) + 1
    for name, value in (
        ("RLIMIT_CORE", 0),
        ("RLIMIT_FSIZE", 0),
        ("RLIMIT_NOFILE", limits["files"]),
        ("RLIMIT_CPU", seconds),
        ("RLIMIT_AS", limits["address_space"]),
        ("RLIMIT_NPROC", 0),
    ):
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(getattr(resource, name), (value, value))
