"""The checks of an audit that exact dynamics allow."""

import dataclasses
from typing import Any

import numpy as np

from reward_design.agents import dynamic_programming as dp
from reward_design.core import Reward
from reward_design.distance._reachable import reachable
from reward_design.distance.canonicalisation import flow_matrix
from reward_design.distance.decompose import Decomposition, decompose_difference
from reward_design.distance.findings import (
    Audit,
    Finding,
    component_findings,
    distance_finding,
    gamma_finding,
    percent,
    shares_finding,
    tidy,
)
from reward_design.distance.loops import Loop, best_loop, sample_path
from reward_design.distance.other_discount import finding as discount_finding
from reward_design.distance.other_discount import other_discount
from reward_design.distance.regret import policy_regret
from reward_design.distance.starc import starc_distance
from reward_design.distance.worst_case import WorstCase, regret_bound, worst_case_regret
from reward_design.envs import exact
from reward_design.envs.base import Tabular, Task
from reward_design.envs.tables import reward_output, reward_table

SAME = 1e-6
"""Distances and regrets below count as 0."""


def audit_exact(task: Task, reward: Reward, gamma: float) -> Audit:
    """The audit of a design on a task with exact dynamics; states that no policy reaches are left out."""
    whole = task.tabular()
    keep = reachable(whole.transition, whole.initial)
    model = _kept(whole, keep)
    a = np.asarray(reward_table(task.true_reward, whole))[keep][:, :, keep]
    output = reward_output(reward, whole)
    exact.check_finite(output.reward, **{f"reward {reward.name!r}": output.reward})
    cut = lambda x: np.asarray(x)[keep][:, :, keep]  # noqa: E731
    b, terms = cut(output.reward), {name: cut(term) for name, term in output.terms.items()}
    tau, start = model.transition, model.initial
    distance = float(starc_distance(a, b, tau, gamma=gamma))
    indifferent = float(starc_distance(np.zeros_like(b), b, tau, gamma=gamma)) == 0
    parts = decompose_difference(a, b, tau, gamma=gamma)
    worst = worst_case_regret(a, b, tau, start, gamma=gamma)
    regret = float(policy_regret(a, b, tau, start, gamma=gamma))
    loop = best_loop(a, b, tau, gamma=gamma)
    best = dp.policy_iteration(tau, b, gamma=gamma).policy
    findings = [
        distance_finding(distance, (distance, distance), SAME, "exact, VAL, both norms 2"),
        shares_finding(parts.scale, parts.shares, distance, same=distance <= SAME),
        *_regret_findings(worst, regret, regret_bound(a, b, tau, start, gamma=gamma).bound),
        _loop_finding(loop, worst.spread),
        *_component_findings(terms, model, best, gamma, distance <= SAME),
        gamma_finding(reward, gamma),
        discount_finding(None if distance <= SAME else other_discount(a, b, tau, model.terminal, gamma=gamma), gamma),
        _terminal_finding(a, b, model, parts, gamma),
        _time_limit_finding(a, b, model, task.horizon, gamma),
    ]
    lost = tuple(int(i) for i in np.flatnonzero(~keep))
    if lost:
        named = ", ".join(map(str, lost[:10])) + ("..." if len(lost) > 10 else "")
        findings.append(Finding("unreachable states", False, f"left out, as no policy reaches them: {named}"))
    return Audit(
        task.name, reward.name, True, _verdict(distance, indifferent, worst, regret, findings),
        tuple(sorted(findings, key=lambda f: not f.concern)), distance, (distance, distance), parts.shares,
        worst.regret,
        _witness(worst, model, task.horizon), loop, model, lost,
    )  # fmt: skip


def _kept(model: Tabular, keep: np.ndarray) -> Tabular:
    """The MDP without the other states."""
    layout = model.layout
    if layout is not None:
        layout = dataclasses.replace(layout, cells=layout.cells[keep], layer=np.asarray(layout.layer)[keep])
    return dataclasses.replace(
        model, transition=model.transition[keep][:, :, keep], reward=model.reward[keep][:, :, keep],
        initial=model.initial[keep], terminal=model.terminal[keep], observations=model.observations[keep],
        layout=layout,
    )  # fmt: skip


def _verdict(
    distance: float, indifferent: bool, worst: WorstCase, regret: float, findings: list[Finding]
) -> str:  # fmt: skip
    if distance <= SAME:
        return (
            f"Still the task: it orders all policies as the task does (distance {distance:.1g}, worst-case regret "
            f"{worst.regret:.1g}); the difference is harmless."
        )
    found = (
        f"distance {distance:.3g} of 2; a policy that it does not rank below another can lose {percent(worst.regret)} "
        f"of the range of task returns, and optimising it exactly loses {percent(regret)}"
    )
    if distance >= 2 - SAME:
        return f"The opposite of the task: {found}."
    if indifferent:
        return f"No task: the design is indifferent to all policies; {found}."
    others = [f.check for f in findings if f.concern and f.check not in ("distance", "parts of the difference")]
    also = f" See also: {', '.join(dict.fromkeys(others))}." if others else ""
    start = "Another order of policies with the same optimum" if regret <= SAME else "Not the same task"
    return f"{start}: {found}.{also}"


def _regret_findings(worst: WorstCase, regret: float, bound: float) -> list[Finding]:
    pairs = (worst.returns_a, worst.returns_b)
    task, designed = ([tidy(x, max(map(abs, pair))) for x in pair] for pair in pairs)
    says = f"is {percent(bound)}" if bound < 1 else "is above 100 % and says nothing"
    text = (
        f"{percent(worst.regret)} of the range of task returns ({worst.spread:.3g}): the design gives {designed[1]} to "
        f"a policy worth {task[1]} to the task, and {designed[0]} to one worth {task[0]}; the bound from the distance "
        f"{says}"
    )
    numbers = {"regret": worst.regret, "bound": bound, "range": worst.spread}
    if worst.spread == 0:
        return [Finding("worst case", True, "the task itself is indifferent to all policies", numbers)]
    optimal = f"the optimal policy of the design loses {percent(regret)} of the range of task returns"
    return [
        Finding("worst case", worst.regret > SAME, text, numbers),
        Finding("optimising it", regret > SAME, optimal, {"regret": regret}),
    ]


def _loop_finding(loop: Loop | None, spread: float) -> Finding:
    if loop is None:
        return Finding("farming loops", False, "every way on is paid by the task or ends the episode")
    about = (
        f"the loop of {len(loop.states)} state{'s' if len(loop.states) > 1 else ''} that the design pays best without "
        f"task progress gives {tidy(loop.designed)} per step (the task: {tidy(loop.task)}), "
    )
    farms = loop.advantage > 1e-9 * max(1.0, spread)
    size = tidy(abs(loop.advantage), max(1.0, spread))
    end = "as much as pursuing the task" if size == "0" else f"{size} per step less than pursuing the task"
    end = f"{size} per step more than pursuing the task: it is farmed" if farms else end
    return Finding("farming loops", farms, about + end, {"designed": loop.designed, "advantage": loop.advantage})


def _component_findings(terms: Any, model: Tabular, policy: Any, gamma: float, same: bool) -> list[Finding]:
    tau, start = model.transition, model.initial
    possible = (tau > 0) & ~model.terminal[:, None, None]
    paid = {k: float(dp.expected_return(tau, np.abs(x), policy, start, gamma=gamma)) for k, x in terms.items()}
    constant = {k: bool(np.ptp(term[possible]) <= 1e-12 * max(1.0, np.abs(term).max())) for k, term in terms.items()}
    return component_findings(paid, constant, "of the policy that is optimal for the design", same_task=same)


def _terminal_finding(a: Any, b: Any, model: Tabular, parts: Decomposition, gamma: float) -> Finding:
    """Shaping whose potential is not 0 in terminal states: it fits every step, and the task is another."""
    tau, ends = model.transition, model.terminal
    clear = Finding("terminal potential", False, "no potential that fails to vanish in terminal states explains it")
    if not ends.any() or parts.shares["residual"] <= 1e-9 or ends.all():
        return clear
    paid_a, paid_b = ((tau * r).sum(-1)[~ends].ravel() for r in (a, b))
    design = -flow_matrix(np, tau, np.asarray(gamma)).reshape(*tau.shape[:2], -1)[~ends].reshape(len(paid_a), -1)
    with_task = np.column_stack([design, paid_a])
    free = np.linalg.matrix_rank(with_task) == with_task.shape[1]
    fit, right = (with_task, paid_b) if free else (design, paid_b - paid_a)
    if np.linalg.matrix_rank(fit) < fit.shape[1] or len(fit) <= fit.shape[1]:
        return clear
    solution = np.linalg.lstsq(fit, right, rcond=None)[0]
    left, phi = np.linalg.norm(fit @ solution - right), solution[: len(tau)]
    at_end = phi[ends][np.abs(phi[ends]).argmax()]
    if np.abs(phi[~ends]).max() <= 1e-8 * abs(at_end):  # nothing is shaped before the end: the task pays otherwise
        return clear
    if left > 1e-8 * np.linalg.norm(paid_b) or abs(at_end) <= 1e-8 * np.abs(phi).max():
        return clear
    text = (
        f"every step before the end is potential shaping, but the potential of a terminal state is {at_end:.4g}, not "
        "0, so ending the episode is paid or fined by it; set it to 0 where the episode terminates"
    )
    return Finding("terminal potential", True, text, {"potential at the end": float(at_end)})


def _time_limit_finding(a: Any, b: Any, model: Tabular, horizon: int, gamma: float) -> Finding:
    """What changes if the end by the time limit is taken into account."""
    tau, start = model.transition, model.initial
    paid_a, paid_b = ((tau * r).sum(-1) for r in (a, b))
    stationary = np.asarray(dp.policy_iteration(tau, b, gamma=gamma).policy)
    whole = float(dp.expected_return(tau, b, stationary, start, gamma=gamma))
    policies, values = np.empty((horizon, *paid_b.shape)), np.zeros(len(start))
    for left in range(horizon):
        q = paid_b + gamma * tau @ values
        policies[horizon - 1 - left], values = dp.greedy_policy(q), q.max(-1)
    same = np.broadcast_to(stationary, policies.shape)
    within = _truncated(same, paid_b, tau, start, gamma)
    unaware, aware = (_truncated(p, paid_a, tau, start, gamma) for p in (same, policies))
    best = float(dp.policy_iteration(tau, a, gamma=gamma).values @ start)
    worst = -float(dp.policy_iteration(tau, -a, gamma=gamma).values @ start)
    late = abs(whole - within) / abs(whole) if abs(whole) > 1e-12 else 0.0
    moved = (aware - unaware) / (best - worst) if best - worst > 1e-12 else 0.0
    text = (
        f"with {horizon} steps per episode, {percent(late)} of the designed return of its optimal policy would come "
        f"after the limit, and planning for the limit changes the task return by {percent(moved)} of its range"
    )
    return Finding("time limit", late > 0.05 or abs(moved) > 0.05, text, {"after the limit": late, "change": moved})


def _truncated(policies: np.ndarray, paid: np.ndarray, tau: np.ndarray, start: np.ndarray, gamma: float) -> float:
    """Return within the time limit of one policy per step, ``[H, S, A]``."""
    total, at, discount = 0.0, start, 1.0
    for policy in policies:
        pairs = at[:, None] * policy
        total += discount * float((pairs * paid).sum())
        at, discount = np.einsum("sa,sat->t", pairs, tau), discount * gamma
        if discount < 1e-12:
            break
    return total


def _witness(worst: WorstCase, model: Tabular, horizon: int) -> dict[str, Any]:
    """Episodes of the two witness policies from the likeliest start."""
    first = int(model.initial.argmax())
    paths = [sample_path(policy, model.transition, first, min(horizon, 200)) for policy in worst.policies]
    return {
        "better_states": paths[0],
        "states": paths[1],
        "returns_task": worst.returns_a,
        "returns_designed": worst.returns_b,
    }
