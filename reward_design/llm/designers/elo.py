"""Elo: ratings of candidates from judgements of pairs, and a judge who knows the task in place of a person."""

from collections.abc import Iterable, Mapping
from itertools import combinations
from typing import NamedTuple

from reward_design.agents.settings import at_least
from reward_design.llm.designers.candidates import Candidate
from reward_design.llm.designers.session import Session

START = 1500.0
"""Rating of a candidate that was never compared."""
FACTOR = 32.0
"""The most that one judgement moves a rating."""
SCALE = 400.0
"""Difference of ratings that stands for odds of ten to one."""


class Comparison(NamedTuple):
    """A judgement of two candidates.

    Attributes:
        first: id of one.
        second: id of the other.
        score: 1 if the first is better, 0 if the second is, ½ if neither.
        words: what was said about the first and about the second, for the model that improves on them.
    """

    first: str
    second: str
    score: float | int
    words: tuple[str, str] = ("", "")


def expected(first: float | int, second: float | int) -> float:
    """The score that the first of two ratings expects: 1 / (1 + 10^((r_second − r_first) / 400)).

    Example:
        >>> expected(1500, 1500), round(expected(1900, 1500), 4)
        (0.5, 0.9091)
    """
    return 1.0 / (1.0 + 10.0 ** ((second - first) / SCALE))


def elo(
    comparisons: Iterable[Comparison], ids: Iterable[str] = (), *, factor: float | int = FACTOR
) -> dict[str, float]:
    """Ratings after judgements, in their order: r_a ← r_a + K (s − E_a), r_b ← r_b − K (s − E_a).

    What one gains the other loses, so the mean stays 1500. The order matters a little: a judgement late in the list
    meets ratings that know more.

    Args:
        comparisons: first to last.
        ids: of candidates that need a rating even if they were never compared.
        factor: K, above 0.

    Returns:
        Rating by id.

    Raises:
        ValueError: for a factor that is not positive, a score outside [0, 1], or a candidate compared with itself.

    Source: Elo, "The Rating of Chessplayers, Past and Present", 1978; as fitness: Hazra et al., "REvolve", ICLR 2025,
    arXiv 2406.01309 (start 1500, K = 32).

    Example:
        >>> elo([Comparison("a", "b", 1.0)], ["c"])
        {'c': 1500.0, 'a': 1516.0, 'b': 1484.0}
    """
    if factor <= 0:
        raise ValueError(f"factor must be above 0, got {factor}.")
    ratings = dict.fromkeys(ids, START)
    for first, second, score, *_ in comparisons:
        if first == second or not 0 <= score <= 1:
            raise ValueError(f"expected two candidates and a score in [0, 1], got {first!r}, {second!r} and {score}.")
        one, two = ratings.setdefault(first, START), ratings.setdefault(second, START)
        change = factor * (score - expected(one, two))
        ratings[first], ratings[second] = one + change, two - change
    return ratings


def unit(ratings: Mapping[str, float]) -> dict[str, float]:
    """Ratings on [0, 1], the worst at 0 and the best at 1; ½ for all of them where all are equal.

    Example:
        >>> unit({"a": 1516.0, "b": 1484.0, "c": 1500.0})
        {'a': 1.0, 'b': 0.0, 'c': 0.5}
    """
    low, high = min(ratings.values(), default=0.0), max(ratings.values(), default=0.0)
    return {name: (value - low) / (high - low) if high > low else 0.5 for name, value in ratings.items()}


class Proxy:
    """A judge of pairs who knows how candidates did in the task, in place of a person.

    Args:
        num_questions: pairs of a round, drawn at random; all of them by default.
        error: probability of the opposite answer.

    Raises:
        ValueError: for no question, or an error that is no probability.

    Example:
        >>> Proxy(error=2.0)
        Traceback (most recent call last):
        ValueError: error must be in [0, 1], got 2.0.
    """

    def __init__(self, num_questions: int | None = None, *, error: float | int = 0.0) -> None:
        self.num_questions, self.error = num_questions, error
        at_least(self, 1, "num_questions")
        if not 0.0 <= error <= 1.0:
            raise ValueError(f"error must be in [0, 1], got {error}.")

    def compare(self, session: Session, number: int, candidates: list[Candidate]) -> list[Comparison]:
        """Judgements of pairs of candidates, by success and then by true return."""
        rng = session.rng("proxy", number)
        pairs = list(combinations(candidates, 2))
        order = rng.permutation(len(pairs))[: self.num_questions]
        return [self._judged(*pairs[int(i)], wrong=rng.random() < self.error) for i in order]

    def _judged(self, one: Candidate, two: Candidate, *, wrong: bool) -> Comparison:
        score = 0.5 if one.fitness == two.fitness else float(one.fitness > two.fitness)
        return Comparison(one.id, two.id, 1.0 - score if wrong else score)
