"""Answers of language models, the messages that ask for them, and how both lie in the cache."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from reward_design.llm.outcomes import ModelError
from reward_design.llm.schemas import Message


@dataclass(frozen=True)
class Answer:
    """An answer of a model.

    Attributes:
        text: what it said; with a schema, JSON that fits it.
        finish_reason: ``"stop"``, or ``"length"`` where ``max_tokens`` cut it off.
        prompt_tokens: of the request, with that for a correction.
        completion_tokens: of the answer, with one that had to be corrected.
        cost: by the price of the model; of an answer from the cache, what it cost when it was made.
        seconds: until it came, with what was tried in vain.
        cached: whether it comes from the cache.
        sample: its number.
    """

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    cost: float
    seconds: float
    cached: bool
    sample: int = 0


def checked(messages: Sequence[Message]) -> list[Message]:
    """The messages as plain dictionaries.

    Raises:
        ValueError: for anything else than a list of messages that ends with one of the user.
    """
    roles = ("system", "user", "assistant")
    if isinstance(messages, str):
        raise ValueError(f"messages must be a list; write [{{'role': 'user', 'content': {messages[:40]!r}}}].")
    for message in messages:
        if set(message) != {"role", "content"} or message["role"] not in roles or not isinstance(
            message["content"], str
        ):  # fmt: skip
            raise ValueError(f"a message must be {{'role': one of {roles}, 'content': text}}, got {message!r:.200}.")
    if not messages or messages[-1]["role"] != "user":
        raise ValueError("messages must end with one whose role is 'user'.")
    return [dict(message) for message in messages]


def packed(end: Answer | ModelError) -> dict[str, Any]:
    """How a sample ended, as the cache keeps it."""
    if isinstance(end, ModelError):
        return {"outcome": end.outcome, "error": str(end).partition(": ")[2], "text": end.text}
    kept = asdict(end)
    del kept["cached"], kept["sample"]
    return {"outcome": "answer", **kept}


def unpacked(kept: Mapping[str, Any] | None, sample: int) -> Answer | ModelError | None:
    """How a sample ended; None for an entry that does not say."""
    try:
        if kept is None:
            return None
        if kept["outcome"] != "answer":
            return ModelError(kept["outcome"], kept["error"], came=kept["text"])
        names = ("text", "finish_reason", "prompt_tokens", "completion_tokens", "cost", "seconds")
        found = {name: kept[name] for name in names}
        if not isinstance(found["text"], str):
            return None
        return Answer(**found, cached=True, sample=sample)
    except (KeyError, TypeError):
        return None
