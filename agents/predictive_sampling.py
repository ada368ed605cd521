"""Predictive sampling: model-predictive control with MuJoCo itself as the model, for any reward, without learning."""

import math
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import numpy as np
from scipy.interpolate import CubicHermiteSpline

from reward_design.agents import scoring
from reward_design.agents.policies import Planner
from reward_design.agents.settings import at_least, one_of
from reward_design.combinators import environment_reward, freeze_running
from reward_design.core import Kind, NonFiniteRewardError, Params, Reward, State, Transition
from reward_design.envs.base import Task

SPLINES = ("zero", "linear", "cubic")
"""Between knots: held, straight lines, or cubic Hermite pieces with finite differences as slopes."""


@dataclass(frozen=True)
class Config:
    """Settings of the planner.

    Attributes:
        horizon: steps that a plan looks ahead, T.
        num_samples: plans that are tried at every step, N, the one at hand among them.
        num_knots: knots of a plan, P, at equal distances from its first to its last step.
        noise: standard deviation of the noise on a knot, as a share of half the range of the action, σ.
        spline: how knots become actions, a name in :data:`SPLINES`.
    """

    horizon: int = 20
    num_samples: int = 10
    num_knots: int = 3
    noise: float = 0.1
    spline: str = "cubic"

    def __post_init__(self) -> None:
        at_least(self, 1, "horizon", "num_samples", "num_knots")
        one_of(self, "spline", SPLINES)
        if self.num_knots > self.horizon:
            raise ValueError(f"num_knots must be at most the horizon, {self.horizon}, got {self.num_knots}.")
        if self.spline == "cubic" and self.num_knots < 2:
            raise ValueError(f"a cubic spline needs num_knots of at least 2, got {self.num_knots}.")
        if not 0.0 < self.noise < math.inf:
            raise ValueError(f"noise must be finite and above 0, got {self.noise}.")


class PredictiveSampling(Planner):
    r"""A policy that simulates several plans at every step and begins the one that its reward pays best.

    θ₀ = θ shifted by one step,  θᵢ = clip(θ₀ + σ ½(high − low) εᵢ),  εᵢ ~ N(0, I),  i = 1 … N − 1
    θ ← argmax over θᵢ of Σₜ r(sₜ, aₜ(θᵢ), sₜ₊₁),  t = 0 … T − 1,  and the action is a₀(θ)

    Of equal plans the first is taken, so that the plan at hand changes only for a better one. Nothing is paid after the
    end of an episode. Simulations start from the exact state of the environment that was attached, which is only read;
    :func:`reward_design.experiments.evaluate` and :func:`reward_design.experiments.play` attach the environments that
    they make. Terms of the reward that remember the episode go on from what really happened; running statistics are
    held as they are.

    Args:
        task: a MuJoCo task.
        reward: what plans are judged by; by default the environment's own reward.
        config: settings.
        params: of the reward; by default its own.
        seed: of the noise.

    Raises:
        TypeError: for a task that MuJoCo does not simulate, or a reward of kind ``TRAJECTORY``.
        NonFiniteRewardError: from a call, if the reward of a plan is NaN or infinite.
        ImportError: if MuJoCo is not installed.

    Example:
        >>> from reward_design.agents.predictive_sampling import Config, PredictiveSampling
        >>> from reward_design.envs import task
        >>> pole = task("mujoco/InvertedPendulum")
        >>> planner = PredictiveSampling(pole, config=Config(horizon=8, num_samples=4))
        >>> envs = pole.vector(2, seed=0)
        >>> obs, _ = envs.reset()
        >>> planner.attach(envs)
        >>> planner(obs).shape
        (2, 1)

    The plan is open loop: where small errors grow fast, a horizon of a few time constants and little noise are needed
    (a pole that falls in 0.2 s: 20 steps of 0.04 s, ``noise=0.01``). What lies beyond the horizon is not seen.

    Source: Howell et al., "Predictive Sampling: Real-time Behaviour Synthesis with MuJoCo", 2022, arXiv 2212.00541.
    There noise is in units of the control and each plan is simulated by a thread of its own.
    """

    name: ClassVar[str] = "predictive_sampling"

    def __init__(
        self,
        task: Task,
        reward: Reward | None = None,
        config: Config | None = None,
        *,
        params: Params = None,
        seed: int = 0,
    ) -> None:
        from reward_design.envs.mujoco_rollouts import MujocoRollouts
        from reward_design.envs.mujoco_tasks import MujocoTask

        if not isinstance(task.env, MujocoTask):
            raise TypeError(
                f"predictive sampling simulates with MuJoCo, got the task {task.name!r}; use a task mujoco/<name>, or "
                "an agent that learns."
            )
        reward = environment_reward() if reward is None else reward
        if reward.kind is Kind.TRAJECTORY:
            raise TypeError(
                f"{reward.name!r} needs whole episodes (kind TRAJECTORY); a plan looks only some steps ahead. Wrap it "
                "in delayed(...)."
            )
        self.task, self.reward, self.config = task, freeze_running(reward), config or Config()
        self._rollouts = MujocoRollouts(task.env, self.config.num_samples)
        self._example = scoring.reward_example(task.env, self.config.num_samples)
        own, self._fresh = reward.init(jax.random.key(0), self._example)
        self._params = own if params is None else params
        self._remembers = bool(jax.tree.leaves(self._fresh.episode))
        self._actions, self._shift = spline_weights(self.config)
        space: Any = task.env.action_space
        self._low, self._high = np.asarray(space.low, np.float64), np.asarray(space.high, np.float64)
        self._shape = space.shape
        self._dtype = space.dtype
        self._envs: Any = None
        self._lanes = 0
        self.reset(seed)

    def attach(self, envs: Any) -> None:
        """Plan for the lanes of ``envs`` from now on: a vector environment of the task, or a single one."""
        self._lanes = len(self._rollouts.moment(envs).steps)
        self._envs = envs
        self.reset()

    def reset(self, seed: int | None = None) -> None:
        """Forget all plans; ``seed`` also starts the noise anew."""
        self._knots = np.zeros((self._lanes, self.config.num_knots, *self._shape))
        self._states = [self._fresh] * self._lanes
        if seed is not None:
            self._rng = np.random.default_rng(seed)

    def __call__(self, obs: Any) -> np.ndarray:
        """The next action of every lane.

        Args:
            obs: what the attached environment shows now, ``[B, n]``, or ``[n]`` of a single one.

        Returns:
            ``[B, ...]``, or an action without that axis.

        Raises:
            ValueError: if no environment is attached, or it shows something else.
        """
        if self._envs is None:
            raise ValueError("predictive sampling plans from a simulator's state; call attach(envs) first.")
        moment = self._rollouts.moment(self._envs)
        self._check(obs, self._rollouts.observe(moment))
        fresh = moment.fresh.tolist()
        actions = np.stack([self._plan(moment, lane, fresh[lane]) for lane in range(len(fresh))])
        return actions[0] if np.ndim(obs) == 1 else actions

    def _plan(self, moment: Any, lane: int, fresh: bool) -> np.ndarray:
        """Replan one lane; its first action."""
        if fresh:
            self._knots[lane], self._states[lane] = 0.0, self._fresh
        knots = self._proposed(self._knots[lane])
        self._rollouts.place(moment, lane)
        rows = self._rollouts.rollout(self._spelled(knots))
        rows = jax.tree.map(lambda x, like: x.astype(like.dtype), rows, self._example)
        returns = np.asarray(_returns(self.reward, self._params, self._states[lane], rows))
        if not np.isfinite(returns).all():
            raise NonFiniteRewardError(
                f"the reward {self.reward.name!r} of a plan was NaN or infinite. Bound divisions, logarithms and "
                "exponentials."
            )
        winner = int(np.argmax(returns))
        if self._remembers:
            self._states[lane] = _after(self.reward, self._params, self._states[lane], rows, winner)
        self._knots[lane] = np.tensordot(self._shift, knots[:, winner], axes=1)
        return np.array(rows.action[0, winner])

    def _proposed(self, nominal: np.ndarray) -> np.ndarray:
        """Knots ``[P, N, ...]``: those at hand, and noisy ones."""
        shape = (self.config.num_samples - 1, *nominal.shape)
        noise = self.config.noise * 0.5 * (self._high - self._low) * self._rng.standard_normal(shape)
        return np.stack([nominal, *np.clip(nominal + noise, self._low, self._high)], axis=1)

    def _spelled(self, knots: np.ndarray) -> np.ndarray:
        """Actions ``[T, N, ...]`` of knots ``[P, N, ...]``."""
        return np.clip(np.tensordot(self._actions, knots, axes=1), self._low, self._high).astype(self._dtype)

    def _check(self, obs: Any, standing: np.ndarray) -> None:
        shown = np.asarray(obs)
        shown = shown[None] if shown.ndim == 1 else shown
        if shown.shape != standing.shape or not np.array_equal(shown.astype(np.float32), standing.astype(np.float32)):
            raise ValueError(
                f"expected the observation of the environment of {self.task.name!r} that is attached, got another one; "
                "call attach(envs) with the one that is played."
            )


def spline_weights(config: Config) -> tuple[np.ndarray, np.ndarray]:
    """``(actions [T, P], shift [P, P])``: what knots are multiplied with to give actions, and the knots a step later.

    After its end a plan is held.

    Example:
        >>> actions, shift = spline_weights(Config(horizon=3, num_knots=2))
        >>> actions.tolist(), shift.tolist()
        ([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]], [[0.5, 0.5], [0.0, 1.0]])
    """
    last = config.horizon - 1
    knots = np.linspace(0.0, last, config.num_knots)
    steps, later = np.arange(config.horizon, dtype=float), np.minimum(knots + 1.0, last)
    return _at(config.spline, knots, steps), _at(config.spline, knots, later)


def _at(spline: str, knots: np.ndarray, times: np.ndarray) -> np.ndarray:
    unit = np.eye(len(knots))
    if spline == "zero" or len(knots) == 1:
        return unit[np.searchsorted(knots, times + 1e-9, side="right") - 1]
    if spline == "linear":
        return np.stack([np.interp(times, knots, column) for column in unit.T], axis=1)
    return CubicHermiteSpline(knots, unit, np.gradient(unit, knots, axis=0))(times)


@partial(jax.jit, static_argnums=0)
def _returns(reward: Reward, params: Params, state: State, rows: Transition) -> Any:
    """Sum of the reward over each of the plans ``[T, N]``."""
    return reward.unroll(params, state, rows)[0].reward.sum(0)


@partial(jax.jit, static_argnums=0)
def _after(reward: Reward, params: Params, state: State, rows: Transition, winner: Any) -> State:
    """The state of a reward, in every lane that after the first step of plan ``winner``, which is what happens."""
    first = jax.tree.map(lambda x: jax.numpy.broadcast_to(x[0, winner], x.shape[1:]), rows)
    return reward.step(params, state, first)[1]
