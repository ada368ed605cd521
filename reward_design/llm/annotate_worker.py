"""Labels for messages of a game, made beside a learner, which never waits for them (ONI)."""

import json
import threading
from collections import Counter, deque
from collections.abc import Sequence
from typing import Any

import numpy as np

from reward_design.agents.settings import at_least
from reward_design.llm.annotate_prompts import VERSION, better, helpful, label
from reward_design.llm.annotate_steps import message_text
from reward_design.llm.budget import BudgetExceeded
from reward_design.llm.models import ChatModel
from reward_design.llm.outcomes import ModelError

Item = tuple[bytes, ...]
"""A message, or a pair of them."""
COUNTS = ("labelled", "waiting", "dropped", "failed", "retried", "stopped")
"""What :meth:`Labeller.counts` counts."""


class Labeller:
    """Labels messages in threads of its own; one labeller serves one reward in one run.

    What the learner offers goes into a bounded queue, of which the newest is labelled first: it is what the policy
    meets now. What is waiting, in work, labelled or given up is not queued again; what does not fit drops out at the
    old end, is counted, and may be offered again. A failure goes to the old end once more, up to ``attempts`` times. A
    budget that ends stops the work; the learner goes on with the labels it has.

    Args:
        model: who labels, as many at the same time as it is asked in parallel; with a cache, no message is ever paid
            for twice.
        goal: what the player wants, as in "to open the door": a verb without "to".
        pairs: label which of two messages is better, instead of whether one is helpful.
        queue: items that may wait.
        attempts: to get a label.
        capacity: labels that the learner sees, the newest ones.
        low: with ``pairs``, random pairs of messages seen so far are added while fewer are waiting.
        wait: let the learner wait until all is labelled, so that a run with recorded answers repeats exactly.
        seed: of the pairs.

    Raises:
        ValueError: for settings below 1, or a goal without words.
        TypeError: for a model that chat_model did not make.
    """

    def __init__(
        self,
        model: ChatModel,
        goal: str,
        *,
        pairs: bool = False,
        queue: int = 1024,
        attempts: int = 2,
        capacity: int = 4096,
        low: int = 32,
        wait: bool = False,
        seed: int = 0,
    ) -> None:
        if not isinstance(model, ChatModel):
            raise TypeError(
                f"a Labeller needs a model of chat_model, got {type(model).__name__}; give chat_model(...)."
            )
        self.model, self.goal, self.pairs = model, goal, pairs
        self.queue, self.attempts, self.capacity, self.low, self.wait = queue, attempts, capacity, low, wait
        at_least(self, 1, "queue", "attempts", "capacity", "low")
        if not isinstance(goal, str) or not goal.strip():
            raise ValueError(f"goal must say what the player wants, as in 'open the door', got {goal!r}.")
        self.labels: dict[Item, float] = {}
        self.stopped: str | None = None
        self._waiting: deque[Item] = deque()
        self._known: set[Item] = set()
        self._pool: dict[bytes, None] = {}
        self._tries: Counter[Item] = Counter()
        self._counts: Counter[str] = Counter()
        self._rng = np.random.default_rng(seed)
        self._busy, self._closed, self._error, self._version = 0, False, None, 0
        self._change = threading.Condition()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> "Labeller":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def close(self) -> None:
        """End the threads, after the requests that they are waiting for; what is labelled stays."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    def offer(self, messages: np.ndarray) -> None:
        """Queue what is new among messages ``[N, length]`` uint8; returns at once."""
        new = dict.fromkeys(row.tobytes().rstrip(b"\0") for row in messages)
        new.pop(b"", None)
        with self._change:
            if self._closed or self.stopped is not None:
                return
            for item in self._pairs(new) if self.pairs else [(message,) for message in new]:
                self._push(item)
            self._start()
            self._change.notify_all()

    def exchange(self, messages: np.ndarray) -> None:
        """Offer messages; with ``wait``, return when all is labelled.

        Raises:
            RuntimeError: if the work ended for another reason than a budget.
        """
        self.offer(messages)
        with self._change:
            while self.wait and (self._waiting or self._busy) and self.stopped is None and self._error is None:
                self._change.wait(0.5)
            if self._error is not None:
                raise RuntimeError(f"labelling messages failed: {self._error}") from self._error

    def counts(self) -> dict[str, float]:
        """Labels so far, items waiting, dropped, given up and tried again, and 1 if a budget stopped the work."""
        with self._change:
            now = {"labelled": len(self.labels), "waiting": len(self._waiting), "stopped": self.stopped is not None}
            return {name: float(now.get(name, self._counts[name])) for name in COUNTS}

    def examples(self, length: int) -> tuple[np.ndarray, np.ndarray]:
        """The newest labelled items.

        Args:
            length: bytes of a message.

        Returns:
            Messages ``[n, 1 or 2, length]`` uint8 and labels ``[n]``, at most ``capacity``, oldest first.
        """
        with self._change:
            newest = list(self.labels.items())[-self.capacity :]
        rows = np.zeros((len(newest), 2 if self.pairs else 1, length), np.uint8)
        for row, (item, _) in zip(rows, newest):
            for place, message in zip(row, item):
                place[: len(message)] = np.frombuffer(message[:length], np.uint8)
        return rows, np.array([value for _, value in newest], np.float32)

    def remember(self, messages: np.ndarray, labels: np.ndarray) -> None:
        """Take over labels of an interrupted run: messages ``[n, 1 or 2, length]`` and labels ``[n]``."""
        with self._change:
            for row, value in zip(messages, labels):
                item = tuple(np.asarray(message, np.uint8).tobytes().rstrip(b"\0") for message in row)
                self.labels.setdefault(item, float(value))
                self._known.add(self._same(item))
                self._pool |= dict.fromkeys(item)

    def _pairs(self, new: dict[bytes, None]) -> list[Item]:
        """Each new message with an older one, and random pairs while little is waiting."""
        pairs: list[Item] = []
        for message in new:
            if message not in self._pool:
                if self._pool:
                    pairs.append(self._ordered(message, self._drawn()))
                self._pool[message] = None
        if len(self._pool) > 1 and len(self._waiting) + len(pairs) < self.low:
            pairs += [self._ordered(self._drawn(), self._drawn()) for _ in range(10)]
        while len(self._pool) > self.capacity:
            del self._pool[next(iter(self._pool))]
        return [pair for pair in pairs if pair[0] != pair[1]]

    def _drawn(self) -> bytes:
        pool = list(self._pool)
        return pool[int(self._rng.integers(len(pool)))]

    def _ordered(self, a: bytes, b: bytes) -> Item:
        return (a, b) if self._rng.random() < 0.5 else (b, a)

    def _same(self, item: Item) -> Item:
        """What an item is recognised by: a pair is the same in both orders."""
        return tuple(sorted(item))

    def _push(self, item: Item) -> None:
        if self._same(item) in self._known:
            return
        self._known.add(self._same(item))
        self._waiting.append(item)
        if len(self._waiting) > self.queue:
            self._known.discard(self._same(self._waiting.popleft()))
            self._counts["dropped"] += 1

    def _start(self) -> None:
        self._threads = [thread for thread in self._threads if thread.is_alive()]
        while len(self._threads) < self.model.parallel:
            self._threads.append(threading.Thread(target=self._work, name="labeller", daemon=True))
            self._threads[-1].start()

    def _work(self) -> None:
        while (item := self._next()) is not None:
            value, again = None, False
            try:
                value = self._label(item)
            except ModelError:
                again = True
            except BudgetExceeded as stop:
                self.stopped = stop.limit
            except Exception as error:
                self._error = error
            with self._change:
                self._busy -= 1
                if value is not None:
                    self.labels[item] = value
                elif again:
                    self._again(item)
                self._change.notify_all()

    def _next(self) -> Item | None:
        """The newest item; waits for one. None at the end."""
        with self._change:
            while not (self._waiting or self._closed or self.stopped or self._error):
                self._change.wait()
            if self._closed or self.stopped or self._error:
                return None
            self._busy += 1
            return self._waiting.pop()

    def _again(self, item: Item) -> None:
        self._tries[item] += 1
        if self._tries[item] >= self.attempts:
            self._counts["failed"] += 1
        else:
            self._counts["retried"] += 1
            self._waiting.appendleft(item)

    def _label(self, item: Item) -> float:
        texts = [message_text(np.frombuffer(message, np.uint8)) for message in item]
        messages, schema = better(self.goal, *texts) if self.pairs else helpful(self.goal, *texts)
        template = f"{'better' if self.pairs else 'helpful'} {VERSION}"
        # the number of the try is that of the sample: a failure that was recorded is not simply read again
        (answer,) = self.model.ask(messages, schema=schema, template=template, first=self._tries[item])
        return label(json.loads(answer.text))


def as_bytes(messages: Sequence[str], length: int = 256) -> np.ndarray:
    """Texts as ``[n, length]`` bytes, as games give them."""
    rows = np.zeros((len(messages), length), np.uint8)
    for row, text in zip(rows, messages):
        encoded = text.encode("latin-1", "replace")[:length]
        row[: len(encoded)] = np.frombuffer(encoded, np.uint8)
    return rows
