"""What the command line prints: the final table, the lists of names."""

import os
from collections.abc import Mapping
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from reward_design.experiments import alignment, plots, report, suites
from reward_design.experiments.ranked_design import starved_note, unlearned_note
from reward_design.experiments.results import Results, Row
from reward_design.experiments.suites import Verdict
from reward_design.experiments.units import faults_note


def console() -> Console:
    """Standard output; 140 columns wide on a pipe, so that tables are not folded."""
    plain = Console()
    return plain if plain.is_terminal or "COLUMNS" in os.environ else Console(width=140)


def show(results: Results) -> None:
    """Print the final table, what failed, and where the report lies."""
    out = console()
    out.print(final_table(results))
    for (task, reward), unit in results.done.items():
        auxiliary = alignment.learned(reward)
        if auxiliary is not None:
            out.print(f"{task}: {alignment.of_unit(unit, auxiliary)}", markup=False, highlight=False, soft_wrap=True)
        metrics = unit.record.get("losses", {})
        for note in (starved_note(metrics), unlearned_note(metrics), faults_note(metrics)):
            if note is not None:
                out.print(f"{task}, {reward}: {note}.", markup=False, highlight=False, soft_wrap=True)
    for (task, reward), unit in results.failed.items():
        out.print(f"[red]failed[/red] {escape(reward)} on {escape(task)}: {escape(unit.reason)}", highlight=False)
    if results.report:
        out.print(f"\nReport: {Path(results.report).resolve()}", soft_wrap=True, highlight=False)


def show_suite(judged: Verdict) -> None:
    """Print what a suite found, and where its page lies."""
    out = console()
    for sentence in suites.sentences(judged):
        out.print(f"- {sentence}", markup=False, highlight=False, soft_wrap=True)
    for name, found in judged.results.items():
        for (_, reward), unit in found.failed.items():
            out.print(f"[red]failed[/red] {escape(reward)} on {escape(name)}: {escape(unit.reason)}", highlight=False)
    out.print(f"\nReport: {Path(judged.report or '').resolve()}", soft_wrap=True, highlight=False)


def show_merged(merged: Mapping[str, Results], folder: str) -> None:
    """Print what the comparisons of a suite have after a merge, and how to judge them together."""
    out = console()
    for name, found in merged.items():
        of_all = len(found.tasks) * len(found.rewards)
        seeds = len(found.identity["seeds"])
        line = f"{name}: {len(found.done)} of {of_all} units, {seeds} seeds"
        out.print(line, markup=False, highlight=False, soft_wrap=True)
    out.print(
        f"\nVerdict over all of them: reward-design report {folder} --suite NAME --size SIZE",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip


def final_table(results: Results) -> Table:
    """Tasks and designs with interquartile means, 95 % intervals and probability of improvement."""
    num_seeds = len(results.identity["seeds"])
    table = Table(
        title=f"Last tenth of training, {num_seeds} seeds: interquartile mean and 95 % interval",
        title_justify="left", title_style="dim", box=None, padding=(0, 2, 0, 0), header_style="dim",
    )  # fmt: skip
    table.add_column("design", overflow="fold", min_width=13)
    baseline = results.baseline if len(results.baseline) <= 16 else "baseline"  # its own row says "–"
    for name in ("true return", "", "over\ntraining", "success", "length", f"beats\n{baseline}"):
        table.add_column(name, justify="left" if name == "" else "right", no_wrap=True)
    names = plots.shown(results.rewards)
    for task in results.tasks:
        rows = [row for row in results.rows if row.task == task]
        digits = report.digits(row.true_return for row in rows)
        table.add_row(f"[bold]{escape(task)}[/bold]")
        for row in rows:
            table.add_row(f" {escape(names[row.reward])}", *_cells(row, digits))
    return table


def show_names(family: str | None = None) -> None:
    """Print tasks, reward designs and agents with a line of text each, or the tasks of a family of environments."""
    from reward_design import agents, envs
    from reward_design.experiments.designs import DESIGNS

    out = console()
    if family is not None:
        _names(out, f"Tasks of {family}", "--task", envs.list_tasks(family))
        return
    adapters = {f"{name}/<id>": text for name, text in envs.list_adapters().items()}
    _names(out, "Tasks", "--task", {**envs.list_tasks(), **adapters})
    out.print("  every id of a family: [bold]reward-design list --family minihack[/bold]\n", highlight=False)
    _names(out, "Reward designs", "--rewards", {name: design.description for name, design in DESIGNS.items()})
    out.print("  or your own as [bold]module:attribute[/bold]: a Reward, or a function that takes the task\n")
    _names(out, "Agents", "--agent", agents.list_agents())


def _names(out: Console, title: str, flag: str, names: Mapping[str, str]) -> None:
    out.print(f"[bold]{title}[/bold] [dim]({flag})[/dim]", highlight=False)
    table = Table(box=None, show_header=False, padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column()
    for name, text in names.items():
        table.add_row(Text(name, style="cyan"), Text(text))
    out.print(table)
    out.print()


def _cells(row: Row, digits: int) -> list[str]:
    if row.true_return is None:
        return ["[red]failed[/red]" if row.reason else "no episode ended"]
    return [
        report.number(row.true_return, digits),
        f"[dim]{report.interval(row.true_return, digits)}[/dim]",
        report.number(row.over_training, digits),
        report.percent(row.success),
        report.number(row.length, 0),
        report.percent(row.improvement),
    ]
