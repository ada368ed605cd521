"""What a search may change: numeric settings of the agent and numbers among the parameters of the reward."""

import dataclasses
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from reward_design._names import suggestion
from reward_design.agents.scoring import reward_example
from reward_design.core import Params, Reward, State, Transition
from reward_design.envs.base import Task
from reward_design.experiments import designs

AGENT = "agent."
"""What names of the agent's settings begin with."""


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``, both included.

    Attributes:
        low: the smallest.
        high: the largest.
        log: draw evenly between the logarithms.
        whole: whole numbers only.

    Raises:
        ValueError: for an empty range, or a logarithm of what is not positive.

    Example:
        >>> Range(1.0, 0.0)
        Traceback (most recent call last):
        ValueError: expected a range low,high with low < high, got 1.0,0.0.
    """

    low: float | int
    high: float | int
    log: bool = False
    whole: bool = False

    def __post_init__(self) -> None:
        if not self.low < self.high:  # also NaN
            raise ValueError(f"expected a range low,high with low < high, got {self.low},{self.high}.")
        if self.log and self.low <= 0:
            raise ValueError(f"a range on a logarithmic scale must be positive, got {self.low},{self.high}.")
        if self.whole and (self.low != int(self.low) or self.high != int(self.high)):
            raise ValueError(f"expected whole numbers, got {self.low},{self.high}.")

    @classmethod
    def parsed(cls, given: Any) -> "Range":
        """A range as on the command line, ``"0,1"`` or ``"log:1e-4,1e-2"``; or a pair of numbers, or a range.

        Raises:
            ValueError: for anything else.

        Example:
            >>> Range.parsed("log:1e-4,1e-2")
            Range(low=0.0001, high=0.01, log=True, whole=False)
        """
        if isinstance(given, Range):
            return given
        text, log = given, False
        if isinstance(given, str):
            log = given.startswith("log:")
            text = given.removeprefix("log:").split(",")
        try:
            low, high = map(float, text)
        except (TypeError, ValueError):
            raise ValueError(f"expected a range, as in 0,1 or log:1e-4,1e-2, got {given!r}.") from None
        return cls(low, high, log)

    def rounded(self, value: float | int) -> float | int:
        """A number of the range with four digits, so that what is shown is what is used."""
        if self.whole:
            return round(value)
        return min(max(float(f"{value:.4g}"), self.low), self.high)


def space(given: Mapping[str, Any], agent: Any, reward: Reward, task: Task) -> dict[str, Range]:
    """The ranges of a search, with full names, checked against what there is.

    Args:
        given: ranges by name, in any form that :meth:`Range.parsed` takes. ``"agent.<setting>"`` is a numeric setting
            of the agent; other names are parameters of the reward, by the end of their path (``"weight"`` for
            ``"rewards.task.weight"``) as long as only one ends so.
        agent: that learns.
        reward: that it learns on.
        task: of both.

    Raises:
        ValueError: for an unknown name, with the nearest one, a name of several parameters, or an empty range.

    Example:
        >>> from reward_design.agents import agent
        >>> from reward_design.envs import task
        >>> from reward_design.experiments import resolve
        >>> chain = task("chain")
        >>> space({"shaping.gamma": (0, 1)}, agent("ppo"), resolve("shaping", chain), chain)
        Traceback (most recent call last):
        ValueError: nothing is called 'shaping.gamma'; did you mean 'potential_shaping.gamma'? A search can change: ...
        >>> space({"agent.num_epochs": (1, 8)}, agent("ppo"), resolve("sparse", chain), chain)
        {'agent.num_epochs': Range(low=1.0, high=8.0, log=False, whole=True)}
    """
    if not given:
        raise ValueError("expected at least one range to search, got none; give one, as in agent.learning_rate=0,1.")
    settings = {f"{AGENT}{name}": whole for name, whole in _numeric(agent.Config).items()}
    params = numbers(reward, task)
    found = {}
    for name, value in given.items():
        full = name if name in settings else _full(name, params, (*settings, *params))
        if full in found:
            raise ValueError(f"{name!r} is another name of {full!r}, which has a range; leave one of them out.")
        try:
            parsed = Range.parsed(value)
            found[full] = dataclasses.replace(parsed, whole=parsed.whole or settings.get(full, False))
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    return found


def numbers(reward: Reward, task: Task) -> tuple[str, ...]:
    """Paths of all parameters of a reward that are one floating-point number.

    Example:
        >>> from reward_design.envs import task
        >>> from reward_design.experiments import resolve
        >>> numbers(resolve("shaping", task("chain")), task("chain"))
        ('potential_shaping.gamma', 'sparse.weight')
    """
    params, _ = jax.eval_shape(reward.init, jax.random.key(0), reward_example(task.env))
    leaves = jax.tree_util.tree_flatten_with_path(params)[0]
    return tuple(_path(p) for p, x in leaves if x.shape == () and jnp.issubdtype(x.dtype, jnp.floating))


def with_numbers(reward: Reward, values: Mapping[str, float | int]) -> Reward:
    """The same reward, with other initial values of some parameters.

    Keeps the optimal policy: only if ``reward`` with these values does.

    Args:
        reward: any reward.
        values: by a path of :func:`numbers`.
    """

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        params, state = reward.init(key, example)

        def changed(path: Any, x: Any) -> Any:
            return jnp.asarray(values[_path(path)], x.dtype) if _path(path) in values else x

        return jax.tree_util.tree_map_with_path(changed, params), state

    rebuild = reward.with_children
    again = None if rebuild is None else lambda parts: with_numbers(rebuild(parts), values)
    return dataclasses.replace(reward, init=init, with_children=again)


@dataclass(frozen=True)
class Changed:
    """A design with other parameters: a function of the task, as designs are, that can be sent to workers.

    Attributes:
        design: any design.
        values: ``(path, number)``.
    """

    design: Any
    values: tuple[tuple[str, float | int], ...]

    def __call__(self, task: Task) -> Reward:
        """The reward on a task."""
        return with_numbers(designs.resolve(self.design, task), dict(self.values))


def assignments(pairs: Sequence[str]) -> dict[str, str]:
    """``name=range`` words of a command line as a mapping.

    Example:
        >>> assignments(["agent.learning_rate=log:1e-4,1e-2"])
        {'agent.learning_rate': 'log:1e-4,1e-2'}
    """
    split = [pair.partition("=") for pair in pairs]
    for pair, (name, sign, value) in zip(pairs, split, strict=True):
        if not (name and sign and value):
            raise ValueError(f"--space expects name=low,high, got {pair!r}, as in agent.learning_rate=log:1e-4,1e-2.")
    names = [name for name, _, _ in split]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"--space has two ranges for {twice[0]!r}; leave one of them out.")
    return {name: value for name, _, value in split}


# --- parts ----------------------------------------------------------------------------------------------------------


def _numeric(config: type) -> dict[str, bool]:
    """Settings that are numbers -> whether they are whole; without the length, as runs of one length compare."""
    kinds = {field.name: field.type for field in dataclasses.fields(config) if field.name != "total_timesteps"}
    options = {name: set(typing.get_args(kind) or (kind,)) - {type(None)} for name, kind in kinds.items()}
    return {name: found == {int} for name, found in options.items() if found and found <= {int, float}}


def _full(name: str, params: Sequence[str], known: Iterable[str]) -> str:
    ending = [path for path in params if path == name or path.endswith(f".{name}")]
    if len(ending) == 1 or name in ending:
        return name if name in ending else ending[0]
    if ending:
        raise ValueError(f"{name!r} may be {' or '.join(ending)}; give the whole name.")
    known = list(known)
    near = suggestion(name, known)
    if f"{AGENT}{name}" in known:
        near = f"; did you mean '{AGENT}{name}'?"
    raise ValueError(f"nothing is called {name!r}{near} A search can change: {', '.join(known)}.")


def _path(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
