"""CALM: a language model says which sub-goals each transition achieved, and is judged by programmatic labels.

Source: "Assessing the Zero-Shot Capabilities of LLMs for Action Evaluation in RL", 2024, arXiv:2409.12798. There an
answer that could not be read counted as "no sub-goal achieved", silently; here it is no verdict, and counted.
"""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from reward_design.llm.annotate_prompts import VERSION, Prompt, finding
from reward_design.llm.annotate_steps import KEYROOM, Step, Subgoal
from reward_design.llm.budget import BudgetExceeded
from reward_design.llm.models import ChatModel
from reward_design.llm.outcomes import UNANSWERED, ModelError

MAX_UNANSWERED = 3
"""Steps in a row with which a model may be out of reach before the work ends."""


@dataclass(frozen=True)
class Score:
    """How verdicts fit labels, over the steps with a verdict.

    Attributes:
        steps: with a verdict.
        positives: steps whose label is true.
        accuracy: share of right verdicts.
        precision: share of right ones among the positive verdicts, 0 if there are none.
        recall: share of the positives that were found, 0 if there are none.
        f1: 2 precision recall / (precision + recall), 0 where that is 0 / 0.
        failures: steps without a verdict.
        f1_failures_wrong: the same if each failure were the wrong verdict.
    """

    steps: int
    positives: int
    accuracy: float
    precision: float
    recall: float
    f1: float
    failures: int
    f1_failures_wrong: float


@dataclass(frozen=True)
class Annotations:
    """What a model said about steps.

    Attributes:
        steps: that were judged.
        subgoals: by name.
        verdicts: ``[steps, subgoals]``: 1 achieved, 0 not, NaN no verdict.
        evidence: of each verdict, "" without one.
        failures: how often which outcome left a step without verdict.
        stopped: limit that ended the work before all steps were judged, or outcome with which the model could not be
            reached, several times in a row; None if nothing did.
    """

    steps: Sequence[Step]
    subgoals: Mapping[str, Subgoal]
    verdicts: np.ndarray
    evidence: Sequence[Sequence[str]]
    failures: Counter[str]
    stopped: str | None = None

    def labels(self) -> np.ndarray:
        """``[steps, subgoals]`` bool: what really was achieved."""
        return labels(self.steps, self.subgoals)

    def scores(self) -> dict[str, Score]:
        """The score per sub-goal, and for ``"any"`` of them, as CALM reports it.

        Raises:
            ValueError: for sub-goals without programmatic labels.
        """
        return _scores(self.verdicts, self.labels(), self.subgoals)


def annotate(
    model: ChatModel,
    steps: Sequence[Step],
    subgoals: Mapping[str, Subgoal] | int = KEYROOM,
    *,
    prompt: Prompt | None = None,
    description: str = "",
    on_step: Callable[[int, int], None] | None = None,
) -> Annotations:
    """Let a model judge which sub-goals each step achieved.

    A step about which the model gives no valid answer has no verdict (NaN): it is counted, and never taken for a step
    in which nothing was achieved. A budget that ends keeps what there is, and so does a server that cannot be reached
    for three steps in a row, each with all its retries: ``stopped`` says so.

    Args:
        model: who judges; give it a cache, and the same call goes on where it stopped.
        steps: of :func:`~reward_design.llm.annotate_steps.record_steps`.
        subgoals: by name, or how many the model is to find itself in ``description``; those have no labels.
        prompt: the blocks of the prompt.
        description: of the task, for finding sub-goals.
        on_step: called with the number of steps done and of all.

    Returns:
        The verdicts.

    Raises:
        ValueError: without steps or sub-goals.
        TypeError: for a model, steps or sub-goals that are none.
        ModelError: if the model finds no sub-goals, or cannot be reached from the start.

    Example:
        >>> import json
        >>> from reward_design.llm import annotate, chat_model
        >>> from reward_design.llm.annotate_steps import Step
        >>> def judge(messages):
        ...     saw = "named The Master Key" in messages[-1].get("content", "").split("Message:")[1]
        ...     return json.dumps({goal: {"evidence": "", "achieved": saw} for goal in ("key", "door")})
        >>> step = Step("@ (", ". @", "", "g - a key named The Master Key.", "PICKUP", frozenset({"picked_up"}))
        >>> annotate(chat_model(judge), [step]).scores()["key"].f1
        1.0
    """
    if not isinstance(model, ChatModel):
        raise TypeError(f"annotate needs a model of chat_model, got {type(model).__name__}; give chat_model(...).")
    if isinstance(subgoals, int):
        subgoals = find_subgoals(model, description, subgoals)
    if not isinstance(subgoals, Mapping) or not all(isinstance(goal, Subgoal) for goal in subgoals.values()):
        raise TypeError(
            f"sub-goals must be a dictionary {{name: Subgoal(text)}} or how many to find, got {subgoals!r:.100}."
        )
    if not all(isinstance(step, Step) for step in steps):
        raise TypeError("steps must be Step objects, as record_steps gives them.")
    if not steps or not subgoals:
        raise ValueError(f"annotate needs steps and sub-goals, got {len(steps)} and {len(subgoals)}.")
    prompt, names = Prompt() if prompt is None else prompt, list(subgoals)
    verdicts, evidence = np.full((len(steps), len(names)), np.nan), [[""] * len(names) for _ in steps]
    failures: Counter[str] = Counter()
    schema, template, stopped, unanswered = prompt.schema(names), f"calm {VERSION}", None, 0
    for number, step in enumerate(steps):
        try:
            (answer,) = model.ask(prompt.messages(step, subgoals), schema=schema, template=template)
            said = json.loads(answer.text)
            verdicts[number] = [said[name]["achieved"] for name in names]
            evidence[number] = [said[name]["evidence"] for name in names]
            unanswered = 0
        except ModelError as error:
            failures[error.outcome] += 1
            unanswered = unanswered + 1 if error.outcome in UNANSWERED else 0
            if unanswered == MAX_UNANSWERED:
                if number + 1 == unanswered:  # there is nothing to keep
                    raise
                stopped, number = error.outcome, number + 1
                steps, verdicts, evidence = steps[:number], verdicts[:number], evidence[:number]
                break
        except BudgetExceeded as stop:
            stopped = stop.limit
            steps, verdicts, evidence = steps[:number], verdicts[:number], evidence[:number]
            break
        if on_step is not None:
            on_step(number + 1, len(steps))
    return Annotations(steps, subgoals, verdicts, evidence, failures, stopped)


def find_subgoals(model: ChatModel, description: str, num: int) -> dict[str, Subgoal]:
    """Let a model find the sub-goals of a task; nobody knows their labels.

    Raises:
        ValueError: without a description in words, or for less than one sub-goal.
        ModelError: if it names none that can be told apart.
    """
    if num < 1:
        raise ValueError(f"the number of sub-goals to find must be at least 1, got {num}.")
    if not description.strip():
        raise ValueError(
            "to find sub-goals a model needs the task in words; give description=, such as task.description."
        )
    messages, schema = finding(description, num)
    (answer,) = model.ask(messages, schema=schema, template=f"find subgoals {VERSION}")
    found = json.loads(answer.text)["subgoals"]
    subgoals = {"_".join(goal["name"].lower().split())[:40]: Subgoal(goal["text"]) for goal in found}
    subgoals.pop("", None)
    if not subgoals:
        raise ModelError("invalid", "the sub-goals that it found have no names", came=answer.text)
    return subgoals


def labels(steps: Sequence[Step], subgoals: Mapping[str, Subgoal]) -> np.ndarray:
    """``[steps, subgoals]`` bool: what really was achieved.

    Raises:
        ValueError: for sub-goals that name no events.
    """
    blind = [name for name, goal in subgoals.items() if not goal.events]
    if blind:
        raise ValueError(f"sub-goals {blind} have no programmatic labels; give Subgoal(..., events=...) for a score.")
    return np.array([[goal.achieved(step) for goal in subgoals.values()] for step in steps], bool)


def programmatic(steps: Sequence[Step], subgoals: Mapping[str, Subgoal] = KEYROOM) -> Annotations:
    """The labels as if a model without fault had given them.

    Raises:
        ValueError: without steps, or for sub-goals that name no events.
    """
    if not steps:
        raise ValueError("programmatic labels need steps, got none.")
    verdicts = labels(steps, subgoals).astype(float)
    return Annotations(steps, subgoals, verdicts, [[""] * len(subgoals) for _ in steps], Counter())


def baselines(steps: Sequence[Step], subgoals: Mapping[str, Subgoal] = KEYROOM) -> dict[str, dict[str, Score]]:
    """Scores of judges without a model, on the same steps.

    Returns:
        By name: ``"majority"`` says for each sub-goal (and for ``"any"``) what is more frequent, ``"always"`` that it
        was achieved, ``"keyword"`` that it was if the message has one of its keywords; each as
        :meth:`Annotations.scores`.

    Raises:
        ValueError: without steps, or for sub-goals that name no events.
    """
    if not steps:
        raise ValueError("baselines need steps to judge, got none.")
    truth = labels(steps, subgoals)
    majority = np.broadcast_to(truth.mean(axis=0) > 0.5, truth.shape)
    keyword = np.array([[goal.mentioned(step) for goal in subgoals.values()] for step in steps])
    found = {
        name: _scores(said.astype(float), truth, subgoals)
        for name, said in (("majority", majority), ("always", np.ones(truth.shape)), ("keyword", keyword))
    }
    any_true = np.any(truth, axis=1, keepdims=True)[:, 0]
    found["majority"]["any"] = score(np.full(len(truth), float(any_true.mean() > 0.5)), any_true)
    return found


def score(verdicts: np.ndarray, truth: np.ndarray) -> Score:
    """How verdicts fit labels.

    Args:
        verdicts: ``[steps]``: 1, 0 or NaN.
        truth: ``[steps]`` bool.

    Example:
        >>> import numpy as np
        >>> score(np.array([1.0, 1.0, 0.0, np.nan]), np.array([True, False, True, True])).f1
        0.5
    """
    known = ~np.isnan(verdicts)
    said, right = verdicts[known] > 0.5, truth[known]
    precision, recall, f1 = _f1(said, right)
    pessimist = np.where(known, np.nan_to_num(verdicts) > 0.5, ~truth)
    accuracy = float((said == right).mean()) if known.any() else 0.0
    return Score(
        int(known.sum()), int(right.sum()), accuracy, precision, recall, f1, int((~known).sum()),
        _f1(pessimist, truth)[2],
    )  # fmt: skip


def _f1(said: np.ndarray, right: np.ndarray) -> tuple[float, float, float]:
    hits = float((said & right).sum())
    precision, recall = hits / max(1, said.sum()), hits / max(1, right.sum())
    return float(precision), float(recall), float(2 * precision * recall / (precision + recall)) if hits else 0.0


def _scores(verdicts: np.ndarray, truth: np.ndarray, names: Mapping[str, Subgoal]) -> dict[str, Score]:
    unknown = np.isnan(verdicts).any(axis=1)
    any_said = np.where(unknown, np.nan, (np.nan_to_num(verdicts) > 0.5).any(axis=1))
    found = {name: score(verdicts[:, i], truth[:, i]) for i, name in enumerate(names)}
    return {**found, "any": score(any_said, np.any(truth, axis=1, keepdims=True)[:, 0])}
