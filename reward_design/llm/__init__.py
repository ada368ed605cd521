"""Rewards from language models."""

import importlib
from typing import Any

from reward_design.llm.budget import Budget, BudgetExceeded, Price, Usage
from reward_design.llm.models import Answer, ChatModel, chat_model
from reward_design.llm.outcomes import OUTCOMES, CacheMissError, ModelError, Retry

__all__ = [
    "OUTCOMES",
    "PRESETS",
    "Answer",
    "Budget",
    "BudgetExceeded",
    "CacheMissError",
    "ChatModel",
    "DesignResult",
    "ModelError",
    "Price",
    "Retry",
    "Usage",
    "chat_model",
    "design",
    "load_design",
]

_LATER = dict.fromkeys(("PRESETS", "DesignResult", "design", "load_design"), "reward_design.llm.designers")


def __getattr__(name: str) -> Any:
    """Import what trains agents on first use."""
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
