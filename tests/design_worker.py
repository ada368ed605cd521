"""A small search in a process of its own that kills itself at a given stage."""

import json
import os
import signal
import sys
from pathlib import Path

from reward_design.llm import design
from reward_design.llm.designers import evaluation, journal
from reward_design.llm.designers.training import Training

STAGES = ("answering", "answer", "checked", "training", "trained", "judged", "candidates")
"""While the model answers; after the record of that kind is written; after a first checkpoint of training."""
SMALL = {
    "rounds": 1, "candidates": 2, "seeds": 1, "steps": 1024, "audits": "none",
    "config": {"num_envs": 4, "num_steps": 32, "hidden": (8,), "num_minibatches": 1},
}  # fmt: skip


def run(out: Path, calls: Path, stage: str = ""):
    """The search; every call of the model leaves a line in ``calls``."""

    def model(messages):
        number = calls.read_text().count("\n") if calls.exists() else 0
        if stage == "answering":
            _die()
        with calls.open("a") as file:
            file.write(f"{number}\n")
        entry = {"factor": "distance", "shape": "progress", "direction": "decrease", "weight": number + 1, "scale": 1}
        return json.dumps({"terms": [entry]})

    model.__name__ = "counted"
    _arm(stage)
    return design("chain", model=model, language="terms", out=out, **SMALL)


def _arm(stage: str) -> None:
    """Die right after the record or the checkpoint of a stage."""
    if stage == "training":
        keep = Training._keep

        def kept(self):
            keep(self)
            _die()

        Training._keep = kept  # type: ignore[method-assign]
    elif stage == "candidates":
        note = journal.Journal.note

        def noted(self, kind, **fields):
            note(self, kind, **fields)
            if kind == stage:
                _die()

        journal.Journal.note = noted  # type: ignore[method-assign]
    elif stage:
        put = journal.Journal.put

        def done(self, kind, name, value):
            put(self, kind, name, value)
            if kind == stage:
                _die()

        journal.Journal.put = done  # type: ignore[method-assign]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    assert evaluation.NUM_CHUNKS > 1
    run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
