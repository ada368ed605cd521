"""Progress of units that train on a Ray cluster, on its way to the driver: sent and forgotten, so training never waits.

Workers put letters into a mailbox, an actor of Ray; the driver empties it now and then. A letter that is lost costs a
few points of a curve that is only looked at. A mailbox that is lost with its node starts anew, and one that is gone for
good leaves the units without a bar: their records go another way.
"""

import contextlib
import math
import time
import uuid
from collections.abc import Mapping
from typing import Any, no_type_check

import cloudpickle

from reward_design.experiments.progress import Progress

PERIOD = 0.5
"""Seconds between two letters of a worker, and between two looks into the mailbox, at least."""


class Sender:
    """The worker's end: what a unit calls with its progress.

    A letter holds what came since the one before. The first one, without progress, says that the unit has begun.

    Args:
        mailbox: handle of the actor.
        number: of the unit, as the driver counts.
    """

    def __init__(self, mailbox: Any, number: int) -> None:
        self.mailbox, self.number, self.attempt = mailbox, number, uuid.uuid4().hex
        self.kept: list[tuple[Any, ...]] = []
        self._send()
        self.sent = -math.inf  # compiling may take long, and what comes first after it is worth telling at once

    def __call__(self, *done: Any) -> None:
        """Keep it, and send all that is kept unless that was done just now."""
        self.kept.append(done)
        if time.monotonic() - self.sent >= PERIOD:
            self._send()

    def _send(self) -> None:
        letter = cloudpickle.dumps((self.number, self.attempt, self.kept))
        self.kept, self.sent = [], time.monotonic()
        with contextlib.suppress(Exception):  # nobody is there to take it, which is no reason to stop training
            self.mailbox.put.remote(letter)


class Inbox:
    """The driver's end.

    Args:
        ray: the module, connected.

    Attributes:
        mailbox: handle of the actor, for workers.
        attempts: at each unit that has begun, in order: a unit that lost its worker begins again elsewhere.
    """

    def __init__(self, ray: Any) -> None:
        self.ray = ray
        self.mailbox = ray.remote(num_cpus=0, max_restarts=-1)(_mailbox()).remote()
        self.attempts: dict[int, list[str]] = {}
        self._asked = self.mailbox.take.remote()

    def deliver(self, plans: Mapping[int, Any], bar: Progress) -> None:
        """Tell the bar what has come, without waiting for more.

        Args:
            plans: the units that have not ended, by number; what comes late about others is dropped.
            bar: is told that a unit begins, also again, and how far it is.
        """
        for number, attempt, progress in self._taken():
            if number not in plans:
                continue
            known = self.attempts.setdefault(number, [])
            if attempt not in known:
                known.append(attempt)
                bar.begin(plans[number])
            if attempt == known[-1]:  # not a letter of a worker that was lost, which may come after those of the next
                for done in progress:
                    bar.advance(plans[number], *done)

    def close(self) -> None:
        """End the actor."""
        with contextlib.suppress(Exception):
            self.ray.kill(self.mailbox)

    def _taken(self) -> list[Any]:
        """What was in the mailbox when it was asked last; nothing if it has not answered yet, or was lost."""
        with contextlib.suppress(Exception):
            if not self.ray.wait([self._asked], timeout=0)[0]:
                return []
        letters: list[Any] = []
        with contextlib.suppress(Exception):
            letters = [cloudpickle.loads(letter) for letter in self.ray.get(self._asked)]
        with contextlib.suppress(Exception):
            self._asked = self.mailbox.take.remote()
        return letters


def _mailbox() -> type:
    """The class of the actor, made in here so that it travels as code: its process does not import JAX for it."""

    @no_type_check  # the checks of the tests cannot travel
    class Mailbox:
        def __init__(self) -> None:
            self.letters: list[bytes] = []

        def put(self, letter: bytes) -> None:
            self.letters.append(letter)
            del self.letters[:-10_000]  # of a driver that does not come any more

        def take(self) -> list[bytes]:
            taken, self.letters = self.letters, []
            return taken

    return Mailbox
