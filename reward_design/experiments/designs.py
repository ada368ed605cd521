"""Named reward designs, built for a task from what the task knows, and a user's own by ``module:attribute``."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_design._names import suggestion
from reward_design.bilevel.alignment import alignment_reward, is_alignment
from reward_design.combinators import chain, environment_reward, weighted_sum
from reward_design.core import Reward
from reward_design.envs.base import Task
from reward_design.experiments.credit_designs import credit_design
from reward_design.experiments.own_designs import built, imported
from reward_design.experiments.ranked_design import ranked_design
from reward_design.exploration import count_bonus
from reward_design.llm.files import SUFFIX, load_reward
from reward_design.shaping import potential_shaping


@dataclass(frozen=True)
class Design:
    """A way to build a reward for any task.

    Attributes:
        description: one line.
        build: ``task -> Reward``; ``(task, argument) -> Reward`` if it takes one.
        argument: what may follow its name behind a slash: ``"auxiliary"``, the name of one of the task's auxiliary
            rewards (``barfi/misaligned``), or ``"ranking"``, factors with margins (``heron/tilt=0.5,speed=0.2``).
        agent: the agent that learns the reward as it goes; None: any agent trains on it.
    """

    description: str
    build: Callable[..., Reward]
    argument: str | None = None
    agent: str | None = None


def _shaping(task: Task) -> Reward:
    return chain(task.sparse_reward, potential_shaping(task.potential, gamma=task.gamma))


def _counting(task: Task) -> Reward:
    """Visits of the whole run, or of the episode where the task says what to count: its levels are new every time."""
    if task.count_index is None:
        return chain(task.sparse_reward, count_bonus(scale=0.1))
    bonus = count_bonus(scale=0.01, index=task.count_index, num_bins=8192, episodic=True)
    return chain(task.sparse_reward, bonus)


def _auxiliary(task: Task, name: str) -> Reward:
    if name not in task.auxiliary:
        raise ValueError(
            f"task {task.name!r} has no auxiliary reward {name!r}{suggestion(name, task.auxiliary)} "
            f"It has: {_listed(task.auxiliary) or 'none'}."
        )
    return task.auxiliary[name]


def _with_auxiliary(name: str) -> Callable[[Task], Reward]:
    return lambda task: weighted_sum(task=task.sparse_reward, auxiliary=_auxiliary(task, name))


def _naive(task: Task, auxiliary: str) -> Reward:
    return weighted_sum(task=environment_reward(), auxiliary=_auxiliary(task, auxiliary))


def _barfi(task: Task, auxiliary: str) -> Reward:
    return alignment_reward(environment_reward(), _auxiliary(task, auxiliary), discount=min(task.gamma, 0.99))


DESIGNS: dict[str, Design] = {
    "sparse": Design("paid only on the event that defines the task", lambda task: task.sparse_reward),
    "dense": Design("the task's hand-made informative reward", lambda task: task.dense_reward),
    "shaping": Design(
        "sparse plus potential-based shaping, gamma phi(s') - phi(s); keeps the optimal policy", _shaping
    ),
    "aligned": Design("sparse plus an auxiliary reward that helps", _with_auxiliary("aligned")),
    "misaligned": Design(
        "sparse plus an auxiliary reward that looks helpful and is not", _with_auxiliary("misaligned")
    ),
    "count_bonus": Design("sparse plus a bonus for states seldom visited", _counting),
    "spa": Design(
        "sparse, handed out by a learned estimate of what each step contributed (ppo, dqn, sac)", credit_design("spa")
    ),
    "uniform": Design("sparse, in equal parts to all steps of the episode (ppo)", credit_design("uniform")),
    "ircr": Design(
        "the episode's return between the least and the largest so far, at every step (ppo)", credit_design("ircr")
    ),
    "return_decomposition": Design(
        "sparse, as steps whose mean is fitted to that of the episode (ppo, dqn, sac)",
        credit_design("return_decomposition"),
    ),
    "rrd": Design("return decomposition from random steps of each episode (ppo, dqn, sac)", credit_design("rrd")),
    "rudder": Design("sparse, as changes of an LSTM's prediction of the return (ppo)", credit_design("rudder")),
    "heron": Design(
        "learned from a ranking of the task's factors (heron/tilt=0.5,speed=0.2 for some, with margins; or --factors)",
        ranked_design,
        "ranking",
    ),
    "environment": Design("the environment's own reward, unchanged", lambda task: environment_reward()),
    "naive": Design(
        "the environment's reward plus an auxiliary one (naive/NAME, or --auxiliary NAME)", _naive, "auxiliary"
    ),
    "barfi": Design(
        "learns how to blend the environment's reward with an auxiliary one (barfi/NAME, or --auxiliary NAME), "
        "with an agent of its own",
        _barfi,
        "auxiliary",
        "barfi",
    ),
}
"""The designs that every task knows how to build."""
DEFAULT_AUXILIARY = "aligned"
"""The auxiliary reward of designs that take one and were given none."""


def resolve(design: Any, task: Task) -> Reward:
    """The reward that a design gives on a task.

    Args:
        design: a name in :data:`DESIGNS`, for some of them with an argument behind a slash (``"barfi/misaligned"``,
            ``"heron/tilt=0.5,speed=0.2"``); ``"module:attribute"`` (modules of the current directory included); a
            file ``"path.reward"`` (:func:`reward_design.llm.save_reward`); a :class:`Reward`; or a
            function ``task -> Reward`` or ``() -> Reward``.
        task: the task.

    Returns:
        A :class:`Reward`.

    Raises:
        ValueError: for an unknown name, with the nearest one, or a module or attribute that is not there.
        TypeError: if what was found is not a reward.

    Example:
        >>> from reward_design.envs import task
        >>> resolve("sparse", task("chain")) is task("chain").sparse_reward
        True
    """
    if is_file(design):
        return load_reward(design, task)
    if isinstance(design, str):
        if ":" not in design:
            found, argument = known(design), design.partition("/")[2]
            if found.argument is None:
                return found.build(task)
            return found.build(task, argument or (DEFAULT_AUXILIARY if found.argument == "auxiliary" else ""))
        return built(imported(design), task, design)
    return built(design, task, getattr(design, "__name__", type(design).__name__))


def is_file(design: Any) -> bool:
    """Whether a design is the path of a reward that :func:`reward_design.llm.save_reward` wrote.

    Example:
        >>> is_file("results/upright.reward"), is_file("sparse")
        (True, False)
    """
    return isinstance(design, str | os.PathLike) and os.fspath(design).endswith(SUFFIX)


def is_fixed(reward: Reward) -> bool:
    """Whether training leaves a reward as it is; one that is learned says nothing before."""
    return reward.learner is None and not is_alignment(reward)


def resolve_fixed(design: Any, task: Task) -> Reward:
    """:func:`resolve` for what is measured without training.

    Raises:
        ValueError: also for a reward that is learned while an agent trains.

    Example:
        >>> from reward_design.envs import task
        >>> resolve_fixed("spa", task("chain"))
        Traceback (most recent call last):
        ValueError: reward 'spa' is learned while an agent trains, so before that there is nothing to measure; ...
    """
    reward = resolve(design, task)
    if not is_fixed(reward):
        raise ValueError(
            f"reward {_label(design)!r} is learned while an agent trains, so before that there is nothing to measure; "
            "leave it out."
        )
    return reward


def known(name: str) -> Design:
    """The design of this name, without what follows a slash.

    Raises:
        ValueError: with the nearest name, if there is none, or for a slash behind one that takes no argument.

    Example:
        >>> known("shapping")
        Traceback (most recent call last):
        ValueError: unknown reward 'shapping'; did you mean 'shaping'? ...
    """
    first, slash, _ = name.partition("/")
    if first not in DESIGNS:
        raise ValueError(
            f"unknown reward {name!r}{_nearest(name)} Known: {_listed(DESIGNS)}, "
            "or your own as module:attribute or a file that ends in .reward."
        )
    if slash and DESIGNS[first].argument is None:
        raise ValueError(f"reward {first!r} takes nothing behind a slash, got {name!r}; those that do: {_takers()}.")
    return DESIGNS[first]


def with_auxiliary(rewards: Any, auxiliary: str | None) -> Any:
    """Designs with ``auxiliary`` for those that take one and do not name theirs.

    Raises:
        ValueError: if none of them takes one.

    Example:
        >>> with_auxiliary(["sparse", "barfi"], "misaligned")
        ['sparse', 'barfi/misaligned']
    """
    if auxiliary is None:
        return rewards
    if isinstance(rewards, Mapping):
        return dict(zip(rewards, with_auxiliary(list(rewards.values()), auxiliary), strict=True))
    many = list(rewards) if isinstance(rewards, Sequence) and not isinstance(rewards, str) else [rewards]
    takers = [_is_named(d) and known(d).argument == "auxiliary" for d in many]
    if not any(takers):
        raise ValueError(
            f"none of the rewards takes an auxiliary, got auxiliary={auxiliary!r}; use {_takers('auxiliary')}."
        )
    return [f"{d}/{auxiliary}" if takes and "/" not in d else d for d, takes in zip(many, takers, strict=True)]


def agent_of(design: Any, default: str) -> str:
    """Name of the agent that trains on a design: its own, or ``default``.

    Example:
        >>> agent_of("barfi/misaligned", "ppo"), agent_of("sparse", "ppo")
        ('barfi', 'ppo')
    """
    return (known(design).agent or default) if _is_named(design) else default


def labelled(rewards: str | Reward | Sequence[Any] | Mapping[str, Any]) -> dict[str, Any]:
    """Designs by label: names label themselves, rewards and functions go by their own name.

    Raises:
        ValueError: if two have the same label, or there is none.

    Example:
        >>> list(labelled(["sparse", "shaping"]))
        ['sparse', 'shaping']
    """
    if isinstance(rewards, Mapping):
        named = [(str(label), design) for label, design in rewards.items()]
    else:
        many = rewards if isinstance(rewards, Sequence) and not isinstance(rewards, str) else [rewards]
        named = [(_label(design), design) for design in many]
    if not named:
        raise ValueError(f"expected at least one reward, got none; choose among {_listed(DESIGNS)}.")
    labels = [label for label, _ in named]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(
            f"the reward {twice[0]!r} was given twice; give a dictionary {{label: reward}} to tell them apart."
        )
    return dict(named)


# --- parts ----------------------------------------------------------------------------------------------------------


def _nearest(name: str) -> str:
    """The end of the sentence about an unknown name: a file, where it looks like one, or a design."""
    files = [str(file) for file in Path(name).parent.glob(f"*{SUFFIX}")]
    like_a_file = f"{name}{SUFFIX}" in files or "/" in name or "." in name
    near = suggestion(name, files) if like_a_file else "."
    return near if near != "." else suggestion(name.partition("/")[0], DESIGNS)


def _is_named(design: Any) -> bool:
    return isinstance(design, str) and ":" not in design and not is_file(design)


def _label(design: Any) -> str:
    if is_file(design):
        return Path(design).stem
    if isinstance(design, str):
        return design
    return str(getattr(design, "name", None) or getattr(design, "__name__", type(design).__name__))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _takers(*kinds: str) -> str:
    found = {name: design.argument for name, design in DESIGNS.items() if design.argument is not None}
    return _listed(f"{name}/{kind.upper()}" for name, kind in found.items() if not kinds or kind in kinds)
