"""What DQN and SAC share: collect, store the raw transitions, compute their reward when they are sampled, fit.

A reward that is being learned, or that normalises, never leaves stale values behind: each gradient step asks for the
reward of its rows with the params and the running state of that moment. What a CAUSAL reward remembers of an episode is
stored with the row and put back before it is asked.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from reward_design.agents import base, networks, priorities, replay, rollout, scoring
from reward_design.agents.inputs import Inputs
from reward_design.agents.settings import Run, at_least
from reward_design.core import Output, Reward, State, Transition, select_lanes
from reward_design.describe import require_online
from reward_design.envs.base import FunctionalEnv, example_transition
from reward_design.envs.host import HostEnv

Env = FunctionalEnv | HostEnv


@base.config
class Settings(Run):
    """Settings of every off-policy agent; see :class:`reward_design.agents.dqn.Config`."""

    total_timesteps: int = 200_000
    num_envs: int = 8
    num_steps: int = 8
    batch_size: int = 256
    capacity: int = 1_000_000
    learning_starts: int = 100
    n_step: int = 1
    prioritised: bool = False
    hidden: tuple[int, ...] = (256, 256)
    normalise_obs: bool = False
    learning_rate: float = 3e-4
    tau: float = 0.005
    gamma: float = 0.99
    priority_exponent: float = 0.6
    importance_exponent: float = 0.4

    def __post_init__(self) -> None:
        self.check_length()
        at_least(self, 0, "learning_starts")
        at_least(self, 1, "n_step", "batch_size", "capacity")
        steps = self.num_updates * self.steps_per_update
        if self.learning_starts > steps or self.learning_starts >= self.total_timesteps:
            whole = "" if steps == self.total_timesteps else f" and at most {steps}, what whole iterations have of it"
            raise ValueError(
                f"learning_starts must be below total_timesteps = {self.total_timesteps}{whole}, got "
                f"{self.learning_starts}; nothing would be learned."
            )

    @property
    def capacity_steps(self) -> int:
        """Transitions kept per lane; no more than the run has."""
        return -(-min(self.capacity, self.total_timesteps) // self.num_envs)

    @property
    def starting_updates(self) -> int:
        """Iterations before learning starts."""
        return -(-self.learning_starts // self.steps_per_update)

    @property
    def num_gradient_steps(self) -> int:
        """Gradient steps per iteration."""
        raise NotImplementedError


def whole(number: float | int, what: str) -> int:
    """A number of gradient steps per iteration as an integer.

    Raises:
        ValueError: if it is not a whole number of at least 1.
    """
    if number < 1 or abs(number - round(number)) > 1e-6:
        raise ValueError(f"{what} must be a whole number of gradient steps, at least 1, got {number:.6g}.")
    return round(number)


class TrainState(NamedTuple):
    """Everything that a run needs to go on from where it is; ``replay`` can be large."""

    params: Any
    opt_state: Any
    moments: networks.Moments
    reward_params: Any
    reward_state: State
    lanes: rollout.Lanes
    replay: replay.Replay
    priorities: Any
    key: Any
    num_updates: Any
    num_gradient_steps: Any
    fault: scoring.Fault
    learner_state: Any = ()


class Learner(NamedTuple):
    """What a gradient step changes."""

    params: Any
    opt_state: Any
    num_steps: Any


class Batch(NamedTuple):
    """Sampled rows ``[M]`` as the loss needs them: what was seen and done, and the target of Q(obs, action)."""

    obs: Any
    action: Any
    target: Float[Array, " samples"]
    weight: Float[Array, " samples"]


@dataclass(frozen=True, eq=False)
class Rule:
    """What makes one off-policy agent different from another.

    Attributes:
        name: of the agent.
        act: as in :class:`reward_design.agents.base.Agent`.
        noise: ``(config, env, key) -> pytree`` of random numbers for all gradient steps of an iteration, leading axis
            ``num_gradient_steps``: one large call instead of many small ones.
        bootstrap: ``(config, env, learner, moments, next_obs, noise) -> (action [M, ...], value [M])`` of successors.
        fit: ``(config, env, learner, moments, batch, noise) -> (learner, error [M], metrics)``, one gradient step.
    """

    name: str
    act: Callable[..., Any]
    noise: Callable[..., Any]
    bootstrap: Callable[..., tuple[Any, Array]]
    fit: Callable[..., tuple[Learner, Array, dict[str, Array]]]


def init(
    rule_name: str,
    config: Any,
    env: Env,
    reward: Reward,
    key: Any,
    reward_params: Any,
    learner: Learner,
    inputs: Inputs,
) -> TrainState:
    """State at the start of a run."""
    require_online(reward, f"{rule_name}, which computes rewards when it samples them,")
    key, reward_key, env_key = jax.random.split(key, 3)
    example = scoring.reward_example(env, config.num_envs)
    own_params, reward_state = reward.init(reward_key, example)
    reward_params = own_params if reward_params is None else reward_params
    steps = max(config.capacity_steps, config.num_steps, config.n_step)
    return TrainState(
        params=learner.params,
        opt_state=learner.opt_state,
        moments=networks.initial_moments(inputs.num_features),
        reward_params=reward_params,
        reward_state=reward_state,
        lanes=rollout.reset_lanes(env, env_key, config.num_envs, scoring.term_names(env, reward)),
        replay=replay.empty(example_transition(env, config.num_envs), reward_state.episode, steps),
        priorities=priorities.empty(steps * config.num_envs) if config.prioritised else (),
        key=key,
        num_updates=jnp.int32(0),
        num_gradient_steps=learner.num_steps,
        fault=scoring.no_fault(),
        learner_state=scoring.learner_state(reward, reward_key, reward_params, example),
    )


def improve(
    rule: Rule, config: Any, env: Env, inputs: Inputs, reward: Reward, state: TrainState, trajectory: Transition
) -> tuple[TrainState, dict[str, Array]]:
    """Store a rollout ``[T, B]``, then take the gradient steps of one iteration; the same for every environment."""
    key, next_key, learn_key = jax.random.split(state.key, 3)
    keys = jax.random.split(next_key, config.num_steps)
    policy = partial(rule.act, config, env, state)
    trajectory = rollout.with_next_action(trajectory, jax.vmap(policy)(trajectory.next_obs, keys))
    reward_params, learner_state, taught = scoring.learned_reward(
        reward, state.reward_params, state.learner_state, trajectory, next_key
    )
    output, reward_state, episode = collected(reward, reward_params, state.reward_state, trajectory)
    lanes, metrics = rollout.episode_metrics(env, state.lanes, trajectory, output)
    fault = scoring.find_fault(state.fault, output, state.num_updates * config.num_steps)

    ranked = _new_priorities(state, trajectory) if config.prioritised else ()
    state_now = state._replace(
        reward_params=reward_params, reward_state=reward_state, learner_state=learner_state,
        replay=replay.insert(state.replay, trajectory, episode), priorities=ranked,
        moments=inputs.update_moments(state.moments, trajectory.obs, trajectory.mask), fault=fault,
    )  # fmt: skip
    learner, ranked, fault, losses = _learn_if_started(rule, config, env, reward, state_now, learn_key)
    new = state_now._replace(
        params=learner.params, opt_state=learner.opt_state, num_gradient_steps=learner.num_steps, lanes=lanes,
        priorities=ranked, key=key, num_updates=state.num_updates + 1, fault=fault,
    )  # fmt: skip
    env_steps = new.num_updates.astype(jnp.float32) * config.steps_per_update
    new = scoring.stop_on_fault(new, state, aside=("replay", "priorities", "learner_state"))
    return new, {**metrics, **losses, **taught, "env_steps": env_steps}


def collected(reward: Reward, params: Any, state: State, trajectory: Transition) -> tuple[Output, State, Any]:
    """Reward of a rollout ``[T, B]``, the state after it, and ``State.episode`` before each of its rows."""
    if not jax.tree.leaves(state.episode):
        return *reward.unroll(params, state, trajectory), state.episode

    def step(state: State, transition: Transition) -> tuple[State, tuple[Output, Any]]:
        output, new = reward.step(params, state, transition)
        return new, (output, state.episode)

    state, (output, episode) = jax.lax.scan(step, state, trajectory)
    return output, state, episode


def sampled_reward(reward: Reward, params: Any, state: State, window: replay.Window, next_action: Any) -> Output:
    """Reward ``[n, M]`` of sampled rows with the params and running state of now, each after its own past.

    Args:
        reward: of kind POINTWISE or CAUSAL.
        params: its params.
        state: its state; ``running`` is read, ``episode`` is replaced by what is stored with each row.
        window: rows ``[n, M]``.
        next_action: ``[M, ...]`` action in the successor of each window's last row.

    Returns:
        Output ``[n, M]``, 0 in masked rows.
    """
    n, samples = window.rows.mask.shape
    shifted = jax.tree.map(lambda a: jnp.concatenate([a[1:], a[-1:]]), window.rows.action)
    repeated = jax.tree.map(lambda a: jnp.broadcast_to(a[None], (n, *a.shape)), next_action)
    last = jnp.arange(n)[:, None] == window.last[None]
    info = {**window.rows.info, "next_action": select_lanes(last, repeated, shifted)}
    fold = partial(jax.tree.map, lambda x: x.reshape(n * samples, *x.shape[2:]))
    lane = jnp.tile(window.lane, n)
    fresh = jax.tree.map(lambda x: x[lane], state.fresh)
    before = State(fold(window.episode), state.running, fresh)
    output, _ = reward.step(params, before, fold(window.rows._replace(info=info)))
    return jax.tree.map(lambda x: x.reshape(n, samples), output)


def n_step_target(
    reward: Float[Array, "n samples"], terminated: Any, last: Any, value: Float[Array, " samples"], *, gamma: Any
) -> Float[Array, " samples"]:
    """Target y = Σ_{k≤l} γᵏ r_k + γ^{l+1} (1 - terminated_l) V(s_{l+1}), where l is the last row that counts.

    Args:
        reward: 0 after row l.
        terminated: ``[n, M]`` terminal steps; a time limit is none.
        last: ``[M]`` l.
        value: ``[M]`` V of the true successor of row l.
        gamma: discount per environment step.

    Returns:
        Targets ``[M]``.
    """
    powers = gamma ** jnp.arange(reward.shape[0], dtype=reward.dtype)
    ended = terminated[last, jnp.arange(last.shape[0])]
    following = jnp.where(ended, 0.0, gamma ** (last + 1).astype(reward.dtype) * value)
    return jnp.sum(powers[:, None] * reward, axis=0) + following


# --- parts ----------------------------------------------------------------------------------------------------------


def _learn_if_started(rule: Rule, config: Any, env: Env, reward: Reward, state: TrainState, key: Any) -> Any:
    """``(learner, priorities, fault, metrics)`` after the gradient steps, or as they are before learning starts."""
    learner = Learner(state.params, state.opt_state, state.num_gradient_steps)
    learn = partial(_learn, rule, config, env, reward, state, learner, key)
    *_, losses = jax.eval_shape(learn)
    unknown = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), losses)
    started = (state.num_updates + 1 >= config.starting_updates) & state.replay.count.any()
    return jax.lax.cond(started, learn, lambda: (learner, state.priorities, state.fault, unknown))


def _learn(
    rule: Rule, config: Any, env: Env, reward: Reward, state: TrainState, learner: Learner, key: Any
) -> tuple[Learner, Any, scoring.Fault, dict[str, Array]]:
    draw_key, noise_key = jax.random.split(key)
    shape = (config.num_gradient_steps, config.batch_size)
    uniform = partial(replay.draw, state.replay)
    draws = (jax.random.uniform if config.prioritised else uniform)(draw_key, shape)
    beta = base.linear(config.importance_exponent, 1.0, state.num_updates, config.num_updates)

    def step(carry: Any, xs: Any) -> tuple[Any, dict[str, Array]]:
        learner, ranked, fault = carry
        draw, noise = xs
        index, weight = draw, jnp.ones(config.batch_size)
        if config.prioritised:
            index, probability = priorities.draw(ranked, draw)
            weight = priorities.importance(probability, state.replay.count.sum(), beta)
        window = replay.windows(state.replay, index, config.n_step)
        next_obs = replay.last_row(window, window.rows.next_obs)
        next_action, value = rule.bootstrap(config, env, learner, state.moments, next_obs, noise)
        output = sampled_reward(reward, state.reward_params, state.reward_state, window, next_action)
        target = n_step_target(output.reward, window.rows.terminated, window.last, value, gamma=config.gamma)
        obs, action = jax.tree.map(lambda x: x[0], (window.rows.obs, window.rows.action))
        batch = Batch(obs, action, target, weight)
        learner, error, metrics = rule.fit(config, env, learner, state.moments, batch, noise)
        if config.prioritised:
            ranked = priorities.assign(ranked, index, (jnp.abs(error) + 1e-6) ** config.priority_exponent)
        return (learner, ranked, _sampled_fault(fault, output, window, state, config)), metrics

    carry = (learner, state.priorities, state.fault)
    (learner, ranked, fault), metrics = jax.lax.scan(step, carry, (draws, rule.noise(config, env, noise_key)))
    return learner, ranked, fault, jax.tree.map(jnp.nanmean, metrics)  # NaN: that part took no step


def _sampled_fault(fault: scoring.Fault, output: Output, window: replay.Window, state: TrainState, config: Any) -> Any:
    """The fault of a row that was finite when it was collected and is not now; its step is that of now."""
    found = scoring.find_fault(fault, output, state.num_updates * config.num_steps)
    new = (found.step >= 0) & (fault.step < 0)
    step = jnp.where(new, state.num_updates * config.num_steps, found.step)
    return found._replace(step=step, lane=jnp.where(new, window.lane[found.lane], found.lane))


def _new_priorities(state: TrainState, trajectory: Transition) -> priorities.Priorities:
    """Rows of a rollout with the highest priority so far."""
    at = replay.places(state.replay, trajectory.mask)
    size, lanes = replay.capacity_steps(state.replay), trajectory.mask.shape[1]
    nowhere = state.priorities.levels[0].size
    index = jnp.where(at < size, at * lanes + jnp.arange(lanes)[None], nowhere)
    return priorities.assign(state.priorities, index.ravel(), state.priorities.highest)
