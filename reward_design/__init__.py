"""Rewards written once as pure functions, and everything around them.

Sub-packages are imported on first use, so that a wrapper around a reward does not load the agents: ``adapters``,
``agents``, ``bilevel``, ``distance``, ``envs``, ``experiments``, ``llm``, ``preferences``,
``redistribution``, ``testing``.
"""

import importlib
from typing import Any

from reward_design.combinators import chain, environment_reward, freeze_running, weighted_sum
from reward_design.constructors import from_step, from_trajectory, pointwise
from reward_design.core import Kind, Learner, NonFiniteRewardError, Output, Reward, State, Transition
from reward_design.delay import delayed
from reward_design.describe import check_gamma, describe, require_online, walk
from reward_design.ensembles import ensemble
from reward_design.exploration import count_bonus
from reward_design.shaping import Potential, look_ahead_advice, potential_shaping
from reward_design.transforms import centred_sigmoid, clip, log_sigmoid, normalise_by_return, scale

__version__ = "0.1.0"

__all__ = [
    "Kind",
    "Learner",
    "NonFiniteRewardError",
    "Output",
    "Potential",
    "Reward",
    "State",
    "Transition",
    "centred_sigmoid",
    "chain",
    "check_gamma",
    "clip",
    "count_bonus",
    "delayed",
    "describe",
    "ensemble",
    "environment_reward",
    "freeze_running",
    "from_step",
    "from_trajectory",
    "log_sigmoid",
    "look_ahead_advice",
    "normalise_by_return",
    "pointwise",
    "potential_shaping",
    "require_online",
    "scale",
    "walk",
    "weighted_sum",
]

_SUBPACKAGES = (
    "adapters",
    "agents",
    "bilevel",
    "distance",
    "envs",
    "experiments",
    "llm",
    "preferences",
    "redistribution",
    "testing",
)


def __getattr__(name: str) -> Any:
    """Import a sub-package on first use."""
    if name in _SUBPACKAGES:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
