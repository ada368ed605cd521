"""Rewards that kill the worker process they are first used in, or stop it with an error: named by module and attribute,
as a user's own are.
"""

import os
import signal
from pathlib import Path
from typing import Any

import jax.numpy as jnp

from reward_design.constructors import pointwise
from reward_design.core import Reward, Transition
from reward_design.envs import Task
from reward_design.experiments.worker import DEVICES

MARKER = "REWARD_DESIGN_TEST_MARKER"
"""Environment variable: a file that the first death leaves."""


def once(task: Task) -> Reward:
    """The sparse reward, after one death."""
    marker = Path(os.environ[MARKER])
    if DEVICES in os.environ and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task.sparse_reward


def always(task: Task) -> Reward:
    """The sparse reward, in the driver alone."""
    if DEVICES in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return task.sparse_reward


def edge(task: Task) -> Reward:
    """The environment's reward times ``weight``, but no number for a weight above one half."""

    def paid(params: Any, transition: Transition) -> Any:
        return jnp.where(params["weight"] > 0.5, jnp.nan, params["weight"] * transition.reward)

    return pointwise("edge", paid, params={"weight": jnp.float32(0.25)})
