"""Blows that a running program or its folder can get, for ``benchmarks/fault_drill.py`` and for tests."""

import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.fault_tools import Program, kill, wait_until, workers

Row = dict[str, Any]
"""What is known about one blow."""


@dataclass(frozen=True)
class Scene:
    """Whom a blow hits.

    Attributes:
        program: that runs.
        out: its folder.
        rng: chooses the moment.
        span: seconds that an undisturbed run takes.
    """

    program: Program
    out: Path
    rng: random.Random
    span: float


def killed(scene: Scene) -> list[Row]:
    """Start, wait for a moment, ``kill -9``; nothing if it had ended before."""
    process = scene.program.start(scene.out)
    try:
        moment = wait_until(process, scene.out, scene.rng, scene.span)
        return [] if moment is None else [moment]
    finally:
        process.kill()
        process.communicate()


def worker_killed(scene: Scene) -> list[Row]:
    """Kill worker processes again and again; the driver is left alone, and goes to its end."""
    process = scene.program.start(scene.out)
    rows = []
    try:
        while (moment := wait_until(process, scene.out, scene.rng, scene.span / 2)) is not None:
            while not (found := workers(process.pid)) and process.poll() is None:
                time.sleep(0.01)
            if found and kill(scene.rng.choice(found)):
                rows.append(moment)
        process.communicate(timeout=1200)
    finally:
        process.kill()
        process.wait()
    return [row | {"status": process.returncode} for row in rows]


def interrupted(scene: Scene) -> list[Row]:
    """Start, wait for a moment, Ctrl-C, and let it end by itself."""
    process = scene.program.start(scene.out)
    moment = wait_until(process, scene.out, scene.rng, scene.span)
    if moment is not None:
        process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=1200)
    return [] if moment is None else [moment | {"status": process.returncode, "said": errors[-200:]}]


BLOWS: dict[str, tuple[str, Callable[[Scene], list[Row]]]] = {
    "trainer": ("train", killed),
    "here": ("here", killed),
    "driver": ("processes", killed),
    "worker": ("processes", worker_killed),
    "interrupt": ("here", interrupted),
}
"""Kind of blow -> the program that gets it, and the blow."""
KILLS = ("trainer", "here", "driver", "worker")
