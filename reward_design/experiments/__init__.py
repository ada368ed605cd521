"""Experiments: compare reward designs by what they lead to.

``compare`` trains and judges; ``Results`` reads what it left; ``DESIGNS`` names the designs that every task knows.
``Processes`` and ``RayCluster`` train on many cores or machines, ``merge`` puts their folders together, ``frame`` and
``export`` give the results to other tools.
``board`` shows a folder of results in the browser while it is being written.
``load_run`` reads what ``train`` left; ``evaluate`` and ``play`` show what a policy does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reward_design.experiments.comparison import compare
    from reward_design.experiments.dashboard import Board, board
    from reward_design.experiments.data import export, frame, merge, rows
    from reward_design.experiments.designs import DESIGNS, Design, resolve
    from reward_design.experiments.evaluation import Evaluation, evaluate
    from reward_design.experiments.executors import Here, Processes, RayCluster
    from reward_design.experiments.playing import play
    from reward_design.experiments.results import Results
    from reward_design.experiments.runs import Run, load_run

__all__ = [
    "DESIGNS",
    "Board",
    "Design",
    "Evaluation",
    "Here",
    "Processes",
    "RayCluster",
    "Results",
    "Run",
    "board",
    "compare",
    "evaluate",
    "export",
    "frame",
    "load_run",
    "merge",
    "play",
    "resolve",
    "rows",
]

_HOMES = {
    "DESIGNS": "designs",
    "Board": "dashboard",
    "Design": "designs",
    "Evaluation": "evaluation",
    "Here": "executors",
    "Processes": "executors",
    "RayCluster": "executors",
    "Results": "results",
    "Run": "runs",
    "board": "dashboard",
    "compare": "comparison",
    "evaluate": "evaluation",
    "export": "data",
    "frame": "data",
    "load_run": "runs",
    "merge": "data",
    "play": "playing",
    "resolve": "designs",
    "rows": "data",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command line answers ``--help`` before any of this is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
