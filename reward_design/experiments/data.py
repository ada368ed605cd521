"""Results as data: rows and data frames, and files that other tools read."""

import csv
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from reward_design._optional import require
from reward_design.experiments.results import Results
from reward_design.experiments.store import StoreError, folders_below

FORMATS = (".csv", ".parquet")
"""Endings of files that :func:`export` writes."""


def load(folder: str | os.PathLike[str]) -> Results | dict[str, Results]:
    """The comparison that a folder holds, or those of the folders below it, as of a suite, by their paths there.

    Raises:
        StoreError: if there is none, or one is damaged.
    """
    names = folders_below(folder)
    return {name: Results.load(Path(folder) / name) for name in names} if names else Results.load(folder)


def rows(results: Results | Mapping[str, Results], *, curves: bool = False) -> list[dict[str, Any]]:
    """One row per task, design and seed, or per point of its learning curve; failed units have none.

    Args:
        results: of a comparison; or of several by name, as a :class:`~reward_design.experiments.suites.Verdict` or
            :func:`load` has them: then every row has its name, as ``comparison``.
        curves: points of the learning curves (with ``steps``) instead of values over the last tenth of training.

    Returns:
        Rows with ``task``, ``reward``, ``agent``, ``seed``, ``fingerprint`` (of the program of environment and reward),
        ``commit``, ``device``, ``time`` and the metrics; NaN where no episode ended.

    Example:
        >>> import tempfile
        >>> from reward_design.experiments import compare
        >>> results = compare("chain", "sparse", seeds=2, total_timesteps=512, out=tempfile.mkdtemp(),
        ...                   config={"num_envs": 4, "num_steps": 64}, progress=False, report=False)
        >>> [(row["task"], row["seed"]) for row in rows(results)]
        [('chain', 0), ('chain', 1)]
    """
    if not isinstance(results, Results):
        return [{"comparison": name, **row} for name, found in results.items() for row in rows(found, curves=curves)]
    table = []
    for (task, reward), unit in results.done.items():
        record = unit.record
        metrics = record["curves" if curves else "final"]
        values = {name: unit.curve(name)[1] if curves else unit.final(name) for name in metrics}
        for i, seed in enumerate(record["seeds"]):
            head = {
                "task": task, "reward": reward, "agent": record.get("agent"), "seed": seed,
                **{name: record.get(name) for name in ("fingerprint", "commit", "device", "time")},
            }  # fmt: skip
            points = record["steps"] if curves else [None]
            for p, steps in enumerate(points):
                at = {"steps": steps} if curves else {}
                table.append({**head, **at, **{k: float(v[i, p] if curves else v[i]) for k, v in values.items()}})
    return table


def frame(results: Results | Mapping[str, Results], *, curves: bool = False) -> Any:
    """:func:`rows` as a pandas data frame (``pip install 'reward-design[data]'``)."""
    return require("pandas", "data", "data frames").DataFrame(rows(results, curves=curves))


def export(results: Results | Mapping[str, Results], path: str | os.PathLike[str], *, curves: bool = False) -> Path:
    """Write :func:`rows` as CSV or, with the extra ``data``, as Parquet, by the ending of ``path``.

    Raises:
        ValueError: for another ending, or if no unit has finished.
        StoreError: if the file cannot be written.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ValueError(f"expected a file that ends in {' or '.join(FORMATS)}, got {path.name!r}.")
    if not any(found.done for found in ([results] if isinstance(results, Results) else results.values())):
        raise ValueError("no unit of this comparison has finished, so there is nothing to export; run it on.")
    if path.suffix == ".parquet":
        require("pyarrow", "data", "Parquet files")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            _write(results, file, path.suffix, curves)
    except OSError as error:
        raise StoreError(f"{path} could not be written ({error.strerror}); give another file.") from error
    return path


def _write(results: Results | Mapping[str, Results], file: BinaryIO, ending: str, curves: bool) -> None:
    if ending == ".parquet":
        frame(results, curves=curves).to_parquet(file, index=False)
        return
    table = rows(results, curves=curves)
    columns = list(dict.fromkeys(name for row in table for name in row))
    text = io.TextIOWrapper(file, newline="", encoding="utf-8")
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(table)
    text.flush()
    text.detach()
