"""BARFI: learn how to blend a task's reward with a heuristic, so that what is optimised ends up serving the task.

Source: D. Gupta, Y. Chandak, S. Jordan, P. Thomas, B. C. da Silva, "Behavior Alignment via Reward Function
Optimization", 2023, arXiv 2310.19007.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array

from reward_design.agents import base, networks, rollout, scoring
from reward_design.agents.actor_critic import ActorCritic, action_noise
from reward_design.agents.host_policy import actor_policy
from reward_design.agents.settings import Run, one_of
from reward_design.bilevel import inner, outer, segments
from reward_design.bilevel.alignment import is_alignment
from reward_design.core import Reward, State, Transition
from reward_design.envs.base import FunctionalEnv, Task
from reward_design.envs.host import HostEnv

Env = FunctionalEnv | HostEnv


@base.config
class Config(Run):
    """Settings of BARFI. Float fields may be swept with ``jax.vmap``.

    Attributes:
        total_timesteps: environment steps over all lanes, unfinished tails included (rounded down to whole updates).
        num_envs: parallel lanes B; every update plays ``horizon`` steps in each.
        horizon: steps per lane and update; on the device at least the environment's, for an end in every lane.
        hidden: widths of the tanh layers of the policy; ``()`` is linear in the features.
        normalise_obs: scale observations by their moments in the warm start, fixed from then on.
        replay: rollouts of one lane in the ring that the inner phase draws from (off-policy, without importance
            weights, as published); 0 learns from the newest ones alone, which is far steadier.
        batch_size: rollouts per inner step with ``replay``.
        learner: ``"reinforce"`` on whole episodes, or ``"ppo"`` with critics for both levels, which suits continuous
            control; see :mod:`reward_design.bilevel.inner`.
        inner_steps: inner steps per update; epochs of ``"ppo"``.
        num_minibatches: of an epoch of ``"ppo"``.
        gae_lambda: of ``"ppo"``, for both levels.
        clip_ratio: of ``"ppo"``.
        warm_start: updates with phi at its start before the first outer step.
        outer: ``"implicit"`` (BARFI), ``"lirpg"`` and ``"imgl"`` (see :mod:`reward_design.bilevel.outer`), or
            ``"none"``: phi stays, and any reward is served; the baselines with matched data and updates. As an agent
            (``agent("barfi")``, ``--agent barfi``) it takes ``"none"`` for any reward that is no alignment reward.
        outer_batch_size: rollouts for H and A, drawn from the ring without the newest ones.
        method: of the inverse: ``"identity"``, ``"neumann"``, ``"cg"`` or ``"exact"``.
        num_terms: K of the Neumann series.
        damping: added to -H, in units of the spectral radius of H; at least 1 makes every inverse positive definite.
        learn_phi: which of phi1, phi2, phi3 are learned.
        learn_discount: whether the inner discount is learned; otherwise it is ``gamma``.
        baseline: whether both levels subtract the mean return.
        advice: ``(obs [B], action [B]) -> [B]`` added to the return of each step, None for none: the correction that
            ``look_ahead_advice`` of the same potential needs in a policy gradient.
        learning_rate: of the policy.
        reward_learning_rate: of phi, and of the network below it.
        discount_learning_rate: of the logit of the discount.
        reward_penalty: weight of the sum of the Euclidean norms of phi1, phi2, phi3 (not squared).
        discount_penalty: weight of the learned discount itself: a pressure to short horizons.
        entropy_coef: weight of the mean entropy in the inner objective, next to returns of standard deviation one.
        gamma: discount of the primary return, in [0, 1); must equal the primary reward's.
        max_grad_norm: global gradient clipping, at both levels.
    """

    steps_field = "horizon"
    total_timesteps: int = 500_000
    num_envs: int = 4
    horizon: int = 500
    hidden: tuple[int, ...] = (32,)
    normalise_obs: bool = True
    replay: int = 0
    batch_size: int = 4
    learner: Literal["reinforce", "ppo"] = "reinforce"
    inner_steps: int = 15
    num_minibatches: int = 4
    gae_lambda: float = 0.95
    clip_ratio: float = 0.2
    warm_start: int = 3
    outer: Literal["implicit", "lirpg", "imgl", "none"] = "implicit"
    outer_batch_size: int = 16
    method: str = "neumann"
    num_terms: int = 5
    damping: float = 1.0
    learn_phi: tuple[bool, bool, bool] = (True, True, True)
    learn_discount: bool = False
    baseline: bool = True
    advice: Callable[[Any, Any], Any] | None = None
    learning_rate: float = 1e-3
    reward_learning_rate: float = 0.1
    discount_learning_rate: float = 5e-3
    reward_penalty: float = 0.0
    discount_penalty: float = 0.0
    entropy_coef: float = 0.02
    gamma: float = 0.99
    max_grad_norm: float = 1.0

    def __post_init__(self) -> None:
        outer.check(self)
        self.check_length()
        one_of(self, "learner", inner.LEARNERS)
        inner.check(self)


class TrainState(NamedTuple):
    """Everything that a run needs to go on from where it is."""

    params: Any
    opt_state: Any
    critic: Any
    moments: networks.Moments
    reward_params: Any
    reward_opt_state: Any
    reward_state: State
    scale: Any
    sensitivity: Any
    ring: segments.Ring
    lanes: rollout.Lanes
    key: Any
    num_updates: Any
    fault: scoring.Fault


def init(config: Config, env: Env, reward: Reward, key: Any, reward_params: Any = None) -> TrainState:
    """State at the start of a run; see :class:`reward_design.agents.base.Agent`."""
    config = _fitting(config, reward)
    if not isinstance(env, HostEnv) and config.horizon < env.horizon:
        raise ValueError(
            f"horizon must be at least the horizon of {env.name!r} = {env.horizon}, got {config.horizon}; barfi learns "
            "from whole episodes."
        )
    key, policy_key, reward_key, env_key = jax.random.split(key, 4)
    params, moments, opt_state, critic = inner.init(config, _network(config, env), policy_key)
    own, reward_state = reward.init(reward_key, scoring.reward_example(env, config.num_envs))
    reward_params = own if reward_params is None else reward_params
    learned = outer.learned(config, reward_params) if config.outer != "none" else ()
    ring: Any = ()
    if config.replay:
        ring = segments.empty(_example_segments(config, env), max(config.replay, 2 * config.num_envs))
    return TrainState(
        params=params,
        opt_state=opt_state,
        critic=critic,
        moments=moments,
        reward_params=reward_params,
        reward_opt_state=outer.optimiser(config).init(learned),
        reward_state=reward_state,
        scale=jnp.float32(1.0),
        sensitivity=outer.initial_sensitivity(config, params, learned),
        ring=ring,
        lanes=rollout.reset_lanes(env, env_key, config.num_envs, scoring.term_names(env, reward))._replace(
            env_state=(), obs=()
        ),
        key=key,
        num_updates=jnp.int32(0),
        fault=scoring.no_fault(),
    )


def update(config: Config, env: FunctionalEnv, reward: Reward, state: TrainState) -> tuple[TrainState, dict[str, Any]]:
    """One iteration: fresh episodes in every lane, an outer step on them, then the inner steps."""
    key, reset_key, env_key, noise_key = jax.random.split(state.key, 4)
    lanes = rollout.reset_lanes(env, reset_key, config.num_envs, scoring.term_names(env, reward))
    noise = action_noise(env.action_space, noise_key, (config.horizon, config.num_envs))
    policy = partial(_network(config, env).act, state.params, state.moments)
    _, trajectory, extras = rollout.collect(env, policy, lanes, env_key, noise, config.horizon)
    if config.learner == "reinforce":  # an actor-critic bootstraps at the end of a rollout
        trajectory = trajectory._replace(mask=rollout.before_last(trajectory.done))
    zeros = jax.tree.map(jnp.zeros_like, state.lanes.sums)
    state = state._replace(key=key, lanes=state.lanes._replace(sums=zeros))
    return improve(config, env, reward, state, trajectory, extras)


def improve(
    config: Config, env: Env, reward: Reward, state: TrainState, trajectory: Transition, extras: Any
) -> tuple[TrainState, dict[str, Array]]:
    """The part after the collection, for any environment."""
    config = _fitting(config, reward)
    old = state
    key, outer_key, inner_key, action_key = jax.random.split(state.key, 4)
    network = _network(config, env)
    noise = action_noise(env.action_space, action_key, trajectory.mask.shape)
    following = network.act(state.params, state.moments, trajectory.next_obs, noise)[0]
    trajectory = rollout.with_next_action(trajectory, following)
    output, reward_state = reward.unroll(state.reward_params, state.reward_state, trajectory)
    lanes, metrics = rollout.episode_metrics(env, state.lanes, trajectory, output)

    warm = state.num_updates < config.warm_start
    moments = network.update_moments(state.moments, trajectory.obs, trajectory.mask)
    moments = jax.tree.map(lambda new, old: jnp.where(warm, new, old), moments, state.moments)
    fresh = segments.segments(trajectory, extras.raw)
    scale = segments.returns_scale(output.reward, fresh, config.gamma)
    scale = jnp.where(warm, state.scale + (scale - state.scale) / (state.num_updates + 1), state.scale)
    ring = segments.insert(state.ring, fresh) if config.replay else ()
    state = state._replace(
        moments=moments, reward_state=reward_state, scale=scale, ring=ring, lanes=lanes, key=key,
        fault=scoring.find_fault(state.fault, output, state.num_updates * config.horizon),
    )  # fmt: skip
    critics = {"blend": state.params["critic"], "primary": state.critic.params} if config.learner == "ppo" else None
    level = outer.Level(config, env, reward, network, state.moments, state.reward_state.running, scale, critics)

    diagnostics = {}
    if config.outer != "none":
        state, diagnostics = outer.step(level, state, fresh, outer_key, active=~warm)
    state, losses = inner.phase(level, state, fresh, trajectory, extras, old.reward_state, inner_key)
    env_steps = ((state.num_updates + 1) * config.steps_per_update).astype(jnp.float32)
    state = scoring.stop_on_fault(state._replace(num_updates=state.num_updates + 1), old)
    experience = trajectory.mask.sum().astype(jnp.float32)
    return state, {**metrics, **losses, **diagnostics, "experience": experience, "env_steps": env_steps}


def _example_segments(config: Config, env: Env) -> Any:
    """Shapes of the rollouts that the ring holds."""

    def one() -> Any:
        example = scoring.reward_example(env, config.num_envs)
        trajectory = jax.tree.map(lambda x: jnp.zeros((config.horizon, *x.shape), x.dtype), example)
        network = _network(config, env)
        params, moments = network.init(jax.random.key(0))
        noise = action_noise(env.action_space, jax.random.key(0), trajectory.mask.shape)
        raw = network.act(params, moments, trajectory.obs, noise)[1][0]
        return segments.segments(trajectory, raw)

    return jax.eval_shape(one)


def _fitting(config: Config, reward: Reward) -> Config:
    """Without an outer level for a reward that has no phi: a baseline with matched data and updates."""
    return config if is_alignment(reward) else dataclasses.replace(config, outer="none")


def _check_learns(config: Config, reward: Reward) -> None:
    if config.outer != "none" and not is_alignment(reward):
        raise TypeError(
            f"barfi learns the params of alignment_reward(primary, auxiliary), got the reward {reward.name!r}; wrap "
            "it, or set outer='none' to train on it as it is."
        )


def _network(config: Config, env: Env) -> ActorCritic:
    return ActorCritic(env, config.hidden, config.normalise_obs)


def act(config: Config, env: Env, state: TrainState, obs: Any, key: Any, *, deterministic: bool = False) -> Array:
    """Actions ``[B, ...]`` for observations ``[B, ...]``, in the environment's action space."""
    batch = jax.tree.leaves(obs)[0].shape[0]
    noise = action_noise(env.action_space, key, (batch,)) * (0.0 if deterministic else 1.0)
    return _network(config, env).act(state.params, state.moments, obs, noise)[0]


def host_policy(config: Config, env: Env, state: TrainState, *, deterministic: bool = False) -> Any:
    """The sampled policy on the host."""
    return actor_policy(_network(config, env), state.params, state.moments, deterministic=deterministic)


AGENT = base.Agent(
    "barfi", "REINFORCE on a blend of task reward and heuristic that an outer loop aligns with the task", Config,
    init, update, act, improve, host_policy,
)  # fmt: skip


def barfi(
    config: Config,
    env: FunctionalEnv | Task,
    reward: Reward,
    key: Any,
    *,
    reward_params: Any = None,
) -> base.TrainResult:
    """Behaviour alignment as one jitted function; vmap it over keys or float settings.

    Upper level: max over phi of J(theta*(phi)) - penalties, J the discounted primary return. Lower level: theta*(phi) =
    argmax of the return under r = phi1 + phi2 r^primary + phi3 r^auxiliary, plus entropy. Every update plays episodes
    with the current policy; an outer step moves phi along d J / d phi = v^T (damping - H)^{-1} A, v from these episodes
    and H, A from the ring; then come ``inner_steps`` steps of the policy.

    Decisions that change results: (a) phi as the reward says, started at the naive sum (0, 1, 1). (b) H is that of the
    surrogate on frozen data, baseline included. (c) The inverse is damped by its spectral radius, because that Hessian
    is indefinite; ``damping=0`` is the published series. (d) theta is never reset; the warm start is the inner phase
    with phi at its start; batches are drawn with replacement. (e) v comes from fresh episodes only. (f) Penalties are
    linear in the discount and in the norms of phi, and are not scaled with the inverse. (g) gamma^t weights are dropped
    at both levels. (h) A time limit is an end, without bootstrap. (i) Entropy is a bonus per visited state. (j)
    Reported are undiscounted returns of the environment's reward (``true_return``). Returns are divided by their
    standard deviation in the warm start, a constant from then on.

    Keeps the optimal policy: no guarantee; it searches for a blend whose learner does well on the primary reward.

    Args:
        config: settings.
        env: functional environment or task.
        reward: from :func:`reward_design.bilevel.alignment_reward`; any reward with ``outer="none"``.
        key: random key.
        reward_params: params to start at, if not the reward's own.

    Returns:
        A :class:`reward_design.agents.TrainResult`; metrics also hold ``phi1``, ``phi2``, ``phi3`` (their constant
        parts), ``discount``, ``a_rho``, ``residual`` and the norm of the ``outer_gradient``.

    Raises:
        TypeError: for a reward that is no alignment reward.
        ValueError: for settings out of range, or a horizon below the environment's.
        NonFiniteRewardError: naming reward, term, step and seed.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.bilevel import BarfiConfig, alignment_reward, barfi
        >>> from reward_design.envs import task
        >>> chain = task("chain")
        >>> reward = alignment_reward(rd.environment_reward(), chain.auxiliary["aligned"])
        >>> config = BarfiConfig(total_timesteps=1600, num_envs=4, horizon=200, warm_start=1)
        >>> barfi(config, chain, reward, jax.random.key(0)).metrics["phi3"].shape
        (2,)
    """
    _check_learns(config, reward)
    return base.train(AGENT, config, env, reward, key, reward_params=reward_params)


def train_host(config: Config, envs: Any, reward: Reward, key: Any, **settings: Any) -> base.TrainResult:
    """:func:`barfi` on a gymnasium vector environment, with the same update.

    Args:
        config: settings; ``horizon`` is the length of a rollout, ``num_envs`` is taken from ``envs``.
        envs: vector environment in any autoreset mode. An episode may go on from one rollout to the next; a reward with
            memory then starts afresh where the inner phase replays it.
        reward: as in :func:`barfi`.
        key: random key.
        **settings: of :func:`reward_design.agents.host.train_host`.
    """
    from reward_design.agents import host

    _check_learns(config, reward)
    return host.train_host(AGENT, config, envs, reward, key, **settings)
