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
# # A language model designs a reward
#
# A point has to cross a square. Nobody wants to write its reward, so a model does: it proposes, agents train on what it
# proposed, and it is told what came of it. Nothing that it writes runs as Python here, and no network is needed: the
# "model" below is a function with a few ideas, so that you can see every message. The last cell has the real ones.

# %%
import json
import os
import tempfile

from reward_design.agents import use_all_cores

use_all_cores()  # every core a device, before JAX starts

import matplotlib.pyplot as plt

from reward_design.envs import task
from reward_design.llm import describe_task, design, load_reward

square = task("gridworld")
print(describe_task(square))

# %% [markdown]
# ## A model with three ideas
#
# A model is anything that turns messages into text. This one starts with a bad idea (stay inside a box in the middle),
# then names a factor that does not exist (it is sent back with the reason), and gets better in the second round.

# %%


def term(factor, shape, direction, weight):
    return {"factor": factor, "shape": shape, "direction": direction, "weight": weight, "scale": 1.0}


ideas = [
    [term("visits", "linear", "increase", 1.0)],
    [term("distanse", "progress", "decrease", 1.0)],  # no such factor: sent back with the reason
    [term("distance", "exp", "decrease", 0.5), term("visits", "linear", "increase", 0.5)],
    [term("distance", "progress", "decrease", 1.0), term("goal", "linear", "increase", 1.0)],
    [term("goal", "linear", "increase", 10.0)],
]
messages_seen = []


def model(messages):
    messages_seen.append(messages)
    return json.dumps({"terms": ideas[(len(messages_seen) - 1) % len(ideas)]})


# %% [markdown]
# ## The search
#
# Two rounds of two candidates. All candidates of a round train at once, each with the same seeds, and are judged by the
# task's own success, whatever they pay.

# %%
short = bool(os.environ.get("REWARD_DESIGN_SHORT"))
folder = tempfile.mkdtemp()
search = {
    "model": model,
    "preset": "eureka",
    "language": "terms",
    "rounds": 2,
    "candidates": 2,
    "seeds": 1 if short else 3,
    "steps": 8_192 if short else 32_768,
    "audits": "none",
    "out": folder,
}
found = design(square, **search)
for candidate in found.candidates:
    result = f"success {candidate.fitness.success:.0%}" if candidate.trained else f"refused: {candidate.refusal.reason}"
    print(candidate.id, "|", result)

# %% [markdown]
# What the model was told before its last answer, in the words of Eureka's reflection:

# %%
print(messages_seen[-1][-1]["content"])

# %% [markdown]
# ## What came out
#
# The best reward is one file. It loads by name everywhere: `--reward`, `compare`, the wrappers.

# %%
print(found.best.source)
print(load_reward(found.path).name, "from", os.path.basename(found.path))
fig, ax = plt.subplots(figsize=(5, 3), layout="constrained")
for candidate in (c for c in found.candidates if c.trained):
    ax.plot(candidate.statistics.steps, candidate.statistics.curves["success"], label=candidate.id)
ax.set(xlabel="environment steps", ylabel="success", ylim=(-0.03, 1.03))
ax.legend()
plt.show()

# %% [markdown]
# A search that is killed goes on where it was: the same call again asks nothing and trains nothing.

# %%
asked = len(messages_seen)
again = design(square, **search)
print("asked again:", len(messages_seen) - asked, "times; same result:", again.best == found.best)

# %% [markdown]
# ## Real models
#
# `model="embedded"` is a small one that comes with the extra `local-llm` and runs on this machine;
# `chat_model("name", base_url=...)` is any server that speaks OpenAI's protocol. Whatever you use, compare it with a
# random search of equal size before you believe it: `reward-design design` does that at the end.
