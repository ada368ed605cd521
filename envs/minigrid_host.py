"""Levels of Farama's MiniGrid on the host, and the rule that tells them from those on the device: a version in the id.

Source: M. Chevalier-Boisvert et al., "Minigrid & Miniworld: Modular & Customizable Reinforcement Learning Environments
for Goal-Oriented Tasks", 2023, arXiv 2306.13831.
"""

import contextlib
import dataclasses
import inspect
import io
import itertools
import re
from types import MappingProxyType
from typing import Any

import gymnasium
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from gymnasium.utils import RecordConstructorArgs

from reward_design._names import suggestion
from reward_design._optional import require
from reward_design.core import Transition
from reward_design.envs.base import Task
from reward_design.envs.control import check_known, check_settings
from reward_design.envs.gymnasium_task import GymnasiumEnv
from reward_design.envs.minigrid_adapter import MinigridEnv, minigrid_task
from reward_design.envs.minigrid_parts import MILESTONES, grid_task

OBSERVATIONS = ("one_hot", "symbolic")
EVENTS = ("success", "picked_up", "put_down", "door_used", "turned", "moved")
"""Names of the info entries."""
MISSION_BYTES = 256
_KINDS, _COLOURS, _STATES = 11, 6, 3


class FaramaGrid(gymnasium.Wrapper, RecordConstructorArgs):
    """A level of MiniGrid with numbers for observations, and with milestones and events, see :func:`farama_task`.

    Args:
        env: an environment of MiniGrid.
        observation: ``"one_hot"`` or ``"symbolic"``.
    """

    def __init__(self, env: gymnasium.Env, observation: str) -> None:
        RecordConstructorArgs.__init__(self, observation=observation)
        super().__init__(env)
        self.level: Any = env.unwrapped
        self.one_hot = observation == "one_hot"
        space: Any = env.observation_space
        height, width, _ = space["image"].shape
        self._words = _word_codes(space["mission"]) if self.one_hot else None
        self._has_mission = _varies(space["mission"])
        parts = {
            "image": spaces.Box(0, _KINDS - 1, (height, width, 3), np.uint8),
            "direction": spaces.Discrete(4),
            "milestones": spaces.Box(0.0, 1.0, (len(MILESTONES),)),
        }
        if self._has_mission:
            parts["mission"] = spaces.Box(0, 255, (MISSION_BYTES,), np.uint8)
        size = height * width * (_KINDS + _COLOURS + _STATES) + 4 + len(MILESTONES)
        size += len(next(iter(self._words.values()))) if self._words else 0
        self.observation_space = spaces.Box(0.0, 1.0, (size,)) if self.one_hot else spaces.Dict(parts)

    def reset(self, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        obs, info = self.env.reset(**kwargs)
        self._before = self._snapshot()
        return self._observe(obs, self._milestones(self._before)), info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """One step."""
        obs, reward, terminated, truncated, info = self.env.step(action)
        old, new = self._before, self._snapshot()
        events = {
            "success": terminated and float(reward) > 0,
            "picked_up": old["carried"] is None and new["carried"] is not None,
            "put_down": old["carried"] is not None and new["carried"] is None,
            "door_used": old["doors"] != new["doors"],
            "turned": old["direction"] != new["direction"],
            "moved": old["place"] != new["place"],
        }
        self._before = new
        return self._observe(obs, self._milestones(new)), reward, terminated, truncated, {**info, **events}

    def _snapshot(self) -> dict[str, Any]:
        """What milestones and events are read from."""
        level, width = self.level, self.level.grid.width
        things = [(i % width, i // width, cell) for i, cell in enumerate(level.grid.grid) if cell is not None]
        doors = {(x, y): (cell.is_locked, cell.is_open) for x, y, cell in things if cell.type == "door"}
        return {
            "carried": level.carrying,
            "doors": doors,
            "keys": [(x, y) for x, y, cell in things if cell.type == "key"],
            "goals": [(x, y) for x, y, cell in things if cell.type == "goal"] or _aims(level),
            "place": tuple(map(int, level.agent_pos)),
            "direction": int(level.agent_dir),
        }

    def _milestones(self, now: dict[str, Any]) -> np.ndarray:
        locked = [place for place, (is_locked, _) in now["doors"].items() if is_locked]
        has_key = now["carried"] is not None and now["carried"].type == "key"
        targets = (locked if has_key else now["keys"]) if locked else now["goals"]
        far, (x, y) = self.level.grid.width + self.level.grid.height, now["place"]
        nearest = min([abs(x - i) + abs(y - j) for i, j in targets], default=far)
        is_open = any(is_open for _, is_open in now["doors"].values())
        return np.array([has_key, not locked, is_open, 1 - nearest / far], np.float32)

    def _observe(self, obs: Any, milestones: np.ndarray) -> Any:
        image, direction = obs["image"], int(obs["direction"])
        if not self.one_hot:
            parts = {"image": image, "direction": np.int64(direction), "milestones": milestones}
            return {**parts, "mission": _as_bytes(obs["mission"])} if self._has_mission else parts
        kinds = [image[..., i, None] == np.arange(n) for i, n in enumerate((_KINDS, _COLOURS, _STATES))]
        words = [self._words[obs["mission"]]] if self._words else []
        return np.concatenate(
            [np.concatenate(kinds, axis=-1).ravel(), np.arange(4) == direction, *words, milestones], dtype=np.float32
        )


class FaramaEnv(GymnasiumEnv):
    """A level of Farama's MiniGrid, see :func:`farama_task` for the arguments."""

    reported = MappingProxyType({})

    def __init__(
        self,
        env_id: str,
        *,
        observation: str | None,
        view_size: int | None,
        horizon: int | None,
        gamma: float,
        vectorisation: str,
    ) -> None:
        _import_minigrid()
        check_known("minigrid environment", env_id, farama_levels())
        if observation is not None:
            check_known("observation setting", observation, OBSERVATIONS)
        if view_size is not None and (view_size < 3 or view_size % 2 == 0):
            raise ValueError(f"minigrid/{env_id}: view_size must be odd and at least 3, got {view_size}.")
        check_settings(f"minigrid/{env_id}", horizon=1 if horizon is None else horizon, gamma=gamma)
        settings = {"max_steps": horizon, "agent_view_size": view_size}
        mission = _mission_space(env_id)
        worded = not _varies(mission) or _word_codes(mission) is not None
        self.observation = observation or ("one_hot" if worded else "symbolic")
        if self.observation == "one_hot" and not worded:
            raise ValueError(f"minigrid/{env_id} has missions of free text; use observation='symbolic'.")
        super().__init__(
            env_id,
            kwargs={name: value for name, value in settings.items() if value is not None},
            horizon=None,
            gamma=gamma,
            info=dict.fromkeys(EVENTS, ((), np.bool_)),
            success=_succeeded,
            vectorisation=vectorisation,
        )
        self.name = f"minigrid/{env_id}"
        self.has_locked_door, self.horizon = self._probed()

    def _made(self, which: Any, render_mode: str | None = None) -> gymnasium.Env:
        _import_minigrid()
        return super()._made(which, render_mode)

    def _guarded(self, env: gymnasium.Env) -> gymnasium.Env:
        return FaramaGrid(env, self.observation)  # there is no simulator that could fail

    def _probed(self) -> tuple[bool, int]:
        """Whether there is a locked door in one of some first episodes; the time limit."""
        env = self.make()
        level: Any = env.unwrapped
        locked = []
        for seed in range(4):
            obs, _ = env.reset(seed=seed)
            vector: Any = obs["milestones"] if isinstance(obs, dict) else obs
            locked.append(vector[MILESTONES.index("unlocked") - len(MILESTONES)] == 0)
        env.close()
        return any(locked), int(level.max_steps)


def farama_task(
    env_id: str,
    *,
    observation: str | None = None,
    view_size: int | None = None,
    horizon: int | None = None,
    gamma: float = 0.99,
    vectorisation: str = "sync",
) -> Task:
    """Task for a level of Farama's MiniGrid; the environment pays 1 − 0.9 t / horizon on success, t steps taken.

    Observations are the agent's view ``[V, V, 3]`` of kinds, colours and states, its direction, the mission where it
    varies between episodes, and the milestones of :class:`reward_design.envs.minigrid_adapter.MinigridEnv`:
    ``has_key``, ``unlocked``, ``door_open`` and ``closeness``, 1 − (|Δx| + |Δy|) / (width + height), to the key while a
    door is locked and no key held, then to that door, then to the goal (or to what the mission asks for, where the
    level knows its place). They come from the whole grid, so that a potential can be computed from an observation.

    ``"one_hot"`` gives one float vector of all of it, a mission as one-hot words; ``"symbolic"`` a dict of ``image``,
    ``direction``, ``milestones`` and ``mission`` (bytes). ``info`` holds the events ``success``, ``picked_up``,
    ``put_down``, ``door_used``, ``turned`` and ``moved``. Potential, factors and auxiliary rewards are those of
    :func:`reward_design.envs.minigrid_adapter.minigrid_task`; the sparse reward pays 1 on success.

    Keeps the optimal policy: ``sparse_reward`` yes; ``dense_reward`` and ``aligned`` nearly; ``misaligned`` no.

    Args:
        env_id: a registered id, ``"MiniGrid-DoorKey-5x5-v0"`` or ``"BabyAI-GoToLocal-v0"`` for example.
        observation: ``"one_hot"`` or ``"symbolic"``; by default the first, but for missions of free text (BabyAI).
        view_size: side V of the view, odd; the level's (7) if left out.
        horizon: time limit; the level's if left out (in BabyAI, where it depends on the mission, that of an episode).
        gamma: discount per step.
        vectorisation: as in :class:`reward_design.envs.gymnasium_task.GymnasiumEnv`.

    Returns:
        A :class:`Task` named ``minigrid/<id>``, stepped on the host.

    Raises:
        ImportError: without the extra ``minigrid``.
        ValueError: for an unknown id, with the nearest one, or an impossible setting.

    Example:
        >>> from reward_design.envs.minigrid_host import farama_task
        >>> farama_task("MiniGrid-DoorKey-5x5-v0", view_size=5).env.observation_space.shape
        (508,)
    """
    env = FaramaEnv(
        env_id,
        observation=observation,
        view_size=view_size,
        horizon=horizon,
        gamma=gamma,
        vectorisation=vectorisation,
    )
    text = (
        f"The level {env_id} of MiniGrid. The agent sees the cells in front of it and can 0 turn left, 1 turn right, "
        "2 go forward, 3 pick up, 4 put down, 5 toggle a door or a box, 6 say that it is done. "
        + ("It must fetch the key that opens the locked door. " if env.has_locked_door else "")
        + f"The environment pays 1 - 0.9 t / {env.horizon} on success after t steps, where the episode ends; it stops "
        f"after {env.horizon} steps."
    )
    return dataclasses.replace(grid_task(env, has_locked_door=env.has_locked_door), description=text)


def minigrid_level(env_id: str, **settings: Any) -> Task:
    """The task ``minigrid/<env_id>``, of Farama's MiniGrid or of XLand-MiniGrid.

    An id with a version (``MiniGrid-DoorKey-5x5-v0``) is Farama's, stepped on the host; one without
    (``MiniGrid-DoorKey-5x5``) is its counterpart in JAX, on the device.

    Args:
        env_id: the id.
        settings: of :func:`farama_task`, or of :func:`reward_design.envs.minigrid_adapter.minigrid_task`.

    Returns:
        A :class:`Task`.

    Raises:
        ValueError: for an unknown id, with the nearest one.
        TypeError: for an unknown setting.
        ImportError: without the extra ``minigrid`` or ``jaxenvs``.
    """
    versioned = re.search(r"-v\d+$", env_id) is not None
    build, takes = (farama_task, farama_task) if versioned else (minigrid_task, MinigridEnv)
    known = [p.name for p in inspect.signature(takes).parameters.values() if p.kind is p.KEYWORD_ONLY]
    for setting in settings:
        if setting not in known:
            raise TypeError(
                f"task 'minigrid/{env_id}' has no setting {setting!r}{suggestion(setting, known)} "
                f"Settings: {', '.join(known)}."
            )
    try:
        return build(env_id, **settings)
    except ValueError as error:
        if versioned or f"{env_id}-v0" not in _registered():
            raise
        raise ValueError(f"{error} The host has 'minigrid/{env_id}-v0'.") from error


def farama_levels() -> list[str]:
    """Ids of Farama's MiniGrid.

    Raises:
        ImportError: without the extra ``minigrid``.
    """
    _import_minigrid()
    return _registered()


def _registered() -> list[str]:
    with contextlib.suppress(ImportError):
        _import_minigrid()
    return [name for name in gymnasium.registry if name.startswith(("MiniGrid-", "BabyAI-"))]


def _import_minigrid() -> None:
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # greetings of pygame
        require("minigrid", "minigrid", "MiniGrid environments")


def _succeeded(transition: Transition) -> Any:
    return jnp.asarray(transition.info["success"], bool)


def _mission_space(env_id: str) -> Any:
    env = gymnasium.make(env_id)
    space: Any = env.observation_space
    env.close()
    return space["mission"]


def _varies(mission: Any) -> bool:
    """Whether a mission differs between episodes; BabyAI's spaces do not list what it may be."""
    return bool(mission.ordered_placeholders) or type(mission).__name__ != "MissionSpace"


def _word_codes(mission: Any) -> dict[str, np.ndarray] | None:
    """One-hot code of the words of every possible mission, or None where they are not known."""
    options = mission.ordered_placeholders
    if not options:
        return None
    codes = {}
    for chosen in itertools.product(*(range(len(words)) for words in options)):
        text = mission.mission_func(*(words[i] for words, i in zip(options, chosen, strict=True)))
        parts = [np.arange(len(words)) == i for words, i in zip(options, chosen, strict=True)]
        codes[text] = np.concatenate(parts)
    return codes


def _as_bytes(mission: str) -> np.ndarray:
    text = mission.encode()[:MISSION_BYTES]
    return np.frombuffer(text.ljust(MISSION_BYTES, b"\0"), np.uint8)


def _aims(level: Any) -> list[tuple[int, int]]:
    """Where the thing is that the mission asks for, in levels that have no goal tile."""
    place = getattr(level, "target_pos", None)
    if place is None and (thing := getattr(level, "obj", None)) is not None:
        place = thing.cur_pos
    return [] if place is None or place[0] < 0 else [(int(place[0]), int(place[1]))]
