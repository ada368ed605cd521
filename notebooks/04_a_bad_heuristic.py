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
# # A heuristic that nobody checked
#
# A point walks through a square to a goal in the far corner: 100 for arriving, −0.1 per step. To help it along,
# somebody pays 50 for every moment in the middle of the square, because the way leads through it. Does that help or
# harm? BARFI (Gupta et al., 2023, arXiv 2310.19007) does not need to know: it learns how much of the heuristic to use,
# so that what is learned from the blend does well on the task.

# %%
import os

from reward_design.agents import train_seeds, use_all_cores

use_all_cores()  # every core a device, before JAX starts

import jax
import matplotlib.pyplot as plt
import numpy as np

from reward_design.bilevel import BARFI, BarfiConfig, method
from reward_design.envs import task
from reward_design.experiments import alignment

square = task("gridworld")
print(square.description)
short = bool(os.environ.get("REWARD_DESIGN_SHORT"))
SEEDS, STEPS = (6, 32_000) if short else (10, 40_000)
keys = jax.random.split(jax.random.key(1), SEEDS)

# %% [markdown]
# ## Three learners with the same data and the same number of updates
#
# They differ in what they are paid: the task's reward alone, task plus heuristic, or the blend
# φ₁ + φ₂ r_task + φ₃ r_heuristic, whose φ starts at the naive sum (0, 1, 1) and is learned.


# %%
def trained(name):
    chosen = method(name, square, "misaligned")
    config = BarfiConfig(total_timesteps=STEPS, horizon=square.horizon, **chosen.settings)
    return train_seeds(BARFI, config, square, chosen.reward, keys)


results = {name: trained(name) for name in ("primary", "naive", "barfi")}
final = {name: result.metrics["true_return"][:, -20:].mean(1) for name, result in results.items()}
for name, values in final.items():
    print(f"{name:8} return on the task, by seed: {np.sort(values).round(1)}")

# %%
steps = np.asarray(results["barfi"].metrics["env_steps"])[0]
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 3.5), layout="constrained")
for name, result in results.items():
    median = np.median(result.metrics["true_return"], axis=0)
    left.plot(steps, np.convolve(np.pad(median, 5, mode="edge"), np.ones(11) / 11, mode="valid"), label=name)
left.set(xlabel="environment steps", ylabel="return on the task", title="median over seeds")
left.locator_params(axis="x", nbins=5)
left.legend(frameon=False)
alignment.weights(steps, results["barfi"].metrics, right).set_title("what BARFI learned")
plt.show()

# %% [markdown]
# The naive sum loiters in the middle. BARFI does so at first, because it starts as the naive sum; then the outer
# gradient finds that paying less for the middle brings more of the task's own reward, and turns the heuristic down. In
# a sentence:

# %%
last = {name: results["barfi"].metrics[name][:, -1] for name in ("phi1", "phi2", "phi3", "discount")}
print(alignment.conclusion(last, "misaligned"))

# %% [markdown]
# ## And a heuristic that helps?
#
# With a good one the same procedure keeps it. It costs little to ask.

# %%
chosen = method("barfi", square, "aligned")
config = BarfiConfig(total_timesteps=STEPS, horizon=square.horizon)
helped = train_seeds(BARFI, config, square, chosen.reward, keys).metrics
print(alignment.conclusion({name: helped[name][:, -1] for name in last}, "aligned"))

# %% [markdown]
# From the command line the same is
#
# ```
# reward-design train --task gridworld --reward barfi --auxiliary misaligned --out results/barfi
# reward-design compare --task gridworld --rewards environment naive barfi --auxiliary misaligned
# ```

# %%
assert np.median(final["naive"]) < 50 < np.median(final["barfi"])
assert np.median(last["phi3"] / last["phi2"]) < 0.5
