"""Proximal policy optimisation on the device: rollout, reward, advantages and update in one jit.

Source: Schulman, Wolski, Dhariwal, Radford and Klimov, "Proximal Policy Optimization Algorithms", 2017,
arXiv:1707.06347; generalised advantages: Schulman et al., "High-Dimensional Continuous Control Using Generalized
Advantage Estimation", 2015, arXiv:1506.02438.
"""

from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from gymnasium.vector import VectorEnv
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from reward_design.agents import base, host, networks, rollout, scoring
from reward_design.agents.action_spaces import discrete_or_box
from reward_design.agents.actor_critic import ActorCritic, action_noise
from reward_design.agents.collector import HostPolicy, RecurrentPolicy
from reward_design.agents.host_policy import actor_policy
from reward_design.agents.ppo_update import advantages, batch, hidden, learn, optimiser, permutations
from reward_design.agents.settings import Run, at_least, one_of
from reward_design.agents.torsos import TORSOS
from reward_design.core import Reward, State, Transition
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv
from reward_design.transforms import normalise_by_return

__all__ = ["AGENT", "Config", "TrainState", "advantages", "permutations", "train", "train_host"]


@base.config
class Config(Run):
    """Settings of PPO. Float fields may be swept with ``jax.vmap``; schedules are linear over the run.

    Attributes:
        total_timesteps: environment steps over all lanes (rounded down to whole updates).
        num_envs: parallel lanes B.
        num_steps: steps per lane and update T.
        num_epochs: passes over each rollout.
        num_minibatches: gradient steps per pass; must divide ``num_envs * num_steps``, or the number of sequences.
        hidden: widths of the tanh layers of actor and critic.
        torso: ``"mlp"`` flattens the observation; ``"conv"`` encodes each part of it by its space, with embeddings and
            convolutions, see :func:`reward_design.agents.torsos.part_of`.
        shared_torso: whether actor and critic share the torso and the memory.
        recurrent: width of a gated recurrent unit between torso and heads, 0 for no memory.
        sequence_length: with memory, steps through which gradients flow; must divide ``num_steps``; 0 for all of them.
        normalise_obs: scale observations by running moments (kept with the policy), but a Discrete or MultiDiscrete
            one; one-hot parts of a Dict or Tuple are scaled, too.
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
    torso: str = "mlp"
    shared_torso: bool = True
    recurrent: int = 0
    sequence_length: int = 0
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
        self.check_length()
        at_least(self, 1, "num_epochs", "num_minibatches")
        at_least(self, 0, "recurrent", "sequence_length")
        one_of(self, "torso", TORSOS)
        if self.steps_per_update % self.num_minibatches:
            raise ValueError(
                f"num_minibatches must divide num_envs * num_steps = {self.steps_per_update}, "
                f"got {self.num_minibatches}."
            )
        if self.recurrent:
            self._check_sequences()

    def _check_sequences(self) -> None:
        length = self.sequence_length or self.num_steps
        if self.num_steps % length:
            raise ValueError(f"sequence_length must divide num_steps = {self.num_steps}, got {length}.")
        number = self.steps_per_update // length
        if number % self.num_minibatches:
            raise ValueError(
                "with memory num_minibatches must divide the number of sequences, num_envs * num_steps / "
                f"sequence_length = {number}, got {self.num_minibatches}."
            )


class TrainState(NamedTuple):
    """Everything that a run needs to go on from where it is."""

    params: Any
    opt_state: Any
    moments: networks.Moments
    reward_params: Any
    reward_state: State
    reward_scale: Any
    lanes: rollout.Lanes
    carry: Any
    key: Any
    num_updates: Any
    fault: scoring.Fault
    learner_state: Any = ()


NORMALISER = normalise_by_return(gamma=0.0)  # gamma is one of its params: the run's own takes its place


def init(
    config: Config, env: FunctionalEnv | HostEnv, reward: Reward, key: Any, reward_params: Any = None
) -> TrainState:
    """State at the start of a run; see :class:`reward_design.agents.base.Agent`."""
    key, policy_key, reward_key, env_key = jax.random.split(key, 4)
    network = _network(config, env)
    params, moments = network.init(policy_key)
    example = scoring.reward_example(env, config.num_envs)
    own_params, reward_state = reward.init(reward_key, example)
    reward_params = own_params if reward_params is None else reward_params
    return TrainState(
        params=params,
        opt_state=optimiser(config).init(ravel_pytree(params)[0]),
        moments=moments,
        reward_params=reward_params,
        reward_state=reward_state,
        reward_scale=NORMALISER.init(key, example)[1] if config.normalise_reward else (),
        lanes=rollout.reset_lanes(env, env_key, config.num_envs, scoring.term_names(env, reward)),
        carry=() if isinstance(env, HostEnv) else network.initial_carry(config.num_envs),
        key=key,
        num_updates=jnp.int32(0),
        fault=scoring.no_fault(),
        learner_state=scoring.learner_state(reward, reward_key, reward_params, example),
    )


def update(
    config: Config, env: FunctionalEnv, reward: Reward, state: TrainState
) -> tuple[TrainState, dict[str, Array]]:
    """One iteration: collect a rollout on the device, then :func:`improve`."""
    key, env_key, noise_key = jax.random.split(state.key, 3)
    noise = action_noise(env.action_space, noise_key, (config.num_steps, config.num_envs))
    policy = partial(_network(config, env).step, state.params, state.moments)
    carry, lanes, trajectory, extras = rollout.collect_with_memory(
        env, policy, state.lanes, state.carry, env_key, noise, config.num_steps
    )
    return improve(config, env, reward, state._replace(lanes=lanes, carry=carry, key=key), trajectory, extras)


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
        extras: of the policy that collected it, see :meth:`ActorCritic.step`.

    Returns:
        The new state, and metrics as scalars.
    """
    key, next_key, shuffle_key = jax.random.split(state.key, 3)
    network = _network(config, env)
    next_noise = action_noise(env.action_space, next_key, trajectory.mask.shape)
    z = hidden(network, state.params, state.moments, trajectory, extras)
    carry = z if config.recurrent else ()
    next_action, _ = network.act(state.params, state.moments, trajectory.next_obs, next_noise, carry)
    trajectory = rollout.with_next_action(trajectory, next_action)
    reward_params, learner_state, taught = scoring.learned_reward(
        reward, state.reward_params, state.learner_state, trajectory, next_key
    )
    output, reward_state = reward.unroll(reward_params, state.reward_state, trajectory)
    lanes, metrics = rollout.episode_metrics(env, state.lanes, trajectory, output)

    learned, reward_scale = _scaled(config, state.reward_scale, trajectory, output.reward)
    rows, entropy = batch(config, network, state.params, state.moments, trajectory, z, extras, learned)
    params, opt_state, losses = learn(
        config, network, state.params, state.opt_state, state.num_updates, rows, shuffle_key
    )
    moments = network.update_moments(state.moments, trajectory.obs, trajectory.mask)
    fault = scoring.find_fault(state.fault, output, state.num_updates * config.num_steps)
    new = TrainState(
        params, opt_state, moments, reward_params, reward_state, reward_scale, lanes, state.carry, key,
        state.num_updates + 1, fault, learner_state,
    )  # fmt: skip
    env_steps = (state.num_updates + 1).astype(jnp.float32) * config.steps_per_update
    new = scoring.stop_on_fault(new, state, aside=("learner_state",))
    return new, {**metrics, **losses, **taught, "entropy": entropy, "env_steps": env_steps}


def act(
    config: Config,
    env: FunctionalEnv | HostEnv,
    state: TrainState,
    obs: Any,
    key: Any,
    *,
    deterministic: bool = False,
    carry: Any = None,
) -> Any:
    """Actions ``[B, ...]`` for observations ``[B, ...]``, in the environment's action space.

    With ``carry``, from :func:`initial_carry` or the step before, returns ``(action, carry)``; a policy with memory
    needs it. Lanes that begin an episode have a carry of zeros.

    Raises:
        TypeError: if a policy with memory gets no carry.
    """
    if config.recurrent and carry is None:
        raise TypeError(
            "a policy with memory needs its carry: action, carry = act(..., carry=carry), beginning with "
            "initial_carry(config, env, num_envs)."
        )
    lanes = jax.tree.leaves(obs)[0].shape[0]
    noise = action_noise(env.action_space, key, (lanes,)) * (0.0 if deterministic else 1.0)
    network = _network(config, env)
    action, _, following = network.step(state.params, state.moments, obs, noise, () if carry is None else carry)
    return action if carry is None else (action, following)


def initial_carry(config: Config, env: FunctionalEnv | HostEnv, num_envs: int) -> Any:
    """The memory of ``num_envs`` lanes at the start of an episode: zeros, ``()`` for a policy without memory."""
    return _network(config, env).initial_carry(num_envs)


def host_policy(
    config: Config, env: FunctionalEnv | HostEnv, state: TrainState, *, deterministic: bool = False
) -> HostPolicy | RecurrentPolicy:
    """The policy of ``state`` for observations on the host."""
    return actor_policy(_network(config, env), state.params, state.moments, deterministic=deterministic)


def check(env: FunctionalEnv | HostEnv) -> None:
    """Refuse an environment with other actions than Discrete or a Box; see :class:`reward_design.agents.base.Agent`."""
    discrete_or_box(env.action_space, "ppo")


AGENT = base.Agent(
    "ppo", "proximal policy optimisation; discrete and continuous actions, embeddings, convolutions and memory", Config,
    init, update, act, improve, host_policy, initial_carry, check, learns_reward=True,
)  # fmt: skip


def train(
    config: Config, env: FunctionalEnv | Task, reward: Reward, key: Any, *, reward_params: Any = None
) -> base.TrainResult:
    """Train PPO in one jit; vmap it over keys or float settings.

    Arguments, result and errors are those of :func:`reward_design.agents.base.train`. Any reward will do: it is
    unrolled once per rollout of ``num_steps``, before the advantages.

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

    Arguments, result and errors are those of :func:`reward_design.agents.host.train_host`. Any reward will do,
    as in :func:`train`. With ``overlap`` the importance ratio accounts for the older policy.

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


def _network(config: Config, env: FunctionalEnv | HostEnv) -> ActorCritic:
    return _actor_critic(
        env, config.hidden, config.normalise_obs, config.torso, config.recurrent, config.shared_torso
    )  # fmt: skip


@lru_cache(maxsize=64)  # one object, which compiled policies on the host are kept for
def _actor_critic(
    env: FunctionalEnv | HostEnv, hidden: tuple[int, ...], normalise_obs: bool, torso: str, memory: int, shared: bool
) -> ActorCritic:
    return ActorCritic(env, hidden, normalise_obs, torso=torso, memory=memory, shared=shared)


def _scaled(config: Config, scale: Any, trajectory: Transition, reward: Array) -> tuple[Array, Any]:
    """The reward that is learned from, and the running spread of its return."""
    if not config.normalise_reward:
        return reward, scale
    params = {"gamma": config.gamma, "epsilon": 1e-8}
    output, scale = NORMALISER.unroll(params, scale, trajectory._replace(reward=reward))
    return output.reward, scale
