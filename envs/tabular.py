"""Simulation of a finite MDP on the device."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool

from reward_design.core import Transition
from reward_design.envs import grid_pictures
from reward_design.envs.base import EnvState, FunctionalEnv, Tabular
from reward_design.envs.rendering import numbers
from reward_design.envs.tabular_model import check_tabular


class TabularEnv(FunctionalEnv):
    """Any :class:`Tabular` as a functional environment; the observation is the state index (int32).

    A step costs one draw and a few gathers, whatever the number of states: each (state, action) keeps the list of its
    possible successors with an alias table (A. J. Walker, "An efficient method for generating discrete random variables
    with general distributions", 1977). Deterministic dynamics draw nothing.

    Args:
        name: for messages.
        model: the MDP; ``env.tabular()`` gives the same object back.
        horizon: steps after which an episode is truncated.
        success: ``transition -> [B]`` bool, the event that achieves the task.

    Raises:
        ValueError: if ``model`` is not an MDP or ``horizon`` is not positive.
    """

    render_fps = 8

    def __init__(
        self,
        name: str,
        model: Tabular,
        *,
        horizon: int,
        success: Callable[[Transition], Bool[Array, "*batch"]],
    ) -> None:
        check_tabular(model)
        if horizon < 1:
            raise ValueError(f"horizon of {name!r} must be at least 1 step, got {horizon}.")
        num_states, num_actions = model.transition.shape[:2]
        self.name, self.horizon, self.gamma = name, int(horizon), model.gamma
        self.action_space = spaces.Discrete(num_actions)
        self.observation_space = spaces.Discrete(int(model.observations.max()) + 1)
        self._model, self._success, self._num_actions = model, success, num_actions
        self._sees_state = bool((model.observations == np.arange(num_states)).all())
        self._start = AliasTable(model.initial[None])
        self._moves = AliasTable(model.transition.reshape(-1, num_states))
        paid = np.take_along_axis(model.reward.reshape(-1, num_states), self._moves.outcome, axis=1)
        self._paid = paid.reshape(-1)
        if model.layout is not None:
            self.render_modes = ("rgb_array", "ansi")

    def tabular(self) -> Tabular:
        """Exact dynamics as arrays."""
        return self._model

    def render(self, state: EnvState, obs: Any) -> np.ndarray:
        """The grid and the agent on it; without a layout the states on a circle."""
        at, model = int(state.inner), self._model
        if model.layout is not None:
            return grid_pictures.grid(model.layout, at)
        few = len(model.terminal) <= grid_pictures.MAX_STATES
        return grid_pictures.circle(len(model.terminal), at, model.terminal) if few else numbers(obs)

    def render_text(self, state: EnvState) -> str:
        """The grid in characters."""
        if self._model.layout is None:
            return super().render_text(state)
        return grid_pictures.grid_text(self._model.layout, int(state.inner))

    def success(self, transition: Transition) -> Bool[Array, "*batch"]:
        """True on the transition with which the task is achieved."""
        return self._success(transition)

    def _reset(self, key: Any) -> tuple[Any, Any]:
        state = self._start.successor(self._start.draw(key, 0))
        return self._observe(state), state

    def _step(self, key: Any, inner: Any, action: Any) -> tuple[Any, Any, Array, Array, dict[str, Any]]:
        row = inner * self._num_actions + jnp.asarray(action).astype(jnp.int32)
        position = self._moves.draw(key, row)
        state = self._moves.successor(position)
        reward = jnp.asarray(self._paid, float)[position]
        return self._observe(state), state, reward, jnp.asarray(self._model.terminal)[state], {}

    def _observe(self, state: Array) -> Array:
        return state if self._sees_state else jnp.asarray(self._model.observations, jnp.int32)[state]


class AliasTable:
    """Draws from many finite distributions at a cost that depends neither on their number nor on their size.

    ``outcome[n, k]`` lists the possible outcomes of distribution n. Slot k is drawn uniformly, and kept with
    probability ``threshold[n, k]`` or else replaced by slot ``alias[n, k]``.
    """

    def __init__(self, probabilities: np.ndarray) -> None:
        width = int((probabilities > 0).sum(-1).max())
        self.outcome = np.argsort(probabilities <= 0, axis=-1, kind="stable")[:, :width].astype(np.int32)
        weights = np.take_along_axis(probabilities, self.outcome, axis=-1)
        slots = [_alias_slots(row) for row in weights]
        first = np.arange(len(weights))[:, None] * width
        self.width = width
        self.threshold = np.stack([threshold for threshold, _ in slots]).reshape(-1)
        self.alias = (np.stack([alias for _, alias in slots]) + first).reshape(-1).astype(np.int32)

    def draw(self, key: Any, row: Any) -> Array:
        """Position, in the flattened ``outcome``, of one draw from distribution ``row``."""
        if self.width == 1:
            return jnp.asarray(row, jnp.int32)
        scaled = jax.random.uniform(key) * self.width
        slot = jnp.minimum(scaled.astype(jnp.int32), self.width - 1)
        position = row * self.width + slot
        keep = scaled - slot < jnp.asarray(self.threshold, float)[position]
        return jnp.where(keep, position, jnp.asarray(self.alias)[position])

    def successor(self, position: Array) -> Array:
        """Outcome at a position (int32)."""
        return jnp.asarray(self.outcome.reshape(-1))[position]


def _alias_slots(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Thresholds and aliases of one distribution.

    Source: M. D. Vose, "A linear algorithm for generating random numbers with a given distribution", 1991.
    """
    scaled = weights / weights.sum() * len(weights)
    threshold, alias = np.ones(len(weights)), np.arange(len(weights), dtype=np.int32)
    small, large = list(np.flatnonzero(scaled < 1)), list(np.flatnonzero(scaled >= 1))
    while small and large:
        poor, rich = small.pop(), large[-1]
        threshold[poor], alias[poor] = scaled[poor], rich
        scaled[rich] -= 1 - scaled[poor]
        if scaled[rich] < 1:
            small.append(large.pop())
    for slot in small:  # what is left over by rounding: an impossible slot must stay impossible
        if weights[slot] == 0:
            threshold[slot], alias[slot] = 0.0, int(weights.argmax())
    return threshold, alias
