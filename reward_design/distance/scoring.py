"""Rewards of sampled transitions: pointwise ones directly, ones with memory along the recorded rollout."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from reward_design.combinators import freeze_running
from reward_design.core import Kind, Reward, Transition
from reward_design.describe import missing_entry
from reward_design.distance.features import is_index
from reward_design.distance.samples import Samples

Sampled = Any
"""A :class:`Reward`, a table ``[S, A, S]`` where observations are states, or values ``[N, K]``."""


def scores(reward: Sampled, samples: Samples) -> Float[np.ndarray, "N K"]:
    """What a reward pays on samples, in float64.

    Args:
        reward: a reward of kind POINTWISE; one of kind CAUSAL, if ``samples`` come from a rollout; a table
            ``[S, A, S]``, if observations are state indices; or values ``[N, K]``.
        samples: the batch.

    Raises:
        TypeError: for rewards of whole episodes, and rewards with memory where there is no rollout.
        ValueError: for values of another shape, or not finite (with the sample).
    """
    if isinstance(reward, Reward):
        check_learned(reward)
        values = _pointwise(reward, samples) if reward.kind is Kind.POINTWISE else memory(reward, samples)[0]
    else:
        values = _from_array(np.asarray(reward, float), samples)
    name = getattr(reward, "name", "the reward")
    if not np.isfinite(values).all():
        at = [int(i) for i in np.argwhere(~np.isfinite(values))[0]]
        raise ValueError(
            f"{name!r} must be finite on all samples, got {values[tuple(at)]} at sample {at[0]}, successor {at[1]}; "
            "fix the reward."
        )
    return values


def check_learned(reward: Reward) -> None:
    """Raise a ValueError for a reward that still learns: what it pays before says nothing about it."""
    if reward.learner is not None:
        raise ValueError(
            f"{reward.name!r} is learned while an agent trains, and its parameters here would be those before; give "
            "with_params(reward, params) with what training left."
        )


def memory(reward: Reward, samples: Samples) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A reward with memory along the recorded rollout: ``[N, 1]`` values, ``[N, D]`` memory before, and after a step.

    The memory is what the reward keeps per episode, all its leaves side by side: together with the observation it is
    the state on which the reward is a function of one transition.

    Raises:
        TypeError: for rewards of whole episodes, and without a rollout.
    """
    if reward.kind is Kind.TRAJECTORY:
        raise TypeError(
            f"{reward.name!r} has kind TRAJECTORY: what it pays depends on steps that follow, so no state makes it a "
            "function of one transition, and a distance is not defined. Give a reward of kind POINTWISE or CAUSAL, "
            "such as the one that it redistributes."
        )
    if samples.trajectory is None:
        raise TypeError(
            f"{reward.name!r} has kind CAUSAL: it depends on the past of the episode, which independent samples do not "
            "have. Give recorded_samples(trajectory) with leaves [T, B]."
        )
    paid, before, after = _scanned(freeze_running(reward), samples.trajectory)
    rows = samples.rows
    flat = lambda x: np.asarray(x, float).reshape(paid.size, -1)[rows]  # noqa: E731
    return flat(paid), flat(before), flat(after)


def table_or_reward(reward: Sampled, samples: Samples) -> Callable[[Transition], np.ndarray]:
    """A function of any transitions ``[B]`` for a pointwise reward or a table; float64."""
    if not isinstance(reward, Reward):
        table = np.asarray(reward, float)
        if table.ndim != 3:
            raise TypeError(
                "EPIC and DARD evaluate rewards on transitions that were not sampled, so values [N, K] are not enough; "
                f"give a Reward of kind POINTWISE or a table [S, A, S], got an array of shape {table.shape}."
            )
        return lambda t: table[np.asarray(t.obs), np.asarray(t.action), np.asarray(t.next_obs)]
    check_learned(reward)
    if reward.kind is not Kind.POINTWISE:
        raise TypeError(
            f"{reward.name!r} has kind {reward.kind.name}; EPIC and DARD need a reward of single transitions, of kind "
            "POINTWISE."
        )
    return lambda t: _step(reward, t)


# --- parts ----------------------------------------------------------------------------------------------------------


def _from_array(values: np.ndarray, samples: Samples) -> np.ndarray:
    if values.shape == samples.reward.shape:
        return values
    if values.ndim == 3 and is_index(samples.obs):
        return values[samples.obs[:, None], samples.action[:, None], samples.next_obs]
    raise ValueError(
        f"expected a Reward, values of shape [N, K] = {samples.reward.shape}, or a table [S, A, S] for samples whose "
        f"observations are states, got an array of shape {values.shape}."
    )


def _pointwise(reward: Reward, samples: Samples) -> np.ndarray:
    return _step(reward, samples.transitions()).reshape(samples.reward.shape)


def _step(reward: Reward, transitions: Transition) -> np.ndarray:
    """One step over all rows in float64, whatever ``jax_enable_x64`` says."""
    with jax.enable_x64(True):
        wide = jax.tree.map(_wide, transitions)
        try:
            params, state = reward.init(jax.random.key(0), wide)
            output = reward.step(params, state, wide)[0]  # pyright: ignore[reportOptionalCall]
        except (KeyError, TypeError) as error:
            raise missing_entry(f"reward {reward.name!r}", error, transitions) from error
        return np.asarray(output.reward, float)


def _wide(x: Any) -> Any:
    """Floats as float64; integers keep the type that environments give them."""
    x = np.asarray(x)
    return x.astype(np.float64) if x.dtype.kind == "f" else x


def _scanned(reward: Reward, trajectory: Transition) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values ``[T, B]`` and memory ``[T, B, D]`` before and after each step; after a reset, the fresh one."""
    with jax.enable_x64(True):
        wide = jax.tree.map(_wide, trajectory)
        params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], wide))
        lanes = jnp.shape(wide.mask)[1]

        def flat(episode: Any) -> Any:
            leaves = [jnp.asarray(x).astype(float).reshape(lanes, -1) for x in jax.tree.leaves(episode)]
            return jnp.concatenate([jnp.zeros((lanes, 0)), *leaves], axis=1)

        def body(carry: Any, row: Transition) -> Any:
            open_ended = row._replace(terminated=row.terminated & False, truncated=row.truncated & False)
            kept = reward.step(params, carry, open_ended)[1]  # pyright: ignore[reportOptionalCall]
            output, new = reward.step(params, carry, row)  # pyright: ignore[reportOptionalCall]
            return new, (output.reward, flat(carry.episode), flat(kept.episode))

        return jax.tree.map(np.asarray, jax.lax.scan(body, state, jax.tree.map(jnp.asarray, wide))[1])
