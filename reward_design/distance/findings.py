"""What an audit finds: sentences with the numbers behind them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One check.

    Attributes:
        check: name of the check.
        concern: whether it speaks against the design.
        text: what was found, in plain words, with its numbers.
        evidence: the numbers by name.
    """

    check: str
    concern: bool
    text: str
    evidence: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Audit:
    """Whether a design is still the task.

    Attributes:
        task: name of the task.
        reward: name of the design.
        exact: True if all figures are exact (tabular tasks), False if they are estimates from samples.
        verdict: plain words with the decisive numbers.
        findings: every check, those of concern first.
        distance: STARC distance in [0, 2].
        interval: ``(low, high)`` of the distance; twice the distance if exact.
        shares: parts of the difference, see :func:`reward_design.distance.decompose_difference`.
        worst_regret: worst-case regret; from samples, the worst pair of policies that was found.
        witness: what is needed to show the witness episode: ``states``, ``better_states`` (tabular) or ``policy``,
            ``better_policy`` (parameters of linear policies).
        loop: the best loop without task progress, or None.
        model: the exact model that was used, or None.
        unreachable: states that were left out, by index.
    """

    task: str
    reward: str
    exact: bool
    verdict: str
    findings: tuple[Finding, ...]
    distance: float
    interval: tuple[float, float]
    shares: Mapping[str, float]
    worst_regret: float
    witness: Mapping[str, Any]
    loop: Any = None
    model: Any = None
    unreachable: tuple[int, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.reward} on {self.task}: {self.verdict}"]
        return "\n".join([*lines, *(f"{'!' if f.concern else '-'} {f.check}: {f.text}" for f in self.findings)])


def percent(share: float | int) -> str:
    """``12.3 %``, ``0 %`` for rounding errors."""
    return f"{100 * share:.3g} %" if abs(share) >= 1e-8 else "0 %"


def tidy(value: float | int, scale: float | int = 1.0) -> str:
    """Four digits, ``0`` for rounding errors of numbers of size ``scale``."""
    return f"{value:.4g}" if abs(value) > 1e-9 * abs(scale) else "0"


def component_findings(
    paid: Mapping[str, float], constant: Mapping[str, bool], where: str, *, same_task: bool, sampled: bool = False
) -> list[Finding]:
    """Terms that make up more than 90 % of what is paid, and terms that never vary.

    Args:
        paid: discounted sum of the absolute values of each term.
        constant: whether the term is the same on all transitions.
        where: which policy the sums belong to.
        same_task: whether the design is equivalent to the task, so that a large term does no harm.
        sampled: whether ``constant`` was seen on samples only.
    """
    total = sum(paid.values())
    shares = {name: size / total if total else 0.0 for name, size in paid.items()}
    found = []
    if len(shares) > 1 and total:
        top = max(shares, key=lambda name: shares[name])
        listed = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
        text = f"shares of the absolute return {where}: {listed}"
        drowned = f"; {top} drowns the others" if shares[top] > 0.9 else ""
        found.append(Finding("components", shares[top] > 0.9 and not same_task, text + drowned, shares))
    still = [name for name, flat in constant.items() if flat]
    if still:
        seen = "transition of the samples" if sampled else "transition that can happen"
        text = f"{', '.join(still)}: the same on every {seen}, so no behaviour is told from another"
        found.append(Finding("saturation", not same_task, text, dict.fromkeys(still, 1.0)))
    return found


def gamma_finding(reward: Any, gamma: float) -> Finding:
    """Parts of a reward that discount with another gamma than the task."""
    from reward_design.describe import walk

    other = {
        path: float(part.settings["gamma"])
        for path, part in walk(reward)
        if isinstance(part.settings.get("gamma"), (int, float)) and abs(part.settings["gamma"] - gamma) > 1e-12
    }
    if not other:
        text = f"no part discounts with another gamma than the task's {gamma:g}"
        return Finding("gamma", False, text, {"gamma": gamma})
    listed = ", ".join(f"{path} with {value:g}" for path, value in other.items())
    return Finding("gamma", True, f"discounts otherwise than the task ({gamma:g}): {listed}", {"gamma": gamma, **other})


def distance_finding(distance: float, interval: tuple[float, float], same: float, how: str) -> Finding:
    """The distance in words; below ``same`` it counts as 0."""
    spread = "" if interval[0] == interval[1] else f" (95 % interval {interval[0]:.3g} to {interval[1]:.3g})"
    text = f"{distance:.3g}{spread} on a scale where 0 orders all policies alike and 2 in opposite ways; {how}"
    return Finding("distance", distance > same, text, {"distance": distance, "low": interval[0], "high": interval[1]})


def shares_finding(scale: float, shares: Mapping[str, float], distance: float, *, same: bool = False) -> Finding:
    """The parts of the difference in words; of no concern if the rewards are known to be the ``same`` task."""
    listed = ", ".join(f"{name} {percent(share)}" for name, share in shares.items())
    pays = f"the design pays {scale:.3g} times what the task pays"
    if scale == 0:
        pays = f"the design pays {'against' if distance > 2**0.5 else 'nothing of'} what the task pays for"
    text = f"{pays}, plus a difference that is {listed}"
    return Finding("parts of the difference", not same, text, {"factor": scale, **shares})
