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
# # A sparse reward in NetHack
#
# Fetch a key, open a door, take the stairs: NetHack, through MiniHack, pays 1 for the last of these and nothing for the
# others. The game is stepped on the host, the agent and the reward are jitted. Which design gets there, and what does
# the trained agent do?

# %%
import os

import jax
import matplotlib.pyplot as plt
import numpy as np

import reward_design as rd
from reward_design.agents import Policy, ppo
from reward_design.envs import task
from reward_design.experiments import evaluate

rooms = task("minihack/KeyRoom-S5")
print(rooms.description)

# %% [markdown]
# The task comes with a potential: how far the next landmark is (the key, then the door, then the stairs). Adding it as
# potential-based shaping does not change which policies are optimal. `misaligned` pays for news, messages of the game
# that differ from the one before, which sounds like exploration and is most easily had by bumping into walls.

# %%
shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(rooms.potential, gamma=rooms.gamma))
news = rd.weighted_sum(task=rd.environment_reward(), news=rooms.auxiliary["misaligned"])
designs = {"sparse": rd.environment_reward(), "shaping": shaped, "news": news}

short = bool(os.environ.get("REWARD_DESIGN_SHORT"))
config = ppo.Config(
    total_timesteps=8_192 if short else 150_000, num_steps=128, num_minibatches=8, gamma=rooms.gamma,
    learning_rate_end=1e-4,
)  # fmt: skip
results = {}
for name, design in designs.items():
    for seed in range(1 if short else 3):
        envs = rooms.vector(config.num_envs, seed=seed)
        results[name, seed] = ppo.train_host(config, envs, design, jax.random.key(seed))
        envs.close()

# %% [markdown]
# All runs are judged by the task's own reward: how often the stairs were reached, whatever the design paid.

# %%
figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
for color, name in zip(("tab:gray", "tab:blue", "tab:red"), designs):
    for (design, _), result in results.items():
        if design == name:
            axes.plot(result.metrics["env_steps"], result.metrics["success"], color=color, alpha=0.8, label=name)
handles = dict(zip(*reversed(axes.get_legend_handles_labels())))
axes.legend(handles.values(), handles.keys(), frameon=False)
axes.set(xlabel="environment steps", ylabel="stairs reached", ylim=(-0.02, 1.02))
plt.show()

# %% [markdown]
# In a room of five by five chance finds the key often enough for the sparse reward, and shaping takes nothing away from
# it. Paid for news, the agent stays where the messages are and hardly ever opens the door.
#
# ## What the agent does
#
# A trained state is a policy: NumPy in, NumPy out. Here it is evaluated on whole episodes, by the task and by the
# shaped reward, and watched.

# %%
policy = Policy(ppo.AGENT, config, rooms.env, results["shaping", 0].state, task=rooms)
print(evaluate(policy, reward=shaped, episodes=16))

env = rooms.make(render_mode="rgb_array")
obs, _ = env.reset(seed=3)
frames, done = [env.render()], False
while not done:
    obs, _, terminated, truncated, _ = env.step(policy(obs))
    frames.append(env.render())
    done = terminated or truncated
env.close()

rows, columns = (np.flatnonzero(np.max(frames, axis=axes)) for axes in ((0, 2, 3), (0, 1, 3)))  # the rest is black
room = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
shown = np.linspace(0, len(frames) - 1, 4).astype(int)
figure, axes = plt.subplots(1, 4, figsize=(13, 3.4), layout="constrained")
for axis, step in zip(axes, shown):
    axis.imshow(frames[step][room])
    axis.set_title(f"step {step}")
    axis.axis("off")
plt.show()

# %% [markdown]
# The same policy on the command line, with a video that shows the true and the shaped reward under each frame:
#
# ```bash
# reward-design train --task minihack/KeyRoom-S5 --reward shaping --out results/keyroom
# reward-design play --run results/keyroom --video keyroom.mp4
# ```
