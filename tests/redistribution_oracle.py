"""Redistribution as plain loops over lanes and rows, written from the papers, for tests to compare with."""

import itertools

import numpy as np

CHAIN_STATES = 5


def corrected(contributions, returns, mask, correction):
    """``correct_return``, one episode after the other."""
    out = np.zeros_like(np.asarray(contributions, float))
    for lane in range(mask.shape[1]):
        rows = [t for t in range(mask.shape[0]) if mask[t, lane]]
        error = returns[lane] - sum(float(contributions[t, lane]) for t in rows)
        for t in rows:
            out[t, lane] = contributions[t, lane]
            if correction == "equal":
                out[t, lane] += error / len(rows)
            if correction == "last" and t == rows[-1]:
                out[t, lane] += error
    return out


def lane_episodes(trajectory, lane):
    """Rows of the episodes of a lane: lists of row numbers, and whether each ended."""
    done = np.asarray(trajectory.terminated) | np.asarray(trajectory.truncated)
    found, rows = [], []
    for t in range(len(done)):
        if not trajectory.mask[t, lane]:
            continue
        rows.append(t)
        if done[t, lane]:
            found.append((rows, True))
            rows = []
    return [*found, (rows, False)] if rows else found


def paid(trajectory, c, *, correction, gamma=None, owed=None):
    """What a rollout is paid, and what each lane is owed and has been paid of its last, unfinished episode."""
    reward, out = np.asarray(trajectory.reward, float), np.zeros(trajectory.mask.shape)
    left = np.zeros((trajectory.mask.shape[1], 2))
    for lane in range(trajectory.mask.shape[1]):
        start = np.zeros(2) if owed is None else owed[lane]
        for rows, ended in lane_episodes(trajectory, lane):
            owes = start[0] + sum(reward[t, lane] - c[t, lane] for t in rows)
            fixed = {t: float(c[t, lane]) for t in rows}
            if ended and correction == "last":
                fixed[rows[-1]] += owes
            if ended and correction == "equal":
                fixed = {t: value + owes / len(rows) for t, value in fixed.items()}
            progress = start[1]
            for t in rows:
                progress += fixed[t]
                last = ended and t == rows[-1]
                out[t, lane] = fixed[t] - (0 if gamma is None or last else (1 - gamma) * progress)
            left[lane] = (0, 0) if ended else (owes, progress)
            start = np.zeros(2)
    return out, left


def chain_episodes(length, *, stop_at_goal=False):
    """All action sequences of the chain of 5 states: visits ``[episodes, 10]`` of (state, action), returns, end states.

    Hidden contributions: 1 for going right in state 2, -0.5 for going left in state 3.
    """
    hidden = np.zeros((CHAIN_STATES, 2))
    hidden[2, 1], hidden[3, 0] = 1.0, -0.5
    found = {}
    for actions in itertools.product((0, 1), repeat=length):
        state, visits, steps = 0, np.zeros((CHAIN_STATES, 2)), []
        for action in actions:
            visits[state, action] += 1
            after = min(max(state + (1 if action else -1), 0), CHAIN_STATES - 1)
            steps.append((state, action, after))
            state = after
            if stop_at_goal and state == CHAIN_STATES - 1:
                break
        found[tuple(steps)] = (visits.ravel(), float((visits * hidden).sum()), state)
    visits, returns, ends = zip(*found.values(), strict=True)
    return list(found), np.stack(visits), np.asarray(returns), np.asarray(ends), hidden.ravel()


def rrd_expectation(contributions, total, num_steps, *, unbiased):
    """The mean of the randomised loss over all subsets of ``num_steps`` steps."""
    values = []
    for subset in itertools.combinations(contributions, num_steps):
        error = (total / len(contributions) - np.mean(subset)) ** 2
        if unbiased:
            error -= (1 - num_steps / len(contributions)) * np.var(subset, ddof=1) / num_steps
        values.append(error)
    return float(np.mean(values))


def leave_one_out(returns):
    """SPA's released labels: the return of an episode minus the mean of the other episodes of its task."""
    if len(returns) == 1:
        return np.asarray(returns)
    return np.array([r - (sum(returns) - r) / (len(returns) - 1) for r in returns])


def released_step_rewards(contributions, valid):
    """SPA's released step rewards: (c_t + g_t / 2) times the number of steps that remain, so that the last earns 0."""
    steps = len(contributions)
    return np.array([(c + 0.5 * g) * (steps - 1 - t) for t, (c, g) in enumerate(zip(contributions, valid))])
