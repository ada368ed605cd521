"""Rewards that language models write: described, checked, sandboxed and compiled."""

from reward_design.llm.build import build_reward, check_many
from reward_design.llm.describe import describe_task, reward_contract
from reward_design.llm.files import load_reward, save_reward
from reward_design.llm.isolation import Isolation
from reward_design.llm.refusal import CandidateRefused
from reward_design.llm.terms import terms_schema

__all__ = [
    "CandidateRefused",
    "Isolation",
    "build_reward",
    "check_many",
    "describe_task",
    "load_reward",
    "reward_contract",
    "save_reward",
    "terms_schema",
]
