"""Results as data: rows and data frames, files that other tools read, and the union of folders of several machines."""

import csv
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from reward_design._optional import require
from reward_design.experiments.results import Results
from reward_design.experiments.store import Store, StoreError, folders_below

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


def merge(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Results:
    """Put the comparisons of several machines into one folder: other tasks and designs, or other seeds of the same.

    Units that several folders have are counted once if they hold the same seeds, and joined if they hold different
    ones; every finished unit must end up with the same seeds. What is learned about exact dynamics is taken over from
    the folder that knows most designs of a task; ``compare`` on the merged folder computes what is missing.

    Args:
        folders: with records, at least one; none is changed.
        out: a folder without records, made if needed.

    Returns:
        The merged results.

    Raises:
        StoreError: if agents or settings differ, a unit was computed by different programs, or seeds do not fit.
    """
    if not folders:
        raise ValueError("expected at least one folder to merge, got none.")
    parts = {str(folder): Results.load(folder) for folder in folders}
    merged: dict[tuple[str, str], Mapping[str, Any]] = {}
    for folder, part in parts.items():
        for name, unit in part.done.items():
            merged[name] = _joined(merged[name], unit.record, folder) if name in merged else unit.record
    identity = _identity(parts)
    identity["seeds"] = _common_seeds(merged, identity["seeds"])
    with Store(out, identity) as store:
        if any(record["kind"] != "comparison" for record in store.records):
            raise StoreError(f"{out} has records already; give --out a new folder.")
        store.append(next((p.session for p in reversed(parts.values()) if p.session), {"kind": "session"}))
        for record in (*_exact(parts), *_in_order(merged.values(), identity["seeds"])):
            store.append(record)
        return Results(store.records)


def _identity(parts: Mapping[str, Results]) -> dict[str, Any]:
    (first, *others) = parts.items()
    identity = {**first[1].identity}
    for folder, part in others:
        other = part.identity
        if other["agent"] != identity["agent"]:
            raise StoreError(f"{first[0]} was trained by {identity['agent']}, {folder} by {other['agent']}.")
        for name in other["config"].keys() & identity["config"].keys():
            if other["config"][name] != identity["config"][name]:
                raise StoreError(f"the settings of {name} in {folder} are not those in {first[0]}; they stay apart.")
        identity["config"] = {**identity["config"], **other["config"]}
        for key in ("tasks", "rewards"):
            identity[key] = list(dict.fromkeys((*identity[key], *other[key])))
    return identity


def _joined(ours: Mapping[str, Any], theirs: Mapping[str, Any], folder: str) -> Mapping[str, Any]:
    """One record of a unit that two folders have."""
    name = f"{theirs['reward']} on {theirs['task']}"
    if ours["fingerprint"] != theirs["fingerprint"] or ours["config"] != theirs["config"]:
        raise StoreError(f"{name} in {folder} was computed by another program or with other settings; leave it out.")
    if ours["seeds"] == theirs["seeds"]:
        return ours
    if {*ours["seeds"]} & {*theirs["seeds"]} or ours["steps"] != theirs["steps"]:
        raise StoreError(
            f"{name} in {folder} has the seeds {theirs['seeds']}, another folder {ours['seeds']}: only equal or "
            "entirely different seeds of equally long runs can be put together."
        )
    share = len(ours["seeds"]) / (len(ours["seeds"]) + len(theirs["seeds"]))
    per_seed = {
        key: {k: [*ours[key][k], *theirs[key][k]] for k in ours[key]} for key in ("curves", "final")
    } | {key: [*ours[key], *theirs[key]] for key in ("seeds", "episodes")}  # fmt: skip
    losses = {
        k: (share * _numbers(ours["losses"][k]) + (1 - share) * _numbers(theirs["losses"][k])) for k in ours["losses"]
    }
    total = {key: ours[key] + theirs[key] for key in ("wall_s", "compile_s", "env_steps")}
    return {**ours, **per_seed, "losses": losses, **total}


def _common_seeds(units: Mapping[tuple[str, str], Mapping[str, Any]], otherwise: list[int]) -> list[int]:
    """The seeds that every unit has, in order."""
    seeds = {name: sorted(record["seeds"]) for name, record in units.items()}
    most = max(seeds.values(), key=len, default=otherwise)
    for (task, reward), have in seeds.items():
        if have != most:
            raise StoreError(
                f"{reward} on {task} has the seeds {have}, other units {most}; add the folder that holds the others."
            )
    return most


def _in_order(units: Any, seeds: list[int]) -> list[dict[str, Any]]:
    """Records with their seeds in the common order."""
    ordered = []
    for record in units:
        at = [record["seeds"].index(seed) for seed in seeds]
        curves = {k: [v[i] for i in at] for k, v in record["curves"].items()}
        final = {k: [v[i] for i in at] for k, v in record["final"].items()}
        episodes = [record["episodes"][i] for i in at]
        ordered.append({**record, "seeds": seeds, "curves": curves, "final": final, "episodes": episodes})
    return ordered


def _exact(parts: Mapping[str, Results]) -> list[dict[str, Any]]:
    best: dict[str, dict[str, Any]] = {}
    for part in parts.values():
        for task, record in part.exact.items():
            if task not in best or len(record["fingerprints"]) > len(best[task]["fingerprints"]):
                best[task] = record
    return list(best.values())


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.asarray(values, float)
