"""Commands of ``reward-design`` on results: report, several folders in one, numbers for other tools, the board."""

from dataclasses import dataclass
from typing import Annotated

from tyro.conf import Positional, arg


@dataclass(frozen=True)
class Report:
    """Write the HTML report again from the records of a comparison, finished or not.

    For example:

      reward-design report results/compare
    """

    out: Positional[str] = "results/compare"
    """Folder that `reward-design compare` wrote."""

    def run(self, command: str) -> int:
        """Write the report and print the table."""
        from reward_design.experiments import terminal
        from reward_design.experiments.report import write
        from reward_design.experiments.results import Results

        results = write(Results.load(self.out), self.out)
        terminal.show(results)
        return 0


@dataclass(frozen=True)
class Merge:
    """Put the comparisons of several machines into one folder, with a report.

    They may hold other tasks and designs, or other seeds of the same ones; agent and settings must agree.

    For example:

      reward-design merge results/machine1 results/machine2 --out results/both
    """

    folders: Positional[tuple[str, ...]]
    """Folders that `reward-design compare` wrote."""
    out: str = "results/merged"
    """A new folder."""

    def run(self, command: str) -> int:
        """Merge, write the report, print the table."""
        from reward_design.experiments import data, terminal
        from reward_design.experiments.report import write

        terminal.show(write(data.merge(self.folders, self.out), self.out))
        return 0


@dataclass(frozen=True)
class Export:
    """Write the results of a comparison as CSV or Parquet: a row per task, design and seed.

    For example:

      reward-design export results/compare --to results.csv

      reward-design export results/compare --to curves.parquet --curves
    """

    out: Positional[str] = "results/compare"
    """Folder that `reward-design compare` wrote."""
    to: Annotated[str, arg(metavar="FILE")] = "results.csv"
    """File to write, ending in .csv or .parquet."""
    curves: bool = False
    """Points of the learning curves instead of values over the last tenth of training."""

    def run(self, command: str) -> int:
        """Write the file, print where it is."""
        from reward_design.experiments import data
        from reward_design.experiments.results import Results

        print(data.export(Results.load(self.out), self.to, curves=self.curves).resolve())
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
