"""What a language model is shown of a step in MiniHack: map, message and action as text; and what really happened."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from reward_design._names import suggestion
from reward_design._optional import require
from reward_design.envs.base import Task
from reward_design.envs.minihack_events import EVENTS
from reward_design.llm.annotate_keys import sight
from reward_design.llm.describe import named_task

# NetHack 3.6's own symbols for what is neither a creature nor an object, from GLYPH_CMAP_OFF on.
_MAP = " |--------||.-|++##..##<><>_|\\#{}.}" + ".." + "## #}"


@dataclass(frozen=True)
class Step:
    """A step of an episode, as text.

    Attributes:
        before: map around the hero before the action, a line per row.
        after: after it.
        said_before: message that stood there before.
        said: message after the action.
        action: its name.
        events: names of what happened, see :data:`reward_design.envs.minihack_events.EVENTS`; never shown to a model.
        key: bytes that such steps are recognised by, see :func:`reward_design.llm.subgoal_reward`; not shown either.
    """

    before: str
    after: str
    said_before: str
    said: str
    action: str
    events: frozenset[str]
    key: bytes = b""


@dataclass(frozen=True)
class Subgoal:
    """Something that is achieved in a step.

    Attributes:
        text: what, in words for the model.
        events: any of which says that it really was achieved, names of
            :data:`reward_design.envs.minihack_events.EVENTS`; empty where nobody knows.
        keywords: of the baseline: it takes a message with one of them for an achievement.

    Raises:
        ValueError: without a text, or for an event that is none.
        TypeError: for one word in place of a tuple of them.
    """

    text: str
    events: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not isinstance(self.text, str) or not self.text.strip():
            raise ValueError(f"a sub-goal needs a text that says what to achieve, got {self.text!r}.")
        for name in ("events", "keywords"):
            if isinstance(getattr(self, name), str):
                word = getattr(self, name)
                raise TypeError(f"{name} of a sub-goal must be a tuple of words, got {word!r}; write ({word!r},).")
        unknown = [event for event in self.events if event not in EVENTS]
        if unknown:
            raise ValueError(
                f"unknown event {unknown[0]!r} of a sub-goal{suggestion(unknown[0], EVENTS)} "
                f"Known: {', '.join(EVENTS)}."
            )

    def achieved(self, step: Step) -> bool:
        """The programmatic label."""
        return not step.events.isdisjoint(self.events)

    def mentioned(self, step: Step) -> bool:
        """What the keyword baseline says."""
        return any(word in step.said for word in self.keywords)


KEYROOM: dict[str, Subgoal] = {
    "key": Subgoal("pick up the key", ("picked_up",), ("key",)),
    "door": Subgoal("unlock or open the door", ("door_opened", "door_unlocked"), ("unlock", "door opens", "succeed")),
}
"""Sub-goals of MiniHack's KeyRoom, with their labels."""


def record_steps(
    task: Task | str,
    num: int,
    *,
    subgoals: Mapping[str, Subgoal] = KEYROOM,
    balanced: bool = True,
    policy: Callable[[Any, np.random.Generator], int] | None = None,
    seed: int = 0,
    most: int = 300_000,
) -> list[Step]:
    """Steps of a MiniHack task for :func:`annotate`, in random order.

    Args:
        task: a ``minihack/...`` task, or its name.
        num: how many.
        subgoals: that decide what is balanced; a step counts for the first that it achieves.
        balanced: equal parts of each sub-goal and of none, instead of what comes.
        policy: ``(obs, generator) -> action``; random actions by default.
        seed: of episodes, policy and choice.
        most: steps to play.

    Returns:
        The steps.

    Raises:
        ValueError: if ``most`` steps had too few of a kind, for a task that is none of MiniHack, for less than one
            step, or for sub-goals without events where parts are to be equal.
    """
    task = named_task(task)
    if not task.name.startswith("minihack/"):
        raise ValueError(
            f"record_steps reads maps and messages of MiniHack, got task {task.name!r}; give one such as "
            "'minihack/KeyRoom-S5', or make a Step of each transition yourself."
        )
    if num < 1:
        raise ValueError(f"the number of steps must be at least 1, got {num}.")
    blind = [name for name, goal in subgoals.items() if not goal.events]
    if balanced and blind:
        raise ValueError(f"nobody knows when {blind} are achieved (no events); record with balanced=False.")
    rng = np.random.default_rng(seed)
    kinds: list[str | None] = [*subgoals, None] if balanced else [None]
    wanted = {kind: num // len(kinds) + (i < num % len(kinds)) for i, kind in enumerate(kinds)}
    found: dict[str | None, list[Step]] = {kind: [] for kind in kinds}
    env: Any = task.make()
    try:
        obs = env.reset(seed=int(rng.integers(2**31)))[0]
        for _ in range(most):
            action = int(rng.integers(env.action_space.n) if policy is None else policy(obs, rng))
            after, _, terminated, truncated, info = env.step(action)
            events = frozenset(name for name, flag in zip(EVENTS, info["events"]) if flag)
            kind = next(
                (name for name, goal in subgoals.items() if balanced and not events.isdisjoint(goal.events)), None
            )
            rare = kind is not None or rng.random() < 0.05  # neighbours in time look alike
            if rare and len(found[kind]) < wanted[kind]:
                found[kind].append(_step(obs, after, task_actions(task), action, events))
            if all(len(found[kind]) == wanted[kind] for kind in kinds):
                break
            obs = env.reset()[0] if terminated or truncated else after
        else:
            counts = {str(kind): len(steps) for kind, steps in found.items()}
            raise ValueError(f"{most} steps of {task.name!r} had {counts} of {wanted}; play better, or ask for fewer.")
    finally:
        env.close()
    steps = [step for kind in kinds for step in found[kind]]
    return [steps[i] for i in rng.permutation(len(steps))]


def task_actions(task: Task) -> Sequence[str]:
    """Names of the actions of a MiniHack task."""
    return task.env.actions  # pyright: ignore[reportAttributeAccessIssue]


def map_text(crop: np.ndarray) -> str:
    """A square of glyphs around the hero as NetHack shows it, spaces between the columns.

    Args:
        crop: ``[side, side]`` glyph numbers.
    """
    rows = [[symbol(int(glyph)) for glyph in row] for row in crop]
    rows[len(rows) // 2][len(rows) // 2] = "@"
    return "\n".join(" ".join(row) for row in rows)


def symbol(glyph: int) -> str:
    """The character of a glyph."""
    nle: Any = require("nle.nethack", "minihack", "MiniHack levels")
    place = glyph - nle.GLYPH_CMAP_OFF
    if 0 <= place < len(_MAP):
        return _MAP[place]
    if nle.glyph_is_object(glyph):
        group = nle.objclass(nle.glyph_to_obj(glyph)).oc_class
        return nle.class_sym.from_oc_class(group).sym
    if nle.glyph_is_monster(glyph):
        return nle.class_sym.from_mlet(nle.permonst(nle.glyph_to_mon(glyph)).mlet).sym
    return " " if glyph >= nle.MAX_GLYPH else "^"


def message_text(message: np.ndarray) -> str:
    """The text of ``[256]`` bytes."""
    return np.asarray(message, np.uint8).tobytes().rstrip(b"\0").decode("latin-1").strip()


def _step(before: Any, after: Any, actions: Sequence[str], action: int, events: frozenset[str]) -> Step:
    return Step(
        map_text(before["glyphs"]), map_text(after["glyphs"]), message_text(before["message"]),
        message_text(after["message"]), actions[action], events,
        sight(np.ravel(before["glyphs"]), np.asarray(action), np).tobytes(),
    )  # fmt: skip
