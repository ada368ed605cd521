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
import tempfile
from pathlib import Path

import matplotlib.pyplot as plt

import reward_design
from reward_design.experiments import plots, suites

# %% [markdown]
# ## The suite
#
# `core` comes with the package: tasks of all families, fourteen designs. Its core size takes some two hours on two
# cores,
#
#     reward-design compare --suite core --size core --out results/core --executor processes --workers 2
#
# and a clone of the repository holds the records of one. Where they are not, the cell trains a suite of its own, three
# designs on two grids, in a minute.

# %%
GRIDS = """
description = "Three designs on two grids"

[sizes]
smoke = { seeds = 4, steps = 1.0, max_steps = 10_000 }

[blocks.grids]
tasks = ["four_rooms", "chain"]
rewards = ["sparse", "shaping", "naive/misaligned"]
agent = "q_learning"
"""
records = Path(reward_design.__file__).parents[1] / "benchmarks" / "records" / "core_suite"
if records.is_dir():
    judged = suites.load_verdict(suites.load_suite("core", "core"), records)
else:
    folder = Path(tempfile.mkdtemp())
    (folder / "grids.toml").write_text(GRIDS)
    judged = suites.compare_suite(suites.load_suite(folder / "grids.toml"), out=folder, progress=False)
runs = sum(len(unit.final()) for found in judged.results.values() for unit in found.done.values())
print(f"{len(judged.results)} tasks, {len(judged.rewards)} designs, {runs} trained agents")

# %% [markdown]
# ## The verdict
#
# In plain words, with its figures. A design "helped" on a task where the whole 95 % interval of the probability that
# its run beats one of the sparse reward is above one half.

# %%
for sentence in suites.sentences(judged):
    print("-", sentence)

# %% [markdown]
# The same as a picture: the score of a design on a task, from 0 for the worst design there to 1 for the best. Green
# tiles helped, orange ones harmed.

# %%
size = (2.2 + 0.62 * len(judged.results), 1.4 + 0.3 * len(judged.rewards))
figure, axes = plt.subplots(figsize=size, layout="constrained")
suites.score_map(judged, axes)
plt.show()

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
looks = plots.looks(judged.rewards)
levels, shares = judged.profiles
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
for reward, share in shares.items():
    left.plot(levels, share, **looks[reward].line, label=reward)
left.set(xlabel="normalised score", ylabel="share of runs above it", title="performance profiles")
figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=8, ncols=7)

for name, found in judged.results.items():
    for exact in found.exact.values():
        for reward, distance in zip(exact["names"][1:], exact["matrix"][0][1:]) if not exact.get("reason") else ():
            right.plot(distance, exact["regret"][reward], "o", color=looks[reward].colour, alpha=0.8)
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
assert all(0 <= score <= 1 for score in scores.values())
