"""A chain so small that estimators learn it at once: its episodes as rollouts, and what was learned from them."""

import jax
import jax.numpy as jnp
import numpy as np

import reward_design as rd
from reward_design.envs import task

KEY = jax.random.key(0)
TINY = task("chain", num_states=5, horizon=12)


def pairs(t):
    """One-hot (state, action) of the chain of 5 states."""
    return jax.nn.one_hot(jnp.asarray(t.obs) * 2 + jnp.asarray(t.action), 10)


def rollout_of(episodes, returns, length):
    """Episodes of (state, action, next state) as a rollout ``[length, lanes]`` that pays at the end."""
    shape = (length, len(episodes))
    obs, action, after = (np.zeros(shape, np.int32) for _ in range(3))
    mask, ended, reward = np.zeros(shape, bool), np.zeros(shape, bool), np.zeros(shape, np.float32)
    for lane, steps in enumerate(episodes):
        for t, (state, chosen, then) in enumerate(steps):
            obs[t, lane], action[t, lane], after[t, lane], mask[t, lane] = state, chosen, then, True
        ended[len(steps) - 1, lane] = True
        reward[len(steps) - 1, lane] = returns[lane]
    return rd.Transition(obs, action, after, reward, ended, np.zeros(shape, bool), mask, {})


def fitted(reward, rollout, rounds):
    """Params after a reward has learned from one rollout again and again, and the last metrics."""
    example = jax.tree.map(lambda x: x[0], rollout)
    params, state = jax.jit(reward.init)(KEY, example)
    learner = reward.learner.init(KEY, params, example)

    @jax.jit
    def run(params, learner):
        def body(carry, key):
            params, learner, metrics = reward.learner.update(*carry, rollout, key)
            return (params, learner), metrics

        return jax.lax.scan(body, (params, learner), jax.random.split(KEY, rounds))

    (params, learner), metrics = run(params, learner)
    return params, state, jax.tree.map(lambda x: float(x[-1]), metrics)
