"""Rewards from language models. Modules are imported when a name of theirs is used: the command line starts at once."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reward_design.llm.annotate_calm import Annotations, annotate
    from reward_design.llm.annotate_rewards import classification_reward, ranking_reward, retrieval_reward
    from reward_design.llm.annotate_worker import Labeller
    from reward_design.llm.answers import Answer
    from reward_design.llm.budget import Budget, BudgetExceeded, Price, Usage
    from reward_design.llm.models import ChatModel, chat_model
    from reward_design.llm.outcomes import OUTCOMES, CacheMissError, ModelError, Retry

_WHERE = {
    "annotate_calm": ("Annotations", "annotate"),
    "annotate_rewards": ("classification_reward", "ranking_reward", "retrieval_reward"),
    "annotate_worker": ("Labeller",),
    "budget": ("Budget", "BudgetExceeded", "Price", "Usage"),
    "answers": ("Answer",),
    "models": ("ChatModel", "chat_model"),
    "outcomes": ("OUTCOMES", "CacheMissError", "ModelError", "Retry"),
}

__all__ = [
    "OUTCOMES",
    "Annotations",
    "Answer",
    "Budget",
    "BudgetExceeded",
    "CacheMissError",
    "ChatModel",
    "Labeller",
    "ModelError",
    "Price",
    "Retry",
    "Usage",
    "annotate",
    "chat_model",
    "classification_reward",
    "ranking_reward",
    "retrieval_reward",
]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    for module, names in _WHERE.items():
        if name in names:
            return getattr(importlib.import_module(f"reward_design.llm.{module}"), name)
    raise AttributeError(f"module 'reward_design.llm' has no attribute {name!r}")
