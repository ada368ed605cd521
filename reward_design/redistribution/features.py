"""What an estimator reads of a transition: the state, the action, and how the state changed."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jaxtyping import Array, Float

from reward_design.agents import networks
from reward_design.core import Transition
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv

Features = Callable[[Transition], Float[Array, "batch features"]]
"""``transition [B] -> [B, features]``."""


def flat_features(transition: Transition) -> Float[Array, "batch features"]:
    """(s, a, s' - s), flat: bytes scaled to [0, 1], integers as they are.

    An observation that is an index of a state is one number here; :func:`task_features` makes it one-hot.

    Args:
        transition: leaves ``[B, ...]``.
    """
    obs, next_obs = _flat(transition.obs), _flat(transition.next_obs)
    return jnp.concatenate([obs, _flat(transition.action), next_obs - obs], axis=1)


def task_features(task: Task | FunctionalEnv | HostEnv) -> Features:
    """(s, a, s' - s) by the spaces of a task: discrete observations and actions are one-hot.

    Args:
        task: a task, or an environment.

    Returns:
        A :data:`Features`.

    Example:
        >>> from reward_design.envs import task
        >>> task_features(task("chain", num_states=5))(task("chain", num_states=5).example).shape
        (1, 12)
    """
    env = task.env if isinstance(task, Task) else task

    def features(transition: Transition) -> Float[Array, "batch features"]:
        obs, next_obs = (networks.features(env.observation_space, x) for x in (transition.obs, transition.next_obs))
        action = networks.features(env.action_space, transition.action)
        return jnp.concatenate([obs, action, next_obs - obs], axis=1)

    return features


def are_continuous(task: Task | FunctionalEnv | HostEnv) -> bool:
    """Whether :func:`task_features` are worth normalising: one-hot ones are not."""
    env = task.env if isinstance(task, Task) else task
    return not isinstance(env.observation_space, (spaces.Discrete, spaces.MultiDiscrete))


def _flat(tree: Any) -> Float[Array, "batch features"]:
    return jnp.concatenate([_floats(leaf) for leaf in jax.tree.leaves(tree)], axis=1)


def _floats(leaf: Any) -> Float[Array, "batch features"]:
    leaf = jnp.asarray(leaf)
    scale = 255.0 if leaf.dtype == jnp.uint8 else 1.0
    return leaf.reshape(leaf.shape[0], -1).astype(jnp.float32) / scale
