"""How the candidates of a round are judged: trained in full, in slices that a bandit hands out, or planned with."""

import math
from typing import Any

import numpy as np

from reward_design.llm.designers.bandits import Balancing, balancing
from reward_design.llm.designers.candidates import Candidate, Refusal, place, statistics_from
from reward_design.llm.designers.journal import digest
from reward_design.llm.designers.planning import Planning
from reward_design.llm.designers.session import Session
from reward_design.llm.designers.training import Training

NUM_CHUNKS = 4
"""Checkpoints of a round that trains in full."""
NUM_SLICES = 10
"""Slices of a full training that ORSO hands out."""
SHARE = 0.5
"""Of the steps that training all candidates in full would take, what ORSO spends."""


def train_all(session: Session, number: int, candidates: list[Candidate]) -> None:
    """Train every candidate in full; what is in the journal is not trained again."""
    todo = [c for c in candidates if not session.journal.known("trained", c.id)]
    training = _training(session, number, todo, session.num_candidates)
    if training is not None:
        total = session.config.num_updates
        chunk = math.ceil(total / min(NUM_CHUNKS, total))
        while training.open and (left := min(chunk, total - max(training.done[n] for n in training.open))) > 0:
            training.advance(training.open, left)
            done = max(training.done.values())
            session.tell("train", f"{done * session.config.steps_per_update:,} steps of {len(todo)} candidates")
    _conclude(session, number, candidates, training)


def plan_all(session: Session, number: int, candidates: list[Candidate]) -> None:
    """Play with every candidate by predictive sampling instead of training; what is in the journal is there."""
    for candidate in candidates:
        planning = None
        if not session.journal.known("trained", candidate.id):
            session.tell("train", f"planning with {candidate.id}: {len(session.seeds)} episodes")
            reward = session.reward(candidate)
            planning = Planning(session.task, candidate.id, reward, session.config, session.seeds)
        _conclude(session, number, [candidate], planning)


def train_by_d3rb(session: Session, number: int, candidates: list[Candidate]) -> bool:
    """ORSO: slices of training go to the candidate that D3RB chooses; its utility is the success rate in the slice.

    A set of candidates that falls behind the best score of earlier ones (:meth:`Balancing.exhausted`), or of which none
    is left to train, ends before the slices of its round do; what is left goes to a new set.

    Returns:
        Whether the round goes on with a new set: this one is exhausted, and each new candidate can have a slice.
    """
    if not candidates:
        return False
    training = _training(session, number, candidates)
    value = session.journal.once("set", _set_name(number, candidates), lambda: _sliced(session, number, training))
    _conclude(session, number, candidates, training)
    return bool(value["exhausted"]) and int(value["left"]) >= session.num_candidates


def _sliced(session: Session, number: int, training: Training | None) -> dict[str, Any]:
    """Hand out slices until the round has none left or the set is exhausted."""
    assert training is not None
    ids, total = training.ids, session.config.num_updates
    slice_ = max(1, total // NUM_SLICES)
    spent, left = _before(session, number, ids[0])
    plays = left or max(len(ids), math.ceil(SHARE * len(ids) * (total // slice_)))
    best_score, arms = _best_score(session, number, spent), _replayed(session, number, training, slice_, spent)
    exhausted = False
    while int(arms.pulls.sum()) < plays and not exhausted:
        open_ = np.array([_open(training, name, slice_, total) for name in ids])
        exhausted = arms.exhausted(best_score, open_)
        if not exhausted:
            play = spent + int(arms.pulls.sum())
            arm = arms.choose(session.rng("d3rb", number, play), open_)
            training.advance([ids[arm]], slice_)
            score = _noted(session, training, f"{number}/{play}", arm, slice_)
            arms = arms.played(arm, score)
            text = f"slice {int(arms.pulls.sum())} of {plays} went to {ids[arm]}: success {score:.0%}"
            session.tell("train", text)
    done = int(arms.pulls.sum())
    if exhausted:
        session.tell(
            "train", f"{plays - done} slices are left, none for these {len(ids)} candidates: none is promising"
        )
    value = {"round": number, "first": ids[0], "spent": done, "left": plays - done, "exhausted": exhausted}
    return value | {"best": best_score if math.isfinite(best_score) else None}


def _set_name(number: int, candidates: list[Candidate]) -> str:
    return f"{number}/{digest([c.id for c in candidates])[:8]}"


def _before(session: Session, number: int, first: str) -> tuple[int, int]:
    """Slices that earlier sets of a round spent, and what they left; zeros for the first set."""
    sets = [v for v in session.journal.values("set").values() if v["round"] == number]
    earlier = sorted((v for v in sets if place(v["first"]) < place(first)), key=lambda v: place(v["first"]))
    return sum(int(v["spent"]) for v in earlier), int(earlier[-1]["left"]) if earlier else 0


def _best_score(session: Session, number: int, spent: int) -> float:
    """m*: the best score of a slice in earlier rounds, and in earlier sets of this one; −∞ without any."""
    slices = session.journal.values("slice").items()
    where = (number, spent)
    return max((float(v["score"]) for name, v in slices if tuple(map(int, name.split("/"))) < where), default=-math.inf)


def _open(training: Training, name: str, slice_: int, total: int) -> bool:
    return name not in training.refused and training.done[name] + slice_ <= total


def _noted(session: Session, training: Training, step: str, arm: int, slice_: int) -> float:
    """The score of the slice that an arm just had, and a note of it."""
    name = training.ids[arm]
    score = 0.0 if name in training.refused else training.recent_success(name, slice_)
    session.journal.put("slice", step, {"arm": arm, "score": score})
    return score


def _replayed(session: Session, number: int, training: Training, slice_: int, spent: int) -> Balancing:
    """The bandit after the slices that the checkpoint holds; a slice that was noted and not kept is played again."""
    arms = balancing(len(training.ids))
    for play in range(training.advances):
        step = f"{number}/{spent + play}"
        if not session.journal.known("slice", step):  # killed between checkpoint and note
            _noted(session, training, step, training.ids.index(training.history[play][0]), slice_)
        value = session.journal.value("slice", step)
        arms = arms.played(int(value["arm"]), float(value["score"]))
    return arms


def _training(session: Session, number: int, candidates: list[Candidate], width: int = 0) -> Training | None:
    """The training of a round, None if its results are known."""
    if not candidates or all(session.journal.known("trained", c.id) for c in candidates):
        return None
    rewards = {c.id: session.reward(c) for c in candidates}
    folder = session.folder / "training" / f"round-{number}-{digest(list(rewards))[:8]}"
    return Training(session.task, session.learner, session.config, rewards, session.seeds, folder, width=width)


def _conclude(session: Session, number: int, candidates: list[Candidate], training: Training | Planning | None) -> None:
    """Note what every candidate gave."""
    for candidate in candidates:

        def make(candidate: Candidate = candidate) -> dict[str, Any]:
            assert training is not None
            if candidate.id in training.refused:
                return {"refusal": vars(training.refused[candidate.id])}
            found, played = training.statistics(candidate.id, seed=session.seed)
            session.record(candidate, played)
            session.keep_clip(candidate, training)
            return {"statistics": vars(found)}

        value = session.journal.once("trained", candidate.id, make)
        if "refusal" in value:
            session.trained(candidate, Refusal(**value["refusal"]))
        else:
            session.judged(session.trained(candidate, statistics_from(value["statistics"])))
            session.tell("trained", _line(session.candidates[candidate.id]))


def _line(candidate: Candidate) -> str:
    fitness = candidate.fitness
    return f"{candidate.id}: success {fitness.success:.0%}, true return {fitness.true_return:.4g}"
