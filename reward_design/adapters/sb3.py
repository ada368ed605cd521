"""A reward around a stable-baselines3 VecEnv."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from reward_design._optional import require
from reward_design.adapters._bridge import Bridge, RewardAttributes
from reward_design.core import Params, Reward

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper
else:
    _vec_env = require("stable_baselines3.common.vec_env", "sb3", "stable-baselines3 environments")
    VecEnv, VecEnvWrapper = _vec_env.VecEnv, _vec_env.VecEnvWrapper

__all__ = ["VecRewardWrapper"]


class VecRewardWrapper(RewardAttributes, VecEnvWrapper):
    """Pays a stable-baselines3 vector environment by ``reward``.

    r'_t = reward(s_t, a_t, s_{t+1}), with the environment's own r_t as ``transition.reward``. The successor of a lane
    that ended is its ``terminal_observation``; it was truncated if ``TimeLimit.truncated`` is set, else terminated. The
    original reward stays visible as ``info["env_reward"]``, the named terms as ``info["reward_terms"]``, lane by lane;
    a ``Monitor`` or ``VecMonitor`` below this wrapper keeps logging the original, one above it logs the new one.

    On top of ``VecNormalize`` the reward sees normalised observations and rewards; to have it see the raw ones, put
    ``VecNormalize`` on top of this. ``venv.seed`` seeds the environments and leaves the reward's running statistics.

    An environment that reuses its observation buffer overwrites ``terminal_observation`` before any wrapper sees it;
    wrap it in ``gymnasium.wrappers.TransformObservation(env, copy.deepcopy, None)`` (a warning tells when this seems
    so).

    Args:
        venv: the environment to pay.
        reward: any reward of kind ``POINTWISE`` or ``CAUSAL``. All lanes share its running state.
        params: the reward's params, where they are not what ``reward.init`` makes.
        seed: of the key for ``reward.init``.
        info_keys: entries of the environments' info that become ``transition.info``; numbers, present at every step.

    Raises:
        TypeError: if ``venv`` is no VecEnv, for a reward of kind ``TRAJECTORY``, or a space without numbers.
        ValueError: if the reward does not fit the environment, or an entry of ``info_keys`` is missing at a step.
        NonFiniteRewardError: if a reward is NaN or infinite, naming reward, term, step and environment.

    Example:
        >>> import numpy as np, reward_design as rd
        >>> from stable_baselines3.common.env_util import make_vec_env
        >>> from reward_design.adapters.sb3 import VecRewardWrapper
        >>> double = rd.pointwise("double", lambda t: 2 * t.reward)
        >>> venv = VecRewardWrapper(make_vec_env("CartPole-v1", n_envs=2), double)
        >>> _ = venv.reset()
        >>> _, rewards, _, infos = venv.step(np.array([0, 1]))
        >>> rewards.tolist(), infos[0]["env_reward"]
        ([2.0, 2.0], 1.0)
    """

    def __init__(
        self,
        venv: VecEnv,
        reward: Reward,
        *,
        params: Params = None,
        seed: int = 0,
        info_keys: Sequence[str] = (),
    ) -> None:
        if not isinstance(venv, VecEnv):
            raise TypeError(
                f"VecRewardWrapper expects a stable-baselines3 VecEnv, got {type(venv).__name__}; use DummyVecEnv, or "
                "a wrapper of reward_design.adapters.gymnasium."
            )
        super().__init__(venv)
        self._bridge = Bridge(
            venv.observation_space,
            venv.action_space,
            reward,
            num_envs=venv.num_envs,
            autoreset="same_step",
            params=params,
            seed=seed,
            info_keys=info_keys,
        )
        self._actions: Any = None

    def reset(self) -> Any:
        """Reset all lanes and the reward's episodes."""
        obs = self.venv.reset()
        self._bridge.reset(obs)
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        """Send the actions."""
        self._actions = self._bridge.act(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Receive the steps and score them."""
        bridge = self._bridge
        obs, rewards, dones, infos = self.venv.step_wait()
        start_obs = bridge.observe(obs)
        next_obs = bridge.replace_ended(dones, lambda lane: self._last_obs(infos[lane]), start_obs)
        truncated = dones & [info.get("TimeLimit.truncated", False) for info in infos]
        picked = bridge.gather(infos, infos[0])
        score = bridge.step(self._actions, next_obs, rewards, dones & ~truncated, truncated, picked, start_obs)
        terms = {name: values.tolist() for name, values in score.terms.items()}
        infos = [{"env_reward": float(reward), **info} for reward, info in zip(rewards, infos, strict=True)]
        for lane, info in enumerate(infos):
            info["reward_terms"] = {name: values[lane] for name, values in terms.items()}
        return obs, score.reward.astype(np.float32), dones, infos

    @staticmethod
    def _last_obs(info: dict[str, Any]) -> Any:
        if "terminal_observation" in info:
            return info["terminal_observation"]
        raise ValueError(
            "VecRewardWrapper needs info['terminal_observation'] of lanes that ended, got info with "
            f"{sorted(map(str, info))}; make the VecEnv give it, as stable-baselines3's own ones do."
        )
