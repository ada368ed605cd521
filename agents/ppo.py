"""Proximal policy optimisation on the device: rollout, reward, advantages and update in one jit.

Source: Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal Policy Optimization Algorithms", 2017,
arXiv:1707.06347; generalised advantages: Schulman et al., "High-Dimensional Continuous Control Using Generalized
Advantage Estimation", 2015, arXiv:1506.02438.
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from gymnasium.vector import VectorEnv
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float, Int

from reward_design.agents import base, host, networks, rollout
from reward_design.agents.actor_critic import ActorCritic, action_noise
from reward_design.agents.collector import HostPolicy
from reward_design.agents.host_policy import actor_policy
from reward_design.core import Reward, State, Transition
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv
from reward_design.transforms import normalise_by_return


@base.config
class Config:
    """Settings of PPO. Float fields may be swept with ``jax.vmap``; schedules are linear over the run.

    Attributes:
        total_timesteps: environment steps over all lanes (rounded down to whole updates).
        num_envs: parallel lanes B.
        num_steps: steps per lane and update T.
        num_epochs: passes over each rollout.
        num_minibatches: gradient steps per pass; must divide ``num_envs * num_steps``.
        hidden: widths of the tanh layers of actor and critic.
        normalise_obs: scale observations by running moments (kept with the policy); discrete ones are one-hot.
        normalise_reward: learn from the reward over the running spread of its discounted return, so that its scale does
            not matter (:func:`reward_design.normalise_by_return`); metrics stay those of the reward itself.
        clip_value: clip the critic's change as well as the actor's.
        learning_rate: at the start.
        learning_rate_end: at the end of the run.
        entropy_coef: weight of the entropy bonus at the start.
        entropy_coef_end: at the end of the run.
        gamma: discount per environment step, in [0, 1]; must equal the reward's.
        gae_lambda: in [0, 1].
        clip_ratio: PPO's epsilon.
        value_coef: weight of the critic's loss.
        max_grad_norm: global gradient clipping.
    """

    total_timesteps: int = 200_000
    num_envs: int = 8
    num_steps: int = 64
    num_epochs: int = 4
    num_minibatches: int = 4
    hidden: tuple[int, ...] = (64, 64)
    normalise_obs: bool = True
    normalise_reward: bool = False
    clip_value: bool = False
    learning_rate: float = 1e-3
    learning_rate_end: float = 0.0
    entropy_coef: float = 0.01
    entropy_coef_end: float = 0.01
    gamma: float = 0.99
    gae_lambda: float = 0.95
    clip_ratio: float = 0.2
    value_coef: float = 0.5
    max_grad_norm: float = 0.5

    def __post_init__(self) -> None:
        if self.steps_per_update % self.num_minibatches:
            raise ValueError(
                f"num_minibatches must divide num_envs * num_steps = {self.steps_per_update}, "
                f"got {self.num_minibatches}."
            )
        if self.num_updates < 1:
            raise ValueError(
                f"total_timesteps must be at least num_envs * num_steps = {self.steps_per_update}, "
                f"got {self.total_timesteps}."
            )

    @property
    def steps_per_update(self) -> int:
        """Environment steps per update, over all lanes."""
        return self.num_envs * self.num_steps

    @property
    def num_updates(self) -> int:
        """Updates in the run."""
        return self.total_timesteps // self.steps_per_update


class TrainState(NamedTuple):
    """Everything that a run needs to go on from where it is."""

    params: Any
    opt_state: Any
    moments: networks.Moments
    reward_params: Any
    reward_state: State
    reward_scale: Any
    lanes: rollout.Lanes
    key: Any
    num_updates: Any
    fault: base.Fault


NORMALISER = normalise_by_return(gamma=0.0)  # gamma is one of its params: the run's own takes its place


class Batch(NamedTuple):
    """Rows ``[T * B]`` of one rollout, as the loss needs them."""

    features: Array
    action: Array
    log_prob: Array
    value: Array
    advantage: Array
    target: Array


def init(
    config: Config, env: FunctionalEnv | HostEnv, reward: Reward, key: Any, reward_params: Any = None
) -> TrainState:
    """State at the start of a run; see :class:`reward_design.agents.base.Agent`."""
    key, policy_key, reward_key, env_key = jax.random.split(key, 4)
    params, moments = _network(config, env).init(policy_key)
    example = base.reward_example(env, config.num_envs)
    own_params, reward_state = reward.init(reward_key, example)
    return TrainState(
        params=params,
        opt_state=_optimiser(config).init(ravel_pytree(params)[0]),
        moments=moments,
        reward_params=own_params if reward_params is None else reward_params,
        reward_state=reward_state,
        reward_scale=NORMALISER.init(key, example)[1] if config.normalise_reward else (),
        lanes=rollout.reset_lanes(env, env_key, config.num_envs, base.term_names(env, reward)),
        key=key,
        num_updates=jnp.int32(0),
        fault=base.no_fault(),
    )


def update(
    config: Config, env: FunctionalEnv, reward: Reward, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """One iteration: collect a rollout on the device, then :func:`improve`."""
    key, env_key, noise_key = jax.random.split(state.key, 3)
    noise = action_noise(env.action_space, noise_key, (config.num_steps, config.num_envs))
    policy = partial(_network(config, env).act, state.params, state.moments)
    lanes, trajectory, extras = rollout.collect(env, policy, state.lanes, env_key, noise, config.num_steps)
    return improve(config, env, reward, state._replace(lanes=lanes, key=key), trajectory, extras)


def improve(
    config: Config, env: FunctionalEnv | HostEnv, reward: Reward, state: TrainState, trajectory: Transition, extras: Any
) -> tuple[TrainState, dict[str, Array]]:
    """Compute the reward of a rollout once, then several epochs of minibatch ascent; the same for every environment.

    Args:
        config: settings.
        env: where the rollout comes from.
        reward: the reward to learn from.
        state: the run so far.
        trajectory: ``[T, B]``.
        extras: ``(raw actions, heads)`` of the policy that collected it, see :meth:`ActorCritic.act`.

    Returns:
        The new state, and metrics as scalars.
    """
    key, next_key, shuffle_key = jax.random.split(state.key, 3)
    network = _network(config, env)
    next_noise = action_noise(env.action_space, next_key, trajectory.mask.shape)
    next_action, _ = network.act(state.params, state.moments, trajectory.next_obs, next_noise)
    trajectory = rollout.with_next_action(trajectory, next_action)
    output, reward_state = reward.unroll(state.reward_params, state.reward_state, trajectory)
    lanes, metrics = rollout.episode_metrics(env, state.lanes, trajectory, output)

    learned, reward_scale = _scaled(config, state.reward_scale, trajectory, output.reward)
    batch, entropy = _batch(config, env, state, trajectory, extras, learned)
    params, opt_state, losses = _learn(config, env, state, batch, shuffle_key)
    moments = network.update_moments(state.moments, trajectory.obs)
    fault = base.find_fault(state.fault, output, state.num_updates * config.num_steps)
    new = TrainState(
        params, opt_state, moments, state.reward_params, reward_state, reward_scale, lanes, key,
        state.num_updates + 1, fault,
    )  # fmt: skip
    env_steps = ((state.num_updates + 1) * config.steps_per_update).astype(jnp.float32)
    return base.stop_on_fault(new, state), {**metrics, **losses, "entropy": entropy, "env_steps": env_steps}


def act(
    config: Config, env: FunctionalEnv | HostEnv, state: TrainState, obs: Any, key: Any, *, deterministic: bool = False
) -> Array:
    """Actions ``[B, ...]`` for observations ``[B, ...]``, in the environment's action space."""
    batch = jax.tree.leaves(obs)[0].shape[0]
    noise = action_noise(env.action_space, key, (batch,)) * (0.0 if deterministic else 1.0)
    return _network(config, env).act(state.params, state.moments, obs, noise)[0]


def host_policy(
    config: Config, env: FunctionalEnv | HostEnv, state: TrainState, *, deterministic: bool = False
) -> HostPolicy:
    """The policy of ``state`` for observations on the host."""
    return actor_policy(_network(config, env), state.params, state.moments, deterministic=deterministic)


AGENT = base.Agent(
    "ppo", "proximal policy optimisation; discrete and continuous actions, separate actor and critic", Config,
    init, update, act, improve, host_policy,
)  # fmt: skip


def train(
    config: Config, env: FunctionalEnv | Task, reward: Reward, key: Any, *, reward_params: Any = None
) -> base.TrainResult:
    """Train PPO in one jit; vmap it over keys or float settings.

    Args:
        config: settings.
        env: functional environment, or a task.
        reward: any reward; it is unrolled once per rollout of ``num_steps``, before the advantages.
        key: random key.
        reward_params: parameters of the reward, if not its own initial ones (for sweeps and learned rewards).

    Returns:
        The final state and metrics ``[num_updates]``, see :class:`reward_design.agents.base.TrainResult`.

    Raises:
        ValueError: if the reward discounts with another gamma.
        NonFiniteRewardError: naming reward, term and step.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.agents import ppo
        >>> from reward_design.envs import task
        >>> config = ppo.Config(total_timesteps=512, num_envs=4, num_steps=64)
        >>> result = ppo.train(config, task("chain"), rd.environment_reward(), jax.random.key(0))
        >>> result.metrics["true_return"].shape
        (2,)
    """
    return base.train(AGENT, config, env, reward, key, reward_params=reward_params)


def train_host(
    config: Config,
    vector_env: VectorEnv,
    reward: Reward,
    key: Any,
    *,
    reward_params: Any = None,
    overlap: bool = False,
) -> base.TrainResult:
    """Train PPO on a gymnasium vector environment: the same update as on the device, between rollouts on the host.

    Args:
        config: settings; ``num_envs`` is taken from the environment.
        vector_env: any gymnasium vector environment, ``task.vector(num_envs)`` for one.
        reward: any reward; it is unrolled once per rollout of ``num_steps``, before the advantages.
        key: random key; also seeds the environments.
        reward_params: parameters of the reward, if not its own initial ones.
        overlap: collect the next rollout with the previous policy while the update runs on another core. Faster on two
            cores and more; the importance ratio accounts for the older policy.

    Returns:
        The final state and metrics ``[num_updates]``, see :class:`reward_design.agents.base.TrainResult`.

    Raises:
        TypeError: for spaces that the agent cannot serve.
        ValueError: if the reward discounts with another gamma.
        NonFiniteRewardError: naming reward, term and step.

    Example:
        >>> import gymnasium, jax, reward_design as rd
        >>> from reward_design.agents import ppo
        >>> envs = gymnasium.make_vec("CartPole-v1", num_envs=4)
        >>> config = ppo.Config(total_timesteps=512, num_steps=64)
        >>> ppo.train_host(config, envs, rd.environment_reward(), jax.random.key(0)).metrics["true_return"].shape
        (2,)
    """
    return host.train_host(AGENT, config, vector_env, reward, key, reward_params=reward_params, overlap=overlap)


# --- parts ----------------------------------------------------------------------------------------------------------


def advantages(
    reward: Float[Array, "time lanes"],
    value: Float[Array, "time lanes"],
    next_value: Float[Array, "time lanes"],
    terminated: Bool[Array, "time lanes"],
    truncated: Bool[Array, "time lanes"],
    *,
    gamma: Any,
    gae_lambda: Any,
) -> Float[Array, "time lanes"]:
    """Generalised advantages: A_t = d_t + gamma lambda (1 - done_t) A_{t+1}, d_t = r_t + gamma (1 - term_t) V'_t - V_t.

    Bootstraps from the true successor unless the episode terminated; the recursion is cut at every episode end.

    Args:
        reward: rewards.
        value: V(s_t).
        next_value: V of the true successor of each step.
        terminated: terminal steps.
        truncated: steps where a time limit cut the episode.
        gamma: discount per environment step.
        gae_lambda: in [0, 1].

    Returns:
        Advantages ``[T, B]``.
    """
    delta = reward + gamma * next_value * ~terminated - value
    decay = gamma * gae_lambda * ~(terminated | truncated)

    def body(carry: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        carry = xs[0] + xs[1] * carry
        return carry, carry

    return jax.lax.scan(body, jnp.zeros_like(delta[0]), (delta, decay), reverse=True, unroll=16)[1]


def permutations(key: Any, num: int, size: int) -> Int[Array, "num size"]:
    """``num`` independent random orders of ``range(size)``, for the epochs of a rollout.

    Each row number, in the low bits of a random word, is sorted by the random bits above it: sorting plain numbers
    takes a quarter of the time of the sort by key in ``jax.random.permutation``, which serves sizes that would leave
    fewer than 16 random bits. Two rows with equal random bits keep their order.

    Args:
        key: random key.
        num: number of orders.
        size: length of each.

    Returns:
        Indices ``[num, size]``.
    """
    low = (size - 1).bit_length()
    if low > 16:
        return jax.vmap(lambda k: jax.random.permutation(k, size))(jax.random.split(key, num))
    random = jax.random.bits(key, (num, size), jnp.uint32) >> low << low
    rows = jnp.sort(random | jnp.arange(size, dtype=jnp.uint32)[None], axis=1)
    return (rows & (2**low - 1)).astype(jnp.int32)


def _network(config: Config, env: FunctionalEnv | HostEnv) -> ActorCritic:
    return _actor_critic(env, config.hidden, config.normalise_obs)


@lru_cache(maxsize=64)  # one object, which compiled policies on the host are kept for
def _actor_critic(env: FunctionalEnv | HostEnv, hidden: tuple[int, ...], normalise_obs: bool) -> ActorCritic:
    return ActorCritic(env, hidden, normalise_obs)


def _optimiser(config: Config) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam(eps=1e-5))


def _scaled(config: Config, scale: Any, trajectory: Transition, reward: Array) -> tuple[Array, Any]:
    """The reward that is learned from, and the running spread of its return."""
    if not config.normalise_reward:
        return reward, scale
    params = {"gamma": config.gamma, "epsilon": 1e-8}
    output, scale = NORMALISER.unroll(params, scale, trajectory._replace(reward=reward))
    return output.reward, scale


def _batch(
    config: Config, env: FunctionalEnv | HostEnv, state: TrainState, trajectory: Transition, extras: Any, reward: Array
) -> tuple[Batch, Float[Array, ""]]:
    """Values, log-probabilities and advantages of the whole rollout at once, and the policy's mean entropy."""
    raw, head = extras
    network = _network(config, env)
    x = network.inputs(state.moments, trajectory.obs)
    value = network.value(state.params, x)
    next_value = network.value(state.params, network.inputs(state.moments, trajectory.next_obs))
    advantage = advantages(
        reward, value, next_value, trajectory.terminated, trajectory.truncated,
        gamma=config.gamma, gae_lambda=config.gae_lambda,
    )  # fmt: skip
    log_prob, entropy = network.log_prob_entropy(state.params, head, raw)
    batch = Batch(x, raw, log_prob, value, advantage, advantage + value)
    batch = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), batch)
    if isinstance(env, HostEnv):  # rows that are no experience make way for others; on the device there are none
        rows = jnp.nonzero(trajectory.mask.ravel(), size=trajectory.mask.size, fill_value=-1)[0]
        rows = rows[jnp.arange(len(rows)) % jnp.maximum(trajectory.mask.sum(), 1)]
        batch = jax.tree.map(lambda leaf: leaf[rows], batch)
    return batch, entropy.mean()


def _learn(
    config: Config, env: FunctionalEnv | HostEnv, state: TrainState, batch: Batch, key: Any
) -> tuple[Any, Any, dict[str, Array]]:
    schedule = partial(base.linear, step=state.num_updates, num_steps=config.num_updates)
    learning_rate = schedule(config.learning_rate, config.learning_rate_end)
    entropy_coef = schedule(config.entropy_coef, config.entropy_coef_end)
    optimiser = _optimiser(config)
    vector, as_params = ravel_pytree(state.params)  # one vector: the optimiser is a few kernels, not a few per layer

    def step(carry: Any, rows: Array) -> tuple[Any, dict[str, Array]]:
        vector, opt_state = carry
        minibatch = jax.tree.map(lambda leaf: leaf[rows], batch)
        loss = partial(_loss, config, env, entropy_coef)
        grads, losses = jax.grad(lambda vector: loss(as_params(vector), minibatch), has_aux=True)(vector)
        updates, opt_state = optimiser.update(grads, opt_state)
        return (vector - learning_rate * updates, opt_state), losses

    rows = permutations(key, config.num_epochs, config.steps_per_update)
    rows = rows.reshape(config.num_epochs * config.num_minibatches, -1)
    (vector, opt_state), losses = jax.lax.scan(step, (vector, state.opt_state), rows)
    return as_params(vector), opt_state, jax.tree.map(jnp.mean, losses)


def _loss(
    config: Config, env: FunctionalEnv | HostEnv, entropy_coef: Any, params: Any, batch: Batch
) -> tuple[Float[Array, ""], dict[str, Array]]:
    network = _network(config, env)
    value = network.value(params, batch.features)
    log_prob, entropy = network.log_prob_entropy(params, network.head(params, batch.features), batch.action)

    ratio = jnp.exp(log_prob - batch.log_prob)
    advantage = (batch.advantage - batch.advantage.mean()) / (batch.advantage.std() + 1e-8)
    clipped = jnp.clip(ratio, 1 - config.clip_ratio, 1 + config.clip_ratio)
    policy_loss = -jnp.mean(jnp.minimum(ratio * advantage, clipped * advantage))

    error = jnp.square(value - batch.target)
    if config.clip_value:
        near = batch.value + jnp.clip(value - batch.value, -config.clip_ratio, config.clip_ratio)
        error = jnp.maximum(error, jnp.square(near - batch.target))
    value_loss = 0.5 * error.mean()
    losses = {"policy_loss": policy_loss, "value_loss": value_loss}
    return policy_loss + config.value_coef * value_loss - entropy_coef * entropy.mean(), losses
