"""What happened in a step of NetHack, as flags."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

_SAID: dict[str, tuple[bytes, ...]] = {
    "door_opened": (b"door opens", b"crashes open", b"shatters to pieces"),
    "door_locked": (b"This door is locked", b"door locks"),
    "door_unlocked": (b"You succeed in unlocking", b"You succeed in picking", b"door unlocks"),
    "kicked": (b"WHAMM", b"Thump!", b"Ouch!  That hurts", b"As you kick", b"You kick", b"umsy kick", b"Dumb move"),
    "ate": (
        b"is delicious", b"Delicious!", b"Core dumped", b"Rotten food", b"last bite of your meal", b"finish eating",
        b"finish your meal", b"tastes ", b"You eat", b"hits the spot",
    ),
    "killed": (b"You kill", b"You destroy"),
}  # fmt: skip
EVENTS: dict[str, tuple[int, str]] = {
    "door_opened": (1, "a door was opened or broken"),
    "door_locked": (-1, "a door turned out to be locked"),
    "door_unlocked": (1, "a lock was opened"),
    "kicked": (1, "something was kicked"),
    "ate": (1, "something was eaten"),
    "killed": (1, "a monster was killed: a message says so or experience was gained"),
    "message": (1, "a message that differs from the one before"),
    "picked_up": (1, "the pack has more stacks of objects than before, or more gold"),
    "used": (-1, "the pack has fewer stacks of objects than before, or less gold"),
    "hurt": (-1, "hit points were lost"),
    "frozen": (-1, "game time stood still: the action was impossible, free, or waits for an answer"),
    "died": (-1, "the episode ended with death"),
    "success": (1, "the episode ended with the task achieved"),
}
"""Sign (+1 if more is better) and meaning of the flags in ``info["events"]``, in their order."""
SUCCESS = list(EVENTS).index("success")


@lru_cache(maxsize=4096)
def said(text: bytes) -> tuple[bool, ...]:
    """The flags that follow from messages: the first entries of :data:`EVENTS`.

    Example:
        >>> from reward_design.envs.minihack_events import EVENTS, said
        >>> [name for name, flag in zip(EVENTS, said(b"WHAMM!!")) if flag]
        ['kicked']
    """
    return tuple(any(phrase in text for phrase in phrases) for phrases in _SAID.values())


def flags(
    text: bytes, before: Sequence[int], after: Sequence[int], *, new_message: bool, stacks: tuple[int, int], status: int
) -> np.ndarray:
    """All flags of a step.

    Args:
        text: every message of the step.
        before: ``blstats`` before the step.
        after: ``blstats`` after it.
        new_message: whether the message that stands there at the end differs from the one before.
        stacks: stacks of objects in the pack, before and after.
        status: end status, 0 while the game goes on, 1 after death, 2 after success.

    Returns:
        ``[len(EVENTS)]`` bool.
    """
    old_hp, hp, old_gold, gold = before[10], after[10], before[13], after[13]
    opened, locked, unlocked, kicked, ate, killed = said(text) if text else _NOTHING
    return np.array(
        (
            opened, locked, unlocked, kicked, ate, killed or after[19] > before[19], new_message,
            stacks[1] > stacks[0] or gold > old_gold, stacks[1] < stacks[0] or gold < old_gold, hp < old_hp,
            after[20] == before[20], status == 1, status == 2,
        )
    )  # fmt: skip


_NOTHING = (False,) * len(_SAID)
