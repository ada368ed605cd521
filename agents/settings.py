"""What the settings of all agents have in common: the length of a run, and checks that say what was expected."""

from collections.abc import Sequence
from typing import Any, ClassVar

from reward_design._names import suggestion


class Run:
    """The length of a run; inherited by every ``Config``, which has the fields.

    Attributes:
        steps_field: field with the steps per lane and update.
    """

    steps_field: ClassVar[str] = "num_steps"
    total_timesteps: int
    num_envs: int

    @property
    def steps_per_update(self) -> int:
        """Environment steps per update, over all lanes."""
        return self.num_envs * getattr(self, self.steps_field)

    @property
    def num_updates(self) -> int:
        """Updates in the run."""
        return self.total_timesteps // self.steps_per_update

    def check_length(self) -> None:
        """Refuse a run of less than one update.

        Raises:
            ValueError: naming the field.
        """
        at_least(self, 1, "num_envs", self.steps_field)
        if self.num_updates < 1:
            raise ValueError(
                f"total_timesteps must be at least num_envs * {self.steps_field} = {self.steps_per_update}, "
                f"got {self.total_timesteps}."
            )


def at_least(config: Any, smallest: int, *names: str) -> None:
    """Refuse settings below ``smallest``; None passes.

    Raises:
        ValueError: naming the first of them.
        TypeError: for one that is no number.

    Example:
        >>> from types import SimpleNamespace
        >>> at_least(SimpleNamespace(n_step=0), 1, "n_step")
        Traceback (most recent call last):
        ValueError: n_step must be at least 1, got 0.
    """
    for name in names:
        value = getattr(config, name)
        try:
            fits = value is None or value >= smallest  # NaN is no setting either
        except TypeError:
            raise TypeError(f"{name} must be a number of at least {smallest}, got {value!r}.") from None
        if not fits:
            raise ValueError(f"{name} must be at least {smallest}, got {value}.")


def one_of(config: Any, name: str, choices: Sequence[str]) -> None:
    """Refuse a setting that is none of ``choices``.

    Raises:
        ValueError: with the nearest choice.

    Example:
        >>> from types import SimpleNamespace
        >>> one_of(SimpleNamespace(torso="convv"), "torso", ("mlp", "conv"))
        Traceback (most recent call last):
        ValueError: torso must be 'mlp' or 'conv', got 'convv'; did you mean 'conv'?
    """
    value = getattr(config, name)
    if value not in choices:
        *first, last = map(repr, choices)
        hint = suggestion(value, list(choices)) if isinstance(value, str) else "."
        raise ValueError(f"{name} must be {', '.join(first)} or {last}, got {value!r}{hint}")
