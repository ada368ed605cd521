"""Whether a run fits on the disk, asked before it starts."""

import os
import shutil
from pathlib import Path
from typing import Any

from reward_design.experiments.records import FILE, StoreError

RESERVE = "REWARD_DESIGN_DISK_RESERVE"
"""Environment variable: megabytes that a run must leave free, 100 unless said otherwise."""
_NUMBER, _CURVES, _LOSSES = 13, 16, 16  # bytes of a number in a record; curves per seed and losses per unit, at most
_REST, _PAGE = 10_000, 200_000  # bytes of what else a unit's record says, and of its share of the reports


def of_units(num_units: int, num_seeds: int, num_points: int) -> int:
    """Bytes that records and reports of a comparison take, at most.

    Args:
        num_units: tasks times designs.
        num_seeds: of each.
        num_points: of a learning curve.

    Example:
        >>> of_units(num_units=4, num_seeds=20, num_points=200) < 10_000_000
        True
    """
    numbers = num_seeds * _CURVES * (num_points + 1) + _LOSSES * num_points + num_points
    return num_units * (_NUMBER * numbers + _REST + _PAGE)


def of_checkpoints(state: Any, kept: int = 2) -> int:
    """Bytes that the checkpoints of a state take: those that are kept, and the one that is being written.

    Args:
        state: arrays or their shapes.
        kept: checkpoints.
    """
    from reward_design.agents import checkpoint  # which needs orbax, as comparisons do not

    return (kept + 1) * checkpoint.size(state)


def check(folder: str | os.PathLike[str], needed: int, what: str) -> None:
    """Refuse to start what does not fit.

    Args:
        folder: that is going to be written, existing or not.
        needed: bytes.
        what: what needs them, in words.

    Raises:
        StoreError: if fewer bytes are free there, beyond the reserve of :data:`RESERVE`.
        ValueError: if the reserve is not a number.
    """
    place = next(path for path in (Path(folder).absolute(), *Path(folder).absolute().parents) if path.exists())
    free, reserve = shutil.disk_usage(place).free, _reserve()
    if needed > max(0, free - reserve):
        raise StoreError(
            f"{what} may take {_short(needed)} in {folder}, where {_short(free)} are free and {_short(reserve)} must "
            f"stay free ({RESERVE}): make room there, choose --out on another disk, or ask for less."
        )


def taken(folder: str | os.PathLike[str]) -> int:
    """Bytes of the records in a folder and below it."""
    return sum(path.stat().st_size for path in Path(folder).rglob(FILE))


def _reserve() -> int:
    text = os.environ.get(RESERVE, "100")
    try:
        return int(float(text) * 1e6)
    except (ValueError, OverflowError):
        raise ValueError(f"{RESERVE} must be a number of megabytes, got {text!r}.") from None


def _short(number: int) -> str:
    for limit, name in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if number >= limit:
            return f"{number / limit:.3g} {name}"
    return f"{max(number, 0) / 1e3:.0f} kB"
