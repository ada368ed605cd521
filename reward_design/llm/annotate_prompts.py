"""What annotators are asked: CALM's blocks for sub-goals; helpfulness and preference for messages (ONI, Motif)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from reward_design.agents.settings import one_of
from reward_design.llm.annotate_steps import Step, Subgoal
from reward_design.llm.schemas import Message

VERSION = "1"
"""Of all texts here; part of the cache's key."""
ROLES = {
    "none": "",
    "expert": "You know the game NetHack and its rooms with keys and doors very well.",
    "analyst": "You analyse what players of a game do, and report only what you can see.",
}
TASKS = {
    "none": "",
    "win": "The player wants to win the game.",
    "keyroom": (
        "The player is in a room with a locked closet. A key lies in the room. The player has to pick it up, open the "
        "door with it and reach the stairs down in the closet."
    ),
}
INSTRUCTIONS = {
    "transition": "Say for each sub-goal whether exactly this action achieved it.",
    "progress": "Say for each sub-goal whether this action made it come true, as progress toward the goal.",
}
LEGEND = (
    "Symbols of the map: @ is the player, . floor, | and - walls, + a closed door, a - or | within a wall an open "
    "door, ( a key or another tool, < stairs up, > stairs down, blank is unknown."
)
REMARK = (
    "The message may be empty, or be about something else than the sub-goals. An action that is possible is not one "
    "that succeeded: look for what changed."
)


@dataclass(frozen=True)
class Prompt:
    """The blocks of CALM's prompt, each of which can be left out or exchanged.

    Attributes:
        role: key in :data:`ROLES`.
        legend: explain the symbols of the map.
        task: key in :data:`TASKS`, or a text.
        instruction: key in :data:`INSTRUCTIONS`.
        remark: say what messages and actions mean.
        show_map: the map before and after.
        show_message: the message.
        show_action: the action.
        evidence: letters that the evidence may have, None for servers that refuse such limits.

    Raises:
        ValueError: for an unknown block, or if nothing is shown.
    """

    role: str = "analyst"
    legend: bool = True
    task: str = "keyroom"
    instruction: str = "transition"
    remark: bool = True
    show_map: bool = True
    show_message: bool = True
    show_action: bool = True
    evidence: int | None = 80

    def __post_init__(self) -> None:
        one_of(self, "role", tuple(ROLES))
        one_of(self, "instruction", tuple(INSTRUCTIONS))
        if not (self.show_map or self.show_message):
            raise ValueError("a prompt must show the map or the message; set show_map or show_message.")

    def messages(self, step: Step, subgoals: Mapping[str, Subgoal]) -> list[Message]:
        """What is asked about a step; what is the same for all steps comes first, so that servers can keep it."""
        goals = "\n".join(f"- {name}: {goal.text}" for name, goal in subgoals.items())
        form = "For each give evidence, a few words on what you see, then achieved, true or false."
        fixed = [
            LEGEND if self.legend and self.show_map else "", TASKS.get(self.task, self.task), f"Sub-goals:\n{goals}",
            INSTRUCTIONS[self.instruction], REMARK if self.remark else "", form,
        ]  # fmt: skip
        shown = [f"Map before:\n{step.before}" if self.show_map else ""]
        shown += [f"Action: {step.action}" if self.show_action else ""]
        shown += [f"Map after:\n{step.after}" if self.show_map else ""]
        shown += [f"Message: {step.said or '(none)'}" if self.show_message else ""]
        user = {"role": "user", "content": "\n\n".join(block for block in (*fixed, *shown) if block)}
        role = ROLES[self.role]
        return [{"role": "system", "content": role}, user] if role else [user]

    def schema(self, subgoals: Sequence[str]) -> dict[str, Any]:
        """``{sub-goal: {evidence, achieved}}``, everything required."""
        text: dict[str, Any] = {"type": "string"}
        if self.evidence is not None:
            text["maxLength"] = self.evidence
        verdict = _object({"evidence": text, "achieved": {"type": "boolean"}})
        return _object(dict.fromkeys(subgoals, verdict))


def finding(description: str, num: int) -> tuple[list[Message], dict[str, Any]]:
    """How a model is asked to find the sub-goals of a task itself: messages and schema."""
    text = (
        f"A task: {description}\n\nName the {num} sub-goals that have to be achieved on the way, in their order: for "
        "each a short name of one or two lower-case words, and what the player has to do, in one sentence."
    )
    item = _object({"name": {"type": "string"}, "text": {"type": "string"}})
    goals = {"type": "array", "items": item, "minItems": num, "maxItems": num}
    return [{"role": "user", "content": text}], _object({"subgoals": goals})


_JUDGE = "You judge what happens in a game, honestly and by its rules."
_LABELS = {"FOO": 1.0, "BAR": 0.0}
_ORDER = {"first": 1.0, "second": 0.0, "equal": 0.5}


def helpful(goal: str, message: str) -> tuple[list[Message], dict[str, Any]]:
    """How a model is asked whether a message of the game says that something helpful happened (ONI)."""
    text = (
        f"In the game NetHack the player wants to {goal}. After an action the game says:\n\n{message}\n\n"
        "First write what that means for the player's goal. Then give the label: FOO only if what happened helps a lot "
        "to reach the goal; BAR if it harms, does nothing, or is merely informative."
    )
    schema = _object({"analysis": {"type": "string", "maxLength": 160}, "label": {"enum": list(_LABELS)}})
    return [{"role": "system", "content": _JUDGE}, {"role": "user", "content": text}], schema


def better(goal: str, first: str, second: str) -> tuple[list[Message], dict[str, Any]]:
    """How a model is asked which of two messages says that something better happened (Motif)."""
    text = (
        f"In the game NetHack the player wants to {goal}. Two messages of the game, from different moments:\n\nfirst: "
        f"{first}\nsecond: {second}\n\nWrite what each means for the player's goal. Then say after which one the "
        "player is closer to the goal: first, second, or equal if neither or you cannot tell."
    )
    schema = _object({"analysis": {"type": "string", "maxLength": 160}, "closer": {"enum": list(_ORDER)}})
    return [{"role": "system", "content": _JUDGE}, {"role": "user", "content": text}], schema


def label(answer: Mapping[str, Any]) -> float:
    """The number that an answer to :func:`helpful` or :func:`better` stands for; only its last field counts."""
    return _LABELS[answer["label"]] if "label" in answer else _ORDER[answer["closer"]]


def _object(properties: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "type": "object", "properties": dict(properties), "required": list(properties), "additionalProperties": False,
    }  # fmt: skip
