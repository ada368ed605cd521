"""NetHack as MiniHack sets it up, with the arrays in use only, exact seeds, and true last observations.

A step here is MiniHack's own, number for number, without its detours: it copies every array twice per step, the
largest of 132 kB, and builds dictionaries of crops, which takes several times as long as NetHack itself.
"""

import importlib
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium.envs.registration import load_env_creator

from reward_design._names import suggestion
from reward_design._optional import require
from reward_design.envs.checks import check_kind
from reward_design.envs.minihack_glyphs import glyphs

WHAT = "MiniHack levels"
CUSTOM = "custom"
"""Name of a level that ``des_file`` describes."""
UNSUPPORTED = ("Boxoban", "LavaCrossing", "SimpleCrossing")
"""Levels of MiniHack that cannot be made: their files are missing, or they are of an older minigrid."""
ARRAYS = ("glyphs", "blstats", "message", "program_state", "internal", "inv_glyphs", "inv_letters")
"""What NetHack always fills in."""
DEATH, SUCCESS = 1, 2
"""End status; 0 while the game goes on."""
_EMPTY = np.zeros(0, np.uint8)
_DIRECTIONS = ((-1, -1, "y"), (-1, 0, "k"), (-1, 1, "u"), (0, -1, "h"))
_DIRECTIONS += ((0, 1, "l"), (1, -1, "b"), (1, 0, "j"), (1, 1, "n"))
"""Rows, columns and key of the directions, in the order in which MiniHack looks around."""


class Game:
    """Goes in front of a MiniHack class, with ``advance`` for ``step`` and ``restart`` for ``seed`` and ``reset``.

    Attributes:
        arrays: NetHack's own arrays by name, overwritten by every step.
        at_death: copies of them from the moment of death; NetHack blanks them before the episode is over.
        heard: every message since the last step began.
        walks_its_own_way: whether the level's class has a ``step`` of its own.
    """

    actions: Any
    nethack: Any
    reward_manager: Any
    last_observation: Any
    arrays: dict[str, np.ndarray]
    walks_its_own_way = False

    def prepare(self, extra: tuple[str, ...]) -> None:
        """Fill in the arrays in use only; before the first reset."""
        known = self.nethack._obs_buffers
        self.reads_everything = self._reads_everything()
        names = tuple(known) if self.reads_everything else tuple(dict.fromkeys((*ARRAYS, *extra)))
        self.arrays = {name: known[name] for name in names}
        self.nethack._pynethack.set_buffers(**self.arrays)
        self.nethack._obs = tuple(self.arrays.get(name, _EMPTY) for name in self._observation_keys)  # pyright: ignore[reportAttributeAccessIssue]
        self.at_death, self.heard, self._codes = {}, [], [int(action) for action in self.actions]
        self.nethack.step = _recorded(self.nethack.step, self.arrays, self.at_death, self.heard)

    def restart(self, core: int, display: int, layout: int | None) -> None:
        """Start an episode whose course depends on the seeds only; ``layout`` fixes the level."""
        nle = importlib.import_module("nle.env.base")
        nle.NLE.seed(self, core, display, reseed=False, lgen=layout)
        rooms = getattr(self, "minigrid_env", None)
        if rooms is not None:  # MiniHack's own seeding of these levels calls a method that minigrid does not have
            rooms.unwrapped.np_random = np.random.default_rng(core if layout is None else layout)
        self.reset(options=None)  # pyright: ignore[reportAttributeAccessIssue]
        self.at_death.clear()
        self.heard.clear()

    def advance(self, action: int) -> tuple[float, int]:
        """One step. Returns the reward and the end status."""
        self.heard.clear()
        if self._in_its_own_way(action):
            _, reward, _, _, info = self.step(action)  # pyright: ignore[reportAttributeAccessIssue]
            return reward, int(info["end_status"])
        game: Any = self
        before = self._previous_obs = self._copies()
        self._previous_action = action
        observation, done = self.nethack.step(self._codes[action])
        if self.arrays["program_state"][0] == 1 or not game._allow_all_modes:
            observation, done = game._perform_known_steps(observation, done, exceptions=True)
        game._steps += 1
        self.last_observation = observation
        status = game._get_end_status(observation, done)
        return float(game._reward_fn(before, action, observation, status)), int(status)

    def end(self) -> None:
        """Quit the game after the last observation was copied; a game that is only abandoned leaks memory."""
        if self.nethack._pynethack.done():
            return
        with warnings.catch_warnings():  # of games that do not end smoothly, as in the middle of a prompt
            warnings.simplefilter("ignore", UserWarning)
            super()._quit_game(self.last_observation, False)  # pyright: ignore[reportAttributeAccessIssue]

    def _copies(self) -> tuple[np.ndarray, ...]:
        """What reward functions may look at of the time before the step."""
        if self.reward_manager is not None or self.reads_everything:
            return tuple(array.copy() for array in self.last_observation)
        index: int = self._blstats_index  # pyright: ignore[reportAttributeAccessIssue]
        observation = self.last_observation
        return (*observation[:index], observation[index].copy(), *observation[index + 1 :])

    def _reads_everything(self) -> bool:
        """Whether the end or the reward of this level may depend on arrays that are not in :data:`ARRAYS`."""
        base, manager = _minihack().MiniHack, importlib.import_module("minihack.reward_manager")
        own = ("_is_episode_end", "_reward_fn", "_get_end_status")
        if self.walks_its_own_way or any(getattr(type(self), name) is not getattr(base, name) for name in own):
            return True
        if self.reward_manager is None:
            return False
        if type(self.reward_manager) is not manager.RewardManager or self.reward_manager.custom_reward_functions:
            return True
        return not all(isinstance(event, manager.MessageEvent) for event in self.reward_manager.events)

    def _in_its_own_way(self, action: int) -> bool:
        """Whether the level's class does more in ``step`` than MiniHack."""
        return self.walks_its_own_way

    def _patch_nhdat(self, des_file: str) -> None:
        """Install a level, given as text or as the name of a file, and say so if it does not compile."""
        if des_file.endswith(".des"):
            des_file = Path(importlib.import_module("minihack.base").PATH_DAT_DIR, des_file).read_text()
        compile_level(des_file, Path(self.nethack._vardir))

    def _check_abort(self, observation: Any) -> bool:
        """Time limits are counted outside, where they are no terminal states."""
        return False

    def _quit_game(self, observation: Any, done: bool) -> None:
        """Not before the last observation was copied, see :meth:`end`."""


class KeyGame(Game):
    """KeyRoom: what its own ``step`` looks up for the action "apply", from arrays that cost less."""

    def _in_its_own_way(self, action: int) -> bool:
        return self.actions[action] == ord("a")

    def key_in_inventory(self, name: str) -> str | None:
        """Letter of the key in the pack."""
        held = np.flatnonzero(self.arrays["inv_glyphs"] == glyphs().key)
        return chr(self.arrays["inv_letters"][held[0]]) if held.size else None

    def get_object_direction(self, name: str, observation: Any = None) -> int | None:
        """Key code of the direction in which the first closed door is."""
        x, y = self.arrays["blstats"][:2]
        for dy, dx, code in _DIRECTIONS:
            if glyphs().closed[self.arrays["glyphs"][y + dy, x + dx]]:
                return ord(code)
        return None


def open_game(env_id: str, *, extra: tuple[str, ...] = (), des_file: str | None = None, **settings: Any) -> Any:
    """A :class:`Game`, which is a MiniHack environment as well.

    Args:
        env_id: registered id, without ``MiniHack-`` and ``-v0``, or :data:`CUSTOM`.
        extra: arrays to fill in besides :data:`ARRAYS`.
        des_file: level description, for :data:`CUSTOM`.
        **settings: of the MiniHack class.

    Raises:
        ValueError: for an unknown or impossible level, or a description that does not compile.
        ImportError: if a package is missing.
    """
    base = _minihack()
    spec = _spec(env_id)
    if (des_file is not None) != (env_id == CUSTOM):
        raise ValueError(
            "des_file goes with 'minihack/custom', and only with it; give a level description as a string."
        )
    if des_file is not None:
        settings["des_file"] = des_file
    cls: Any = load_env_creator(spec.entry_point)
    if issubclass(cls, importlib.import_module("minihack.envs.minigrid").MiniGridHack):
        require("minigrid", "minigrid", "MultiRoom levels")
    settings |= {"observation_keys": ("blstats",), "obs_crop_h": 1, "obs_crop_w": 1}
    settings["fix_moon_phase"] = True  # luck depends on the seed, not on today's date
    with warnings.catch_warnings():  # old ids of minigrid that MiniHack asks for
        warnings.simplefilter("ignore", DeprecationWarning)
        game = _joined(cls, base)(**spec.kwargs, **settings)
    game.prepare(extra)
    return game


def described_level(des_file: Any) -> str:
    """A level description: the text itself, or what is in the file of that name, which ends in ``.des``.

    Raises:
        TypeError: if it is no text.
        ValueError: if there is no such file.
    """
    needed = "a level description as a string, or the name of a file that ends in .des"
    check_kind(isinstance(des_file, str), "des_file", needed, des_file)
    if not des_file.endswith(".des"):
        return des_file
    _minihack()
    own = Path(importlib.import_module("minihack.base").PATH_DAT_DIR)
    found = [path for path in (Path(des_file), own / des_file) if path.is_file()]
    if not found:
        raise ValueError(
            f"there is no file {des_file!r} in the current folder, nor among MiniHack's"
            f"{suggestion(des_file, [path.name for path in own.glob('*.des')], cutoff=0.7)}"
        )
    return found[0].read_text()


def compile_level(description: str, folder: Path) -> None:
    """Put a level into NetHack's library of levels.

    Args:
        description: in the language of NetHack's level compiler; the level's name has to be ``"mylevel"``.
        folder: of one instance of NetHack; the library is ``folder / "nhdat"``, its parts lie in ``folder / "lib"``.

    Raises:
        ValueError: with the compiler's first complaint.
    """
    tools, parts = Path(importlib.import_module("nle.nethack.nethack").HACKDIR), folder / "lib"
    if not parts.exists():
        shutil.copytree(importlib.import_module("minihack.base").LIB_DIR, parts)
    level, source = parts / "mylevel.lev", parts / "mylevel.des"
    level.unlink(missing_ok=True)
    source.write_text(description)
    done = subprocess.run([tools / "lev_comp", source.name], cwd=parts, capture_output=True, text=True, check=False)
    source.unlink()
    if done.returncode or not level.exists():
        said = (done.stderr or done.stdout).strip().splitlines()
        reason = said[0].removeprefix(f"{source.name}: ") if said else 'it defines no level called "mylevel"'
        raise ValueError(f"des_file must be a level description of NetHack, and does not compile: {reason}.")
    names = sorted(path.name for path in parts.iterdir() if path.name != "nhdat")
    subprocess.run([tools / "dlb", "cf", "nhdat", *names], cwd=parts, check=True)
    (parts / "nhdat").replace(folder / "nhdat")


@cache
def _joined(cls: type, base: Any) -> type:
    keys = importlib.import_module("minihack.envs.keyroom").MiniHackKeyDoor
    way = KeyGame if issubclass(cls, keys) else Game
    own = way is Game and getattr(cls, "step") is not base.MiniHack.step  # noqa: B009
    return type(cls.__name__, (way, cls), {"walks_its_own_way": own})


def registered() -> dict[str, str]:
    """Short name and gymnasium id of every level of MiniHack: ``{"Room-5x5": "MiniHack-Room-5x5-v0", ...}``."""
    _minihack()
    known = [name for name in gymnasium.registry if name.startswith("MiniHack-") and "Custom" not in name]
    return {name.removeprefix("MiniHack-").rpartition("-v")[0]: name for name in known}


def _spec(env_id: str) -> Any:
    if env_id == CUSTOM:
        return gymnasium.spec("MiniHack-Navigation-Custom-v0")
    known = registered()
    if env_id not in known:
        raise ValueError(f"MiniHack has no level {env_id!r}{suggestion(env_id, [*known, CUSTOM])}")
    if env_id.startswith(UNSUPPORTED[0]):
        raise ValueError(f"{env_id!r} needs level files that its authors offer for download only; it is not supported.")
    if env_id.startswith(UNSUPPORTED[1:]):
        raise ValueError(f"{env_id!r} was written for an older minigrid and cannot be made with this one.")
    return gymnasium.spec(known[env_id])


def _minihack() -> Any:
    """The package, without its warnings about packaging."""
    require("nle", "minihack", WHAT)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return importlib.import_module("minihack")
    except ImportError as error:
        if error.name == "pkg_resources":
            text = f"{WHAT} need pkg_resources, which setuptools 82 no longer has: pip install 'setuptools<82'."
            raise ImportError(text, name=error.name) from error
        return require("minihack", "minihack", WHAT)


def _recorded(step: Any, arrays: dict[str, np.ndarray], at_death: dict[str, np.ndarray], heard: list[bytes]) -> Any:
    """NetHack's step, noting down messages that more steps would hide, and the moment of death."""
    state, message = arrays["program_state"], arrays["message"]

    def recorded(action: Any) -> Any:
        result = step(action)
        if message[0]:
            heard.append(message.tobytes())
        if state[0] and not at_death:
            at_death.update((name, array.copy()) for name, array in arrays.items())
        return result

    return recorded
