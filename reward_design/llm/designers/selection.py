"""Which candidates the next round is made from: the fittest, the best and the worst, or islands that cross over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from reward_design.llm.designers.candidates import Candidate


class Ends(NamedTuple):
    """Both ends of a ranking."""

    best: Candidate
    worst: Candidate


def greedy(candidates: Sequence[Candidate], parent: Candidate | None) -> Candidate | None:
    """Eureka's rule: the fittest of the round becomes the parent of the next.

    Args:
        candidates: of the round.
        parent: of the round, kept where no candidate was trained.

    Returns:
        The next parent, None where there never was one.

    Source: Ma et al., "Eureka", ICLR 2024, arXiv 2310.12931.
    """
    trained = [c for c in candidates if c.trained]
    return max(trained, key=lambda c: c.fitness) if trained else parent


def ends(candidates: Sequence[Candidate]) -> Ends | None:
    """ICPL's rule: the best and the worst by fitness; None with fewer than two trained candidates.

    Source: Yu et al., "In-Context Preference Learning", 2024, arXiv 2410.17233.
    """
    trained = [c for c in candidates if c.trained]
    if len(trained) < 2:
        return None
    ordered = sorted(trained, key=lambda c: c.fitness)
    return Ends(ordered[-1], ordered[0])


# --- islands --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class IslandSettings:
    """Settings of :class:`Islands`; the defaults are REvolve's.

    Attributes:
        num_islands: populations that evolve apart.
        capacity: members of an island; the least fit leaves.
        crossover: probability that a child has two parents.
        reset: probability per generation that the weaker half of the islands starts anew.
    """

    num_islands: int = 5
    capacity: int = 8
    crossover: float = 0.5
    reset: float = 0.3

    def __post_init__(self) -> None:
        if self.num_islands < 1 or self.capacity < 1:
            raise ValueError(
                f"num_islands and capacity must be at least 1, got {self.num_islands} and {self.capacity}."
            )
        for name in ("crossover", "reset"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}.")


class Member(NamedTuple):
    """A candidate on an island."""

    id: str
    score: float


@dataclass(frozen=True)
class Islands:
    """Populations of REvolve, without change in place.

    Attributes:
        settings: numbers.
        members: of each island.

    Source: Hazra et al., "REvolve: Reward Evolution with Large Language Models using Human Feedback", ICLR 2025,
    arXiv 2406.01309.

    Example:
        >>> islands = empty_islands(IslandSettings(num_islands=2))
        >>> islands = islands.insert(0, Member("a", 0.5)).insert(0, Member("b", 0.2))
        >>> [m.id for m in islands.members[0]]  # b is below the mean of its island
        ['a']
    """

    settings: IslandSettings
    members: tuple[tuple[Member, ...], ...]

    def parents(self, rng: np.random.Generator) -> tuple[int, tuple[str, ...]]:
        """The island of a child, and its parents there: none on an empty island, two for a crossover.

        Parents are drawn with P(i) ∝ exp(score_i), without replacement.
        """
        island = int(rng.integers(len(self.members)))
        crossed = rng.random() < self.settings.crossover
        members = self.members[island]
        if not members:
            return island, ()
        num = 2 if crossed and len(members) > 1 else 1
        chosen = rng.choice(len(members), size=num, replace=False, p=softmax([m.score for m in members]))
        return island, tuple(members[int(i)].id for i in chosen)

    def insert(self, island: int, member: Member) -> "Islands":
        """Take a child in if it reaches the mean of its island; the least fit leaves a full one."""
        old = self.members[island]
        if old and member.score < np.mean([m.score for m in old]):
            return self
        kept = sorted((*old, member), key=lambda m: -m.score)[: self.settings.capacity]
        return self._with({island: tuple(kept)})

    def rescored(self, scores: Mapping[str, float]) -> "Islands":
        """The same members with new scores, where there are any: ratings change with every judgement."""
        new = [[Member(m.id, scores.get(m.id, m.score)) for m in island] for island in self.members]
        return replace(self, members=tuple(tuple(sorted(island, key=lambda m: -m.score)) for island in new))

    def after_generation(self, rng: np.random.Generator) -> "Islands":
        """With probability ``reset`` the weaker half keeps its best member each, and gets a founder of a stronger one.

        Islands are ordered by the mean score of their members, empty ones last; of an odd number the smaller half is
        reset. A founder is drawn uniformly from a strong island drawn uniformly.
        """
        if rng.random() >= self.settings.reset or len(self.members) < 2:
            return self
        means = [float(np.mean([m.score for m in island])) if island else -np.inf for island in self.members]
        order = np.argsort(means, kind="stable")
        weak, strong = order[: len(order) // 2], [int(i) for i in order[len(order) // 2 :] if self.members[i]]
        if not strong:
            return self
        changed = {}
        for island in map(int, weak):
            source = self.members[strong[int(rng.integers(len(strong)))]]
            founder = source[int(rng.integers(len(source)))]
            own = sorted(self.members[island], key=lambda m: -m.score)[:1]
            changed[island] = tuple(sorted({founder, *own}, key=lambda m: -m.score))
        return self._with(changed)

    def _with(self, changed: dict[int, tuple[Member, ...]]) -> "Islands":
        return replace(self, members=tuple(changed.get(i, m) for i, m in enumerate(self.members)))


def empty_islands(settings: IslandSettings) -> Islands:
    """Islands without members."""
    return Islands(settings, ((),) * settings.num_islands)


def softmax(scores: Sequence[float]) -> np.ndarray:
    """exp(x_i) / Σ exp(x_j); −∞ gets 0 unless all are.

    Example:
        >>> softmax([0.0, 0.0, float("-inf")]).tolist()
        [0.5, 0.5, 0.0]
    """
    values = np.asarray(scores, float)
    if not np.isfinite(values).any():
        return np.full(len(values), 1 / len(values))
    weights = np.exp(values - values.max())
    return weights / weights.sum()
