"""Behaviour alignment: learn how to blend a heuristic with the task's reward, so that the policy serves the task."""

from reward_design.bilevel.alignment import alignment_reward, learned_discount
from reward_design.bilevel.barfi import AGENT as BARFI
from reward_design.bilevel.barfi import Config as BarfiConfig
from reward_design.bilevel.barfi import barfi, train_host
from reward_design.bilevel.implicit import METHODS, Diagnostics, Hypergradient, hypergradient

__all__ = [
    "BARFI",
    "METHODS",
    "BarfiConfig",
    "Diagnostics",
    "Hypergradient",
    "alignment_reward",
    "barfi",
    "hypergradient",
    "learned_discount",
    "train_host",
]
