"""Suites: comparisons over many tasks, declared in one file and judged together."""

from reward_design.experiments.suites.declared import Block, Suite, list_suites, load_suite
from reward_design.experiments.suites.page import render, write
from reward_design.experiments.suites.picture import score_map
from reward_design.experiments.suites.running import compare_suite, load_verdict
from reward_design.experiments.suites.verdict import Verdict, sentences, verdict

__all__ = [
    "Block",
    "Suite",
    "Verdict",
    "compare_suite",
    "list_suites",
    "load_suite",
    "load_verdict",
    "render",
    "score_map",
    "sentences",
    "verdict",
    "write",
]
