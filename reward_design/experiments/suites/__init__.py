"""Suites: comparisons over many tasks, declared in one file and judged together."""

from reward_design.experiments.suites.declared import Block, Suite, list_suites, load_suite
from reward_design.experiments.suites.running import compare_suite
from reward_design.experiments.suites.verdict import Verdict, render, sentences, verdict

__all__ = ["Block", "Suite", "Verdict", "compare_suite", "list_suites", "load_suite", "render", "sentences", "verdict"]
