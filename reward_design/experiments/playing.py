"""Episodes to look at: a line for each, a video or frames in the terminal, with what was paid for every step."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import gymnasium
import jax
import numpy as np
from rich.console import Console

from reward_design import envs
from reward_design._arguments import check_seed
from reward_design.agents.host import MAX_STEPS
from reward_design.agents.policies import Planner, Policy
from reward_design.agents.policy_files import is_policy, load_policy
from reward_design.core import Transition
from reward_design.envs.base import Task
from reward_design.envs.host import HostEnv, numeric_parts
from reward_design.experiments.evaluation import Evaluation, joined, judge, scorer_of, with_next_action
from reward_design.experiments.runs import Run, is_run, load_run
from reward_design.experiments.screens import Frames, Played, Screen, note_line, screen_for


def play(
    policy: Run | Policy | Planner | None = None,
    *,
    random: bool = False,
    task: Task | str | None = None,
    reward: Any = None,
    episodes: int = 5,
    seed: int = 0,
    deterministic: bool = True,
    video: str | os.PathLike[str] | None = None,
    fps: int | float | None = None,
    terminal: bool = False,
    console: Console | None = None,
) -> Evaluation:
    """Play episodes one after another, with a line for each and their means, and film them if that is asked for.

    Args:
        policy: a run, a policy or a planner; None plays random actions.
        random: random actions all the same; of ``policy``, task and reward are taken.
        task: where to play; by default the policy's own.
        reward: what to show as shaped reward: a reward or a design; by default that of the run.
        episodes: how many.
        seed: of the environment and of random actions.
        deterministic: the mode of the policy instead of samples.
        video: file to write, ``.mp4`` or ``.gif``; a strip under each frame tells step, true and shaped reward. Where
            the task cannot be drawn a sentence says so, and the episodes are played all the same.
        fps: frames per second; by default what suits the task.
        terminal: print the frames of a task that has pictures in text.
        console: where to print.

    Returns:
        An :class:`~reward_design.experiments.Evaluation` of the episodes.

    Raises:
        ValueError: for a number of episodes below 1, a seed below 0, a file name that is no video, ``terminal`` on a
            task without pictures in text, or a policy that does not know its task where none is given.
    """
    task = _task(policy, task)
    console = console or Console(soft_wrap=True)
    if episodes < 1:
        raise ValueError(f"episodes must be at least 1, got {episodes}.")
    check_seed(seed)
    if fps is not None and not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}.")
    if terminal and video is not None:
        raise ValueError("frames go either to a video or to the terminal; choose one of the two.")
    act = _actor(None if random else policy, task, seed, deterministic)
    scorer = scorer_of(policy, task, reward)
    screen = screen_for(task, video, fps, terminal, console)
    played: list[Evaluation] = []
    env = task.make(render_mode=screen.mode)
    try:
        _print(console, "episode", "true return", "shaped", "success", "length")
        for number in range(episodes):
            with Frames() as frames:
                rows = _episode(env, task, act, None if number else seed, frames if screen.mode else None, screen)
                output = None if scorer is None else scorer(rows)
                screen.show(Played(task.name, number, rows, output), frames)
            played.append(judge(task.env, rows, output))
            _print(console, str(number), *_cells(played[-1]))
        _print(console, "mean", *_cells(joined(played)))
    finally:
        screen.close()
        env.close()
    return joined(played)


def found(folder: str | None, task: str | None, *, random: bool) -> tuple[Run | Policy | None, Task]:
    """What the command line asks for: what knows policy, task and reward, and the task.

    Args:
        folder: of a run or of a saved policy; without it there are only random actions.
        task: name.
        random: random actions.

    Raises:
        ValueError: if nothing is named to play, or the folder holds neither.
    """
    if folder is None:
        if task is None or not random:
            wanted = "add --random to play random actions" if task else "give --run FOLDER, or --task NAME --random"
            raise ValueError(f"there is no policy to play: {wanted}.")
        return None, envs.task(task)
    known = envs.task(task) if task else None
    if not is_run(folder) and is_policy(folder):
        policy = load_policy(folder, None if known is None else known.make())
        policy.task = known or policy.task
    else:
        policy = load_run(folder, task=known)
        for note in policy.notes:
            note_line(f"note: {note}.")
    assert policy.task is not None
    return policy, policy.task


def _task(policy: Run | Policy | Planner | None, task: Task | str | None) -> Task:
    known = getattr(policy, "task", None) if task is None else task
    if known is None:
        raise ValueError("expected a policy that knows its task, or a task to play; give task=.")
    return envs.task(known) if isinstance(known, str) else known


def _actor(policy: Run | Policy | Planner | None, task: Task, seed: int, deterministic: bool) -> Callable[[Any], Any]:
    """Actions ``[B]`` for observations ``[B]``."""
    if isinstance(policy, Run):
        return policy.policy(deterministic=deterministic, seed=seed)
    if isinstance(policy, Policy):
        known = policy.agent, policy.config, policy.env, policy.state
        return Policy(*known, deterministic=deterministic, seed=seed)
    if isinstance(policy, Planner):
        policy.reset(seed)
        return policy
    return _random(task.env.action_space, seed)


def _random(space: gymnasium.Space, seed: int) -> Callable[[Any], Any]:
    space.seed(seed)

    def act(obs: Any) -> Any:
        masks = obs.get("action_mask") if isinstance(obs, dict) else None
        if masks is None or not isinstance(space, gymnasium.spaces.Discrete):
            return np.stack([space.sample() for _ in range(len(jax.tree.leaves(obs)[0]))])
        return np.stack([space.sample(mask=np.asarray(mask, np.int8)) for mask in masks])

    return act


# --- one episode ----------------------------------------------------------------------------------------------------


def _episode(
    env: gymnasium.Env,
    task: Task,
    act: Callable[[Any], Any],
    seed: int | None,
    frames: Frames | None,
    screen: Screen,
) -> Transition:
    """Transitions ``[T, 1]``; what is seen goes to ``frames``."""
    if isinstance(act, Policy):
        act.reset()
    seen = _batch(task, env.reset(seed=seed)[0])
    if isinstance(act, Planner):
        act.attach(env)
    rows = []
    for step in range(1, (task.horizon or MAX_STEPS) + 1):
        screen.look(env, frames)
        action = np.asarray(act(seen))
        obs, reward, terminated, truncated, info = env.step(action[0])
        truncated = (bool(truncated) or step == (task.horizon or MAX_STEPS)) and not terminated
        following = _batch(task, obs)
        flags = (np.array([reward], np.float32), np.array([bool(terminated)]), np.array([truncated]))
        rows.append(Transition(seen, action, following, *flags, np.array([True]), _info(task, info)))
        seen = following
        if terminated or truncated:
            break
    screen.look(env, frames)
    return with_next_action(jax.tree.map(lambda *x: np.stack(x), *rows), act)


def _batch(task: Task, obs: Any) -> Any:
    """A copy of an observation with a batch axis: environments reuse their buffers."""
    return jax.tree.map(lambda x: np.array(x)[None], numeric_parts(task.env.observation_space, obs))


def _info(task: Task, info: Any) -> dict[str, np.ndarray]:
    """The entries that rewards may read, with a batch axis."""
    names = task.env.info if isinstance(task.env, HostEnv) else info
    missing = [name for name in names if name not in info]
    if missing:
        raise ValueError(f"{task.name!r} needs the info entry {missing[0]!r} at every step, got {sorted(info)}.")
    return {name: np.asarray(info[name])[None] for name in names}


# --- what is printed ------------------------------------------------------------------------------------------------


def _print(console: Console, *cells: str) -> None:
    widths = (7, 14, 12, 10, 9)
    console.print("".join(f"{cell:>{width}}" for cell, width in zip(cells, widths)), highlight=False)


def _cells(played: Evaluation) -> Sequence[str]:
    shaped = "-" if played.shaped_return is None else f"{played.shaped_return.mean():.4g}"
    return f"{played.true_return.mean():.4g}", shaped, f"{played.success.mean():.0%}", f"{played.length.mean():.4g}"
