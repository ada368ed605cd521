"""Real processes and real faults: a program that keeps records is disturbed, and its records are judged afterwards."""

import contextlib
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from reward_design.experiments.records import FILE, lines

ROOT = Path(__file__).resolve().parent.parent
PASSING = ("time", "wall_s", "compile_s", "steps_per_s", "commit", "device", "command", "crc")
"""Fields of records that two equal runs need not share: times, and where they ran."""
WORKER = "reward_design.experiments.worker"
FAST = {"XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
"""Environment of programs that compile much and compute little."""
CACHE = {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0", "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1"}


@dataclass(frozen=True)
class Program:
    """A command of ``reward-design`` that keeps records in a folder.

    Attributes:
        words: of the command, without ``--out``.
        prelude: a call of :mod:`tests.fault_preludes` that comes first.
        environment: variables of the environment that are set.
        launcher: words of a command that starts it.
    """

    words: tuple[str, ...]
    prelude: str = ""
    environment: Mapping[str, str] = field(default_factory=lambda: FAST)
    launcher: tuple[str, ...] = ()

    def cached(self, folder: Path) -> "Program":
        """The same program, which keeps what it compiles in a folder, so that its next start is cheap."""
        return replace(self, environment={**self.environment, **CACHE, "JAX_COMPILATION_CACHE_DIR": str(folder)})

    def start(self, out: Path, **options: Any) -> "subprocess.Popen[str]":
        """Start it on a folder; its output goes into pipes."""
        before = f"from tests import fault_preludes as preludes\npreludes.{self.prelude}\n" if self.prelude else ""
        code = f"import sys\n{before}from reward_design.cli import main\nsys.exit(main())"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), **self.environment}
        return subprocess.Popen(
            [*self.launcher, sys.executable, "-c", code, *self.words, "--out", str(out)], text=True, cwd=ROOT,
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options,
        )  # fmt: skip

    def finish(self, out: Path, **options: Any) -> tuple[int, str, str]:
        """Run it to its end: exit status, output and errors."""
        process = self.start(out, **options)
        output, errors = process.communicate(timeout=1200)
        return process.returncode, output, errors


class Disk:
    """A file system in memory, of its own size, at a folder that only programs of its own name space see (Linux).

    Args:
        folder: an empty one.
        size: as ``mount`` takes it, for example ``"8m"``.

    Raises:
        OSError: where the system allows nobody but its administrator to mount anything, or no name spaces.

    Attributes:
        folder: for programs that are started with the ``launcher``.
        seen: the same folder for this process.
    """

    def __init__(self, folder: Path, size: str) -> None:
        self.folder = folder
        script = f'mount -t tmpfs -o size={size} none "$0" && echo mounted && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "-Urm", "sh", "-c", script, str(folder)], text=True, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        assert self._holder.stdout is not None  # the type checker does not know what PIPE does
        if self._holder.stdout.readline() != "mounted\n":
            raise OSError(f"no file system can be mounted here: {self._holder.communicate()[1].strip()}")
        pid = str(self._holder.pid)
        self.launcher = ("nsenter", "--target", pid, "--user", "--mount", "--preserve-credentials", "--")
        self.seen = Path(f"/proc/{pid}/root{folder}")

    def __enter__(self) -> "Disk":
        return self

    def __exit__(self, *_: Any) -> None:
        self._holder.communicate()  # its input ends, and with it the last process of the name space

    def fill_up(self, leaving: int = 0) -> None:
        """Take the room that is left, but for some bytes."""
        left = shutil.disk_usage(self.seen).free - leaving
        with contextlib.suppress(OSError), (self.seen / "ballast").open("ab", buffering=0) as file:
            while left > 0:
                left -= file.write(bytes(min(left, 1 << 16)))

    def make_room(self) -> None:
        """Give it back."""
        (self.seen / "ballast").unlink()


# --- what is on disk --------------------------------------------------------------------------------------------------


def whole_lines(folder: Path) -> Counter[tuple[str, bytes]]:
    """The undamaged records below a folder, as they stand in the files."""
    found: Counter[tuple[str, bytes]] = Counter()
    for path in sorted(folder.rglob(FILE)):
        data, start = path.read_bytes(), 0
        for record, end in lines(data):
            if record is not None:
                found[path.relative_to(folder).as_posix(), data[start:end]] += 1
            start = end
    return found


def torn(folder: Path) -> bool:
    """Whether a file of records ends in the middle of one."""
    return any(not data.endswith(b"\n") for path in folder.rglob(FILE) if (data := path.read_bytes()))


def results(folder: Path) -> list[tuple[str, str]]:
    """Name and numbers of every result below a folder, without times, places, sessions and units that failed."""
    found = []
    for file, line in whole_lines(folder).elements():
        record = json.loads(line)
        if record["kind"] == "session" or record.get("status") == "failed":
            continue
        name = [file, *(str(record.get(key, "")) for key in ("kind", "task", "reward", "update"))]
        kept = {key: value for key, value in record.items() if key not in PASSING}
        found.append((" ".join(name), json.dumps(kept, sort_keys=True)))
    return [*found, *_states(folder)]


def _states(folder: Path) -> list[tuple[str, str]]:
    """A hash of every number in the newest checkpoint."""
    steps = [int(path.name) for path in folder.glob("checkpoints/*") if path.name.isdigit()]
    if not steps:
        return []
    state = ocp.StandardCheckpointer().restore((folder / "checkpoints" / str(max(steps)) / "state").absolute())
    hashed = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        hashed.update(f"{path} {np.asarray(leaf).dtype} {np.shape(leaf)}".encode() + np.asarray(leaf).tobytes())
    return [(f"checkpoint {max(steps)}", hashed.hexdigest())]


@dataclass(frozen=True)
class Judgement:
    """Results compared with those of an undisturbed run.

    Attributes:
        equal: every number of every result, and nothing beside.
        lost: results that are missing, and records that were on disk before and are not any more.
        doubled: results that are there more than once.
    """

    equal: bool
    lost: int
    doubled: int


def judge(folder: Path, expected: Sequence[tuple[str, str]], before: Sequence[Counter[Any]] = ()) -> Judgement:
    """Compare what lies in a folder with the results of an undisturbed run.

    Args:
        folder: after the last resume.
        expected: :func:`results` of the undisturbed run.
        before: :func:`whole_lines` at earlier moments.
    """
    found, now = results(folder), whole_lines(folder)
    names = Counter(name for name, _ in found)
    gone = sum((earlier - now).total() for earlier in before)
    missing = sum(name not in names for name, _ in expected)
    doubled = sum(number - 1 for number in names.values())
    return Judgement(sorted(found) == sorted(expected), missing + gone, doubled)


# --- moments and signals ----------------------------------------------------------------------------------------------


def wait_until(process: Any, folder: Path, rng: random.Random, span: float, writes: int = 4) -> dict[str, Any] | None:
    """Wait for a random moment, which is None if the program ended first.

    It is a time within ``span`` seconds, more often an early one so that more blows fall on one run, or one of the next
    changes on disk.
    """
    begun = time.monotonic()
    if rng.random() < 0.5:
        moment, at = {"moment": "time", "share": round(rng.random() ** 2, 4)}, 0
        limit = begun + moment["share"] * span
    else:
        at, limit = rng.randint(1, writes), float("inf")
        moment = {"moment": "write", "number": at}
    seen, known = 0, _sizes(folder)
    while time.monotonic() < limit and (not at or seen < at):
        if process.poll() is not None:
            return None
        time.sleep(0.003 if at else 0.01)
        if at and (now := _sizes(folder)) != known:
            seen, known = seen + 1, now
    return moment | {"after_s": round(time.monotonic() - begun, 3)}


def _sizes(folder: Path) -> dict[str, int]:
    sizes = {}
    with contextlib.suppress(FileNotFoundError):  # checkpoints come and go
        for root, _, files in os.walk(folder):
            sizes |= {f"{root}/{name}": os.stat(f"{root}/{name}").st_size for name in files}
    return sizes


def workers(pid: int) -> list[int]:
    """Processes that train for a driver, by the process table of Linux."""
    found = []
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):
                if WORKER in Path(f"/proc/{child}/cmdline").read_text():
                    found.append(child)
    return found


def kill(pid: int) -> bool:
    """``kill -9``; False if it had ended."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
        return True
    return False
