"""What a run shows: a progress bar over many runs, lines of a single one."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from reward_design.experiments.live import Live, Seen


class Progress:
    """Bar over all environment steps of the units to do; on a pipe, one line per finished unit instead.

    Args:
        plans: units with ``config.total_timesteps`` and ``name``.
        seeds: of the runs of each unit.
        enabled: False shows nothing.
        console: where to; standard error by default.
        live: is told as well, whatever is shown.
    """

    def __init__(
        self,
        plans: Sequence[Any],
        seeds: Sequence[int],
        *,
        enabled: bool = True,
        console: Console | None = None,
        live: Live | None = None,
    ) -> None:
        self.seeds, self.num_seeds, self.live = seeds, len(seeds), live
        self.num_runs, self.runs_done = len(plans) * len(seeds), 0
        self.console = console or Console(stderr=True)
        self.enabled = enabled and bool(plans)
        columns: list[ProgressColumn] = [
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.fields[runs]}"),
            TextColumn("{task.fields[speed]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
        ]
        self.bar = Bar(*columns, console=self.console, disable=not (self.enabled and self.console.is_terminal))
        total = sum(_steps(plan) * self.num_seeds for plan in plans)
        self.row = self.bar.add_task("", total=total, runs=self._runs(), speed="")
        self.steps: dict[Any, int] = {}
        self.started: dict[Any, float] = {}
        self.done, self.tick = 0, time.perf_counter()

    def __enter__(self) -> "Progress":
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def begin(self, plan: Any) -> None:
        """A unit starts (compiling comes first), perhaps beside others, perhaps again."""
        self.steps[plan.name], self.started[plan.name] = 0, time.perf_counter()
        self.tick, self.done = self.started[plan.name], sum(self.steps.values())  # less than before, if it was lost
        if self.live is not None:
            self.live.begin(plan.name, self.seeds, total=_steps(plan))
        self.bar.update(self.row, description=" · ".join(plan.name), completed=self.done, speed="compiling")

    def advance(self, plan: Any, steps: int, seen: Seen | None = None) -> None:
        """Each run of the unit has done ``steps`` environment steps, and some were ``seen``."""
        if self.live is not None:
            self.live.advance(plan.name, steps, seen)
        self.steps[plan.name] = steps * self.num_seeds
        now, done = time.perf_counter(), sum(self.steps.values())
        speed = (done - self.done) / max(now - self.tick, 1e-9)
        self.done, self.tick = done, now
        self.bar.update(self.row, description=" · ".join(plan.name), completed=done, speed=f"{_si(speed)} steps/s")

    def end(self, plan: Any, failed: str = "") -> None:
        """The unit is finished, or failed for a reason."""
        self.steps[plan.name] = _steps(plan) * self.num_seeds
        self.done = sum(self.steps.values())
        self.runs_done += self.num_seeds
        self.bar.update(self.row, completed=self.done, runs=self._runs())
        if failed and self.enabled:
            self.console.print(f"[red]failed[/red] {' · '.join(plan.name)}: {failed}", soft_wrap=True, highlight=False)
        elif self.enabled and not self.console.is_terminal:
            seconds = time.perf_counter() - self.started[plan.name]
            speed = _si(_steps(plan) * self.num_seeds / seconds)
            line = f"{' · '.join(plan.name)}: {self._runs()}, {seconds:.1f} s, {speed} steps/s with compiling"
            self.console.print(line, soft_wrap=True, highlight=False)

    def _runs(self) -> str:
        return f"{self.runs_done}/{self.num_runs} runs"


class Lines:
    """What a single run prints: a line per evaluation under headings, and the result.

    Args:
        console: where to.
    """

    def __init__(self, console: Console) -> None:
        self.console, self.count = console, 0

    def row(self, steps: int, line: Mapping[str, Any], speed: float) -> None:
        """Metrics after ``steps`` environment steps, at ``speed`` steps per second."""
        if self.count % 20 == 0:
            self.console.print(
                f"{'steps':>12}{'true return':>14}{'paid':>12}{'success':>10}{'length':>9}{'steps/s':>12}"
            )
        self.count += 1
        means = (("true_return", 14, ".4g"), ("shaped_return", 12, ".4g"), ("success", 10, ".0%"), ("length", 9, ".4g"))
        cells = (
            f"{'–' if math.isnan(line[name]) else format(line[name], form):>{width}}" for name, width, form in means
        )
        self.console.print(f"{steps:>12,}{''.join(cells)}{speed:>12,.0f}", highlight=False)

    def evaluated(self, means: Mapping[str, float], num_episodes: int) -> None:
        """The evaluation after training."""
        self.console.print(
            f"evaluated without exploration on {num_episodes} episodes: true return {means['true_return']:.4g}, "
            f"success {means['success']:.0%}, length {means['length']:.4g}",
            highlight=False,
        )


def _steps(plan: Any) -> int:
    return plan.config.num_updates * plan.config.steps_per_update


def _si(number: float) -> str:
    for limit, suffix in ((1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{suffix}"
    return f"{number:.0f}"
