"""Rewards from language models: models to ask, checked and sandboxed rewards, annotators, and searches for a reward.

Modules are imported when a name of theirs is used: the command line starts at once.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from reward_design.llm.annotate_calm import Annotations, annotate
    from reward_design.llm.annotate_rewards import classification_reward, ranking_reward, retrieval_reward
    from reward_design.llm.annotate_subgoals import subgoal_reward
    from reward_design.llm.annotate_worker import Labeller
    from reward_design.llm.answers import Answer
    from reward_design.llm.budget import Budget, BudgetExceeded, Price, Usage
    from reward_design.llm.build import build_reward, check_many
    from reward_design.llm.describe import describe_task, reward_contract
    from reward_design.llm.designers import PRESETS, DesignResult, design
    from reward_design.llm.files import load_reward, save_reward
    from reward_design.llm.isolation import Isolation
    from reward_design.llm.models import ChatModel, chat_model
    from reward_design.llm.outcomes import OUTCOMES, CacheMissError, ModelError, Retry
    from reward_design.llm.refusal import CandidateRefused
    from reward_design.llm.terms import terms_schema

_WHERE = {
    "annotate_calm": ("Annotations", "annotate"),
    "annotate_rewards": ("classification_reward", "ranking_reward", "retrieval_reward"),
    "annotate_subgoals": ("subgoal_reward",),
    "annotate_worker": ("Labeller",),
    "answers": ("Answer",),
    "budget": ("Budget", "BudgetExceeded", "Price", "Usage"),
    "build": ("build_reward", "check_many"),
    "describe": ("describe_task", "reward_contract"),
    "designers": ("PRESETS", "DesignResult", "design"),
    "files": ("load_reward", "save_reward"),
    "isolation": ("Isolation",),
    "models": ("ChatModel", "chat_model"),
    "outcomes": ("OUTCOMES", "CacheMissError", "ModelError", "Retry"),
    "refusal": ("CandidateRefused",),
    "terms": ("terms_schema",),
}

__all__ = [
    "OUTCOMES",
    "PRESETS",
    "Annotations",
    "Answer",
    "Budget",
    "BudgetExceeded",
    "CacheMissError",
    "CandidateRefused",
    "ChatModel",
    "DesignResult",
    "Isolation",
    "Labeller",
    "ModelError",
    "Price",
    "Retry",
    "Usage",
    "annotate",
    "build_reward",
    "chat_model",
    "check_many",
    "classification_reward",
    "describe_task",
    "design",
    "load_reward",
    "ranking_reward",
    "retrieval_reward",
    "reward_contract",
    "save_reward",
    "subgoal_reward",
    "terms_schema",
]


def __getattr__(name: str) -> Any:
    """Import on first use."""
    for module, names in _WHERE.items():
        if name in names:
            return getattr(importlib.import_module(f"reward_design.llm.{module}"), name)
    raise AttributeError(f"module 'reward_design.llm' has no attribute {name!r}")
