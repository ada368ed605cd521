"""What becomes of every fault of a server of language models, at random places of many rounds.

    python benchmarks/llm_faults.py --rounds 20

For each fault a real HTTP server on the loopback address (``tests/llm_server.py``) plays scripts in which the fault
comes one to three times at random places between good answers, and once in a while lastingly. Each round asks for four
samples. A round may end in progress (at least one answer), in an error with the name of the outcome, or at its budget;
what else it does, and what takes longer than the limit that follows from the settings, is a failure of the client. A
line of JSON per fault goes to standard output, or is appended to ``--out``; the exit status is 1 if anything failed.
"""

import dataclasses
import json
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import tyro

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from reward_design.experiments.provenance import provenance
from reward_design.llm import Budget, BudgetExceeded, ModelError, Retry, chat_model
from tests.llm_server import STEPS, ScriptedServer

MESSAGES = [{"role": "user", "content": "Was the key picked up?"}]
SCHEMA = {
    "type": "object",
    "properties": {"achieved": {"type": "boolean"}, "evidence": {"type": "string"}},
    "required": ["achieved", "evidence"],
}
SAMPLES = 4


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        rounds: per fault.
        lasting: share of rounds in which the fault never ends.
        time_limit: of an attempt, in seconds.
        retries: of an attempt.
        seconds: wall time of a round, as its budget.
        seed: of the scripts.
        out: file to append to.
    """

    rounds: int = 20
    lasting: float = 0.2
    time_limit: float = 0.5
    retries: int = 3
    seconds: float = 8.0
    seed: int = 0
    out: Path | None = None


def script(fault: str, rng: random.Random, lasting: float) -> list[str]:
    """Good answers with the fault one to three times at random places; or nothing but the fault."""
    if rng.random() < lasting:
        return [fault] * 200
    steps = ["good"] * SAMPLES
    for _ in range(rng.randint(1, 3)):
        steps.insert(rng.randint(0, len(steps)), fault)
    return steps


def play(args: Args, fault: str, rng: random.Random) -> tuple[str, float, Counter[str]]:
    """How a round ended, after how long, and what happened in it."""
    with ScriptedServer(script(fault, rng, args.lasting)) as server:
        model = chat_model(
            "m", base_url=server.url, time_limit=args.time_limit, max_tokens=64, parallel=rng.choice((1, 4)),
            retries=Retry(args.retries, first=0.02), budget=Budget(seconds=args.seconds),
        )  # fmt: skip
        begun = time.monotonic()
        try:
            answers = model.ask(MESSAGES, samples=SAMPLES, schema=SCHEMA)
            end = "complete" if len(answers) == SAMPLES else "partial"
        except ModelError as error:
            end = f"error: {error.outcome}"
        except BudgetExceeded as stop:
            end = f"budget: {stop.limit}"
        except Exception as error:  # this is what must not happen
            end = f"FAILED: {type(error).__name__}: {error}"
        seconds = time.monotonic() - begun
        return end, seconds, model.outcomes


def measure(args: Args, fault: str) -> dict[str, Any]:
    """The table's line of a fault."""
    rng, ends, happened, times = random.Random(f"{args.seed} {fault}"), Counter(), Counter(), []
    for _ in range(args.rounds):
        end, seconds, outcomes = play(args, fault, rng)
        late = seconds > args.seconds + args.time_limit + 2.0
        ends["FAILED: late" if late else end] += 1
        happened += outcomes
        times.append(seconds)
    failed = sum(number for end, number in ends.items() if end.startswith("FAILED"))
    return {
        "fault": fault, "rounds": args.rounds, "failed": failed, "ends": dict(ends.most_common()),
        "outcomes": dict(happened.most_common()), "slowest_s": round(max(times), 2),
    }  # fmt: skip


def main() -> int:
    """Measure all faults."""
    args = tyro.cli(Args, description=__doc__)
    lines = [measure(args, fault) for fault in STEPS]
    total, failed = sum(line["rounds"] for line in lines), sum(line["failed"] for line in lines)
    for line in lines:
        ends = ", ".join(f"{number} {end}" for end, number in line["ends"].items())
        print(f"{line['fault']:20} {line['slowest_s']:6.2f} s  {ends}", file=sys.stderr)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    summary = {"rounds": total, "failed": failed, "ended_well": 1 - failed / total}
    record = json.dumps({"benchmark": "llm_faults", **summary, "lines": lines, "args": settings, **provenance()})
    if args.out is None:
        print(record)
    else:
        with args.out.open("a") as file:
            file.write(record + "\n")
    print(f"{total - failed} of {total} rounds ended in progress, a named error or at their budget.", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
