"""Rewards from language models."""

from reward_design.llm.budget import Budget, BudgetExceeded, Price, Usage
from reward_design.llm.models import Answer, ChatModel, chat_model
from reward_design.llm.outcomes import OUTCOMES, CacheMissError, ModelError, Retry

__all__ = [
    "OUTCOMES",
    "Answer",
    "Budget",
    "BudgetExceeded",
    "CacheMissError",
    "ChatModel",
    "ModelError",
    "Price",
    "Retry",
    "Usage",
    "chat_model",
]
