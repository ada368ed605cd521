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
# # Which design helps where
#
# One task says little about a reward design. A suite declares many comparisons in one readable file, runs them over
# many seeds, and judges every design by the return of the tasks' own rewards. This notebook reads what came of one.

# %%
import os
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from reward_design.experiments import plots, suites

short = bool(os.environ.get("REWARD_DESIGN_SHORT"))
folder = Path(tempfile.mkdtemp() if short else "results/suite")

# %% [markdown]
# ## The suite
#
# `core` comes with the package; on the command line it is
# `reward-design compare --suite core --size smoke --out results/suite`. What is finished in the folder is read and not
# trained again, so this notebook shows a suite that ran in the night as well as one that it trains itself. For a look
# at the whole in a minute, here is one of our own: grids, where everything is exact, and a tabular learner.

# %%
declared = """
description = "Three designs on two grids"

[sizes]
smoke = { seeds = 4, steps = 1.0, max_steps = 10_000 }

[blocks.grids]
tasks = ["four_rooms", "chain"]
rewards = ["sparse", "shaping", "naive/misaligned"]
agent = "q_learning"
"""
if short:
    (folder / "grids.toml").write_text(declared)
suite = suites.load_suite(str(folder / "grids.toml") if short else "core", "smoke")
judged = suites.compare_suite(suite, out=folder, progress=False)
print(f"{len(judged.results)} comparisons, {suite.num_runs} runs; page: {judged.report}")

# %% [markdown]
# ## The verdict
#
# In plain words, with its figures. A design "helped" on a task where the whole 95 % interval of the probability that
# its run beats one of the sparse reward is above one half.

# %%
for sentence in suites.sentences(judged):
    print("-", sentence)

# %%
for line in judged.lines:
    score = f"{line.score.value:.2f} ({line.score.low:.2f} to {line.score.high:.2f})" if line.score else "none"
    print(f"{line.reward:18} score {score:22} helped on {len(line.helped)}, harmed on {len(line.harmed)} tasks")

# %% [markdown]
# ## Not only means
#
# A mean hides whether a design is a little better everywhere or saves some runs and ruins others. The performance
# profile shows the share of runs above every score. On the right: the distance of a design to the true reward, known
# **before** any training, against the regret of the policy that the design asks for.

# %%
colours = plots.colours(judged.rewards)
levels, shares = judged.profiles
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.8), layout="constrained")
for reward, share in shares.items():
    left.plot(levels, share, color=colours[reward], label=reward)
left.set(xlabel="normalised score", ylabel="share of runs above it", title="performance profiles")
left.legend(frameon=False)

for name, found in judged.results.items():
    for exact in found.exact.values():
        for reward, distance in zip(exact["names"][1:], exact["matrix"][0][1:]) if not exact.get("reason") else ():
            right.plot(distance, exact["regret"][reward], "o", color=colours[reward], alpha=0.8)
            if exact["regret"][reward] > 0.05:
                where = (distance, exact["regret"][reward])
                label = {"fontsize": 8, "ha": "right", "xytext": (-4, -12), "textcoords": "offset points"}
                right.annotate(name.split("/", 1)[1], where, **label)
right.margins(0.15)
right.set(xlabel="STARC distance to the true reward", ylabel="regret of its optimal policy", title="before training")
plt.show()

# %%
for kind, value in judged.correlations.items():
    if value is not None:
        what = {"regret": "regret of the optimal policy", "loss": "what trained agents fall short of"}[kind]
        print(f"rank correlation of distance and {what}: {value.value:.2f} ({value.low:.2f} to {value.high:.2f})")

# %% [markdown]
# Watch a suite while it runs, with curves, terms and distances of every comparison:
# `reward-design board results/suite`.

# %%
scores = {line.reward: line.score.value for line in judged.lines if line.score}
assert scores["naive/misaligned"] < scores["shaping"]
assert all(np.isfinite(list(scores.values())))
