"""What every agent has in common: configuration, the training loop, evaluation, and what fits together.

An agent is three pure functions, ``init``, ``update`` and ``act``, in one :class:`Agent`. Everything else is written
once for all of them: :func:`train` runs the loop in one jit, :func:`reward_design.agents.train_seeds` many seeds.
"""

import dataclasses
import typing
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium.vector import VectorEnv
from jaxtyping import Array, Float

from reward_design.agents import rollout, scoring, settings
from reward_design.core import Reward
from reward_design.describe import check_gamma, missing_entry, not_traceable
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv

ONCE = {"xla_backend_optimization_level": 0}
"""Options of compilations for programs that run once, such as those that make first states: a quarter of the time."""


@typing.dataclass_transform(frozen_default=True, kw_only_default=True)
def config(cls: type) -> type:
    """Make a class a frozen settings dataclass and a pytree: ``float`` fields are leaves, all others are static.

    Leaves may be traced, so ``jax.vmap`` sweeps a learning rate without another compilation; for that reason run-time
    type checkers leave the constructor alone, and :func:`reward_design.agents.settings.check_types` looks at what it
    gets before ``__post_init__`` of the class does.
    """
    own = getattr(cls, "__post_init__", lambda self: None)

    def checked(self: Any) -> None:
        settings.check_types(self)
        own(self)

    cls.__post_init__ = checked  # type: ignore[attr-defined]
    cls = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    vars(cls)["__init__"].__no_type_check__ = True
    names = {True: [], False: []}
    for field in dataclasses.fields(cls):
        names[field.type is float].append(field.name)
    return jax.tree_util.register_dataclass(cls, data_fields=names[True], meta_fields=names[False])


class TrainResult(NamedTuple):
    """What ``train`` returns.

    Attributes:
        state: the agent's final state (parameters, optimiser, reward state, environment lanes, random key).
        metrics: arrays ``[num_updates]`` (leading axis of seeds after :func:`train_seeds`): ``shaped_return``,
            ``true_return``, ``success``, ``length`` are means over the episodes that ended in an update (the previous
            value where none ended, NaN before the first), ``episodes`` counts them, ``term/<name>`` splits
            ``shaped_return`` by term, ``env_steps`` is the total so far.
    """

    state: Any
    metrics: Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Agent:
    """An agent as pure functions.

    Attributes:
        name: key in :data:`reward_design.agents.AGENTS`.
        description: one line.
        Config: frozen settings with ``total_timesteps``, ``gamma``, ``num_updates`` and ``steps_per_update``.
        init: ``(config, env, reward, key, reward_params) -> state``; ``reward_params`` None means the reward's own.
        update: ``(config, env, reward, state) -> (state, metrics)``, one iteration, metrics are scalars.
        act: ``(config, env, state, obs, key, *, deterministic) -> action`` for batched observations; an agent with
            ``initial_carry`` also takes ``carry=`` and then returns ``(action, carry)``.
        improve: ``(config, env, reward, state, trajectory, extras) -> (state, metrics)``, the part of ``update`` after
            the collection, for environments on the host; None if the agent cannot train there.
        host_policy: ``(config, env, state, *, deterministic) -> policy`` on the host: a ``HostPolicy`` or
            ``RecurrentPolicy`` of :mod:`reward_design.agents.collector`.
        initial_carry: ``(config, env, num_envs) -> carry``, the policy's memory at the start of an episode: zeros, with
            leaves ``[B, ...]``; None if no policy of the agent has memory.
        check: ``env -> None``, raises a ``TypeError`` for spaces that the agent cannot serve.
        learns_reward: whether ``update`` also trains a reward that has a learner, see
            :func:`reward_design.agents.scoring.learned_reward`.
    """

    name: str
    description: str
    Config: type
    init: Callable[..., Any]
    update: Callable[..., tuple[Any, Mapping[str, Array]]]
    act: Callable[..., Any]
    improve: Callable[..., tuple[Any, Mapping[str, Array]]] | None = None
    host_policy: Callable[..., Any] | None = None
    initial_carry: Callable[..., Any] | None = None
    check: Callable[[Any], None] | None = None
    learns_reward: bool = False


def train(
    agent: Agent,
    config: Any,
    env: FunctionalEnv | Task,
    reward: Reward,
    key: Any,
    *,
    reward_params: Any = None,
) -> TrainResult:
    """Train ``agent`` for ``config.num_updates`` iterations in one jit; what the ``train`` of every agent does.

    Args:
        agent: the agent.
        config: its settings.
        env: functional environment, or a task.
        reward: the reward to learn from.
        key: random key.
        reward_params: parameters of the reward, if not its own initial ones (for sweeps and learned rewards).

    Returns:
        The final state and metrics ``[num_updates]``.

    Raises:
        TypeError: for spaces or a kind of reward that the agent cannot serve.
        ValueError: if the reward discounts with another gamma, or a replay does not fit into memory.
        NonFiniteRewardError: naming reward, term and step.
    """
    check_key(key)
    env = functional(env)
    check_fits(agent, config, env, reward)
    result = _train(agent, env, reward, config, key, reward_params)
    scoring.raise_on_fault(result.state.fault, env, reward)
    return result


@partial(jax.jit, static_argnames=("agent", "env", "reward"))
def _train(agent: Agent, env: FunctionalEnv, reward: Reward, config: Any, key: Any, reward_params: Any) -> TrainResult:
    state = agent.init(config, env, reward, key, reward_params)
    return TrainResult(*updates(agent, env, reward, config, state, config.num_updates))


def initial_states(
    agent: Agent, env: FunctionalEnv | HostEnv, reward: Reward, config: Any, keys: Any, reward_params: Any = None
) -> Any:
    """States before training ``[seeds, ...]``, one for each key."""
    return jax.vmap(lambda key: agent.init(config, env, reward, key, reward_params))(keys)


first_states = jax.jit(initial_states, static_argnames=("agent", "env", "reward"), compiler_options=ONCE)
"""The same as a program of its own, which is compiled in little time."""


def updates(agent: Agent, env: FunctionalEnv, reward: Reward, config: Any, state: Any, length: int) -> Any:
    """``length`` iterations of ``agent.update`` as one scan: ``(state, metrics [length])``."""
    return jax.lax.scan(lambda s, _: agent.update(config, env, reward, s), state, length=length)


def evaluate(
    agent: Agent,
    config: Any,
    env: FunctionalEnv | Task,
    state: Any,
    key: Any,
    *,
    num_episodes: int = 32,
    deterministic: bool = True,
) -> dict[str, Float[Array, " episodes"]]:
    """Play whole episodes with a trained policy, judged by the environment's own reward.

    Args:
        agent: the agent.
        config: its settings.
        env: functional environment or task.
        state: state of one run (no seed axis; vmap over it for many).
        key: random key.
        num_episodes: episodes, one lane each.
        deterministic: the mode of the policy instead of samples.

    Returns:
        ``true_return``, ``success`` and ``length`` per episode.
    """
    return _evaluate(agent, functional(env), config, state, key, num_episodes, deterministic)


@partial(jax.jit, static_argnames=("agent", "env", "num_episodes", "deterministic"))
def _evaluate(
    agent: Agent, env: FunctionalEnv, config: Any, state: Any, key: Any, num_episodes: int, deterministic: bool
) -> dict[str, Float[Array, " episodes"]]:
    reset_key, env_key, act_key = jax.random.split(key, 3)
    policy_keys = jax.random.split(act_key, env.horizon)
    lanes = rollout.reset_lanes(env, reset_key, num_episodes, ())

    act = partial(agent.act, config, env, state, deterministic=deterministic)

    def policy(obs: Any, act_key: Any, carry: Any) -> tuple[Any, tuple[()], Any]:
        action, carry = (act(obs, act_key), ()) if agent.initial_carry is None else act(obs, act_key, carry=carry)
        return action, (), carry

    carry = () if agent.initial_carry is None else agent.initial_carry(config, env, num_episodes)
    _, _, trajectory, _ = rollout.collect_with_memory(env, policy, lanes, carry, env_key, policy_keys, env.horizon)
    done = trajectory.done
    first = (jnp.cumsum(done, axis=0) - done) == 0
    return {
        "true_return": jnp.sum(trajectory.reward * first, axis=0),
        "success": jnp.sum(env.success(trajectory) & done & first, axis=0).astype(jnp.float32),
        "length": jnp.sum(first, axis=0).astype(jnp.float32),
    }


# --- checks ---------------------------------------------------------------------------------------------------------


def functional(env: FunctionalEnv | Task) -> FunctionalEnv:
    """The functional environment of a task, or the environment itself.

    Raises:
        TypeError: for anything else, with what to do about it.
    """
    if isinstance(env, Task):
        return env.functional()
    if isinstance(env, FunctionalEnv):
        return env
    if isinstance(env, (HostEnv, gymnasium.Env, VectorEnv)):
        raise TypeError(f"{type(env).__name__} is stepped on the host; train on it with train_host.")
    hint = f"task({env!r})" if isinstance(env, str) else "reward_design.envs.task"
    raise TypeError(f"expected a task or a functional environment, got {env!r}; make one with {hint}.")


def check_key(key: Any) -> None:
    """Refuse a number in place of a random key.

    Raises:
        TypeError: with the key that it stands for.
    """
    if key is None or isinstance(key, (int, np.integer)):
        raise TypeError(f"expected a random key of JAX, got {key!r}; write jax.random.key({key or 0}).")


def check_fits(agent: Agent, config: Any, env: FunctionalEnv | HostEnv, reward: Reward) -> None:
    """Refuse, before anything runs, what cannot work together.

    Raises:
        TypeError: for settings of another agent, something that is no reward, spaces that the agent cannot serve, an
            environment on the host that it cannot train on, or a reward with a learner that it does not train.
        ValueError: for settings outside of their range, a reward with another gamma, or one that reads what the
            environment does not give.
    """
    if not isinstance(config, agent.Config):
        raise TypeError(
            f"agent {agent.name!r} needs a {agent.Config.__module__.rpartition('.')[2]}.{agent.Config.__qualname__}, "
            f"got {type(config).__module__}.{type(config).__qualname__}."
        )
    if not isinstance(reward, Reward):
        hint = "; only the command line takes names" if isinstance(reward, str) else ""
        raise TypeError(f"expected a reward_design.Reward, got {reward!r}{hint}.")
    settings.check_floats(config)
    if isinstance(env, HostEnv) and agent.improve is None:
        raise TypeError(f"agent {agent.name!r} runs on the device only; on the host use ppo, dqn or sac.")
    if agent.check is not None:
        agent.check(env)
    if reward.learner is not None and not agent.learns_reward:
        raise TypeError(
            f"agent {agent.name!r} does not train rewards, and the reward {reward.name!r} has to be learned; use ppo, "
            "dqn, sac or reinforce."
        )
    check_reward_fits(config, reward)
    _check_readable(env, reward)
    longest = None if reward.learner is None else reward.learner.max_length
    if longest is not None and env.horizon > longest:
        warnings.warn(
            f"the reward {reward.name!r} learns from episodes of at most max_length = {longest} steps, and those of "
            f"{env.name!r} may have {env.horizon}: nothing is learned from longer ones.",
            stacklevel=3,
        )


@lru_cache(maxsize=256)
def _check_readable(env: FunctionalEnv | HostEnv, reward: Reward) -> None:
    """Refuse a reward that reads what the environment does not give; traced once, however often an agent trains."""
    try:
        scoring.term_names(env, reward)
    except jax.errors.JAXTypeError as error:
        raise not_traceable(reward, error) from error
    except (KeyError, TypeError) as error:
        clearer = missing_entry(reward, error, scoring.reward_example(env))
        raise clearer from (None if clearer is error else error)


def check_reward_fits(config: Any, reward: Reward) -> None:
    """Refuse a reward whose gamma differs from the agent's (unless the agent's is traced, in a sweep)."""
    if isinstance(config.gamma, (int, float, np.number)):
        check_gamma(reward, float(config.gamma))


def linear(start: Any, end: Any, step: Any, num_steps: int) -> Any:
    """Linear schedule: start + (end - start) step / num_steps, and end for the steps after ``num_steps``."""
    return start + (end - start) * jnp.minimum(step, num_steps) / num_steps
