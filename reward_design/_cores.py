"""Cores of the processor that this process may use."""

import os


def num_cores() -> int:
    """Their number: those that the process is bound to, where the platform tells, else those of the machine."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
