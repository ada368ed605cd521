"""Blows that a running program or its folder can get, for ``benchmarks/fault_drill.py`` and for tests."""

import os
import random
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from reward_design.experiments.records import FILE
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
        while (moment := wait_until(process, scene.out, scene.rng, scene.span / 3, writes=3)) is not None:
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
    return [] if moment is None else [moment | {"status": process.returncode, "said": _said(scene, errors)}]


def _said(scene: Scene, errors: str) -> str:
    """The end of what a program said, without the place of its folder."""
    return errors.replace(str(scene.out), "OUT")[-300:]


def wrong_clock(scene: Scene) -> list[Row]:
    """Kill it while the clock of the wall jumps, and give its files times in the future or the past."""
    moved = scene.rng.uniform(-3e8, 3e8)
    then = time.time() + moved
    rows = killed(replace(scene, program=replace(scene.program, prelude=f"jump_clock({scene.rng.randrange(100)})")))
    for path in scene.out.rglob("*"):
        os.utime(path, (then, then))
    return [row | {"moved_s": round(moved)} for row in rows]


def starved(scene: Scene) -> list[Row]:
    """Run it where no file can grow beyond a size that is drawn on the scale of its records."""
    size = round(2 ** scene.rng.uniform(6, 17))
    status, _, errors = replace(scene.program, prelude=f"limit_files({size})").finish(scene.out)
    return [{"moment": "size", "bytes": size, "status": status, "said": _said(scene, errors)}] if status else []


def read_only(scene: Scene) -> list[Row]:
    """Kill it, and run it once more while its folders cannot be written."""
    rows = killed(scene)
    folders = [scene.out, *(path for path in scene.out.rglob("*") if path.is_dir())]
    if not scene.out.is_dir():
        return rows
    for path in folders:
        path.chmod(0o555)
    files = [path for path in scene.out.rglob("*") if path.is_file()]
    for path in files:
        path.chmod(0o444)
    try:
        status, _, errors = replace(scene.program, prelude="drop_privileges()").finish(scene.out)
    finally:
        for path in folders:
            path.chmod(0o755)
        for path in files:
            path.chmod(0o644)
    return [row | {"status": status, "said": _said(scene, errors)} for row in rows]


def second(scene: Scene) -> list[Row]:
    """Start it, and at a moment start it once more on the same folder; both go to their ends."""
    process = scene.program.start(scene.out)
    moment = wait_until(process, scene.out, scene.rng, scene.span)
    status, _, errors = scene.program.finish(scene.out) if moment is not None else (0, "", "")
    process.communicate(timeout=1200)
    return (
        []
        if moment is None
        else [moment | {"status": status, "said": _said(scene, errors), "first": process.returncode}]
    )


def damaged(scene: Scene) -> list[Row]:
    """Kill it, and damage the last record of one of its files."""
    rows = killed(scene)
    paths = [path for path in sorted(scene.out.rglob(FILE)) if path.read_bytes().count(b"\n") > 1]
    if not paths:
        return []
    path, how = scene.rng.choice(paths), scene.rng.choice(list(DAMAGE))
    path.write_bytes(damage(path.read_bytes(), how, scene.rng))
    return [row | {"damage": how} for row in rows]


def _cut(line: bytes, at: int, rng: random.Random) -> bytes:
    return line[:at]


def _noise(line: bytes, at: int, rng: random.Random) -> bytes:
    return line[:at] + rng.randbytes(len(line) - at)


def _noisy_line(line: bytes, at: int, rng: random.Random) -> bytes:
    return line[:at] + rng.randbytes(len(line) - at - 1) + b"\n"


def _zeros(line: bytes, at: int, rng: random.Random) -> bytes:
    return line[:at] + bytes(len(line) - at)


def _digit(line: bytes, at: int, rng: random.Random) -> bytes:
    places = [place for place, byte in enumerate(line) if byte in b"0123456789"]
    place = rng.choice(places)
    return line[:place] + str((int(line[place : place + 1]) + 1) % 10).encode() + line[place + 1 :]


DAMAGE = {
    "cut": _cut,
    "noise": _noise,
    "line of noise": _noisy_line,
    "zeros": _zeros,
    "digit": _digit,
}
"""Ways in which a last record can be wrong, from a place in it on."""


def damage(data: bytes, how: str, rng: random.Random) -> bytes:
    """The bytes of a file of records with its last whole record damaged."""
    whole = data[: data.rindex(b"\n") + 1]
    start = whole.rindex(b"\n", 0, -1) + 1
    line = whole[start:]
    return whole[:start] + DAMAGE[how](line, rng.randrange(len(line) - 1), rng)


BLOWS: dict[str, tuple[str, Callable[[Scene], list[Row]]]] = {
    "trainer": ("train", killed),
    "here": ("here", killed),
    "driver": ("processes", killed),
    "worker": ("processes", worker_killed),
    "interrupt": ("here", interrupted),
    "damage": ("here", damaged),
    "disk": ("here", starved),
    "checkpoint": ("train", starved),
    "folder": ("here", read_only),
    "second": ("here", second),
    "clock": ("here", wrong_clock),
}
"""Kind of blow -> the program that gets it, and the blow."""
KILLS = ("trainer", "here", "driver", "worker")
