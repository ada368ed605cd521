"""What a language model adds to the search for a reward, next to random search of equal size and to rewards by hand.

    python benchmarks/llm_designers.py                                # the embedded model, everything missing, table
    python benchmarks/llm_designers.py --names gridworld --preset card
    python benchmarks/llm_designers.py --model NAME --base-url URL    # a capable endpoint, nothing else changes
    python benchmarks/llm_designers.py --searches 10                  # ten per task: what the model adds, with interval
    python benchmarks/llm_designers.py --table                        # only the tables

Each search trains ``rounds`` x ``candidates`` rewards with ``search_seeds`` runs each. A random search over the same
language trains as many with as many steps. The best of either, the sparse and the hand-made dense reward are then
trained anew with ``final_seeds`` seeds that no search has seen. Figures are interquartile means over seeds with 95 %
intervals, of the success of the task itself at the end of training. One line of JSON per search goes to ``--out``.

One search is one draw. With ``--searches N`` the seeds ``seed`` to ``seed + N - 1`` give N searches per task, each next
to a random search of its own, and a second table says what the model adds: the difference of the two, with an interval
over searches. Searches lie in ``--folder``; what was interrupted goes on there, and finished ones are not run again.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from host_learning import append, read

from reward_design.envs import task as find
from reward_design.experiments.provenance import provenance
from reward_design.experiments.statistics import bootstrap
from reward_design.llm import chat_model, design
from reward_design.llm.designers.controls import compare_with_controls

TASKS: dict[str, dict[str, Any]] = {
    "gridworld": {"steps": 16_384, "config": {}},
    "key_door": {"steps": 24_576, "config": {}},
    "mujoco/InvertedPendulum": {"steps": 16_384, "config": {"num_envs": 8, "num_steps": 128}},
    "minihack/Room-5x5": {"steps": 8_192, "config": {"num_envs": 8, "num_steps": 128}},
}
"""Steps of a run, small enough for two cores, and settings of PPO."""


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        names: tasks.
        preset: who designs.
        model: embedded, a file, or a model on a server.
        base_url: address of the server.
        language: of the candidates.
        rounds: of a search.
        candidates: of a round.
        search_seeds: runs of each candidate.
        final_seeds: runs of the comparison.
        scale: multiplies the steps of all runs.
        searches: how many per task.
        seed: of the first search; the others count on.
        folder: for the searches themselves.
        out: records.
        table: print the tables of what is there, run nothing.
    """

    names: tuple[str, ...] = tuple(TASKS)
    preset: str = "eureka"
    model: str = "embedded"
    base_url: str | None = None
    language: str = "terms"
    rounds: int = 2
    candidates: int = 3
    search_seeds: int = 1
    final_seeds: int = 5
    scale: float = 1.0
    searches: int = 1
    seed: int = 0
    folder: Path = Path("results/llm_designers")
    out: Path = Path(__file__).with_name("records") / "llm_designers.jsonl"
    table: bool = False


def main(args: Args) -> None:
    """Run what is missing, then print the tables."""
    for name in () if args.table else args.names:
        for seed in range(args.seed, args.seed + args.searches):
            known = [_key(r) for r in read(args.out)]
            mine = (name, args.preset, args.model, args.rounds, args.candidates, _steps(args, name))
            if (*mine, seed) not in known:
                append(args.out, measure(args, name, seed, compared=any(key[:-1] == mine for key in known)))
    table(read(args.out))
    gains(read(args.out))


def _steps(args: Args, name: str) -> int:
    return int(TASKS[name]["steps"] * args.scale)


def _key(record: dict[str, Any]) -> tuple[Any, ...]:
    """What tells searches apart; all but the last entry, the seed, tells apart what they are searches of."""
    return tuple(record[k] for k in ("task", "preset", "model", "rounds", "candidates", "steps", "seed"))


def measure(args: Args, name: str, seed: int, *, compared: bool) -> dict[str, Any]:
    """One search with its controls; rewards by hand are left out if a search before was compared with them."""
    task, steps, begun = find(name), _steps(args, name), time.perf_counter()
    folder = args.folder / f"{args.preset}-{Path(args.model).name}" / f"{name.replace('/', '-')}-{seed}"
    shared: dict[str, Any] = {
        "rounds": args.rounds, "candidates": args.candidates, "seeds": args.search_seeds, "steps": steps,
        "config": TASKS[name]["config"], "seed": seed,
    }  # fmt: skip
    tell = lambda event: print(f"{name}, search {seed}: {event.text}", flush=True)  # noqa: E731
    model = chat_model(args.model, base_url=args.base_url, cache=folder / "answers")
    found = design(
        task, model=model, preset=args.preset, language=args.language, audits="none", out=folder, on_progress=tell,
        **shared,
    )  # fmt: skip
    searched = time.perf_counter() - begun
    results = compare_with_controls(
        task, found, label="model", final_seeds=args.final_seeds, by_hand=() if compared else ("sparse", "dense"),
        out=folder, on_progress=tell, **shared,
    )  # fmt: skip
    refused: dict[str, int] = {}
    for candidate in found.candidates:
        if candidate.refusal is not None:
            refused[candidate.refusal.stage] = refused.get(candidate.refusal.stage, 0) + 1
    final = {r: results.done[task.name, r] for r in results.rewards if (task.name, r) in results.done}
    return {
        "task": name, "preset": args.preset, "model": args.model, "seed": seed, "language": args.language,
        "steps": steps, "rounds": args.rounds, "candidates": args.candidates, "search_seeds": args.search_seeds,
        "drawn": len(found.candidates), "trained": sum(c.trained for c in found.candidates), "refused": refused,
        "stopped": found.stopped, "calls": found.used.calls, "tokens": found.used.tokens,
        "success": {r: unit.final("success").tolist() for r, unit in final.items()},
        "true_return": {r: unit.final("true_return").tolist() for r, unit in final.items()},
        "search_best": found.best.fitness if found.best else None, "source": found.best.source if found.best else "",
        "search_s": round(searched, 1), "wall_s": round(time.perf_counter() - begun, 1), **provenance(),
    }  # fmt: skip


def table(records: list[dict[str, Any]]) -> None:
    """One line per search; success at the end of training of each reward, and how many drawn candidates ran."""
    columns = ("sparse", "dense", "random", "model")
    print(f"{'task':<26}{'designer':<22}{'ran':>8}" + "".join(f"{c:>22}" for c in columns))
    for r in records:
        cells = "".join(f"{_estimate(r['success'].get(c)):>22}" for c in columns)
        print(f"{r['task']:<26}{r['preset'] + ', ' + r['model']:<22}{r['trained']:>4}/{r['drawn']:<3}{cells}")


def gains(records: list[dict[str, Any]]) -> None:
    """What the model adds over random search: the difference of the two, with an interval over searches."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for r in records:
        groups.setdefault(_key(r)[:-1], []).append(r)
    for key, searches in groups.items():
        print(f"{key[0]}: {key[1]}, {key[2]}, {len(searches)} searches of {key[3]} x {key[4]}, {key[5]:,} steps")
        for metric in ("success", "true_return"):
            differences = [d for r in searches if (d := gain(r[metric])) is not None]
            text = _estimate(differences) if len(differences) > 1 else "no interval, it takes two searches"
            print(f"  {metric.replace('_', ' ')}, model minus random, {len(differences)} pairs: {text}")


def gain(scores: dict[str, list[float | None]]) -> float | None:
    """Interquartile mean over final seeds of the model's best reward, minus that of the random search's.

    None if one of the searches has no reward: such pairs are left out and counted in the heading.
    """
    found = []
    for label in ("model", "random"):
        known = [s for s in scores.get(label) or [] if s is not None and np.isfinite(s)]
        if not known:
            return None
        found.append(float(bootstrap(np.asarray(known)).value))
    return found[0] - found[1]


def _estimate(scores: list[float] | None) -> str:
    known = [s for s in scores or [] if s is not None and np.isfinite(s)]
    if not known:
        return "-"
    found = bootstrap(np.asarray(known))
    return f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"


if __name__ == "__main__":
    main(tyro.cli(Args))
