"""Commands of ``reward-design`` on results: report, merge, export, older formats, the board."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

if TYPE_CHECKING:
    from reward_design.experiments.suites import Suite


@dataclass(frozen=True)
class Report:
    """Write the HTML report again from the records of a comparison, finished or not.

    For example:

      reward-design report results/compare

      reward-design report results/suite --suite core --size smoke
    """

    out: Positional[str] = "results/compare"
    """Folder that `reward-design compare` wrote."""
    suite: Annotated[str | None, arg(metavar="NAME")] = None
    """The suite that the folder is of (`core`), or a .toml file."""
    size: str = "smoke"
    """Of the suite."""

    def run(self, command: str) -> int:
        """Write the report and print the table."""
        from reward_design.experiments import suites, terminal
        from reward_design.experiments.report import write
        from reward_design.experiments.results import Results

        if (suite := _suite(self.suite, self.size)) is not None:
            terminal.show_suite(suites.write(suites.load_verdict(suite, self.out), self.out))
            return 0
        results = write(Results.load(self.out), self.out)
        terminal.show(results)
        return 0


@dataclass(frozen=True)
class Merge:
    """Put the comparisons, or the suites, of several machines into one folder, with reports.

    They may hold other tasks and designs, or other seeds of the same ones; agent and settings must agree. Suites are
    merged comparison by comparison.

    For example:

      reward-design merge results/machine1 results/machine2 --out results/both

      reward-design merge suite/machine1 suite/machine2 --out suite/both --suite core --size full
    """

    folders: Positional[tuple[str, ...]]
    """Folders that `reward-design compare` wrote: all of comparisons, or all of suites."""
    out: str = "results/merged"
    """A new folder."""
    suite: Annotated[str | None, arg(metavar="NAME")] = None
    """The suite that the folders are of (`core`), or a .toml file: for the verdict over all of it."""
    size: str = "smoke"
    """Of the suite."""

    def run(self, command: str) -> int:
        """Merge, write the reports, print the table or the verdict."""
        from pathlib import Path

        from reward_design.experiments import merging, suites, terminal
        from reward_design.experiments.report import write
        from reward_design.experiments.results import Results
        from reward_design.experiments.store import FILE

        suite = _suite(self.suite, self.size)
        single = next((folder for folder in self.folders if (Path(folder) / FILE).is_file()), None)
        if suite is not None and single is not None:
            raise ValueError(f"--suite is for folders of suites, {single} holds one comparison; leave --suite out.")
        merged = merging.merge(self.folders, self.out)
        if isinstance(merged, Results):
            terminal.show(write(merged, self.out))
            return 0
        for name, results in merged.items():
            write(results, Path(self.out) / name)
        if suite is None:
            terminal.show_merged(merged, self.out)
        else:
            terminal.show_suite(suites.write(suites.load_verdict(suite, self.out), self.out))
        return 0


@dataclass(frozen=True)
class Export:
    """Write the results of a comparison, or of a suite, as CSV or Parquet: a row per task, design and seed.

    For example:

      reward-design export results/compare --to results.csv

      reward-design export results/compare --to curves.parquet --curves

      reward-design export results/suite --to suite.csv
    """

    out: Positional[str] = "results/compare"
    """Folder that `reward-design compare` wrote; rows of a suite also name the comparison, as block/task."""
    to: Annotated[str, arg(metavar="FILE")] = "results.csv"
    """File to write, ending in .csv or .parquet."""
    curves: bool = False
    """Points of the learning curves instead of values over the last tenth of training."""

    def run(self, command: str) -> int:
        """Write the file, print where it is."""
        from reward_design.experiments import data

        print(data.export(data.load(self.out), self.to, curves=self.curves).resolve())
        return 0


@dataclass(frozen=True)
class Migrate:
    """Bring records that an older version has written into the format of this one, so that they can be added to.

    Each file keeps a copy of what it was, beside it.

    For example:

      reward-design migrate results/suite
    """

    out: Positional[str]
    """Folder that was given as --out; records below it, as those of a suite, are migrated too."""

    def run(self, command: str) -> int:
        """Migrate, print what was changed."""
        from reward_design.experiments.migration import migrate

        changed = migrate(self.out)
        for path in changed:
            print(f"migrated {path}")
        if not changed:
            print(f"all records in {self.out} have the format of this version")
        return 0


@dataclass(frozen=True)
class Board:
    """Show a folder of results in the browser: curves that follow what runs, terms, candidates, distances, clips.

    The page is for this machine alone, and for looking alone: nothing in the folder is changed. Ctrl-C ends it.

    For example:

      reward-design board results
    """

    folder: Positional[str] = "results"
    """What any command wrote with --out, or a folder above."""
    port: int = 0
    """Of the page; 0 takes any that is free."""
    no_browser: bool = False
    """Print the address, and open no browser."""

    def run(self, command: str) -> int:
        """Serve until Ctrl-C."""
        import contextlib

        from reward_design.experiments import board

        page = board(self.folder, self.port, open_browser=not self.no_browser)
        print(f"{self.folder}: {page.url}  (Ctrl-C ends it)", flush=True)
        with contextlib.suppress(KeyboardInterrupt), contextlib.closing(page):
            page.wait()
        return 0


def _suite(name: str | None, size: str) -> "Suite | None":
    """The suite that a command names; a size without one is refused."""
    from reward_design.experiments import suites

    if name is None and size != "smoke":
        raise ValueError(f"--size is one of a suite, got --size {size} without --suite; add it, or leave --size out.")
    return None if name is None else suites.load_suite(name, size)
