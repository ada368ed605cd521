"""Kill, starve and damage runs at random moments, resume them, and compare every number with an undisturbed run.

    python benchmarks/fault_drill.py --kills 100 --out benchmarks/records/fault_drill.jsonl

A run is ``reward-design compare`` on a small suite (``benchmarks/fault_drill.toml``), or ``reward-design train`` with
its checkpoints. It is struck several times: at a time drawn from the length of an undisturbed run, or at a drawn change
of its folder; after each blow the same command goes on from what is there, and at last it goes to the end. Then every
number of every record (and of the last checkpoint) must be that of an undisturbed run, bit for bit; only times, places
and the notes of sessions are left out. The blows:

- ``trainer``: ``kill -9`` of ``train``; ``here``: of ``compare``, which trains in its own process; ``driver``: of
  ``compare --executor processes``; ``worker``: of a worker process, while the driver lives.
- ``interrupt``: Ctrl-C. ``clock``: killed, under a clock that jumps by years in both directions.
- ``damage``: killed, then the last record on disk is cut, overwritten with noise or zeros, or gets a wrong digit.
- ``disk``: no file of ``compare`` may grow beyond a drawn size; ``checkpoint``: of ``train``. ``folder``: the folder is
  read-only. ``second``: another process wants the folder meanwhile.

Every blow is a line in ``--out`` with the verdict on its run, written when that is finished: the drill itself can be
stopped and called again. The exit status is 1 if anything was lost, doubled or different.
"""

import dataclasses
import json
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reward_design.experiments.provenance import provenance
from tests.fault_blows import BLOWS, KILLS, Scene
from tests.fault_tools import Program, judge, results, torn, whole_lines

SUITE = ("compare", "--suite", "benchmarks/fault_drill.toml", "--quiet", "--executor")
TRAIN = ("train", "--task", "chain", "--reward", "shaping", "--agent", "q_learning", "--total-timesteps", "20000")
PROGRAMS = {
    "train": Program(TRAIN),
    "here": Program((*SUITE, "here")),
    "processes": Program((*SUITE, "processes", "--workers", "2")),
}


@dataclasses.dataclass(frozen=True)
class Args:
    """Settings of the drill.

    Attributes:
        kills: blows of the chosen kinds in all, those of earlier calls included.
        kinds: of blows; by default those that kill.
        most: blows that one run takes at most, before it goes to its end.
        seed: of the moments.
        out: file to append to.
    """

    kills: int = 100
    kinds: tuple[str, ...] = KILLS
    most: int = 12
    seed: int = 0
    out: Path = Path("results/fault_drill.jsonl")


class Drill:
    """Undisturbed runs, made once, and disturbed ones."""

    def __init__(self, args: Args, folder: Path) -> None:
        self.args, self.folder = args, folder
        self.programs = {name: program.cached(folder / "cache") for name, program in PROGRAMS.items()}
        self.expected: dict[str, list[tuple[str, str]]] = {}
        self.span: dict[str, float] = {}

    def undisturbed(self, name: str) -> None:
        """Run a program once, for its results and its length."""
        if name not in self.expected:
            program, out = self.programs[name], self.folder / f"undisturbed-{name}"
            _finished(program, self.folder / f"first-{name}")  # compiles
            begun = time.monotonic()
            _finished(program, out)
            self.expected[name], self.span[name] = results(out), time.monotonic() - begun

    def run(self, number: int, kind: str) -> list[dict[str, Any]]:
        """One run with several blows: a row each, all with the verdict on the run."""
        rng, (name, blow) = random.Random(f"{self.args.seed} {kind} {number}"), BLOWS[kind]
        self.undisturbed(name)
        scene = Scene(self.programs[name], self.folder / f"{kind}-{number}", rng, self.span[name])
        rows, before = [], []
        most = rng.randint(max(1, self.args.most // 2), self.args.most)
        while len(rows) < most and (struck := blow(scene)):
            before.append(whole_lines(scene.out))
            rows += [row | {"records": before[-1].total(), "torn": torn(scene.out)} for row in struck]
        ended = len(rows) < most and judge(scene.out, self.expected[name], before).equal  # by itself, before a blow
        if not ended:
            _finished(scene.program, scene.out)
        verdict = dataclasses.asdict(judge(scene.out, self.expected[name], before))
        if verdict["equal"] and not verdict["lost"] and not verdict["doubled"]:
            shutil.rmtree(scene.out)
        else:
            print(f"look at {scene.out} and {self.folder / f'undisturbed-{name}'}", file=sys.stderr)
        head = {"kind": kind, "program": name, "run": number, "seed": self.args.seed}
        return [{**head, **row, **verdict} for row in rows]


def _finished(program: Program, out: Path) -> None:
    status, _, errors = program.finish(out)
    if status:
        raise RuntimeError(f"{' '.join(program.words)} ended with {status} on {out}:\n{errors}")


def known_rows(out: Path) -> list[dict[str, Any]]:
    """Rows of earlier calls."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.is_file() else []


def table(rows: list[dict[str, Any]]) -> list[str]:
    """A line per kind of blow: how many, how many in runs that ended equal, results lost and doubled."""
    kinds: Mapping[str, list[dict[str, Any]]] = defaultdict(list)
    for row in rows:
        kinds[row["kind"]].append(row)
    lines = [f"{'kind':<10} {'blows':>6} {'runs':>5} {'equal':>6} {'lost':>5} {'doubled':>8}"]
    for kind, found in kinds.items():
        runs = {row["run"]: row for row in found}.values()
        lost, doubled = (sum(run[key] for run in runs) for key in ("lost", "doubled"))
        equal = sum(row["equal"] for row in found)
        lines.append(f"{kind:<10} {len(found):>6} {len(runs):>5} {equal:>6} {lost:>5} {doubled:>8}")
    return lines


def main() -> int:
    """Go on until there are as many blows as asked for."""
    args = tyro.cli(Args, description=__doc__)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as in the background of a script; programs would inherit it
        signal.signal(signal.SIGINT, signal.default_int_handler)
    unknown = sorted({*args.kinds} - {*BLOWS})
    if unknown:
        raise ValueError(f"unknown kinds of blows {unknown}; known: {', '.join(BLOWS)}.")
    args.out.parent.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="fault_drill_"))
    drill, rows = Drill(args, folder), known_rows(args.out)
    while True:
        counts = Counter(dict.fromkeys(args.kinds, 0))
        counts.update(row["kind"] for row in rows if row["kind"] in args.kinds)
        if counts.total() >= args.kills:
            break
        kind = min(args.kinds, key=lambda kind: counts[kind])
        number = 1 + max((row["run"] for row in rows if row["kind"] == kind), default=-1)
        new = drill.run(number, kind)
        rows += new
        where = {key: value for key, value in provenance().items() if key in ("commit", "device", "time")}
        with args.out.open("a") as file:
            file.writelines(json.dumps(row | where) + "\n" for row in new)
        print(f"{kind} {number}: {len(new)} blows, {counts.total() + len(new)} of {args.kills}", file=sys.stderr)
    print("\n".join(table(rows)))
    bad = [row for row in rows if row["lost"] or row["doubled"] or not row["equal"]]
    if not bad:
        shutil.rmtree(folder)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
