"""One MiniHack level as a gymnasium environment: what is seen, what happened, what cannot be done."""

import importlib
import pickle
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces

from reward_design.envs.host import NotCopied
from reward_design.envs.minihack_events import EVENTS, SUCCESS, flags
from reward_design.envs.minihack_game import DEATH, KeyGame, open_game
from reward_design.envs.minihack_glyphs import FIRST_LANDMARK, ITEMS, KNOWN, LANDMARKS, UNKNOWN, glyphs
from reward_design.envs.minihack_masks import Masks, Sight

INFO = {"events": ((len(EVENTS),), np.bool_), "explored": ((), np.float32)}
"""Shape and dtype of what every step says in ``info``."""
ROWS, COLUMNS = 21, 79
_BLIND = 0x20
_SCREEN = ("tty_chars", "tty_colors", "tty_cursor")
_ITEM = FIRST_LANDMARK + LANDMARKS.index("item")
_OPEN_DOOR = FIRST_LANDMARK + LANDMARKS.index("open_door")
_STAYING = [FIRST_LANDMARK + LANDMARKS.index(name) for name in ("stairs", "item", "open_door", "feature")]


@dataclass(frozen=True)
class Level:
    """Which level, and how it is shown.

    Attributes:
        env_id: registered id, without ``MiniHack-`` and ``-v0``, or ``"custom"``.
        crop: side of the square of map around the hero, odd.
        action_mask: whether observations have ``action_mask``.
        pack: whether observations have ``inv_glyphs`` and ``inv_letters``.
        actions: names of the actions, as in :func:`~reward_design.envs.minihack_masks.action_names`; None for the
            level's own.
        level_seeds: seeds of layouts to draw from; None for all layouts.
        horizon: steps after which an episode is truncated; None for the level's own.
        penalty: reward of a step in which game time stands still.
        des_file: level description, for ``custom``.
    """

    env_id: str
    crop: int = 9
    action_mask: bool = False
    pack: bool = False
    actions: tuple[str, ...] | None = None
    level_seeds: tuple[int, ...] | None = None
    horizon: int | None = None
    penalty: float = -0.01
    des_file: str | None = None


class MiniHackLane(NotCopied, gymnasium.Env):
    """A level of MiniHack; rewards and course are MiniHack's own, step by step.

    Different from ``gymnasium.make("MiniHack-...-v0")``: ``reset(seed=...)`` fixes everything that follows; time limits
    truncate and do not terminate; success in the last step counts; the last observation of an episode is what the hero
    saw last (NetHack blanks its map first), after death with 0 hit points.

    Args:
        level: which level, and how it is shown.
        render_mode: ``"ansi"``, the terminal as text with colours, or ``"rgb_array"``, the map in tiles.
    """

    metadata: ClassVar[dict[str, Any]] = {"render_modes": ["ansi", "rgb_array"], "render_fps": 4}

    def __init__(self, level: Level, *, render_mode: str | None = None) -> None:
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise ValueError(f"render_mode must be 'ansi', 'rgb_array' or None, got {render_mode!r}.")
        extra = _SCREEN if render_mode == "ansi" else ()
        settings: dict[str, Any] = {"penalty_step": level.penalty}
        if level.actions is not None:
            settings["actions"] = _actions(level.actions)
        self.level, self.render_mode = level, render_mode
        self.game = open_game(level.env_id, extra=extra, des_file=level.des_file, **settings)
        self.horizon = level.horizon or int(self.game._max_episode_steps)
        self.action_space = spaces.Discrete(len(self.game.actions))
        self.observation_space = _observation_space(level, len(self.game.actions))
        self._masks = Masks(self.game.actions, key_rooms=isinstance(self.game, KeyGame))
        self._half, self._tables = level.crop // 2, glyphs()
        self._map = np.full((ROWS + 2 * self._half, COLUMNS + 2 * self._half), self._tables.stone, np.int16)
        self._inner = self._map[self._half : self._half + ROWS, self._half : self._half + COLUMNS]
        self._flat = np.zeros(ROWS * COLUMNS, np.int16)
        self._offsets = self._masks.offsets(COLUMNS)
        self._shown: dict[str, np.ndarray] = {}
        self._running = False

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode."""
        super().reset(seed=seed)
        core, display, which = self.np_random.integers(0, 2**31 - 1, 3).tolist()
        layouts = self.level.level_seeds
        self.game.restart(core, display, None if layouts is None else layouts[which % len(layouts)])
        self._steps, self._message, self._form, self._held, self._place = 0, b"", -1, b"", (-9, -9)
        self._free, self._bare, self._waiting, self._running = True, False, False, True
        self._kinds, self._marks, self._explored = bytearray(ROWS * COLUMNS), {}, 0
        self._flat[:] = self._map[:] = self._tables.stone
        self._stats = self.game.arrays["blstats"].tolist()
        obs, events = self._observe(self.game.arrays, status=0, action=-1)
        events[:] = False
        return obs, {"events": events, "explored": np.float32(self._explored)}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step.

        Raises:
            ValueError: for an action that there is not.
            ResetNeeded: where there is no episode.
        """
        if not self._running:
            raise gymnasium.error.ResetNeeded("there is no episode to step, or it is over; call reset().")
        if not 0 <= (number := int(action)) < len(self.game.actions) or number != action:
            raise ValueError(f"actions must be whole numbers from 0 to {len(self.game.actions) - 1}, got {action!r}.")
        action = number
        reward, status = self.game.advance(action)
        self._steps += 1
        arrays = self.game.at_death if status == DEATH and self.game.at_death else self.game.arrays
        obs, events = self._observe(arrays, status=status, action=action)
        events[SUCCESS] &= reward > 0  # Memento's wrong way ends like a success, and pays -1
        truncated = not status and self._steps >= self.horizon
        if status or truncated:
            self._running = False
            self.game.end()
        return obs, reward, bool(status), truncated, {"events": events, "explored": np.float32(self._explored)}

    def render(self) -> Any:
        """The terminal as text, or the map in tiles, as of the last observation; None without a ``render_mode``."""
        if self.render_mode == "ansi":
            nethack = importlib.import_module("nle.nethack")
            return nethack.tty_render(*(self._shown[name] for name in _SCREEN)).lstrip("\n")
        if self.render_mode == "rgb_array":
            tiles = _tiles()[self._shown["glyphs"]]
            return np.ascontiguousarray(tiles.swapaxes(1, 2).reshape(ROWS * tiles.shape[2], -1, 3))
        return None

    def close(self) -> None:
        """End NetHack."""
        self.game.close()

    def _observe(self, arrays: dict[str, np.ndarray], *, status: int, action: int) -> tuple[Any, np.ndarray]:
        """The observation, and the events since the one before."""
        before, self._stats = self._stats, arrays["blstats"].tolist()
        stacks = self._look_into_the_pack(arrays["inv_glyphs"])
        message = arrays["message"].tobytes() if arrays["message"][0] else b""
        text = b"\n".join(self.game.heard) if self.game.heard else b""
        events = flags(
            text, before, self._stats, new_message=bool(message) and message != self._message, stacks=stacks,
            status=status,
        )  # fmt: skip
        self._message = message
        took_time, picked_up = before[20] != self._stats[20], stacks[1] > stacks[0]
        x, y = self._look_around(arrays["glyphs"], silent=not text, took_time=took_time, picked_up=picked_up)
        obs: dict[str, Any] = {
            "glyphs": self._map[y : y + self.level.crop, x : x + self.level.crop].copy(),
            "blstats": arrays["blstats"].astype(np.float32),
            "message": arrays["message"].copy(),
            "inventory": self._inventory.copy(),
            "landmarks": self._landmarks.copy(),
        }
        if self.level.pack:
            obs["inv_glyphs"], obs["inv_letters"] = arrays["inv_glyphs"].copy(), arrays["inv_letters"].copy()
        if self.level.action_mask:
            stuck = self._waiting or (action >= 0 and not self._masks.harmless(action))
            obs["action_mask"] = self._allowed(arrays, x, y, stuck=stuck and not took_time)
        if self.render_mode is not None:
            self._shown = {name: arrays[name].copy() for name in ("glyphs", *_SCREEN) if name in arrays}
        return obs, events

    def _look_into_the_pack(self, pack: np.ndarray) -> tuple[int, int]:
        """Count the pack anew if it changed. Returns the numbers of stacks before and after."""
        held = pack.tobytes()
        if held == self._held:
            return self._stacks, self._stacks
        before = self._stacks if self._held else 0
        counts = np.bincount(self._tables.item[pack], minlength=len(ITEMS) + 1)[: len(ITEMS)].astype(np.float32)
        counts[-1] = np.count_nonzero(pack == self._tables.key)
        self._inventory, self._stacks = counts, int(np.count_nonzero(pack != self._tables.none))
        self._held = held
        return before, self._stacks

    def _look_around(self, seen: np.ndarray, *, silent: bool, took_time: bool, picked_up: bool) -> tuple[int, int]:
        """Take in the map. Returns the hero's place."""
        x, y = self._stats[0], self._stats[1]
        step = max(abs(x - self._place[0]), abs(y - self._place[1]))
        if step:
            floor = self._tables.bare[self._inner[y, x]]
            self._free, self._bare = silent, bool(silent and step == 1 and floor and not self._stats[25] & _BLIND)
        elif took_time:
            self._free, self._bare = self._free and silent, False
        flat, place = seen.ravel(), y * COLUMNS + x
        changed = (flat != self._flat).nonzero()[0]
        if not (step or picked_up or changed.size):
            return x, y
        under = self._kinds[place]
        for cell, kind in zip(changed.tolist(), self._tables.kind[flat[changed]].tolist()):
            self._mark(cell, kind)
        stays = under in _STAYING and not (picked_up and under == _ITEM)
        self._mark(place, under if stays else KNOWN)  # what the hero stands on stays where it is
        self._flat[:], self._inner[:], self._place = flat, seen, (x, y)
        self._form = int(flat[place]) if self._form < 0 else self._form
        self._landmarks = self._find_landmarks(x, y)
        return x, y

    def _mark(self, cell: int, kind: int) -> None:
        """Note down what is in a cell, on the list of landmarks as well."""
        old, self._kinds[cell] = self._kinds[cell], kind
        self._explored += (kind != UNKNOWN) - (old != UNKNOWN)
        if kind >= FIRST_LANDMARK:
            self._marks[cell] = kind - FIRST_LANDMARK
        elif old >= FIRST_LANDMARK:
            del self._marks[cell]

    def _find_landmarks(self, x: int, y: int) -> np.ndarray:
        """Nearest landmark of each kind: columns and rows to it, and 1 if there is one on the map."""
        rows, nearest = np.zeros((len(LANDMARKS), 3), np.float32), [1000] * len(LANDMARKS)
        for cell in sorted(self._marks):
            kind, (row, column) = self._marks[cell], divmod(cell, COLUMNS)
            dx, dy = column - x, row - y
            distance = max(abs(dx), abs(dy))
            if distance < nearest[kind]:
                nearest[kind] = distance
                rows[kind] = dx, dy, 1.0
        return rows

    def _allowed(self, arrays: dict[str, np.ndarray], x: int, y: int, *, stuck: bool) -> np.ndarray:
        """The mask; ``stuck`` says that NetHack may still wait for the rest of a command."""
        internal, seen = arrays["internal"], arrays["glyphs"]
        waiting = bool(stuck or internal[1] or internal[2] or internal[3] or not arrays["program_state"][3])
        self._waiting = waiting
        if 0 < x < COLUMNS - 1 and 0 < y < ROWS - 1:
            around = seen.ravel()[self._offsets + (y * COLUMNS + x)]
        else:  # next to the edge of the map: nothing is known of what lies beyond
            around, waiting = np.full(8, self._tables.stone), True
        same = int(seen[y, x]) == self._form
        in_door = bool(self._kinds[y * COLUMNS + x] == _OPEN_DOOR)
        sight = Sight(around, self._stats, self._inventory, waiting, self._bare, self._free, same, in_door)
        return self._masks(sight)


def _observation_space(level: Level, num_actions: int) -> spaces.Space:
    top = glyphs().none
    parts: dict[str, spaces.Space] = {
        "glyphs": spaces.Box(0, top, (level.crop, level.crop), np.int16),
        "blstats": spaces.Box(-np.inf, np.inf, (27,), np.float32),
        "message": spaces.Box(0, 255, (256,), np.uint8),
        "inventory": spaces.Box(0, 55, (len(ITEMS),), np.float32),
        "landmarks": spaces.Box(-COLUMNS, COLUMNS, (len(LANDMARKS), 3), np.float32),
    }
    if level.pack:
        parts["inv_glyphs"], parts["inv_letters"] = (
            spaces.Box(0, top, (55,), np.int16),
            spaces.Box(0, 127, (55,), np.uint8),
        )
    if level.action_mask:
        parts["action_mask"] = spaces.Box(0, 1, (num_actions,), np.uint8)
    return spaces.Dict(parts)


def _actions(names: tuple[str, ...]) -> tuple[Any, ...]:
    """NetHack's actions by name.

    Raises:
        ValueError: for a name that there is not.
    """
    from reward_design.envs.control import check_known
    from reward_design.envs.minihack_masks import action_names

    every = importlib.import_module("nle.nethack").ACTIONS
    known = dict(zip(action_names(every), every))
    for name in names:
        check_known("NetHack action", name, known)
    return tuple(known[name] for name in names)


@cache
def _tiles() -> np.ndarray:
    """Picture of every glyph, ``[glyphs, 16, 16, 3]`` uint8."""
    tiles = importlib.import_module("minihack.tiles")
    pictures = pickle.loads((Path(tiles.__file__ or "").parent / "tiles.pkl").read_bytes())
    pictures = np.stack([pictures[number] for number in sorted(pictures)])
    numbers = np.array([*tiles.glyph2tile, 0])
    return pictures[numbers]
