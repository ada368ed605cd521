"""What a comparison is doing right now, in a small file beside its records that ``reward-design board`` follows.

The records are the results; this file is only for looking at, is replaced as a whole, and is gone when the comparison
ends. Nothing reads it to go on, and a run goes on where it cannot be written.
"""

import contextlib
import json
import math
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

FILE = "live.json"
NUM_POINTS = 50
"""Points of a curve; of several values between two points the last one counts."""
PERIOD = 0.5
"""Seconds between two versions of the file, at least."""
SHOWN = ("true_return", "shaped_return", "success", "length")
"""Metrics that are kept, next to the terms of the reward."""


class Seen(NamedTuple):
    """Metrics of some runs of a unit in the middle of training.

    Attributes:
        steps: environment steps that each of these runs has done.
        runs: their indices among the seeds.
        values: by metric, a value for each of these runs.
    """

    steps: int
    runs: tuple[int, ...]
    values: Mapping[str, Sequence[float]]


class Live:
    """Keeps ``folder/live.json`` up to date; use it as a context manager.

    Args:
        folder: of the comparison.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> with Live(folder) as live:
        ...     live.begin(("chain", "sparse"), [0, 1], total=1000)
        ...     live.advance(("chain", "sparse"), 500, Seen(500, (0, 1), {"true_return": [0.25, 0.75]}), flush=True)
        ...     (unit,) = json.loads((Path(folder) / FILE).read_text())["units"]
        >>> unit["steps"], unit["curves"]["true_return"][1][24]
        (500, 0.75)
        >>> (Path(folder) / FILE).exists()
        False
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path, self.units, self.written = Path(folder) / FILE, {}, -math.inf

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *_: Any) -> None:
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)

    def begin(self, name: tuple[str, str], seeds: Sequence[int], *, total: int) -> None:
        """A unit of so many steps per run starts, perhaps again."""
        self.units[name] = {
            "task": name[0], "reward": name[1], "seeds": list(seeds), "total": total, "steps": 0,
            "started": time.time(), "curves": {},
        }  # fmt: skip
        self._write()

    def advance(self, name: tuple[str, str], steps: int, seen: Seen | None = None, *, flush: bool = False) -> None:
        """Each run of a unit has done ``steps`` steps, as a mean over runs, and some were ``seen``."""
        unit = self.units.get(name)
        if unit is None:
            return
        unit["steps"] = steps
        if seen is not None:
            _take(unit, seen)
        if flush or time.monotonic() - self.written >= PERIOD:
            self._write()

    def end(self, name: tuple[str, str]) -> None:
        """A unit ended: it is in the records from now on."""
        self.units.pop(name, None)
        self._write()

    def _write(self) -> None:
        draft = self.path.with_suffix(".part")
        text = json.dumps({"time": time.time(), "units": list(self.units.values())}, separators=(",", ":"))
        self.written = time.monotonic()
        try:
            draft.write_text(text, encoding="utf-8")
            draft.replace(self.path)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)


def _take(unit: Any, seen: Seen) -> None:
    place = min(NUM_POINTS, max(1, math.ceil(seen.steps * NUM_POINTS / unit["total"]))) - 1
    for metric, values in seen.values.items():
        rows = unit["curves"].setdefault(metric, [[None] * NUM_POINTS for _ in unit["seeds"]])
        for run, value in zip(seen.runs, values):
            rows[run][place] = float(f"{value:.6g}") if math.isfinite(value) else None


def is_shown(metric: str) -> bool:
    """Whether a metric is kept."""
    return metric in SHOWN or metric.startswith("term/")
