"""Linux system calls that Python has no functions for: namespaces, Landlock, seccomp, capabilities."""

import ctypes
import os
import platform
import struct
from collections.abc import Iterable

from reward_design.llm.syscalls import DENIED, NEWEST, NUMBERS

_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_NEW_NAMESPACES = {"NS": 0x20000, "CGROUP": 0x2000000, "UTS": 0x4000000, "IPC": 0x8000000, "PID": 0x20000000}
_NEW_NET, _NEW_USER = 0x40000000, 0x10000000
_CLONE_THREAD = 0x10000
_SIGNAL_OTHERS = (8, 10, 15)  # F_SETOWN, F_SETSIG, F_SETOWN_EX: the kernel then signals any process of the user
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_ALLOW, _EPERM, _ENOSYS = 0x7FFF0000, 0x00050001, 0x00050026
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06


def no_new_privileges() -> None:
    """No program that this process starts gets more rights than it has; Landlock and seccomp need this."""
    _checked(_libc().prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))


def die_with_parent() -> None:
    """Be killed when the process that started this one ends."""
    _checked(_libc().prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0))


def enter_namespaces() -> None:
    """Own users, processes (from the next fork on), network, mounts, shared memory and host name.

    Raises:
        OSError: where they are switched off.
    """
    user, group = os.getuid(), os.getgid()
    flags = _NEW_NET | _NEW_USER
    for flag in _NEW_NAMESPACES.values():
        flags |= flag
    _checked(_libc().unshare(flags))
    for name, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def make_mounts_read_only() -> None:
    """Every mount of the own mount namespace becomes read-only (Linux 5.12)."""
    read_only, recursive, here = 0x1, 0x8000, -100
    attributes = ctypes.create_string_buffer(struct.pack("QQQQ", read_only, 0, 0, 0), 32)
    _checked(_libc().syscall(442, here, b"/", recursive, attributes, 32))


def landlock(readable: Iterable[str]) -> None:
    """Refuse this thread and all that it starts every file but ``readable`` ones, TCP, and signals to others.

    Raises:
        OSError: if the kernel has no Landlock.
    """
    libc = _libc()
    version = _checked(libc.syscall(444, None, 0, 1))
    files = (1 << (13 if version < 2 else 14 if version < 3 else 15 if version < 5 else 16)) - 1
    attributes = struct.pack("QQQ", files, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0)
    attributes = attributes[: 8 if version < 4 else 16 if version < 6 else 24]
    rules = _checked(libc.syscall(444, ctypes.create_string_buffer(attributes, len(attributes)), len(attributes), 0))
    for path in readable:
        _let_read(rules, path)
    _checked(libc.syscall(446, rules, 0))
    os.close(rules)


def drop_capabilities() -> None:
    """Give up every capability, also those that root has."""
    header = ctypes.create_string_buffer(struct.pack("Ii", 0x20080522, 0), 8)
    _checked(_libc().capset(header, ctypes.create_string_buffer(24)))


def seccomp() -> None:
    """Refuse system calls of :data:`reward_design.llm.syscalls.DENIED` in all threads of this process.

    Raises:
        OSError: if the kernel refuses, or this is another machine than the tables are for.
    """
    machine = platform.machine()
    if machine not in _ARCHITECTURES:
        raise OSError(f"no table of system calls for {machine}")
    code = b"".join(struct.pack("HBBI", *line) for line in _filter(machine))
    buffer = ctypes.create_string_buffer(code, len(code))
    program = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))
    all_threads = 1
    number = 317 if machine == "x86_64" else 277
    _checked(_libc().syscall(number, 1, all_threads, ctypes.create_string_buffer(program, len(program))))


# --- parts ----------------------------------------------------------------------------------------------------------


def _filter(machine: str) -> list[tuple[int, int, int, int]]:
    """The filter as instructions ``(code, jump if true, jump if false, constant)``."""
    numbers = NUMBERS[machine]
    lines = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _ARCHITECTURES[machine]), (_RETURN, 0, 0, _EPERM), (_LOAD, 0, 0, 0)]
    if machine == "x86_64":
        lines += [(_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, _EPERM)]
    for name in DENIED:
        if name in numbers:
            lines += [(_EQUAL, 0, 1, numbers[name]), (_RETURN, 0, 0, _EPERM)]
    lines += [(_EQUAL, 0, 1, numbers["clone3"]), (_RETURN, 0, 0, _ENOSYS)]
    lines += [(_AT_LEAST, 0, 1, NEWEST + 1), (_RETURN, 0, 0, _ENOSYS)]
    writes = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    lines += _when(numbers["clone"], 0, [(_HAS_BITS, 1, 0, _CLONE_THREAD), (_RETURN, 0, 0, _EPERM)])
    lines += _when(numbers["openat"], 2, [(_HAS_BITS, 0, 1, writes), (_RETURN, 0, 0, _EPERM)])
    if "open" in numbers:
        lines += _when(numbers["open"], 1, [(_HAS_BITS, 0, 1, writes), (_RETURN, 0, 0, _EPERM)])
    lines += _when(numbers["tgkill"], 0, [(_EQUAL, 1, 0, os.getpid()), (_RETURN, 0, 0, _EPERM)])
    lines += _when(numbers["prlimit64"], 2, [(_EQUAL, 1, 0, 0), (_RETURN, 0, 0, _EPERM)])
    lines += _when(numbers["prctl"], 0, [(_EQUAL, 0, 1, _PR_SET_PDEATHSIG), (_RETURN, 0, 0, _EPERM)])
    owners = [line for command in _SIGNAL_OTHERS for line in ((_EQUAL, 0, 1, command), (_RETURN, 0, 0, _EPERM))]
    lines += _when(numbers["fcntl"], 1, owners)
    return [*lines, (_RETURN, 0, 0, _ALLOW)]


def _when(number: int, argument: int, check: list[tuple[int, int, int, int]]) -> list[tuple[int, int, int, int]]:
    """``check`` the low half of an argument of one system call, then allow it."""
    inner = [(_LOAD, 0, 0, 16 + 8 * argument), *check, (_RETURN, 0, 0, _ALLOW)]
    return [(_EQUAL, 0, len(inner), number), *inner]


def _let_read(rules: int, path: str) -> None:
    if not os.path.exists(path):
        return
    rights = _READ_FILE | (_READ_DIR if os.path.isdir(path) else 0)
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, fd), 12)
    try:
        _checked(_libc().syscall(445, rules, 1, rule, 0))
    finally:
        os.close(fd)


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
    return result
