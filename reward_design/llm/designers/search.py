"""``design``: search for a reward with a language model, in rounds, resumable at every step."""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reward_design import envs
from reward_design._names import suggestion
from reward_design.agents import recipes
from reward_design.agents.settings import at_least
from reward_design.core import Reward
from reward_design.experiments.comparison import seed_numbers
from reward_design.experiments.provenance import provenance
from reward_design.experiments.store import FILE, Store
from reward_design.llm.budget import LIMITS, Budget, BudgetExceeded, Usage
from reward_design.llm.build import MIN_ISOLATION, check_limits
from reward_design.llm.cache import Cache
from reward_design.llm.designers import page
from reward_design.llm.designers import rounds as one_round
from reward_design.llm.designers.candidates import Candidate, best
from reward_design.llm.designers.drivers import actor, driven
from reward_design.llm.designers.journal import Journal
from reward_design.llm.designers.presets import PRESETS
from reward_design.llm.designers.session import EMBEDDED, Parts, Session
from reward_design.llm.files import save_reward
from reward_design.llm.isolation import Isolation
from reward_design.llm.models import ChatModel, chat_model
from reward_design.llm.outcomes import ModelError
from reward_design.llm.schemas import Message

BEST = "best.reward"
"""The file of the best reward, in the folder of a search."""
AUDITS = ("exact", "sampled", "none")


@dataclass(frozen=True, eq=False)
class DesignResult:
    """What a search found.

    Attributes:
        best: the fittest candidate, None if none was trained.
        reward: its reward.
        path: its file, for ``--reward`` and :func:`reward_design.llm.load_reward`.
        candidates: all of them, refused ones included, in order.
        stopped: why the search ended before its last round, empty if it did not.
        used: calls, tokens and money of the model, in all sessions.
        folder: where everything lies.
    """

    best: Candidate | None
    reward: Reward | None
    path: Path | None
    candidates: tuple[Candidate, ...]
    stopped: str
    used: Usage
    folder: Path


@dataclass(frozen=True)
class Event:
    """What ``on_progress`` gets.

    Attributes:
        kind: ``"round"``, ``"ask"``, ``"refused"``, ``"runs"``, ``"train"``, ``"trained"`` or ``"stopped"``.
        text: a line for people.
        best: the fittest candidate so far.
        used: of the model so far.
    """

    kind: str
    text: str
    best: Candidate | None
    used: Usage


def design(
    task: envs.Task | str,
    *,
    model: str | ChatModel | Callable[[list[Message]], str] = "embedded",
    preset: str | Parts = "eureka",
    language: str | None = None,
    rounds: int = 3,
    candidates: int | None = None,
    budget: Budget | None = None,
    seeds: int | Sequence[int] = 3,
    steps: int | None = None,
    agent: str = "ppo",
    driver: str = "rl",
    config: Mapping[str, Any] | None = None,
    seed: int = 0,
    audits: str = "exact",
    time_limit: float = 10.0,
    min_isolation: Isolation = MIN_ISOLATION,
    judge: Any = None,
    out: str | os.PathLike[str] = "results/design",
    overwrite: bool = False,
    on_progress: Callable[[Event], None] | None = None,
    command: str | None = None,
) -> DesignResult:
    """Search for a reward: propose, check, critique, train, reflect, select, round after round.

    Candidates never run as Python in this process, see :func:`reward_design.llm.build_reward`. Those of a round train
    together, every one with the same seeds, and are judged by the success and the return of the task's own reward. No
    round is lost: candidates are drawn until enough of them run, or the budget ends.

    Every step is written to ``out`` as soon as it is done. A search that was interrupted or killed goes on where it was
    with the same call, and neither asks nor trains again for what is there; ``rounds`` and ``budget`` may be larger
    then. With a budget that ends, or a model that fails, the search keeps what it has and says so in ``stopped``.

    Args:
        task: to design for, or its name.
        model: for :func:`reward_design.llm.chat_model`, or made by it. Answers are kept in ``out/answers``.
        preset: a name in :data:`PRESETS`, or parts of your own.
        language: ``"terms"`` or ``"code"``; by default that of the preset, but ``"terms"`` for the embedded model where
            the preset can do it.
        rounds: how many.
        candidates: executable candidates of a round; by default that of the preset.
        budget: hard limits for the model; by default those it came with, or 20 calls for each candidate that is wanted.
        seeds: a number n for seeds 0 to n - 1 of training, or the seeds.
        steps: environment steps of each run; by default what suits the task.
        agent: name of the agent.
        driver: what acts on a candidate: ``"rl"``: the agent learns from it; ``"mpc"``: predictive sampling plans with
            it on a MuJoCo task, an episode for each seed, and nothing is learned.
        config: settings of the agent, or of the planner
            (:class:`reward_design.agents.predictive_sampling.Config`), to override by name.
        seed: of all that is drawn: parents, random terms, random actions.
        audits: which candidates get a distance and an audit: ``"exact"`` on tabular tasks, ``"sampled"`` on all,
            ``"none"``.
        time_limit: seconds of wall-clock time for the checks of a candidate; more on a machine that is busy.
        min_isolation: lowest isolation behind which a candidate in the language ``code`` may run.
        judge: in place of the task's own success, for presets that ask. ``"icpl"`` calls it with
            ``(session, round, candidates)`` for the ids of the best and the worst; ``"revolve"`` calls its ``compare``
            with the same for judgements of pairs (:class:`reward_design.llm.designers.elo.Comparison`), which become
            Elo ratings. A :class:`reward_design.llm.designers.person.Person` can do both, a
            :class:`reward_design.llm.designers.elo.Proxy` the second.
        out: folder.
        overwrite: delete what ``out`` holds of another search.
        on_progress: called with every :class:`Event`.
        command: how to run this again, for the report.

    Returns:
        A :class:`DesignResult`.

    Raises:
        ValueError: for an unknown preset or language, settings that do not fit, or a folder of another search.
        CandidateRefused: if the language is ``code`` and this machine isolates less than ``min_isolation``; nothing was
            asked then.
        TypeError: for planning on a task that MuJoCo does not simulate, or a judge that cannot do what it is asked for.
        ImportError: if the extra of the model is missing.

    Example:
        >>> import json, tempfile
        >>> term = {"factor": "distance", "shape": "exp", "direction": "decrease", "weight": 1, "scale": 1}
        >>> found = design("chain", model=lambda messages: json.dumps({"terms": [term]}), language="terms", rounds=1,
        ...                candidates=1, seeds=1, steps=256, config={"num_envs": 4, "num_steps": 32}, audits="none",
        ...                out=tempfile.mkdtemp())
        >>> found.best.id, found.path.name
        ('0.0', 'best.reward')
    """
    made = envs.task(task) if isinstance(task, str) else task
    parts = driven(_parts(preset), driver)
    _check(parts, rounds, candidates, audits, language)
    _check_judge(parts, judge)
    check_limits(time_limit, min_isolation)
    spoken = language or _language(parts, model)
    learner, settings = actor(made, driver, agent, steps, config)
    runs = seed_numbers(seeds)
    wanted = candidates or parts.candidates
    folder = Path(out)
    limits = budget or _own_budget(model) or Budget(calls=20 * rounds * wanted)
    chat = _model(model, parts, folder, _with_earlier(limits, folder, overwrite))
    identity = {
        "task": made.name, "task_settings": recipes.recipe_of(made.env), "preset": parts.name, "language": spoken,
        "model": chat.name if chat else None, "candidates": wanted, "seeds": list(runs), "agent": learner.name,
        "config": recipes.plain_settings(settings), "seed": seed, "audits": audits,
    }  # fmt: skip
    with Store(folder, identity, overwrite=overwrite) as store:
        session = Session(
            made, parts, spoken, chat, Journal(store), folder, learner, settings, runs, wanted, seed=seed,
            audits=audits, judge=judge, films=getattr(judge, "film", None), time_limit=time_limit,
            min_isolation=Isolation(min_isolation),
        )  # fmt: skip
        session.tell = _teller(session, on_progress)
        command = command or f"design({made.name!r}, preset={parts.name!r})"
        session.journal.note("session", command=command, **provenance())
        stopped = _search(session, rounds)
        return _result(session, stopped)


# --- parts ----------------------------------------------------------------------------------------------------------


def _search(session: Session, rounds: int) -> str:
    """All rounds; why it stopped before the last one, or an empty string."""
    for number in range(rounds):
        try:
            one_round.play(session, number)
        except (BudgetExceeded, ModelError) as stop:
            session.tell("stopped", str(stop))
            session.journal.note("stopped", reason=str(stop), round=number)
            return str(stop)
    return ""


def _result(session: Session, stopped: str) -> DesignResult:
    found = best(session.candidates.values())
    used = session.model.budget.used if session.model is not None else Usage()
    reward, path = None, None
    if found is not None:
        reward = session.reward(found)
        path = save_reward(session.folder / BEST, reward)
    session.journal.note("candidates", value=[c.record() for c in session.candidates.values()])
    session.journal.note("end", best=found.id if found else None, stopped=stopped)
    page.write(session.folder)
    return DesignResult(found, reward, path, tuple(session.candidates.values()), stopped, used, session.folder)


def _parts(preset: str | Parts) -> Parts:
    if isinstance(preset, Parts):
        return preset
    if preset not in PRESETS:
        raise ValueError(f"unknown preset {preset!r}{suggestion(preset, PRESETS)} Presets: {', '.join(PRESETS)}.")
    return PRESETS[preset]


def _check(parts: Parts, rounds: int, candidates: int | None, audits: str, language: str | None) -> None:
    given = dataclasses.make_dataclass("given", ["rounds", "candidates"])(rounds, candidates)
    at_least(given, 1, "rounds", "candidates")
    if audits not in AUDITS:
        raise ValueError(f"audits must be one of {', '.join(AUDITS)}, got {audits!r}.")
    if language is not None and language not in parts.languages:
        known = " and ".join(parts.languages)
        raise ValueError(f"preset {parts.name!r} works with {known}, got language={language!r}.")


def _check_judge(parts: Parts, judge: Any) -> None:
    if judge is not None and not parts.asks:
        asking = " and ".join(p.name for p in PRESETS.values() if p.asks)
        raise ValueError(f"preset {parts.name!r} asks no judge, got one; leave it out, or use {asking}.")
    able = {"": True, "ends": callable(judge), "pairs": callable(getattr(judge, "compare", None))}
    if judge is not None and not able[parts.asks]:
        need = {"ends": "can be called", "pairs": "has a method compare"}[parts.asks]
        raise TypeError(
            f"preset {parts.name!r} needs a judge that {need} with (session, round, candidates), got "
            f"{type(judge).__name__}; a Person can do it."
        )


def _language(parts: Parts, model: Any) -> str:
    """Small local models write terms where they may, others what the preset was published with."""
    small = model == "embedded" or (isinstance(model, ChatModel) and model.name.startswith(EMBEDDED))
    return "terms" if small and "terms" in parts.languages else parts.language


def _own_budget(model: Any) -> Budget | None:
    """The budget that a model came with, if it limits anything."""
    if not isinstance(model, ChatModel):
        return None
    return model.budget if any(getattr(model.budget, name) is not None for name in LIMITS) else None


def _model(
    model: str | ChatModel | Callable[[list[Message]], str], parts: Parts, folder: Path, budget: Budget
) -> ChatModel | None:
    if not parts.uses_model:
        return None
    if isinstance(model, ChatModel):
        cache = model.cache or Cache(folder / "answers")
        mode = "record" if model.cache is None else model.mode
        return dataclasses.replace(model, budget=budget, cache=cache, mode=mode)
    if isinstance(model, str):
        return chat_model(model, cache=folder / "answers", budget=budget)
    name = str(getattr(model, "__name__", type(model).__name__))
    return chat_model(model, cache=folder / "answers", budget=budget, name=name)


def _with_earlier(budget: Budget, folder: Path, overwrite: bool) -> Budget:
    """The limits with what earlier sessions of this folder used."""
    if overwrite or not (folder / FILE).is_file():
        return budget
    from reward_design.experiments.store import StoreError, read

    with contextlib.suppress(StoreError):
        used = [r["value"]["used"] for r in read(folder) if r["kind"] == "answer"]
        if used and budget.used == Usage():
            known = used[-1]
            spent = Usage(int(known["calls"]), int(known["tokens"]), float(known["money"]), float(known["seconds"]))
            return dataclasses.replace(budget, used=spent)
    return budget


def _teller(session: Session, on_progress: Callable[[Event], None] | None) -> Callable[[str, str], None]:
    def tell(kind: str, text: str) -> None:
        if on_progress is not None:
            used = session.model.budget.used if session.model is not None else Usage()
            on_progress(Event(kind, text, best(session.candidates.values()), used))

    return tell
