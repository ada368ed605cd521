"""What candidates are asked for with, one function per published system: ``(session, round, draw) -> Prompt``."""

from typing import Any

from reward_design.llm.designers import reflection
from reward_design.llm.designers.candidates import Candidate
from reward_design.llm.designers.prompts import render
from reward_design.llm.designers.selection import Islands
from reward_design.llm.designers.session import Prompt, Session, message


def eureka(session: Session, number: int, draw: int) -> Prompt:
    """The task; from the second round on also the parent and the reflection on it, which replaces earlier ones."""
    parent: Candidate | None = session.memory
    if parent is None or parent.statistics is None:
        return Prompt(tuple(session.opening()), "task")
    text = render(
        "reflection", table=reflection.component_table(parent.statistics), judgement=reflection.judgement(parent),
        tips=reflection.tips(parent.statistics), answer=session.answer,
    )  # fmt: skip
    return _after(session, parent, text, "reflection")


def auto_mc_reward(session: Session, number: int, draw: int) -> Prompt:
    """The task and the rule of signs; from the second round on the parent and what the analyser says of its failures.

    The analyser gets the statistics of all episodes beside a few compressed ones.
    """
    extra, parent = render("signs"), session.memory
    if parent is None or parent.statistics is None:
        return Prompt(tuple(session.opening(extra=extra)), "signs")
    failures = reflection.failure_report(parent.statistics)
    asked = [
        message("system", render("analyser_system")),
        message(
            "user",
            render("analyser", description=session.description, source=parent.source, failures=failures),
        ),
    ]
    analysis = session.ask(asked, template="analyser")[0]
    text = render(
        "analysis", analysis=analysis.strip(), failures=failures, judgement=reflection.judgement(parent),
        answer=session.answer,
    )  # fmt: skip
    return _after(session, parent, text, "analysis", extra=extra)


def critic(session: Session, candidate: Candidate) -> str | None:
    """What the critic has against a candidate, None if it accepts; an answer without a verdict accepts."""
    asked = [
        message("system", render("critic_system", contract=f"{session.contract}\n\n{render('signs')}")),
        message("user", render("critic", description=session.description, source=candidate.source)),
    ]
    text = session.ask(asked, template="critic")[0].strip()
    verdict = text.splitlines()[-1] if text else ""
    return text if "REJECT" in verdict.upper() else None


def language_to_rewards(session: Session, number: int, draw: int) -> Prompt:
    """The descriptor says in words what should happen, the coder turns that into terms and sees nothing else."""
    parent: Candidate | None = session.memory
    feedback = ""
    if parent is not None and parent.statistics is not None:
        table = reflection.component_table(parent.statistics)
        feedback = f"{parent.source}\n{table}\n{reflection.failure_report(parent.statistics, num_traces=1)}"
    asked = [
        message("system", render("descriptor_system")),
        message("user", render("descriptor", description=session.description, feedback=feedback)),
    ]
    behaviour = session.ask(asked, template="descriptor", first=draw)
    if draw not in behaviour:
        return Prompt(tuple(session.opening()), "task")
    messages = session.opening("coder", behaviour=behaviour[draw].strip())
    return Prompt(tuple(messages), "coder", (parent.id,) if parent else (), "mutation" if parent else "new")


def in_context_preferences(session: Session, number: int, draw: int) -> Prompt:
    """ICPL: the best and the worst of the last round, their traces, and what changed; no score of the task."""
    if session.memory is None:
        return Prompt(tuple(session.opening()), "task")
    best, worst, earlier = session.memory
    values = reflection.best_and_worst(best, worst, earlier)
    opening = session.opening()
    opening[-1]["content"] += "\n\n" + render("icpl", answer=session.answer, **values)
    return Prompt(tuple(opening), "icpl", (best.id, worst.id), "mutation")


def card(session: Session, number: int, draw: int) -> Prompt:
    """CARD: the last candidate with process and trajectory feedback, or preference feedback if the gate held it."""
    parent: Candidate | None = session.memory
    if parent is None:
        return Prompt(tuple(session.opening()), "task")
    held = parent.refusal.reason if parent.refusal is not None else ""
    found = parent.statistics
    if found is None and not held:
        return Prompt(tuple(session.opening()), "task")
    process = "" if found is None else reflection.process(found)
    shown = "" if found is None else "\n\n".join([*found.traces[:1], *found.traces[1:][-1:]])
    text = render("card", preference=held, process=process, trajectories=shown, answer=session.answer)
    return _after(session, parent, text, "card")


def revolve(session: Session, number: int, draw: int) -> Prompt:
    """REvolve: crossover of two parents or mutation of one, from an island drawn for this child.

    Beside the traces of the parents stands what a person said about them in words, where one did.
    """
    islands: Islands | None = session.memory
    if islands is None:
        return Prompt(tuple(session.opening()), "task")
    _, ids = islands.parents(session.rng("island", number, draw))
    parents = [session.candidates[name] for name in ids]
    if not parents:
        return Prompt(tuple(session.opening()), "task")
    shown = [{"source": p.source.strip(), "table": _table(p), "feedback": p.feedback} for p in parents]
    crossed = len(parents) == 2
    values: dict[str, Any] = {"parents": shown} if crossed else {"parent": shown[0]}
    name = "crossover" if crossed else "mutation"
    return Prompt(tuple(session.opening(name, **values)), name, ids, name)


def _table(candidate: Candidate) -> str:
    assert candidate.statistics is not None
    return reflection.component_table(candidate.statistics)


def _after(session: Session, parent: Candidate, text: str, template: str, *, extra: str = "") -> Prompt:
    """The opening, the parent as the model's own answer, and what is said about it."""
    source = parent.source.strip()
    spoken = source if session.language == "terms" else f"```python\n{source}\n```"
    messages = [*session.opening(extra=extra), message("assistant", spoken), message("user", text)]
    return Prompt(tuple(messages), template, (parent.id,), "mutation")
