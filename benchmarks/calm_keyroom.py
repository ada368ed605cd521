"""CALM on MiniHack's KeyRoom: does a bonus for steps that were judged to achieve a sub-goal help an agent that learns?

    python benchmarks/calm_keyroom.py --total-timesteps 200000 --seeds 5
    python benchmarks/calm_keyroom.py --judges labels embedded --steps 300 --cache results/calm/answers

Steps of random play, a third each with the key picked up, the door opened and neither, are judged: by what the game did
(``labels``), by words in the message (``keyword``), or by a model (its name, ``embedded`` for the small one). Each
judge's verdicts become a bonus beside the sparse reward, and PPO learns with each and with the sparse reward alone, on
the same seeds. Before that every judge's table is tried on other steps: how many of their achievements does it pay?

The tables go to standard error, a line of JSON to standard output, or is appended to ``--out``. Runs are kept in
``--folder``: the same command goes on where it was interrupted.
"""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

import reward_design as rd
from reward_design.agents import use_all_cores
from reward_design.envs import task
from reward_design.experiments import compare, designs, terminal
from reward_design.experiments.provenance import provenance
from reward_design.llm import annotate, chat_model, subgoal_reward
from reward_design.llm.annotate_calm import Annotations, programmatic, score
from reward_design.llm.annotate_keys import digest, look_up
from reward_design.llm.annotate_steps import KEYROOM, Step, record_steps
from reward_design.llm.annotate_subgoals import table


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        judges: ``labels``, ``keyword``, or names of models.
        base_url: of the models' server.
        task: a level of KeyRoom.
        steps: to judge.
        held_out: other steps, on which the tables are tried.
        play: steps of random play in which they are looked for.
        beta: weight of the bonus.
        every_time: pay a sub-goal every time, as the released code, instead of once in an episode.
        total_timesteps: of each run.
        num_envs: environments of a run.
        seeds: runs of each reward.
        cache: folder of the models' answers.
        folder: of the runs.
        seed: of the steps.
        out: file to append to.
    """

    judges: tuple[str, ...] = ("labels", "keyword")
    base_url: str | None = None
    task: str = "minihack/KeyRoom-S5"
    steps: int = 3000
    held_out: int = 300
    play: int = 1_000_000
    beta: float = 0.5
    every_time: bool = False
    total_timesteps: int = 200_000
    num_envs: int = 16
    seeds: int = 5
    cache: Path | None = None
    folder: Path = Path("results/calm")
    seed: int = 0
    out: Path | None = None


def main() -> None:
    """Judge, look up, train, print."""
    use_all_cores()
    args = tyro.cli(Args, description=__doc__)
    room = task(args.task)
    steps = record_steps(room, args.steps, seed=args.seed, most=args.play)
    others = record_steps(room, args.held_out, seed=args.seed + 1, most=args.play)
    found = {name: verdicts(name, steps, args) for name in args.judges}
    tried = {name: coverage(said, others) for name, said in found.items()}
    for name, scores in tried.items():
        line = ", ".join(f"{goal} {s['recall']:.2f} (precision {s['precision']:.2f})" for goal, s in scores.items())
        print(f"{name}: share of achievements in other steps that its table pays: {line}", file=sys.stderr)
    rewards: dict[str, Any] = {"sparse": "sparse"}
    rewards |= {name: with_bonus(room, said, args) for name, said in found.items()}
    results = compare(
        room, rewards, seeds=args.seeds, total_timesteps=args.total_timesteps, config={"num_envs": args.num_envs},
        out=args.folder, report=False, progress=sys.stderr.isatty(),
    )  # fmt: skip
    terminal.show(results)
    settings = {name: str(value) if isinstance(value, Path) else value for name, value in vars(args).items()}
    record = {"benchmark": "calm_keyroom", "args": settings, "coverage": tried, "rows": rows(results), **provenance()}
    if args.out is None:
        print(json.dumps(record))
    else:
        with args.out.open("a") as file:
            file.write(json.dumps(record) + "\n")


def verdicts(judge: str, steps: Sequence[Step], args: Args) -> Annotations:
    """What a judge says about steps."""
    if judge == "labels":
        return programmatic(steps)
    if judge == "keyword":
        said = np.array([[goal.mentioned(step) for goal in KEYROOM.values()] for step in steps], float)
        return Annotations(steps, KEYROOM, said, [[""] * len(KEYROOM) for _ in steps], Counter())
    model = chat_model(judge, base_url=args.base_url, temperature=0.1, max_tokens=300, cache=args.cache)
    return annotate(model, steps, on_step=lambda i, n: print(f"\r{judge} {i}/{n}", end="", file=sys.stderr))


def coverage(found: Annotations, others: Sequence[Step]) -> dict[str, dict[str, float]]:
    """How the table of a judge fits the labels of other steps, per sub-goal."""
    keys, values, _ = table(found)
    raw = np.array([np.frombuffer(step.key, np.uint8) for step in others])
    paid = np.asarray(jax.vmap(look_up, (None, 1, None), 1)(*map(jnp.asarray, (keys, values, digest(raw, np)))))
    truth = programmatic(others, found.subgoals).verdicts > 0.5
    each = {name: score((paid[:, i] > 0.5).astype(float), truth[:, i]) for i, name in enumerate(found.subgoals)}
    return {name: {"precision": s.precision, "recall": s.recall, "f1": s.f1} for name, s in each.items()}


def with_bonus(room: Any, found: Annotations, args: Args) -> rd.Reward:
    """The sparse reward and the bonus."""
    bonus = subgoal_reward(found, beta=args.beta, once=not args.every_time)
    return rd.weighted_sum(task=designs.resolve("sparse", room), subgoals=bonus)


def rows(results: Any) -> list[dict[str, Any]]:
    """Success and return of each reward at the end, with intervals."""
    names = ("reward", "success", "true_return", "over_training")
    return [{name: getattr(row, name) for name in names} for row in results.rows]


if __name__ == "__main__":
    main()
