"""F1 of a language model that judges which sub-goals a step achieves, on MiniHack's KeyRoom, beside simple baselines.

    python benchmarks/llm_annotators.py --steps 60
    python benchmarks/llm_annotators.py --model llama3.1 --base-url http://127.0.0.1:11434/v1

Steps come from random play, in equal parts with the key picked up, the door opened, and neither; labels from what the
game did. The table goes to standard error, a line of JSON to standard output, or is appended to ``--out``. With
``--cache`` a second run, with the same model and steps, asks nothing.
"""

import dataclasses
import json
import sys
import time
from pathlib import Path
from typing import Any

import tyro

from reward_design.envs import task
from reward_design.experiments.provenance import provenance
from reward_design.llm import annotate, chat_model
from reward_design.llm.annotate_calm import Score, baselines
from reward_design.llm.annotate_prompts import Prompt
from reward_design.llm.annotate_steps import record_steps


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        model: who judges.
        base_url: of its server.
        task: a level of KeyRoom.
        steps: to judge.
        natural: steps as they come, instead of equal parts.
        prompts: ``both``, ``map`` or ``message``: what the model is shown, a row each.
        temperature: of sampling.
        cache: folder of answers.
        seed: of the steps.
        out: file to append to.
    """

    model: str = "embedded"
    base_url: str | None = None
    task: str = "minihack/KeyRoom-S5"
    steps: int = 60
    natural: bool = False
    prompts: tuple[str, ...] = ("both", "map", "message")
    temperature: float = 0.1
    cache: Path | None = None
    seed: int = 0
    out: Path | None = None


def main() -> None:
    """Judge, score, print."""
    args, rows = tyro.cli(Args, description=__doc__), []
    steps = record_steps(task(args.task), args.steps, balanced=not args.natural, seed=args.seed)
    rows += [(name, "-", scores, 0.0, {}) for name, scores in baselines(steps).items()]
    for shown in args.prompts:
        model = chat_model(
            args.model, base_url=args.base_url, temperature=args.temperature, max_tokens=300, cache=args.cache
        )
        prompt, begun = Prompt(show_map=shown != "message", show_message=shown != "map"), time.monotonic()
        done = annotate(model, steps, prompt=prompt, on_step=lambda i, n: print(f"\r{i}/{n}", end="", file=sys.stderr))
        rows.append((model.name, shown, done.scores(), time.monotonic() - begun, dict(model.outcomes)))
    print(
        f"\r{'judge':44} {'shown':8} {'sub-goal':8} {'F1':>5} {'prec.':>5} {'rec.':>5} {'acc.':>5} fail",
        file=sys.stderr,
    )
    for judge, shown, scores, _, _ in rows:
        for goal, s in scores.items():
            print(
                f"{judge:44} {shown:8} {goal:8} {s.f1:5.2f} {s.precision:5.2f} {s.recall:5.2f} {s.accuracy:5.2f} "
                f"{s.failures:4}", file=sys.stderr,
            )  # fmt: skip
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    lines = [line(*row) for row in rows]
    record = json.dumps({"benchmark": "llm_annotators", "lines": lines, "args": settings, **provenance()})
    if args.out is None:
        print(record)
    else:
        with args.out.open("a") as file:
            file.write(record + "\n")


def line(judge: str, shown: str, scores: dict[str, Score], seconds: float, outcomes: dict[str, int]) -> dict[str, Any]:
    """A row of the table as a record."""
    each = {goal: dataclasses.asdict(score) for goal, score in scores.items()}
    return {"judge": judge, "shown": shown, "seconds": round(seconds, 1), "outcomes": outcomes, "scores": each}


if __name__ == "__main__":
    main()
