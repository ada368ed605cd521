"""Soft actor-critic on the device: a squashed Gaussian policy, an ensemble of critics, automatic temperature.

Sources: Haarnoja, Zhou, Abbeel and Levine, "Soft Actor-Critic: Off-Policy Maximum Entropy Deep Reinforcement Learning
with a Stochastic Actor", 2018, arXiv:1801.01290; Haarnoja et al., "Soft Actor-Critic Algorithms and Applications",
2018, arXiv:1812.05905 (temperature); Chen, Wang, Zhou and Ross, "Randomized Ensembled Double Q-Learning: Learning Fast
Without a Model", 2021, arXiv:2101.05982 (many gradient steps, ``subset_size`` of ``num_critics``); Hiraoka et al.,
"Dropout Q-Functions for Doubly Efficient Reinforcement Learning", 2021, arXiv:2110.02034 (layer norm in the critics).
"""

import math
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from gymnasium.vector import VectorEnv
from jaxtyping import Array, Float

from reward_design.agents import base, host, networks, off_policy, rollout
from reward_design.agents.action_spaces import bounded_box
from reward_design.agents.collector import HostPolicy
from reward_design.agents.off_policy import Batch, Learner, Rule, TrainState
from reward_design.agents.sac_networks import Networks, networks_for
from reward_design.agents.settings import at_least, one_of
from reward_design.core import Reward, Transition
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv


@base.config
class Config(off_policy.Settings):
    """Settings of SAC. Float fields may be swept with ``jax.vmap``. Defaults are those of the second paper.

    REDQ: ``num_critics=10, updates_per_step=20, policy_delay=20, actor_q="mean"``. DroQ without the dropout:
    ``layer_norm=True, updates_per_step=20, policy_delay=20, actor_q="mean"``.

    Attributes:
        total_timesteps: environment steps over all lanes (rounded down to whole iterations).
        num_envs: parallel lanes B.
        num_steps: steps per lane and iteration; then ``num_envs * num_steps * updates_per_step`` gradient steps follow
            in one call. 1 is one round of gradient steps after each step of the lanes.
        updates_per_step: gradient steps per environment step.
        batch_size: transitions of a gradient step.
        capacity: transitions kept, over all lanes.
        learning_starts: environment steps with uniformly random actions and without learning at the start.
        n_step: rewards summed before the bootstrap.
        prioritised: sample in proportion to the error instead of uniformly.
        num_critics: size N of the ensemble.
        subset_size: critics, drawn anew for each gradient step, whose minimum is the target; at most N.
        actor_q: what the actor climbs: the ``"min"`` or the ``"mean"`` of all critics.
        policy_delay: gradient steps of the critics per step of actor and temperature.
        layer_norm: layer normalisation in the critics.
        learn_temperature: adapt the temperature to ``target_entropy``; otherwise it stays.
        target_entropy: in nats, of actions scaled to [-1, 1]; ``"auto"`` is minus the number of action dimensions.
        hidden: widths of the relu layers of actor and critics.
        normalise_obs: scale observations by running moments (kept with the policy), but a Discrete or MultiDiscrete
            one; one-hot parts of a Dict or Tuple are scaled, too.
        learning_rate: of actor, critics and temperature.
        temperature: weight of the entropy at the start.
        tau: share of the critics that moves into the target networks at each gradient step.
        gamma: discount per environment step, in [0, 1]; must equal the reward's.
        priority_exponent: alpha, with ``prioritised``.
        importance_exponent: beta at the start, with ``prioritised``; 1 at the end.
    """

    updates_per_step: float | int = 1
    num_critics: int = 2
    subset_size: int = 2
    actor_q: Literal["min", "mean"] = "min"
    policy_delay: int = 1
    layer_norm: bool = False
    learn_temperature: bool = True
    target_entropy: float | Literal["auto"] = "auto"
    temperature: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.subset_size <= self.num_critics:
            raise ValueError(f"subset_size must be in [1, num_critics = {self.num_critics}], got {self.subset_size}.")
        at_least(self, 1, "policy_delay")
        one_of(self, "actor_q", ("min", "mean"))
        target = self.target_entropy
        if target != "auto" and not (isinstance(target, (int, float)) and math.isfinite(target)):
            raise ValueError(f"target_entropy must be 'auto' or a finite number, got {target!r}.")
        _ = self.num_gradient_steps

    @property
    def num_gradient_steps(self) -> int:
        """Gradient steps per iteration."""
        number = self.steps_per_update * self.updates_per_step
        return off_policy.whole(number, "num_envs * num_steps * updates_per_step")


def init(
    config: Config, env: FunctionalEnv | HostEnv, reward: Reward, key: Any, reward_params: Any = None
) -> TrainState:
    """State at the start of a run; see :class:`reward_design.agents.base.Agent`."""
    nets = _nets(config, env)
    key, actor_key, critic_key = jax.random.split(key, 3)
    x, action = jnp.zeros(nets.inputs.num_features), jnp.zeros(nets.num_actions)
    make_critic = lambda k: nets.critic.init(k, jnp.concatenate([x, action]))  # noqa: E731
    critic = jax.vmap(make_critic)(jax.random.split(critic_key, config.num_critics))
    trained = {
        "actor": nets.actor.init(actor_key, x),
        "critic": critic,
        "log_temperature": jnp.log(jnp.asarray(config.temperature, jnp.float32)),
    }
    opt_state = {name: OPTIMISER.init(part) for name, part in trained.items()}
    learner = Learner({**trained, "target": jax.tree.map(jnp.array, critic)}, opt_state, jnp.int32(0))
    return off_policy.init("sac", config, env, reward, key, reward_params, learner, nets.inputs)


def update(
    config: Config, env: FunctionalEnv, reward: Reward, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """One iteration: collect a rollout on the device, then :func:`improve`."""
    nets = _nets(config, env)
    key, env_key, noise_key = jax.random.split(state.key, 3)
    noise = jax.random.normal(noise_key, (config.num_steps, config.num_envs, nets.num_actions))
    starting = state.num_updates < config.starting_updates

    def policy(obs: Any, noise: Array) -> tuple[Array, tuple[()]]:
        uniform = jax.lax.erf(noise / np.float32(np.sqrt(2)))
        action, _ = nets.sample(state.params["actor"], nets.inputs(state.moments, obs), noise)
        return nets.to_env(jnp.where(starting, uniform, action)), ()

    lanes, trajectory, extras = rollout.collect(env, policy, state.lanes, env_key, noise, config.num_steps)
    return improve(config, env, reward, state._replace(lanes=lanes, key=key), trajectory, extras)


def improve(
    config: Config, env: FunctionalEnv | HostEnv, reward: Reward, state: TrainState, trajectory: Transition, extras: Any
) -> tuple[TrainState, dict[str, Array]]:
    """Store a rollout, then ``num_gradient_steps``; see :func:`reward_design.agents.off_policy.improve`."""
    return off_policy.improve(RULE, config, env, _nets(config, env).inputs, reward, state, trajectory)


def act(
    config: Config, env: FunctionalEnv | HostEnv, state: TrainState, obs: Any, key: Any, *, deterministic: bool = False
) -> Array:
    """Actions ``[B, ...]`` for observations ``[B, ...]``, in the environment's action space."""
    nets = _nets(config, env)
    x = nets.inputs(state.moments, obs)
    noise = jax.random.normal(key, (x.shape[0], nets.num_actions)) * (0.0 if deterministic else 1.0)
    return nets.to_env(nets.sample(state.params["actor"], x, noise)[0])


def host_policy(config: Config, env: HostEnv, state: TrainState, *, deterministic: bool = False) -> HostPolicy:
    """The policy of ``state`` for environments on the host; uniformly random before learning starts."""
    nets = _nets(config, env)
    starting = int(state.num_updates) < config.starting_updates
    if starting and not deterministic:
        return nets.uniform_policy()
    return nets.host_policy(state.params["actor"], state.moments, deterministic=deterministic)


def train(
    config: Config, env: FunctionalEnv | Task, reward: Reward, key: Any, *, reward_params: Any = None
) -> base.TrainResult:
    """Train SAC in one jit; vmap it over keys or float settings.

    Arguments, result and errors are those of :func:`reward_design.agents.base.train`. Actions are a bounded
    Box. The reward is of kind POINTWISE or CAUSAL; it is computed when transitions are sampled. Metrics also have
    ``critic_loss``, ``actor_loss``, ``temperature`` and ``entropy``, NaN before learning starts, and those of the actor
    also in iterations without a step of it (``policy_delay``).

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.agents import sac
        >>> from reward_design.envs import task
        >>> config = sac.Config(total_timesteps=32, num_envs=4, num_steps=4, learning_starts=16, hidden=(8,))
        >>> result = sac.train(config, task("pendulum"), rd.environment_reward(), jax.random.key(0))
        >>> result.metrics["critic_loss"].shape
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
    """Train SAC on a gymnasium vector environment: the same gradient steps as on the device, between short rollouts.

    Arguments, result and errors are those of :func:`reward_design.agents.host.train_host`. For actions, rewards
    and metrics see :func:`train`.

    Example:
        >>> import gymnasium, jax, reward_design as rd
        >>> from reward_design.agents import sac
        >>> envs = gymnasium.make_vec("Pendulum-v1", num_envs=2)
        >>> config = sac.Config(total_timesteps=32, num_envs=2, num_steps=8, learning_starts=16, hidden=(8,))
        >>> sac.train_host(config, envs, rd.environment_reward(), jax.random.key(0)).metrics["critic_loss"].shape
        (2,)
    """
    return host.train_host(AGENT, config, vector_env, reward, key, reward_params=reward_params, overlap=overlap)


# --- parts ----------------------------------------------------------------------------------------------------------

OPTIMISER = optax.scale_by_adam()


def _nets(config: Config, env: FunctionalEnv | HostEnv) -> Networks:
    return networks_for(env, config.hidden, config.normalise_obs, config.layer_norm)


def _noise(config: Config, env: FunctionalEnv | HostEnv, key: Any) -> dict[str, Array]:
    now_key, next_key, subset_key = jax.random.split(key, 3)
    shape = (config.num_gradient_steps, config.batch_size, _nets(config, env).num_actions)
    return {
        "now": jax.random.normal(now_key, shape),
        "next": jax.random.normal(next_key, shape),
        "order": jax.random.uniform(subset_key, (config.num_gradient_steps, config.num_critics)),
    }


def _bootstrap(
    config: Config, env: FunctionalEnv | HostEnv, learner: Learner, moments: networks.Moments, next_obs: Any, noise: Any
) -> tuple[Array, Float[Array, " samples"]]:
    """A sampled action a' in the successor and min Q'(s', a') - α log π(a'), over a random subset of target critics."""
    nets = _nets(config, env)
    x = nets.inputs(moments, next_obs)
    action, log_prob = nets.sample(learner.params["actor"], x, noise["next"])
    target = learner.params["target"]
    if config.subset_size < config.num_critics:
        chosen = jnp.argsort(noise["order"])[: config.subset_size]
        target = jax.tree.map(lambda leaf: leaf[chosen], target)
    temperature = jnp.exp(learner.params["log_temperature"])
    return nets.to_env(action), nets.q(target, x, action).min(axis=0) - temperature * log_prob


def _fit(
    config: Config, env: FunctionalEnv | HostEnv, learner: Learner, moments: networks.Moments, batch: Batch, noise: Any
) -> tuple[Learner, Float[Array, " samples"], dict[str, Array]]:
    """One gradient step of the critics and their targets, then of the actor and the temperature."""
    nets = _nets(config, env)
    x = nets.inputs(moments, batch.obs)
    params, opt_state = dict(learner.params), dict(learner.opt_state)
    critic_grads, (critic_loss, error) = jax.grad(_critic_loss, has_aux=True)(params["critic"], nets, x, batch)
    params["critic"], opt_state["critic"] = _descend(config, params["critic"], opt_state["critic"], critic_grads)
    move = lambda target, critic: target + config.tau * (critic - target)  # noqa: E731
    params["target"] = jax.tree.map(move, params["target"], params["critic"])

    def improve_policy(params: Any, opt_state: Any) -> tuple[Any, Any, Array, Array]:
        temperature = jnp.exp(params["log_temperature"])
        grads, (loss, entropy) = jax.grad(_actor_loss, has_aux=True)(
            params["actor"], config, nets, params["critic"], temperature, x, noise["now"]
        )
        parts = {"actor": grads}
        if config.learn_temperature:
            parts["log_temperature"] = entropy - _target_entropy(config, nets)
        made = {name: _descend(config, params[name], opt_state[name], part) for name, part in parts.items()}
        params = {**params, **{name: new for name, (new, _) in made.items()}}
        return params, {**opt_state, **{name: new for name, (_, new) in made.items()}}, loss, entropy

    if config.policy_delay == 1:
        params, opt_state, actor_loss, entropy = improve_policy(params, opt_state)
    else:
        params, opt_state, actor_loss, entropy = jax.lax.cond(
            (learner.num_steps + 1) % config.policy_delay == 0,
            improve_policy,
            lambda params, opt_state: (params, opt_state, jnp.float32(jnp.nan), jnp.float32(jnp.nan)),
            params,
            opt_state,
        )
    metrics = {
        "critic_loss": critic_loss,
        "actor_loss": actor_loss,
        "entropy": entropy,
        "temperature": jnp.exp(params["log_temperature"]),
    }
    return Learner(params, opt_state, learner.num_steps + 1), error, metrics


def _critic_loss(params: Any, nets: Networks, x: Array, batch: Batch) -> tuple[Array, tuple[Array, Array]]:
    """½ mean (Q_i(s, a) - y)², summed over the critics; also the error of each row, a mean over critics."""
    error = nets.q(params, x, nets.from_env(batch.action)) - batch.target[None]
    loss = 0.5 * jnp.mean(batch.weight[None] * jnp.square(error), axis=1).sum()
    return loss, (loss, jnp.abs(error).mean(axis=0))


def _actor_loss(
    params: Any, config: Config, nets: Networks, critic: Any, temperature: Any, x: Array, noise: Array
) -> tuple[Array, tuple[Array, Array]]:
    """Mean of α log π(a) - Q(s, a) with a sampled a; also the entropy."""
    action, log_prob = nets.sample(params, x, noise)
    q = nets.q(critic, x, action)
    q = q.min(axis=0) if config.actor_q == "min" else q.mean(axis=0)
    loss = jnp.mean(temperature * log_prob - q)
    return loss, (loss, -log_prob.mean())


def _descend(config: Config, params: Any, opt_state: Any, grads: Any) -> tuple[Any, Any]:
    updates, opt_state = OPTIMISER.update(grads, opt_state)
    return jax.tree.map(lambda p, u: p - config.learning_rate * u, params, updates), opt_state


def _target_entropy(config: Config, nets: Networks) -> float:
    return -float(nets.num_actions) if config.target_entropy == "auto" else float(config.target_entropy)


def check(env: FunctionalEnv | HostEnv) -> None:
    """Refuse an environment with other actions than a bounded Box; see :class:`reward_design.agents.base.Agent`."""
    bounded_box(env.action_space, "sac")


RULE = Rule("sac", act, _noise, _bootstrap, _fit)
AGENT = base.Agent(
    "sac", "soft actor-critic; bounded continuous actions, automatic temperature, off-policy", Config,
    init, update, act, improve, host_policy, check=check, learns_reward=True,
)  # fmt: skip
