"""Hard limits on what language models may cost: calls, tokens, money, wall time.

Every request is charged before it is sent with the most that it can use, and corrected by what it used; so a limit is
never exceeded, also by requests that run at the same time.
"""

import math
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reward_design.agents.settings import at_least

LIMITS = ("calls", "tokens", "money", "seconds")
_PER_MESSAGE, _PER_REQUEST = 16, 64
"""Tokens that chat templates add, at most (some put a system text of their own in front)."""


@dataclass(frozen=True)
class Price:
    """What a model costs, in a currency of your choice.

    Attributes:
        prompt: per million tokens of prompt.
        completion: per million tokens of answer.
        date: day on which the price was looked up, as ``"2026-11-26"``; kept with every answer.

    Raises:
        ValueError: for a negative price, or one without a date.

    Example:
        >>> Price(prompt=2.0, completion=8.0, date="2026-11-26").of(1000, 500)
        0.006
    """

    prompt: float | int
    completion: float | int
    date: str

    def __post_init__(self) -> None:
        at_least(self, 0, "prompt", "completion")
        try:
            time.strptime(self.date, "%Y-%m-%d")
        except ValueError as error:
            text = f"date of a price must be the day when it was looked up, as '2026-11-26', got {self.date!r}."
            raise ValueError(text) from error

    def of(self, prompt_tokens: int, completion_tokens: int) -> float:
        """The cost of a request."""
        return (self.prompt * prompt_tokens + self.completion * completion_tokens) / 1e6


@dataclass(frozen=True)
class Usage:
    """What was used.

    Attributes:
        calls: requests that were sent, those that failed and were sent again included.
        tokens: of prompts and answers.
        money: in the currency of the prices.
        seconds: wall time since the first request.
    """

    calls: int = 0
    tokens: int = 0
    money: float = 0.0
    seconds: float = 0.0


class BudgetExceeded(RuntimeError):  # noqa: N818 - a stop, and what there is so far; not an error
    """A hard limit stopped a run before a request that might have exceeded it.

    Attributes:
        limit: which one: ``"calls"``, ``"tokens"``, ``"money"`` or ``"seconds"``.
        answers: what the interrupted round has so far.
    """

    def __init__(self, limit: str, text: str, answers: Sequence[Any] = ()) -> None:
        super().__init__(text)
        self.limit, self.answers = limit, list(answers)


@dataclass
class Budget:
    """Hard limits, shared by all models that get the same object; None is no limit.

    Answers from the cache are free. A request that failed in a way in which the server may have worked for it (a
    time-out, a connection that broke off, an answer that cannot be read) is charged with the most that it can have
    cost; one that was turned away counts as a call only.

    Attributes:
        calls: requests.
        tokens: of prompts and answers.
        money: in the currency of the models' prices; models without a :class:`Price` are refused.
        seconds: wall time from the first request on, waiting between requests included.
        used: so far; give the ``used`` of an interrupted run to go on with the same limits.

    Raises:
        ValueError: for a negative limit.

    Example:
        >>> budget = Budget(calls=1)
        >>> charge = budget.charge([{"role": "user", "content": "hello"}], max_tokens=10)
        >>> budget.settle(charge, 12, 3)
        >>> budget.used.tokens
        15
        >>> budget.charge([{"role": "user", "content": "hello"}], max_tokens=10)
        Traceback (most recent call last):
        reward_design.llm.budget.BudgetExceeded: the limit of 1 calls is reached: 1 used, and the next request ...
    """

    calls: int | None = None
    tokens: int | None = None
    money: float | int | None = None
    seconds: float | int | None = None
    used: Usage = field(default_factory=Usage)
    _begun: float | None = field(default=None, init=False, repr=False)
    _lock: Any = field(default_factory=threading.RLock, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at_least(self, 0, *LIMITS)
        self._before = self.used.seconds

    def charge(self, messages: Sequence[Mapping[str, str]], max_tokens: int, price: Price | None = None) -> "Charge":
        """Charge the most that a request can use.

        Args:
            messages: what is sent.
            max_tokens: of the answer.
            price: of the model.

        Returns:
            The charge, for :meth:`settle` or :meth:`refund`.

        Raises:
            BudgetExceeded: if a limit does not allow it.
        """
        prompt = most_tokens(messages)
        money = 0.0 if price is None else price.of(prompt, max_tokens)
        charge = Charge(prompt + max_tokens, money, price)
        with self._lock:
            self._begun = time.monotonic() if self._begun is None else self._begun
            used = self._now()
            want = Usage(used.calls + 1, used.tokens + charge.tokens, used.money + money, used.seconds)
            for name in LIMITS:
                limit, value = getattr(self, name), getattr(want, name)
                if limit is not None and (value > limit if name != "seconds" else value >= limit):
                    raise BudgetExceeded(name, self._reached(name, getattr(used, name)))
            self.used = want
        return charge

    def settle(self, charge: "Charge", prompt_tokens: int, completion_tokens: int) -> None:
        """Replace a charge by what the request used."""
        money = 0.0 if charge.price is None else charge.price.of(prompt_tokens, completion_tokens)
        self._correct(prompt_tokens + completion_tokens - charge.tokens, money - charge.money)

    def refund(self, charge: "Charge") -> None:
        """Take a charge back, but for the call."""
        self._correct(-charge.tokens, -charge.money)

    def remaining_seconds(self) -> float | int:
        """Wall time that is left, ``inf`` without a limit."""
        if self.seconds is None:
            return math.inf
        with self._lock:
            return self.seconds - self._now().seconds

    def out_of_time(self, last: Exception) -> BudgetExceeded:
        """The exception for a run that has used its wall time, or would, waiting; with how its last attempt ended."""
        text = self._reached("seconds", self._now().seconds)
        return BudgetExceeded("seconds", f"{text} The last attempt ended in {last}")

    def report(self) -> dict[str, float | int]:
        """What was used, as plain numbers for records."""
        with self._lock:
            self.used = self._now()
            return asdict(self.used)

    def _now(self) -> Usage:
        passed = 0.0 if self._begun is None else time.monotonic() - self._begun
        return Usage(self.used.calls, self.used.tokens, self.used.money, self._before + passed)

    def _correct(self, tokens: int, money: float) -> None:
        with self._lock:
            used = self._now()
            self.used = Usage(used.calls, used.tokens + tokens, used.money + money, used.seconds)

    def _reached(self, name: str, used: float | int) -> str:
        limit = getattr(self, name)
        return (
            f"the limit of {limit:g} {name} is reached: {used:.6g} used, and the next request may need more than is "
            f"left; what there is so far is kept, a larger Budget({name}=...) goes on."
        )


@dataclass(frozen=True)
class Charge:
    """The most that a request can use, and its price."""

    tokens: int
    money: float
    price: Price | None


def most_tokens(messages: Sequence[Mapping[str, str]]) -> int:
    """A bound on the tokens of a prompt: no tokeniser makes more than one token of a byte.

    Example:
        >>> most_tokens([{"role": "user", "content": "hello"}])
        85
    """
    return _PER_REQUEST + sum(len(message["content"].encode()) + _PER_MESSAGE for message in messages)
