"""Stepping many lanes of a functional environment inside jit, and the statistics of the episodes that ended."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from reward_design.core import Output, Transition, select_lanes
from reward_design.envs.base import EnvState, FunctionalEnv
from reward_design.envs.host import HostEnv

Policy = Callable[[Any, Any], tuple[Any, Any]]
"""``(obs [B, ...], noise of this step) -> (action [B, ...], extras [B, ...])``."""


class Lanes(NamedTuple):
    """``B`` environments in progress.

    Attributes:
        env_state: states of the environments, ``()`` where they live on the host.
        obs: what the agent sees next, ``()`` where they live on the host.
        sums: totals of the episodes under way, by metric name.
        means: the last reported means, by metric name.
    """

    env_state: EnvState | tuple[()]
    obs: Any
    sums: Mapping[str, Float[Array, " lanes"]]
    means: Mapping[str, Float[Array, ""]]


def reset_lanes(env: FunctionalEnv | HostEnv, key: Any, num_envs: int, terms: tuple[str, ...]) -> Lanes:
    """Start ``num_envs`` episodes. ``terms`` are the names of the reward's terms."""
    on_host = isinstance(env, HostEnv)
    obs, env_state = ((), ()) if on_host else jax.vmap(env.reset)(jax.random.split(key, num_envs))
    names = ("shaped_return", "true_return", "length", *(f"term/{t}" for t in terms))
    sums = {name: jnp.zeros(num_envs) for name in names}
    return Lanes(env_state, obs, sums, {name: jnp.float32(jnp.nan) for name in (*names, "success")})


def collect(
    env: FunctionalEnv, policy: Policy, lanes: Lanes, key: Any, noise: Any, num_steps: int
) -> tuple[Lanes, Transition, Any]:
    """Step all lanes ``num_steps`` times, restarting those that end.

    All randomness is drawn before the loop, and so are the start states: one large call each instead of many small.

    Args:
        env: functional environment.
        policy: see :data:`Policy`.
        lanes: where to continue.
        key: random key for dynamics and resets.
        noise: pytree with leading axis ``num_steps``, handed to the policy step by step.
        num_steps: length ``T`` of the rollout.

    Returns:
        The new lanes, a trajectory ``[T, B]`` with true successor observations, and the policy's extras.
    """

    def without_memory(obs: Any, noise: Any, carry: Any) -> tuple[Any, Any, Any]:
        return *policy(obs, noise), carry

    return collect_with_memory(env, without_memory, lanes, (), key, noise, num_steps)[1:]


def collect_with_memory(
    env: FunctionalEnv,
    policy: Callable[[Any, Any, Any], tuple[Any, Any, Any]],
    lanes: Lanes,
    carry: Any,
    key: Any,
    noise: Any,
    num_steps: int,
) -> tuple[Any, Lanes, Transition, Any]:
    """:func:`collect` with a policy ``(obs, noise, carry) -> (action, extras, carry)``, leaves ``[B, ...]``.

    The carry of a lane whose episode ends becomes zero. Returns the last carry first.
    """
    num_envs = lanes.sums["length"].shape[0]
    keys = jax.random.split(key, (2, num_steps, num_envs))
    starts = jax.vmap(jax.vmap(env.reset))(keys[0])

    def step(state: Any, xs: Any) -> tuple[Any, Any]:
        obs, env_state, carry = state
        step_keys, (start_obs, start_state), step_noise = xs
        action, extras, carry = policy(obs, step_noise, carry)
        next_obs, env_state, reward, terminated, truncated, info = jax.vmap(env.step)(step_keys, env_state, action)
        done = terminated | truncated
        transition = Transition(obs, action, next_obs, reward, terminated, truncated, (), info)
        start = (start_obs, start_state, jax.tree.map(jnp.zeros_like, carry))
        return select_lanes(done, start, (next_obs, env_state, carry)), (transition, extras)

    state, (trajectory, extras) = jax.lax.scan(step, (lanes.obs, lanes.env_state, carry), (keys[1], starts, noise))
    trajectory = trajectory._replace(mask=jnp.ones((num_steps, num_envs), bool))  # a constant, so masking costs nothing
    return state[2], lanes._replace(obs=state[0], env_state=state[1]), trajectory, extras


def episode_metrics(
    env: FunctionalEnv | HostEnv, lanes: Lanes, trajectory: Transition, output: Output
) -> tuple[Lanes, dict[str, Float[Array, ""]]]:
    """Means over the episodes that ended in this rollout, without a loop over time; without those that were lost.

    For each lane the steps up to its last episode end belong to ended episodes, those after it to the one under way, so
    the sum over ended episodes is carried-in total + sum of the former, and the new carried total is the latter.
    """
    signals = {
        "shaped_return": output.reward,
        "true_return": jnp.where(trajectory.mask, trajectory.reward, 0.0),
        "length": trajectory.mask.astype(jnp.float32),
        **{f"term/{name}": value for name, value in output.terms.items()},
    }
    done = trajectory.done & trajectory.mask
    ended = before_last(done)
    if isinstance(env, HostEnv):
        kept = ~_lost(trajectory, done)
        done, counted = done & kept, ended & kept
    else:
        counted = ended
    count = done.sum()
    sums, totals = {}, {}
    for name, signal in signals.items():
        carried = lanes.sums[name]
        totals[name] = jnp.sum(signal * counted) + jnp.sum(carried * counted[0])
        sums[name] = jnp.sum(signal * ~ended, axis=0) + carried * ~ended[0]
    totals["success"] = jnp.sum(env.success(trajectory) & done)
    means = {
        name: jnp.where(count > 0, total / jnp.maximum(count, 1), lanes.means[name]).astype(jnp.float32)
        for name, total in totals.items()
    }
    return lanes._replace(sums=sums, means=means), {**means, "episodes": count.astype(jnp.float32)}


def _lost(trajectory: Transition, done: Bool[Array, "time lanes"]) -> Bool[Array, "time lanes"]:
    """True at the steps of episodes whose last step a worker lost: a row with mask False and truncated True follows."""
    follows = jnp.roll(jnp.asarray(trajectory.truncated) & ~jnp.asarray(trajectory.mask), -1, axis=0).at[-1].set(False)
    time = done.shape[0]
    end = jax.lax.cummin(jnp.where(done, jnp.arange(time)[:, None], time), axis=0, reverse=True)
    there = jnp.take_along_axis(follows, jnp.minimum(end, time - 1), axis=0)
    return there & (end < time)


def before_last(done: Bool[Array, "time lanes"]) -> Bool[Array, "time lanes"]:
    """True at the steps of each lane up to and including its last ``done``."""
    return jax.lax.cummax(done.astype(jnp.int8), axis=0, reverse=True).astype(bool)


def with_next_action(trajectory: Transition, sampled: Any) -> Transition:
    """Add ``info["next_action"]``: the action taken next, or ``sampled`` where the episode or the rollout ends."""
    cut = trajectory.done.at[-1].set(True)
    shifted = jax.tree.map(lambda a: jnp.concatenate([a[1:], a[-1:]]), trajectory.action)
    next_action = select_lanes(cut, sampled, shifted)
    return trajectory._replace(info={**trajectory.info, "next_action": next_action})
