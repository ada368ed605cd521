"""Rewards from language models: models to ask, checked and sandboxed rewards, and searches that design them."""

import importlib
from typing import Any

from reward_design.llm.budget import Budget, BudgetExceeded, Price, Usage
from reward_design.llm.build import build_reward, check_many
from reward_design.llm.describe import describe_task, reward_contract
from reward_design.llm.files import load_reward, save_reward
from reward_design.llm.isolation import Isolation
from reward_design.llm.models import Answer, ChatModel, chat_model
from reward_design.llm.outcomes import OUTCOMES, CacheMissError, ModelError, Retry
from reward_design.llm.refusal import CandidateRefused
from reward_design.llm.terms import terms_schema

__all__ = [
    "OUTCOMES",
    "PRESETS",
    "Answer",
    "Budget",
    "BudgetExceeded",
    "CacheMissError",
    "CandidateRefused",
    "ChatModel",
    "DesignResult",
    "Isolation",
    "ModelError",
    "Price",
    "Retry",
    "Usage",
    "build_reward",
    "chat_model",
    "check_many",
    "describe_task",
    "design",
    "load_design",
    "load_reward",
    "reward_contract",
    "save_reward",
    "terms_schema",
]

_LATER = dict.fromkeys(("PRESETS", "DesignResult", "design", "load_design"), "reward_design.llm.designers")


def __getattr__(name: str) -> Any:
    """Import what trains agents on first use."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
