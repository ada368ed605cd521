"""Train with several reward designs on several tasks over many seeds, and keep what happened."""

import os
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design import envs
from reward_design.agents import agent as find_agent
from reward_design.agents import base, sb3, train_seeds
from reward_design.agents.host import train_host_seeds
from reward_design.core import Reward
from reward_design.envs.host import HostEnv
from reward_design.experiments import budgets, designs, maps
from reward_design.experiments.progress import Progress
from reward_design.experiments.provenance import fingerprint, provenance
from reward_design.experiments.results import Results
from reward_design.experiments.store import FILE, Store, StoreError

NUM_POINTS = 200
"""Points kept of a learning curve; longer runs are averaged in groups of updates."""
NUM_CHUNKS = 20
"""Progress reports per unit (about)."""
_PER_SEED = ("true_return", "shaped_return", "success", "length")
_LEARNED = ("phi1", "phi2", "phi3", "discount")


@dataclass(frozen=True, eq=False)
class Plan:
    """One unit of work: a task and a design, for all seeds."""

    task: envs.Task
    label: str
    reward: Reward
    learner: Any
    config: Any
    fingerprint: str

    @property
    def name(self) -> tuple[str, str]:
        """``(task, design)``."""
        return self.task.name, self.label


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

    Returns:
        :class:`reward_design.experiments.Results`, also of what earlier calls left in ``out``.

    Raises:
        ValueError: before anything runs: for an unknown name, a setting that does not fit, a reward of the wrong shape
            or with another gamma than the agent, a folder that belongs to another comparison.

    Example:
        >>> import tempfile
        >>> results = compare("chain", ["sparse", "shaping"], seeds=2, total_timesteps=512, out=tempfile.mkdtemp(),
        ...                   config={"num_envs": 4, "num_steps": 64}, progress=False, report=False)
        >>> results.done["chain", "sparse"].final("success").shape
        (2,)
    """
    seeds = _seeds(seeds)
    labels = designs.labelled(designs.with_auxiliary(rewards, auxiliary))
    learner = find_agent(agent)
    known = _tasks(tasks)
    if extend:
        known, labels = _with_earlier(out, known, labels)
    plans = [
        _plan(task, label, design, learner, total_timesteps, config)
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
    with Store(out, identity, overwrite=overwrite, extend=extend) as store:
        command = command or f"compare({list(known)}, {list(labels)}, agent={agent!r}, seeds={len(seeds)})"
        todo = _unfinished(store, plans)
        if todo:
            store.append({"kind": "session", "command": command, **provenance()})
        _exact(store, plans)
        with Progress(todo, len(seeds), enabled=progress) as bar:
            for plan in todo:
                store.append(_run(plan, seeds, bar))
        results = Results(store.records)
    if not report:
        return results
    from reward_design.experiments.report import write

    return write(results, out)


# --- what to do -----------------------------------------------------------------------------------------------------


def _seeds(seeds: int | Sequence[int]) -> tuple[int, ...]:
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


def _plan(task: envs.Task, label: str, design: Any, learner: Any, total_timesteps: Any, config: Any) -> Plan:
    """The unit of a task and a design, with the settings of the design's own agent if it brings one."""
    own = find_agent(designs.agent_of(design, learner.name))
    wanted = config if own is learner else None
    settings = budgets.settings(own, task, total_timesteps=total_timesteps, config=wanted)
    reward = designs.resolve(design, task)
    if isinstance(own, sb3.SB3Agent):
        own.check(settings, task, reward)
    else:
        base.check_fits(own, settings, task.env, reward)
    return Plan(task, label, reward, own, settings, fingerprint(task.env, reward))


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


# --- one unit -------------------------------------------------------------------------------------------------------


def _run(plan: Plan, seeds: Sequence[int], bar: Progress) -> dict[str, Any]:
    """Train all seeds of one unit; an error becomes a record with its reason, an interrupt goes through."""
    record = {
        "kind": "unit",
        "task": plan.task.name,
        "reward": plan.label,
        "agent": plan.learner.name,
        "seeds": list(seeds),
        "config": asdict(plan.config),
        "fingerprint": plan.fingerprint,
        **provenance(),
    }
    if isinstance(plan.learner, sb3.SB3Agent):
        record["versions"] |= plan.learner.versions()
    bar.begin(plan)
    try:
        result, times = _train(plan, seeds, bar)
    except Exception as error:
        reason = str(error).strip() or type(error).__name__
        bar.end(plan, failed=reason)
        return {**record, "status": "failed", "reason": reason, "trace": traceback.format_exc(limit=-8)}
    bar.end(plan)
    return {**record, "status": "done", **times, **summary(result.metrics, plan.config.steps_per_update)}


def _train(plan: Plan, seeds: Sequence[int], bar: Progress) -> tuple[base.TrainResult, dict[str, Any]]:
    start, ticks = time.perf_counter(), [0.0]

    def on_chunk(updates: float | int, *_: Any) -> None:
        ticks.append(time.perf_counter() - start)
        bar.advance(plan, int(updates * plan.config.steps_per_update))

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    learner = plan.learner
    args = (learner, plan.config, plan.task, plan.reward, keys)
    if isinstance(learner, sb3.SB3Agent):
        result = sb3.train_seeds(learner, plan.config, plan.task, plan.reward, seeds, on_update=on_chunk)
    elif isinstance(plan.task.env, HostEnv):
        result = train_host_seeds(*args, on_update=on_chunk)
    else:
        result = train_seeds(*args, num_chunks=NUM_CHUNKS, on_chunk=on_chunk)
    wall, chunks = time.perf_counter() - start, np.diff(ticks)
    steady = float(np.median(chunks[1:])) if len(chunks) > 1 else float(chunks[0])
    steps = plan.config.num_updates * plan.config.steps_per_update * len(seeds)
    return result, {
        "wall_s": round(wall, 3),
        "compile_s": round(max(0.0, float(chunks[0]) - steady), 3),
        "env_steps": steps,
        "steps_per_s": round(steps / len(chunks) / steady),
    }


def summary(metrics: Mapping[str, Any], steps_per_update: int, *, tail: float = 0.1) -> dict[str, Any]:
    """What is kept of metrics ``[N, U]``: curves of at most 200 points, and the values of the last ``tail`` per seed.

    ``final`` also has ``true_return_over_training``, the mean over all updates.

    Episode metrics of a group of updates are means over the episodes that ended in it; where none ended, the value
    before. ``phi1`` to ``phi3`` and ``discount`` of behaviour alignment are kept per seed too. Other metrics (losses)
    are means over updates and seeds.
    """
    num_updates = metrics["true_return"].shape[1]
    edges = np.unique(np.linspace(0, num_updates, min(num_updates, NUM_POINTS) + 1).round().astype(int))
    episodes = np.asarray(metrics["episodes"], float)
    names = [k for k in metrics if k in (*_PER_SEED, *_LEARNED) or k.startswith("term/")]
    others = [k for k in metrics if k not in (*names, "episodes", "env_steps")]
    last = np.array([num_updates - max(1, int(num_updates * tail)), num_updates])
    final = {k: _grouped(metrics[k], episodes, last)[:, 0] for k in names}
    final["true_return_over_training"] = _known_mean(metrics["true_return"])
    return {
        "steps": edges[1:] * steps_per_update,
        "curves": {k: _grouped(metrics[k], episodes, edges) for k in names},
        "losses": {k: np.add.reduceat(metrics[k].mean(0), edges[:-1]) / np.diff(edges) for k in others},
        "final": final,
        "episodes": episodes.sum(1),
    }


def _known_mean(values: Any) -> np.ndarray:
    """Mean over updates ``[N]``, without those before the first episode ended; NaN if none ever did."""
    values = np.asarray(values, float)
    known = np.isfinite(values)
    return np.where(known.any(1), np.where(known, values, 0.0).sum(1) / np.maximum(known.sum(1), 1), np.nan)


def _grouped(values: np.ndarray, episodes: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Means over groups of updates ``edges[i]:edges[i + 1]``, weighted by the episodes that ended: ``[N, groups]``."""
    known = np.where(episodes > 0, np.asarray(values, float), 0.0)
    starts = edges[:-1]
    end = edges[-1]
    weight = np.add.reduceat(episodes[:, :end], starts, axis=1)
    total = np.add.reduceat((known * episodes)[:, :end], starts, axis=1)
    carried = np.asarray(values, float)[:, edges[1:] - 1]
    return np.where(weight > 0, total / np.maximum(weight, 1), carried)
