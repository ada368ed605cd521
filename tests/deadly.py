"""Rewards that kill the worker process they are first used in: named by module and attribute, as a user's own are."""

import os
import signal
from pathlib import Path

from reward_design.core import Reward
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
