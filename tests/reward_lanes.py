"""Lanes of cartpole with all that can happen in them, and what a reward pays there."""

import jax
import jax.numpy as jnp

from reward_design.envs import task
from reward_design.rollouts import random_trajectory

CARTPOLE = task("cartpole")


def lanes():
    """Lanes with terminations, truncations and masked rows."""
    example = jax.tree.map(lambda x: x + jnp.ones((), x.dtype), CARTPOLE.example)
    return random_trajectory(example, seed=3)


def unrolled(reward, trajectory):
    params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], trajectory))
    return jax.jit(reward.unroll)(params, state, trajectory)[0]
