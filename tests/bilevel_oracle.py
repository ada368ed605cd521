"""Two-level problems in NumPy float64: a soft-optimal tabular policy below, the primary return above, solved by hand.

x = (phi1, phi2, phi3, varphi) pays r_x = phi1 + phi2 r_primary + phi3 r_auxiliary and discounts by sigmoid(varphi).
What is analytic also takes complex numbers, so that :func:`jacobian` is exact to rounding without autodiff.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

X = np.array([0.3, 1.0, 0.7, 1.5])


class Problem(NamedTuple):
    """``transition [S, A, S]`` (rows sum to less than 1 where episodes end), rewards ``[S, A]``, start ``[S]``."""

    transition: np.ndarray
    primary: np.ndarray
    auxiliary: np.ndarray
    initial: np.ndarray
    entropy: float = 0.5
    gamma: float = 0.9


def random_problem(seed: int = 0, ending: float = 0.0, states: int = 3, actions: int = 2) -> Problem:
    """Dirichlet(1) transitions, N(0, 1) rewards; an action ends the episode with a chance of up to ``ending``."""
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.ones(states), (states, actions))
    rewards = rng.normal(size=(2, states, actions))
    initial = rng.dirichlet(np.ones(states))
    return Problem(transition * (1 - ending * rng.random((states, actions, 1))), *rewards, initial)


def shaping(problem: Problem, potential: np.ndarray, gamma: float, at_the_end: float = 0.0) -> np.ndarray:
    """``[S, A]`` expected gamma Phi(s') - Phi(s), with Phi ``at_the_end`` of an episode."""
    ends = 1 - problem.transition.sum(-1)
    return gamma * (problem.transition @ potential + ends * at_the_end) - potential[:, None]


def sigmoid(v):
    """1 / (1 + exp(-v))."""
    return 1 / (1 + np.exp(-v))


def log_softmax(theta):
    """Over the last axis."""
    shifted = theta - theta.real.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


def aligned(problem: Problem, x) -> np.ndarray:
    """r_x ``[S, A]``."""
    return x[0] + x[1] * problem.primary + x[2] * problem.auxiliary


def jacobian(function: Callable, at: np.ndarray) -> np.ndarray:
    """``[..., n]`` derivative by complex steps: Im f(z + ih) / h."""
    flat = np.asarray(at, np.complex128).ravel()
    steps = 1e-30j * np.eye(flat.size)
    return np.stack([np.asarray(function((flat + s).reshape(np.shape(at)))).imag / 1e-30 for s in steps], -1)


# --- the two levels -------------------------------------------------------------------------------------------------


def state_values(problem: Problem, policy, reward, gamma):
    """V = (I - gamma P_pi)^{-1} E_pi r."""
    moves = np.einsum("sa,sat->st", policy, problem.transition)
    return np.linalg.solve(np.eye(len(policy)) - gamma * moves, (policy * reward).sum(-1))


def occupancy(problem: Problem, policy, gamma):
    """sum_t gamma^t P(s_t = s); gamma = 1 counts the visits of episodes that end."""
    moves = np.einsum("sa,sat->st", policy, problem.transition)
    return np.linalg.solve((np.eye(len(policy)) - gamma * moves).T, problem.initial)


def slope(problem: Problem, theta, reward, gamma, entropy: float):
    """d/dtheta of the return of softmax(theta), less entropy ln pi, by the policy gradient theorem ``[S, A]``."""
    log_pi = log_softmax(theta)
    pi = np.exp(log_pi)
    paid = reward - entropy * log_pi
    v = state_values(problem, pi, paid, gamma)
    advantage = paid + gamma * problem.transition @ v - v[:, None]
    return occupancy(problem, pi, gamma)[:, None] * pi * advantage


def inner_slope(problem: Problem, theta, x):
    """Delta(theta, x): the gradient that vanishes at the inner optimum."""
    return slope(problem, theta, aligned(problem, x), sigmoid(x[3]), problem.entropy)


def primary_return(problem: Problem, theta):
    """The outer objective: discounted primary return of softmax(theta)."""
    pi = np.exp(log_softmax(theta))
    return problem.initial @ state_values(problem, pi, problem.primary, problem.gamma)


def soft_optimum(problem: Problem, x) -> np.ndarray:
    """Log-probabilities of the soft-optimal policy, by soft policy iteration."""
    reward, gamma = aligned(problem, x), sigmoid(x[3])
    log_pi = log_softmax(np.zeros_like(reward))
    for _ in range(200):
        v = state_values(problem, np.exp(log_pi), reward - problem.entropy * log_pi, gamma)
        new = log_softmax((reward + gamma * problem.transition @ v) / problem.entropy)
        if np.abs(new - log_pi).max() < 1e-15:
            break
        log_pi = new
    return new


# --- the hypergradient, five times ----------------------------------------------------------------------------------


def closed_form(problem: Problem, x) -> np.ndarray:
    """Derivative of the soft Bellman equation: dQ = dr + dgamma P V + gamma P dV, dpi = pi (dQ - E_pi dQ) / lambda."""
    gamma, log_pi = sigmoid(x[3]), soft_optimum(problem, x)
    pi, reward = np.exp(log_pi), aligned(problem, x)
    v = state_values(problem, pi, reward - problem.entropy * log_pi, gamma)
    dgamma = gamma * (1 - gamma)
    direct = [np.ones_like(reward), problem.primary, problem.auxiliary, dgamma * problem.transition @ v]
    q_primary = problem.primary + problem.gamma * problem.transition @ state_values(
        problem, pi, problem.primary, problem.gamma
    )
    visits, result = occupancy(problem, pi, problem.gamma), []
    for change in direct:
        dq = change + gamma * problem.transition @ state_values(problem, pi, change, gamma)
        dpi = pi * (dq - (pi * dq).sum(-1, keepdims=True)) / problem.entropy
        result.append(visits @ (dpi * q_primary).sum(-1))
    return np.array(result)


def central_differences(problem: Problem, x, step: float = 1e-5) -> np.ndarray:
    """The inner problem solved again on both sides of x."""
    solved = lambda x: primary_return(problem, soft_optimum(problem, x))  # noqa: E731
    return np.array([(solved(x + e) - solved(x - e)) / (2 * step) for e in step * np.eye(4)])


class Parts(NamedTuple):
    """H ``[n, n]``, A ``[n, 4]`` (its last column is called B in the paper) and v ``[n]``, n = S A."""

    hessian: np.ndarray
    mixed: np.ndarray
    v: np.ndarray


def parts(problem: Problem, theta, x) -> Parts:
    """What the implicit function theorem needs, at any theta."""
    n = theta.size
    return Parts(
        jacobian(lambda t: inner_slope(problem, t, x), theta).reshape(n, n),
        jacobian(lambda z: inner_slope(problem, theta, z), x).reshape(n, 4),
        slope(problem, theta, problem.primary, problem.gamma, 0.0).ravel(),
    )


def implicit(p: Parts, damping: float = 0.0) -> np.ndarray:
    """A^T (-H + damping)^+ v."""
    values, vectors = np.linalg.eigh(damping * np.eye(len(p.v)) - (p.hessian + p.hessian.T) / 2)
    inverse = np.where(np.abs(values) > 1e-10, 1 / np.where(values == 0, 1, values), 0)
    return p.mixed.T @ (vectors @ (inverse * (vectors.T @ p.v)))


def neumann(p: Parts, step: float, num_terms: int, damping: float = 0.0) -> np.ndarray:
    """A^T step sum_{k=0..K} (I + step (H - damping))^k v, from powers of the dense matrix."""
    eye = np.eye(len(p.v))
    powers = [np.linalg.matrix_power(eye + step * (p.hessian - damping * eye), k) for k in range(num_terms + 1)]
    return p.mixed.T @ (step * sum(powers) @ p.v)


def unrolled(problem: Problem, theta, x, step: float, num_steps: int) -> np.ndarray:
    """d/dx of the primary return after steps of ascent from theta, which does not move with x."""

    def end(z):
        t = theta.astype(z.dtype)
        for _ in range(num_steps):
            t = t + step * inner_slope(problem, t, z)
        return primary_return(problem, t)

    return jacobian(end, x)


def frozen_hessian(problem: Problem, theta, x) -> np.ndarray:
    """H of data that do not move with theta, at the optimum: blocks -occ(s) (V(s) + lambda) (diag pi - pi pi^T)."""
    log_pi, gamma = log_softmax(theta), sigmoid(x[3])
    pi = np.exp(log_pi)
    v = state_values(problem, pi, aligned(problem, x) - problem.entropy * log_pi, gamma)
    scale = -occupancy(problem, pi, gamma) * (v + problem.entropy)
    (states, actions), result = pi.shape, np.zeros((pi.size, pi.size))
    for s in range(states):
        block = slice(s * actions, (s + 1) * actions)
        result[block, block] = scale[s] * (np.diag(pi[s]) - np.outer(pi[s], pi[s]))
    return result


# --- sums over sampled episodes -------------------------------------------------------------------------------------


class Batch(NamedTuple):
    """One episode per row: ``features [N, T, d]``, the rest ``[N, T]``; behind its end ``mask`` is False."""

    features: np.ndarray
    action: np.ndarray
    mask: np.ndarray
    primary: np.ndarray
    auxiliary: np.ndarray


class Sums(NamedTuple):
    """Per episode: Delta and v ``[N, n]``, A ``[N, n, 3]``, B ``[N, n]``, H ``[N, n, n]``; n = d times actions."""

    delta: np.ndarray
    v: np.ndarray
    a: np.ndarray
    b: np.ndarray
    hessian: np.ndarray


def sampled_sums(
    batch: Batch, theta, x, *, gamma: float, entropy: float, bonus: bool = False, baseline: bool = False
) -> Sums:
    """The sums over t and j >= t as written, for pi = softmax(features @ theta), theta ``[d, actions]``.

    Args:
        batch: the episodes, taken as they are: no importance weights.
        theta: where psi is taken.
        x: phi1, phi2, phi3, varphi.
        gamma: discount of v.
        entropy: lambda.
        bonus: pay lambda times the entropy of each visited state, instead of -lambda ln pi inside the return.
        baseline: subtract from the returns to go, of both levels, their mean over all steps, whose derivative counts.
    """
    num, horizon, _ = batch.features.shape
    discount = sigmoid(x[3])
    dgamma = discount * (1 - discount)
    log_pi = log_softmax(batch.features @ theta)
    pi, eye = np.exp(log_pi), np.eye(theta.shape[1])
    psi = np.einsum("nti,nta->ntia", batch.features, eye[batch.action] - pi).reshape(num, horizon, -1)
    chosen = np.take_along_axis(log_pi, batch.action[..., None], -1)[..., 0]
    fisher = pi[..., None] * eye - pi[..., :, None] * pi[..., None, :]
    dpsi = -np.einsum("nti,ntj,ntab->ntiajb", batch.features, batch.features, fisher)
    dpsi = dpsi.reshape(num, horizon, theta.size, theta.size)

    heads = np.stack([np.ones_like(batch.primary), batch.primary, batch.auxiliary], -1)
    reward = heads @ x[:3]
    inside = reward if bonus else reward - entropy * chosen
    to_go, outer_to_go, db = (np.zeros((num, horizon)) for _ in range(3))
    da, later_psi = np.zeros((num, horizon, 3)), np.zeros_like(psi)
    for t in range(horizon):
        for j in range(t, horizon):
            on, k = batch.mask[:, j], j - t
            to_go[:, t] += on * discount**k * inside[:, j]
            outer_to_go[:, t] += on * gamma**k * batch.primary[:, j]
            da[:, t] += on[:, None] * discount**k * heads[:, j]
            db[:, t] += on * k * discount ** (k - 1) * dgamma * inside[:, j]
            later_psi[:, t] += on[:, None] * discount**k * psi[:, j]
    mean = lambda y: y[batch.mask].mean(0)  # noqa: E731
    if baseline:
        to_go, outer_to_go, da, db = (y - mean(y) for y in (to_go, outer_to_go, da, db))
        later_psi = later_psi - mean(later_psi)
    w = batch.mask.astype(float)
    delta = np.einsum("nt,ntp,nt->np", w, psi, to_go)
    hessian = np.einsum("nt,ntpq,nt->npq", w, dpsi, to_go)
    if bonus:
        slopes, curvatures = _entropy_derivatives(log_pi)
        f = batch.features
        delta = delta + entropy * np.einsum("nt,nti,nta->nia", w, f, slopes).reshape(num, -1)
        second = np.einsum("nt,nti,ntj,ntab->niajb", w, f, f, curvatures)
        hessian = hessian + entropy * second.reshape(num, theta.size, theta.size)
    else:
        hessian = hessian - entropy * np.einsum("nt,ntp,ntq->npq", w, psi, later_psi)
    v = np.einsum("nt,ntp,nt->np", w, psi, outer_to_go)
    a, b = np.einsum("nt,ntp,nth->nph", w, psi, da), np.einsum("nt,ntp,nt->np", w, psi, db)
    return Sums(delta, v, a, b, hessian)


def _entropy_derivatives(log_pi):
    """dE/dz_a = -pi_a (ln pi_a + E) and its derivative in z_b, for logits z."""
    pi, eye = np.exp(log_pi), np.eye(log_pi.shape[-1])
    e = -(pi * log_pi).sum(-1, keepdims=True)
    slope = -pi * (log_pi + e)
    moves = eye - pi[..., None, :]
    return slope, -pi[..., None] * (moves * (log_pi + e)[..., None] + moves + slope[..., None, :])


def sample(problem: Problem, theta, num: int, horizon: int, seed: int = 0) -> Batch:
    """Episodes of softmax(theta) with one-hot states as features, cut off after ``horizon`` steps."""
    rng = np.random.default_rng(seed)
    states = len(theta)
    pi = np.exp(log_softmax(theta))
    moves = np.concatenate([problem.transition, 1 - problem.transition.sum(-1, keepdims=True)], -1)
    moves = np.concatenate([moves, np.broadcast_to(np.eye(states + 1)[-1], (1, *moves.shape[1:]))])
    pi = np.concatenate([pi, pi[-1:]])
    draw = lambda p: (rng.random((num, 1)) > np.cumsum(p, -1)[:, :-1]).sum(-1)  # noqa: E731
    s, steps = draw(np.tile(problem.initial, (num, 1))), []
    for _ in range(horizon):
        steps.append((s, draw(pi[s])))
        s = draw(moves[steps[-1]])
    s, action = np.moveaxis(np.array(steps), 0, -1)
    at = np.minimum(s, states - 1)
    return Batch(np.eye(states)[at], action, s < states, problem.primary[at, action], problem.auxiliary[at, action])


def expected_sums(problem: Problem, theta, x) -> tuple[np.ndarray, np.ndarray]:
    """What v ``[n]`` and (A, B) ``[n, 4]`` per sampled episode tend to, with -lambda ln pi inside the return."""
    log_pi = log_softmax(theta)
    pi = np.exp(log_pi)
    visits = occupancy(problem, pi, 1.0)[:, None]

    def contracted(reward, gamma):
        q = reward + gamma * problem.transition @ state_values(problem, pi, reward, gamma)
        return visits * pi * (q - (pi * q).sum(-1, keepdims=True))

    inner = lambda z: contracted(aligned(problem, z) - problem.entropy * log_pi, sigmoid(z[3]))  # noqa: E731
    return contracted(problem.primary, problem.gamma).ravel(), jacobian(inner, x).reshape(theta.size, 4)
