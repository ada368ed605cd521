"""What BARFI makes of a heuristic that helps, one that harms and none, next to its baselines, on the study's tasks.

    python benchmarks/barfi.py                                    # all that is missing, then the table
    python benchmarks/barfi.py --tasks gridworld --methods barfi naive primary --seeds 20
    python benchmarks/barfi.py --table                            # only the table
    python benchmarks/barfi.py --figure docs/barfi.png            # the learning curves of what is there

All methods of a task have the same data, updates and inner learner (REINFORCE on the newest episodes); see
``reward_design.bilevel.method``. ``weight`` is the ceiling: a grid over one scalar weight of the heuristic, the best of
which is picked by the primary return of these very seeds. The settings were chosen on seeds from 100 on; reported are
0 to 19. One line of JSON per task, heuristic and method goes to ``--out``; what is there is not computed again.
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from host_learning import append, read

from reward_design.agents import train_seeds, use_all_cores
from reward_design.bilevel import BARFI, BarfiConfig, method
from reward_design.core import Reward
from reward_design.envs import Task, task
from reward_design.experiments.statistics import bootstrap

POINTS = 60
"""Points of a learning curve; the last six are the final tenth of training."""
WEIGHTS = (-1.0, -0.3, 0.0, 0.1, 0.3, 1.0)
"""Grid of the method ``weight``."""
MAIN = ("primary", "naive", "barfi")
OTHERS = (
    "barfi_discount", "shaping", "look_ahead", "look_ahead_corrected", "lirpg", "bipars_mgl", "bipars_imgl", "weight",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Study:
    """One task of the benchmark.

    Attributes:
        options: of the task.
        heuristics: names of auxiliary rewards; the other baselines run with the first.
        settings: of BARFI and all baselines.
        advice: of the look-ahead methods.
    """

    options: Mapping[str, Any]
    heuristics: tuple[str, ...]
    settings: Mapping[str, Any]
    advice: Any


STUDIES = {
    "gridworld": Study(
        {}, ("misaligned", "aligned", "none"), {"total_timesteps": 40_000, "horizon": 50, "reward_learning_rate": 0.1},
        lambda obs, action: 0.5 * (action <= 1),
    ),
    "mountain_car": Study(
        {"reward": "sparse", "horizon": 2000}, ("misaligned", "bang_bang", "velocity", "none"),
        {"total_timesteps": 480_000, "horizon": 2000, "reward_learning_rate": 0.3},
        lambda obs, action: 0.1 * (jnp.sign(obs[:, 1]) == action - 1),
    ),
    "cartpole": Study(
        {}, ("misaligned", "aligned", "none"),
        {"total_timesteps": 300_000, "horizon": 500, "inner_steps": 5, "reward_learning_rate": 0.1},
        lambda obs, action: 1.0 * ((0.1 * obs[:, 2] + 0.5 * obs[:, 3] > 0) == (action == 1)),
    ),
}  # fmt: skip


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        tasks: names of studies.
        heuristics: only these; by default all of a task.
        methods: names; the others than ``primary``, ``naive`` and ``barfi`` run with the first heuristic of a task.
        seeds: number of runs, in one vmap.
        first_seed: reported are 0 on.
        out: records.
        table: print the table of what is there, run nothing.
        figure: draw the learning curves of what is there, run nothing.
    """

    tasks: tuple[str, ...] = tuple(STUDIES)
    heuristics: tuple[str, ...] = ()
    methods: tuple[str, ...] = (*MAIN, *OTHERS)
    seeds: int = 20
    first_seed: int = 0
    out: Path = Path(__file__).with_name("records") / "barfi.jsonl"
    table: bool = False
    figure: Path | None = None


def main(args: Args) -> None:
    """Run what is missing and print the table."""
    if args.figure is not None:
        draw(read(args.out), args.figure)
        return
    if not args.table:
        use_all_cores()
    for where, heuristic, name in () if args.table else wanted(args):
        if (where, heuristic, name) not in {(r["task"], r["heuristic"], r["method"]) for r in read(args.out)}:
            row = run(where, heuristic, name, range(args.first_seed, args.first_seed + args.seeds))
            append(args.out, row)
            print(f"{name} on {where} with {heuristic}: {np.median(final(row)):.3g}, {row['wall_s']:.0f} s", flush=True)
    print(table(read(args.out)))


def wanted(args: Args) -> list[tuple[str, str, str]]:
    """Task, heuristic and method of every run; what does not see the heuristic is run once."""
    chosen = []
    for where in args.tasks:
        names = [name for name in STUDIES[where].heuristics if name in (args.heuristics or STUDIES[where].heuristics)]
        chosen += [
            (where, h, m)
            for h in names
            for m in args.methods
            if m in ("naive", "barfi") and (m, h) != ("naive", "none")
        ]
        first = STUDIES[where].heuristics[0]
        blind = ("primary", "shaping", "look_ahead", "look_ahead_corrected")
        chosen += [(where, "", m) for m in args.methods if m in blind]
        chosen += [(where, first, m) for m in args.methods if m in OTHERS and m not in blind and first in names]
    return sorted(chosen, key=lambda run: ([*MAIN, *OTHERS].index(run[2]), args.tasks.index(run[0])))


def run(where: str, heuristic: str, name: str, seeds: Sequence[int]) -> dict[str, Any]:
    """All seeds of one method in one vmap."""
    study = STUDIES[where]
    known: Task = task(where, **study.options)
    auxiliary = known.auxiliary[heuristic or "none"]
    start = time.perf_counter()
    if name == "weight":
        curves = {weight: _train(study, known, *_weighted(known, auxiliary, weight), seeds) for weight in WEIGHTS}
        best = max(curves, key=lambda weight: np.median(curves[weight]["true_return"][:, -POINTS // 10 :].mean(1)))
        kept = {**curves[best], "weight": best}
    else:
        chosen = method(name, known, auxiliary, advice=study.advice)
        kept = _train(study, known, chosen.reward, chosen.settings, None, seeds)
    return {
        "task": where, "heuristic": heuristic, "method": name, "seeds": list(seeds), "settings": dict(study.settings),
        "wall_s": round(time.perf_counter() - start, 1),
        **{key: np.round(value, 3).tolist() for key, value in kept.items()},
    }  # fmt: skip


def _weighted(known: Task, auxiliary: Reward, weight: float) -> tuple[Reward, dict[str, Any], Any]:
    """Primary plus ``weight`` times heuristic: a blend that nobody learns."""
    reward = method("barfi", known, auxiliary).reward
    params = reward.init(jax.random.key(0), known.example)[0]
    return reward, {"outer": "none"}, {**params, "phi": (params["phi"][0], params["phi"][1], jnp.float32(weight))}


def _train(
    study: Study, known: Task, reward: Reward, changes: Mapping[str, Any], params: Any, seeds: Sequence[int]
) -> dict[str, np.ndarray]:
    config = BarfiConfig(**{"gamma": known.gamma, **study.settings, **changes})
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    metrics = train_seeds(BARFI, config, known, reward, keys, reward_params=params).metrics
    learned = [k for k in ("phi1", "phi2", "phi3", "discount") if k in metrics]
    curves = {"steps": _binned(metrics["env_steps"][:1])[0], "true_return": _binned(metrics["true_return"])}
    return curves | {name: np.asarray(metrics[name], float)[:, -1] for name in learned}


def _binned(values: Any) -> np.ndarray:
    """Means over equal parts of training ``[N, POINTS]``."""
    return np.stack([part.mean(1) for part in np.array_split(np.asarray(values, float), POINTS, axis=1)], axis=1)


def final(row: Mapping[str, Any]) -> np.ndarray:
    """Primary return per seed over the last tenth of training."""
    return np.asarray(row["true_return"])[:, -POINTS // 10 :].mean(1)


def reached(row: Mapping[str, Any], level: float) -> float:
    """Environment steps until the interquartile mean of the primary return is at ``level``; infinite if never."""
    curve = np.asarray(bootstrap(np.asarray(row["true_return"]), num_resamples=2).value)
    above = np.flatnonzero(curve >= level)
    return float(row["steps"][above[0]]) if len(above) else np.inf


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Interquartile means over seeds with intervals, as Markdown."""
    lines = [
        "| task | heuristic | method | seeds | primary return at the end | of primary alone | steps to 95 % of it "
        "| phi3 / phi2 |",
        f"|{'---|' * 8}",
    ]
    alone = {row["task"]: row for row in rows if row["method"] == "primary"}
    order = [*MAIN, *OTHERS]
    for row in sorted(rows, key=lambda r: (list(STUDIES).index(r["task"]), r["heuristic"], order.index(r["method"]))):
        scores = final(row)
        estimate = bootstrap(scores)
        cells = [row["task"], row["heuristic"] or "–", row["method"], len(scores)]
        cells += [f"{estimate.value:.3g} ({estimate.low:.3g} to {estimate.high:.3g})"]
        if row["task"] in alone:
            whole = float(bootstrap(final(alone[row["task"]])).value)
            steps = reached(row, whole - 0.05 * abs(whole))
            cells += [f"{estimate.value / whole:.0%}", f"{steps / 1000:,.0f}k" if np.isfinite(steps) else "never"]
        else:
            cells += ["", ""]
        if "weight" in row:
            cells += [f"{row['weight']:g}"]
        elif "phi3" in row:
            shares = np.asarray(row["phi3"]) / np.asarray(row["phi2"])
            cells += ["{:.2g} ({:.2g} to {:.2g})".format(*np.percentile(shares, (50, 25, 75)))]
        else:
            cells += [""]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def draw(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Learning curves of the main methods: tasks in rows, heuristics in columns."""
    import matplotlib
    from matplotlib.figure import Figure

    from reward_design.experiments import plots

    colours = {"primary": "#8b8f98", "naive": "#d55e00", "barfi": "#009e73"}
    columns = max(len(study.heuristics) for study in STUDIES.values())
    style: Any = {**plots.STYLE, "figure.facecolor": "white"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(3.1 * columns, 2.5 * len(STUDIES)), layout="constrained")
        axes = figure.subplots(len(STUDIES), columns, squeeze=False)
        for line, (where, study) in zip(axes, STUDIES.items(), strict=True):
            for ax in line[len(study.heuristics) :]:
                ax.set_axis_off()
            for ax, heuristic in zip(line, study.heuristics, strict=False):
                for name, colour in colours.items():
                    found = [
                        r
                        for r in rows
                        if (r["task"], r["method"]) == (where, name) and r["heuristic"] in ("", heuristic)
                    ]
                    for row in found:
                        band = bootstrap(np.asarray(row["true_return"]), num_resamples=1000)
                        steps = np.asarray(row["steps"]) / 1000
                        ax.plot(steps, band.value, color=colour, label=name)
                        ax.fill_between(steps, band.low, band.high, color=colour, alpha=0.18, linewidth=0)
                ax.set_title(f"{where}, {heuristic}", fontsize=9)
                ax.set_xlabel("thousand steps")
        axes[0][0].set_ylabel("primary return")
        axes[0][0].legend(frameon=False, fontsize=8)
        figure.savefig(path, dpi=130)


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
