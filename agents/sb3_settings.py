"""Settings of an agent of stable-baselines3 or sbx: what its constructor takes, under its own names."""

import dataclasses
import functools
import inspect
import operator
import types
import typing
from typing import Any

NUM_POINTS = 200
"""Rows of metrics of a run (about)."""
_NOT_SETTINGS = ("policy", "env", "gamma", "seed", "verbose")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every agent of the libraries has, beside the arguments of its own constructor.

    Attributes:
        total_timesteps: environment steps over all lanes (rounded down to whole rows of metrics).
        num_envs: parallel lanes.
        gamma: discount per environment step, in [0, 1]; must equal the reward's.
        policy: name of the policy class; ``"auto"`` chooses by the observations.
        normalise_obs: scale observations by running moments (``VecNormalize``).
        normalise_reward: learn from the reward over the running spread of its return; metrics stay those of the reward.
    """

    total_timesteps: int = 100_000
    num_envs: int = 1
    gamma: float = 0.99
    policy: str = "auto"
    normalise_obs: bool = False
    normalise_reward: bool = False

    def __post_init__(self) -> None:
        if self.num_envs < 1 or self.total_timesteps < self.num_envs:
            raise ValueError(
                f"num_envs must be at least 1 and total_timesteps at least num_envs, got num_envs={self.num_envs} and "
                f"total_timesteps={self.total_timesteps}."
            )
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], got {self.gamma}.")

    @property
    def steps_per_update(self) -> int:
        """Environment steps per row of metrics."""
        return self.num_envs * max(1, self.total_timesteps // (self.num_envs * NUM_POINTS))

    @property
    def num_updates(self) -> int:
        """Rows of metrics."""
        return self.total_timesteps // self.steps_per_update

    @property
    def own(self) -> dict[str, Any]:
        """The arguments of the constructor."""
        shared = {field.name for field in dataclasses.fields(Settings)}
        return {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in shared}


def config(algorithm: Any) -> type:
    """Settings with the arguments of a constructor that a command line or a record can hold."""
    fields = []
    for name, parameter in inspect.signature(algorithm).parameters.items():
        kind = _kind(parameter.annotation)
        if kind is not None and name not in _NOT_SETTINGS and not name.startswith("_"):
            fields.append((name, kind, dataclasses.field(default=parameter.default)))
    return dataclasses.make_dataclass(
        f"{algorithm.__name__}Config", fields, bases=(Settings,), frozen=True, kw_only=True,
        namespace={"__doc__": f"Settings of {algorithm.__name__}: its constructor's, and :class:`Settings`."},
    )  # fmt: skip


def _kind(annotation: Any) -> Any:
    """The plain types of an annotation, or None: numbers before text, so that ``0.1`` is a number."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    options = typing.get_args(annotation) if union else (annotation,)
    plain = [kind for kind in (bool, int, float, dict, str) if kind in [typing.get_origin(o) or o for o in options]]
    if not plain:
        return None
    return functools.reduce(operator.or_, [*plain, *([None] if type(None) in options else [])])
