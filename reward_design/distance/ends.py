"""What samples tell about the end of episodes: potentials that do not vanish there, and the time limit.

Source of the first: potential-based shaping of episodes keeps the order of policies only if the potential is 0 where
the episode terminates, Grzes, "Reward Shaping in Episodic Reinforcement Learning", AAMAS 2017.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from reward_design.core import Kind, Reward
from reward_design.distance.findings import Finding, percent, tidy
from reward_design.distance.policy_search import Searched
from reward_design.distance.sampled import shared_features
from reward_design.distance.samples import Samples
from reward_design.distance.scoring import Sampled, scores
from reward_design.envs.base import Task

_EXPLAINED = 1e-4
"""Share of a design's size that may be left of it, once it is explained: rewards come in single precision."""


def potential_at_ends(
    reward_a: Sampled,
    reward_b: Sampled,
    samples: Samples,
    *,
    gamma: float,
    features: Callable[[Any], Any] | None = None,
    potentials: Sequence[Callable[[Any], Any]] = (),
) -> np.ndarray | None:
    """Values of a shaping potential on terminating steps, if forgetting to set it to 0 there is what B does.

    B is fitted twice by least squares, on A and on γ Φ(s') - Φ(s) with Φ in the span of the features: with Φ(s') = 0
    where the step terminates, as it should be, and without. If only the second explains B, its Φ(s') is returned.

    Args:
        reward_a: the task's reward, as in :func:`reward_design.distance.sampled_starc`.
        reward_b: the design.
        samples: one batch.
        gamma: discount per step, in [0, 1).
        features: as in :func:`reward_design.distance.sampled_distances`.
        potentials: as in :func:`reward_design.distance.sampled_distances`.

    Returns:
        ``[E]`` Φ(s') of the terminating steps, or None.
    """
    if not samples.terminated.any() or samples.terminated.all():
        return None
    a, b = (scores(reward, samples) for reward in (reward_a, reward_b))
    here, after = shared_features([reward_a, reward_b], samples, features, potentials)
    task, target, left = a.mean(1), b.mean(1), []
    for kept in (~samples.terminated[..., None], 1.0):
        shaping = (gamma * after * kept - here[:, None]).mean(1)
        theta, rest = _fitted(shaping, task, target)
        left.append(np.linalg.norm(rest))
    noise = _EXPLAINED * np.linalg.norm(target)
    if left[1] > noise or left[0] <= 10 * noise:
        return None
    return after[samples.terminated] @ theta


def _fitted(shaping: np.ndarray, task: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """θ and what is left; the factor of the task is 1 where shaping can imitate the task, so that none can be told."""
    imitated = np.linalg.lstsq(shaping, task, rcond=None)[0]
    free = np.linalg.norm(task - shaping @ imitated) > 1e-6 * np.linalg.norm(task)
    fit, right = (np.column_stack([shaping, task]), target) if free else (shaping, target - task)
    theta = np.linalg.lstsq(fit, right, rcond=None)[0]
    return theta[: shaping.shape[1]], right - fit @ theta


def end_finding(task: Task, reward: Reward, samples: Samples, gamma: float, potentials: Sequence[Any]) -> Finding:
    """A potential that does not vanish at the end; else what terminating steps pay beside others, and to the task."""
    if not samples.terminated.any() or samples.terminated.all():
        return Finding("terminal steps", False, "no terminating steps to compare with others in these samples")
    phi = potential_at_ends(task.true_reward, reward, samples, gamma=gamma, potentials=potentials)
    if phi is not None:
        text = (
            f"every step is potential shaping with a potential that is {phi.mean():.4g} on average where the episode "
            "terminates, not 0, so ending it is paid or fined (a constant paid on each step does the same); set the "
            "potential to 0 there"
        )
        return Finding("terminal potential", True, text, {"potential at the end": float(phi.mean())})
    gaps = []
    for one in (task.true_reward, reward):
        values = scores(one, samples)
        gaps.append(float(values[samples.terminated].mean() - values[~samples.terminated].mean()))
    text = (
        "no potential that fails to vanish at the end explains the design; a terminating step pays "
        f"{tidy(gaps[1])} more than others on average (the task: {tidy(gaps[0])})"
    )
    flipped = gaps[0] * gaps[1] < 0 and abs(gaps[1]) > 1e-6
    return Finding("terminal steps", flipped, text, {"design": gaps[1], "task": gaps[0]})


def time_limit_finding(reward: Reward, samples: Samples, tried: Searched, task: Task) -> list[Finding]:
    """Whether half the time would have the design prefer another policy, and whether it pays for the cut itself."""
    top, early = int(tried.designed.argmax()), int(tried.designed_early.argmax())
    spread = float(np.ptp(tried.task))
    change = float((tried.task[early] - tried.task[top]) / spread) if spread else 0.0
    whole = tried.designed[top]
    late = float(abs(whole - tried.designed_early[top]) / abs(whole)) if abs(whole) > 1e-12 else 0.0
    limit = f" (the limit is {task.horizon})" if task.horizon else " (there is no limit)"
    limit = "" if task.horizon == tried.steps else limit
    other = (
        f"another policy of the search would be paid best, worth {percent(abs(change))} of the range of task returns "
        f"{'more' if change > 0 else 'less'}"
        if abs(change) > 0
        else "it is still the policy that is paid best"
    )
    text = (
        f"{percent(late)} of what the best-paid policy of the search gets comes in the second half of {tried.steps} "
        f"steps{limit}; with half the time {other}"
    )
    found = [Finding("time limit", abs(change) > 0.05, text, {"second half": late, "change": change})]
    cut = _paid_for_the_cut(reward, samples)
    if cut > 0:
        says = f"a step that the time limit cuts is paid up to {tidy(cut)} otherwise than the same step without the cut"
        found.append(Finding("time limit", True, says, {"paid for the cut": cut}))
    return found


def _paid_for_the_cut(reward: Reward, samples: Samples) -> float:
    """Largest change of what a pointwise reward pays if a step that does not terminate is cut by the time limit."""
    if reward.kind is not Kind.POINTWISE:
        return 0.0
    rows = jax.tree.map(lambda x: x[~samples.terminated.reshape(-1)], samples.transitions())
    params, state = reward.init(jax.random.key(0), rows)
    paid = [
        np.asarray(reward.step(params, state, rows._replace(truncated=cut))[0].reward)  # pyright: ignore
        for cut in (rows.mask, ~rows.mask)
    ]
    apart = np.abs(paid[0] - paid[1]).max(initial=0.0)
    return float(apart) if apart > 1e-6 * np.abs(paid[1]).max(initial=0.0) else 0.0
