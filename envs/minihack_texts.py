"""What people and language models are told about MiniHack's levels, and the way to the goal of each."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Stage:
    """A part of the way.

    Attributes:
        toward: landmark to go to.
        until: landmark that is on the map, or item that is in the pack, once this part is done.
        count: stacks of the item that are needed.
    """

    toward: str
    until: str
    count: int = 1


@dataclass(frozen=True)
class Family:
    """Levels of one kind.

    Attributes:
        text: what the level is, and what success is.
        stages: parts of the way before the last.
        goal: landmark to reach in the end; None where the last thing to do is to use what the stages fetched.
    """

    text: str
    stages: tuple[Stage, ...] = ()
    goal: str | None = "stairs"


def _fetch(item: str, count: int = 1) -> tuple[Stage, ...]:
    return (Stage("item", item, count),)


FAMILIES: dict[str, Family] = {
    "Room": Family(
        "One room, 5x5 or 15x15; success is to reach the stairs down in it. Random: start and stairs are anywhere, "
        "Dark: only neighbouring cells are seen, Monster: with monsters, Trap: with traps, Ultimate: all of it."
    ),
    "Corridor": Family(
        "Two, three or five rooms at random places, joined by corridors and doors; success is to reach the stairs down "
        "in another room."
    ),
    "KeyRoom": Family(
        "A room with a locked closet, which holds the stairs down; success is to reach them. A key lies in the room: "
        "pick it up, go next to the closed door and apply it, which unlocks and opens the door.",
        (Stage("item", "key"), Stage("closed_door", "open_door")),
    ),
    "MultiRoom": Family(
        "A chain of small rooms with doors between them; success is to reach the stairs down in the last one. Locked "
        "doors have to be kicked in; Lava has it in place of walls."
    ),
    "MazeWalk": Family("A maze; success is to reach the stairs down. Mapped: the map is known from the start."),
    "CorridorBattle": Family("A corridor full of monsters; success is to fight through to the stairs down behind it."),
    "River": Family(
        "A river without a bridge; success is to reach the stairs down beyond it, by pushing boulders into the water "
        "until there is a way across."
    ),
    "Quest": Family(
        "Lava, monsters and the stairs down behind them; success is to reach the stairs. In the easy one a wand of "
        "cold and a frost horn, which freeze the lava, lie where the hero starts and are picked up by themselves."
    ),
    "Eat": Family("A room with an apple; success is to eat it, from the floor or from the pack.", _fetch("food"), None),
    "Wear": Family("A room with a robe; success is to wear it.", _fetch("armor"), None),
    "Wield": Family("A room with a dagger; success is to wield it.", _fetch("weapon", 3), None),
    "PutOn": Family("A room with an amulet; success is to put it on.", _fetch("amulet"), None),
    "Zap": Family("A room with a wand; success is to zap it.", _fetch("wand"), None),
    "Read": Family("A room with a scroll; success is to read it.", _fetch("scroll"), None),
    "Pray": Family("A room with an altar; success is to pray on it, and to confirm.", (), "feature"),
    "Sink": Family("A room with a sink; success is to quaff from it, and to confirm.", (), "feature"),
    "ClosedDoor": Family("A closed door between the hero and the stairs down, which are the goal."),
    "LockedDoor": Family("A locked door, to be kicked in, between the hero and the stairs down, which are the goal."),
    "Freeze-Wand": Family("A room with a wand of cold; success is to zap it at a wall.", _fetch("wand"), None),
    "Freeze-Horn": Family("A room with a frost horn; success is to play it at a wall.", _fetch("tool"), None),
    "Freeze-Lava": Family("Lava before the stairs down, which are the goal; something that freezes it lies about."),
    "Levitate": Family("Something that makes the hero levitate lies in the room; success is to use it.", (), "item"),
    "LavaCross": Family("Lava before the stairs down, which are the goal; something to cross it with lies about."),
    "WoD": Family(
        "A minotaur, and a wand of death to deal with it; success is to kill it, in all but the easy ones to reach the "
        "stairs down behind it."
    ),
    "HideNSeek": Family("A monster hunts the hero among trees and clouds; success is to reach the stairs down."),
    "ExploreMaze": Family("A maze with apples that pay when eaten; success is to reach the stairs down."),
    "Labyrinth": Family("A labyrinth with a minotaur; success is to reach the stairs down."),
    "Memento": Family(
        "What is seen at the start tells which of the ways at the end is right; success is to kill the grid bug there, "
        "the wrong way ends the episode and pays -1."
    ),
    "Sokoban": Family("A Sokoban puzzle: success is to push the boulders into all pits."),
    "custom": Family("A level of your own; success is to reach the stairs down."),
}
"""Families by the beginning of the level's name."""

SEEN = (
    "Observation: glyphs, the map around the hero in NetHack's symbol numbers; blstats, 27 numbers of the status line "
    "(0 column, 1 row, 10 hit points, 11 their maximum, 12 depth, 13 gold, 18 level of experience, 20 game time, 21 "
    "hunger, 25 conditions); message, 256 bytes of text; inventory, stacks of each class of objects; landmarks, "
    "columns and rows to the nearest stairs, item, closed door, open door, feature (altar, fountain, sink, throne) "
    "and monster on the map, and whether there is one. "
)
PAID = (
    "The environment pays 1 for success and {penalty:g} for each step in which game time stands still, such as walking "
    "into a wall; death pays nothing and ends the episode, which is cut off after {horizon} steps."
)
PAID_ITS_OWN = (
    "The environment pays as MiniHack's reward manager of this level says, and {penalty:g} for each step in which game "
    "time stands still; death ends the episode, which is cut off after {horizon} steps."
)


def family(env_id: str) -> Family:
    """The family of a level."""
    names = [name for name in FAMILIES if env_id.startswith(name)]
    return FAMILIES[max(names, key=len)] if names else Family("A level of MiniHack; success is what it asks for.")
