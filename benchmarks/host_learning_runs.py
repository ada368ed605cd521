"""One training run of ``host_learning.py``: what it reached, as a record."""

import contextlib
import time
from typing import Any

import jax
import numpy as np

import reward_design as rd
from reward_design.agents import ppo, sac
from reward_design.agents.host import evaluate_host
from reward_design.envs import task
from reward_design.experiments.provenance import provenance

POINTS = 50
"""Points of a learning curve."""
EPISODES = 10
"""Episodes of the evaluation by the mode of the policy."""

PPO = {"num_steps": 256, "num_envs": 8, "num_epochs": 10, "learning_rate": 3e-4, "gamma": 0.99, "gae_lambda": 0.95}
"""Settings of PPO on MuJoCo, for both sides; minibatches of 64, observations and rewards scaled by running moments."""
SAC = {"learning_starts": 10_000, "batch_size": 256, "learning_rate": 3e-4, "gamma": 0.99, "tau": 0.005}
"""Settings of SAC on MuJoCo, for both sides: two layers of 256, automatic temperature, observations as they are."""
SAC_ENVS = 8
"""Environments of SAC, with one gradient step after each step of all of them: what stable-baselines3 does by default
with so many. A gradient step per environment step takes eight times as long."""


def our_ppo(name: str, seed: int, steps: int) -> dict[str, Any]:
    """PPO of this package on ``mujoco/<name>``."""
    config = ppo.Config(
        total_timesteps=steps, num_minibatches=PPO["num_envs"] * PPO["num_steps"] // 64, hidden=(64, 64),
        normalise_obs=True, normalise_reward=True, learning_rate_end=PPO["learning_rate"], entropy_coef=0.0,
        entropy_coef_end=0.0, **PPO,
    )  # fmt: skip
    return _our_run(ppo, config, name, seed)


def our_sac(name: str, seed: int, steps: int) -> dict[str, Any]:
    """SAC of this package on ``mujoco/<name>``."""
    config = sac.Config(total_timesteps=steps, num_envs=SAC_ENVS, num_steps=1, updates_per_step=1 / SAC_ENVS, **SAC)
    return _our_run(sac, config, name, seed)


def sb3_ppo(name: str, seed: int, steps: int) -> dict[str, Any]:
    """PPO of stable-baselines3 at the same settings."""
    import stable_baselines3 as sb3
    import torch
    from stable_baselines3.common.vec_env import VecNormalize

    venv = VecNormalize(_sb3_envs(name, PPO["num_envs"], seed), gamma=PPO["gamma"])
    model = sb3.PPO(
        "MlpPolicy", venv, n_steps=PPO["num_steps"], batch_size=64, n_epochs=PPO["num_epochs"], gamma=PPO["gamma"],
        learning_rate=PPO["learning_rate"], gae_lambda=PPO["gae_lambda"], ent_coef=0.0, seed=seed, device="cpu",
        policy_kwargs={"net_arch": {"pi": [64, 64], "vf": [64, 64]}, "activation_fn": torch.nn.Tanh},
    )  # fmt: skip
    return _sb3_run(model, name, seed, steps)


def sb3_sac(name: str, seed: int, steps: int) -> dict[str, Any]:
    """SAC of stable-baselines3 at the same settings, which are its own."""
    import stable_baselines3 as sb3

    model = sb3.SAC("MlpPolicy", _sb3_envs(name, SAC_ENVS, seed), seed=seed, device="cpu", **SAC)
    return _sb3_run(model, name, seed, steps)


RUNS = {"ppo": our_ppo, "sb3/ppo": sb3_ppo, "sac": our_sac, "sb3/sac": sb3_sac}
"""Run of each agent: ``(name, seed, steps) -> record``."""


def binned(at: Any, values: Any, weights: Any, steps: int) -> list[float | None]:
    """Weighted means of values in ``POINTS`` equal spans of environment steps; None where there are none."""
    index = np.minimum((np.asarray(at) - 1) * POINTS // steps, POINTS - 1).astype(int)
    weight = np.bincount(index, weights, POINTS)
    total = np.bincount(index, np.asarray(values) * np.asarray(weights), POINTS)
    return [float(t / w) if w else None for t, w in zip(total, weight, strict=True)]


def record(curve: list[float | None], evaluation: Any, seconds: float, steps: int) -> dict[str, Any]:
    """What is kept of a run. ``final`` is the mean return of the training episodes of the last tenth."""
    last = [point for point in curve[-POINTS // 10 :] if point is not None]
    return {
        "final": float(np.mean(last)) if last else None,
        "evaluation": float(np.mean(evaluation)),
        "curve": [None if point is None else round(point, 2) for point in curve],
        "cpu_s": round(seconds, 1),
        "steps": steps,
        **provenance(),
    }


def _our_run(agent: Any, config: Any, name: str, seed: int) -> dict[str, Any]:
    with contextlib.closing(task(f"mujoco/{name}").vector(config.num_envs)) as envs:
        start = time.process_time()
        result = agent.train_host(config, envs, rd.environment_reward(), jax.random.key(seed))
        seconds = time.process_time() - start
        played = evaluate_host(agent.AGENT, config, envs, result.state, num_episodes=EPISODES, seed=seed + 1000)
    metrics = result.metrics
    ended = metrics["episodes"] > 0
    curve = binned(
        metrics["env_steps"][ended], metrics["true_return"][ended], metrics["episodes"][ended], config.total_timesteps
    )
    return record(curve, played["true_return"], seconds, config.total_timesteps)


def _sb3_envs(name: str, num_envs: int, seed: int) -> Any:
    from stable_baselines3.common.env_util import make_vec_env

    return make_vec_env(f"{name}-v5", n_envs=num_envs, seed=seed)


def _sb3_run(model: Any, name: str, seed: int, steps: int) -> dict[str, Any]:
    import torch
    from stable_baselines3.common.callbacks import BaseCallback
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import VecNormalize

    torch.set_num_threads(1)
    ended: list[tuple[int, float]] = []

    class Episodes(BaseCallback):
        def _on_step(self) -> bool:
            ended.extend(
                (self.num_timesteps, info["episode"]["r"]) for info in self.locals["infos"] if "episode" in info
            )
            return True

    start = time.process_time()
    model.learn(steps, callback=Episodes())
    seconds = time.process_time() - start
    plain = _sb3_envs(name, 1, seed + 1000)
    trained = model.get_env()
    if isinstance(trained, VecNormalize):
        plain = VecNormalize(plain, training=False, norm_reward=False)
        plain.obs_rms = trained.obs_rms
    played, _ = evaluate_policy(model, plain, n_eval_episodes=EPISODES, return_episode_rewards=True)
    steps_of, returns = np.array(ended).T
    return record(binned(np.minimum(steps_of, steps), returns, np.ones(len(returns)), steps), played, seconds, steps)
