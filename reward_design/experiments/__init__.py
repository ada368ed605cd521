"""Experiments: compare reward designs by what they lead to.

``compare`` trains and judges; ``Results`` reads what it left; ``DESIGNS`` names the designs that every task knows.
``Processes`` and ``RayCluster`` train on many cores or machines, ``merge`` puts their folders together, ``frame`` and
``export`` give the results to other tools. ``search`` looks for settings.
``board`` shows a folder of results in the browser while it is being written.
``load_run`` reads what ``train`` left; ``evaluate`` and ``play`` show what a policy does.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reward_design.experiments.comparison import compare
    from reward_design.experiments.dashboard import Board, board
    from reward_design.experiments.data import export, frame, rows
    from reward_design.experiments.designs import DESIGNS, Design, resolve
    from reward_design.experiments.evaluation import Evaluation, evaluate
    from reward_design.experiments.executors import Here, Processes, RayCluster
    from reward_design.experiments.merging import merge
    from reward_design.experiments.playing import play
    from reward_design.experiments.results import Results
    from reward_design.experiments.runs import Run, load_run
    from reward_design.experiments.searching import Search, search
    from reward_design.experiments.space import Range

__all__ = [
    "DESIGNS",
    "Board",
    "Design",
    "Evaluation",
    "Here",
    "Processes",
    "Range",
    "RayCluster",
    "Results",
    "Run",
    "Search",
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
    "search",
]

_HOMES = {
    "DESIGNS": "designs",
    "Board": "dashboard",
    "Design": "designs",
    "Evaluation": "evaluation",
    "Here": "executors",
    "Processes": "executors",
    "Range": "space",
    "RayCluster": "executors",
    "Results": "results",
    "Run": "runs",
    "Search": "searching",
    "board": "dashboard",
    "compare": "comparison",
    "evaluate": "evaluation",
    "export": "data",
    "frame": "data",
    "load_run": "runs",
    "merge": "merging",
    "play": "playing",
    "resolve": "designs",
    "rows": "data",
    "search": "searching",
}


def __getattr__(name: str) -> Any:
    """Import on first use: the command line answers ``--help`` before any of this is loaded."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
