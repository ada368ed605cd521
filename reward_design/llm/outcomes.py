"""How asking a language model may end, by name; and what is tried again after how long."""

import random
from dataclasses import dataclass

from reward_design.agents.settings import at_least

TRANSIENT = {
    "time-out": "no complete answer within the time limit",
    "rate limit": "the server turned the request away for now",
    "server error": "the server failed",
    "connection": "no connection, or one that broke off",
    "malformed": "an answer that is no JSON of a chat completion",
}
"""Outcomes after which the same request is sent again."""
FINAL = {
    "refusal": "the model declined, or a filter removed its answer",
    "empty": "an answer without text",
    "gigantic": "an answer larger than anything that was asked for",
    "truncated": "cut off at max_tokens before the JSON was complete",
    "invalid": "JSON that does not fit the schema, after one request to correct it",
    "rejected": "the server will not serve this request: address, key, model name or settings",
}
"""Outcomes that asking again would not change, or not cheaply; kept in the cache."""
OUTCOMES = {**TRANSIENT, **FINAL}
UNANSWERED = (*TRANSIENT, "rejected")
"""Outcomes with which a model did not answer at all; with the others it did, though in vain."""


class ModelError(RuntimeError):
    """A model gave no usable answer.

    Attributes:
        outcome: its name in :data:`OUTCOMES`.
        wait: seconds after which the server wants to be asked again, None if it said nothing.
        may_have_cost: whether the server may have worked on it.
        text: what came, where something came.
    """

    def __init__(
        self, outcome: str, text: str, *, wait: float | None = None, may_have_cost: bool = False, came: str = ""
    ) -> None:
        super().__init__(f"{outcome}: {text}")
        self.outcome, self.wait, self.may_have_cost, self.text = outcome, wait, may_have_cost, came


class CacheMissError(LookupError):
    """In mode ``replay`` something was asked that was not recorded."""


@dataclass(frozen=True)
class Retry:
    """When to ask again after a transient outcome: exponential backoff with full jitter.

    Before retry i = 0, 1, ... it waits U(0, min(longest, first 2^i)) seconds; where the server sent Retry-After, that
    long and U(0, first) on top, so that many clients do not come back at the same time.

    Attributes:
        retries: attempts after the first.
        first: seconds, see above.
        longest: seconds, see above.
        patience: the longest Retry-After that is waited for; a longer one ends in the outcome ``"rate limit"``.

    Raises:
        ValueError: for negative settings.

    Source: Brooker, "Exponential Backoff And Jitter", 2015.

    Example:
        >>> import random
        >>> Retry(first=1.0).delay(3, None, random.Random(0)) < 8.0
        True
        >>> 30.0 <= Retry(first=1.0).delay(0, 30.0, random.Random(0)) < 31.0
        True
    """

    retries: int = 4
    first: float | int = 0.5
    longest: float | int = 20.0
    patience: float | int = 120.0

    def __post_init__(self) -> None:
        at_least(self, 0, "retries", "first", "longest", "patience")

    def delay(self, number: int, wait: float | None, rng: random.Random) -> float:
        """Seconds before retry ``number``, where the server asked for ``wait``."""
        if wait is not None:
            return wait + rng.uniform(0, self.first)
        return rng.uniform(0, min(self.longest, self.first * 2.0 ** min(number, 60)))
