"""Jitted agents. Each module has ``Config``, ``train(config, env, reward, key)`` and an ``AGENT`` bundle."""

import importlib
from typing import Any

from reward_design._names import suggestion
from reward_design.agents.base import Agent, TrainResult, evaluate
from reward_design.agents.seeds import train_seeds, use_all_cores

AGENTS = {
    "ppo": "reward_design.agents.ppo",
    "dqn": "reward_design.agents.dqn",
    "sac": "reward_design.agents.sac",
    "reinforce": "reward_design.agents.reinforce",
    "q_learning": "reward_design.agents.q_learning",
}
"""Trainable agents by name."""


def agent(name: str) -> Agent:
    """The :class:`Agent` called ``name``.

    Raises:
        ValueError: for an unknown name, with the nearest one.
    """
    if name not in AGENTS:
        raise ValueError(f"unknown agent {name!r}{suggestion(name, AGENTS)} Agents: {', '.join(AGENTS)}.")
    return importlib.import_module(AGENTS[name]).AGENT


__all__ = [
    "AGENTS",
    "Agent",
    "TrainResult",
    "agent",
    "evaluate",
    "train_seeds",
    "use_all_cores",
]


def __getattr__(name: str) -> Any:
    """Import an agent's module on first use."""
    if name in (*AGENTS, "value_iteration"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
