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
# # The script stays as it is
#
# Somebody has a training script for stable-baselines3, and an agent that gets nowhere. MountainCar pays −1 per step
# until the car is on the hill. A car that moves at random never is, so all its episodes look the same. The script is
# not the problem, the reward is: the script stays, and one line goes around its environment.

# %%
import os

import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

import reward_design as rd
from reward_design.adapters.sb3 import VecRewardWrapper

GAMMA = 0.99
STEPS = 32_768 if os.environ.get("REWARD_DESIGN_SHORT") else 131_072

# %% [markdown]
# ## A reward, as a function of what happened
#
# The car has to swing, so energy is progress, whatever the direction: height plus speed squared, about 1 at the goal.
# As a **potential** (0 at the goal) it does not change which policies are optimal. Paid out **per step** it looks just
# as helpful, and is another task: more energy for longer is more reward, and the flag ends it.


# %%
def energy(obs):
    height, speed = jnp.sin(3 * obs[..., 0]), obs[..., 1]
    return 0.5 * (height + 1) + 100 * speed**2


potential = rd.potential_shaping(lambda obs: 50 * (energy(obs) - 1), gamma=GAMMA)
bonus = rd.pointwise("energy", lambda params, t: params["weight"] * energy(t.next_obs), params={"weight": 20.0})
designs = {
    "as it was": None,
    "potential": rd.chain(rd.environment_reward(), potential),
    "bonus per step": rd.weighted_sum(task=rd.environment_reward(), bonus=bonus),
}

# %% [markdown]
# ## The script
#
# One line is new, the one with `VecRewardWrapper`. `make_vec_env` puts a `Monitor` around each environment, inside the
# wrapper, and it goes on logging the environment's own return. `VecNormalize` belongs on top: the reward sees
# observations as they are.


# %%
def run(design, seed=0):
    envs = make_vec_env("MountainCar-v0", n_envs=16, seed=seed)
    if design is not None:
        envs = VecRewardWrapper(envs, design)
    envs = VecNormalize(envs, norm_reward=False)
    settings = {"n_steps": 32, "batch_size": 128, "n_epochs": 4, "gae_lambda": 0.98, "learning_rate": 1e-3}
    model, log = PPO("MlpPolicy", envs, gamma=GAMMA, seed=seed, **settings), Log()
    model.learn(STEPS, callback=log)
    envs.close()
    return log


# %% [markdown]
# What the environment gave and what the agent was paid are both there at every step: `info["env_reward"]`, and
# `info["reward_terms"]` with what each part of the design paid. A callback of the script can read them.


# %%
class Log(BaseCallback):
    """Steps and the environment's own return of every finished episode; sums of the terms."""

    def __init__(self):
        super().__init__()
        self.episodes, self.terms = [], {}

    def _on_step(self):
        for info in self.locals["infos"]:
            for name, value in info.get("reward_terms", {}).items():
                self.terms[name] = self.terms.get(name, 0.0) + float(value)
            if "episode" in info:
                self.episodes.append((self.num_timesteps, info["episode"]["r"]))
        return True


logs = {name: run(design) for name, design in designs.items()}
last = {name: np.mean([r for _, r in log.episodes[-30:]]) for name, log in logs.items()}
for name, log in logs.items():
    paid = ", ".join(f"{term} {total / STEPS:+.2f}" for term, total in log.terms.items()) or "the environment's reward"
    print(f"{name:15} environment's own return at the end {last[name]:7.1f}    paid per step: {paid}")

# %%
figure, axes = plt.subplots(figsize=(8, 3.6), layout="constrained")
for (name, log), colour in zip(logs.items(), ("tab:gray", "tab:green", "tab:red")):
    steps, returns = np.array(log.episodes).T
    smooth = np.convolve(returns, np.ones(20) / 20, mode="valid")
    axes.plot(steps[19:], smooth, color=colour, label=name)
axes.set(xlabel="environment steps", ylabel="the environment's own return", title="one script, three rewards")
axes.legend(frameon=False, loc="upper left")
plt.show()

# %% [markdown]
# All curves are drawn in the currency of the task, which the log keeps for every design. The bonus makes the car swing
# as well, but then it does not hurry: it is paid for every step on which it has energy, and arriving ends that. In the
# currency of the design, where each step pays several times what the task takes, it looks best of all.
#
# The same design runs unchanged around a single gymnasium environment (`RewardWrapper`), around a gymnasium vector
# environment in any autoreset mode (`VectorRewardWrapper`), in a jitted training loop, and on recorded data.

# %%
assert last["as it was"] < last["bonus per step"] < last["potential"] - 10
