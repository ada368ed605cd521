"""The core size of the suite: its records in little space, and the table and the figure that the docs show.

    reward-design compare --suite core --size core --out results/core --executor processes --workers 2
    python benchmarks/core_suite.py --results results/core   # keeps what is finished, then prints and draws
    python benchmarks/core_suite.py                          # prints and draws again from what was kept

Records lose the learning curves except a few points of the true return, the losses, and the maps. They lie as those of
a suite do, so that ``reward_design.experiments.suites.load_verdict`` reads them.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib
import tyro
from matplotlib.figure import Figure

from reward_design.experiments import plots, suites
from reward_design.experiments.records import FILE, FORMAT, encoded
from reward_design.experiments.statistics import Estimate
from reward_design.experiments.store import read

HERE = Path(__file__).parent
COMMAND = "reward-design compare --suite core --size core"
POINTS = 24
"""Points of a learning curve that are kept."""
EXACT = ("kind", "task", "fingerprints", "names", "matrix", "regret", "reason")


@dataclasses.dataclass
class Args:
    """Settings of the script.

    Attributes:
        results: folder of a suite, finished or not; without it the kept records are shown.
        records: where they are kept.
        figure: where the picture goes.
    """

    results: Path | None = None
    records: Path = HERE / "records" / "core_suite"
    figure: Path = HERE.parent / "docs" / "images" / "core_suite.png"


def main(args: Args) -> None:
    """Keep, print, draw."""
    if args.results is not None:
        for path in sorted(args.results.glob(f"*/*/{FILE}")):
            keep(read(path.parent), args.records / path.parent.relative_to(args.results) / FILE)
    judged = suites.load_verdict(suites.load_suite("core", "core"), args.records)
    print(table(judged))
    print("\n".join(f"- {sentence}" for sentence in suites.sentences(judged)))
    draw(judged, args.figure)


def keep(records: Iterable[Mapping[str, Any]], path: Path) -> None:
    """Write records without what takes much space."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(encoded(small(record)) for record in records))


def small(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record without learning curves, losses and maps; the true return keeps some points."""
    if record["kind"] == "comparison":
        return {**record, "format": FORMAT}
    if record["kind"] == "artifact":
        return {**record, "file": Path(record["file"]).name}
    if record["kind"] == "session":
        return {**record, "command": COMMAND}
    if record["kind"] == "exact":
        return {key: record[key] for key in EXACT if key in record}
    if record["kind"] != "unit" or record["status"] != "done":
        return dict(record)
    kept = range(len(record["steps"]) - 1, -1, -max(1, len(record["steps"]) // POINTS))
    at = sorted(kept)
    curve = [[rounded(seed[i]) for i in at] for seed in record["curves"]["true_return"]]
    final = {name: [rounded(value) for value in values] for name, values in record["final"].items()}
    shown = {"steps": [record["steps"][i] for i in at], "curves": {"true_return": curve}, "final": final}
    return {key: value for key, value in record.items() if key != "losses"} | shown


def rounded(value: float | None) -> float | None:
    """Five digits."""
    return None if value is None else float(f"{value:.5g}")


def table(judged: suites.Verdict) -> str:
    """A line per design, the best first."""
    rows = ["| design | tasks | score | beats sparse | helped on | harmed on |", "|---|---|---|---|---|---|"]
    for line in sorted(judged.lines, key=lambda line: -(line.score.value if line.score else -1.0)):
        helped, harmed = (", ".join(judged.tasks[name] for name in names) for names in (line.helped, line.harmed))
        score, beats = (shown(line.score, 1.0, ".2f"), shown(line.improvement, 100.0, ".0f", "%"))
        rows.append(f"| `{line.reward}` | {line.num_tasks} | {score} | {beats} | {helped} | {harmed} |")
    return "\n".join(rows)


def shown(value: Estimate | None, factor: float, digits: str, unit: str = "") -> str:
    """An estimate with its interval."""
    if value is None:
        return ""
    middle, low, high = (f"{factor * x:{digits}}{unit}" for x in (value.value, value.low, value.high))
    return f"{middle} ({low} to {high})"


def draw(judged: suites.Verdict, path: Path) -> None:
    """The map of scores as a picture on white."""
    style: Any = {**plots.STYLE, "figure.facecolor": "white"}
    with matplotlib.rc_context(style):
        size = 2.2 + 0.62 * len(judged.results), 1.4 + 0.3 * len(judged.rewards)
        figure = Figure(figsize=size, layout="constrained", dpi=150)
        suites.score_map(judged, figure.add_subplot())
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)


if __name__ == "__main__":
    main(tyro.cli(Args))
