"""Factors, potentials and rewards that the tabular tasks share."""

from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from reward_design.combinators import environment_reward
from reward_design.constructors import pointwise
from reward_design.core import Reward, Transition
from reward_design.envs.base import Factor, Tabular, Task
from reward_design.envs.tabular import TabularEnv
from reward_design.envs.tabular_model import shortest_steps

Event = Callable[[Transition], Bool[Array, "*batch"]]
Quantity = Callable[[Transition], Float[Array, "*batch"]]
Potential = Callable[[Any], Float[Array, "*batch"]]


class Lookup:
    """Function that reads a table: of the state index for ``[S]``, of ``(obs, action, ...)`` for a table of more axes.

    Floats for floats, bools for bools. A class and not a closure, so that environments can be pickled.
    """

    def __init__(self, table: np.ndarray) -> None:
        self.table = np.asarray(table)

    def __call__(self, index: Any) -> Array:
        """The entry, for any leading axes."""
        return jnp.asarray(self.table, bool if self.table.dtype == bool else float)[index]


class Entered(Lookup):
    """The event of entering a set of states ``[S]`` from outside."""

    def __call__(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True where the successor belongs to the set and the state before did not."""
        return super().__call__(transition.next_obs) & ~super().__call__(transition.obs)


class OneOf(Lookup):
    """The event of a transition from a set ``[S, A, S]``."""

    def __call__(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True where the transition belongs to the set."""
        return super().__call__((transition.obs, transition.action, transition.next_obs))


def indicator(event: Event) -> Quantity:
    """1.0 where the event happens, else 0.0."""
    return lambda t: event(t).astype(float)


# --- rewards --------------------------------------------------------------------------------------------------------


def quantity_reward(name: str, quantity: Quantity, *, weight: float) -> Reward:
    """Pays a quantity of the transition: r = weight * quantity(s, a, s').

    Args:
        name: name of the reward and its term.
        quantity: ``transition -> [B]``.
        weight: factor, kept in ``params``.

    Keeps the optimal policy: only if the quantity does.
    """

    def fn(params: Any, transition: Transition) -> Array:
        return params["weight"] * quantity(transition)

    return pointwise(name, fn, params={"weight": weight}, settings={"weight": weight})


def progress_reward(name: str, phi: Potential, *, weight: float) -> Reward:
    """Pays progress of a potential, undiscounted: r = weight * (phi(s') - phi(s)).

    Args:
        name: name of the reward and its term.
        phi: ``obs -> [B]``.
        weight: factor, kept in ``params``.

    Keeps the optimal policy: only if the discount is 1 (then it is potential-based shaping) or the weight is small.
    """
    return quantity_reward(name, lambda t: phi(t.next_obs) - phi(t.obs), weight=weight)


def goal_and_closeness(event: Event, phi: Potential, *, goal: float = 1.0, closeness: float = 0.1) -> Reward:
    """Dense reward: r = goal * 1[event] - closeness * (1 - phi(s')).

    Args:
        event: what the task is about.
        phi: closeness to the goal in [0, 1], 1 at the goal.
        goal: weight of the event, kept in ``params``.
        closeness: weight of the penalty, kept in ``params``.

    Keeps the optimal policy: only if the fastest way to the event is the best one.
    """

    def fn(params: Any, transition: Transition) -> tuple[Array, dict[str, Array]]:
        terms = {
            "goal": params["goal"] * event(transition),
            "closeness": -params["closeness"] * (1 - phi(transition.next_obs)),
        }
        return terms["goal"] + terms["closeness"], terms

    weights = {"goal": goal, "closeness": closeness}
    return pointwise("dense", fn, params=weights, settings=weights)


# --- tasks with a goal ----------------------------------------------------------------------------------------------


def goal_task(
    name: str,
    description: str,
    model: Tabular,
    goals: Bool[np.ndarray, " S"],
    *,
    horizon: int,
    misaligned: Reward,
    factors: Mapping[str, Factor],
) -> Task:
    """Task of entering a set of states, with the factors, potential and rewards that follow from exact distances.

    The potential is 1 - d(s) / max d with d the least number of steps to a goal, and 0 where no goal can be reached.

    Args:
        name: name of the task.
        description: one paragraph.
        model: the dynamics.
        goals: ``[S]`` the states to enter.
        horizon: steps after which an episode is truncated.
        misaligned: plausible reward that leads away from the goal when it is added to the true one.
        factors: what this task has beyond ``goal_reached``, ``distance``, ``progress`` and ``blocked``.
    """
    steps = shortest_steps(model, goals)
    if not np.isfinite(steps[model.initial > 0]).any():
        raise ValueError(f"the goal of {name!r} cannot be reached from any start state; change the map.")
    farthest = steps[np.isfinite(steps)].max()
    phi = Lookup(np.where(np.isfinite(steps), 1 - steps / farthest, 0.0))
    success = Entered(goals)
    env = TabularEnv(name, model, horizon=horizon, success=success)
    return Task(
        name=name,
        description=" ".join(description.split()),
        env=env,
        true_reward=environment_reward(),
        sparse_reward=quantity_reward("sparse", indicator(success), weight=1.0),
        dense_reward=goal_and_closeness(success, phi),
        factors=_goal_factors(success, np.minimum(steps, farthest + 1), model.terminal) | dict(factors),
        potential=phi,
        auxiliary={"aligned": progress_reward("aligned", phi, weight=0.5), "misaligned": misaligned},
    )


def _goal_factors(success: Event, steps: np.ndarray, terminal: np.ndarray) -> dict[str, Factor]:
    distance, ended = Lookup(steps), Lookup(terminal)
    return {
        "goal_reached": Factor(indicator(success), "1", +1, "1 on the step that reaches the goal, else 0"),
        "distance": Factor(
            lambda t: distance(t.next_obs), "steps", -1, "least number of steps to the goal after the step"
        ),
        "progress": Factor(
            lambda t: distance(t.obs) - distance(t.next_obs), "steps", +1, "by how much the step shortened the way"
        ),
        "blocked": Factor(
            lambda t: ((t.obs == t.next_obs) & ~ended(t.obs)).astype(float),
            "1",
            -1,
            "1 where the step changed nothing (a wall, a locked door), else 0",
        ),
    }
