"""What a program does to itself before it starts, so that the system refuses it something, or its clock is wrong."""

import ctypes
import datetime
import os
import random
import resource
import time


def limit_files(size: int) -> None:
    """No file can be written beyond ``size`` bytes, as on a disk that is full there: half a write, then an error."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def drop_privileges() -> None:
    """Permissions of files bind the administrator as well (Linux)."""
    if os.geteuid() == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        version_3, none = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
        if libc.capset(version_3, none):
            raise OSError(ctypes.get_errno(), "capset")


def jump_clock(seed: int) -> None:
    """Every look at the clock of the wall finds it years earlier or later; the monotonic one is as it was."""
    rng, now = random.Random(seed), time.time

    def jumped() -> float:
        return now() + rng.uniform(-3e8, 3e8)

    class Jumping(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.datetime.fromtimestamp(jumped(), tz)

    time.time = jumped
    datetime.datetime = Jumping
