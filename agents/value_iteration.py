"""Value iteration on the exact model of a tabular task: what a perfect learner would make of a reward.

An agent like the others (``Config``, ``train``), and the array functions of
:mod:`reward_design.agents.dynamic_programming` under the same roof. Nothing is sampled: all metrics are expectations.

Source: Bellman, "Dynamic Programming", 1957; Puterman, "Markov Decision Processes", 1994.
"""

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from reward_design.agents import base, scoring
from reward_design.agents.dynamic_programming import (
    Solution,
    action_values,
    backup,
    expected_return,
    greedy_policy,
    policy_evaluation,
    policy_iteration,
    value_iteration,
)
from reward_design.constructors import pointwise
from reward_design.core import NonFiniteRewardError, Output, Reward, State
from reward_design.envs import exact
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.tables import reward_output, reward_table

__all__ = [
    "AGENT", "Config", "Solution", "TrainState", "act", "action_values", "expected_return", "greedy_policy", "init",
    "policy_evaluation", "policy_iteration", "train", "update", "value_iteration",
]  # fmt: skip


@base.config
class Config:
    """Settings of value iteration.

    Attributes:
        total_timesteps: sweeps over all states.
        sweeps_per_update: sweeps between two evaluations of the greedy policy.
        gamma: discount per environment step, in [0, 1); must equal the reward's.
    """

    total_timesteps: int = 1000
    sweeps_per_update: int = 10
    gamma: float = 0.99

    def __post_init__(self) -> None:
        if not 1 <= self.sweeps_per_update <= self.total_timesteps:
            raise ValueError(
                f"sweeps_per_update must be in [1, total_timesteps = {self.total_timesteps}], "
                f"got {self.sweeps_per_update}."
            )

    @property
    def steps_per_update(self) -> int:
        """Sweeps per update."""
        return self.sweeps_per_update

    @property
    def num_updates(self) -> int:
        """Evaluations of the greedy policy in the run."""
        return self.total_timesteps // self.sweeps_per_update


class TrainState(NamedTuple):
    """Everything that a run needs to go on from where it is.

    Attributes:
        params: ``{"q": [S, A]}`` action values.
        expected: ``[S, A]`` expectation over the successor of the reward and of each of its terms.
        reward_params: parameters of the reward.
        reward_state: state of the reward (unused: only rewards of kind POINTWISE have a table).
        num_updates: updates done.
        fault: the first transition with a non-finite reward; ``step`` is s * A + a and ``lane`` is s'.
    """

    params: Any
    expected: Output
    reward_params: Any
    reward_state: State
    num_updates: Any
    fault: scoring.Fault


def init(config: Config, env: FunctionalEnv, reward: Reward, key: Any, reward_params: Any = None) -> TrainState:
    """State at the start of a run; see :class:`reward_design.agents.base.Agent`."""
    model = env.tabular()
    output = reward_output(reward, model, params=reward_params, key=key)
    fault, on_host = scoring.no_fault(), isinstance(output.reward, np.ndarray)
    if on_host:
        _require_finite(output, env, reward)
    else:
        fault = scoring.find_fault(fault, jax.tree.map(lambda x: x.reshape(-1, x.shape[-1]), output), jnp.int32(0))
    expected = jax.tree.map(lambda table: (table * _like(model.transition, table)).sum(-1), output)
    own, state = jax.jit(reward.init)(key, scoring.reward_example(env))
    return TrainState(
        params={"q": np.zeros_like(expected.reward) if on_host else jnp.zeros_like(expected.reward)},
        expected=expected,
        reward_params=own if reward_params is None else reward_params,
        reward_state=state,
        num_updates=jnp.int32(0),
        fault=fault,
    )


def update(
    config: Config, env: FunctionalEnv, reward: Reward, state: TrainState
) -> tuple[TrainState, Mapping[str, Any]]:
    """``sweeps_per_update`` Bellman backups, then the exact evaluation of the greedy policy."""
    model = _model(env)
    xp, paid, start, discount, rows = exact.floats(state.expected.reward, state.params["q"], config.gamma, model.rows)

    def sweep(carry: Any) -> Any:
        count, q, _ = carry
        new = backup(xp, rows, paid, q.max(-1), discount)
        return count + 1, new, xp.abs(new - q).max()

    carry = (0, start, xp.abs(start).max())
    _, q, residual = exact.while_loop(xp, lambda c: c[0] < config.sweeps_per_update, sweep, carry)
    metrics = _metrics(xp, env, state.expected, greedy_policy(q), discount)
    count = state.num_updates + 1
    metrics |= {"residual": residual, "env_steps": count * config.steps_per_update}
    metrics = {name: xp.asarray(value, paid.dtype) for name, value in metrics.items()}
    new = state._replace(params={"q": q}, num_updates=count)
    return (new if xp is np else scoring.stop_on_fault(new, state)), metrics


def act(
    config: Config, env: FunctionalEnv, state: TrainState, obs: Any, key: Any, *, deterministic: bool = False
) -> Int[Array, " batch"]:
    """Greedy actions ``[B]`` for observations ``[B]``; ties are broken at random, or by the first if deterministic."""
    seen = jnp.asarray(env.tabular().observations)
    index = jnp.argmax(seen[None, :] == jnp.asarray(obs)[:, None], axis=-1)
    policy = jnp.asarray(greedy_policy(state.params["q"]))[index]
    if deterministic:
        return jnp.argmax(policy, axis=-1)
    return jax.random.categorical(key, jnp.log(policy))


AGENT = base.Agent(
    "value_iteration", "exact value iteration on the model of a tabular task; nothing is sampled", Config,
    init, update, act,
)  # fmt: skip


def train(
    config: Config, env: FunctionalEnv | Task, reward: Reward, key: Any, *, reward_params: Any = None
) -> base.TrainResult:
    """Solve a tabular task under a reward.

    In float64 on the host, or in one traced computation in the dtype of JAX when vmapped over keys, gamma or
    ``reward_params``.

    Args:
        config: settings.
        env: functional environment with ``tabular()``, or such a task.
        reward: a reward of kind POINTWISE.
        key: random key, for the initial parameters of the reward.
        reward_params: parameters of the reward, if not its own initial ones.

    Returns:
        The final state and metrics ``[num_updates]`` of the greedy policy (uniform over ties): ``shaped_return``,
        ``true_return`` and ``term/<name>`` are exact **discounted** returns from the start distribution, under the
        reward, the environment's own reward and each term; ``undiscounted_return`` (the environment's), ``success`` and
        ``length`` are exact expectations over an episode with the environment's time limit; ``residual`` is the last
        change of Q.

    Raises:
        TypeError: if the task has no exact model, or the reward has no table.
        ValueError: if the reward discounts with another gamma, or gamma is not in [0, 1).
        NonFiniteRewardError: naming reward, term and transition.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.agents import value_iteration
        >>> from reward_design.envs import task
        >>> config = value_iteration.Config(total_timesteps=200)
        >>> result = value_iteration.train(config, task("chain"), rd.environment_reward(), jax.random.key(0))
        >>> result.metrics["residual"].shape
        (20,)
    """
    env = base.functional(env)
    base.check_reward_fits(config, reward)
    exact.check_discount(config.gamma)
    if exact.is_traced(config, key, reward_params):
        return base.train(AGENT, config, env, reward, key, reward_params=reward_params)
    state, history = init(config, env, reward, key, reward_params), []
    for _ in range(config.num_updates):
        state, metrics = update(config, env, reward, state)
        history.append(metrics)
    metrics: Any = {name: np.stack([row[name] for row in history]) for name in history[0]}
    return base.TrainResult(state, metrics)


# --- parts ----------------------------------------------------------------------------------------------------------


class _Model(NamedTuple):
    """Float64 arrays of a tabular task that do not depend on the reward under study."""

    rows: np.ndarray
    own: np.ndarray
    success: np.ndarray
    alive: np.ndarray
    initial: np.ndarray


@lru_cache(maxsize=64)
def _model(env: FunctionalEnv) -> _Model:
    model = env.tabular()
    achieved = pointwise("success", lambda t: env.success(t).astype(t.reward.dtype))
    success = (model.transition * np.asarray(reward_table(achieved, model))).sum(-1)
    rows = model.transition.reshape(-1, model.transition.shape[-1])
    own = (model.transition * model.reward).sum(-1)
    alive = np.broadcast_to(~model.terminal[:, None], own.shape).astype(float)
    return _Model(rows, own, success, alive, model.initial)


def _metrics(xp: Any, env: FunctionalEnv, expected: Output, policy: Any, discount: Any) -> dict[str, Any]:
    model = _Model(*(_like(array, policy) for array in _model(env)))
    num_states, num_actions = policy.shape
    walk = (policy[:, None, :] @ model.rows.reshape(num_states, num_actions, num_states))[:, 0, :]
    system = xp.eye(num_states, dtype=walk.dtype) - discount * walk
    discounted = xp.linalg.solve(system.T, model.initial)[:, None] * policy
    returns = {"shaped_return": expected.reward, "true_return": model.own}
    returns |= {f"term/{name}": table for name, table in expected.terms.items()}

    def step(carry: Any) -> Any:
        time, here, total = carry
        return time + 1, here @ walk, total + here

    carry = (0, model.initial, model.initial * 0)
    visits = exact.while_loop(xp, lambda c: c[0] < env.horizon, step, carry)[2][:, None] * policy
    counts = {"undiscounted_return": model.own, "success": model.success, "length": model.alive}
    metrics = {name: (discounted * table).sum() for name, table in returns.items()}
    return metrics | {name: (visits * table).sum() for name, table in counts.items()} | {"episodes": 1.0}


def _like(array: np.ndarray, other: Any) -> Any:
    """``array`` in the namespace and dtype of ``other``."""
    return array if isinstance(other, np.ndarray) else jnp.asarray(array, other.dtype)


def _require_finite(output: Output, env: FunctionalEnv, reward: Reward) -> None:
    bad = ~np.isfinite(output.reward)
    if not bad.any():
        return
    state, action, successor = (int(i) for i in np.argwhere(bad)[0])
    terms = [name for name, table in output.terms.items() if not np.isfinite(table[state, action, successor])]
    raise NonFiniteRewardError(
        f"reward {reward.name!r} was not finite: term {terms[0]!r} on the transition from state {state} by action "
        f"{action} to state {successor} of {env.name!r}; make the reward finite on every transition."
    )
