"""Rewards, factors and the potential of the minigrid tasks, from the milestones that the observation carries."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float

from reward_design.combinators import environment_reward
from reward_design.constructors import pointwise
from reward_design.core import Reward, Transition
from reward_design.envs.base import Factor, FunctionalEnv, Task
from reward_design.envs.control import progress, weighted
from reward_design.envs.host import HostEnv

MILESTONES = ("has_key", "unlocked", "door_open", "closeness")
"""Names of the last four numbers of an observation."""
LOCKED_FAMILIES = ("DoorKey", "Unlock", "BlockedUnlockPickUp", "LockedRoom")
"""Levels with a locked door."""


def milestone(obs: Any, name: str) -> Float[Array, "*batch"]:
    """One of :data:`MILESTONES` of an observation of either form, ``obs -> [B]``."""
    vector = obs["milestones"] if isinstance(obs, Mapping) else obs
    return jnp.asarray(vector[..., MILESTONES.index(name) - len(MILESTONES)])


def staged_potential(obs: Any) -> Float[Array, "*batch"]:
    """φ = (stage + closeness) / 3: stage 0 before the key is held, 1 before the door is unlocked, 2 after."""
    stage = jnp.where(milestone(obs, "unlocked") > 0, 2.0, milestone(obs, "has_key"))
    return (stage + milestone(obs, "closeness")) / 3


def goal_closeness(obs: Any) -> Float[Array, "*batch"]:
    """φ = closeness to the goal, 0 where the level has none."""
    return milestone(obs, "closeness")


def key_and_door(*, key: float = 0.2, door: float = 0.3) -> Reward:
    """Pays once for the key and once for the door: r = key (k' − k)(1 − u) + door (u' − u).

    k says whether the key is held, u whether the door is unlocked. Putting the key down before the door is unlocked
    takes the payment back, so that an episode pays at most ``key + door``.

    Keeps the optimal policy: only if ``key + door`` does not make a detour worth it (never for the values given).

    Args:
        key: paid for the key.
        door: paid for unlocking the door.

    Returns:
        A reward of kind ``POINTWISE`` with the terms ``key`` and ``door``.
    """
    values = {"key": key, "door": door}

    def fn(params: Any, transition: Transition) -> Any:
        obs, next_obs = transition.obs, transition.next_obs
        still_locked = 1 - milestone(obs, "unlocked")
        gained = milestone(next_obs, "has_key") - milestone(obs, "has_key")
        opened = milestone(next_obs, "unlocked") - milestone(obs, "unlocked")
        terms = {"key": params["key"] * gained * still_locked, "door": params["door"] * opened}
        return terms["key"] + terms["door"], terms

    return pointwise("key_and_door", fn, params=values, settings=values)


def handling(transition: Transition) -> Float[Array, "*batch"]:
    """1 for every pick-up and every use of a door, however often, else 0."""
    used = jnp.logical_or(transition.info["picked_up"], transition.info["door_used"])
    return used.astype(jnp.float32)


def grid_task(env: FunctionalEnv | HostEnv, *, has_locked_door: bool) -> Task:
    """The task around a grid world, see :func:`reward_design.envs.minigrid_adapter.minigrid_task`."""
    potential = staged_potential if has_locked_door else goal_closeness
    auxiliary = {
        "aligned": key_and_door()
        if has_locked_door
        else weighted("approach", lambda t: potential(t.next_obs) - potential(t.obs), 0.5),
        "misaligned": weighted("handling", handling, 0.1)
        if has_locked_door
        else weighted("turning", lambda t: jnp.asarray(t.info["turned"], jnp.float32), 0.1),
    }
    return Task(
        name=env.name,
        description=(
            f"The level {env.name.removeprefix('minigrid/')} of MiniGrid. The agent sees the cells in front of it and "
            "can go forward, turn right, turn left, pick up, put down, and toggle a door. "
            + ("It must fetch the key that opens the locked door. " if has_locked_door else "")
            + f"The environment pays only on success, where the episode ends; it stops after {env.horizon} steps."
        ),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=weighted("goal", env.success),
        dense_reward=progress(potential, env.success, weight=1.0, bonus=1.0, step_cost=0.001),
        factors=FACTORS,
        potential=potential,
        auxiliary=auxiliary,
    )


def _flag(name: str) -> Callable[[Transition], Array]:
    return lambda transition: jnp.asarray(transition.info[name], jnp.float32)


FACTORS = {
    "goal": Factor(_flag("success"), "1", 1, "1 when the level's goal is reached, else 0"),
    "has_key": Factor(lambda t: milestone(t.next_obs, "has_key"), "1", 1, "1 while a key is carried"),
    "door_open": Factor(lambda t: milestone(t.next_obs, "door_open"), "1", 1, "1 while a door stands open"),
    "closeness": Factor(
        lambda t: milestone(t.next_obs, "closeness"), "1", 1, "closeness to the key, then the door, then the goal"
    ),
    "picked_up": Factor(_flag("picked_up"), "1", -1, "1 when something is picked up; once is enough"),
    "door_used": Factor(_flag("door_used"), "1", -1, "1 when a door changes; once is enough"),
    "turned": Factor(_flag("turned"), "1", -1, "1 when the agent turns"),
}
