"""What the host adapters share: one compiled step, the reward's state, NumPy on both sides."""

import importlib
import math
import os
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import jax
import numpy as np
from gymnasium import spaces
from gymnasium.error import ResetNeeded

from reward_design._forked import forked, refuse_forked
from reward_design.adapters import _compiled
from reward_design.adapters._spaces import copier, merge, missing_key, numeric_info, zeros
from reward_design.core import NonFiniteRewardError, Params, Reward, State
from reward_design.describe import require_online


def non_finite(reward: Reward, value: Any, terms: Mapping[str, Any], where: str) -> NonFiniteRewardError:
    """The error for a reward that is NaN or infinite, naming the first term that is."""
    bad = next((f"term {name!r}" for name, term in terms.items() if not np.isfinite(term)), "the sum of its terms")
    return NonFiniteRewardError(
        f"reward {reward.name!r} must be finite, got {value} from {bad} at {where}; guard it against overflow and "
        "division by zero (the term 'environment' is what the environment paid)."
    )


def given_reward(reward: Any) -> Reward:
    """The reward that was given, or that in the file which was.

    Raises:
        TypeError: for neither.
        CandidateRefused: for a file that is not a saved reward, see :func:`reward_design.llm.load_reward`.
        FileNotFoundError: if there is no such file.
    """
    if isinstance(reward, str | os.PathLike):
        files = importlib.import_module("reward_design.llm.files")  # on use alone: that layer lies above this one
        if os.fspath(reward).endswith(files.SUFFIX):
            return files.load_reward(reward)
        raise TypeError(
            f"expected a Reward or a file that ends in {files.SUFFIX}, got {os.fspath(reward)!r}; for a design by "
            "name, give reward_design.experiments.designs.resolve(name, task)."
        )
    if not isinstance(reward, Reward):
        raise TypeError(f"expected a Reward, got {type(reward).__name__}; wrap a function in pointwise(name, fn).")
    return reward


class Scores(NamedTuple):
    """What :meth:`Bridge.step` returns, as NumPy arrays ``[B]``."""

    reward: np.ndarray
    terms: dict[str, np.ndarray]
    mask: np.ndarray


class Bridge:
    """One reward on ``num_envs`` lanes of a host environment.

    Keeps the observation that the next action starts from (a copy: environments reuse their buffers), which lanes have
    ended, and the reward's params and state (on the CPU).

    Args:
        observation_space: of one environment. Parts that are not numbers (text, graphs) are left out of transitions.
        action_space: of one environment.
        reward: the reward, or its file; kind ``POINTWISE`` or ``CAUSAL``.
        num_envs: number of lanes ``B``.
        autoreset: what the environment does with lanes that ended: ``"next_step"``, ``"same_step"`` or ``"disabled"``.
        params: used instead of those that ``reward.init`` makes; a reward with a learner needs those that it learned.
        seed: of the key for ``reward.init``.
        info_keys: entries of the environment's info that become ``transition.info``.
    """

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        reward: Reward | str | os.PathLike[str],
        *,
        num_envs: int = 1,
        autoreset: str = "next_step",
        params: Params = None,
        seed: int = 0,
        info_keys: Sequence[str] = (),
    ) -> None:
        reward = given_reward(reward)
        if isinstance(info_keys, str):
            raise TypeError(
                f"info_keys must be a sequence of names, got the string {info_keys!r}; pass ({info_keys!r},)."
            )
        require_online(reward)
        if reward.learner is not None and params is None:
            warnings.warn(
                f"the reward {reward.name!r} has to be learned, which no wrapper does: it pays what it pays untrained. "
                "Train it with ppo, dqn, sac or reinforce and pass params=result.state.reward_params.",
                stacklevel=4,
            )
        self.reward, self.num_envs, self.seed, self.info_keys = reward, num_envs, seed, tuple(info_keys)
        self.autoreset = autoreset
        self._spaces = observation_space, action_space
        self._make_copiers()
        self._obs: Any = None
        self._ended, self.some_ended = np.zeros(num_envs, bool), False
        self.num_steps = 0
        self._blank: dict[str, np.ndarray] = {}
        self._num_ends = 0
        self._names: tuple[str, ...] = ()
        self._params, self._state = params, cast(Any, None)
        self._all_lanes: Any = None
        if forked():  # reset says so, which vector environments hand on to the process above
            return
        self._all_lanes = _compiled.owned(np.ones(num_envs, bool))
        if not self.info_keys:
            self._start({})

    def reset(self, obs: Any, lanes: np.ndarray | None = None) -> None:
        """New episodes, in all lanes or in those where ``lanes`` is true; running statistics stay."""
        refuse_forked()
        obs = self.observe(obs)
        if lanes is None or self._obs is None:
            lanes = np.ones(self.num_envs, bool)
        self._obs = obs if lanes.all() else merge(lanes, obs, self._obs)
        self._ended = self._ended & ~lanes
        self.some_ended = bool(self._ended.any())
        if self._state is None or not jax.tree.leaves(self._state.episode):
            return
        fresh, episode = self._state.fresh, self._state.episode
        self._state = self._state._replace(episode=fresh if lanes.all() else _compiled.select(lanes, fresh, episode))

    def step(
        self,
        action: Any,
        next_obs: Any,
        reward: Any,
        terminated: Any,
        truncated: Any,
        info: Mapping[str, np.ndarray],
        start_obs: Any = None,
    ) -> Scores:
        """Score one step.

        ``action``, ``next_obs`` and ``info`` are copies made by :attr:`act`, :attr:`observe` and :meth:`gather`;
        ``start_obs`` is what the next action starts from, where that is not ``next_obs`` (``same_step``).
        """
        refuse_forked()
        if self._obs is None:
            raise ResetNeeded("the wrapper has seen no first observation; call reset before step.")
        if not self._names:
            self._start(info)
        flags = np.empty((3, self.num_envs), _compiled.float_dtype())
        flags[0], flags[1], flags[2] = reward, terminated, truncated
        mask = ~self._ended
        lanes = mask if self.some_ended else self._all_lanes
        call = self.reward.step, self._names, self._params, *self._state
        scores, episode, running = _compiled.apply(*call, lanes, self._obs, action, next_obs, flags, info)
        self._state = State(episode, running, self._state.fresh)
        self._obs = next_obs if start_obs is None else start_obs
        self._end_lanes(terminated, truncated)
        values = np.array(scores)
        self._check_finite(values)
        self.num_steps += 1
        return Scores(values[0], dict(zip(self._names, values[1:], strict=True)), mask)

    def replace_ended(self, lanes: np.ndarray, last: Callable[[int], Any], first_obs: Any) -> Any:
        """True successors: ``first_obs``, but ``last(lane)`` in lanes that ended and were reset in the same step."""
        if not lanes.any():
            return first_obs
        next_obs = jax.tree.map(np.copy, first_obs)
        for lane in np.flatnonzero(lanes).tolist():
            final = self._observe_one(last(lane))
            for into, value in zip(jax.tree.leaves(next_obs), jax.tree.leaves(final), strict=True):
                into[lane] = value[0]
            if 0 <= self._num_ends < 3:
                self._suspect_reused_buffer(lane, next_obs, first_obs)
        return next_obs

    def gather(self, rows: Sequence[Mapping[str, Any]], available: Iterable[str]) -> dict[str, np.ndarray]:
        """``transition.info`` from the info of each lane; only lanes that are no experience may lack an entry.

        Raises:
            ValueError: if an entry is too large or missing; ``available`` are the names that there are.
            TypeError: if an entry is not numeric.
        """
        gathered = {}
        for key in self.info_keys:
            values = [numeric_info(key, row[key]) if key in row else None for row in rows]
            if any(value is None and not ended for value, ended in zip(values, self._ended, strict=True)):
                raise missing_key(key, available)
            known = next((value for value in values if value is not None), self._blank.get(key))
            self._blank[key] = np.zeros_like(known)
            gathered[key] = np.stack([self._blank[key] if value is None else value for value in values])
        return gathered

    @property
    def params(self) -> Params:
        """See :attr:`RewardAttributes.reward_params`."""
        return jax.tree.map(np.array, self._params)

    @params.setter
    def params(self, params: Params) -> None:
        self._params = params if not self._names else _compiled.like(self._params, params, "reward_params")

    @property
    def state(self) -> Any:
        """See :attr:`RewardAttributes.reward_state`."""
        return jax.tree.map(np.array, self._state)  # copies: the buffers of running are donated

    @state.setter
    def state(self, state: Any) -> None:
        self._state = state if not self._names else _compiled.like(self._state, state, "reward_state")

    def __getstate__(self) -> dict[str, Any]:
        held = {"_params": self.params, "_state": self.state, "_all_lanes": None}
        return {**self.__dict__, **held, "observe": None, "_observe_one": None, "act": None}

    def __setstate__(self, held: dict[str, Any]) -> None:
        refuse_forked()
        self.__dict__.update(held)
        self._make_copiers()
        self._all_lanes = _compiled.owned(np.ones(self.num_envs, bool))
        if self._names:
            self._params, self._state = _compiled.owned(self._params), _compiled.owned(self._state)

    def _make_copiers(self) -> None:
        obs, action = self._spaces
        self.observe, self._observe_one = copier(obs, "observation", self.num_envs), copier(obs, "observation", 1)
        self.act = copier(action, "action", self.num_envs)

    def _start(self, info: Mapping[str, np.ndarray]) -> None:
        """Make params and state, and find the names of the terms; a reward that does not fit fails here."""
        obs, action = (zeros(space, self.num_envs) for space in self._spaces)
        flags = np.zeros((3, self.num_envs), _compiled.float_dtype())
        info = {name: np.zeros_like(value) for name, value in info.items()}
        example = _compiled.transition(self._all_lanes, obs, action, obs, flags, info)
        params, state, names = _compiled.start(self.reward, example, seed=self.seed, info_keys=self.info_keys)
        given = self._params, self._state
        self._params = _compiled.owned(params) if given[0] is None else _compiled.like(params, given[0], "params")
        self._state = _compiled.owned(state) if given[1] is None else _compiled.like(state, given[1], "reward_state")
        self._names = names

    def _suspect_reused_buffer(self, lane: int, next_obs: Any, first_obs: Any) -> None:
        if _same(lane, next_obs, self._obs):  # nothing moved in this step: an agent stuck at the start tells nothing
            return
        self._num_ends = self._num_ends + 1 if _same(lane, next_obs, first_obs) else -1
        if self._num_ends == 3:
            warnings.warn(
                "the last observation of an episode was each time the first of the next one; if the environment reuses "
                "its observation buffer, the last one is overwritten before any wrapper sees it: wrap each environment "
                "in gymnasium.wrappers.TransformObservation(env, copy.deepcopy, None).",
                stacklevel=5,
            )

    def _end_lanes(self, terminated: Any, truncated: Any) -> None:
        if self.autoreset == "same_step":
            return
        done = np.logical_or(terminated, truncated)
        if done.any() or self.some_ended:
            self._ended = (self._ended | done) if self.autoreset == "disabled" else done.reshape(self.num_envs)
            self.some_ended = bool(self._ended.any())

    def _check_finite(self, values: np.ndarray) -> None:
        rewards = values[0]
        if math.isfinite(rewards[0]) if self.num_envs == 1 else np.isfinite(rewards).all():
            return
        lane = int(np.argmin(np.isfinite(rewards)))
        terms = dict(zip(self._names, values[1:, lane], strict=True))
        where = f"step {self.num_steps} of environment {lane}"
        raise non_finite(self.reward, rewards[lane], terms, where)


class RewardAttributes:
    """The two attributes that every wrapper has, so that its reward can be saved with a policy."""

    _bridge: Bridge

    @property
    def reward_params(self) -> Params:
        """The reward's params as NumPy arrays; assign to change them (same structure and shapes)."""
        return self._bridge.params

    @reward_params.setter
    def reward_params(self, params: Params) -> None:
        self._bridge.params = params

    @property
    def reward_state(self) -> Any:
        """The reward's :class:`State` as NumPy arrays; assign and ``reset`` to restore it.

        None before the first step of a reward that reads info. Another number of environments has other episodes; take
        over what survives them with ``wrapper.reward_state = wrapper.reward_state._replace(running=saved.running)``.
        """
        return self._bridge.state

    @reward_state.setter
    def reward_state(self, state: Any) -> None:
        self._bridge.state = state


def _same(lane: int, one: Any, other: Any) -> bool:
    return all(jax.tree.leaves(jax.tree.map(lambda a, b: np.array_equal(a[lane], b[lane]), one, other)))
