"""One round of a search: draw until enough candidates run, then gate, train and select."""

from typing import Any

from reward_design.llm.budget import BudgetExceeded
from reward_design.llm.build import check_many
from reward_design.llm.designers.answers import source_of
from reward_design.llm.designers.candidates import Candidate, Refusal, place
from reward_design.llm.designers.prompts import render
from reward_design.llm.designers.session import Prompt, Session, message
from reward_design.llm.outcomes import ModelError
from reward_design.llm.refusal import CandidateRefused

ENDS = (BudgetExceeded, ModelError)
"""What ends a search, after what runs has been trained."""
PATIENCE = 10
"""Draws of a set of candidates, times the candidates that are wanted; then it goes on with those that run."""


def play(session: Session, number: int) -> None:
    """One round, with as many sets of candidates as its evaluation asks for; what is in the journal is not done again.

    Raises:
        BudgetExceeded: at a hard limit of the model. Candidates that run by then are trained before.
        ModelError: if the model fails for good, in the same way.
    """
    session.tell("round", f"round {number}")
    more = True
    while more:
        running, stop = _until_enough(session, number)
        for candidate in running:
            refusal = session.parts.gate(session, candidate) if session.parts.gate else None
            if refusal is not None:
                session.update(session.candidates[candidate.id].with_(refusal=refusal))
                session.tell("refused", f"{candidate.id}: {refusal.stage}")
        open_ = [session.candidates[c.id] for c in running if session.candidates[c.id].refusal is None]
        more = session.parts.evaluate(session, number, open_)
        session.memory = session.parts.select(session, number, _of_round(session, number))
        if stop is not None:
            raise stop


def _of_round(session: Session, number: int) -> list[Candidate]:
    return [c for c in session.candidates.values() if c.round == number]


def _until_enough(session: Session, number: int) -> tuple[list[Candidate], Exception | None]:
    """A set of candidates that passed all checks, and what ended the drawing before there were enough."""
    running: list[Candidate] = []
    first = 1 + max((place(c.id)[1] for c in _of_round(session, number)), default=-1)
    try:
        for candidate in _drawn(session, number, first):
            running.append(candidate)
    except ENDS as error:  # a limit, or a model that is gone: train what there is, then say so
        return running, error
    return running, None


def _drawn(session: Session, number: int, first: int) -> Any:
    """Candidates that passed all checks, one after the other, until there are enough; draws are numbered from there."""
    draw, running = first, 0
    wanted = session.num_candidates
    end = first + PATIENCE * wanted
    while running < wanted and draw < end:
        count = min(wanted - running, end - draw)
        prompts = [session.parts.propose(session, number, draw + i) for i in range(count)]
        drawn, stop = _answered(session, number, draw, prompts)
        for candidate in _checked(session, drawn):
            if candidate.refusal is None:
                running += 1
                yield candidate
        if stop is not None:
            raise stop
        draw += count


def _answered(
    session: Session, number: int, draw: int, prompts: list[Prompt]
) -> tuple[list[tuple[Candidate, Prompt]], Exception | None]:
    """A candidate per answer, and what ended the asking before its time; equal prompts in a row are one request."""
    found, start, stop = [], 0, None
    while start < len(prompts) and stop is None:
        prompt, end = prompts[start], start + 1
        while end < len(prompts) and prompts[end] == prompt:
            end += 1
        if prompt.source is not None:
            texts = {draw + start: prompt.source}
            end = start + 1
        else:
            try:
                texts = session.ask(
                    prompt.messages, template=prompt.template, samples=end - start, first=draw + start,
                    schema=session.schema(),
                )  # fmt: skip
            except ENDS as error:
                texts, stop = session.last, error
        found += [(_candidate(session, number, sample, prompt, text), prompt) for sample, text in texts.items()]
        start = end
    return found, stop


def _candidate(session: Session, number: int, draw: int, prompt: Prompt, text: str) -> Candidate:
    source = text if prompt.source is not None else source_of(text, session.language)
    candidate = Candidate(
        f"{number}.{draw}", source or text, session.language, number, prompt.parents, prompt.origin,
        refusal=None if source else Refusal("answer", f"The answer holds no reward. {session.answer}"),
    )  # fmt: skip
    return session.update(candidate)


def _checked(session: Session, drawn: list[tuple[Candidate, Prompt]]) -> list[Candidate]:
    """Critic and checks, with as many repairs as the preset has; those that need the sandbox go there together."""
    try:
        _until_they_run(session, drawn)
    except ENDS as error:
        for candidate in (session.candidates[c.id] for c, _ in drawn):
            if candidate.refusal is None and candidate.id not in session.passed_checks:
                session.update(candidate.with_(refusal=Refusal("budget", f"Not checked to its end: {error}")))
    found = [session.candidates[c.id] for c, _ in drawn]
    for candidate in found:
        refused = candidate.refusal
        session.tell("refused" if refused else "runs", f"{candidate.id}: {refused.stage if refused else 'runs'}")
    return found


def _until_they_run(session: Session, todo: list[tuple[Candidate, Prompt]]) -> None:
    for attempt in range(session.parts.repairs + 1):
        todo = [(_criticised(session, c, attempt) if c.refusal is None else c, p) for c, p in todo]
        todo = [(_not_twice(session, c, attempt), p) for c, p in todo]
        _through_checks(session, [c for c, _ in todo if c.refusal is None], attempt)
        failed = [(session.candidates[c.id], p) for c, p in todo if session.candidates[c.id].refusal is not None]
        if not failed or attempt == session.parts.repairs:
            return
        for candidate, prompt in failed:
            _repaired(session, candidate, prompt, attempt)
        todo = [(session.candidates[c.id], p) for c, p in failed]


def _criticised(session: Session, candidate: Candidate, attempt: int) -> Candidate:
    remarks = session.parts.critique(session, candidate) if session.parts.critique else None
    if remarks is None:
        return candidate
    refusal = Refusal("critic", remarks)
    return session.update(candidate.with_(remarks=(*candidate.remarks, remarks), refusal=refusal))


def _not_twice(session: Session, candidate: Candidate, attempt: int) -> Candidate:
    """Refuse what is already there: training it again would cost and tell nothing."""
    if candidate.refusal is not None:
        return candidate
    same = [c.id for c in session.candidates.values() if c.digest == candidate.digest and c.id != candidate.id]
    earlier = [name for name in same if place(name) < place(candidate.id)]
    if not earlier:
        return candidate
    refusal = Refusal("duplicate", f"This is the same reward as candidate {earlier[0]}; write a different one.")
    return session.update(candidate.with_(refusal=refusal))


def _through_checks(session: Session, candidates: list[Candidate], attempt: int) -> None:
    """Lint, sandbox and verifier, in parallel."""
    mark = {c.id: f"{c.id}/{attempt}" for c in candidates}
    new = [c for c in candidates if not session.journal.known("checked", mark[c.id])]
    checked = check_many(
        [session.parts.finish(c.source) for c in new], session.task, language=session.language,
        time_limit=session.time_limit, min_isolation=session.min_isolation,
    )  # fmt: skip
    for candidate, found in zip(new, checked, strict=True):
        if isinstance(found, CandidateRefused):
            value = {"stage": found.stage, "reason": found.reason}
        else:
            session.passed(candidate, found)
            value = None
        session.journal.put("checked", mark[candidate.id], value)
    for candidate in candidates:
        value = session.journal.value("checked", mark[candidate.id])
        session.update(candidate.with_(refusal=Refusal(**value) if value else None))
        if value is None:
            session.passed_checks.add(candidate.id)


def _repaired(session: Session, candidate: Candidate, prompt: Prompt, attempt: int) -> None:
    """Send a refused candidate back with the reason; what comes is checked as the same candidate."""
    refusal = candidate.refusal
    if refusal is None or prompt.source is not None:
        return
    if refusal.stage == "critic":
        template, text = "remarks", render("remarks", remarks=refusal.reason, answer=session.answer)
    else:
        template, text = "refused", render("refused", reason=refusal.reason, answer=session.answer)
    spoken = candidate.source if session.language == "terms" else f"```python\n{candidate.source.strip()}\n```"
    messages = [*prompt.messages, message("assistant", spoken), message("user", text)]
    answer = session.ask(messages, template=template, first=attempt, schema=session.schema())[attempt]
    source = source_of(answer, session.language)
    session.update(
        candidate.with_(
            source=source or answer,
            repairs=candidate.repairs + 1,
            refusal=None if source else Refusal("answer", f"The answer holds no reward. {session.answer}"),
        )
    )
