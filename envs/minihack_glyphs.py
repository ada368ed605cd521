"""What NetHack's symbols mean: tables over glyph numbers, and the names of what is read off the map and the pack."""

from functools import cache
from typing import NamedTuple

import numpy as np

from reward_design._optional import require

LANDMARKS = ("stairs", "item", "closed_door", "open_door", "feature", "monster")
"""Rows of ``obs["landmarks"]``: stairs or ladder down; an object that can be carried; a door; an altar, fountain, sink
or throne; a monster that is not a pet."""
ITEMS = (
    "weapon", "armor", "ring", "amulet", "tool", "food", "potion", "scroll", "spellbook", "wand", "coins", "gem", "key",
)  # fmt: skip
"""Entries of ``obs["inventory"]``: stacks of each class; a key counts as a tool as well."""

UNKNOWN, KNOWN, FIRST_LANDMARK = 0, 1, 2
"""Kinds of cells; ``FIRST_LANDMARK + i`` is ``LANDMARKS[i]``."""

# Offsets from GLYPH_CMAP_OFF, in the order of NetHack 3.6's defsyms (src/drawing.c).
_STONE, _WALLS, _DOORWAY, _OPEN, _CLOSED = 0, range(1, 12), 12, (13, 14), (15, 16)
_FLOORS, _DOWN, _FEATURES = range(19, 23), (24, 26), (27, 29, 30, 31)


class Glyphs(NamedTuple):
    """Tables over glyph numbers.

    Attributes:
        stone: the glyph of what has not been seen.
        kind: :data:`UNKNOWN`, :data:`KNOWN` or a landmark.
        wall: walls of rooms and mazes, and rock; what is next to the hero is always seen, unless blind.
        door: open doors, which nobody passes diagonally.
        closed: closed doors.
        bare: floor, corridor or door with nothing on it.
        creature: anything that may be alive, pets and remembered unseen monsters included.
        item: index in :data:`ITEMS` without the key, or ``len(ITEMS)`` where nothing is.
        key: the glyph of a skeleton key.
        none: the glyph of an empty place in the pack, the largest one.
    """

    stone: int
    kind: np.ndarray
    wall: np.ndarray
    door: np.ndarray
    closed: np.ndarray
    bare: np.ndarray
    creature: np.ndarray
    item: np.ndarray
    key: int
    none: int


@cache
def glyphs() -> Glyphs:
    """The tables, made on first use."""
    nle = require("nle.nethack", "minihack", "MiniHack levels")
    size, cmap = nle.MAX_GLYPH + 1, nle.GLYPH_CMAP_OFF

    def marked(*offsets: int) -> np.ndarray:
        table = np.zeros(size, bool)
        table[[cmap + offset for offset in offsets]] = True
        return table

    item, key = np.full(size, len(ITEMS), np.uint8), 0
    for number in range(nle.NUM_OBJECTS):
        known, glyph = nle.objclass(number), nle.GLYPH_OBJ_OFF + number
        group = ord(known.oc_class) - nle.WEAPON_CLASS
        if 0 <= group < len(ITEMS) - 1:
            item[glyph] = group
        if nle.OBJ_NAME(known) == "skeleton key":
            key = glyph
    item[nle.GLYPH_BODY_OFF : nle.GLYPH_RIDDEN_OFF] = ITEMS.index("food")

    creature = np.zeros(size, bool)
    creature[: nle.GLYPH_BODY_OFF] = creature[nle.GLYPH_RIDDEN_OFF : nle.GLYPH_OBJ_OFF] = True
    creature[nle.GLYPH_SWALLOW_OFF : nle.GLYPH_STATUE_OFF] = True
    kind = np.full(size, KNOWN, np.uint8)
    kind[[cmap + _STONE, nle.MAX_GLYPH]] = UNKNOWN
    kind[nle.GLYPH_OBJ_OFF : cmap][item[nle.GLYPH_OBJ_OFF : cmap] < len(ITEMS)] = _landmark("item")
    kind[: nle.GLYPH_PET_OFF] = _landmark("monster")
    for name, offsets in (("stairs", _DOWN), ("closed_door", _CLOSED), ("open_door", _OPEN), ("feature", _FEATURES)):
        kind[marked(*offsets)] = _landmark(name)
    return Glyphs(
        stone=cmap + _STONE, kind=kind, wall=marked(_STONE, *_WALLS), door=marked(*_OPEN), closed=marked(*_CLOSED),
        bare=marked(_DOORWAY, *_OPEN, *_FLOORS), creature=creature, item=item, key=key, none=nle.MAX_GLYPH,
    )  # fmt: skip


def _landmark(name: str) -> int:
    return FIRST_LANDMARK + LANDMARKS.index(name)
