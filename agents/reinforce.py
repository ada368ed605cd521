"""REINFORCE on the device: whole episodes, Monte-Carlo returns and a baseline.

Source: Williams, "Simple Statistical Gradient-Following Algorithms for Connectionist Reinforcement Learning", 1992.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from reward_design.agents import base, networks, rollout, scoring
from reward_design.agents.action_spaces import discrete_or_box
from reward_design.agents.actor_critic import ActorCritic, action_noise
from reward_design.agents.settings import Run, one_of
from reward_design.core import Reward, State, Transition
from reward_design.envs.base import FunctionalEnv, Task


@base.config
class Config(Run):
    """Settings of REINFORCE. Float fields may be swept with ``jax.vmap``; schedules are linear over the run.

    Attributes:
        total_timesteps: environment steps over all lanes, unfinished tails included (rounded down to whole updates).
        num_envs: parallel lanes B; each update plays ``horizon`` steps per lane and learns from what ended.
        horizon: steps per lane and update; at least the environment's horizon, so that every lane ends an episode.
        hidden: widths of the tanh layers of policy and baseline.
        baseline: ``"value"`` learns V(s) (and bootstraps time limits with it), ``"mean"`` subtracts the batch mean of
            the returns, ``"none"`` subtracts nothing. The latter two treat a time limit as the end.
        normalise_obs: scale observations by running moments; discrete ones are one-hot.
        discount_states: weigh step t by gamma^t, as the discounted objective's gradient has it; most code drops it.
        learning_rate: at the start.
        learning_rate_end: at the end of the run.
        entropy_coef: weight of the entropy bonus at the start.
        entropy_coef_end: at the end of the run.
        gamma: discount per environment step, in [0, 1]; must equal the reward's.
        value_coef: weight of the baseline's squared error.
        max_grad_norm: global gradient clipping.
    """

    steps_field = "horizon"
    total_timesteps: int = 500_000
    num_envs: int = 8
    horizon: int = 500
    hidden: tuple[int, ...] = (64, 64)
    baseline: Literal["value", "mean", "none"] = "value"
    normalise_obs: bool = True
    discount_states: bool = False
    learning_rate: float = 5e-3
    learning_rate_end: float = 0.0
    entropy_coef: float = 0.01
    entropy_coef_end: float = 0.01
    gamma: float = 0.99
    value_coef: float = 0.5
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        one_of(self, "baseline", ("value", "mean", "none"))
        self.check_length()


class TrainState(NamedTuple):
    """Everything that a run needs to go on from where it is."""

    params: Any
    opt_state: Any
    moments: networks.Moments
    reward_params: Any
    reward_state: State
    means: Any
    key: Any
    num_updates: Any
    fault: scoring.Fault
    learner_state: Any = ()


def init(config: Config, env: FunctionalEnv, reward: Reward, key: Any, reward_params: Any = None) -> TrainState:
    """State at the start of a run; see :class:`reward_design.agents.base.Agent`."""
    if config.horizon < env.horizon:
        raise ValueError(
            f"horizon must be at least the horizon of {env.name!r} = {env.horizon}, got {config.horizon}; "
            "REINFORCE needs whole episodes."
        )
    key, policy_key, reward_key, env_key = jax.random.split(key, 4)
    params, moments = _network(config, env).init(policy_key)
    example = scoring.reward_example(env, config.num_envs)
    own_params, reward_state = reward.init(reward_key, example)
    reward_params = own_params if reward_params is None else reward_params
    return TrainState(
        params=params,
        opt_state=_optimiser(config).init(params),
        moments=moments,
        reward_params=reward_params,
        reward_state=reward_state,
        means=rollout.reset_lanes(env, env_key, config.num_envs, scoring.term_names(env, reward)).means,
        key=key,
        num_updates=jnp.int32(0),
        fault=scoring.no_fault(),
        learner_state=scoring.learner_state(reward, reward_key, reward_params, example),
    )


def update(
    config: Config, env: FunctionalEnv, reward: Reward, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """One iteration: fresh episodes in every lane, then one gradient step on those that ended."""
    key, reset_key, env_key, noise_key, next_key = jax.random.split(state.key, 5)
    network = _network(config, env)
    lanes = rollout.reset_lanes(env, reset_key, config.num_envs, scoring.term_names(env, reward))
    noise = action_noise(env.action_space, noise_key, (config.horizon, config.num_envs))
    policy = partial(network.act, state.params, state.moments)
    lanes, trajectory, extras = rollout.collect(env, policy, lanes, env_key, noise, config.horizon)

    trajectory = trajectory._replace(mask=rollout.before_last(trajectory.done))
    next_noise = action_noise(env.action_space, next_key, trajectory.mask.shape)
    trajectory = rollout.with_next_action(trajectory, policy(trajectory.next_obs, next_noise)[0])
    reward_params, learner_state, taught = scoring.learned_reward(
        reward, state.reward_params, state.learner_state, trajectory, next_key
    )
    output, reward_state = reward.unroll(reward_params, state.reward_state, trajectory)
    lanes, metrics = rollout.episode_metrics(env, lanes._replace(means=state.means), trajectory, output)

    grads, losses = jax.grad(partial(_loss, config, env, state), has_aux=True)(
        state.params, trajectory, extras, output.reward
    )
    updates, opt_state = _optimiser(config).update(grads, state.opt_state)
    learning_rate = base.linear(config.learning_rate, config.learning_rate_end, state.num_updates, config.num_updates)
    params = jax.tree.map(lambda p, u: p - learning_rate * u, state.params, updates)
    moments = network.update_moments(state.moments, trajectory.obs, trajectory.mask)

    fault = scoring.find_fault(state.fault, output, state.num_updates * config.horizon)
    new = TrainState(
        params, opt_state, moments, reward_params, reward_state, lanes.means, key, state.num_updates + 1, fault,
        learner_state,
    )  # fmt: skip
    env_steps = (state.num_updates + 1).astype(jnp.float32) * config.steps_per_update
    new = scoring.stop_on_fault(new, state, aside=("learner_state",))
    return new, {**metrics, **losses, **taught, "env_steps": env_steps}


def act(
    config: Config, env: FunctionalEnv, state: TrainState, obs: Any, key: Any, *, deterministic: bool = False
) -> Array:
    """Actions ``[B, ...]`` for observations ``[B, ...]``, in the environment's action space."""
    batch = jax.tree.leaves(obs)[0].shape[0]
    noise = action_noise(env.action_space, key, (batch,)) * (0.0 if deterministic else 1.0)
    return _network(config, env).act(state.params, state.moments, obs, noise)[0]


def check(env: FunctionalEnv) -> None:
    """Refuse an environment with other actions than Discrete or a Box; see :class:`reward_design.agents.base.Agent`."""
    discrete_or_box(env.action_space, "reinforce")


AGENT = base.Agent(
    "reinforce", "Monte-Carlo policy gradient on whole episodes, with a learned, mean or no baseline", Config,
    init, update, act, check=check, learns_reward=True,
)  # fmt: skip


def train(
    config: Config, env: FunctionalEnv | Task, reward: Reward, key: Any, *, reward_params: Any = None
) -> base.TrainResult:
    """Train REINFORCE in one jit; vmap it over keys or float settings. Arguments and errors as in ``ppo.train``.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.agents import reinforce
        >>> from reward_design.envs import task
        >>> config = reinforce.Config(total_timesteps=1600, num_envs=4, horizon=200)
        >>> result = reinforce.train(config, task("chain"), rd.environment_reward(), jax.random.key(0))
        >>> result.metrics["length"].shape
        (2,)
    """
    return base.train(AGENT, config, env, reward, key, reward_params=reward_params)


def returns_to_go(
    reward: Float[Array, "time lanes"],
    bootstrap: Float[Array, "time lanes"],
    done: Bool[Array, "time lanes"],
    *,
    gamma: Any,
) -> Float[Array, "time lanes"]:
    """G_t = r_t + gamma G_{t+1} inside an episode, and r_t + gamma bootstrap_t at its last step.

    Args:
        reward: rewards.
        bootstrap: value of what follows the last step of an episode: 0 where it terminated.
        done: last steps of episodes.
        gamma: discount per environment step.

    Returns:
        Returns ``[T, B]``.
    """

    def body(following: Array, xs: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        r, b, d = xs
        following = r + gamma * jnp.where(d, b, following)
        return following, following

    return jax.lax.scan(body, jnp.zeros_like(reward[0]), (reward, bootstrap, done), reverse=True, unroll=16)[1]


def _loss(
    config: Config, env: FunctionalEnv, state: TrainState, params: Any, trajectory: Transition, extras: Any, reward: Any
) -> tuple[Float[Array, ""], dict[str, Array]]:
    raw = extras.raw
    network, mask = _network(config, env), trajectory.mask
    x = network.inputs(state.moments, trajectory.obs)
    value, bootstrap = network.value(params, x), jnp.zeros_like(reward)
    if config.baseline == "value":
        final = network.value(state.params, network.inputs(state.moments, trajectory.next_obs))
        bootstrap = jnp.where(trajectory.truncated & ~trajectory.terminated, final, 0.0)
    target = returns_to_go(reward, bootstrap, trajectory.done, gamma=config.gamma)

    mean = lambda values: jnp.sum(values * mask) / mask.sum()  # noqa: E731
    baseline = {"value": jax.lax.stop_gradient(value), "mean": mean(target), "none": 0.0}[config.baseline]
    weight = config.gamma ** _time_in_episode(trajectory.done) if config.discount_states else 1.0
    log_prob, entropy = network.log_prob_entropy(params, network.head(params, x, network.mask(trajectory.obs)), raw)
    policy_loss = -mean(weight * log_prob * (target - baseline))
    value_loss = 0.5 * mean(jnp.square(value - target)) if config.baseline == "value" else jnp.float32(0.0)
    coef = base.linear(config.entropy_coef, config.entropy_coef_end, state.num_updates, config.num_updates)
    losses = {"policy_loss": policy_loss, "value_loss": value_loss, "entropy": mean(entropy)}
    return policy_loss + config.value_coef * value_loss - coef * losses["entropy"], losses


def _time_in_episode(done: Bool[Array, "time lanes"]) -> Float[Array, "time lanes"]:
    """Steps since the start of the episode; every lane starts one at step 0."""
    steps = jnp.arange(done.shape[0], dtype=jnp.float32)[:, None]
    starts = jnp.where(jnp.roll(done, 1, axis=0).at[0].set(True), steps, 0.0)
    return steps - jax.lax.cummax(starts, axis=0)


def _network(config: Config, env: FunctionalEnv) -> ActorCritic:
    return ActorCritic(env, config.hidden, config.normalise_obs)


def _optimiser(config: Config) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5))
