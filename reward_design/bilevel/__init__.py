"""Behaviour alignment: learn how to blend a heuristic with the task's reward, so that the policy serves the task."""

from reward_design.bilevel.alignment import alignment_reward, learned_discount
from reward_design.bilevel.implicit import METHODS, Diagnostics, Hypergradient, hypergradient

__all__ = ["METHODS", "Diagnostics", "Hypergradient", "alignment_reward", "hypergradient", "learned_discount"]
