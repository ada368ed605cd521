"""Samples from gymnasium's MuJoCo environments: the state is set, an action is tried, the state is restored."""

from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np

from reward_design.distance.samples import DETERMINISTIC, Samples, check_sizes
from reward_design.envs.base import Task

_CHECKED = 20
"""States in which it is checked that the same action leads to the same place twice."""


def sample_mujoco(
    task: Task | gymnasium.Env,
    *,
    num_samples: int,
    seed: int = 0,
    thin: int = 1,
    policy: Callable[[np.random.Generator, Any], Any] | None = None,
) -> Samples:
    """Samples of a MuJoCo environment: states along rollouts, each with a fresh action from exactly that state.

    The action that is scored is drawn anew in the recorded state (positions, velocities, and the solver's warm start
    cleared), so states and actions do not depend on where the rollout went next. The simulator is deterministic, which
    is checked on the first states, so K = 1.

    Args:
        task: a MuJoCo task, or an environment with ``set_state(qpos, qvel)``, as all of gymnasium's have.
        num_samples: N.
        seed: of resets and actions.
        thin: keep every ``thin``-th state of the rollouts.
        policy: ``(generator, obs) -> action``, default uniform over the action space.

    Returns:
        :class:`Samples` with K = 1; an episode is a group.

    Raises:
        TypeError: for an environment whose state cannot be set.
        ValueError: if the same state and action lead to different observations or rewards.
    """
    check_sizes(num_samples, 1)
    env = task.make() if isinstance(task, Task) else task
    names = tuple(getattr(task.env, "info", {})) if isinstance(task, Task) else ()
    inner: Any = env.unwrapped
    if not hasattr(inner, "set_state") or not hasattr(inner, "data"):
        raise TypeError(
            f"sample_mujoco needs an environment with set_state(qpos, qvel), got {type(inner).__name__}; use "
            "sample_functional for tasks on the device, or recorded_samples."
        )
    rng = np.random.default_rng(seed)
    low, high = env.action_space.low, env.action_space.high  # pyright: ignore[reportAttributeAccessIssue]
    act = policy or (lambda rng, obs: rng.uniform(low, high).astype(np.float32))
    rows, group, count, episode = [], [], 0, -1
    obs, over = None, True
    while len(rows) < num_samples:
        if over:
            obs, _ = env.reset(seed=int(rng.integers(2**31)))
            episode += 1
        at = (inner.data.qpos.copy(), inner.data.qvel.copy(), float(inner.data.time))
        if count % thin == 0:
            rows.append(_tried(inner, at, obs, np.asarray(act(rng, obs)), names, check=len(rows) < _CHECKED))
            group.append(episode)
            _restore(inner, at)
        count += 1
        obs, _, terminated, truncated, _ = env.step(act(rng, obs))
        over = terminated or truncated
    if isinstance(task, Task):
        env.close()
    return _gathered(rows, group, names)


def _restore(inner: Any, at: tuple[Any, Any, float]) -> None:
    qpos, qvel, time = at
    inner.data.qacc_warmstart[:] = 0.0
    inner.set_state(qpos, qvel)
    inner.data.time = time


def _tried(
    inner: Any, at: Any, obs: Any, action: np.ndarray, names: tuple[str, ...], *, check: bool
) -> tuple[Any, ...]:
    """Observation, action, and what one step from the state gives."""
    _restore(inner, at)
    after, reward, terminated, _, info = inner.step(action)
    after = np.array(after)
    if check:
        _restore(inner, at)
        again, paid, *_ = inner.step(action)
        if not (np.allclose(again, after, atol=1e-9) and np.isclose(paid, reward, atol=1e-9)):
            raise ValueError(
                f"{type(inner).__name__} went to another place from the same state and action, so positions and "
                "velocities are not its whole state; use recorded_samples."
            )
    return np.array(obs), action, after, float(reward), bool(terminated), [np.asarray(info[name]) for name in names]


def _gathered(rows: list[tuple[Any, ...]], group: list[int], names: tuple[str, ...]) -> Samples:
    obs, action, after, reward, terminated, infos = (list(column) for column in zip(*rows, strict=True))
    info = {name: np.stack([row[i] for row in infos])[:, None] for i, name in enumerate(names)}
    return Samples(
        np.stack(obs), np.stack(action), np.stack(after)[:, None], np.array(reward)[:, None],
        np.array(terminated)[:, None], info, np.array(group), DETERMINISTIC,
    )  # fmt: skip
