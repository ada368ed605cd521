"""A person as the judge of ICPL and REvolve: clips of the candidates, compared in pairs on a local page."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reward_design.agents.policies import Planner
from reward_design.agents.settings import at_least
from reward_design.llm.designers.candidates import Candidate
from reward_design.llm.designers.elo import Comparison
from reward_design.llm.designers.journal import digest
from reward_design.llm.designers.planning import Planning
from reward_design.llm.designers.session import Session
from reward_design.llm.designers.training import Training
from reward_design.preferences import PreferencePage, Questionnaire, record_clips
from reward_design.preferences.clips import Clip
from reward_design.preferences.person import ANSWERS, Given

LENGTH = 60
"""Steps of a clip, at most."""


class Person:
    """A judge who watches pairs of candidates: one is preferred most often (ICPL), or all get ratings (REvolve).

    For ratings the page also has room for words about each clip; the model reads those about the parents of a child.

    Films are made right after training and kept in ``clips``, answers in ``judge-<round>.jsonl`` or, for ratings,
    ``pairs-<round>-<candidates>.jsonl``: a restart goes on with the questions that are left.

    Args:
        console: where the address of the page is printed.
        open_browser: whether to open it.
        wait: called with the page until it is answered; by default waits for ever.
        num_questions: pairs of a round, drawn at random; all of them by default.

    Raises:
        ValueError: for no question.
    """

    def __init__(
        self,
        console: Any = None,
        *,
        open_browser: bool = True,
        wait: Callable[[PreferencePage], Any] | None = None,
        num_questions: int | None = None,
    ) -> None:
        self.console, self.open_browser, self.num_questions = console, open_browser, num_questions
        at_least(self, 1, "num_questions")
        self.wait = wait or (lambda page: page.wait())

    def __call__(self, session: Session, number: int, candidates: list[Candidate]) -> tuple[str, str] | None:
        """The best and the worst of a round, None if nothing was preferred."""
        return best_and_worst(candidates, self._asked(session, number, candidates, f"judge-{number}.jsonl", False))

    def compare(self, session: Session, number: int, candidates: list[Candidate]) -> list[Comparison]:
        """What was said about pairs of candidates, in order; questions that were skipped are left out."""
        name = f"pairs-{number}-{digest([c.id for c in candidates])[:8]}.jsonl"
        return comparisons(candidates, self._asked(session, number, candidates, name, True))

    def _asked(self, session: Session, number: int, candidates: list[Candidate], name: str, words: bool) -> list[Given]:
        clips = [Clip((), _frames(session, candidate)) for candidate in candidates]  # type: ignore[arg-type]
        pairs = len(clips) * (len(clips) - 1) // 2
        num = min(pairs, self.num_questions or pairs)
        questions = Questionnaire(clips, num_questions=num, out=session.folder / name, seed=session.seed)
        title = f"Round {number}: which one does better? {session.task.description}"
        with PreferencePage(questions, title=title, open_browser=self.open_browser, words=words) as page:
            if self.console is not None:
                self.console.print(f"Choose on {page.url}", highlight=False, markup=False, soft_wrap=True)
            self.wait(page)
        return questions.given

    def film(self, session: Session, candidate: Candidate, training: Training | Planning) -> None:
        """Keep a clip of the policy of the first seed."""
        env = session.task.make(render_mode="rgb_array")
        length, policy = min(LENGTH, session.task.horizon), training.policy(candidate.id)
        if isinstance(policy, Planner):
            policy.attach(env)
        try:
            (clip,) = record_clips(env, policy, num_clips=1, length=length, seed=session.seed)
        finally:
            env.close()
        file = _file(session, candidate)
        file.parent.mkdir(parents=True, exist_ok=True)
        draft = file.with_suffix(".part")
        with draft.open("wb") as stream:
            np.savez_compressed(stream, frames=np.stack(clip.frames))
        draft.replace(file)


def comparisons(candidates: Sequence[Candidate], given: Sequence[Given]) -> list[Comparison]:
    """Answers about clips as judgements of candidates; a skipped question says nothing.

    Example:
        >>> two = [Candidate(f"0.{i}", "", "terms", 0) for i in range(2)]
        >>> comparisons(two, [Given(1, 0, "first", 1.0), Given(0, 1, "skip", 1.0)])
        [Comparison(first='0.1', second='0.0', score=1.0, words=('', ''))]
    """
    said = [(g, ANSWERS[g.answer]) for g in given]
    return [Comparison(candidates[g.first].id, candidates[g.second].id, v, g.words) for g, v in said if v is not None]


def best_and_worst(candidates: Sequence[Candidate], given: Sequence[Given]) -> tuple[str, str] | None:
    """The candidates that were preferred most and least often; ties by order, None if nothing was preferred.

    Example:
        >>> three = [Candidate(f"0.{i}", "", "terms", 0) for i in range(3)]
        >>> best_and_worst(three, [Given(0, 1, "second", 1.0), Given(1, 2, "first", 1.0), Given(0, 2, "first", 1.0)])
        ('0.1', '0.2')
    """
    wins = [0.0] * len(candidates)
    for said in given:
        value = ANSWERS[said.answer]
        if value is not None:
            wins[said.first] += value
            wins[said.second] += 1.0 - value
    if len(set(wins)) < 2:
        return None
    order = sorted(range(len(candidates)), key=lambda i: wins[i])
    top = max(range(len(candidates)), key=lambda i: (wins[i], -i))
    return candidates[top].id, candidates[order[0]].id


def _file(session: Session, candidate: Candidate) -> Path:
    return session.folder / "clips" / f"{candidate.id}.npz"


def _frames(session: Session, candidate: Candidate) -> list[np.ndarray]:
    with np.load(_file(session, candidate)) as arrays:
        return list(arrays["frames"])
