"""Train with several reward designs on several tasks over many seeds, and keep what happened."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from reward_design import envs
from reward_design.agents import agent as find_agent
from reward_design.core import Reward
from reward_design.experiments import artifacts, designs, executors, maps, room, tracking, writers
from reward_design.experiments.live import Live
from reward_design.experiments.progress import Progress
from reward_design.experiments.provenance import provenance
from reward_design.experiments.results import Results
from reward_design.experiments.store import FILE, Store, StoreError
from reward_design.experiments.units import NUM_POINTS, Order, Plan, planned


def compare(
    tasks: str | envs.Task | Sequence[str | envs.Task],
    rewards: str | Reward | Sequence[Any] | Mapping[str, Any] = ("sparse", "dense", "shaping", "misaligned"),
    *,
    auxiliary: str | None = None,
    agent: str = "ppo",
    seeds: int | Sequence[int] = 20,
    out: str | os.PathLike[str] = "results/compare",
    total_timesteps: int | None = None,
    config: Any = None,
    overwrite: bool = False,
    extend: bool = False,
    progress: bool = True,
    report: bool = True,
    command: str | None = None,
    executor: executors.Executor | None = None,
    log: str | Sequence[str] = (),
) -> Results:
    """Train an agent with every reward design on every task, and judge the designs by the true return.

    One unit of work is a task and a design with all its seeds, vmapped and sharded over the local devices. Finished
    units are appended to ``out/records.jsonl`` and not computed again on the next call; units that failed are tried
    again. All designs get the same seeds. Call :func:`reward_design.agents.use_all_cores` first to use every core.

    Args:
        tasks: names, or tasks made with their own settings.
        rewards: names of designs, ``"module:attribute"``, rewards, functions ``task -> Reward``; or a mapping from
            labels to any of these.
        auxiliary: name of the auxiliary reward for the designs that take one and do not name theirs: ``"barfi"`` and
            ``"naive"`` become ``"barfi/<auxiliary>"`` and ``"naive/<auxiliary>"``.
        agent: name in :func:`reward_design.agents.list_agents`, also of another library: ``"sb3/ppo"``. A design that
            learns its reward, as ``"barfi"`` does, brings an agent of its own.
        seeds: a number n for seeds 0 to n - 1, or the seeds.
        out: folder of the records and of the report.
        total_timesteps: environment steps per run; by default what suits the task.
        config: settings of the agent to override by name, or a complete ``Config``; not for agents that designs bring.
        overwrite: delete what ``out`` holds of another comparison.
        extend: add tasks and designs to the comparison that ``out`` holds.
        progress: show a progress bar.
        report: write ``out/report.html``.
        command: how to run this again, for the report.
        executor: where units are trained: :class:`~reward_design.experiments.Processes` on this machine,
            :class:`~reward_design.experiments.RayCluster` on many; by default here, one after the other.
        log: ``"tensorboard"``, ``"wandb"`` (offline) or both: logs in ``out``, of every unit as it finishes and of
            those that ``out`` has already (``pip install 'reward-design[track]'``).

    Returns:
        :class:`reward_design.experiments.Results`, also of what earlier calls left in ``out``.

    Raises:
        ValueError: before anything runs: for an unknown name, a setting that does not fit, a reward of the wrong shape
            or with another gamma than the agent, a folder that belongs to another comparison, a disk that is too full.

    Example:
        >>> import tempfile
        >>> results = compare("chain", ["sparse", "shaping"], seeds=2, total_timesteps=512, out=tempfile.mkdtemp(),
        ...                   config={"num_envs": 4, "num_steps": 64}, progress=False, report=False)
        >>> results.done["chain", "sparse"].final("success").shape
        (2,)
    """
    seeds, logs = seed_numbers(seeds), writers.writers(log, out)
    labels = designs.labelled(designs.with_auxiliary(rewards, auxiliary))
    learner = find_agent(agent)
    known = _tasks(tasks)
    if extend:
        known, labels = _with_earlier(out, known, labels)
    plans = [
        planned(Order(task, label, design, agent, total_timesteps, config))
        for task in known.values()
        for label, design in labels.items()
    ]
    identity = {
        "agent": agent,
        "seeds": list(seeds),
        "tasks": list(known),
        "rewards": list(labels),
        "config": {_settings_of(plan, learner): asdict(plan.config) for plan in plans},
    }
    if not overwrite:
        artifacts.check(out, {plan.label: plan.reward for plan in plans})
    with Store(out, identity, overwrite=overwrite, extend=extend) as store:
        if overwrite:
            writers.clear(out)
        command = command or f"compare({list(known)}, {list(labels)}, agent={agent!r}, seeds={len(seeds)})"
        todo = _unfinished(store, plans)
        artifacts.note(store, {plan.label: (plan.order.design, plan.reward) for plan in plans})
        if todo:
            points = min(NUM_POINTS, max(plan.config.num_updates for plan in todo))
            needed = room.of_units(len(todo), len(seeds), points)
            room.check(out, needed, f"{len(todo)} units of {len(seeds)} seeds")
            store.append({"kind": "session", "command": command, **provenance()})
        _exact(store, plans)
        with (
            tracking.beside(logs) as written,
            Live(out) as live,
            Progress(todo, seeds, enabled=progress, live=live) as bar,
        ):
            if todo:
                written.prepare()
            for unit in Results(store.records).done.values():
                written.log_unit(unit.record)
            for record in (executor or executors.Here()).run(todo, seeds, bar):
                store.append(record)
                written.log_unit(store.records[-1])
                live.end((record["task"], record["reward"]))
        results = Results(store.records)
    if not report:
        return results
    from reward_design.experiments.report import write

    return write(results, out)


# --- what to do -----------------------------------------------------------------------------------------------------


def seed_numbers(seeds: int | Sequence[int]) -> tuple[int, ...]:
    """The seeds 0 to n - 1 for a number n; checked.

    Example:
        >>> seed_numbers(3)
        (0, 1, 2)
    """
    chosen = tuple(range(seeds)) if isinstance(seeds, int) else tuple(int(s) for s in seeds)
    if not chosen or min(chosen) < 0 or len(set(chosen)) < len(chosen):
        raise ValueError(f"seeds must be at least 1, or different numbers from 0 up, got {seeds}.")
    return chosen


def _tasks(tasks: Any) -> dict[str, envs.Task]:
    many = tasks if isinstance(tasks, Sequence) and not isinstance(tasks, str) else [tasks]
    known = [envs.task(t) if isinstance(t, str) else t for t in many]
    if not known or len({t.name for t in known}) < len(known):
        raise ValueError(f"expected at least one task, each with a name of its own, got {[t.name for t in known]}.")
    return {t.name: t for t in known}


def _with_earlier(
    out: Any, tasks: Mapping[str, envs.Task], labels: Mapping[str, Any]
) -> tuple[dict[str, envs.Task], dict[str, Any]]:
    """Tasks and designs that ``out`` holds, then the new ones, so that the grown comparison has no holes."""
    if not (Path(out) / FILE).is_file():
        return dict(tasks), dict(labels)
    old = Results.load(out)
    return (
        {name: tasks.get(name) or envs.task(name) for name in (*old.tasks, *tasks)},
        {label: labels.get(label, label) for label in (*old.rewards, *labels)},
    )


def _settings_of(plan: Plan, learner: Any) -> str:
    """The task, and the design where it brings its own agent."""
    return plan.task.name if plan.learner is learner else f"{plan.task.name} with {plan.label}"


def _unfinished(store: Store, plans: Sequence[Plan]) -> list[Plan]:
    done = {name: unit.record for name, unit in Results(store.records).done.items()}
    for plan in plans:
        if plan.name in done and done[plan.name]["fingerprint"] != plan.fingerprint:
            raise StoreError(
                f"reward {plan.label!r} on {plan.task.name!r} does not compute what it did when {store.folder} was "
                "made (it, the task or a library has changed): use another --out, or --overwrite."
            )
    return [plan for plan in plans if plan.name not in done]


def _exact(store: Store, plans: Sequence[Plan]) -> None:
    """Distances, regret and maps of each task, unless the records have them; of rewards that are not learned."""
    known = Results(store.records).exact
    for task in {plan.task.name: plan.task for plan in plans}.values():
        rewards = {p.label: (p.reward, p.fingerprint) for p in plans if p.task is task and designs.is_fixed(p.reward)}
        old = known.get(task.name, {}).get("fingerprints", {})
        if any(old.get(label) != mark for label, (_, mark) in rewards.items()):
            record = maps.exact(task, {label: reward for label, (reward, _) in rewards.items()})
            store.append({"kind": "exact", "fingerprints": {k: m for k, (_, m) in rewards.items()}, **record})
