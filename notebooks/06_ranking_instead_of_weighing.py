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
# # Ranking instead of weighing
#
# A pendulum should stand upright. Once it does, it should be calm, and if it is calm as well, it should save its motor.
# That is a ranking, and everybody agrees on it. How many radians of tilt one newton metre is worth, nobody knows; but a
# weighted sum has to say so. HERON asks for the ranking alone.

# %%
import os

from reward_design.agents import use_all_cores

use_all_cores()  # every core a device, before JAX starts

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from reward_design.envs import task
from reward_design.preferences import PreferenceConfig, compare_ranked, cycle_rate, factor_sum, heron, task_factors

pendulum = task("pendulum")
for name, factor in pendulum.factors.items():
    print(f"{name:13} {factor.sign:+d}  [{factor.unit}] {factor.description}")

# %% [markdown]
# ## What a ranking says
#
# Two pieces of experience are compared by the first factor. If they differ by more than its margin, that decides;
# otherwise the next one is asked. Here are three of them, as (uprightness, calm), larger is better:

# %%
pieces = jnp.array([[1.0, 0.0], [0.4, 9.0], [0.9, 0.2]])
for first, second in ((0, 1), (0, 2), (1, 2)):
    label = float(compare_ranked(pieces[first], pieces[second], margins=[0.5, 0.1]))
    print(pieces[first], "or", pieces[second], "->", {1.0: "the first", 0.0: "the second", 0.5: "a tie"}[label])

# %% [markdown]
# Look again: the three run in a circle. That is what a margin can do, and no reward whatever can represent it. So the
# share of such triples is measured while learning:

# %%
print("circular triples with these margins:", float(cycle_rate(pieces, margins=[0.5, 0.1])))
print("and without:", float(cycle_rate(pieces, margins=[0.0, 0.0])))

# %% [markdown]
# ## Training on it
#
# The reward is a network that learns, beside the agent, to agree with such comparisons. It never sees what the
# environment pays. Next to it: the weighted sum that a designer in a hurry would write, with weights 100, 10 and 1.

# %%
from reward_design.experiments import compare, plots

short = bool(os.environ.get("REWARD_DESIGN_SHORT"))
ranking = task_factors(pendulum, ["tilt", "speed", "effort"], margins=[0.1, 0.2, 0.5])
learning = PreferenceConfig(num_calibration=64, refresh_every=2048)
results = compare(
    pendulum,
    {"heron": heron(ranking, config=learning), "100, 10, 1": factor_sum(ranking), "environment": "environment"},
    seeds=2 if short else 10,
    total_timesteps=20_480 if short else 204_800,
    out="results/notebook_06",
    overwrite=True,
    progress=False,
    report=False,
)
for label in results.rewards:
    final = results.done["pendulum", label].final("true_return")
    print(f"{label:12} return of the environment at the end: {np.mean(final):8.1f} (worst seed {np.min(final):.1f})")

# %% [markdown]
# ## Who decides?
#
# Every metric of the learned reward is recorded. The picture on the right is the first thing to look at: if the first
# factor decides nearly everything, the others have no say, and its margin should be larger.

# %%
from reward_design.experiments.preference_plots import deciding_levels

record = results.done["pendulum", "heron"].record
figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
plots.learning_curves(results, "pendulum", axes[0]).set_ylabel("return of the environment")
for name in ("tilt", "speed", "effort"):
    axes[1].plot(record["steps"], record["losses"][f"reward/accuracy/{name}"], label=name)
axes[1].set(xlabel="environment steps", ylabel="accuracy on held-out pairs", ylim=(0, 1))
axes[1].legend()
deciding_levels(record["steps"], record["losses"], axes[2], levels=["tilt", "speed", "effort"])
plt.show()

# %% [markdown]
# ## Changing one's mind
#
# Margins are params, so several can be tried in one compilation: here the margin of the first factor.

# %%
from reward_design.agents import ppo

reward = heron(ranking, config=learning)
config = ppo.Config(total_timesteps=10_240 if short else 102_400, gamma=pendulum.gamma, normalise_reward=True)
params, _ = reward.init(jax.random.key(0), pendulum.example)
tried = jnp.array([0.0, 0.5, 2.0])
many = jax.vmap(lambda margin: {**params, "margins": params["margins"].at[0].set(margin)})(tried)
runs = jax.vmap(lambda p: ppo.train(config, pendulum, reward, jax.random.key(0), reward_params=p))(many)
for margin, *shares in zip(tried, *(runs.metrics[f"reward/decided/{f.name}"][:, -1] for f in ranking)):
    print(
        f"margin {margin:.1f} of the tilt: decided by "
        + ", ".join(f"{f.name} {share:.0%}" for f, share in zip(ranking, shares))
    )
