"""Run a suite: one comparison per block and length of runs, resumable at any point."""

import os
from collections.abc import Sequence
from pathlib import Path

from reward_design.experiments import room
from reward_design.experiments.comparison import compare
from reward_design.experiments.executors import Executor
from reward_design.experiments.records import FILE, FORMAT, StoreError, format_of, whole
from reward_design.experiments.results import Results
from reward_design.experiments.store import checked
from reward_design.experiments.suites.declared import Block, Suite, folder
from reward_design.experiments.suites.page import write
from reward_design.experiments.suites.verdict import Verdict, verdict
from reward_design.experiments.units import NUM_POINTS


def compare_suite(
    suite: Suite,
    *,
    out: str | os.PathLike[str] = "results/suite",
    executor: Executor | None = None,
    progress: bool = True,
    command: str | None = None,
    log: str | Sequence[str] = (),
) -> Verdict:
    """Train everything that a suite declares, and judge the designs over all of it.

    Every task has a folder ``out/<block>/<task>`` with records and report; what is finished there is not computed
    again. ``out/report.html`` is the verdict over all of them.

    Args:
        suite: of :func:`load_suite`.
        out: folder.
        executor: where units are trained; by default here.
        progress: show progress bars.
        command: how to run this again, for the reports.
        log: as for :func:`reward_design.experiments.compare`, in the folder of each task.

    Returns:
        The verdict; its ``report`` is where the page lies.

    Raises:
        StoreError: before anything runs, if the results of all blocks do not fit on the disk, or those that are there
            are in an older format, or have another agent or other seeds.
    """
    _check_records(suite, Path(out))
    needed = sum(room.of_units(len(b.tasks) * len(b.rewards), b.seeds, NUM_POINTS) for b in suite.blocks)
    room.check(out, needed - room.taken(out), f"{suite.num_runs} runs of {suite.name}")
    found = {
        f"{block.name}/{task}": _run(block, task, Path(out), executor, progress, command, log)
        for block in suite.blocks
        for task in block.tasks
    }
    return write(verdict(found, suite), out)


def load_verdict(suite: Suite, out: str | os.PathLike[str]) -> Verdict:
    """Judge what a folder of :func:`compare_suite` holds; comparisons that were not begun are left out.

    Args:
        suite: of :func:`load_suite`.
        out: folder.

    Raises:
        StoreError: if none was begun, or one has not the number of seeds that this size declares.
    """
    begun = [name for name in _names(suite) if (Path(out) / folder(name) / FILE).is_file()]
    if not begun:
        raise StoreError(f"no comparison of the suite {suite.name!r}, size {suite.size!r}, in {out}.")
    found = {name: Results.load(Path(out) / folder(name)) for name in begun}
    for block in suite.blocks:
        for task in block.tasks:
            name = f"{block.name}/{task}"
            seeds = len(found[name].identity["seeds"]) if name in found else block.seeds
            if seeds != block.seeds:
                raise StoreError(
                    f"{name} in {out} has {seeds} seeds, the size {suite.size!r} of the suite {suite.name!r} has "
                    f"{block.seeds}: give the --size that the folder was made with."
                )
    return verdict(found, suite)


def _check_records(suite: Suite, out: Path) -> None:
    """Refuse records that cannot be added to at once and together, not one by one in the middle of the night."""
    there = {
        f"{block.name}/{task}": (block, out / folder(f"{block.name}/{task}"))
        for block in suite.blocks
        for task in block.tasks
    }
    there = {name: (block, place) for name, (block, place) in there.items() if (place / FILE).is_file()}
    old, known = [], {}
    for name, (_, place) in there.items():
        try:
            known[name] = whole((place / FILE).read_bytes(), place / FILE)[0]
            old += [name] if format_of(known[name]) < FORMAT else []
        except StoreError as error:
            raise _without_overwrite(error, place) from error
    if old:
        raise StoreError(
            f"{len(old)} of {len(there)} comparisons in {out} have an older format than this version of reward-design "
            f"writes, {old[0]} the first: run `reward-design migrate {out}` once to add to them."
        )
    for name, (block, place) in there.items():
        wanted = {"agent": block.agent, "seeds": list(range(block.seeds))}
        for record in [r for r in known[name] if r["kind"] == "comparison"][-1:]:
            try:
                checked(place, {key: record["identity"].get(key) for key in wanted}, wanted)
            except StoreError as error:
                raise _without_overwrite(error, place) from error


def _names(suite: Suite) -> list[str]:
    return [f"{block.name}/{task}" for block in suite.blocks for task in block.tasks]


def _run(
    block: Block,
    task: str,
    out: Path,
    executor: Executor | None,
    progress: bool,
    command: str | None,
    log: str | Sequence[str],
) -> Results:
    place = out / folder(f"{block.name}/{task}")
    try:
        return compare(
            task, block.designs(task), agent=block.agent, seeds=block.seeds, out=place, executor=executor,
            total_timesteps=block.total_timesteps(task), progress=progress, command=command, log=log,
        )  # fmt: skip
    except StoreError as error:
        raise _without_overwrite(error, place) from error


def _without_overwrite(error: StoreError, place: Path) -> StoreError:
    """The same error; where it speaks of ``--overwrite``, with what a suite has in its place."""
    if "--overwrite" not in str(error):
        return error
    return StoreError(f"{error} A suite has no --overwrite: delete {place} to replace it.")
