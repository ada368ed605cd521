"""A reward around a stable-baselines3 VecEnv, and a gymnasium vector environment seen as one."""

import inspect
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gymnasium
import jax
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv

from reward_design._optional import require
from reward_design.adapters import _order
from reward_design.adapters._bridge import Bridge, RewardAttributes
from reward_design.adapters._spaces import lane_of
from reward_design.adapters.gymnasium import autoreset_mode
from reward_design.core import Params, Reward

if TYPE_CHECKING:
    from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize
else:
    _vec_env = require("stable_baselines3.common.vec_env", "sb3", "stable-baselines3 environments")
    VecEnv, VecEnvWrapper, VecNormalize = _vec_env.VecEnv, _vec_env.VecEnvWrapper, _vec_env.VecNormalize

__all__ = ["GymnasiumVecEnv", "VecRewardWrapper"]


class VecRewardWrapper(RewardAttributes, VecEnvWrapper):
    """Pays a stable-baselines3 vector environment by ``reward``.

    r'_t = reward(s_t, a_t, s_{t+1}), with the environment's own r_t as ``transition.reward``. The successor of a lane
    that ended is its ``terminal_observation``; it was truncated if ``TimeLimit.truncated`` is set, else terminated. The
    original reward stays visible as ``info["env_reward"]``, the named terms as ``info["reward_terms"]``, lane by lane;
    a ``Monitor`` or ``VecMonitor`` below this wrapper keeps logging the original, one above it logs the new one.

    ``VecNormalize`` belongs on top: the reward sees raw observations, and what is normalised is what it pays. Below,
    it may normalise observations only, which the reward then sees (replay buffers get the raw ones and the reward paid
    here). ``venv.seed`` seeds the environments and leaves the reward's running statistics. ``HerReplayBuffer`` is
    refused: it would relabel goals with the environment's own reward.

    An environment that reuses its observation buffer overwrites ``terminal_observation`` before any wrapper sees it;
    wrap it in ``gymnasium.wrappers.TransformObservation(env, copy.deepcopy, None)`` (a warning tells when this seems
    so).

    Args:
        venv: the environment to pay.
        reward: any reward of kind ``POINTWISE`` or ``CAUSAL``, or a file of :func:`reward_design.llm.save_reward`. All
            lanes share its running state.
        params: the reward's params, where they are not what ``reward.init`` makes.
        seed: of the key for ``reward.init``.
        info_keys: entries of the environments' info that become ``transition.info``; numbers, present at every step.

    Raises:
        TypeError: if ``venv`` is no VecEnv, for a reward of kind ``TRAJECTORY``, or a space without numbers.
        ValueError: if the reward does not fit the environment, an entry of ``info_keys`` is missing at a step, or
            ``VecNormalize`` below normalises rewards.
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
        reward: Reward | str | os.PathLike[str],
        *,
        params: Params = None,
        seed: int = 0,
        info_keys: Sequence[str] = (),
    ) -> None:
        if not isinstance(venv, VecEnv):
            raise TypeError(
                f"VecRewardWrapper expects a stable-baselines3 VecEnv, got {type(venv).__name__}; use DummyVecEnv, "
                "GymnasiumVecEnv around a gymnasium vector environment, or a wrapper of "
                "reward_design.adapters.gymnasium."
            )
        self._normalisers = _normalisers(venv)
        _check_lanes(venv)
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
        paid = score.reward.astype(np.float32)
        for below in self._normalisers:  # where replay buffers take their rewards from, wherever VecNormalize lies
            below.old_reward = paid
        return obs, paid, dones, infos

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of the environments; not ``compute_reward``, see above."""
        if method_name == "compute_reward":
            _order.refuse_relabelling()
        return self.venv.env_method(method_name, *method_args, indices=indices, **method_kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "class_attributes"}

    def __setstate__(self, held: dict[str, Any]) -> None:
        vars(self).update(held)
        self.class_attributes = dict(inspect.getmembers(type(self)))

    @staticmethod
    def _last_obs(info: dict[str, Any]) -> Any:
        if "terminal_observation" in info:
            return info["terminal_observation"]
        raise ValueError(
            "VecRewardWrapper needs info['terminal_observation'] of lanes that ended, got info with "
            f"{sorted(map(str, info))}; make the VecEnv give it, as stable-baselines3's own ones do."
        )


class GymnasiumVecEnv(VecEnv):
    """A gymnasium vector environment as a stable-baselines3 VecEnv.

    ``terminal_observation``, ``TimeLimit.truncated`` and the infos of lanes that ended are those of the step that ended
    the episode, as in stable-baselines3's own DummyVecEnv, whichever autoreset mode the environment has.

    Args:
        envs: a vector environment in mode ``SAME_STEP`` or ``DISABLED``.

    Raises:
        TypeError: if ``envs`` is no gymnasium vector environment.
        ValueError: in mode ``NEXT_STEP``, which has steps that are no experience, or around a wrapper that would give
            wrong last observations or infos.

    Example:
        >>> from reward_design.adapters.sb3 import GymnasiumVecEnv
        >>> from reward_design.envs import task
        >>> venv = GymnasiumVecEnv(task("four_rooms").vector(2))
        >>> venv.reset().shape
        (2,)
    """

    def __init__(self, envs: VectorEnv) -> None:
        if not isinstance(envs, VectorEnv):
            raise TypeError(
                f"GymnasiumVecEnv expects a gymnasium VectorEnv, got {type(envs).__name__}; a single environment goes "
                "into stable-baselines3's DummyVecEnv, and a VecEnv needs nothing around it."
            )
        self.mode = AutoresetMode[autoreset_mode(envs).upper()]
        if self.mode is AutoresetMode.NEXT_STEP:
            raise ValueError(
                "GymnasiumVecEnv needs autoreset mode SAME_STEP or DISABLED, got NEXT_STEP; make the environments with "
                "autoreset_mode=gymnasium.vector.AutoresetMode.SAME_STEP."
            )
        self.envs_below, self._actions = envs, None
        _order.check_vector(envs, self.mode.name.lower(), "must lie outside GymnasiumVecEnv")
        super().__init__(envs.num_envs, envs.single_observation_space, envs.single_action_space)

    def reset(self) -> Any:
        """Start an episode in every lane, with the seeds of :meth:`seed` and the options of :meth:`set_options`."""
        seeds: Any = None if self._seeds[0] is None else list(self._seeds)
        if any(options != self._options[0] for options in self._options):
            raise ValueError(f"GymnasiumVecEnv resets all lanes with the same options, got {self._options}.")
        obs, infos = self.envs_below.reset(seed=seeds, options=self._options[0] or None)
        self._reset_seeds()
        self._reset_options()
        self.reset_infos = _rows(infos, self.num_envs)
        return _copied(obs)

    def step_async(self, actions: np.ndarray) -> None:
        """Keep the actions."""
        self._actions = actions

    def step_wait(self) -> tuple[Any, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Step all lanes and restart those that ended."""
        obs, rewards, terminated, truncated, infos = self.envs_below.step(self._actions)
        dones = np.logical_or(terminated, truncated)
        rows, ended = _rows(infos, self.num_envs), np.flatnonzero(dones).tolist()
        final_obs = obs
        if ended and self.mode is AutoresetMode.SAME_STEP:
            final_obs, final_rows = infos["final_obs"], _rows(infos.get("final_info", {}), self.num_envs)
            for lane in ended:
                self.reset_infos[lane], rows[lane] = rows[lane], dict(final_rows[lane] or rows[lane])
        for lane, row in enumerate(rows):
            row["TimeLimit.truncated"] = bool(truncated[lane] and not terminated[lane])
        for lane in ended:
            rows[lane]["terminal_observation"] = _copied(lane_of(final_obs, lane))
        if ended and self.mode is AutoresetMode.DISABLED:
            obs, infos = self.envs_below.reset(options={"reset_mask": dones.copy()})
            fresh = _rows(infos, self.num_envs)
            self.reset_infos = [fresh[i] if dones[i] else old for i, old in enumerate(self.reset_infos)]
        return _copied(obs), np.asarray(rewards, np.float32), dones, rows

    def close(self) -> None:
        """Close the environments."""
        self.envs_below.close()

    def get_images(self) -> Sequence[np.ndarray | None]:
        """One image per lane."""
        return list(self.envs_below.render() or [None] * self.num_envs)

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """An attribute of each environment, or of the vector environment where it has no single ones."""
        if attr_name == "render_mode" or not hasattr(self.envs_below.unwrapped, "get_attr"):
            values: Sequence[Any] = [getattr(self.envs_below, attr_name)] * self.num_envs
        else:
            values = self.envs_below.unwrapped.get_attr(attr_name)  # pyright: ignore[reportAttributeAccessIssue]
        return [values[lane] for lane in self._get_indices(indices)]

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Set an attribute of environments that live in this process."""
        envs = getattr(self.envs_below.unwrapped, "envs", None)
        if envs is None:
            raise AttributeError(f"{self.envs_below} has no single environments in this process to set attributes of.")
        for lane in self._get_indices(indices):
            envs[lane].set_wrapper_attr(attr_name, value)

    def env_method(self, method_name: str, *method_args: Any, indices: Any = None, **method_kwargs: Any) -> list[Any]:
        """Call a method of environments that live in this process."""
        envs = getattr(self.envs_below.unwrapped, "envs", None)
        if envs is None:
            raise AttributeError(f"{self.envs_below} has no single environments in this process to call methods of.")
        return [
            envs[lane].get_wrapper_attr(method_name)(*method_args, **method_kwargs)
            for lane in self._get_indices(indices)
        ]

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """Whether environments that live in this process have such a wrapper."""
        envs = getattr(self.envs_below.unwrapped, "envs", [None] * self.num_envs)
        return [_is_wrapped(envs[lane], wrapper_class) for lane in self._get_indices(indices)]


# --- parts ----------------------------------------------------------------------------------------------------------


def _normalisers(venv: Any) -> list[Any]:
    """The VecNormalize wrappers below, which must leave rewards alone."""
    found = [layer for layer in _layers(venv) if isinstance(layer, VecNormalize)]
    if any(layer.norm_reward for layer in found):
        raise ValueError(
            "VecNormalize(norm_reward=True) must lie outside VecRewardWrapper: below it, off-policy agents are paid by "
            "VecNormalize and never by the reward; put it outside, or give it norm_reward=False."
        )
    return found


def _check_lanes(venv: VecEnv) -> None:
    """Refuse environments below whose rewards are normalised, in whichever process they are."""
    below = venv.unwrapped
    if isinstance(below, GymnasiumVecEnv):
        _order.check_rewards(below.envs_below, "VecRewardWrapper")
    elif any(venv.env_is_wrapped(gymnasium.wrappers.NormalizeReward)):
        raise _order.normalises("VecRewardWrapper")


def _layers(venv: Any) -> Iterator[Any]:
    while isinstance(venv, VecEnvWrapper):
        yield venv
        venv = venv.venv


def _rows(infos: Mapping[str, Any], num_envs: int) -> list[dict[str, Any]]:
    """The info of each lane, without what belongs to episodes that ended."""
    rows: list[dict[str, Any]] = [{} for _ in range(num_envs)]
    for name, values in infos.items():
        if name.startswith("_") or name in ("final_obs", "final_info"):
            continue
        lanes = _rows(values, num_envs) if isinstance(values, Mapping) else values
        known = infos.get(f"_{name}")
        for lane in range(num_envs) if known is None else np.flatnonzero(known).tolist():
            rows[lane][name] = lanes[lane]
    return rows


def _copied(values: Any) -> Any:
    return jax.tree.map(np.array, values)


def _is_wrapped(env: Any, wrapper_class: type) -> bool:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, wrapper_class):
            return True
        env = env.env
    return False
