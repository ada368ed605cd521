"""Which actions cannot do anything now."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from reward_design.envs.minihack_glyphs import ITEMS, Glyphs, glyphs

_COMPASS = {
    "N": (-1, 0), "E": (0, 1), "S": (1, 0), "W": (0, -1),
    "NE": (-1, 1), "SE": (1, 1), "SW": (1, -1), "NW": (-1, -1),
}  # fmt: skip
_NEEDS: dict[str, tuple[str, ...]] = {
    "EAT": ("food",),
    "QUAFF": ("potion",),
    "ZAP": ("wand",),
    "WEAR": ("armor",),
    "APPLY": ITEMS,
}
"""Classes of objects of which the pack must have one for a command to ask what to use."""
_FROM_THE_FLOOR = ("EAT", "QUAFF", "PICKUP")
"""Commands that also work on what lies, or stands, where the hero is."""
_HARMLESS = {*_COMPASS, *(f"far {name}" for name in _COMPASS), *_NEEDS, "PICKUP", "SEARCH", "WAIT"}
"""Actions after which, if no game time passed, NetHack waits for a new command and not for more of this one."""


class Sight(NamedTuple):
    """What masks are computed from; see :class:`Masks`."""

    around: np.ndarray
    stats: Sequence[int]
    inventory: np.ndarray
    waiting: bool
    bare: bool
    free: bool
    same_form: bool
    in_door: bool


def action_names(actions: Sequence[Any]) -> tuple[str, ...]:
    """Names of NetHack's actions: ``"N"``, ``"far N"`` (run), ``"PICKUP"``."""
    return tuple(("far " if type(a).__name__ == "CompassDirectionLonger" else "") + a.name for a in actions)


class Masks:
    """``mask[a]`` is 0 if action ``a`` would change nothing but the message. It says 1 where it is not sure.

    Masked are, by what the map and the pack show:

    - moves, and runs, into a wall or rock, and diagonally into an open door or out of one;
    - ``PICKUP`` where the floor was bare when the hero stepped on it, nothing was said then, and no game time has
      passed since;
    - ``EAT``, ``QUAFF``, ``ZAP``, ``WEAR``, ``APPLY`` if the pack has nothing of
      the classes of objects that they take (``EAT`` and ``QUAFF`` only on bare floor, as for ``PICKUP``);
    - in KeyRoom, ``APPLY`` unless a key is in the pack and a closed door is next to the hero.

    Nothing is masked while NetHack waits for an answer, nor from a command on that may go on with the next action
    until game time passes. Moves are not masked while the
    hero is blind, confused, stunned, hallucinating or in another form, has a creature next to him, or may be in a trap
    (from a message in a step that took game time on, until he has moved without one).

    Args:
        actions: of the game.
        key_rooms: whether "apply" only opens doors.
    """

    def __init__(self, actions: Sequence[Any], *, key_rooms: bool) -> None:
        names = action_names(actions)
        self._tables: Glyphs = glyphs()
        self._order = list(_COMPASS.values())
        self._diagonal = np.array([dy != 0 and dx != 0 for dy, dx in self._order])
        moves = [(a, list(_COMPASS).index(name.removeprefix("far "))) for a, name in enumerate(names)
                 if name.removeprefix("far ") in _COMPASS]  # fmt: skip
        self._moves, self._ways = (np.array(column, int) for column in zip(*moves)) if moves else ([], [])
        self._commands = [
            (a, name, [ITEMS.index(item) for item in _NEEDS.get(name, ())])
            for a, name in enumerate(names)
            if name in _NEEDS or name == "PICKUP"
        ]
        self._all = np.ones(len(names), np.uint8)
        self._harmless = np.array([name in _HARMLESS for name in names])
        self._key_rooms = key_rooms

    def harmless(self, action: int) -> bool:
        """Whether NetHack waits for a new command after this action if no time passed."""
        return bool(self._harmless[action])

    def offsets(self, width: int) -> np.ndarray:
        """Positions of the neighbours in a flat map of that width, relative to the hero."""
        return np.array([dy * width + dx for dy, dx in self._order])

    def __call__(self, sight: Sight) -> np.ndarray:
        """``[num_actions]`` uint8."""
        mask = self._all.copy()
        if sight.waiting:
            return mask
        tables, near = self._tables, sight.around
        if sight.free and sight.same_form and not sight.stats[25] & _SENSES and not tables.creature[near].any():
            blocked = tables.wall[near] | (self._diagonal & (tables.door[near] | sight.in_door))
            mask[self._moves] = ~blocked[self._ways]
        for action, name, items in self._commands:
            useful = bool(sight.inventory[items].any())
            if self._key_rooms and name == "APPLY":
                useful = bool(sight.inventory[_KEY]) and bool(tables.closed[near].any())
            mask[action] = useful or (name in _FROM_THE_FLOOR and not sight.bare)
        return mask


_KEY = ITEMS.index("key")
_SENSES = 0x20 | 0x80 | 0x100 | 0x200
"""Blind, stunned, confused, hallucinating: bits of ``blstats[25]``."""
