"""Deep Q-learning on the device: double, dueling, n-step, prioritised; actions may be masked by the observation.

Sources: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015; van Hasselt, Guez and
Silver, "Deep Reinforcement Learning with Double Q-learning", 2015, arXiv:1509.06461; Wang et al., "Dueling Network
Architectures for Deep Reinforcement Learning", 2015, arXiv:1511.06581; Schaul et al., "Prioritized Experience Replay",
2015, arXiv:1511.05952.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from jaxtyping import Array, Float, Int

from reward_design.agents import base, host, networks, off_policy, rollout
from reward_design.agents.collector import HostPolicy
from reward_design.agents.off_policy import Batch, Learner, Rule, TrainState
from reward_design.agents.q_networks import Inputs, ReluMLP, discrete, numpy_relu_mlp
from reward_design.core import Reward, Transition
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv


@base.config
class Config(off_policy.Settings):
    """Settings of DQN. Float fields may be swept with ``jax.vmap``.

    Attributes:
        total_timesteps: environment steps over all lanes (rounded down to whole iterations).
        num_envs: parallel lanes B.
        num_steps: steps per lane and iteration; then ``num_envs * num_steps / train_every`` gradient steps follow in
            one call.
        train_every: environment steps per gradient step.
        batch_size: transitions of a gradient step.
        capacity: transitions kept, over all lanes.
        learning_starts: environment steps with uniformly random actions and without learning at the start.
        n_step: rewards summed before the bootstrap.
        prioritised: sample in proportion to the error instead of uniformly.
        double: the online network chooses the action that the target network values.
        dueling: Q = V + A - mean A instead of Q itself at the output.
        target_period: gradient steps between copies into the target network; None moves it by ``tau`` each step.
        hidden: widths of the relu layers.
        normalise_obs: scale observations by running moments (kept with the policy); discrete ones are one-hot.
        learning_rate: of Adam.
        tau: share of the network that moves into the target network at each gradient step, without ``target_period``.
        epsilon: probability of a uniform action when learning starts.
        epsilon_end: after the exploration phase; linear in between.
        exploration_fraction: share of the run until ``epsilon_end`` is reached, in (0, 1].
        huber_delta: errors are squared up to here and linear beyond. Where most errors are beyond, Q becomes the median
            of its targets instead of the mean, and rare terminations are outvoted: keep it in scale with the returns
            (1 suits rewards clipped to [-1, 1] that are paid seldom).
        max_grad_norm: global gradient clipping.
        gamma: discount per environment step, in [0, 1]; must equal the reward's.
        priority_exponent: alpha, with ``prioritised``.
        importance_exponent: beta at the start, with ``prioritised``; 1 at the end.
    """

    train_every: int = 4
    batch_size: int = 128
    double: bool = True
    dueling: bool = False
    target_period: int | None = None
    epsilon: float = 1.0
    epsilon_end: float = 0.05
    exploration_fraction: float = 0.2
    huber_delta: float = 10.0
    max_grad_norm: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("train_every", "target_period"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        _ = self.num_gradient_steps

    @property
    def num_gradient_steps(self) -> int:
        """Gradient steps per iteration."""
        return off_policy.whole(self.steps_per_update / self.train_every, "num_envs * num_steps / train_every")


def init(
    config: Config, env: FunctionalEnv | HostEnv, reward: Reward, key: Any, reward_params: Any = None
) -> TrainState:
    """State at the start of a run; see :class:`reward_design.agents.base.Agent`."""
    nets = _nets(config, env)
    key, network_key = jax.random.split(key)
    online = nets.mlp.init(network_key, jnp.zeros(nets.inputs.num_features))
    params = {"online": online, "target": jax.tree.map(jnp.array, online)}
    learner = Learner(params, _optimiser(config).init(online), jnp.int32(0))
    return off_policy.init("dqn", config, env, reward, key, reward_params, learner, nets.inputs)


def update(
    config: Config, env: FunctionalEnv, reward: Reward, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """One iteration: collect a rollout on the device, then :func:`improve`."""
    nets = _nets(config, env)
    key, env_key, noise_key = jax.random.split(state.key, 3)
    draws = jax.random.uniform(noise_key, (config.num_steps, config.num_envs, 1 + nets.num_actions))
    epsilon = _epsilon(config, state.num_updates)

    def policy(obs: Any, draws: Array) -> tuple[Array, tuple[()]]:
        return nets.explore(nets.q(state.params["online"], state.moments, obs), obs, epsilon, draws), ()

    lanes, trajectory, extras = rollout.collect(env, policy, state.lanes, env_key, draws, config.num_steps)
    return improve(config, env, reward, state._replace(lanes=lanes, key=key), trajectory, extras)


def improve(
    config: Config, env: FunctionalEnv | HostEnv, reward: Reward, state: TrainState, trajectory: Transition, extras: Any
) -> tuple[TrainState, dict[str, Array]]:
    """Store a rollout, then ``num_gradient_steps``; see :func:`reward_design.agents.off_policy.improve`."""
    state, metrics = off_policy.improve(RULE, config, env, _nets(config, env).inputs, reward, state, trajectory)
    epsilon = jnp.asarray(_epsilon(config, state.num_updates - 1), jnp.float32)
    return state, {**metrics, "epsilon": epsilon}


def act(
    config: Config, env: FunctionalEnv | HostEnv, state: TrainState, obs: Any, key: Any, *, deterministic: bool = False
) -> Int[Array, " batch"]:
    """Actions ``[B]`` for observations ``[B, ...]``: greedy, or epsilon-greedy as training now is."""
    nets = _nets(config, env)
    q = nets.q(state.params["online"], state.moments, obs)
    draws = jax.random.uniform(key, (q.shape[0], 1 + nets.num_actions))
    return nets.explore(q, obs, 0.0 if deterministic else _epsilon(config, state.num_updates), draws)


def host_policy(config: Config, env: HostEnv, state: TrainState, *, deterministic: bool = False) -> HostPolicy:
    """The policy of ``state`` for environments on the host."""
    nets = _nets(config, env)
    online, moments = jax.tree.map(np.array, (state.params["online"], state.moments))  # copies: buffers are reused
    epsilon = 0.0 if deterministic else float(_epsilon(config, int(state.num_updates)))
    inputs, mlp = nets.inputs.in_numpy(moments), numpy_relu_mlp(online)

    def policy(obs: Any, rng: np.random.Generator) -> tuple[np.ndarray, tuple[()]]:
        lanes = len(jax.tree.leaves(obs)[0])
        out = mlp(inputs(obs))
        values = nets.allowed(_dueling(out, np) if nets.dueling else out, obs, np)
        random = nets.allowed(rng.random((lanes, nets.num_actions)), obs, np)
        explores = rng.random(lanes) < epsilon
        action = np.where(explores, random.argmax(axis=-1), values.argmax(axis=-1))
        return action.astype(np.int32) + int(nets.space.start), ()

    return policy


def train(
    config: Config, env: FunctionalEnv | Task, reward: Reward, key: Any, *, reward_params: Any = None
) -> base.TrainResult:
    """Train DQN in one jit; vmap it over keys or float settings.

    Args:
        config: settings.
        env: functional environment with Discrete actions, or such a task. Where the observation is a Dict with the key
            ``"action_mask"``, forbidden actions are neither taken nor assumed in targets.
        reward: a reward of kind POINTWISE or CAUSAL; computed when transitions are sampled.
        key: random key.
        reward_params: parameters of the reward, if not its own initial ones (for sweeps and learned rewards).

    Returns:
        The final state and metrics ``[num_updates]``, see :class:`reward_design.agents.base.TrainResult`; here also
        ``td_loss`` and ``q`` (NaN before learning starts) and ``epsilon``.

    Raises:
        TypeError: if the actions are not Discrete, or the reward needs whole episodes.
        ValueError: if the reward discounts with another gamma, or the replay does not fit into memory.
        NonFiniteRewardError: naming reward, term and step.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.agents import dqn
        >>> from reward_design.envs import task
        >>> config = dqn.Config(total_timesteps=32, num_envs=4, num_steps=4, learning_starts=16, hidden=(8,))
        >>> result = dqn.train(config, task("chain"), rd.environment_reward(), jax.random.key(0))
        >>> result.metrics["td_loss"].shape
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
    """Train DQN on a gymnasium vector environment: the same gradient steps as on the device, between short rollouts.

    Args:
        config: settings; ``num_envs`` is taken from the environment.
        vector_env: any gymnasium vector environment, ``task.vector(num_envs)`` for one.
        reward: a reward of kind POINTWISE or CAUSAL; computed when transitions are sampled.
        key: random key; also seeds the environments.
        reward_params: parameters of the reward, if not its own initial ones.
        overlap: step the environments with the policy of one iteration ago while the gradient steps run elsewhere.

    Returns:
        The final state and metrics ``[num_updates]``, as from :func:`train`.

    Raises:
        TypeError: if the actions are not Discrete, or the reward needs whole episodes.
        ValueError: if the reward discounts with another gamma, or the replay does not fit into memory.
        NonFiniteRewardError: naming reward, term and step.

    Example:
        >>> import gymnasium, jax, reward_design as rd
        >>> from reward_design.agents import dqn
        >>> envs = gymnasium.make_vec("CartPole-v1", num_envs=2)
        >>> config = dqn.Config(total_timesteps=32, num_envs=2, num_steps=8, learning_starts=16, hidden=(8,))
        >>> dqn.train_host(config, envs, rd.environment_reward(), jax.random.key(0)).metrics["td_loss"].shape
        (2,)
    """
    return host.train_host(AGENT, config, vector_env, reward, key, reward_params=reward_params, overlap=overlap)


# --- parts ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Networks:
    """The network of one configuration, and how actions are chosen from its values."""

    inputs: Inputs
    mlp: ReluMLP
    dueling: bool
    space: spaces.Discrete

    @property
    def num_actions(self) -> int:
        """Actions."""
        return int(self.space.n)

    def q(self, params: Any, moments: networks.Moments, obs: Any) -> Float[Array, "batch actions"]:
        """Q(s, ·) of all actions, allowed or not."""
        out = jnp.asarray(self.mlp.apply(params, self.inputs(moments, obs)))
        return _dueling(out, jnp) if self.dueling else out

    def allowed(self, values: Any, obs: Any, xp: Any = jnp) -> Any:
        """Values ``[batch, actions]`` with those of forbidden actions very low."""
        return networks.masked(values, networks.action_mask(self.inputs.space, obs), xp)

    def greedy(self, q: Array, obs: Any) -> Int[Array, " batch"]:
        """Index of the best allowed action."""
        return jnp.argmax(self.allowed(q, obs), axis=-1)

    def explore(self, q: Array, obs: Any, epsilon: Any, draws: Array) -> Int[Array, " batch"]:
        """Epsilon-greedy actions of the space; ``draws`` are uniform ``[batch, 1 + actions]``."""
        random = jnp.argmax(self.allowed(draws[:, 1:], obs), axis=-1)
        return self.to_env(jnp.where(draws[:, 0] < epsilon, random, self.greedy(q, obs)))

    def to_env(self, index: Array) -> Int[Array, " batch"]:
        """From 0, 1, ... to the space."""
        return index.astype(jnp.int32) + int(self.space.start)


def _dueling(out: Any, xp: Any) -> Any:
    """Q = V + A - mean A, from V and A side by side."""
    value, advantage = out[..., :1], out[..., 1:]
    return xp.broadcast_to(value - advantage.mean(axis=-1, keepdims=True), advantage.shape) + advantage


def _nets(config: Config, env: FunctionalEnv | HostEnv) -> Networks:
    return _cached_nets(env, config.hidden, config.normalise_obs, config.dueling)


@lru_cache(maxsize=64)
def _cached_nets(env: FunctionalEnv | HostEnv, hidden: tuple[int, ...], normalise_obs: bool, dueling: bool) -> Networks:
    space = discrete(env.action_space, "dqn")
    networks.check_action_mask(env.observation_space, space)
    return Networks(Inputs(env, normalise_obs), ReluMLP(hidden, int(space.n) + dueling), dueling, space)


def _optimiser(config: Config) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam())


def _epsilon(config: Config, num_updates: Any) -> Any:
    """Probability of a uniform action in an iteration; 1 before learning starts."""
    explored = num_updates / (config.exploration_fraction * config.num_updates)
    explored = jnp.minimum(explored, 1.0)
    scheduled = config.epsilon + explored * (config.epsilon_end - config.epsilon)
    return jnp.where(num_updates * config.steps_per_update < config.learning_starts, 1.0, scheduled)


def _bootstrap(
    config: Config, env: FunctionalEnv | HostEnv, learner: Learner, moments: networks.Moments, next_obs: Any, noise: Any
) -> tuple[Array, Float[Array, " samples"]]:
    """The best allowed action in the successor, by the online or the target network, and the target network's value."""
    nets = _nets(config, env)
    target = nets.q(learner.params["target"], moments, next_obs)
    chooser = nets.q(learner.params["online"], moments, next_obs) if config.double else target
    action = nets.greedy(chooser, next_obs)
    return nets.to_env(action), _chosen(target, action)


def _fit(
    config: Config, env: FunctionalEnv | HostEnv, learner: Learner, moments: networks.Moments, batch: Batch, noise: Any
) -> tuple[Learner, Float[Array, " samples"], dict[str, Array]]:
    """One gradient step on the Huber loss, then the target network."""
    grads, (loss, error, q) = jax.grad(_loss, has_aux=True)(
        learner.params["online"], config, _nets(config, env), moments, batch
    )
    updates, opt_state = _optimiser(config).update(grads, learner.opt_state)
    online = jax.tree.map(lambda p, u: p - config.learning_rate * u, learner.params["online"], updates)
    num_steps = learner.num_steps + 1
    period = config.target_period
    share = config.tau if period is None else jnp.where(num_steps % period == 0, 1.0, 0.0)
    target = jax.tree.map(lambda t, p: t + share * (p - t), learner.params["target"], online)
    return Learner({"online": online, "target": target}, opt_state, num_steps), error, {"td_loss": loss, "q": q}


def _loss(
    params: Any, config: Config, nets: Networks, moments: networks.Moments, batch: Batch
) -> tuple[Array, tuple[Array, Array, Array]]:
    """Mean Huber loss of Q(s, a) - y; also the errors and the mean of Q."""
    index = jnp.asarray(batch.action, jnp.int32) - int(nets.space.start)
    q = _chosen(nets.q(params, moments, batch.obs), index)
    error = q - batch.target
    loss = jnp.mean(batch.weight * huber(error, config.huber_delta))
    return loss, (loss, error, q.mean())


def huber(error: Float[Array, " samples"], delta: Any) -> Float[Array, " samples"]:
    """½ e² up to |e| = δ, δ (|e| - ½ δ) beyond."""
    size = jnp.abs(error)
    inner = jnp.minimum(size, delta)
    return 0.5 * inner**2 + delta * (size - inner)


def _chosen(values: Float[Array, "samples actions"], index: Int[Array, " samples"]) -> Float[Array, " samples"]:
    return jnp.take_along_axis(values, index[:, None], axis=1)[:, 0]


RULE = Rule("dqn", act, lambda config, env, key: jnp.zeros(config.num_gradient_steps), _bootstrap, _fit)
AGENT = base.Agent(
    "dqn", "deep Q-learning; discrete actions, double, dueling, n-step and prioritised, off-policy", Config,
    init, update, act, improve, host_policy,
)  # fmt: skip
