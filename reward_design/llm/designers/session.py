"""What the parts of a search share: the task, the model, the journal, the candidates so far."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax
import numpy as np

from reward_design.core import Reward, Transition
from reward_design.distance import audit
from reward_design.distance.audits import is_tabular
from reward_design.envs.base import Task
from reward_design.experiments.artifacts import hashes
from reward_design.experiments.evaluation import play_lanes
from reward_design.experiments.store import StoreError
from reward_design.llm.budget import BudgetExceeded
from reward_design.llm.build import MIN_ISOLATION
from reward_design.llm.checking import require_isolation
from reward_design.llm.describe import describe_task, reward_contract
from reward_design.llm.designers.candidates import Candidate, Refusal, Statistics
from reward_design.llm.designers.journal import Journal, digest
from reward_design.llm.designers.prompts import label, render
from reward_design.llm.designers.told import side_by_side
from reward_design.llm.files import load_reward, save_reward
from reward_design.llm.isolation import Isolation
from reward_design.llm.models import ChatModel
from reward_design.llm.outcomes import UNANSWERED, ModelError
from reward_design.llm.refusal import CandidateRefused
from reward_design.llm.schemas import Message
from reward_design.llm.terms import terms_schema

EMBEDDED = "SmolLM2"
"""How the name of the embedded model begins."""
MAX_TERMS = 4
"""Terms that the embedded model may write; longer lists it does not end."""
NUM_RANDOM = 32
"""Episodes of random actions with which the buffer of CARD's gate begins."""


@dataclass(frozen=True)
class Prompt:
    """What a candidate is asked for with, or the candidate itself.

    Attributes:
        messages: the conversation; empty where ``source`` is given.
        template: name of its last template.
        parents: ids of the candidates in it.
        origin: what will come out, see :class:`Candidate`.
        source: of a candidate that no model is asked for.
    """

    messages: tuple[Message, ...] = ()
    template: str = ""
    parents: tuple[str, ...] = ()
    origin: str = "new"
    source: str | None = None


@dataclass(frozen=True, eq=False)
class Parts:
    """The interchangeable parts of a search.

    Attributes:
        name: of the preset.
        description: one line.
        language: ``"code"`` or ``"terms"``, the default.
        languages: those that it can do.
        propose: ``(session, round, draw) -> Prompt``.
        evaluate: ``(session, round, candidates)``, trains and calls :meth:`Session.trained` for each; True for another
            set of candidates in this round, made from what ``select`` gives by then.
        select: ``(session, round, candidates) -> memory``, what the next round starts from; kept in ``session.memory``.
        critique: ``(session, candidate) -> remarks``, None to accept it; or None for no critic.
        gate: ``(session, candidate) -> Refusal``, None to train it; or None for no gate.
        finish: ``(source) -> source`` after an answer: a form that the checks and the agent get.
        candidates: executable candidates of a round, the default.
        repairs: how often a refused candidate goes back to the model, critic included.
        uses_model: whether it asks a model at all.
        asks: what a judge is asked for: ``"ends"``, ``"pairs"``, or nothing.
    """

    name: str
    description: str
    language: str
    languages: tuple[str, ...]
    propose: Callable[["Session", int, int], Prompt]
    evaluate: Callable[["Session", int, list[Candidate]], bool | None]
    select: Callable[["Session", int, list[Candidate]], Any]
    critique: Callable[["Session", Candidate], str | None] | None = None
    gate: Callable[["Session", Candidate], Refusal | None] | None = None
    finish: Callable[[str], str] = lambda source: source
    candidates: int = 4
    repairs: int = 0
    uses_model: bool = True
    asks: str = ""


@dataclass(eq=False)
class Session:
    """One search, as far as it got.

    Attributes:
        task: the task.
        parts: of the search.
        language: of its candidates.
        model: who is asked; None for a search without a model.
        journal: what was done.
        folder: where everything lies.
        learner: the agent.
        config: its settings.
        seeds: runs of each candidate.
        num_candidates: of each round.
        seed: of everything that is drawn.
        audits: ``"exact"``: distance and audit where they are exact; ``"sampled"``: also where they are estimated;
            ``"none"``.
        judge: for presets that ask: ids in, ``(best, worst)`` out, or an object with ``compare`` for pairs.
        films: films the policy of a candidate, for a judge who watches; None without.
        time_limit: seconds for the checks of a candidate.
        min_isolation: lowest isolation of a candidate in the language ``code``.
        candidates: by id, in order.
        memory: what the last round selected.
        tell: hears about progress: ``tell(kind, text)``.
        built: rewards by id.
        passed_checks: ids of candidates that run.
        last: what the last request gave, also one that a limit cut short.
        isolated: whether this machine was seen to isolate candidates well enough.
    """

    task: Task
    parts: Parts
    language: str
    model: ChatModel | None
    journal: Journal
    folder: Path
    learner: Any
    config: Any
    seeds: tuple[int, ...]
    num_candidates: int
    seed: int = 0
    audits: str = "exact"
    judge: Any = None
    films: Callable[["Session", Candidate, Any], None] | None = None
    time_limit: float = 10.0
    min_isolation: Isolation = MIN_ISOLATION
    candidates: dict[str, Candidate] = field(default_factory=dict)
    memory: Any = None
    tell: Callable[[str, str], None] = lambda kind, text: None
    built: dict[str, Reward] = field(default_factory=dict)
    passed_checks: set[str] = field(default_factory=set)
    last: dict[int, str] = field(default_factory=dict)
    recorded: list[Transition] = field(default_factory=list)
    isolated: bool = False

    def rng(self, *place: Any) -> np.random.Generator:
        """Random numbers of a place in the search: the same after a restart."""
        return np.random.default_rng(int(digest([self.seed, *map(str, place)]), 16))

    # --- the model --------------------------------------------------------------------------------------------------

    @property
    def description(self) -> str:
        """The task in words."""
        return describe_task(self.task)

    @property
    def contract(self) -> str:
        """How a reward is written in the language of this search."""
        return reward_contract(self.task, self.language)

    @property
    def answer(self) -> str:
        """How to answer with a reward."""
        return render("answer", language=self.language)

    def opening(self, template: str = "task", extra: str = "", **values: Any) -> list[Message]:
        """System message with the contract, and a template that begins with the task."""
        contract = f"{self.contract}\n\n{extra}".strip()
        return [
            message("system", render("system", contract=contract)),
            message("user", render(template, description=self.description, answer=self.answer, **values)),
        ]

    def schema(self) -> dict[str, Any] | None:
        """Of answers with a reward; None for code."""
        if self.language != "terms":
            return None
        schema = terms_schema(self.task)
        if self.model is not None and self.model.name.startswith(EMBEDDED):
            schema["properties"]["terms"] |= {"minItems": 1, "maxItems": MAX_TERMS}
        return schema

    def ask(
        self,
        messages: Sequence[Message],
        *,
        template: str,
        samples: int = 1,
        first: int = 0,
        schema: Mapping[str, Any] | None = None,
    ) -> dict[int, str]:
        """Answers by number of sample; those in the journal are not asked for again. An empty one failed for good.

        Raises:
            BudgetExceeded: at a hard limit; answers that came before it are in the journal.
            ModelError: if the model cannot be reached; what it says, however bad, is no error.
            CandidateRefused: if it would write code that this machine cannot isolate.
        """
        assert self.model is not None
        mark = digest({"messages": list(messages), "schema": schema, "template": label(template)})
        if not self.journal.known("prompt", mark):
            self.journal.put("prompt", mark, {"template": label(template), "messages": list(messages)})
        asked = range(first, first + samples)
        missing = [i for i in asked if not self._has(mark, i)]
        try:
            for start, count in _runs(missing):
                self._ask(list(messages), mark, start, count, label(template), schema)
        finally:
            self.last = {i: self.journal.value("answer", f"{mark}/{i}")["text"] for i in asked if self._has(mark, i)}
        return self.last

    def _has(self, mark: str, sample: int) -> bool:
        return self.journal.known("answer", f"{mark}/{sample}")

    def _ask(self, messages: list[Message], mark: str, first: int, count: int, template: str, schema: Any) -> None:
        assert self.model is not None
        if self.language == "code" and not self.isolated:  # nobody is paid for what could not be checked here
            require_isolation(self.min_isolation)
            self.isolated = True
        stop, why = None, "the model gave no answer"
        wanted = "an answer" if count == 1 else f"{count} answers"
        self.tell("ask", f"asking {self.model.name.partition('@')[0]} for {wanted} ({template})")
        try:
            answers = self.model.ask(messages, samples=count, schema=schema, template=template, first=first)
        except BudgetExceeded as limit:
            stop, answers = limit, limit.answers
        except ModelError as error:  # an answer that is none is a draw in vain; a server that is gone ends the search
            if error.outcome in UNANSWERED:
                raise
            answers, why = [], str(error)
        given = {answer.sample: answer for answer in answers}
        for sample in range(first, first + count):
            if sample in given:
                answer = given[sample]
                tokens = answer.prompt_tokens + answer.completion_tokens
                value = {"text": answer.text, "tokens": tokens, "cost": answer.cost, "cached": answer.cached}
            elif stop is None:
                value = {"text": "", "failed": why}
            else:
                continue
            self.journal.put("answer", f"{mark}/{sample}", value | {"used": self.model.budget.report()})
        if stop is not None:
            raise stop

    # --- candidates -------------------------------------------------------------------------------------------------

    def reward(self, candidate: Candidate) -> Reward:
        """The reward of a candidate that passed the checks; read from its file after a restart."""
        if candidate.id not in self.built:
            found = load_reward(self.file(candidate), self.task)
            known = (
                self.journal.value("artifact", candidate.id) if self.journal.known("artifact", candidate.id) else None
            )
            if known is not None and hashes(found) != known["sha256"]:
                raise StoreError(
                    f"{self.file(candidate)} is not the reward that was checked as candidate {candidate.id} (its hash "
                    "differs); put the old file back, or start anew with another --out."
                )
            self.built[candidate.id] = found
        return self.built[candidate.id]

    def passed(self, candidate: Candidate, reward: Reward) -> None:
        """Keep the reward of a candidate that passed the checks."""
        save_reward(self.file(candidate), reward)
        self.journal.put("artifact", candidate.id, {"sha256": hashes(reward)})
        self.built[candidate.id] = reward

    def file(self, candidate: Candidate) -> Path:
        """Where the reward of a candidate lies."""
        return self.folder / "rewards" / f"{candidate.id}.reward"

    def update(self, candidate: Candidate) -> Candidate:
        """Take in what is new about a candidate."""
        self.candidates[candidate.id] = candidate
        return candidate

    def trained(self, candidate: Candidate, found: Statistics | Refusal) -> Candidate:
        """Note what training gave."""
        changes = {"refusal": found} if isinstance(found, Refusal) else {"statistics": found}
        return self.update(candidate.with_(**changes))

    def judged(self, candidate: Candidate) -> Candidate:
        """A candidate with its distance and audit, where there are any."""
        value = self.journal.once("judged", candidate.id, lambda: self._judge(candidate))
        return self.update(candidate.with_(distance=value["distance"], audit=value["audit"]))

    def _judge(self, candidate: Candidate) -> dict[str, Any]:
        exact = is_tabular(self.task)
        if self.audits == "none" or (self.audits == "exact" and not exact):
            return {"distance": None, "audit": ""}
        try:
            found = audit(self.task, self.reward(candidate), num_samples=1000, population=16, seed=self.seed)
        except (TypeError, ValueError, CandidateRefused) as error:
            return {"distance": None, "audit": f"none: {error}"}
        concerns = "; ".join(f.text for f in found.findings if f.concern)
        return {"distance": float(found.distance), "audit": f"{found.verdict} {concerns}".strip()[:600]}

    # --- episodes for CARD ------------------------------------------------------------------------------------------

    def episodes(self) -> Transition:
        """Recorded episodes: some of random actions, and those of trained candidates."""
        if not self.recorded:
            self.recorded.append(play_lanes(self.task.env, self._random_actions(), NUM_RANDOM, self.seed))
            for file in sorted((self.folder / "episodes").glob("*.npz")):
                self.recorded.append(_loaded(file, self.recorded[0]))
        return side_by_side(self.recorded)

    def record(self, candidate: Candidate, played: Transition) -> None:
        """Keep the episodes of a trained candidate for the gate."""
        if self.parts.gate is None:
            return
        self.episodes()
        folder = self.folder / "episodes"
        folder.mkdir(parents=True, exist_ok=True)
        draft = folder / f"{candidate.id}.part"
        with draft.open("wb") as file:
            np.savez(file, *map(np.asarray, jax.tree.leaves(played)))
        draft.replace(folder / f"{candidate.id}.npz")
        self.recorded.append(played)

    def keep_clip(self, candidate: Candidate, training: Any) -> None:
        """Film the policy of a candidate, where a person judges."""
        if self.films is not None:
            self.films(self, candidate, training)

    def _random_actions(self) -> Callable[[Any], Any]:
        space = self.task.env.action_space
        space.seed(self.seed)
        return lambda obs: np.stack([space.sample() for _ in range(len(jax.tree.leaves(obs)[0]))])


def message(role: str, content: str) -> Message:
    """One message of a conversation."""
    return {"role": role, "content": content}


def _runs(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """``(first, count)`` of every run of consecutive numbers.

    Example:
        >>> _runs([0, 1, 4, 6, 7])
        [(0, 2), (4, 1), (6, 2)]
    """
    found: list[tuple[int, int]] = []
    for number in numbers:
        if found and sum(found[-1]) == number:
            found[-1] = (found[-1][0], found[-1][1] + 1)
        else:
            found.append((number, 1))
    return found


def _loaded(file: Path, like: Transition) -> Transition:
    with np.load(file) as arrays:
        leaves = [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
    return jax.tree.unflatten(jax.tree.structure(like), leaves)
