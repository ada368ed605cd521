"""One run of one agent with one reward on one task: a line per evaluation, checkpoints, exact resume."""

import contextlib
import math
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from reward_design import envs
from reward_design._arguments import check_seed
from reward_design.agents import agent as find_agent
from reward_design.agents import base, checkpoint, recipes, sb3, train_seeds
from reward_design.agents.host import evaluate_host, train_host
from reward_design.envs.host import HostEnv
from reward_design.experiments import alignment, artifacts, budgets, designs, room, single_sb3, tracking, units, writers
from reward_design.experiments.progress import Lines
from reward_design.experiments.provenance import fingerprint, provenance
from reward_design.experiments.ranked_design import starved_note, unlearned_note
from reward_design.experiments.runs import CHECKPOINTS
from reward_design.experiments.store import Store

NUM_EPISODES = 32
"""Episodes of the evaluation after training."""


def train(
    task: str | envs.Task,
    reward: Any = "environment",
    *,
    auxiliary: str | None = None,
    agent: str = "ppo",
    seed: int = 0,
    out: str | None = None,
    total_timesteps: int | None = None,
    config: Any = None,
    evaluations: int = 20,
    overwrite: bool = False,
    command: str | None = None,
    console: Console | None = None,
    log: str | Sequence[str] = (),
) -> dict[str, float]:
    """Train one agent, print a line per evaluation, keep checkpoints and records in ``out`` and go on from there.

    Args:
        task: name, or a task.
        reward: a design, see :func:`reward_design.experiments.resolve`; one that learns its reward, as ``"barfi"``
            does, brings an agent of its own.
        auxiliary: name of the task's auxiliary reward, for ``"barfi"`` and ``"naive"``.
        agent: name in :func:`reward_design.agents.list_agents`; one of another library saves its own file in ``out`` at
            the end, has no checkpoints in between, and starts anew after an interrupt.
        seed: of the run.
        out: folder; without it nothing is kept.
        total_timesteps: environment steps; by default what suits the task.
        config: settings of the agent to override by name, or a complete ``Config``.
        evaluations: lines to print (about).
        overwrite: delete what ``out`` holds.
        command: how to run this again, for the records.
        console: where to print.
        log: ``"tensorboard"``, ``"wandb"`` (offline) or both: logs in ``out``, a point per evaluation
            (``pip install 'reward-design[track]'``).

    Returns:
        Means over episodes played after training by the policy's mode: ``true_return``, ``success``, ``length``.

    Raises:
        ValueError: for an unknown name, a seed or a setting that does not fit, a folder that belongs to another run, or
            a disk that is too full for the checkpoints.
    """
    if evaluations < 1:
        raise ValueError(f"evaluations must be at least 1, got {evaluations}.")
    check_seed(seed)
    logs = writers.writers(log, out)
    task = envs.task(task) if isinstance(task, str) else task
    (reward,) = designs.labelled(designs.with_auxiliary(reward, auxiliary)).values()
    learner, console = find_agent(designs.agent_of(reward, agent)), console or Console(soft_wrap=True)
    settings = budgets.settings(learner, task, total_timesteps=total_timesteps, config=config)
    built = designs.resolve(reward, task)
    if isinstance(learner, sb3.SB3Agent):
        learner.check(settings, task, built)
    else:
        base.check_fits(learner, settings, task.env, built)
    label = next(iter(designs.labelled([reward])))
    identity = {
        "task": task.name, "settings": recipes.recipe_of(task.env), "reward": label, "agent": learner.name,
        "seed": seed, "config": recipes.plain_settings(settings), "program": fingerprint(task.env, built),
    }  # fmt: skip
    if not overwrite:
        artifacts.check(out, {label: built})
    console.print(f"{learner.name} on {task.name} with {label}, {settings.total_timesteps:,} steps, seed {seed}")
    if isinstance(learner, sb3.SB3Agent):
        return single_sb3.train(
            learner, settings, task, built, identity, seed=seed, out=out, evaluations=evaluations,
            overwrite=overwrite, command=command, lines=Lines(console), logs=logs, design=reward,
        )  # fmt: skip
    run = _Run(learner, settings, task, built, seed, evaluations, console)
    if out is None:
        rows: list[Any] = []
        means = run.evaluate(run.go(None, lambda updates, line, _: rows.append({"update": updates, **line})))
        _conclude(run, label, rows, None)
        return means
    with Store(out, identity, overwrite=overwrite) as store:
        if overwrite:
            writers.clear(out)
        artifacts.note(store, {label: (reward, built)})
        state = _resume(run, store, identity, overwrite)
        if state is None or int(state.num_updates[0]) < settings.num_updates:
            room.check(out, room.of_checkpoints(run.shapes()), "checkpoints of this run")
            store.append({"kind": "session", "command": command or "train", **provenance()})
        with tracking.live(logs, identity, store.records, settings.steps_per_update) as followed:
            means = run.evaluate(run.go(state, _keeper(store, identity, followed)))
            followed.finish(means)
        _conclude(run, label, [r for r in store.records if r["kind"] == "evaluation"], out)
        return means


class _Run:
    """What the parts of a run share."""

    def __init__(
        self,
        learner: base.Agent,
        config: Any,
        task: envs.Task,
        reward: Any,
        seed: int,
        evaluations: int,
        console: Console,
    ) -> None:
        self.learner, self.config, self.task, self.reward = learner, config, task, reward
        self.keys, self.console = jax.vmap(jax.random.key)(jnp.asarray([seed], jnp.uint32)), console
        self.seed = seed
        most = max(1, config.num_updates // evaluations)
        self.unit = next(n for n in range(most, 0, -1) if config.num_updates % n == 0)
        self.chunk = self.unit * (most // self.unit)
        self.lines, self.notes = Lines(console), set[str]()

    def fresh(self) -> Any:
        """The state before training."""
        return base.first_states(self.learner, self.task.env, self.reward, self.config, self.keys)

    def shapes(self) -> Any:
        """Of the state, without making one."""
        return base.first_states.eval_shape(self.learner, self.task.env, self.reward, self.config, self.keys)

    def go(self, state: Any, keep: Any) -> Any:
        """Train from ``state`` (None: from the start) to the end; ``keep`` gets updates done, line and state."""
        done = 0 if state is None else int(state.num_updates[0])
        if done >= self.config.num_updates:
            self.console.print(f"finished before: {done * self.config.steps_per_update:,} steps")
            return state
        tick, parts, told = [time.perf_counter()], list[Mapping[str, np.ndarray]](), [done]

        def on_chunk(updates: int, metrics: Mapping[str, np.ndarray], state: Any) -> None:
            parts.append(metrics)
            if updates // self.chunk == told[0] // self.chunk and updates < self.config.num_updates:
                return
            metrics = {k: np.concatenate([part[k] for part in parts], axis=1) for k in metrics}
            parts.clear()
            told[0], now = updates, time.perf_counter()
            speed = metrics["episodes"].shape[1] * self.config.steps_per_update / (now - tick[0])
            line = units.line(metrics, self.config.steps_per_update)
            self.lines.row(updates * self.config.steps_per_update, line, speed)
            last = updates >= self.config.num_updates
            at_end = (unlearned_note(metrics), units.faults_note(metrics)) if last else ()
            for note in (starved_note(metrics), *at_end):
                if note is not None and note not in self.notes:
                    self.notes.add(note)
                    self.console.print(f"note: {note}.")
            keep(updates, line, state)
            tick[0] = time.perf_counter()

        if isinstance(self.task.env, HostEnv):
            return self._on_host(state, on_chunk)
        result = train_seeds(
            self.learner, self.config, self.task, self.reward, self.keys, state=state, on_chunk=on_chunk,
            num_chunks=math.ceil((self.config.num_updates - done) / self.unit),
        )  # fmt: skip
        return result.state

    def _on_host(self, state: Any, on_chunk: Any) -> Any:
        """The same on environments of the host; a resumed run starts new episodes there."""
        rows: list[Mapping[str, Any]] = []

        def on_update(done: int, metrics: Mapping[str, Any], state: Any) -> None:
            rows.append(metrics)
            if len(rows) == self.unit:
                stacked = {k: np.asarray([[row[k] for row in rows]]) for k in metrics}
                rows.clear()
                on_chunk(done, stacked, jax.tree.map(lambda x: x[None], state))

        with contextlib.closing(self.task.vector(self.config.num_envs)) as envs:
            one = None if state is None else jax.tree.map(lambda x: x[0], state)
            args = (self.learner, self.config, envs, self.reward, self.keys[0])
            result = train_host(*args, state=one, on_update=on_update)
        return jax.tree.map(lambda x: x[None], result.state)

    def evaluate(self, state: Any) -> dict[str, float]:
        """Play whole episodes with the mode of the policy."""
        one = jax.tree.map(lambda x: x[0], state)
        if isinstance(self.task.env, HostEnv):
            with contextlib.closing(self.task.vector(self.config.num_envs)) as envs:
                played = evaluate_host(self.learner, self.config, envs, one, num_episodes=NUM_EPISODES, seed=self.seed)
        else:
            key = jax.random.fold_in(self.keys[0], 1)
            played = base.evaluate(self.learner, self.config, self.task, one, key, num_episodes=NUM_EPISODES)
        means = {name: float(np.mean(value)) for name, value in played.items()}
        self.lines.evaluated(means, NUM_EPISODES)
        return means


def _conclude(run: _Run, label: str, rows: Sequence[Mapping[str, Any]], out: str | None) -> None:
    """What behaviour alignment concluded, and the picture of how it got there."""
    auxiliary = alignment.learned(label)
    if auxiliary is None or not rows or "phi3" not in rows[-1]:
        return
    names = (*alignment.WEIGHTS, "discount")
    curves = {name: np.asarray([[row[name] for row in rows]]) for name in names}
    run.console.print(alignment.conclusion({k: v[:, -1] for k, v in curves.items()}, auxiliary), highlight=False)
    if out is not None:
        steps = [row["update"] * run.config.steps_per_update for row in rows]
        run.console.print(f"how the weights moved: {alignment.save(steps, curves, out)}", highlight=False)


def _folder(store: Store) -> Path:
    return store.folder / CHECKPOINTS


def _resume(run: _Run, store: Store, identity: Mapping[str, Any], overwrite: bool) -> Any:
    """The state of the newest checkpoint, or None."""
    if overwrite:
        shutil.rmtree(_folder(store), ignore_errors=True)
    if not _folder(store).is_dir():
        return None
    found = checkpoint.restore(_folder(store), run.fresh(), identity=identity)
    if found is None:
        return None
    run.console.print(f"going on from {found[1] * run.config.steps_per_update:,} steps ({_folder(store)})")
    return found[0]


def _keeper(store: Store, identity: Mapping[str, Any], followed: tracking.Live) -> Any:
    """Append the line, then checkpoint: a kill in between costs one chunk, whose line is then not written twice."""
    known = {r["update"] for r in store.records if r["kind"] == "evaluation"}

    def keep(updates: int, line: Mapping[str, Any], state: Any) -> None:
        if updates not in known:
            store.append({"kind": "evaluation", "update": updates, **line})
            followed.add(store.records[-1])
        checkpoint.save(_folder(store), state, step=updates, identity=identity)

    return keep
