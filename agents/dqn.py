"""Deep Q-learning on the device: double, dueling, n-step, prioritised; actions may be masked by the observation.

Sources: Mnih et al., "Human-level control through deep reinforcement learning", Nature 2015; van Hasselt, Guez and
Silver, "Deep Reinforcement Learning with Double Q-learning", 2015, arXiv:1509.06461; Wang et al., "Dueling Network
Architectures for Deep Reinforcement Learning", 2015, arXiv:1511.06581; Schaul et al., "Prioritized Experience Replay",
2015, arXiv:1511.05952.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from gymnasium.vector import VectorEnv
from jaxtyping import Array, Float, Int

from reward_design.agents import base, host, networks, off_policy, rollout
from reward_design.agents.action_spaces import discrete
from reward_design.agents.collector import HostPolicy
from reward_design.agents.dqn_networks import Networks, networks_for
from reward_design.agents.off_policy import Batch, Learner, Rule, TrainState
from reward_design.agents.settings import at_least, one_of
from reward_design.agents.torsos import TORSOS
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
        torso: ``"mlp"`` flattens the observation; ``"conv"`` encodes each part of it by its space, with embeddings and
            convolutions, see :func:`reward_design.agents.torsos.part_of`.
        normalise_obs: scale observations by running moments (kept with the policy), but a Discrete or MultiDiscrete
            one; one-hot parts of a Dict or Tuple are scaled, too.
        learning_rate: of Adam.
        tau: share of the network that moves into the target network at each gradient step, without ``target_period``.
        epsilon: probability of a uniform action at the start of the run; until ``learning_starts`` it is 1.
        epsilon_end: after the exploration phase; linear in between.
        exploration_fraction: share of the run until ``epsilon_end`` is reached, in (0, 1]; the steps before
            ``learning_starts`` are part of it.
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
    torso: str = "mlp"
    target_period: int | None = None
    epsilon: float = 1.0
    epsilon_end: float = 0.05
    exploration_fraction: float = 0.2
    huber_delta: float = 10.0
    max_grad_norm: float = 10.0

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, 1, "train_every", "target_period")
        one_of(self, "torso", TORSOS)
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
    online = nets.init(network_key)
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
    epsilon = 0.0 if deterministic else float(_epsilon(config, int(state.num_updates)))
    return _nets(config, env).host_policy(state.params["online"], state.moments, epsilon)


def train(
    config: Config, env: FunctionalEnv | Task, reward: Reward, key: Any, *, reward_params: Any = None
) -> base.TrainResult:
    """Train DQN in one jit; vmap it over keys or float settings.

    Arguments, result and errors are those of :func:`reward_design.agents.base.train`. Actions are Discrete;
    where the observation is a Dict with the key ``"action_mask"``, forbidden ones are neither taken nor assumed in
    targets. The reward is of kind POINTWISE or CAUSAL; it is computed when transitions are sampled. Metrics also have
    ``td_loss`` and ``q`` (NaN before learning starts) and ``epsilon``.

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

    Arguments, result and errors are those of :func:`reward_design.agents.host.train_host`. For actions, rewards
    and metrics see :func:`train`.

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


def _nets(config: Config, env: FunctionalEnv | HostEnv) -> Networks:
    return networks_for(env, config.hidden, config.normalise_obs, config.dueling, config.torso)


def _optimiser(config: Config) -> optax.GradientTransformation:
    return optax.chain(optax.clip_by_global_norm(config.max_grad_norm), optax.scale_by_adam())


def _epsilon(config: Config, num_updates: Any) -> Any:
    """Probability of a uniform action in an iteration; 1 before learning starts."""
    explored = num_updates / (config.exploration_fraction * config.num_updates)
    explored = jnp.minimum(explored, 1.0)
    scheduled = config.epsilon + explored * (config.epsilon_end - config.epsilon)
    return jnp.where(num_updates < config.starting_updates, 1.0, scheduled)


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


def check(env: FunctionalEnv | HostEnv) -> None:
    """Refuse an environment with other actions than Discrete; see :class:`reward_design.agents.base.Agent`."""
    discrete(env.action_space, "dqn")


RULE = Rule("dqn", act, lambda config, env, key: jnp.zeros(config.num_gradient_steps), _bootstrap, _fit)
AGENT = base.Agent(
    "dqn", "deep Q-learning; discrete actions, double, dueling, n-step and prioritised, off-policy", Config,
    init, update, act, improve, host_policy, check=check, learns_reward=True,
)  # fmt: skip
