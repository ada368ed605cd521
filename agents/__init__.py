"""Jitted agents. Each module has ``Config``, ``train(config, env, reward, key)`` and an ``AGENT`` bundle."""

import importlib
from typing import TYPE_CHECKING, Any

from reward_design._names import suggestion
from reward_design.agents import sb3
from reward_design.agents.base import Agent, TrainResult, evaluate
from reward_design.agents.seeds import train_seeds, use_all_cores

if TYPE_CHECKING:
    from reward_design.agents.policies import Policy
    from reward_design.agents.policy_files import load_policy, save_policy

AGENTS = {
    "ppo": "reward_design.agents.ppo",
    "dqn": "reward_design.agents.dqn",
    "sac": "reward_design.agents.sac",
    "reinforce": "reward_design.agents.reinforce",
    "q_learning": "reward_design.agents.q_learning",
    "barfi": "reward_design.bilevel.training",
}
"""Trainable agents of this package by name."""


def agent(name: str) -> Any:
    """The :class:`Agent` called ``name``, or the :class:`reward_design.agents.sb3.SB3Agent` called ``sb3/<name>``.

    Raises:
        ValueError: for an unknown name, with the nearest one.
        ImportError: if its library is not installed, naming the extra.
    """
    if name in AGENTS:
        return importlib.import_module(AGENTS[name]).AGENT
    if name in sb3.names():
        return sb3.agent(name)
    families = [f"{prefix}/<name>" for prefix in sb3.LIBRARIES]
    raise ValueError(
        f"unknown agent {name!r}{suggestion(name, [*AGENTS, *sb3.names()])} Agents: {', '.join([*AGENTS, *families])}."
    )


def list_agents() -> dict[str, str]:
    """One line of text for each agent, and for each family of agents of other libraries.

    Example:
        >>> list_agents()["sb3/<name>"]
        "stable-baselines3: a2c, ddpg, dqn, ppo, sac, td3 (extra 'sb3')"
    """
    own = {name: agent(name).description for name in AGENTS}
    return own | {f"{prefix}/<name>": line for prefix, line in sb3.lines().items()}


__all__ = [
    "AGENTS",
    "Agent",
    "Policy",
    "TrainResult",
    "agent",
    "evaluate",
    "list_agents",
    "load_policy",
    "save_policy",
    "sb3",
    "train_seeds",
    "use_all_cores",
]

_HOMES = {"Policy": "policies", "load_policy": "policy_files", "save_policy": "policy_files"}


def __getattr__(name: str) -> Any:
    """Import an agent's module, or what policies need, on first use."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in (*AGENTS, "value_iteration"):
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
