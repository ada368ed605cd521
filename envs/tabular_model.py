"""Arrays of a finite MDP: build them from a successor function, check them, and simple exact computations on them."""

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from reward_design.envs.base import Layout, Tabular

Branches = Callable[[Any, int], Iterable[tuple[float, Any, float]]]
"""``(state, action) -> [(probability, successor, reward), ...]`` with hashable states."""


def model_from_branches(
    states: Sequence[Hashable],
    num_actions: int,
    branches: Branches,
    *,
    initial: Mapping[Any, float],
    is_terminal: Callable[[Any], bool],
    gamma: float,
    layout: Layout | None = None,
) -> Tabular:
    """Arrays of the MDP whose successors ``branches`` lists; terminal states become absorbing and pay 0.

    Args:
        states: every state, in the order of their indices.
        num_actions: number of actions A.
        branches: ``(state, action) -> [(probability, successor, reward), ...]``; not asked for terminal states.
        initial: probability of each start state.
        is_terminal: whether an episode ends in a state.
        gamma: discount per step, in [0, 1].
        layout: how to draw the states.

    Returns:
        A checked :class:`Tabular`.

    Raises:
        ValueError: if the result is not an MDP, or two branches to one successor pay differently.

    Example:
        >>> coin = model_from_branches(
        ...     ["start", "end"], 1, lambda s, a: [(0.5, "start", 0.0), (0.5, "end", 1.0)],
        ...     initial={"start": 1.0}, is_terminal=lambda s: s == "end", gamma=0.9)
        >>> coin.transition[0, 0].tolist(), coin.reward[0, 0].tolist()
        ([0.5, 0.5], [0.0, 1.0])
    """
    index = {state: i for i, state in enumerate(states)}
    num_states = len(states)
    transition = np.zeros((num_states, num_actions, num_states))
    reward = np.zeros_like(transition)
    terminal = np.array([bool(is_terminal(state)) for state in states])
    for i, state in enumerate(states):
        for action in range(num_actions):
            if terminal[i]:
                transition[i, action, i] = 1.0
                continue
            for probability, successor, pay in branches(state, action):
                j = index[successor]
                if transition[i, action, j] > 0 and reward[i, action, j] != pay:
                    raise ValueError(
                        f"the reward must be a function of state, action and successor, got {reward[i, action, j]} and "
                        f"{pay} for {state!r}, {action}, {successor!r}; split the successor into two states."
                    )
                transition[i, action, j] += probability
                reward[i, action, j] = pay
    start = np.zeros(num_states)
    for state, probability in initial.items():
        start[index[state]] += probability
    model = Tabular(
        transition, reward, start, float(gamma), terminal, np.arange(num_states, dtype=np.int32), layout=layout
    )
    check_tabular(model)
    return model


def reachable_states(
    starts: Iterable[Any], num_actions: int, branches: Branches, is_terminal: Callable[[Any], bool]
) -> list[Any]:
    """Sorted list of the states that some policy reaches from ``starts``.

    Example:
        >>> reachable_states([0], 1, lambda s, a: [(1.0, s + 2, 0.0)], lambda s: s >= 6)
        [0, 2, 4, 6]
    """
    found = set(starts)
    queue = list(found)
    while queue:
        state = queue.pop()
        if is_terminal(state):
            continue
        for action in range(num_actions):
            fresh = {successor for p, successor, _ in branches(state, action) if p > 0} - found
            found |= fresh
            queue.extend(fresh)
    return sorted(found)


def check_tabular(model: Tabular) -> None:
    """Raise a ValueError that says what is wrong with ``model``, if anything is."""
    num_states, num_actions = model.transition.shape[:2]
    _check_shape("transition", model.transition, (num_states, num_actions, num_states))
    _check_shape("reward", model.reward, (num_states, num_actions, num_states))
    for name in ("initial", "terminal", "observations"):
        _check_shape(name, getattr(model, name), (num_states,))
    if not 0 <= model.gamma <= 1:
        raise ValueError(f"gamma must be in [0, 1], got {model.gamma}.")
    if not np.isfinite(model.reward).all():
        raise ValueError("rewards of a tabular task must be finite, got NaN or infinity.")
    _check_distributions("transition", model.transition)
    _check_distributions("initial", model.initial)
    stays = model.transition[np.arange(num_states), :, np.arange(num_states)] == 1
    if not stays[model.terminal].all():
        state = np.flatnonzero(model.terminal & ~stays.all(-1))[0]
        raise ValueError(f"terminal states must lead to themselves, got state {state} which does not.")
    if np.any(model.reward[model.terminal] != 0):
        state = np.flatnonzero(model.terminal & (model.reward != 0).any((1, 2)))[0]
        raise ValueError(f"terminal states must pay 0, got a reward out of terminal state {state}.")


def _check_shape(name: str, array: np.ndarray, expected: tuple[int, ...]) -> None:
    if array.shape != expected:
        raise ValueError(f"{name} of a tabular task must have shape {expected}, got {array.shape}.")


def _check_distributions(name: str, probabilities: np.ndarray) -> None:
    if not (probabilities >= 0).all():
        raise ValueError(f"probabilities in {name} must not be negative, got {np.min(probabilities)}.")
    total = probabilities.sum(-1)
    wrong = np.abs(total - 1) > 1e-9
    if np.any(wrong):
        where = "" if total.ndim == 0 else f" for state {np.argwhere(wrong)[0][0]}, action {np.argwhere(wrong)[0][1]}"
        raise ValueError(f"probabilities in {name} must sum to 1, got {total[wrong].flat[0]}{where}.")


def shortest_steps(model: Tabular, targets: Bool[np.ndarray, " S"]) -> Float[np.ndarray, " S"]:
    """Least number of steps to a target, every transition of positive probability counting as possible.

    Args:
        model: the MDP.
        targets: states to reach.

    Returns:
        ``[S]`` steps, 0 in targets, infinity where no target can be reached.
    """
    edges = np.asarray((model.transition > 0).any(axis=1))
    steps = np.where(targets, 0.0, np.inf)
    reached, count = targets.copy(), 0
    while True:
        frontier = np.asarray(edges[:, reached].any(axis=1)) & ~reached
        if not frontier.any():
            return steps
        count += 1
        steps[frontier] = count
        reached |= frontier


def optimal_values(
    model: Tabular, reward: Float[np.ndarray, "S A S"] | None = None
) -> tuple[Float[np.ndarray, " S"], np.ndarray]:
    """Values and greedy actions of an optimal policy, exactly, by policy iteration.

    V = max_a E[R(s, a, s') + gamma V(s')], with V = 0 in terminal states.

    Args:
        model: the MDP; ``gamma`` below 1.
        reward: ``[S, A, S]`` in place of the environment's own.

    Returns:
        ``[S]`` values and ``[S]`` actions.
    """
    table = model.reward if reward is None else reward
    expected = (model.transition * table).sum(-1) * ~model.terminal[:, None]
    alive = model.transition * ~model.terminal[:, None, None]
    rows = np.arange(len(expected))
    policy = expected.argmax(-1)
    while True:
        values = np.linalg.solve(np.eye(len(rows)) - model.gamma * alive[rows, policy], expected[rows, policy])
        action_values = expected + model.gamma * alive @ values
        better = np.asarray(action_values.max(-1) > action_values[rows, policy] + 1e-10)
        if not better.any():
            return values, policy
        policy = np.where(better, action_values.argmax(-1), policy)
