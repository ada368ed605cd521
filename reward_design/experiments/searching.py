"""Search for the settings with which a reward design and an agent do best, judged by the true return."""

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from reward_design import envs
from reward_design._names import suggestion
from reward_design.agents import agent as find_agent
from reward_design.experiments import designs, executors, statistics, writers
from reward_design.experiments.comparison import seed_numbers
from reward_design.experiments.live import Live
from reward_design.experiments.progress import Progress
from reward_design.experiments.proposals import library, proposals, proposed
from reward_design.experiments.provenance import provenance
from reward_design.experiments.results import Results
from reward_design.experiments.space import AGENT, Changed, Range, space
from reward_design.experiments.statistics import Estimate
from reward_design.experiments.store import Store, StoreError
from reward_design.experiments.units import Order, Plan, planned

OBJECTIVES = ("true_return", "success")
"""What a search can maximise: the interquartile mean over seeds of one of these, over the last tenth of training."""


@dataclass(frozen=True)
class Trial:
    """One choice of settings.

    Attributes:
        number: from 0.
        label: of its unit in the records.
        settings: by full name.
        value: of the objective, with its 95 % interval; None if there is none.
        reason: why there is no value; empty if there is one.
    """

    number: int
    label: str
    settings: Mapping[str, float | int]
    value: Estimate | None
    reason: str = ""


@dataclass(frozen=True, eq=False)
class Search:
    """What a search found.

    Attributes:
        results: the units, as those of a comparison.
        trials: in the order in which they were proposed.
        objective: that was maximised.
    """

    results: Results
    trials: tuple[Trial, ...]
    objective: str

    @property
    def best(self) -> Trial:
        """The first of the trials with the highest value.

        Raises:
            ValueError: if no trial has one.
        """
        valued = [trial for trial in self.trials if trial.value is not None]
        if not valued:
            raise ValueError(f"no trial came to an end; the first stopped with: {self.trials[0].reason}")
        return max(valued, key=lambda trial: trial.value.value if trial.value else -np.inf)


def search(
    task: str | envs.Task,
    reward: Any = "sparse",
    *,
    space: Mapping[str, Any],
    trials: int = 20,
    seeds: int | Sequence[int] = 3,
    agent: str = "ppo",
    objective: str = "true_return",
    batch: int = 1,
    sampler_seed: int = 0,
    out: str | os.PathLike[str] = "results/search",
    total_timesteps: int | None = None,
    config: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    progress: bool = True,
    command: str | None = None,
    executor: executors.Executor | None = None,
) -> Search:
    """Try settings that a tree-structured Parzen estimator proposes, each with all seeds, and keep everything.

    A trial is a unit of a comparison whose design is called after its settings: records, report, export and merge work
    as there. Proposals depend on finished trials and ``sampler_seed`` alone, and are recorded before they are trained:
    a search that was interrupted goes on as if nothing had happened, and one with more ``trials`` adds to the others.
    Proposals come from Optuna (``pip install 'reward-design[tune]'``). The sampler is that of J. Bergstra, R. Bardenet,
    Y. Bengio and B. Kegl, "Algorithms for Hyper-Parameter Optimization", 2011 (NeurIPS 24).

    Args:
        task: name, or a task.
        reward: a design, see :func:`reward_design.experiments.resolve`.
        space: ranges by name: ``"agent.<setting>"`` for numeric settings of the agent, others are numbers in the
            ``params`` of the reward; ``"low,high"``, ``"log:low,high"``, ``(low, high)`` or a
            :class:`~reward_design.experiments.Range`.
        trials: how many, those of earlier calls included.
        seeds: a number n for seeds 0 to n - 1, or the seeds.
        agent: name of the agent, unless the design brings its own.
        objective: ``"true_return"`` or ``"success"``: the interquartile mean over seeds is maximised.
        batch: trials proposed at a time; as many as the executor trains at once.
        sampler_seed: another one proposes other settings.
        out: folder of the records.
        total_timesteps: environment steps per run; by default what suits the task.
        config: settings of the agent that stay, by name.
        overwrite: delete what ``out`` holds of another search.
        progress: show a progress bar.
        command: how to run this again, for the records.
        executor: where units are trained; by default here.

    Returns:
        A :class:`Search`. A trial whose settings do not fit together, or whose training fails, has a reason instead of
        a value.

    Raises:
        ValueError: before anything runs: for an unknown name, an empty range, a folder of another search.

    Example:
        >>> import tempfile
        >>> found = search("chain", "shaping", space={"agent.learning_rate": "log:1e-3,1"}, agent="q_learning",
        ...                trials=2, seeds=2, total_timesteps=256, config={"num_envs": 4, "num_steps": 32},
        ...                out=tempfile.mkdtemp(), progress=False)
        >>> [trial.number for trial in found.trials], list(found.best.settings)
        ([0, 1], ['agent.learning_rate'])
    """
    for name, value in (("trials", trials), ("batch", batch)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}.")
    if objective not in OBJECTIVES:
        near = suggestion(objective, OBJECTIVES)
        raise ValueError(f"unknown objective {objective!r}{near} Known: {', '.join(OBJECTIVES)}.")
    library()
    setup = _setup(task, reward, agent, space, seed_numbers(seeds), objective, total_timesteps, config or {})
    about = {"batch": batch, "sampler_seed": sampler_seed}
    with Store(out, lambda records: setup.identity(records, about), overwrite=overwrite) as kept:
        if overwrite:
            writers.clear(out)
        todo = trials - sum(setup.is_done(Results(kept.records), s) for s in proposed(kept.records)[:trials])
        started = False
        with Live(out) as live, Progress([setup.base] * todo, setup.seeds, enabled=progress, live=live) as bar:
            for first in range(0, trials, batch):
                chosen = proposals(kept, first, batch, sampler_seed, setup.ranges, setup.value)[: trials - first]
                plans = setup.todo(kept, chosen)
                if plans and not started:
                    kept.append({"kind": "session", "command": command or f"search({setup.label!r})", **provenance()})
                    started = True
                for record in (executor or executors.Here()).run(plans, setup.seeds, bar) if plans else ():
                    kept.append(record)
                    live.end((record["task"], record["reward"]))
        records = Results(kept.records)
    found = Search(
        records, tuple(setup.trial(records, i, s) for i, s in enumerate(proposed(kept.records)[:trials])), objective
    )
    from reward_design.experiments.search_output import write

    write(found, out)
    return found


# --- what a search is about -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Setup:
    """What the trials have in common."""

    base: Plan
    ranges: Mapping[str, Range]
    seeds: Sequence[int]
    objective: str

    @property
    def label(self) -> str:
        return self.base.label

    def identity(self, records: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> dict[str, Any]:
        """Of a folder with these records; the trials that it has belong to it."""
        known = [record["identity"] for record in records if record["kind"] == "comparison"]
        if known and "search" not in known[-1]:
            raise StoreError("the folder holds something else than a search; use another --out, or --overwrite.")
        old = known[-1] if known else {"rewards": [], "config": {}}
        return {
            "agent": self.base.learner.name,
            "seeds": list(self.seeds),
            "tasks": [self.base.task.name],
            "rewards": old["rewards"],
            "config": {**old["config"], self.base.task.name: asdict(self.base.config)},
            "search": {
                "reward": self.label,
                "program": self.base.fingerprint,
                "space": {name: asdict(found) for name, found in self.ranges.items()},
                "objective": self.objective,
                **about,
            },
        }

    def name(self, settings: Mapping[str, float | int]) -> tuple[str, str]:
        """Of the unit with these settings: it says what they are."""
        text = " ".join(f"{name.removeprefix(AGENT)}={value}" for name, value in settings.items())
        return self.base.task.name, f"{self.label} {text}"

    def plan(self, settings: Mapping[str, float | int]) -> Plan:
        """The unit with these settings; ValueError if they do not fit together."""
        order = self.base.order
        values = tuple((name, value) for name, value in settings.items() if not name.startswith(AGENT))
        config = {name.removeprefix(AGENT): v for name, v in settings.items() if name.startswith(AGENT)}
        return planned(
            order._replace(
                label=self.name(settings)[1],
                design=Changed(order.design, values) if values else order.design,
                config={**order.config, **config},
            )
        )

    def todo(self, kept: Store, chosen: Sequence[Mapping[str, float | int]]) -> list[Plan]:
        """Units that are not finished, entered into the folder; settings that do not fit together have none."""
        results, plans = Results(kept.records), {}
        for settings in chosen:
            if not self.is_done(results, settings):
                with contextlib.suppress(ValueError, TypeError):
                    plans[self.name(settings)] = self.plan(settings)
        if plans:
            old = kept.identity
            kept.extend(
                {
                    **old,
                    "rewards": list(dict.fromkeys((*old["rewards"], *(plan.label for plan in plans.values())))),
                    "config": {**old["config"]} | {" with ".join(n): asdict(p.config) for n, p in plans.items()},
                }
            )
        return list(plans.values())

    def is_done(self, results: Results, settings: Mapping[str, float | int]) -> bool:
        """Whether these settings need no more training."""
        return self.name(settings) in results.done

    def value(self, results: Results, settings: Mapping[str, float | int]) -> float | None:
        """Of the objective; None if these settings have none."""
        scores = self._scores(results, settings)
        return float(statistics.interquartile_mean(scores)) if len(scores) else None

    def trial(self, results: Results, number: int, settings: Mapping[str, float | int]) -> Trial:
        """What became of these settings."""
        scores, name = self._scores(results, settings), self.name(settings)
        if len(scores):
            value = Estimate(*map(float, statistics.bootstrap(scores)))
            return Trial(number, name[1], settings, value)
        if name in results.done:
            return Trial(number, name[1], settings, None, "no episode ended")
        if name in results.failed:
            return Trial(number, name[1], settings, None, results.failed[name].reason)
        try:
            self.plan(settings)
        except (ValueError, TypeError) as error:
            return Trial(number, name[1], settings, None, str(error))
        return Trial(number, name[1], settings, None, "not trained")

    def _scores(self, results: Results, settings: Mapping[str, float | int]) -> np.ndarray:
        unit = results.done.get(self.name(settings))
        scores = np.empty(0) if unit is None else unit.final(self.objective)
        return scores[np.isfinite(scores)]


def _setup(
    task: str | envs.Task,
    reward: Any,
    agent: str,
    ranges: Mapping[str, Any],
    seeds: Sequence[int],
    objective: str,
    total_timesteps: int | None,
    config: Mapping[str, Any],
) -> _Setup:
    task = envs.task(task) if isinstance(task, str) else task
    ((label, design),) = designs.labelled([reward]).items()
    learner = find_agent(designs.agent_of(design, agent))
    base = planned(Order(task, label, design, learner.name, total_timesteps, dict(config)))
    checked = space(ranges, learner, base.reward, task)
    for name in checked:
        if name.removeprefix(AGENT) in config and name.startswith(AGENT):
            raise ValueError(f"{name!r} has a range and a fixed value; leave one of them out.")
    return _Setup(base, checked, seeds, objective)
