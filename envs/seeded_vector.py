"""gymnasium's own vector environments, with a seed for their first reset, and words for what they do not take."""

from typing import Any

import gymnasium
from gymnasium.vector import AutoresetMode

from reward_design.envs.host import lane_seeds
from reward_design.envs.process_memory import parts
from reward_design.envs.vector_checks import check_open, lane_actions


class _FirstSeed:
    """In front of a vector environment in mode ``SAME_STEP``: its first reset without a seed takes ``seed``."""

    def __init__(self, *args: Any, seed: int | None = None, host_env: Any = None, **kwargs: Any) -> None:
        same_step: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}
        super().__init__(*args, **same_step, **kwargs)
        self.host_env, self._seed = host_env, seed
        batch: Any = self.action_space  # pyright: ignore[reportAttributeAccessIssue]
        self._action_parts: list[Any] = [(path, part.shape, part.dtype) for path, part in parts(batch)]

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Start an episode in every lane. A seed s gives lane i the seed s + i; a list gives each its own.

        Raises:
            ClosedEnvironmentError: after ``close``.
        """
        check_open(self)
        seed, self._seed = (self._seed if seed is None else seed), None
        seeds = None if seed is None else lane_seeds(seed, self.num_envs)  # pyright: ignore[reportAttributeAccessIssue]
        return super().reset(seed=seeds, options=options)  # pyright: ignore[reportAttributeAccessIssue]

    def step(self, actions: Any) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
        """Step every lane, and reset those that ended.

        Raises:
            ClosedEnvironmentError: after ``close``.
            ValueError: for actions that are not one for each lane.
            TypeError: for fractions where actions are whole numbers.
        """
        check_open(self)
        for part in self._action_parts:
            lane_actions(actions, *part)
        return super().step(actions)  # pyright: ignore[reportAttributeAccessIssue]


class SeededSyncVectorEnv(_FirstSeed, gymnasium.vector.SyncVectorEnv):
    """Steps environments in this process, one after another."""


class SeededAsyncVectorEnv(_FirstSeed, gymnasium.vector.AsyncVectorEnv):
    """Steps every environment in a process of its own."""
