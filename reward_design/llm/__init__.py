"""Rewards from language models."""

import importlib
from typing import Any

__all__ = ["design"]

_HOMES = {"design": "reward_design.llm.designers"}


def __getattr__(name: str) -> Any:
    """Import a name on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
