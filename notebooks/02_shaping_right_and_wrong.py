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
# # Shaping, done right and done wrong
#
# A sparse reward is hard to find, so we tell the agent when it gets warmer. Done right, that changes how fast it learns
# and not what it learns, **whatever** we think is warm (Ng, Harada and Russell, 1999). Done almost right, it teaches
# another task. Here are the right form and three ways to miss it by one term, on a task that is small enough to know
# every optimal policy exactly.

# %%
import os

from reward_design.agents import use_all_cores

use_all_cores()  # every core a device, before JAX starts

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import reward_design as rd
from reward_design.agents import q_learning
from reward_design.agents.dynamic_programming import policy_iteration
from reward_design.distance import audit, reward_table
from reward_design.envs.grid import parse_grid
from reward_design.envs.tabular_model import model_from_branches
from reward_design.envs.tabular_parts import Lookup, goal_task
from reward_design.experiments import maps, plots

# %% [markdown]
# ## A canyon between the start and the goal
#
# The goal G pays 1. On the straight way to it is a canyon, x; who steps in falls, and the episode is over with nothing.
# The bridge is far down in the south.

# %%
PLAN = """
#############
#.S.xxx...G.#
#...xxx.....#
#...xxx.....#
#...xxx.....#
#...xxx.....#
#...xxx.....#
#...xxx.....#
#...........#
#############
"""
GAMMA = 0.95
grid = parse_grid(PLAN.replace("x", "."))
canyon = {(row, column) for row, line in enumerate(PLAN.split()) for column, sign in enumerate(line) if sign == "x"}
start, goal = grid.letters["S"], grid.letters["G"]


def branches(cell, action):
    target = grid.move(cell, action)
    return [(1.0, target, float(target == goal))]


marks = {start: "S", goal: "G"} | dict.fromkeys(canyon, "x")
model = model_from_branches(
    grid.free, 4, branches, initial={start: 1.0}, is_terminal=lambda cell: cell == goal or cell in canyon, gamma=GAMMA,
    layout=grid.layout([(0, cell) for cell in grid.free], ["land"], marks),
)  # fmt: skip
land = goal_task(
    "canyon", "Walk around a canyon to a goal that pays 1.", model, np.array([cell == goal for cell in grid.free]),
    horizon=100, misaligned=rd.environment_reward(), factors={},
)  # fmt: skip

# %% [markdown]
# ## What is warm?
#
# The straight-line distance to the goal: easy to write down, and wrong, because it leads to the edge of the canyon. It
# is scaled to ten times the reward, so that nobody can miss it.

# %%
distance = np.array([np.hypot(*np.subtract(cell, goal)) for cell in grid.free])
warm = Lookup(10 * (1 - distance / distance.max()))
nonsense = Lookup(np.random.default_rng(0).uniform(0, 10, len(grid.free)))

# %% [markdown]
# The right form pays γΦ(s′) − Φ(s) on top, with Φ = 0 in the state in which an episode **terminates**. Three near
# misses:
#
# | design | what is paid on top | what was forgotten |
# |---|---|---|
# | `right` | γΦ(s′) − Φ(s), Φ(terminal) = 0 | |
# | `nonsense` | the same, Φ drawn at random | nothing: any Φ will do |
# | `end kept` | γΦ(s′) − Φ(s), also at the end | that Φ of a terminal state must be 0 |
# | `no gamma` | Φ(s′) − Φ(s), Φ(terminal) = 0 | that the agent discounts |
# | `bonus` | 0.1 Φ(s′) | to subtract anything |

# %%


def end_kept(params, t):
    return t.reward + GAMMA * warm(t.next_obs) - warm(t.obs)


def no_gamma(params, t):
    return t.reward + jnp.where(t.terminated, 0.0, warm(t.next_obs)) - warm(t.obs)


def bonus(params, t):
    return t.reward + 0.1 * warm(t.next_obs)


designs = {
    "sparse": rd.environment_reward(),
    "right": rd.potential_shaping(warm, gamma=GAMMA),
    "nonsense": rd.potential_shaping(nonsense, gamma=GAMMA),
    "end kept": rd.pointwise("end_kept", end_kept),
    "no gamma": rd.pointwise("no_gamma", no_gamma),
    "bonus": rd.pointwise("bonus", bonus),
}

# %% [markdown]
# ## What each design asks for
#
# No training yet: the dynamics are known, so the best policy of each design is computed. The distance is that of the
# two rewards as tasks (0: the same, 2: the opposite), the regret the share of the task's return that is lost.

# %%
exact = maps.exact(land, designs)


def course(name, steps=100):
    state = int(np.argmax(model.initial))
    for step in range(steps):
        if model.terminal[state]:
            return f"{'the goal' if grid.free[state] == goal else 'the canyon'} after {step} steps"
        state = int(model.transition[state, np.argmax(exact["greedy"][name][state])].argmax())
    return f"never ends; stays around {grid.free[state]}"


for name, apart in zip(exact["names"][1:], exact["matrix"][0][1:]):
    print(f"{name:9} distance {apart:4.2f}   regret {exact['regret'][name]:4.2f}   {course(name)}")

# %%
figure, axes = plt.subplots(2, 3, figsize=(12.5, 6.6), layout="constrained")
for ax, name in zip(axes.flat, designs):
    plots.reward_map(exact, name, ax).set_title(f"{name}: {course(name)}", fontsize=10)
plt.show()

# %% [markdown]
# Arrows: the optimal policy. Green and orange: the most that a step from there pays, or the least it costs. The first
# three panels have the **same arrows** although what they pay has nothing in common, random numbers included. Then:
#
# - `end kept` jumps. Falling ends the episode with Φ(canyon) still in the pocket, and the detour to the goal is too
#   long to be worth more.
# - `no gamma` stops next to the goal. Per step it leaves (1 − γ)Φ(s′) too much, a small salary for being warm, and
#   entering the goal would end it.
# - `bonus` is that salary, paid openly.
#
# ## The auditor names the mistake
#
# The same can be asked of any reward, also one that you did not write:

# %%
for name in ("right", "end kept", "no gamma"):
    found = audit(land, designs[name])
    print(f"{name}: {found.verdict}")
    for finding in (f for f in found.findings if f.check in ("terminal potential", "farming loops") and f.concern):
        print(f"  ! {finding.check}: {finding.text}")

# %% [markdown]
# `potential_shaping` makes none of these mistakes, and it does not let you make the one about gamma: an agent refuses a
# shaping with a discount that is not its own.

# %%
try:
    q_learning.train(q_learning.Config(gamma=GAMMA), land, rd.potential_shaping(warm, gamma=1.0), jax.random.key(0))
except ValueError as refused:
    print(refused)

# %% [markdown]
# ## And in training
#
# All of these are one formula with a table and three numbers:
#
# g · Φ(s′) · (e at the end, 1 elsewhere) − m · Φ(s)
#
# What is in `params` can be swept, so that one compiled Q-learner trains every design with every seed at once. First
# the check that it is the same rewards. Two designs are added, both of the right form: a tenth of `right`, and `value`,
# whose Φ is the best there is, the optimal value of each state.

# %%


def formula(params, t):
    entered = params["phi"][t.next_obs] * jnp.where(t.terminated, params["end"], 1.0)
    return t.reward + params["gamma"] * entered - params["minus"] * params["phi"][t.obs]


def numbers(phi, gamma=GAMMA, end=0.0, minus=1.0):
    table = phi(jnp.arange(len(grid.free)))
    return {"phi": table, "gamma": jnp.float32(gamma), "end": jnp.float32(end), "minus": jnp.float32(minus)}


best_values = policy_iteration(model.transition, model.reward, gamma=GAMMA).values
swept = {
    "sparse": numbers(warm, gamma=0.0, minus=0.0),
    "right": numbers(warm),
    "right / 10": numbers(lambda cells: warm(cells) / 10),
    "value": numbers(Lookup(np.asarray(best_values))),
    "nonsense": numbers(nonsense),
    "end kept": numbers(warm, end=1.0),
    "no gamma": numbers(warm, gamma=1.0),
    "bonus": numbers(warm, gamma=0.1, end=1.0, minus=0.0),
}
family = rd.pointwise("formula", formula, params=swept["sparse"])
for name, design in designs.items():
    same = reward_table(rd.with_params(family, swept[name]), model)
    assert np.allclose(same, reward_table(design, model), atol=1e-5), name

# %%
short = bool(os.environ.get("REWARD_DESIGN_SHORT"))
config = q_learning.Config(total_timesteps=60_000, gamma=GAMMA, epsilon=0.1, epsilon_end=0.05, learning_rate_end=0.5)
keys = jax.random.split(jax.random.key(0), 4 if short else 20)
stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *swept.values())


def train(params, key):
    return q_learning.train(config, land, family, key, reward_params=params).metrics


metrics = jax.jit(jax.vmap(jax.vmap(train, (None, 0)), (0, None)))(stacked, keys)  # [designs, seeds, ...]

# %%
steps, returns = np.asarray(metrics["env_steps"])[0, 0], np.asarray(metrics["true_return"])
figure, (left, right) = plt.subplots(1, 2, figsize=(12, 3.8), sharey=True, layout="constrained")
for ax, names in ((left, list(swept)[:5]), (right, ["right", "end kept", "no gamma", "bonus"])):
    palette, ends = dict(zip(names, ("gray", "#009e73", "#1f86c8", "#cc79a7", "#e09c00"))), {}
    if ax is right:
        palette = dict(zip(names, ("#009e73", "#d55e00", "#5f6fc4", "#7a5230")))
    for name in names:
        low, middle, high = np.nanpercentile(returns[list(swept).index(name)], (25, 50, 75), axis=0)
        ax.fill_between(steps, low, high, color=palette[name], alpha=0.15, linewidth=0)
        ax.plot(steps, middle, color=palette[name])
        ends[name] = middle[-1]
    ax.set(xlabel="environment steps", xlim=(0, steps[-1]), ylim=(-0.03, 1.03))
    plots.label_ends(ax, ends, palette)
left.set(title="done right: median and quartiles over seeds", ylabel="return of the task")
right.set(title="done wrong")
plt.show()

# %% [markdown]
# Left: shaping done right gets there, whatever the Φ; nothing is promised about **how soon**. With Φ = V the greedy
# action is right from the first step. The straight-line Φ is of help at the size of the reward, and ten times larger it
# has to be unlearned first: a Q-learner that starts from zero and is shaped by Φ is one that starts from Φ (Wiewiora,
# 2003). Random numbers help as well, because a start from numbers that are too large makes it curious; a better
# reason to explore is a count bonus. The sparse reward alone is not found in this time.
#
# Right: what was wrong on paper stays wrong with any amount of training, since it is what the reward asks for.
#
# ## What to take along
#
# 1. Take `rd.potential_shaping(phi, gamma=task.gamma)`, and let Φ be as clumsy as it likes.
# 2. Keep it about as large as the return; its size does not change the optimum and does change the speed.
# 3. Where a time limit ends the episode and the agent bootstraps there, Φ stays; where the agent treats the limit as an
#    end, `time_limit_is_terminal=True`.
# 4. Ask `audit(task, reward)` about everything that is not of this form. The next notebook does.

# %%
final = {name: float(np.nanmedian(curves[:, -5:])) for name, curves in zip(swept, returns)}
assert min(final[name] for name in ("right", "right / 10", "value", "nonsense")) > 0.5
assert max(final[name] for name in ("end kept", "no gamma", "bonus")) < 0.05
