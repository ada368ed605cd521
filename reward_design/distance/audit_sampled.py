"""The checks of an audit where dynamics can only be sampled."""

from typing import Any

import jax
import numpy as np

from reward_design.core import Kind, Reward, Transition
from reward_design.distance.ends import end_finding, time_limit_finding
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
from reward_design.distance.policy_search import Searched, num_outputs, rollouts, search
from reward_design.distance.sampled import SampledDistance, sampled_parts, sampled_starc
from reward_design.distance.samples import Samples, recorded_samples, sample_functional
from reward_design.distance.samples_mujoco import sample_mujoco
from reward_design.envs.base import MissingPotentialError, Task
from reward_design.envs.host import HostEnv

MAX_ROUNDS = 20
"""Rounds of rollouts of which the recorded samples are gathered, where episodes are short."""
SAME = 1e-4
"""Sampled distances below count as 0: rewards of the environment come in single precision."""
NEARLY_OPPOSITE = 1.9
"""Distances above are of rewards whose canonical forms correlate by less than -0.8."""


def audit_sampled(
    task: Task, reward: Reward, gamma: float, *, num_samples: int, population: int, seed: int
) -> Audit:  # fmt: skip
    """The audit of a design on a task without exact dynamics, or of a design with memory."""
    steps = min(task.horizon or 200, 200)
    samples = draw(task, reward, num_samples=num_samples, steps=steps, seed=seed)
    potentials = known_potentials(task, samples)
    found = sampled_starc(  # least squares, as a few samples of a continuous task do not pin down LSTD's values
        task.true_reward, reward, samples, gamma=gamma, canonicalisation="minimal_weighted", potentials=potentials,
        seed=seed,
    )  # fmt: skip
    scale, shares = sampled_parts(task.true_reward, reward, samples, gamma=gamma, potentials=potentials)
    tried = search(
        task, reward, samples.obs, gamma=gamma, population=population, generations=4, steps=steps, seed=seed
    )  # fmt: skip
    regret, better, worse = worst_pair(tried)
    same = found.distance <= SAME
    findings = [
        distance_finding(found.distance, (found.low, found.high), SAME, f"{samples.num_samples} samples"),
        Finding("what samples can tell", False, samples.guarantees, {"num_next": samples.num_next}),
        _span_finding(found),
        shares_finding(scale, shares, found.distance, same=same),
        _worst_finding(tried, regret, better, worse),
        _exploit_finding(tried, same),
        *_term_findings(reward, samples, tried, same),
        gamma_finding(reward, gamma),
        end_finding(task, reward, samples, gamma, potentials),
        *time_limit_finding(reward, samples, tried, task),
    ]
    witness = {
        "policy": tried.weights[worse], "better_policy": tried.weights[better], "act": tried.act, "steps": steps,
        "returns_task": (float(tried.task[better]), float(tried.task[worse])),
        "returns_designed": (float(tried.designed[better]), float(tried.designed[worse])),
    }  # fmt: skip
    return Audit(
        task.name, reward.name, False, _verdict(found, shares, regret, findings),
        tuple(sorted(findings, key=lambda f: not f.concern)), found.distance, (found.low, found.high), shares, regret,
        witness,
    )  # fmt: skip


def draw(task: Task, reward: Reward, *, num_samples: int, steps: int, seed: int) -> Samples:
    """The best samples that a task gives: set back where it can be, else (and for memory) recorded rollouts."""
    causal = Kind.CAUSAL in (reward.kind, task.true_reward.kind)
    if not causal and not isinstance(task.env, HostEnv):
        return sample_functional(task, num_samples=num_samples, num_next=2, seed=seed)
    if not causal and task.name.startswith(("mujoco/", "gymnasium/")):
        try:
            return sample_mujoco(task, num_samples=num_samples, seed=seed)
        except TypeError:  # not a MuJoCo environment
            pass
    lanes = max(8, -(-num_samples // steps))
    rng = np.random.default_rng(seed)
    random = rng.normal(size=(lanes, _size(task) + 1, num_outputs(task.env.action_space)))
    noise = lambda weights, obs: _uniform(rng, task.env.action_space, len(weights))  # noqa: E731
    rows = [rollouts(task, noise, random, steps=steps, seed=seed)]
    while sum(int(np.sum(part.mask)) for part in rows) < num_samples and len(rows) < MAX_ROUNDS:
        rows.append(rollouts(task, noise, random, steps=steps, seed=seed + len(rows)))
    return recorded_samples(jax.tree.map(lambda *parts: np.concatenate(parts, axis=1), *rows))


def worst_pair(tried: Searched) -> tuple[float, int, int]:
    """Largest loss of task return, as a share of its range, between policies of which the design prefers the worse."""
    order = np.argsort(tried.designed, kind="stable")
    best_so_far = order[0]
    spread = float(np.ptp(tried.task))
    found = (0.0, int(order[-1]), int(order[-1]))
    for index in order[1:]:
        loss = tried.task[best_so_far] - tried.task[index]
        if spread > 0 and loss / spread > found[0]:
            found = float(loss / spread), int(best_so_far), int(index)
        if tried.task[index] > tried.task[best_so_far]:
            best_so_far = index
    return found


# --- findings -------------------------------------------------------------------------------------------------------


def _verdict(found: SampledDistance, shares: Any, regret: float, findings: list[Finding]) -> str:
    spread = f"(95 % interval {found.low:.3g} to {found.high:.3g})"
    if found.trivial[0]:
        known = f"the part of the difference that is neither scale nor shaping is {percent(shares['residual'])}"
        return (
            "Not settled: on these samples the task itself cannot be told from one that is indifferent to all policies "
            f"(random actions may never reach what it pays for), so the distance says nothing; {known}."
        )
    if found.trivial[1]:
        return f"No task: on these samples the design cannot be told from one that is indifferent {spread}."
    if found.distance <= SAME:
        return f"Still the task, as far as samples tell: distance {found.distance:.1g} {spread}."
    shown = f"distance {found.distance:.3g} of 2 {spread}; among the policies tried, one that it prefers loses "
    shown += f"{percent(regret)} of the range of task returns"
    if found.outside_span > 0.5:
        return (
            f"Not settled: {shown}, but {percent(found.outside_span)} of the difference looks like shaping by a "
            "potential outside the features; put the potential into the span."
        )
    others = [f.check for f in findings if f.concern and f.check not in ("distance", "parts of the difference")]
    also = f" See also: {', '.join(dict.fromkeys(others))}." if others else ""
    start = "Not the same task" if found.low > SAME else "Perhaps not the same task"
    start = "Close to the opposite of the task" if found.low > NEARLY_OPPOSITE else start
    return f"{start}: {shown}.{also}"


def _span_finding(found: SampledDistance) -> Finding:
    text = (
        f"{percent(found.outside_span)} of the squared difference is explained by potentials outside the span of "
        f"{found.num_features} features"
    )
    return Finding("shaping outside the span", found.outside_span > 0.5, text, {"share": found.outside_span})


def _worst_finding(tried: Searched, regret: float, better: int, worse: int) -> Finding:
    text = (
        f"{percent(regret)} of the range of task returns among {len(tried.task)} policies (a lower bound): the design "
        f"gives {tidy(tried.designed[worse])} to one worth {tidy(tried.task[worse])} to the task, and "
        f"{tidy(tried.designed[better])} to one worth {tidy(tried.task[better])}"
    )
    return Finding("worst case", regret > 0.05, text, {"regret": regret, "policies": len(tried.task)})


def _exploit_finding(tried: Searched, same: bool) -> Finding:
    """The policy that the design pays best, and how many others do more of the task."""
    top = int(tried.designed.argmax())
    above = float((tried.task > tried.task[top] + 1e-9 * np.abs(tried.task).max()).mean())
    text = (
        f"the policy that the design pays best in a short search ({tidy(tried.designed[top])}) is worth "
        f"{tidy(tried.task[top])} to the task: {percent(above)} of the {len(tried.task)} policies tried are worth more"
    )
    farms = above > 0.25 and not same
    return Finding("farming", farms, text + ("; it pays for something else" if farms else ""), {"share above": above})


def _term_findings(reward: Reward, samples: Samples, tried: Searched, same: bool) -> list[Finding]:
    top = int(tried.designed.argmax())
    paid = {name: float(values[top]) for name, values in tried.terms.items()}
    constant = {}
    if reward.kind is Kind.POINTWISE:
        rows = samples.transitions()
        params, state = reward.init(jax.random.key(0), rows)
        terms = reward.step(params, state, rows)[0].terms  # pyright: ignore[reportOptionalCall]
        constant = {
            name: bool(np.ptp(np.asarray(x)) <= 1e-6 * max(1e-12, np.abs(x).max())) for name, x in terms.items()
        }
    where = "of the best-paid policy of the search"
    return component_findings(paid, constant, where, same_task=same, sampled=True)


# --- parts ----------------------------------------------------------------------------------------------------------


def known_potentials(task: Task, samples: Samples) -> list[Any]:
    """The task's own potential, if it has one; an error in it is the reader's to see."""
    few = jax.tree.map(lambda x: np.asarray(x)[:2], samples.obs)
    try:
        task.potential(few)
    except MissingPotentialError:
        return []
    return [task.potential]


def _size(task: Task) -> int:
    example: Transition = task.example
    return sum(int(np.prod(np.shape(x)[1:])) for x in jax.tree.leaves(example.obs))


def _uniform(rng: np.random.Generator, space: Any, num: int) -> np.ndarray:
    if hasattr(space, "n"):
        return rng.integers(int(space.start), int(space.start + space.n), num).astype(np.int32)
    return rng.uniform(space.low, space.high, (num, *space.shape)).astype(space.dtype)
