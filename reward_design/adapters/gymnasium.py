"""A reward around gymnasium environments, single and vector."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from gymnasium.vector import AutoresetMode, VectorEnv, VectorWrapper
from gymnasium.wrappers import Autoreset

from reward_design.adapters import _order
from reward_design.adapters._bridge import Bridge, RewardAttributes
from reward_design.adapters._spaces import lane_of
from reward_design.core import Kind, Params, Reward
from reward_design.describe import walk

__all__ = ["RewardWrapper", "VectorRewardWrapper"]


class RewardWrapper(RewardAttributes, gymnasium.Wrapper, RecordConstructorArgs):
    """Pays a single environment by ``reward``.

    r'_t = reward(s_t, a_t, s_{t+1}), with the environment's own r_t as ``transition.reward``. The original stays
    visible as ``info["env_reward"]`` (that of the innermost wrapper, if several are stacked), the named terms as
    ``info["reward_terms"]``; spaces, observations and ends are untouched.

    ``reset(seed=...)`` seeds the environment. It starts a new episode of the reward, and leaves its running statistics
    (visit counts, normalisers) as they are; wrap the reward in :func:`reward_design.freeze_running` where the same seed
    has to give the same rewards again.

    ``gymnasium.wrappers.TimeLimit`` belongs inside (``gymnasium.make`` puts it there): the reward does not see a limit
    outside. Where a reward depends on it (kind ``CAUSAL``, or shaping with ``time_limit_is_terminal``), a warning tells
    when this seems so.

    In ``gymnasium.vector.AsyncVectorEnv`` it needs ``context="forkserver"`` or ``"spawn"``: JAX hangs in a process that
    was forked after it had started (the default on Linux before Python 3.14), where ``reset`` refuses.

    Args:
        env: a single environment. A step after the end of an episode and before ``reset`` (also the one in which
            ``gymnasium.wrappers.Autoreset`` resets) earns 0 and changes nothing.
        reward: any reward of kind ``POINTWISE`` or ``CAUSAL``, or a file of :func:`reward_design.llm.save_reward`.
        params: the reward's params, where they are not what ``reward.init`` makes.
        seed: of the key for ``reward.init``.
        info_keys: entries of the environment's info that become ``transition.info``; numbers, present at every step.

    Raises:
        TypeError: for a vector environment, a reward of kind ``TRAJECTORY``, or a space without numbers.
        ValueError: if the reward does not fit the environment (at the first step if it reads info), if an entry of
            ``info_keys`` is missing at a step, if ``NormalizeReward`` lies below, or if the environment pays anything
            but one number.
        RuntimeError: at ``reset`` in a process that was forked after JAX had started.
        NonFiniteRewardError: if a reward is NaN or infinite, naming reward, term and step.

    Example:
        >>> import gymnasium, reward_design as rd
        >>> from reward_design.adapters.gymnasium import RewardWrapper
        >>> upright = rd.pointwise("upright", lambda p, t: t.reward - p * abs(t.next_obs[:, 2]), params=1.0)
        >>> env = RewardWrapper(gymnasium.make("CartPole-v1"), upright)
        >>> _ = env.reset(seed=0)
        >>> _, reward, _, _, info = env.step(1)
        >>> info["env_reward"], round(reward, 4), sorted(info["reward_terms"])
        (1.0, 0.9531, ['upright'])
    """

    def __init__(
        self,
        env: gymnasium.Env,
        reward: Reward | str | os.PathLike[str],
        *,
        params: Params = None,
        seed: int = 0,
        info_keys: Sequence[str] = (),
    ) -> None:
        if not isinstance(env, gymnasium.Env):
            raise TypeError(f"RewardWrapper expects a single gymnasium.Env, got {_kind(env)}; {_instead(env)}.")
        arguments: dict[str, Any] = {"reward": reward, "params": params, "seed": seed, "info_keys": info_keys}
        RecordConstructorArgs.__init__(self, _disable_deepcopy=True, **arguments)
        _order.check_single(env)
        super().__init__(env)
        mode = "next_step" if _has_autoreset(env) else "disabled"
        self._bridge = Bridge(env.observation_space, env.action_space, autoreset=mode, **arguments)
        watched = mode == "disabled" and _sees_truncation(self._bridge.reward)
        self._cut = _order.CutEpisodes() if watched else None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset the environment and the reward's episode."""
        obs, info = self.env.reset(seed=seed, options=options)
        if self._cut is not None:
            self._cut.reset(self._bridge.num_steps, self._bridge.some_ended)
        self._bridge.reset(obs)
        return obs, info

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """Step the environment and score the step."""
        bridge = self._bridge
        sent = bridge.act(action)
        obs, reward, terminated, truncated, info = self.env.step(action)
        reward = _one_number(reward)
        picked = bridge.gather([info], info)
        score = bridge.step(sent, bridge.observe(obs), reward, terminated, truncated, picked)
        info = {"env_reward": reward, **info}
        info["reward_terms"] = {name: term.item() for name, term in score.terms.items()}
        return obs, score.reward.item(), terminated, truncated, info

    @property
    def compute_reward(self) -> Callable[..., Any]:
        """Present where the environment has it, and refused: relabelled goals would earn another reward than steps.

        Raises:
            AttributeError: if the environment has none.
        """
        self.env.get_wrapper_attr("compute_reward")
        return _order.refuse_relabelling


class VectorRewardWrapper(RewardAttributes, VectorWrapper):
    """Pays a gymnasium vector environment by ``reward``, in each autoreset mode.

    - ``NEXT_STEP``: the step that resets a lane is no experience (mask False) and earns 0.
    - ``SAME_STEP``: the successor of a lane that ended is ``info["final_obs"]``, its info ``info["final_info"]``. An
      environment that reuses its observation buffer overwrites ``final_obs`` before any wrapper sees it; wrap it in
      ``gymnasium.wrappers.TransformObservation(env, copy.deepcopy, None)`` (a warning tells when this seems so).
    - ``DISABLED``: ``reset(options={"reset_mask": ...})`` starts new episodes in those lanes only; steps of a lane that
      ended and was not reset earn 0.

    ``info["env_reward"]`` and the arrays in ``info["reward_terms"]`` belong to the returned rewards, row by row, with
    gymnasium's masks (``info["_env_reward"]``) false for rows that are no experience. All lanes share the running
    state.

    Args:
        envs: a vector environment that states its autoreset mode.
        reward: any reward of kind ``POINTWISE`` or ``CAUSAL``, or a file of :func:`reward_design.llm.save_reward`.
        params: the reward's params, where they are not what ``reward.init`` makes.
        seed: of the key for ``reward.init``.
        info_keys: entries of the environments' info that become ``transition.info``.

    Raises:
        TypeError: for a single environment, a reward of kind ``TRAJECTORY``, or a space without numbers.
        ValueError: if the reward does not fit, the autoreset mode is unknown, ``final_obs`` or info are missing, or a
            wrapper below would give wrong numbers.
        NonFiniteRewardError: if a reward is NaN or infinite, naming reward, term, step and environment.

    Example:
        >>> import gymnasium, numpy as np, reward_design as rd
        >>> from reward_design.adapters.gymnasium import VectorRewardWrapper
        >>> double = rd.pointwise("double", lambda t: 2 * t.reward)
        >>> envs = VectorRewardWrapper(gymnasium.make_vec("CartPole-v1", num_envs=2), double)
        >>> _ = envs.reset(seed=0)
        >>> _, rewards, _, _, infos = envs.step(np.array([0, 1]))
        >>> rewards.tolist(), infos["env_reward"].tolist()
        ([2.0, 2.0], [1.0, 1.0])
    """

    def __init__(
        self,
        envs: VectorEnv,
        reward: Reward | str | os.PathLike[str],
        *,
        params: Params = None,
        seed: int = 0,
        info_keys: Sequence[str] = (),
    ) -> None:
        if not isinstance(envs, VectorEnv):
            raise TypeError(
                f"VectorRewardWrapper expects a gymnasium VectorEnv, got {_kind(envs)}; {_instead(envs, vector=True)}."
            )
        mode = autoreset_mode(envs)
        _order.check_vector(envs, mode)
        _order.check_rewards(envs)
        super().__init__(envs)
        self._bridge = Bridge(
            envs.single_observation_space,
            envs.single_action_space,
            reward=reward,
            num_envs=envs.num_envs,
            autoreset=mode,
            params=params,
            seed=seed,
            info_keys=info_keys,
        )

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Reset all lanes, or those in ``options["reset_mask"]``, and the reward's episodes in them."""
        lanes = None if options is None else options.get("reset_mask")
        obs, infos = self.env.reset(seed=seed, options=options)
        self._bridge.reset(obs, None if lanes is None else np.array(lanes))
        return obs, infos

    def step(self, actions: Any) -> tuple[Any, np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """Step all lanes and score the steps."""
        bridge = self._bridge
        sent = bridge.act(actions)
        obs, rewards, terminated, truncated, infos = self.env.step(actions)
        ended = np.logical_or(terminated, truncated) & (bridge.autoreset == "same_step")
        start_obs = bridge.observe(obs)
        next_obs = bridge.replace_ended(ended, lambda lane: _final_obs(infos, lane), start_obs)
        picked = bridge.gather(_rows(infos, ended, bridge.info_keys), infos) if bridge.info_keys else {}
        score = bridge.step(sent, next_obs, rewards, terminated, truncated, picked, start_obs=start_obs)
        original = _original(infos, rewards, ended)
        infos = {**infos, "env_reward": original, "_env_reward": score.mask.copy()}
        masks = {f"_{name}": score.mask.copy() for name in score.terms}
        infos |= {"reward_terms": score.terms | masks, "_reward_terms": score.mask.copy()}
        return obs, score.reward.astype(np.float64), terminated, truncated, infos


# --- autoreset modes and info ---------------------------------------------------------------------------------------


def autoreset_mode(envs: VectorEnv) -> str:
    """``"next_step"``, ``"same_step"`` or ``"disabled"``.

    Raises:
        ValueError: if the environment does not say.
    """
    # The attribute first: gymnasium 1.2 writes the mode into a metadata dict that all vector environments of one
    # environment class share.
    mode = getattr(envs.unwrapped, "autoreset_mode", None) or envs.metadata.get("autoreset_mode")
    if mode is None:
        raise ValueError(
            f"{envs} must state its autoreset mode, got none; set envs.metadata['autoreset_mode'] to a member of "
            "gymnasium.vector.AutoresetMode."
        )
    return AutoresetMode(mode).name.lower()


def _final_obs(infos: Mapping[str, Any], lane: int) -> Any:
    final = infos.get("final_obs")
    if final is None:
        raise ValueError(
            "autoreset mode SAME_STEP needs info['final_obs'] of lanes that ended, got info with "
            f"{sorted(map(str, infos))}; use the mode NEXT_STEP, or move this wrapper below the one that removed it."
        )
    return lane_of(final, lane)


def _original(infos: Mapping[str, Any], rewards: Any, ended: np.ndarray) -> np.ndarray:
    """The rewards of the innermost wrapper, if several are stacked; those of lanes that ended are in final_info."""
    original, nowhere = np.array(rewards, np.float64), np.zeros(len(ended), bool)
    for source, lanes in ((infos, ~nowhere), (infos.get("final_info", {}), ended)):
        known = lanes & source.get("_env_reward", nowhere)
        if known.any():
            original[known] = np.asarray(source["env_reward"])[known]
    return original


def _rows(infos: Mapping[str, Any], ended: np.ndarray, keys: Sequence[str]) -> list[dict[str, Any]]:
    """Each lane's own info at this step, as far as ``keys`` ask for it."""

    def row(source: Mapping[str, Any], lane: int) -> dict[str, Any]:
        return {k: source[k][lane] for k in keys if k in source and source.get(f"_{k}", everywhere)[lane]}

    everywhere = np.ones(len(ended), bool)
    return [row(infos.get("final_info", {}) if end else infos, lane) for lane, end in enumerate(ended)]


def _has_autoreset(env: Any) -> bool:
    while isinstance(env, gymnasium.Wrapper):
        if isinstance(env, Autoreset):
            return True
        env = env.env
    return False


def _sees_truncation(reward: Reward) -> bool:
    return reward.kind is Kind.CAUSAL or any(part.settings.get("time_limit_is_terminal") for _, part in walk(reward))


def _one_number(reward: Any) -> float:
    """What a single environment paid; some pay an array of one number."""
    if isinstance(reward, (float, int)):
        return float(reward)
    try:
        numbers = np.asarray(reward, np.float64)
    except (TypeError, ValueError):
        numbers = np.empty(0)
    if reward is None or numbers.size != 1:
        raise ValueError(f"the environment's reward must be one number, got {reward!r}.")
    return numbers.item()


def _kind(env: Any) -> str:
    if isinstance(env, VectorEnv):
        return f"the vector environment {env}"
    return f"{type(env).__name__} {env}" if isinstance(env, gymnasium.Env) else type(env).__name__


def _instead(env: Any, *, vector: bool = False) -> str:
    """What to do with ``env``; a vector environment of stable-baselines3 is told by what only it has."""
    make = "gymnasium.make_vec" if vector else "gymnasium.make"
    if isinstance(env, str):
        return f"make it first: {make}({env!r})"
    if isinstance(env, Reward):
        return "the environment comes first, then the reward"
    if isinstance(env, VectorEnv):
        return "use VectorRewardWrapper"
    if hasattr(env, "step_wait"):
        return "use reward_design.adapters.sb3.VecRewardWrapper"
    return "use RewardWrapper" if isinstance(env, gymnasium.Env) else f"give {make}(...)"
