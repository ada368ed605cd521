"""The published systems as presets of one loop, and the control."""

from typing import Any

from reward_design.llm.designers import gate, proposals, random_search, selection
from reward_design.llm.designers.answers import sign_scaled
from reward_design.llm.designers.candidates import Candidate, Refusal, best
from reward_design.llm.designers.elo import Comparison, elo, unit
from reward_design.llm.designers.episodes import trace
from reward_design.llm.designers.evaluation import train_all, train_by_d3rb
from reward_design.llm.designers.journal import digest
from reward_design.llm.designers.reflection import preference_report
from reward_design.llm.designers.selection import Ends, Islands, IslandSettings, Member, empty_islands
from reward_design.llm.designers.session import Parts, Session

BOTH = ("code", "terms")
THRESHOLD = 0.8
"""Accuracy that CARD's gate asks for."""


def greedy(session: Session, number: int, candidates: list[Candidate]) -> Candidate | None:
    """The fittest of the round, or the parent that it had."""
    return selection.greedy(candidates, session.memory)


def best_so_far(session: Session, number: int, candidates: list[Candidate]) -> Candidate | None:
    """The fittest of all rounds."""
    return best(session.candidates.values())


def ends(session: Session, number: int, candidates: list[Candidate]) -> Any:
    """``(best, worst, earlier best ones)`` by the judge, or by the task's own success where there is none."""
    before = session.memory
    earlier = () if before is None else (*before[2], before[0])
    found = _judged(session, number, [c for c in candidates if c.trained])
    return before if found is None else (found.best, found.worst, earlier)


def _judged(session: Session, number: int, trained: list[Candidate]) -> Ends | None:
    if session.judge is None or len(trained) < 2:
        return selection.ends(trained)
    judge = session.judge
    chosen = session.journal.once("judge", str(number), lambda: judge(session, number, trained))
    if chosen is None:
        return selection.ends(trained)
    return Ends(session.candidates[chosen[0]], session.candidates[chosen[1]])


def latest(session: Session, number: int, candidates: list[Candidate]) -> Candidate | None:
    """CARD keeps the latest only: the fittest of the round, or the one that the gate came closest to accept."""
    if any(c.trained for c in candidates):
        return selection.greedy(candidates, session.memory)
    held = [c for c in candidates if c.accuracy is not None]
    return max(held, key=lambda c: c.accuracy or 0.0) if held else session.memory


def islands(session: Session, number: int, candidates: list[Candidate]) -> Islands:
    """Children join the islands that they came from; then the weaker half may start anew.

    Scores are success rates, or, where a judge compares pairs, all ratings so far on [0, 1].
    """
    found: Islands = session.memory or empty_islands(IslandSettings())
    trained = [c for c in candidates if c.trained]
    scores = {c.id: c.fitness.success for c in trained} if session.judge is None else _rated(session, number, trained)
    found = found.rescored(scores)
    for candidate in trained:
        draw = int(candidate.id.partition(".")[2])
        home, _ = found.parents(session.rng("island", number, draw))
        found = found.insert(home, Member(candidate.id, scores[candidate.id]))
    return found.after_generation(session.rng("reset", number))


def _rated(session: Session, number: int, trained: list[Candidate]) -> dict[str, float]:
    """Elo on [0, 1] of all candidates that were judged so far, children of this round included.

    The best of earlier rounds is judged among the children: without it, ratings of two rounds would not be comparable.
    """
    judge: Any = session.judge
    earlier = [c for c in session.candidates.values() if c.rating is not None and c.round < number]
    shown = [*trained, *sorted(earlier, key=lambda c: -(c.rating or 0.0))[:1]]
    step = f"{number}/{digest([c.id for c in shown])[:8]}"
    if len(shown) > 1:
        session.journal.once("pairs", step, lambda: [list(pair) for pair in judge.compare(session, number, shown)])
    pairs = [v for name, v in session.journal.values("pairs").items() if int(name.partition("/")[0]) < number]
    pairs += [session.journal.value("pairs", step)] if len(shown) > 1 else []
    said = [Comparison(*pair) for some in pairs for pair in some if session.candidates.keys() >= set(pair[:2])]
    ratings = elo(said, [c.id for c in (*earlier, *trained)])
    for name, rating in ratings.items():
        words = [text for one in said for who, text in zip(one[:2], one.words) if who == name and text]
        session.update(session.candidates[name].with_(rating=round(rating, 2), feedback=tuple(words)))
    return unit(ratings)


def preference_gate(session: Session, candidate: Candidate) -> Refusal | None:
    """CARD's gate on the recorded episodes."""
    value = session.journal.once("gate", candidate.id, lambda: _preference(session, candidate))
    session.update(candidate.with_(accuracy=value["accuracy"]))
    if value["accuracy"] >= THRESHOLD:
        return None
    return Refusal("preference", preference_report(value))


def _preference(session: Session, candidate: Candidate) -> dict[str, Any]:
    episodes = session.episodes()
    found = gate.preference_of(session.task, session.reward(candidate), episodes)
    shown = {}
    if found.accuracy < THRESHOLD:
        assert found.weakest_success is not None
        assert found.strongest_failure is not None
        shown["weakest_success"] = trace(session.task, episodes, found.weakest_success)
        shown["strongest_failure"] = trace(session.task, episodes, found.strongest_failure)
    numbers = {"accuracy": found.accuracy, "successes": found.successes, "failures": found.failures}
    return numbers | shown


PRESETS: dict[str, Parts] = {
    parts.name: parts
    for parts in (
        Parts(
            "eureka", "K samples a round, the fittest with a reflection on its components starts the next one",
            "code", BOTH, proposals.eureka, train_all, greedy,
        ),
        Parts(
            "auto-mc-reward", "designer, critic and analyser of failures; signs of sparse and dense parts, with memory",
            "code", ("code",), proposals.auto_mc_reward, train_all, greedy, critique=proposals.critic,
            finish=sign_scaled, candidates=1, repairs=3,
        ),
        Parts(
            "l2r", "a descriptor says what should happen, a coder turns it into weighted terms",
            "terms", ("terms",), proposals.language_to_rewards, train_all, best_so_far, candidates=1,
        ),
        Parts(
            "icpl", "six executable candidates, the best and the worst by a judge, their traces and differences",
            "code", BOTH, proposals.in_context_preferences, train_all, ends, candidates=6, asks="ends",
        ),
        Parts(
            "card", "rewards that rank recorded failures above successes are sent back before any training",
            "code", BOTH, proposals.card, train_all, latest, gate=preference_gate, candidates=1, repairs=3,
        ),
        Parts(
            "orso", "as eureka, with training in slices by regret balancing (D3RB), and new sets in place of poor ones",
            "code", BOTH, proposals.eureka, train_by_d3rb, best_so_far, candidates=8,
        ),
        Parts(
            "revolve", "five islands, crossover and mutation, resets of the weaker half",
            "code", BOTH, proposals.revolve, train_all, islands, candidates=15, asks="pairs",
        ),
        Parts(
            "random", "random terms without a model: the control",
            "terms", ("terms",), random_search.propose, train_all, best_so_far, uses_model=False,
        ),
    )
}  # fmt: skip
"""The presets by name."""
