"""Designs that hand a task's sparse reward out over the steps of the episode: one set of settings for all of them."""

from collections.abc import Callable
from typing import Any

from reward_design.combinators import chain
from reward_design.core import Reward
from reward_design.envs.base import Task
from reward_design.redistribution import Fit, ircr, return_decomposition, rrd, rudder, spa, task_features
from reward_design.redistribution.features import are_continuous


def credit_design(method: str) -> Callable[[Task], Reward]:
    """How to build a method of redistribution for a task.

    Args:
        method: ``"spa"`` (moves that change nothing cost a little where that is exact), ``"uniform"``, ``"ircr"``,
            ``"return_decomposition"``, ``"rrd"`` or ``"rudder"``; with the correction of the method's publication.

    Returns:
        ``task -> Reward``, the task's sparse reward redistributed.

    Example:
        >>> from reward_design.envs import task
        >>> credit_design("rrd")(task("chain")).kind.name
        'CAUSAL'
    """

    def build(task: Task) -> Reward:
        return chain(task.sparse_reward, METHODS[method](task))

    return build


def _spa(task: Task) -> Reward:
    grounding = {} if are_continuous(task) else {"valid": "change", "beta": 0.01}
    return spa(hidden=_hidden(task), **_learned(task), **grounding)


METHODS: dict[str, Callable[[Task], Reward]] = {
    "spa": _spa,
    "uniform": lambda task: ircr(normalise=False),
    "ircr": lambda task: ircr(),
    "return_decomposition": lambda task: return_decomposition(hidden=_hidden(task), **_learned(task)),
    "rrd": lambda task: rrd(num_steps=32, hidden=_hidden(task), **_learned(task)),
    "rudder": lambda task: rudder(width=32, **_learned(task)),
}


def _hidden(task: Task) -> tuple[int, ...]:
    """A table where observations are one-hot."""
    return (64, 64) if are_continuous(task) else ()


def _learned(task: Task) -> dict[str, Any]:
    fit = Fit(batch_size=16) if are_continuous(task) else Fit(num_updates=16, normalise=False, learning_rate=3e-3)
    return {"max_length": task.horizon, "features": task_features(task), "fit": fit}
