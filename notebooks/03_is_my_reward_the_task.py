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
# # Is my reward the task I meant?
#
# Two rewards may have nothing in common number by number and still ask for the same behaviour; two others may look
# alike and ask for opposite things. Here are seven designs for one task, each of which somebody would defend in a
# meeting. Which of them are the task? The answer needs no training.

# %%
import itertools
import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import reward_design as rd
from reward_design.distance import audit, decompose_difference, reward_table
from reward_design.envs import task
from reward_design.envs.tabular_parts import Lookup
from reward_design.experiments import distance_table, maps, plots

rooms = task("key_door", slip=0.1)
model = rooms.tabular()
print(rooms.description)

# %% [markdown]
# ## Seven designs
#
# All but one keep the task's own reward of 1 at the goal and add something sensible:

# %%
factors = {name: factor.fn for name, factor in rooms.factors.items()}
near = rooms.potential  # 1 at the goal, 0 where it is farthest, by the number of moves


def milestones(params, t):
    return t.reward + 0.3 * factors["key_picked"](t) + 0.3 * factors["door_opened"](t)


def progress(params, t):
    return t.reward + 0.5 * (near(t.next_obs) - near(t.obs))


def minus_distance(params, t):
    return -0.1 * (1 - near(t.next_obs))  # the goal itself pays nothing


def closeness(params, t):
    return t.reward + 0.1 * near(t.next_obs)


def carry(params, t):
    return t.reward + 0.1 * factors["carries_key"](t)  # without the key nothing works, so pay for having it


def hurry(params, t):
    return t.reward - 0.02


# %% [markdown]
# The seventh is meant to look like nothing at all: three times the task, plus a large potential, plus a fine or a
# windfall for where the agent happens to slip, which is zero on average.

# %%
luck = np.random.default_rng(0).normal(size=len(model.terminal))
windfall = Lookup(luck[None, None, :] - (model.transition @ luck)[:, :, None])  # [S, A, S], mean 0 over successors


def tripled(params, t):
    return 3 * t.reward + windfall((t.obs, t.action, t.next_obs))


designs = {
    "milestones": rd.pointwise("milestones", milestones),
    "progress": rd.pointwise("progress", progress),
    "minus distance": rd.pointwise("minus_distance", minus_distance),
    "closeness": rd.pointwise("closeness", closeness),
    "carry": rd.pointwise("carry", carry),
    "hurry": rd.pointwise("hurry", hurry),
    "disguised": rd.chain(
        rd.pointwise("tripled", tripled), rd.potential_shaping(lambda obs: 5 * near(obs), gamma=rooms.gamma)
    ),
}

# %% [markdown]
# ## By eye
#
# What the designs pay along one and the same walk, the best one. Which line is the task in disguise?

# %%
exact = maps.exact(rooms, designs)
tables = {name: np.asarray(reward_table(design, model)) for name, design in designs.items()}
best = np.argmax(exact["greedy"][maps.TRUE_REWARD], axis=1)
walk = [int(np.argmax(model.initial))]
while not model.terminal[walk[-1]]:
    walk.append(int(model.transition[walk[-1], best[walk[-1]]].argmax()))
paid = {name: [table[s, best[s], n] for s, n in itertools.pairwise(walk)] for name, table in tables.items()}

palette = dict(zip(designs, ("#1f86c8", "#009e73", "#8b8f98", "#d55e00", "#a0527f", "#e09c00", "#1d1f24")))
figure, ax = plt.subplots(figsize=(9, 3.6), layout="constrained")
for name, rewards in paid.items():
    ax.plot(np.arange(1, len(rewards) + 1), rewards, color=palette[name], linewidth=1.6)
plots.label_ends(ax, {name: rewards[-1] for name, rewards in paid.items()}, palette)
ax.set(xlabel="step of the best walk", ylabel="reward", xlim=(1, len(walk) - 1))
plt.show()

# %% [markdown]
# ## By distance
#
# The STARC distance (Skalse et al., 2024) takes out what does not matter (scale, potential shaping, redistribution over
# successors) and measures the rest: 0 means that all policies are ordered alike, 2 in opposite ways. Beside it, what
# the distance may cost: the **regret** of optimising the design, and the **worst case**, the most that a policy can
# lose which the design likes as much as a better one. Both as shares of all that there is to win.

# %%
found = distance_table.measure(rooms, designs)
for name in sorted(designs, key=lambda name: found.matrix[0][found.names.index(name)]):
    apart = found.matrix[0][found.names.index(name)]
    print(f"{name:15} distance {apart:5.3f}  regret {found.regret[name]:6.1%}  worst {found.worst_regret[name]:6.1%}")

# %%
figure, axes = plt.subplots(1, 3, figsize=(14, 4.6), width_ratios=(0.7, 2.2, 2), layout="constrained")
distance_table.heatmap(found, axes[:2])
for name in designs:
    x = found.matrix[0][found.names.index(name)]
    axes[2].plot([x, x], [found.regret[name], found.worst_regret[name]], color=palette[name], linewidth=2, alpha=0.5)
    axes[2].plot(x, found.regret[name], "o", color=palette[name])
    label = {"disguised": "disguised, hurry", "hurry": ""}.get(name, name)
    axes[2].text(x + 0.03, found.worst_regret[name] + 0.02, label, color=palette[name], rotation=35, fontsize=9)
axes[2].set(
    xlabel="distance from the task", ylabel="share of the task's return",
    title="lost: by optimising (dot), at worst (line)",
    xlim=(-0.05, 2.3), ylim=(-0.05, 1.35),
)  # fmt: skip
plt.show()

# %% [markdown]
# - `disguised` and `hurry` **are** the task, to the last digit. A cost per step is potential shaping with a constant,
#   as long as all ends are alike.
# - `milestones`, `progress` and `minus distance` have the right optimum and another order below it. That is fine for an
#   agent that gets to the optimum; one that stops on the way may stop at the wrong place.
# - `closeness` and `carry` are other tasks. Optimised, they lose everything.
#
# ## What the difference is made of
#
# How much of a difference is harmless is also worth knowing, because large numbers hide it: `closeness` is mostly
# shaping and scale by size, and only a few per cent of it do the damage.

# %%
parts = {
    name: decompose_difference(model.reward, table, model.transition, gamma=model.gamma)
    for name, table in tables.items()
}
figure, ax = plt.subplots(figsize=(9, 3.2), layout="constrained")
left = np.zeros(len(parts))
for part, color in zip(
    ("scale", "potential", "redistribution", "residual"), ("#c9d8e8", "#9fc5b5", "#e8d9a8", "#d55e00")
):
    share = np.array([parts[name].shares[part] for name in parts])
    ax.barh(list(parts), share, left=left, color=color, label=part)
    left += share
ax.invert_yaxis()
ax.set(xlabel="share of the squared difference", xlim=(0, 1))
ax.legend(ncols=4, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
plt.show()
for name, split in parts.items():
    print(f"{name:15} pays {split.scale:.2f} x the task; residual {split.shares['residual']:.1%}")

# %% [markdown]
# `0.00 x the task` is the alarm: what is left of `closeness` and `carry` after shaping is taken out has nothing of the
# task in it.
#
# ## Where it goes wrong
#
# The map as the agent sees it once it has the key, for `closeness` once the door is open. Green: the most that a step
# pays; arrows: what the design asks for. K, D and G are key, door and goal.

# %%
figure, axes = plt.subplots(1, 4, figsize=(14.5, 3), layout="constrained")
for ax, (name, layer) in zip(axes, {maps.TRUE_REWARD: 1, "milestones": 1, "carry": 1, "closeness": 2}.items()):
    plots.reward_map(exact, name, ax, layer=layer).set_title(f"{name}, {model.layout.layer_names[layer]}", fontsize=10)
plt.show()

# %% [markdown]
# `carry` keeps clear of the door, since opening it stops the pay. `closeness` goes through it, and then waits beside
# the goal.
#
# ## In words
#
# `audit` puts all of this together for one design. On the command line it is
# `reward-design audit --task key_door --reward my_module:my_reward`, which also writes a page with the episodes.

# %%
for name in ("disguised", "milestones", "carry"):
    print(f"{name}: {audit(rooms, designs[name]).verdict}\n")
print(audit(rooms, designs["milestones"]))

# %% [markdown]
# Read the worst case of `milestones`: the design likes a policy that never reaches the goal as much as one that earns
# two fifths of all there is to win. Whoever stops training early, on the curve of the designed reward, may choose the
# first.
#
# ## Without exact dynamics
#
# Everything above was exact. For a continuous task the same distance is estimated from samples, with an interval. A
# pendulum, whose own reward weighs tilt, speed and effort:

# %%
pendulum = task("pendulum")
short = bool(os.environ.get("REWARD_DESIGN_SHORT"))


def upright(params, t):
    return jnp.where(jnp.abs(pendulum.factors["tilt"].fn(t)) < 0.5, 1.0, 0.0)


estimated = distance_table.measure(
    pendulum,
    {
        "shaped": rd.chain(
            rd.scale(2.0), rd.potential_shaping(lambda obs: 20 * pendulum.potential(obs), gamma=pendulum.gamma)
        ),
        "tilt only": rd.pointwise("tilt", lambda params, t: -(pendulum.factors["tilt"].fn(t) ** 2)),
        "upright": rd.pointwise("upright", upright),
        "misaligned": pendulum.auxiliary["misaligned"],
    },
    num_samples=1000 if short else 4000,
)
for name, *numbers in zip(estimated.names, estimated.matrix[0], estimated.low[0], estimated.high[0]):
    print("{:12} {:.2f}  [{:.2f}, {:.2f}]".format(name, *numbers))
for note in estimated.notes:
    print(note)

# %%
assert max(found.matrix[0][found.names.index(name)] for name in ("disguised", "hurry")) < 1e-6
assert all(found.regret[name] < 1e-6 for name in ("milestones", "progress", "minus distance"))
assert min(found.regret[name] for name in ("closeness", "carry")) > 0.9
