"""Settings of an agent of stable-baselines3 or sbx: what its constructor takes, under its own names."""

import dataclasses
import functools
import inspect
import operator
import types
import typing
from typing import Any

from reward_design.agents.settings import at_least

NUM_POINTS = 200
"""Rows of metrics of a run (about)."""
_COUNTS = ("n_steps", "train_freq", "n_epochs", "batch_size", "buffer_size")
"""Settings of which an agent that learns needs at least one."""
_NOT_SETTINGS = ("policy", "env", "gamma", "seed", "verbose")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every agent of the libraries has, beside the arguments of its own constructor.

    Attributes:
        total_timesteps: environment steps over all lanes (rounded down to whole rollouts, so that every step is learned
            from, and to whole rows of metrics).
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
        at_least(self, 1, "num_envs", *[name for name in _COUNTS if hasattr(self, name)])
        if not 0.0 <= self.gamma <= 1.0:
            raise ValueError(f"gamma must be in [0, 1], got {self.gamma}.")
        if getattr(self, "gradient_steps", 1) == 0:
            raise ValueError("gradient_steps must be at least 1, or -1 for one per environment step, got 0.")
        if self.total_timesteps < self.steps_per_rollout:
            raise ValueError(
                f"total_timesteps must be at least num_envs * {self._rollout_field} = {self.steps_per_rollout}, "
                f"got {self.total_timesteps}."
            )
        steps, random_steps = self.num_updates * self.steps_per_update, getattr(self, "learning_starts", 0)
        if steps <= random_steps:
            raise ValueError(
                f"learning_starts must be below the {steps} steps of the run (total_timesteps = "
                f"{self.total_timesteps}, rounded down to whole rollouts), got {random_steps}; nothing would be "
                "learned."
            )

    @property
    def steps_per_rollout(self) -> int:
        """Environment steps that the agent collects before it learns from them."""
        return self.num_envs * getattr(self, self._rollout_field, 1)

    @property
    def steps_per_update(self) -> int:
        """Environment steps per row of metrics: a few rollouts, or a part of one where the run has few."""
        rollouts = self.total_timesteps // self.steps_per_rollout
        if rollouts >= NUM_POINTS:
            return self.steps_per_rollout * (rollouts // NUM_POINTS)
        length = self.steps_per_rollout // self.num_envs
        parts = next(n for n in range(min(length, NUM_POINTS // rollouts), 0, -1) if length % n == 0)
        return self.steps_per_rollout // parts

    @property
    def num_updates(self) -> int:
        """Rows of metrics."""
        rollouts = self.total_timesteps // self.steps_per_rollout
        return rollouts * self.steps_per_rollout // self.steps_per_update

    @property
    def _rollout_field(self) -> str:
        """The setting with the steps per lane between updates; ``n_steps`` is another thing with a replay buffer."""
        return "train_freq" if hasattr(self, "learning_starts") else "n_steps"

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


def refusal(name: str, config: Any, error: Exception) -> str:
    """What to say of a constructor that does not take its settings: those that are not its defaults, and its reason."""
    changed = [
        f"{field.name}={getattr(config, field.name)!r}"
        for field in dataclasses.fields(config)
        if field.name in config.own and getattr(config, field.name) != field.default
    ]
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return f"agent {name!r} cannot be made with {', '.join(changed) or 'its defaults'}: {reason}."
