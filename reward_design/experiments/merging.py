"""The union of folders of several machines: of one comparison, or of whole suites."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward_design.experiments import artifacts
from reward_design.experiments.results import Results
from reward_design.experiments.store import FILE, Store, StoreError, folders_below, plain, read
from reward_design.experiments.units import FAULTS


def merge(folders: Sequence[str | os.PathLike[str]], out: str | os.PathLike[str]) -> Results | dict[str, Results]:
    """Put the results of several machines into one folder: other tasks and designs, or other seeds of the same.

    Units that several folders have are counted once if they hold the same seeds, and joined if they hold different
    ones; every finished unit must end up with the same seeds. What is learned about exact dynamics is taken over from
    the folder that knows most designs of a task; ``compare`` on the merged folder computes what is missing.

    Folders of suites are merged comparison by comparison, ``block/task`` with ``block/task``; one that a single folder
    has is taken over. Everything is checked before anything is written, and a call that was interrupted goes on when it
    is made again.

    Args:
        folders: at least one, either all with records, or all of suites; none is changed.
        out: a folder without records, made if needed.

    Returns:
        The merged results; of suites by ``block/task``, as the folders below ``out`` are called.

    Raises:
        StoreError: if agents or settings differ, a unit was computed by different programs, or seeds do not fit; of a
            suite with the name of the comparison.

    Example:
        >>> import tempfile
        >>> from reward_design.experiments import compare
        >>> top = Path(tempfile.mkdtemp())
        >>> for design in ("sparse", "shaping"):
        ...     _ = compare("chain", design, seeds=2, total_timesteps=512, out=top / design, progress=False,
        ...                 report=False, config={"num_envs": 4, "num_steps": 64})
        >>> merge([top / "sparse", top / "shaping"], top / "both").rewards
        ('sparse', 'shaping')
    """
    if not folders:
        raise ValueError("expected at least one folder to merge, got none.")
    if any(Path(folder).resolve() == Path(out).resolve() for folder in folders):
        raise StoreError(f"{out} is one of the folders to merge, and none of them is changed; give --out a new folder.")
    names = _comparisons(folders)
    merged = {name: _merged(name, [Path(folder) / name for folder in having]) for name, having in names.items()}
    if others := {*folders_below(out), *([""] if (Path(out) / FILE).is_file() else [])} - {*merged}:
        raise _has_records(Path(out) / min(others))
    for name, (identity, records) in merged.items():
        _check_new(Path(out) / name, identity, records)
    written = {name: _write(Path(out) / name, *content) for name, content in merged.items()}
    return written.get("", written)


def _comparisons(folders: Sequence[str | os.PathLike[str]]) -> dict[str, list[str]]:
    """The folders that have a comparison, by its path in them; the path is empty where they are comparisons."""
    below = {str(folder): folders_below(folder) for folder in folders}
    suites = [folder for folder, names in below.items() if names]
    single = [folder for folder, names in below.items() if not names]
    if suites and single:
        read(single[0])  # which says that there is nothing, if so
        raise StoreError(
            f"{single[0]} holds one comparison, {suites[0]} several in folders below it: merge folders of the same "
            f"kind, or {single[0]} with one of those, as {Path(suites[0]) / below[suites[0]][0]}."
        )
    if single:
        return {"": single}
    return {
        name: [folder for folder, have in below.items() if name in have]
        for name in dict.fromkeys(name for have in below.values() for name in have)
    }


def _merged(name: str, folders: Sequence[Path]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Identity and further records of one comparison that several folders have."""
    parts = {str(folder): Results.load(folder) for folder in folders}
    try:
        units: dict[tuple[str, str], Mapping[str, Any]] = {}
        for folder, part in parts.items():
            for key, unit in part.done.items():
                units[key] = _joined(units[key], unit.record, folder) if key in units else unit.record
        identity = _identity(parts)
        identity["seeds"] = _common_seeds(units, identity["seeds"])
    except StoreError as error:
        raise StoreError(f"{name}: {error}" if name else str(error)) from error
    session = next((p.session for p in reversed(parts.values()) if p.session), {"kind": "session"})
    files = [record for part in parts.values() for record in part.records if record["kind"] == artifacts.KIND]
    files = [record for number, record in enumerate(files) if record not in files[:number]]
    return identity, [
        plain(r) for r in (session, *files, *_exact(parts), *_in_order(units.values(), identity["seeds"]))
    ]


def _check_new(folder: Path, identity: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> None:
    """Refuse a folder with records, unless an earlier call that was interrupted wrote the first of these."""
    if not (folder / FILE).is_file() or not (folder / FILE).stat().st_size:
        return
    have = read(folder)
    if have[0].get("identity") != plain(identity) or have[1:] != [*records][: len(have) - 1]:
        raise _has_records(folder)


def _write(folder: Path, identity: Mapping[str, Any], records: Sequence[Mapping[str, Any]]) -> Results:
    with Store(folder, identity) as store:
        for record in records[len(store.records) - 1 :]:
            store.append(record)
        return Results(store.records)


def _has_records(folder: Path) -> StoreError:
    return StoreError(f"{folder} has records already; give --out a new folder.")


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
    parts = {k: (_numbers(values), _numbers(theirs["losses"].get(k, values))) for k, values in ours["losses"].items()}
    losses = {k: share * mine + (1 - share) * other for k, (mine, other) in parts.items() if k in theirs["losses"]}
    if FAULTS in losses:  # counts, not means
        losses[FAULTS] = parts[FAULTS][0] + parts[FAULTS][1]
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
