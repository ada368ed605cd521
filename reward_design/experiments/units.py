"""One unit of work: a task and a reward design trained with all seeds, in any process, and the record of it."""

import contextlib
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from reward_design import envs
from reward_design.agents import agent as find_agent
from reward_design.agents import base, sb3, train_seeds
from reward_design.agents.host import train_host_seeds
from reward_design.core import Reward
from reward_design.envs.host import HostEnv
from reward_design.experiments import budgets, designs, live
from reward_design.experiments.provenance import fingerprint, provenance

NUM_POINTS = 200
"""Points kept of a learning curve; longer runs are averaged in groups of updates."""
NUM_CHUNKS = 20
"""Progress reports per unit (about)."""
FAULTS = "faults"
"""Metric of agents on the host: episodes that a worker or simulator has cut so far, in one call of training."""
_PER_SEED = ("true_return", "shaped_return", "success", "length")
_LEARNED = ("phi1", "phi2", "phi3", "discount")


class Order(NamedTuple):
    """What a unit is made from, so that another process can make the same one.

    Attributes:
        task: the task; one that its name stands for travels as its name.
        label: of the design.
        design: as given: a name, ``"module:attribute"``, a reward or a function of the task.
        agent: name of the agent that was asked for.
        total_timesteps: environment steps per run, None for what suits the task.
        config: settings of that agent to override, or a complete ``Config``.
    """

    task: envs.Task | str
    label: str
    design: Any
    agent: str
    total_timesteps: int | None
    config: Any

    def portable(self) -> "Order":
        """The same order with the name of its task, if that is all it takes to make it elsewhere."""
        with contextlib.suppress(ValueError, TypeError, ImportError):
            if isinstance(self.task, envs.Task) and envs.task(self.task.name) is self.task:
                return self._replace(task=self.task.name)
        return self


@dataclass(frozen=True, eq=False)
class Plan:
    """One unit of work: a task and a design, for all seeds."""

    order: Order
    task: envs.Task
    reward: Reward
    learner: Any
    config: Any
    fingerprint: str

    @property
    def label(self) -> str:
        """Of the design."""
        return self.order.label

    @property
    def name(self) -> tuple[str, str]:
        """``(task, design)``."""
        return self.task.name, self.label


def planned(order: Order) -> Plan:
    """The unit, checked, with the settings of the design's own agent if it brings one.

    Raises:
        ValueError: for an unknown name, a setting that does not fit, a reward of the wrong shape or another gamma.
    """
    task = envs.task(order.task) if isinstance(order.task, str) else order.task
    asked = find_agent(order.agent)
    own = find_agent(designs.agent_of(order.design, asked.name))
    wanted = order.config if own is asked else None
    settings = budgets.settings(own, task, total_timesteps=order.total_timesteps, config=wanted)
    reward = designs.resolve(order.design, task)
    if isinstance(own, sb3.SB3Agent):
        own.check(settings, task, reward)
    else:
        base.check_fits(own, settings, task.env, reward)
    return Plan(order, task, reward, own, settings, fingerprint(task.env, reward))


def checked(order: Order, expected: str) -> Plan:
    """The unit as another process ordered it, if it computes here what it does there.

    Raises:
        ValueError: if the program of environment and reward is another one than that with the fingerprint ``expected``.
    """
    plan = planned(order)
    if plan.fingerprint != expected:
        raise ValueError(
            f"{plan.label!r} on {plan.task.name!r} computes something else in the worker: it has other versions of "
            "this package, of a library or of the reward's module; install there what is here."
        )
    return plan


OnProgress = Callable[[int, live.Seen], None]
"""Called now and then with the environment steps that each run has done, and metrics of some runs."""


def run(plan: Plan, seeds: Sequence[int], on_progress: OnProgress) -> dict[str, Any]:
    """Train all seeds of one unit; an error becomes a record with its reason, an interrupt goes through.

    Args:
        plan: the unit.
        seeds: of its runs.
        on_progress: called now and then with the environment steps that each run has done, and metrics of some runs.

    Returns:
        The record of the unit.
    """
    record = header(plan, seeds)
    try:
        result, times = _train(plan, seeds, on_progress)
    except Exception as error:
        return failed(record, str(error).strip() or type(error).__name__, traceback.format_exc(limit=-8))
    return {**record, "status": "done", **times, **summary(result.metrics, plan.config.steps_per_update)}


def header(plan: Plan, seeds: Sequence[int]) -> dict[str, Any]:
    """What the record of a unit says before it has run: what was asked for, and where."""
    record: dict[str, Any] = {
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
    return record


def failed(record: Mapping[str, Any], reason: str, trace: str = "") -> dict[str, Any]:
    """The record of a unit that ended without a result."""
    return {**record, "status": "failed", "reason": reason, "trace": trace}


def _train(plan: Plan, seeds: Sequence[int], on_progress: OnProgress) -> tuple[base.TrainResult, dict[str, Any]]:
    start, ticks, per_update = time.perf_counter(), [0.0], plan.config.steps_per_update

    def on_metrics(updates: int, metrics: Any) -> None:
        ticks.append(time.perf_counter() - start)
        on_progress(updates * per_update, _seen(updates * per_update, metrics, per_update))

    def on_row(updates: float, run: int, row: Mapping[str, Any]) -> None:
        ticks.append(time.perf_counter() - start)
        steps = round((updates * len(seeds) - run * plan.config.num_updates) * per_update)
        values = {name: [float(value)] for name, value in row.items() if live.is_shown(name)}
        on_progress(int(updates * per_update), live.Seen(steps, (run,), values))

    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    learner = plan.learner
    args = (learner, plan.config, plan.task, plan.reward, keys)
    if isinstance(learner, sb3.SB3Agent):
        result = sb3.train_seeds(learner, plan.config, plan.task, plan.reward, seeds, on_update=on_row)
    elif isinstance(plan.task.env, HostEnv):
        result = train_host_seeds(*args, on_update=on_row)
    else:
        result = train_seeds(*args, num_chunks=NUM_CHUNKS, on_metrics=on_metrics)
    wall, chunks = time.perf_counter() - start, np.diff(ticks)
    steady = float(np.median(chunks[1:])) if len(chunks) > 1 else float(chunks[0])
    steps = plan.config.num_updates * plan.config.steps_per_update * len(seeds)
    return result, {
        "wall_s": round(wall, 3),
        "compile_s": round(max(0.0, float(chunks[0]) - steady), 3),
        "env_steps": steps,
        "steps_per_s": round(steps / len(chunks) / steady),
    }


def _seen(steps: int, metrics: Mapping[str, Any], steps_per_update: int) -> live.Seen:
    """What a chunk of metrics ``[N, U]`` says about all runs."""
    values = summary(metrics, steps_per_update, tail=1.0)["final"]
    shown = {name: np.asarray(value).tolist() for name, value in values.items() if live.is_shown(name)}
    return live.Seen(steps, tuple(range(len(metrics["true_return"]))), shown)


def summary(metrics: Mapping[str, Any], steps_per_update: int, *, tail: float = 0.1) -> dict[str, Any]:
    """What is kept of metrics ``[N, U]``: curves of at most 200 points, and the values of the last ``tail`` per seed.

    ``final`` also has ``true_return_over_training``, the mean over all updates.

    Episode metrics of a group of updates are means over the episodes that ended in it; where none ended, the value
    before. ``phi1`` to ``phi3`` and ``discount`` of behaviour alignment are kept per seed too. Other metrics (losses)
    are means over updates and seeds; ``faults`` counts those of all seeds so far.
    """
    num_updates = metrics["true_return"].shape[1]
    edges = np.unique(np.linspace(0, num_updates, min(num_updates, NUM_POINTS) + 1).round().astype(int))
    episodes = np.asarray(metrics["episodes"], float)
    names = [k for k in metrics if k in (*_PER_SEED, *_LEARNED) or k.startswith("term/")]
    others = [k for k in metrics if k not in (*names, "episodes", "env_steps")]
    losses = {k: np.add.reduceat(metrics[k].mean(0), edges[:-1]) / np.diff(edges) for k in others}
    if FAULTS in losses:
        losses[FAULTS] = np.asarray(metrics[FAULTS], float).sum(0)[edges[1:] - 1]
    last = np.array([num_updates - max(1, int(num_updates * tail)), num_updates])
    final = {k: _grouped(metrics[k], episodes, last)[:, 0] for k in names}
    final["true_return_over_training"] = _known_mean(metrics["true_return"])
    return {
        "steps": edges[1:] * steps_per_update,
        "curves": {k: _grouped(metrics[k], episodes, edges) for k in names},
        "losses": losses,
        "final": final,
        "episodes": episodes.sum(1),
    }


def line(metrics: Mapping[str, Any], steps_per_update: int) -> dict[str, Any]:
    """One line for metrics ``[1, U]`` of a single run: values over all of them, means of the others in ``losses``."""
    found = summary(metrics, steps_per_update, tail=1.0)
    values = {name: value[0] for name, value in found["final"].items()}
    means = {name: np.mean(np.asarray(metrics[name], float)) for name in found["losses"]}
    return {**values, "losses": means | {name: found["losses"][name][-1] for name in means if name == FAULTS}}


def faults_note(losses: Mapping[str, Any]) -> str | None:
    """What to tell where episodes were cut by faults, or None.

    Example:
        >>> faults_note({"faults": [0.0, 3.0]})
        '3 episodes were cut by a fault of the simulator or a worker'
        >>> faults_note({"faults": [0.0]}) is None
        True
    """
    number = int(np.asarray(losses.get(FAULTS, 0.0)).ravel()[-1])
    if not number:
        return None
    were = "1 episode was" if number == 1 else f"{number} episodes were"
    return f"{were} cut by a fault of the simulator or a worker"


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
