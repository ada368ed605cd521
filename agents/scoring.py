"""What every agent does with a reward: it looks what the reward reads and pays, teaches it, and guards against NaN."""

from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from reward_design.core import NonFiniteRewardError, Output, Reward, Transition
from reward_design.envs.base import FunctionalEnv, example_transition
from reward_design.envs.host import HostEnv


def reward_example(env: FunctionalEnv | HostEnv, num_envs: int = 1) -> Transition:
    """Example transition as agents hand it to a reward: the environment's, with ``info["next_action"]``."""
    example = example_transition(env, num_envs)
    return example._replace(info={**example.info, "next_action": example.action})


def term_names(env: FunctionalEnv | HostEnv, reward: Reward) -> tuple[str, ...]:
    """Sorted names of the terms that ``reward`` has on ``env``, found without computing anything."""
    example = reward_example(env)
    params, state = jax.eval_shape(reward.init, jax.random.key(0), example)
    trajectory = jax.tree.map(lambda x: x[None], example)
    output, _ = jax.eval_shape(reward.unroll, params, state, trajectory)
    return tuple(sorted(output.terms))


def learner_state(reward: Reward, key: Any, params: Any, example: Transition) -> Any:
    """Where the learner of a reward starts, ``()`` for a reward that is not learned."""
    return () if reward.learner is None else reward.learner.init(jax.random.fold_in(key, 1), params, example)


def learned_reward(
    reward: Reward, params: Any, state: Any, trajectory: Transition, key: Any
) -> tuple[Any, Any, dict[str, Array]]:
    """Teach a reward a rollout, if it has a learner.

    Args:
        reward: the reward.
        params: its params.
        state: of its learner, see :func:`learner_state`.
        trajectory: rollout ``[T, B]`` that goes on where the one before stopped.
        key: random key, from which another one is made.

    Returns:
        The params, the learner's state, and its metrics as ``reward/<name>``.
    """
    if reward.learner is None:
        return params, state, {}
    params, state, metrics = reward.learner.update(params, state, trajectory, jax.random.fold_in(key, 1))
    return params, state, {f"reward/{name}": jnp.asarray(value, jnp.float32) for name, value in metrics.items()}


# --- the guard against NaN --------------------------------------------------------------------------------------------


class Fault(NamedTuple):
    """First non-finite reward of a run: env step, lane, and index into the sorted term names; ``step`` -1 if none."""

    step: Int[Array, "*seeds"]
    lane: Int[Array, "*seeds"]
    term: Int[Array, "*seeds"]


def find_fault(fault: Fault, output: Output, first_step: Int[Array, ""]) -> Fault:
    """Record the first non-finite reward of a rollout ``[T, B]``, if there has not been one before."""
    bad = ~jnp.isfinite(output.reward)
    terms = jnp.stack([~jnp.isfinite(output.terms[k]) for k in sorted(output.terms)])
    index = jnp.argmax(bad)
    step, lane = jnp.unravel_index(index, bad.shape)
    found = Fault(first_step + step, lane, jnp.argmax(terms[:, step, lane]))
    new = bad.any() & (fault.step < 0)
    return jax.tree.map(lambda a, b: jnp.where(new, a, b).astype(jnp.int32), found, fault)


def no_fault() -> Fault:
    """The initial :class:`Fault`."""
    return Fault(jnp.int32(-1), jnp.int32(-1), jnp.int32(-1))


def stop_on_fault(new: Any, old: Any, *, aside: tuple[str, ...] = ()) -> Any:
    """``new``, or ``old`` with the fault noted once a reward was not finite: nothing learns from there on.

    The fields ``aside`` are those of ``new`` in any case: large memories that must not be copied.
    """
    without = dict.fromkeys(aside, ())
    kept = jax.tree.map(partial(jnp.where, new.fault.step < 0), new._replace(**without), old._replace(**without))
    return kept._replace(fault=new.fault, **{name: getattr(new, name) for name in aside})


def raise_on_fault(fault: Fault, env: FunctionalEnv | HostEnv, reward: Reward) -> None:
    """Raise :class:`NonFiniteRewardError` for the first seed with a fault; does nothing while tracing."""
    if isinstance(fault.step, Tracer):
        return
    steps = np.atleast_1d(fault.step)
    if (steps < 0).all():
        return
    seed = int(np.argmax(steps >= 0))
    term = term_names(env, reward)[int(np.atleast_1d(fault.term)[seed])]
    raise NonFiniteRewardError(
        f"reward {reward.name!r} was not finite: term {term!r} at step {steps[seed]} of lane "
        f"{np.atleast_1d(fault.lane)[seed]}, seed index {seed} on {env.name!r}; training stopped there and no "
        "parameter was changed by it."
    )
