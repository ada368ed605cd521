"""Tabular Q-learning on the device: many lanes feed one table inside one scan.

Source: Watkins and Dayan, "Q-learning", Machine Learning 1992; acting on Q plus advice: Wiewiora, Cottrell and Elkan,
"Principled Methods for Advising Reinforcement Learning Agents", ICML 2003.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float, Int

from reward_design.agents import base, rollout, scoring
from reward_design.agents.settings import Run
from reward_design.core import Output, Reward, State, Transition, select_lanes
from reward_design.describe import require_online
from reward_design.envs.base import FunctionalEnv, Task


@base.config
class Config(Run):
    """Settings of Q-learning. Float fields may be swept with ``jax.vmap``.

    Attributes:
        total_timesteps: environment steps over all lanes (rounded down to whole updates).
        num_envs: parallel lanes B.
        num_steps: steps per lane between two rows of metrics; learning happens on every step.
        advice: ``advice(obs [B], action [B]) -> [B]`` added to Q when actions are compared, None for none. Needed with
            ``look_ahead_advice(phi)``, whose optimal actions are argmax(Q + phi).
        learning_rate: step size at the start, in (0, 1].
        learning_rate_end: at the end of the run; linear in between.
        epsilon: probability of a uniform action at the start.
        epsilon_end: after the exploration phase; linear in between.
        exploration_fraction: share of the run until ``epsilon_end`` is reached, in (0, 1].
        initial_q: start value of the table; above the largest return it is optimistic and drives exploration.
        gamma: discount per environment step, in [0, 1]; must equal the reward's.
    """

    total_timesteps: int = 200_000
    num_envs: int = 8
    num_steps: int = 128
    advice: Callable[[Any, Any], Any] | None = None
    learning_rate: float = 0.5
    learning_rate_end: float = 0.05
    epsilon: float = 1.0
    epsilon_end: float = 0.05
    exploration_fraction: float = 0.5
    initial_q: float = 0.0
    gamma: float = 0.99

    def __post_init__(self) -> None:
        self.check_length()


class TrainState(NamedTuple):
    """Everything that a run needs to go on from where it is. ``params["q"]`` is the table ``[S, A]``."""

    params: Any
    reward_params: Any
    reward_state: State
    lanes: rollout.Lanes
    key: Any
    num_updates: Any
    fault: scoring.Fault


def init(config: Config, env: FunctionalEnv, reward: Reward, key: Any, reward_params: Any = None) -> TrainState:
    """State at the start of a run; see :class:`reward_design.agents.base.Agent`."""
    require_online(reward, "q_learning, which learns on every step,")
    num_states, num_actions = _discrete(env)
    key, reward_key, env_key = jax.random.split(key, 3)
    own_params, reward_state = reward.init(reward_key, scoring.reward_example(env, config.num_envs))
    return TrainState(
        params={"q": jnp.full((num_states, num_actions), config.initial_q, jnp.result_type(float))},
        reward_params=own_params if reward_params is None else reward_params,
        reward_state=reward_state,
        lanes=rollout.reset_lanes(env, env_key, config.num_envs, scoring.term_names(env, reward)),
        key=key,
        num_updates=jnp.int32(0),
        fault=scoring.no_fault(),
    )


def update(
    config: Config, env: FunctionalEnv, reward: Reward, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """``num_steps`` environment steps per lane, each followed by a backup of the table."""
    key, env_key, noise_key = jax.random.split(state.key, 3)
    shape = (config.num_steps, config.num_envs)
    keys = jax.random.split(env_key, (2, *shape))
    starts = jax.vmap(jax.vmap(env.reset))(keys[0])
    noise = jax.random.uniform(noise_key, (*shape, 1 + 2 * _discrete(env)[1]))
    first = state.num_updates * config.num_steps
    times = first + jnp.arange(config.num_steps)

    def step(carry: Any, xs: Any) -> tuple[Any, tuple[Transition, Output, Array]]:
        q, reward_state, obs, env_state = carry
        step_keys, (start_obs, start_state), draws, time = xs
        rate, epsilon = _schedules(config, time)
        action = _explore(_preferences(config, q, obs, env), epsilon, draws, env)
        next_obs, env_state, paid, terminated, truncated, info = jax.vmap(env.step)(step_keys, env_state, action)
        greedy = jnp.argmax(_preferences(config, q, next_obs, env), axis=-1)
        info = {**info, "next_action": _to_env(greedy, env).astype(action.dtype)}
        mask = jnp.ones_like(terminated)
        transition = Transition(obs, action, next_obs, paid, terminated, truncated, mask, info)
        output, reward_state = reward.step(state.reward_params, reward_state, transition)  # pyright: ignore
        rows, columns = _index(obs, env.observation_space), _index(action, env.action_space)
        following = q[_index(next_obs, env.observation_space), greedy]
        q, error = backup(
            q, rows, columns, output.reward, following, terminated, gamma=config.gamma, learning_rate=rate
        )
        obs, env_state = select_lanes(transition.done, (start_obs, start_state), (next_obs, env_state))
        return (q, reward_state, obs, env_state), (transition, output, jnp.abs(error).mean())

    carry = (state.params["q"], state.reward_state, state.lanes.obs, state.lanes.env_state)
    carry, (trajectory, output, errors) = jax.lax.scan(step, carry, (keys[1], starts, noise, times))
    q, reward_state, obs, env_state = carry
    lanes = state.lanes._replace(obs=obs, env_state=env_state)
    lanes, metrics = rollout.episode_metrics(env, lanes, trajectory, output)
    fault = scoring.find_fault(state.fault, output, first)
    count = state.num_updates + 1
    new = TrainState({"q": q}, state.reward_params, reward_state, lanes, key, count, fault)
    own = {"td_error": errors.mean(), "epsilon": _schedules(config, times[-1])[1]}
    metrics |= {name: jnp.asarray(value, jnp.float32) for name, value in own.items()}
    env_steps = (count * config.steps_per_update).astype(jnp.float32)
    return scoring.stop_on_fault(new, state), {**metrics, "env_steps": env_steps}


def act(
    config: Config, env: FunctionalEnv, state: TrainState, obs: Any, key: Any, *, deterministic: bool = False
) -> Int[Array, " batch"]:
    """Actions ``[B]`` for observations ``[B]``: greedy, or epsilon-greedy as training now is."""
    preferences = _preferences(config, state.params["q"], obs, env)
    epsilon = 0.0 if deterministic else _schedules(config, state.num_updates * config.num_steps)[1]
    draws = jax.random.uniform(key, (preferences.shape[0], 1 + 2 * preferences.shape[1]))
    return _explore(preferences, epsilon, draws, env)


def check(env: FunctionalEnv) -> None:
    """Refuse an environment with other observations or actions than Discrete."""
    _discrete(env)


AGENT = base.Agent(
    "q_learning", "tabular Q-learning; discrete observations and actions, epsilon-greedy lanes share a table", Config,
    init, update, act, check=check,
)  # fmt: skip


def train(
    config: Config, env: FunctionalEnv | Task, reward: Reward, key: Any, *, reward_params: Any = None
) -> base.TrainResult:
    """Train Q-learning in one jit; vmap it over keys or float settings.

    The reward is computed step by step, so everything but whole-episode rewards will do. Values bootstrap from the true
    successor unless the episode terminated; a time limit does not end them. ``info["next_action"]`` is the action that
    the backup assumes, argmax_a (Q + advice), so that ``look_ahead_advice`` with ``config.advice`` set to the same
    potential learns exactly what plain Q-learning from Q_0 = advice learns.

    Args:
        config: settings.
        env: functional environment with Discrete observations and actions, or such a task.
        reward: a reward of kind POINTWISE or CAUSAL.
        key: random key.
        reward_params: parameters of the reward, if not its own initial ones.

    Returns:
        The final state, ``state.params["q"]`` among it, and metrics ``[num_updates]``, see
        :class:`reward_design.agents.base.TrainResult`; here also ``td_error`` and ``epsilon``.

    Raises:
        TypeError: if observations or actions are not Discrete, or the reward needs whole episodes.
        ValueError: if the reward discounts with another gamma.
        NonFiniteRewardError: naming reward, term and step.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.agents import q_learning
        >>> from reward_design.envs import task
        >>> config = q_learning.Config(total_timesteps=512, num_envs=4, num_steps=64)
        >>> result = q_learning.train(config, task("chain"), rd.environment_reward(), jax.random.key(0))
        >>> result.metrics["td_error"].shape
        (2,)
    """
    return base.train(AGENT, config, env, reward, key, reward_params=reward_params)


def backup(
    q: Float[Array, "S A"],
    states: Int[Array, " lanes"],
    actions: Int[Array, " lanes"],
    reward: Float[Array, " lanes"],
    following: Float[Array, " lanes"],
    terminated: Bool[Array, " lanes"],
    *,
    gamma: Any,
    learning_rate: Any,
) -> tuple[Float[Array, "S A"], Float[Array, " lanes"]]:
    """Q(s, a) ← Q(s, a) + α (r + γ (1 - terminated) Q(s', a') - Q(s, a)) for a batch of transitions.

    Where n lanes are in the same (s, a), the table moves towards the mean of their targets with step size 1 - (1 - α)ⁿ,
    as n successive updates towards that mean would, so that many lanes cannot overshoot.

    Args:
        q: the table.
        states: s.
        actions: a.
        reward: r.
        following: Q(s', a') with the action that is assumed in s'.
        terminated: terminal steps.
        gamma: discount per environment step.
        learning_rate: α in (0, 1].

    Returns:
        The new table and the errors (the brackets above).
    """
    error = reward + gamma * jnp.where(terminated, 0.0, following) - q[states, actions]
    cell = states * q.shape[1] + actions
    count = jnp.sum(cell[:, None] == cell[None, :], axis=1).astype(q.dtype)
    share = (1 - (1 - learning_rate) ** count) / count
    return q.at[states, actions].add(share * error), error


# --- parts ----------------------------------------------------------------------------------------------------------


def _schedules(config: Config, time: Any) -> tuple[Any, Any]:
    """Learning rate and epsilon at a step of the run."""
    progress = time / (config.num_updates * config.num_steps)
    explored = jnp.minimum(progress / config.exploration_fraction, 1.0)
    rate = config.learning_rate + progress * (config.learning_rate_end - config.learning_rate)
    return rate, config.epsilon + explored * (config.epsilon_end - config.epsilon)


def _preferences(config: Config, q: Array, obs: Array, env: FunctionalEnv) -> Float[Array, "lanes A"]:
    """What actions are compared by: Q, plus the advice if there is one."""
    values = q[_index(obs, env.observation_space)]
    if config.advice is None:
        return values
    lanes, num_actions = values.shape
    actions = jnp.tile(_to_env(jnp.arange(num_actions), env), lanes)
    advice = config.advice(jnp.repeat(obs, num_actions), actions)
    return values + jnp.reshape(advice, (lanes, num_actions)).astype(values.dtype)


def _explore(preferences: Array, epsilon: Any, draws: Array, env: FunctionalEnv) -> Int[Array, " lanes"]:
    """Epsilon-greedy with ties broken at random; ``draws`` are uniform ``[lanes, 1 + 2 A]``."""
    ties, other = jnp.split(draws[:, 1:], 2, axis=-1)
    best = preferences >= preferences.max(-1, keepdims=True)
    greedy = jnp.argmax(jnp.where(best, ties, -1.0), axis=-1)
    action = jnp.where(draws[:, 0] < epsilon, jnp.argmax(other, axis=-1), greedy)
    return _to_env(action, env)


def _discrete(env: FunctionalEnv) -> tuple[int, int]:
    """Numbers of states and actions, or a TypeError."""
    sizes = []
    for what, space in (("observations", env.observation_space), ("actions", env.action_space)):
        if not isinstance(space, spaces.Discrete):
            raise TypeError(
                f"q_learning needs Discrete {what}, got {type(space).__name__} from {env.name!r}; "
                "use a tabular task such as 'four_rooms', or ppo."
            )
        sizes.append(int(space.n))
    return sizes[0], sizes[1]


def _index(values: Array, space: spaces.Space) -> Int[Array, " lanes"]:
    return jnp.asarray(values, jnp.int32) - np.int32(space.start)  # pyright: ignore[reportAttributeAccessIssue]


def _to_env(index: Array, env: FunctionalEnv) -> Int[Array, " n"]:
    return index.astype(jnp.int32) + np.int32(env.action_space.start)  # pyright: ignore[reportAttributeAccessIssue]
