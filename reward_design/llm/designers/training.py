"""Training the candidates of a round: all seeds of all of them at once on the device, one after the other on the host.

What was trained is kept in a checkpoint after every advance, so that a killed run goes on from there.
"""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from reward_design.agents import base, checkpoint
from reward_design.agents.host import train_host
from reward_design.agents.policies import Policy
from reward_design.agents.seeds import sharded
from reward_design.core import NonFiniteRewardError, Reward, Transition
from reward_design.envs.base import Task
from reward_design.envs.host import HostEnv
from reward_design.experiments.evaluation import Scorer, play_lanes
from reward_design.experiments.units import summary
from reward_design.llm.designers.candidates import Refusal, Statistics
from reward_design.llm.designers.pool import pool
from reward_design.llm.designers.told import side_by_side, statistics_of

MAX_BYTES = 256_000_000
"""Larger states (replay memories) are not kept between advances."""
NUM_EPISODES = 16
"""Episodes played after training."""


class Training:
    """Policies that learn from several rewards, each with the same seeds.

    Args:
        task: to train on; the true reward judges.
        learner: the agent.
        config: its settings.
        rewards: by id of candidate.
        seeds: the runs of each.
        folder: for checkpoints; nothing is kept without it.
        width: candidates that a batch on the device has room for, so that smaller rounds do not compile again.

    Attributes:
        done: by id, updates so far.
        history: the ids of every advance.
        refused: by id, why a candidate stopped: its reward was not finite.
    """

    def __init__(
        self,
        task: Task,
        learner: base.Agent,
        config: Any,
        rewards: Mapping[str, Reward],
        seeds: Sequence[int],
        folder: Path | None = None,
        *,
        width: int = 0,
    ) -> None:
        self.task, self.learner, self.config, self.folder = task, learner, config, folder
        self.ids, self.seeds = list(rewards), list(seeds)
        self.pool = pool(task, rewards)
        self.reward, self.width = self.pool.reward, width
        self.done = dict.fromkeys(self.ids, 0)
        self.refused: dict[str, Refusal] = {}
        self.seconds = dict.fromkeys(self.ids, 0.0)
        self.metrics: dict[str, list[dict[str, np.ndarray]]] = {name: [] for name in self.ids}
        self.history: list[list[str]] = []
        self._states = self._init()
        self._restore()

    def advance(self, ids: Sequence[str], updates: int, on_updates: Callable[[int], None] | None = None) -> None:
        """Train some candidates for ``updates`` more updates each, those that were refused left out.

        Args:
            ids: which.
            updates: of each of their runs.
            on_updates: called with the updates done, summed over candidates.
        """
        open_ = [name for name in ids if name not in self.refused]
        if open_ and isinstance(self.task.env, HostEnv):
            for name in open_:
                self._on_host(name, updates)
                if on_updates is not None:
                    on_updates(updates)
        elif open_:
            self._on_device(open_, updates)
            if on_updates is not None:
                on_updates(updates * len(open_))
        self.history.append(list(ids))
        self._keep()

    @property
    def open(self) -> list[str]:
        """Ids of the candidates that were not refused."""
        return [name for name in self.ids if name not in self.refused]

    @property
    def advances(self) -> int:
        """How often :meth:`advance` was called, in all sessions."""
        return len(self.history)

    def recent_success(self, name: str, updates: int) -> float:
        """Success rate over the last updates of a candidate, a mean over seeds: the utility of an arm."""
        rows = _joined(self.metrics[name])
        tail = {k: v[:, -updates:] for k, v in rows.items()}
        ended = np.asarray(tail["episodes"], float)
        total = np.where(ended > 0, np.nan_to_num(np.asarray(tail["success"], float)) * ended, 0.0).sum(1)
        return float((total / np.maximum(ended.sum(1), 1)).mean())

    def statistics(self, name: str, *, seed: int = 0) -> tuple[Statistics, Transition]:
        """What training with a candidate gave, and the episodes that its policies play."""
        found = summary(_joined(self.metrics[name]), self.config.steps_per_update)
        terms = self.pool.terms[name]
        found["curves"] = {label: v for k, v in found["curves"].items() if (label := _named(k, terms))}
        episodes, outputs = self.play(name, seed=seed)
        paid = {terms[int(k)]: v for k, v in outputs.terms.items() if int(k) < len(terms)}
        steps = self.done[name] * self.config.steps_per_update * len(self.seeds)
        return statistics_of(self.task, found, episodes, paid, env_steps=steps, seconds=self.seconds[name]), episodes

    def play(self, name: str, *, seed: int = 0) -> tuple[Transition, Any]:
        """Episodes ``[T, B]`` of all seeds of a candidate, and what its reward pays for them."""
        lanes = -(-NUM_EPISODES // len(self.seeds))
        parts = [play_lanes(self.task.env, self.policy(name, i), lanes, seed + i) for i in range(len(self.seeds))]
        episodes = side_by_side(parts)
        scorer = Scorer(self.task.env, self.reward, params=self.pool.params[name])
        return episodes, scorer(episodes)

    def policy(self, name: str, index: int = 0) -> Policy:
        """The policy of one seed of a candidate."""
        state = jax.tree.map(lambda x: x[index], self._states[name])
        return Policy(self.learner, self.config, self.task.env, state, task=self.task)

    # --- parts ------------------------------------------------------------------------------------------------------

    @property
    def _keys(self) -> Any:
        return jax.vmap(jax.random.key)(jnp.asarray(self.seeds, jnp.uint32))

    def _init(self) -> dict[str, Any]:
        """States ``[seeds, ...]`` by id, those of a seed equal for all candidates."""
        base.check_fits(self.learner, self.config, self.task.env, self.reward)
        env, keys = self.task.env, self._keys
        keys = jax.vmap(lambda key: jax.random.split(key)[0])(keys) if isinstance(env, HostEnv) else keys
        first = base.first_states(self.learner, env, self.reward, self.config, keys)
        repeated = lambda x, like: jnp.broadcast_to(jnp.asarray(x, like.dtype), like.shape)  # noqa: E731
        params = {name: jax.tree.map(repeated, self.pool.params[name], first.reward_params) for name in self.ids}
        return {name: jax.tree.map(jnp.array, first._replace(reward_params=params[name])) for name in self.ids}

    def _on_device(self, ids: Sequence[str], updates: int) -> None:
        begun = time.perf_counter()
        lanes = [*ids, *[ids[-1]] * (self.width - len(ids))]
        num, devices = len(lanes) * len(self.seeds), jax.local_devices()
        count = next(n for n in range(len(devices), 0, -1) if num % n == 0)
        mesh = Mesh(np.asarray(devices[:count]), ("seeds",))
        _, run = sharded(self.learner, self.task.functional(), self.reward, mesh, updates)
        states = jax.tree.map(lambda *x: jnp.concatenate(x), *(self._states[name] for name in lanes))
        states, metrics = run(self.config, jax.device_put(states, NamedSharding(mesh, PartitionSpec("seeds"))))
        rows = jax.device_get(metrics)
        for i, name in enumerate(ids):
            own = slice(i * len(self.seeds), (i + 1) * len(self.seeds))
            self._states[name] = jax.tree.map(lambda x, own=own: x[own], states)
            self._took(name, {k: v[own] for k, v in rows.items()}, updates)
            self.seconds[name] += (time.perf_counter() - begun) / len(ids)
            self._refuse_faults(name)

    def _on_host(self, name: str, updates: int) -> None:
        begun, results = time.perf_counter(), []
        try:
            for i in range(len(self.seeds)):
                with contextlib.closing(self.task.vector(self.config.num_envs)) as envs:
                    state = jax.tree.map(lambda x, i=i: jnp.array(x[i]), self._states[name])
                    results.append(
                        train_host(
                            self.learner,
                            self.config,
                            envs,
                            self.reward,
                            self._keys[i],
                            state=state,
                            num_updates=updates,
                        )
                    )
        except NonFiniteRewardError as error:
            self.refused[name] = Refusal("training", self._not_finite(name, str(error)))
            return
        self._states[name] = jax.tree.map(lambda *x: jnp.stack(x), *(r.state for r in results))
        rows = {k: np.stack([r.metrics[k] for r in results]) for k in results[0].metrics}
        self._took(name, rows, updates)
        self.seconds[name] += time.perf_counter() - begun

    def _took(self, name: str, rows: dict[str, np.ndarray], updates: int) -> None:
        self.metrics[name].append(rows)
        self.done[name] += updates

    def _refuse_faults(self, name: str) -> None:
        fault = jax.device_get(self._states[name].fault)
        if (fault.step >= 0).any():
            which = int(np.argmax(fault.step >= 0))
            terms = self.pool.terms[name]
            term = terms[min(int(fault.term[which]), len(terms) - 1)]
            where = f"its component {term!r} at environment step {int(fault.step[which])}"
            self.refused[name] = Refusal("training", self._not_finite(name, where))

    def _not_finite(self, name: str, where: str) -> str:
        return f"the reward was NaN or infinite while training: {where}. Bound divisions, logarithms and exponentials."

    def _kept(self) -> bool:
        size = sum(x.nbytes for state in self._states.values() for x in jax.tree.leaves(state) if hasattr(x, "nbytes"))
        return self.folder is not None and size <= MAX_BYTES

    def _keep(self) -> None:
        if not self._kept():
            return
        assert self.folder is not None
        self.folder.mkdir(parents=True, exist_ok=True)
        plain = {
            f"{name}|{k}": v for name in self.ids for k, v in (_joined(self.metrics[name]) or {}).items()
        }  # metrics lie beside the checkpoint, which names the file by its step
        draft = self.folder / f"metrics-{self.advances}.part.npz"
        np.savez(draft, **plain)  # pyright: ignore[reportArgumentType]
        draft.replace(self.folder / f"metrics-{self.advances}.npz")
        checkpoint.save(self.folder / "states", self._states, step=self.advances, identity=self._identity())
        for old in self.folder.glob("metrics-*.npz"):
            number = old.stem.partition("-")[2]
            if number.isdigit() and int(number) < self.advances - 1:
                old.unlink()

    def _identity(self) -> dict[str, Any]:
        reasons = {name: refusal.reason for name, refusal in self.refused.items()}
        return {
            "ids": self.ids,
            "seeds": self.seeds,
            "done": self.done,
            "refused": reasons,
            "seconds": self.seconds,
            "history": self.history,
        }

    def _restore(self) -> None:
        if not self._kept() or not (self.folder and (self.folder / "states").is_dir()):
            return
        saved = checkpoint.newest(self.folder / "states")
        if saved is None or saved.identity["ids"] != self.ids or saved.identity["seeds"] != self.seeds:
            return
        found = checkpoint.restore(self.folder / "states", self._states, identity=saved.identity)
        assert found is not None
        self._states, _ = found
        self.history = [list(ids) for ids in saved.identity["history"]]
        self.done, self.seconds = dict(saved.identity["done"]), dict(saved.identity["seconds"])
        self.refused = {name: Refusal("training", text) for name, text in saved.identity["refused"].items()}
        rows = np.load(self.folder / f"metrics-{self.advances}.npz")
        for label in rows.files:
            name, _, metric = label.partition("|")
            self.metrics[name] = self.metrics[name] or [{}]
            self.metrics[name][0][metric] = rows[label]


def _joined(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {k: np.concatenate([row[k] for row in rows], axis=1) for k in rows[0]} if rows else {}


def _named(metric: str, terms: Sequence[str]) -> str:
    """``term/03`` by its own name, empty for one that the candidate does not have."""
    if not metric.startswith("term/"):
        return metric
    index = int(metric[5:])
    return f"term/{terms[index]}" if index < len(terms) else ""
