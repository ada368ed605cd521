"""What ``reward-design train --out`` left: the policy, its task, its reward, its settings."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from reward_design import envs
from reward_design.agents import agent as find_agent
from reward_design.agents import checkpoint, policy_files, recipes, sb3, scoring
from reward_design.agents.policies import Policy
from reward_design.core import Params, Reward
from reward_design.experiments import designs, single_sb3
from reward_design.experiments.artifacts import hashes, recorded
from reward_design.experiments.provenance import fingerprint
from reward_design.experiments.store import FILE, read

CHECKPOINTS = "checkpoints"
"""Sub-folder of a run."""


@dataclass(frozen=True, eq=False)
class Run:
    """One run of one agent with one reward on one task, as far as it got.

    Attributes:
        folder: where it lies.
        task: the task.
        agent: the :class:`~reward_design.agents.base.Agent`, or :class:`~reward_design.agents.sb3.SB3Agent`.
        config: its settings.
        seed: of the run.
        label: name of the reward.
        reward: the reward, or None if it cannot be made again.
        reward_params: its parameters as trained; None for its own.
        reward_running: its running statistics (normalisers, visit counts) as trained, or None.
        state: what the agent acts from, other fields are None; of an agent of another library
            :class:`~reward_design.agents.sb3.Saved`.
        num_updates: updates done.
        notes: a sentence each about what is not as it was.
    """

    folder: Path
    task: envs.Task
    agent: Any
    config: Any
    seed: int
    label: str
    reward: Reward | None
    reward_params: Params
    reward_running: Any
    state: Any
    num_updates: int
    notes: tuple[str, ...]

    @property
    def finished(self) -> bool:
        """Whether all updates were done."""
        return self.num_updates >= self.config.num_updates

    def policy(self, *, deterministic: bool = True, seed: int = 0) -> Policy:
        """The trained policy.

        Args:
            deterministic: its mode instead of samples.
            seed: of the samples.
        """
        return Policy(
            self.agent, self.config, self.task.env, self.state, task=self.task, deterministic=deterministic, seed=seed
        )


def load_run(
    folder: str | os.PathLike[str], *, task: envs.Task | None = None, reward: Any = None, config: Any = None
) -> Run:
    """Read the newest checkpoint of a run, finished or not; of an agent of another library what a finished run saved.

    Args:
        folder: what was given to ``train`` as ``out``.
        task: the task, if it was made by code of its own (functions as settings, an environment of one's own).
        reward: the reward, if it was not given by name or as ``module:attribute``.
        config: the agent's settings, if one of them is a function.

    Returns:
        A :class:`Run`.

    Raises:
        ValueError: if there is no run or no checkpoint, it is damaged, or it is another task's.

    Example:
        >>> import tempfile
        >>> from rich.console import Console
        >>> from reward_design.experiments import load_run, single
        >>> folder = tempfile.mkdtemp()
        >>> _ = single.train("chain", "shaping", out=folder, total_timesteps=256, evaluations=1,
        ...                  config={"num_envs": 4, "num_steps": 32}, console=Console(quiet=True))
        >>> run = load_run(folder)
        >>> run.label, run.finished, int(run.policy()(3)) in (0, 1)
        ('shaping', True, True)
    """
    folder = Path(folder)
    identity = _identity(folder)
    agent = find_agent(identity["agent"])
    other = isinstance(agent, sb3.SB3Agent)
    settings_from = single_sb3.settings if other else recipes.settings_from
    config = settings_from(agent, identity["config"], config, folder)
    if task is None:
        _, task = recipes.remade(identity, folder)
    elif task.name != identity["task"]:
        raise ValueError(f"{folder} is a run on {identity['task']!r}, got the task {task.name!r}.")
    if other:
        return _of_other_library(folder, identity, agent, config, task, reward)
    saved = checkpoint.newest(folder / CHECKPOINTS)
    if saved is None:
        raise ValueError(f"{folder} has no checkpoint yet; the first comes with the first line that train prints.")
    state = policy_files.restored(folder / CHECKPOINTS, agent, config, task.env, seed_axis=True)
    built, notes = _reward(identity, folder, task, reward)
    params, running = None, None
    if built is not None:
        params, running, note = _trained_reward(folder / CHECKPOINTS, built, task, config)
        notes += note
    if saved.step < config.num_updates:
        notes += (f"the run is unfinished: {saved.step} of {config.num_updates} updates",)
    return Run(
        folder, task, agent, config, identity["seed"], identity["reward"], built, params, running, state, saved.step,
        notes,
    )  # fmt: skip


def is_run(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder has records."""
    return (Path(folder) / FILE).is_file()


def _identity(folder: Path) -> Mapping[str, Any]:
    if folder.is_file():
        raise ValueError(f"{folder} is a file, and a run is a folder; give the one that `train` was given as --out.")
    if not is_run(folder):
        what = "there is no such folder" if not folder.exists() else f"it has no {FILE}"
        raise ValueError(f"{folder} is not a run: {what}; make one with `reward-design train --out {folder}`.")
    identity = next(r["identity"] for r in reversed(read(folder)) if r["kind"] == "comparison")
    if "tasks" in identity:
        raise ValueError(
            f"{folder} is a comparison, which keeps no policies; train one of its runs with "
            f"`reward-design train --task {identity['tasks'][0]} --reward {identity['rewards'][0]} --out FOLDER`."
        )
    return identity


def _of_other_library(
    folder: Path, identity: Mapping[str, Any], agent: sb3.SB3Agent, config: Any, task: envs.Task, reward: Any
) -> Run:
    """A finished run, with the reward as new: what it had learned or counted is not kept by these agents."""
    state = single_sb3.saved(agent, folder)
    built, notes = _reward(identity, folder, task, reward)
    if built is not None and jax.tree.leaves(jax.eval_shape(built.init, jax.random.key(0), task.example)[1].running):
        notes += (f"the running statistics of {built.name!r} are not kept with {agent.name!r}; they are taken as new",)
    return Run(
        folder, task, agent, config, identity["seed"], identity["reward"], built, None, None, state,
        config.num_updates, notes,
    )  # fmt: skip


def _reward(
    identity: Mapping[str, Any], folder: Path, task: envs.Task, given: Any
) -> tuple[Reward | None, tuple[str, ...]]:
    """The reward of a run, and a note if it is missing or has changed."""
    artifact = recorded(read(folder)).get(identity["reward"], {})
    file = artifact.get("file")
    try:
        reward = designs.resolve((file or identity["reward"]) if given is None else given, task)
    except (ValueError, TypeError, OSError) as error:
        return None, (f"the reward {identity['reward']!r} cannot be made again ({error})",)
    if artifact and hashes(reward) != artifact["sha256"]:
        return reward, (f"the file of reward {identity['reward']!r} was changed or replaced since the run",)
    try:
        same = fingerprint(task.env, reward) == identity["program"]
    except (ValueError, TypeError) as error:
        return None, (f"the reward {identity['reward']!r} does not fit the task any more ({error})",)
    changed = f"reward {identity['reward']!r} does not compute what it did (it, the task or a library has changed)"
    return reward, () if same else (changed,)


def _trained_reward(folder: Path, reward: Reward, task: envs.Task, config: Any) -> tuple[Any, Any, tuple[str, ...]]:
    """Parameters and running statistics of the reward as trained, where there are any."""
    example = scoring.reward_example(task.env, config.num_envs)
    params, state = jax.eval_shape(reward.init, jax.random.key(0), example)
    if not jax.tree.leaves((params, state.running)):
        return None, None, ()
    single = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), (params, state))
    try:
        found = checkpoint.restore_part(folder, {"reward_params": single[0], "reward_state": single[1]})
    except ValueError:
        return None, None, (f"what {reward.name!r} had learned does not fit it any more; it is taken as new",)
    params, state = jax.tree.map(lambda x: jnp.asarray(x[0]), (found["reward_params"], found["reward_state"]))
    return params, state.running, ()
