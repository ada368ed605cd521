"""Behaviour alignment: learn how to blend a heuristic with the task's reward, so that the policy serves the task."""

from reward_design.bilevel.alignment import alignment_reward, learned_discount
from reward_design.bilevel.baselines import Method, method, state_action
from reward_design.bilevel.implicit import METHODS, Diagnostics, Hypergradient, hypergradient
from reward_design.bilevel.training import AGENT as BARFI
from reward_design.bilevel.training import Config as BarfiConfig
from reward_design.bilevel.training import barfi, train_host

__all__ = [
    "BARFI",
    "METHODS",
    "BarfiConfig",
    "Diagnostics",
    "Hypergradient",
    "Method",
    "alignment_reward",
    "barfi",
    "hypergradient",
    "learned_discount",
    "method",
    "state_action",
    "train_host",
]
