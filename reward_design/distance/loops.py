"""Loops that pay without getting on with the task, exactly, on finite MDPs.

Source: the maximum mean cycle of a graph (Karp, "A characterization of the minimum cycle mean in a digraph", 1978), for
stochastic dynamics as the average-reward linear programme (Puterman, "Markov Decision Processes", 1994, chapter 9). The
reward-farming example that it finds is that of Randlov and Alstrom's bicycle, in Ng, Harada and Russell, 1999.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from scipy.optimize import linprog

from reward_design.agents import dynamic_programming as dp
from reward_design.envs import exact


class Loop(NamedTuple):
    """A way to go on for ever without a payment by the task.

    Attributes:
        states: indices, in the order of the loop (of a sample path where the dynamics are stochastic).
        actions: taken there.
        designed: mean designed reward per step.
        task: mean task reward per step, at most 0.
        advantage: mean advantage, under the designed reward, over pursuing the task; above 0 the design pays more for
            the loop than for the task. Potential shaping does not change it.
    """

    states: tuple[int, ...]
    actions: tuple[int, ...]
    designed: float
    task: float
    advantage: float


@exact.quiet
def best_loop(
    task_reward: exact.Numbers, designed: exact.Numbers, transition: exact.Numbers, *, gamma: float
) -> Loop | None:
    """The loop without task progress that a design pays best, compared with pursuing the task.

    max over stationary x ≥ 0 of Σ x(s, a) A(s, a), Σ x = 1, x only on pairs of which no possible successor is paid by
    the task, A the advantage under the designed reward over the policy that is optimal for the task. With deterministic
    dynamics this is the cycle of largest mean. By the performance-difference lemma, a policy that stays in a loop with
    A > 0 earns more of the designed reward than one that does the task.

    Args:
        task_reward: ``[S, A, S]``.
        designed: ``[S, A, S]``.
        transition: ``[S, A, S]``; terminal states lead to themselves and are no loops.
        gamma: discount per step, in [0, 1).

    Returns:
        A :class:`Loop`, or None if every way on is paid by the task or ends.

    Raises:
        ValueError: shapes that do not fit, rows that are no distributions, gamma outside [0, 1), values not finite.
        RuntimeError: if the solver fails.

    Example:
        >>> import numpy as np
        >>> transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)  # actions stay and switch
        >>> goal = np.zeros((2, 2, 2)); goal[:, :, 1] = 1.0
        >>> idle = np.zeros((2, 2, 2)); idle[0, 0] = 3.0  # pays for staying away
        >>> found = best_loop(goal, goal + idle, transition, gamma=0.5)
        >>> found.states, found.actions, found.designed, round(found.advantage, 6)
        ((0,), (0,), 3.0, 2.0)
    """
    exact.check_table("designed", designed, np.shape(task_reward))
    solution = dp.policy_iteration(transition, task_reward, gamma=gamma)
    _, a, b, tau = exact.floats(task_reward, designed, transition)
    values = np.asarray(dp.policy_evaluation(tau, b, solution.policy, gamma=gamma))
    paid_a, paid_b = (tau * a).sum(-1), (tau * b).sum(-1)
    advantage = paid_b + gamma * tau @ values - values[:, None]
    stuck = (np.diagonal(tau, axis1=0, axis2=2).T == 1).all(-1)  # absorbing, as terminal states are
    stuck &= (paid_a == 0).all(-1) & (paid_b == 0).all(-1)
    progress = ((tau > 0) & (a > 1e-12 * np.abs(a).max())).any(-1)
    allowed = ~progress & ~stuck[:, None]
    weight = _stationary(advantage, tau, allowed)
    if weight is None:
        return None
    states, actions = _path(weight, tau)
    mean = lambda table: float((weight * table).sum())  # noqa: E731
    return Loop(states, actions, mean(paid_b), mean(paid_a), mean(advantage))


def _stationary(value: np.ndarray, tau: np.ndarray, allowed: np.ndarray) -> np.ndarray | None:
    """``[S, A]`` stationary frequencies on allowed pairs with the largest mean value, or None if there are none."""
    pairs = np.flatnonzero(allowed.ravel())
    if not pairs.size:
        return None
    num_states, num_actions, _ = tau.shape
    leave = np.eye(num_states)[pairs // num_actions]
    balance = (leave - tau.reshape(-1, num_states)[pairs]).T
    rows = scipy.sparse.csr_array(np.vstack([balance, np.ones(len(pairs))]))
    scale = np.abs(value).max() or 1.0
    found = linprog(
        -value.ravel()[pairs] / scale, A_eq=rows, b_eq=[*np.zeros(num_states), 1.0], bounds=(0, None), method="highs"
    )
    if found.status == 2:
        return None
    if found.x is None:
        raise RuntimeError(f"the linear programme of the best loop was not solved: {found.message}")
    weight = np.zeros(num_states * num_actions)
    weight[pairs] = np.maximum(found.x, 0)
    return weight.reshape(num_states, num_actions) / weight.sum()


def _path(weight: np.ndarray, tau: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Once around, from the state that is visited most, to the likeliest successor each time."""
    states: list[int] = []
    state = int(weight.sum(-1).argmax())
    while state not in states:
        states.append(state)
        state = int(tau[state, weight[state].argmax()].argmax())
    states = states[states.index(state) :]
    return tuple(states), tuple(int(weight[s].argmax()) for s in states)


def sample_path(policy: Any, transition: np.ndarray, start: int, num_steps: int, seed: int = 0) -> list[int]:
    """States of one episode under a policy ``[S, A]``; it ends in an absorbing state."""
    rng, path = np.random.default_rng(seed), [start]
    for _ in range(num_steps):
        state = path[-1]
        if (transition[state, :, state] == 1).all():
            break
        action = rng.choice(len(policy[state]), p=policy[state] / policy[state].sum())
        path.append(int(rng.choice(len(transition), p=transition[state, action])))
    return path
