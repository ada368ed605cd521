"""``audit``: is a designed reward still the task, and if not, what is wrong with it?"""

from reward_design.core import Kind, Reward
from reward_design.distance.audit_exact import audit_exact
from reward_design.distance.audit_sampled import audit_sampled
from reward_design.distance.findings import Audit
from reward_design.distance.scoring import check_learned
from reward_design.envs import exact
from reward_design.envs.base import Task

MAX_STATES = 1000
"""Larger models are sampled: the linear programmes would take minutes."""


def audit(
    task: Task,
    reward: Reward,
    *,
    gamma: float | None = None,
    num_samples: int = 4000,
    population: int = 32,
    seed: int = 0,
) -> Audit:
    """Compare a designed reward with the task's own, and look for the known mistakes.

    Exact on tabular tasks and rewards of kind POINTWISE: distance, parts of the difference, worst-case regret with the
    two policies that show it, the best loop without task progress, component shares, gamma, potentials that do not
    vanish in terminal states, and what the time limit changes. Elsewhere the distance and the parts are estimated from
    samples, and a short policy search stands for the worst case and the loops: what it finds is real, what it does not
    find may still be there. Every verdict comes with its numbers.

    Args:
        task: the task; ``task.true_reward`` is what counts.
        reward: the design, of kind POINTWISE or CAUSAL.
        gamma: discount per step, by default the task's; below 1.
        num_samples: samples where the task is not tabular.
        population: policies per generation of the search.
        seed: of samples and search.

    Returns:
        An :class:`Audit`; ``print`` it, or write it as a page with :func:`reward_design.experiments.audit_page.write`.

    Raises:
        TypeError: for a reward of kind TRAJECTORY, with the reason.
        ValueError: for a gamma of 1, rewards that are not finite, or one that still learns.

    Example:
        >>> import reward_design as rd
        >>> from reward_design.envs import task
        >>> chain = task("chain")
        >>> shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(chain.potential, gamma=chain.gamma))
        >>> audit(chain, shaped).verdict.split(":")[0]
        'Still the task'
    """
    if reward.kind is Kind.TRAJECTORY:
        raise TypeError(
            f"{reward.name!r} has kind TRAJECTORY: what it pays depends on steps that follow, so no state makes it a "
            "function of one transition, and it has no distance; audit the reward that it redistributes."
        )
    check_learned(reward)
    discount = task.gamma if gamma is None else gamma
    exact.check_discount(discount)
    if reward.kind is Kind.POINTWISE and task.true_reward.kind is Kind.POINTWISE and is_tabular(task):
        return audit_exact(task, reward, discount)
    return audit_sampled(task, reward, discount, num_samples=num_samples, population=population, seed=seed)


def is_tabular(task: Task) -> bool:
    """Whether a task has exact dynamics that are small enough."""
    try:
        return len(task.tabular().terminal) <= MAX_STATES
    except TypeError:
        return False
