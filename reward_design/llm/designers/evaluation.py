"""How the candidates of a round are judged: trained in full, in slices that a bandit hands out, or planned with."""

import math
from typing import Any

import numpy as np

from reward_design.llm.designers.bandits import Balancing, balancing
from reward_design.llm.designers.candidates import Candidate, Refusal, statistics_from
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


def train_by_d3rb(session: Session, number: int, candidates: list[Candidate]) -> None:
    """ORSO: slices of training go to the candidate that D3RB chooses; its utility is the success rate in the slice."""
    training = _training(session, number, candidates)
    if training is not None:
        total = session.config.num_updates
        slice_ = max(1, total // NUM_SLICES)
        plays = max(len(candidates), math.ceil(SHARE * len(candidates) * (total // slice_)))
        arms = _replayed(session, number, training, slice_)
        while int(arms.pulls.sum()) < plays:
            open_ = np.array([_open(training, c.id, slice_, total) for c in candidates])
            if not open_.any():
                break
            arm = arms.choose(session.rng("d3rb", number, int(arms.pulls.sum())), open_)
            name = candidates[arm].id
            training.advance([name], slice_)
            refused = name in training.refused
            score = 0.0 if refused else training.recent_success(name, slice_)
            session.journal.put("slice", f"{number}/{int(arms.pulls.sum())}", {"arm": arm, "score": score})
            arms = arms.played(arm, score)
            session.tell("train", f"slice {int(arms.pulls.sum())} of {plays} went to {name}: success {score:.0%}")
    _conclude(session, number, candidates, training)


def _open(training: Training, name: str, slice_: int, total: int) -> bool:
    return name not in training.refused and training.done[name] + slice_ <= total


def _replayed(session: Session, number: int, training: Training, slice_: int) -> Balancing:
    """The bandit after the slices that the checkpoint holds; a slice that was noted and not kept is played again."""
    arms = balancing(len(training.ids))
    for play in range(training.advances):
        if not session.journal.known("slice", f"{number}/{play}"):  # killed between checkpoint and note
            name = training.history[play][0]
            score = 0.0 if name in training.refused else training.recent_success(name, slice_)
            session.journal.put("slice", f"{number}/{play}", {"arm": training.ids.index(name), "score": score})
        value = session.journal.value("slice", f"{number}/{play}")
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
