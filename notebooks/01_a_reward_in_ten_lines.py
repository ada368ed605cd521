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
# # A reward in ten lines
#
# Four rooms: an agent starts in one corner of a house and is paid 1 at the goal in the opposite corner, nothing on the
# way. A designer helps out with two ideas. One turns out to be harmless, the other is a trap, and we can tell
# **before** training.

# %%
import os

from reward_design.agents import use_all_cores

use_all_cores()  # every core a device, before JAX starts

import jax.numpy as jnp
import matplotlib.pyplot as plt

import reward_design as rd
from reward_design.distance import distance_matrix, policy_regret, reward_tables
from reward_design.envs import task

rooms = task("four_rooms")
print(rooms.description)

# %% [markdown]
# Idea one: a potential that grows towards the goal, added as potential-based shaping. Idea two: the same potential as a
# small bonus in every step, more the closer to the goal. Both are plain functions of a batched transition.

# %%
shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(rooms.potential, gamma=rooms.gamma))


def close(params, t):
    return params["bonus"] * rooms.potential(t.next_obs)


naive = rd.chain(
    rd.weighted_sum(task=rd.environment_reward(), close=rd.pointwise("close", close, params={"bonus": 0.1})),
    rd.clip(-1.0, 1.0),
)
print(rd.describe(naive))

# %% [markdown]
# ## Before training: is it still the task I meant?
#
# The task has exact dynamics, so the distance between rewards is exact: 0 means that they order all policies alike, 2
# that they are opposite. The regret says how much of the task's return is lost by a policy that is optimal for the
# design.

# %%
model = rooms.tabular()
designs = {"task": rd.environment_reward(), "shaping": shaped, "naive bonus": naive}
tables = reward_tables(designs, model)
distances = distance_matrix(tables, model.transition, gamma=model.gamma)
for name, distance, table in zip(designs, distances[0], tables):
    regret = policy_regret(tables[0], table, model.transition, model.initial, gamma=model.gamma)
    print(f"{name:12} distance {distance:.3f}   regret of the optimal policy {float(regret):.3f}")

# %% [markdown]
# Shaping is at distance 0: it is the same task, told better. The bonus is far away, and its optimal policy never
# arrives: it pays to stay near the goal and collect.
#
# ## After training: the same answer, at a price
#
# One call trains PPO with each design over several seeds, jitted as a whole, and judges all of them by what the
# *task* pays.

# %%
from reward_design.experiments import compare, plots

short = bool(os.environ.get("REWARD_DESIGN_SHORT"))
results = compare(
    rooms,
    {"sparse": "sparse", "shaping": shaped, "naive bonus": naive},
    seeds=2 if short else 10,
    total_timesteps=20_480 if short else 40_960,
    out="results/notebook_01",
    overwrite=True,
    progress=False,
    report=False,
)

figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
plots.learning_curves(results, "four_rooms", axes[0]).set_ylabel("true return")
exact = results.exact["four_rooms"]
plots.reward_map(exact, "shaping", axes[1])
plots.reward_map(exact, "naive bonus", axes[2])
axes[1].set_title("shaping: reward and greedy policy")
axes[2].set_title("naive bonus: reward and greedy policy")
plt.show()

# %% [markdown]
# Left: the task's own return while training, interquartile mean and bootstrap interval over the seeds. Right: where
# each design pays, and the policy that is optimal for it. The arrows of the shaped reward lead to the goal; those of
# the bonus lead next to it.
#
# The same `shaped` runs unchanged in a gymnasium wrapper, in stable-baselines3 and on recorded data:

# %%
from reward_design.adapters.gymnasium import RewardWrapper

env = RewardWrapper(rooms.make(), shaped)
env.reset(seed=0)
_, reward, _, _, info = env.step(1)
print(reward, info["env_reward"], info["reward_terms"])
assert jnp.isclose(reward, sum(info["reward_terms"].values()))
