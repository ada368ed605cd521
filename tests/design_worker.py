"""A small search in a process of its own that kills itself at a given stage."""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from reward_design.llm import design
from reward_design.llm.designers import evaluation, journal
from reward_design.llm.designers.training import Training

STAGES = ("answering", "answer", "checked", "training", "trained", "judged", "candidates")
"""While the model answers; after the record of that kind is written; after a first checkpoint of training."""
SMALL = {
    "rounds": 1, "candidates": 2, "seeds": 1, "steps": 1024, "audits": "none",
    "config": {"num_envs": 4, "num_steps": 32, "hidden": (8,), "num_minibatches": 1},
}  # fmt: skip
SEARCHES: dict[str, dict[str, Any]] = {
    "device": {"task": "chain", **SMALL},
    "orso": {"task": "chain", "preset": "orso", **SMALL, "steps": 2560},
    "orso-sets": {"task": "chain", "preset": "orso", **SMALL, "rounds": 2, "steps": 20480},
    "host": {
        "task": "mujoco/InvertedPendulum", **SMALL, "steps": 512, "seeds": 2,
        "config": {**SMALL["config"], "num_envs": 2},
    },
}  # fmt: skip
FACTORS = {"mujoco/InvertedPendulum": "tilt"}
POOR = {"orso-sets": (2, 3)}
"""Calls that are answered with the opposite of what the task wants."""


def run(out: Path, calls: Path, stage: str = "", search: str = "device"):
    """The search; every call of the model leaves a line in ``calls``."""
    settings = dict(SEARCHES[search])
    task = settings.pop("task")

    def model(messages):
        number = calls.read_text().count("\n") if calls.exists() else 0
        if stage == "answering":
            _die()
        with calls.open("a") as file:
            file.write(f"{number}\n")
        direction = "increase" if number in POOR.get(search, ()) else "decrease"
        entry = {"factor": FACTORS.get(task, "distance"), "shape": "progress", "direction": direction}
        return json.dumps({"terms": [{**entry, "weight": number + 1, "scale": 1}]})

    model.__name__ = "counted"
    _arm(stage)
    return design(task, model=model, language="terms", out=out, **settings)


def _arm(stage: str) -> None:
    """Die right after the record or the checkpoint of a stage; ``<stage>:<n>`` at its n-th time."""
    stage, _, number = stage.partition(":")
    left = [int(number or 1)]
    if stage in ("update", "step"):
        _arm_inside(stage, left)
    elif stage == "training":
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
                _count(left)

        journal.Journal.put = done  # type: ignore[method-assign]


def _arm_inside(stage: str, left: list[int]) -> None:
    """Die inside training: when a slice or chunk has been computed and not been kept, or in a step of the simulator."""
    if stage == "update":
        took = Training._took

        def taken(self, *args):
            took(self, *args)
            _count(left)

        Training._took = taken  # type: ignore[method-assign]
        return
    from reward_design.envs.mujoco_lanes import MujocoVectorEnv

    step = MujocoVectorEnv.step

    def stepped(self, actions):
        _count(left)
        return step(self, actions)

    MujocoVectorEnv.step = stepped  # type: ignore[method-assign]


def _count(left: list[int]) -> None:
    left[0] -= 1
    if left[0] == 0:
        _die()


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    assert evaluation.NUM_CHUNKS > 1
    run(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
