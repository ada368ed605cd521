# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # The only reward comes at the end
#
# A chemist sees the yield when the reaction is over, a player the result when the game is. The agent must find out
# which of a hundred steps earned it. Here is a task where we know the answer: a grid with a key, a door and a goal,
# whose dense reward is summed up and only paid when the episode ends.

# %%
import os

from reward_design.agents import use_all_cores

use_all_cores()  # every core a device, before JAX starts

import jax
import matplotlib.pyplot as plt
import numpy as np

import reward_design as rd
from reward_design.agents import ppo, rollout
from reward_design.envs import task
from reward_design.experiments import compare, plots
from reward_design.redistribution import Fit, correct_return, ircr, spa, task_features

short = bool(os.environ.get("REWARD_DESIGN_SHORT"))
rooms = task("key_door")
late = rd.delayed(rooms.dense_reward)
print(rd.describe(late))

# %% [markdown]
# The simplest answer gives every step the mean of its episode, R / T. Stepwise progress attribution learns one: a
# network says what each step contributed, and is trained so that the contributions of an episode add up to its return.

# %%
fit = Fit(normalise=False, learning_rate=3e-3, num_updates=16, batch_size=32)
credit = spa(max_length=rooms.horizon, features=task_features(rooms), hidden=(), correction="equal", fit=fit)
designs = {
    "dense": "dense",
    "at the end": late,
    "uniform": rd.chain(late, ircr(normalise=False)),
    "spa": rd.chain(late, credit),
}
results = compare(
    rooms,
    designs,
    seeds=2 if short else 5,
    total_timesteps=10_240 if short else 61_440,
    out="results/notebook_05",
    overwrite=True,
    progress=False,
    report=False,
)

# %% [markdown]
# ## Who gets the credit?
#
# The estimator is part of the reward's parameters: train once more, play some episodes with the policy, and ask it. The
# error is handed out in equal parts, so that each episode is paid exactly its return, however good the estimator is.

# %%
config = ppo.Config(total_timesteps=10_240 if short else 30_720)
result = ppo.train(config, rooms, designs["spa"], jax.random.key(0))
estimator = result.state.reward_params["spa"]["estimator"]
print("held-out explained variance", float(result.metrics["reward/spa/explained_variance"][-10:].mean()))

lanes = rollout.reset_lanes(rooms.env, jax.random.key(1), 8, ())
keys = jax.random.split(jax.random.key(2), rooms.horizon)


def policy(obs, key):
    return ppo.act(config, rooms.env, result.state, obs, key), ()


_, episodes, _ = rollout.collect(rooms.env, policy, lanes, jax.random.key(3), keys, rooms.horizon)
episodes = episodes._replace(mask=np.cumsum(episodes.done, axis=0) - episodes.done == 0)  # the first of each lane

params, state = rooms.dense_reward.init(jax.random.key(0), rooms.example)
true_reward = np.asarray(rooms.dense_reward.unroll(params, state, episodes)[0].reward)
asked = spa(max_length=rooms.horizon, features=task_features(rooms), hidden=(), fit=fit)
_, state = asked.init(jax.random.key(0), jax.tree.map(lambda x: x[0], episodes))
trusted = {"alpha": 1.0, "estimator": {**estimator, "trust": jax.numpy.float32(1.0)}}
terms = asked.unroll(trusted, state, episodes)[0].terms
paid = correct_return(terms["contribution"], true_reward.sum(0), episodes.mask, correction="equal")
assert np.allclose(paid.sum(0), true_reward.sum(0), atol=1e-3)

# %%
figure, axes = plt.subplots(1, 2, figsize=(13, 3.8), layout="constrained")
plots.learning_curves(results, "key_door", axes[0]).set_ylabel("true return")
steps = int(episodes.mask[:, 0].sum())
plots.credit(paid[:steps, 0], true_reward[:steps, 0], axes[1])
axes[1].set_title("one episode: credit and what was really earned")
plt.show()

# %% [markdown]
# Left: the task's own return. From the sum at the end alone PPO hardly learns, although nothing else about the task has
# changed. Right: the credit of each step against the dense reward that the agent never saw. The goal's 1 is handed
# out over the way to it: a policy that nearly always succeeds shows which steps lead there, and no sum of an episode
# tells at which of them it was earned.
