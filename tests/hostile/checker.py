"""Workers for the corpus: one process for many programs, renewed when a program breaks it or runs into its limit."""

import contextlib
import time

from reward_design.envs import task
from reward_design.llm import CandidateRefused
from reward_design.llm.checking import accepted
from reward_design.llm.inputs import input_specs
from reward_design.llm.supervisor import Worker


class Checker:
    """As :func:`reward_design.llm.checking.check_code` without the linter, but in a worker that serves many programs."""

    def __init__(self, limit=30.0):
        self.limit, self.worker, self.reached = limit, None, {}
        self.task = task("cartpole")
        self.specs = input_specs(self.task)

    def check(self, source, limit=None):
        """``(artifact, None)`` or ``(None, refusal)``, and the seconds that it took."""
        if self.worker is None:
            self.worker = Worker(time_limit=600.0).__enter__()
            self.reached = self.worker.start()
        begin = time.monotonic()
        try:
            answer = self.worker.ask({"source": source, "specs": self.specs}, limit or self.limit)
            found = accepted(answer, source, self.task, self.reached), None
        except CandidateRefused as refused:
            found = None, refused
            if refused.stage in ("worker", "time", "memory"):
                self.close()
        return *found, time.monotonic() - begin

    def close(self):
        """End the worker."""
        if self.worker is not None:
            with contextlib.suppress(OSError):
                self.worker.__exit__(None, None, None)
            self.worker = None
