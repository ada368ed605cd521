"""Tasks on MiniHack's levels of NetHack: ``minihack/<name>``, and ``minihack/custom`` from a level description."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import jax.numpy as jnp

from reward_design.combinators import environment_reward
from reward_design.core import Transition
from reward_design.envs import checks
from reward_design.envs.base import Factor, Task
from reward_design.envs.control import check_settings, progress, weighted
from reward_design.envs.host import HostEnv
from reward_design.envs.minihack_events import EVENTS, SUCCESS
from reward_design.envs.minihack_game import CUSTOM, described_level
from reward_design.envs.minihack_glyphs import ITEMS, LANDMARKS
from reward_design.envs.minihack_lane import COLUMNS, INFO, ROWS, Level, MiniHackLane
from reward_design.envs.minihack_masks import action_names
from reward_design.envs.minihack_texts import PAID, PAID_ITS_OWN, SEEN, Family, Stage, family
from reward_design.envs.process_vector import ProcessVectorEnv
from reward_design.envs.serial_vector import SerialVectorEnv

FAR = 20
"""Cells from which on, and for what is not on the map, all is equally far."""


class MiniHackTask(HostEnv):
    """A level of MiniHack.

    Args:
        level: which level, and how it is shown.
        gamma: discount per step.
        vectorisation: ``"sync"`` or ``"process"``.

    Attributes:
        actions: names of the actions.
        managed: whether the level has a reward manager of its own.
    """

    def __init__(self, level: Level, *, gamma: float, vectorisation: str) -> None:
        self.name, self.level, self.gamma = f"minihack/{level.env_id}", level, gamma
        if vectorisation not in ("sync", "process"):
            raise ValueError(f"vectorisation must be 'sync' or 'process', got {vectorisation!r}.")
        self._vectorisation = vectorisation
        check_settings(self.name, horizon=1 if level.horizon is None else level.horizon, gamma=gamma)
        _check_level(level)
        probe = self.make()
        self.observation_space, self.action_space = probe.observation_space, probe.action_space
        self.horizon, self.info = probe.horizon, dict(INFO)
        self.actions = action_names(probe.game.actions)
        self.managed = probe.game.reward_manager is not None
        probe.close()

    def make(self, *, render_mode: str | None = None) -> MiniHackLane:
        """A single environment."""
        return MiniHackLane(self.level, render_mode=render_mode)

    def vector(self, num_envs: int, *, seed: int | None = None) -> gymnasium.vector.VectorEnv:
        """``num_envs`` environments in mode ``SAME_STEP``; both kinds give the same numbers for the same seed."""
        kind = SerialVectorEnv if self._vectorisation == "sync" else ProcessVectorEnv
        return kind(
            self.make, num_envs, seed=seed, info=self.info, host_env=self,
            observation_space=self.observation_space, action_space=self.action_space,
        )  # fmt: skip

    def success(self, transition: Transition) -> Any:
        """The level's own task was achieved."""
        return transition.info["events"][..., SUCCESS]


def minihack_task(
    env_id: str,
    *,
    crop: int = 9,
    action_mask: bool = False,
    pack: bool = False,
    actions: tuple[str, ...] | None = None,
    level_seeds: tuple[int, ...] | None = None,
    des_file: str | None = None,
    horizon: int | None = None,
    penalty: float = -0.01,
    gamma: float = 0.99,
    vectorisation: str = "sync",
) -> Task:
    """The task ``minihack/<env_id>``: any level of MiniHack but Boxoban and the Crossings, or one of your own.

    Every step is that of ``gymnasium.make("MiniHack-<env_id>-v0")``, except that seeds are kept, time limits truncate,
    success in the last step counts, and the last observation of an episode is not blank.

    The potential is minus a tenth of the distance (in moves, at most 20) to the landmark that comes next on the way:
    the stairs; in KeyRoom the key, the closed door, then the stairs; in the skills the object, then nothing; and minus
    2 for every landmark that comes after it. A landmark that has not been seen counts as 20 moves away.

    A count bonus tells the hero's places apart, before and after each landmark on the way (``count_index``); a hash of
    the observation would not, because symbol numbers, all of them large, drown what changes.

    ``aligned`` pays the gain of the potential, ``misaligned`` for new messages, which look like news and are most
    easily had by bumping into walls.

    Keeps the optimal policy: ``sparse_reward`` only if game time never has to stand still; ``dense_reward`` only if
    its bonus and step cost outweigh the potential; ``aligned`` only together with the environment's reward;
    ``misaligned`` no.

    Args:
        env_id: MiniHack's name without ``MiniHack-`` and the version, ``"Room-5x5"``, or ``"custom"``.
        crop: side of the square of map around the hero that is seen, odd.
        action_mask: adds ``action_mask`` to observations, see :class:`reward_design.envs.minihack_masks.Masks`.
        pack: adds ``inv_glyphs`` and ``inv_letters``, the contents of the pack.
        actions: names of NetHack's actions to choose from, ``("N", "E", "S", "W", "PICKUP")``; by default the level's.
        level_seeds: seeds of the layouts to draw from; by default all layouts there are.
        des_file: level description for ``custom``, in the language of NetHack's level compiler, or the name of a file
            that ends in ``.des``, in the current folder or among MiniHack's. Success is to reach the stairs down, and
            a level without any is warned of (``UserWarning``).
        horizon: time limit; by default the level's.
        penalty: paid for a step in which game time stands still.
        gamma: discount per step.
        vectorisation: ``"sync"`` steps in this process, ``"process"`` in worker processes that are replaced when they
            die, raise or hang.

    Returns:
        A :class:`Task`, stepped on the host.

    Raises:
        ValueError: for an unknown level or action, a file that there is not, or a description that does not compile.
        TypeError: if a setting is of another kind than it should be.
        ImportError: if MiniHack or something that it needs is not installed.
    """
    if des_file is not None and env_id == CUSTOM:
        des_file = described_level(des_file)
    level = Level(
        env_id, crop=crop, action_mask=action_mask, pack=pack, actions=actions, level_seeds=level_seeds,
        des_file=des_file, horizon=horizon, penalty=penalty,
    )  # fmt: skip
    env = MiniHackTask(level, gamma=gamma, vectorisation=vectorisation)
    if des_file is not None and not _STAIRS_DOWN.search(re.sub("#.*", "", des_file)):
        warnings.warn(
            "this level has no stairs down (STAIR:..., down), and success is to reach them, so nobody can solve it; "
            "add them to des_file.",
            stacklevel=2,
        )
    kind = family(env_id)
    potential = _potential(kind)
    paid = (PAID_ITS_OWN if env.managed else PAID).format(penalty=penalty, horizon=env.horizon)
    return Task(
        name=env.name,
        description=f"NetHack, seen from above. {kind.text} {SEEN}Actions: {', '.join(env.actions)}. {paid}",
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("success", env.success),
        dense_reward=progress(potential, env.success, weight=0.2, bonus=1.0, step_cost=0.002),
        factors=_factors(),
        potential=potential,
        auxiliary={
            "aligned": weighted("closer", lambda t: potential(t.next_obs) - potential(t.obs), 0.1),
            "misaligned": weighted("news", lambda t: t.info["events"][..., _NEWS], 0.1),
        },
        count_index=_place(kind),
    )


_STAIRS_DOWN = re.compile(r"\bSTAIR\s*:[^:]*,\s*down\b")
_NEWS = list(EVENTS).index("message")


def _check_level(level: Level) -> None:
    if not isinstance(level.crop, int) or not 1 <= level.crop <= 79 or level.crop % 2 == 0:
        raise ValueError(f"crop must be an odd number from 1 to 79, got {level.crop!r}.")
    checks.check_kind(checks.is_number(level.penalty), "penalty", "a number", level.penalty)
    seeds = level.level_seeds
    if seeds is not None and not (seeds and all(isinstance(seed, int) and 0 <= seed < 2**31 for seed in seeds)):
        raise ValueError(f"level_seeds must be a tuple of numbers from 0 to 2**31 - 1, got {seeds!r}.")
    actions = level.actions
    if actions is None:
        return
    checks.check_kind(isinstance(actions, (tuple, list)), "actions", 'a tuple of names, such as ("N", "E")', actions)
    if not actions:
        raise ValueError("actions must name at least one action, got none.")
    twice = [name for index, name in enumerate(actions) if name in actions[:index]]
    if twice:
        raise ValueError(f"actions must name each action once, got {twice[0]!r} twice.")


def distance(obs: Any, landmark: str) -> Any:
    """Moves to the nearest ``landmark`` on the map, ignoring walls, at most :data:`FAR`."""
    row = obs["landmarks"][..., LANDMARKS.index(landmark), :]
    return jnp.where(row[..., 2] > 0, jnp.minimum(jnp.abs(row[..., :2]).max(-1), FAR), FAR)


def _potential(kind: Family) -> Callable[[Any], Any]:
    """Minus a tenth of the moves that are left, where each part of the way that is still to come counts as FAR."""

    def potential(obs: Any) -> Any:
        stats = obs["blstats"]
        value = jnp.zeros(stats.shape[:-1]) if kind.goal is None else -distance(obs, kind.goal) / 10
        for later, stage in enumerate(reversed(kind.stages), 1 - (kind.goal is None)):
            value = jnp.where(_passed(obs, stage), value, -(distance(obs, stage.toward) + later * FAR) / 10)
        return value

    return potential


def _passed(obs: Any, stage: Stage) -> Any:
    if stage.until in ITEMS:
        return obs["inventory"][..., ITEMS.index(stage.until)] >= stage.count
    return obs["landmarks"][..., LANDMARKS.index(stage.until), 2] > 0


def _place(kind: Family) -> Callable[[Any], Any]:
    """The hero's cell of the map, anew for every set of parts of the way that are done."""

    def index(obs: Any) -> Any:
        value = (obs["blstats"][..., 1] * COLUMNS + obs["blstats"][..., 0]).astype(jnp.int32)
        for bit, stage in enumerate(kind.stages):
            value = value + _passed(obs, stage) * (ROWS * COLUMNS << bit)
        return value

    return index


def _factors() -> dict[str, Factor]:
    factors = {
        "hit_points": Factor(
            lambda t: t.next_obs["blstats"][..., 10] / jnp.maximum(t.next_obs["blstats"][..., 11], 1.0),
            "1", 1, "hit points as a part of their maximum",
        ),
        "hit_point_change": Factor(
            lambda t: t.next_obs["blstats"][..., 10] - t.obs["blstats"][..., 10], "hp", 1, "hit points gained or lost"
        ),
        "depth": Factor(lambda t: t.next_obs["blstats"][..., 12], "1", 1, "depth of the dungeon level"),
        "turns": Factor(lambda t: t.next_obs["blstats"][..., 20], "turn", -1, "game time"),
        "explored": Factor(lambda t: t.info["explored"], "cell", 1, "cells of the map that are known"),
        "stairs_distance": Factor(lambda t: distance(t.next_obs, "stairs"), "move", -1, "moves to stairs, up to 20"),
        "stacks": Factor(lambda t: t.next_obs["inventory"][..., :-1].sum(-1), "1", 1, "stacks of objects in the pack"),
    }  # fmt: skip
    for index, (name, (sign, text)) in enumerate(EVENTS.items()):
        happened = lambda t, index=index: t.info["events"][..., index].astype(jnp.float32)  # noqa: E731
        factors[name] = Factor(happened, "1", sign, text)
    return factors
