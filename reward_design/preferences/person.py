"""A person as the teacher: questions about clips, answers that are kept in a file, and a reward learned from them."""

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design._arguments import whole_number
from reward_design.core import Params, Reward
from reward_design.preferences import clips as films
from reward_design.preferences import questions
from reward_design.preferences.answers import ANSWERS, AnswerFile, Given, Question, checked_words
from reward_design.preferences.clips import Clip
from reward_design.preferences.fitting import Fit
from reward_design.preferences.learning import Config
from reward_design.preferences.model import checked_inputs, model_of
from reward_design.preferences.segments import Segments
from reward_design.preferences.teachers import Answer

MAX_WORDS = 500
"""Characters that are kept of what is said about a clip."""


class Questionnaire:
    """Random pairs of clips, asked one after the other; safe to use from several threads.

    Every answer is appended to a file at once, and a questionnaire on the same clips goes on where it stopped, after a
    crash in mid-write as well: a torn last line is dropped.

    Args:
        clips: at least two.
        num_questions: different pairs to ask about, at most N (N - 1) / 2.
        out: file of JSON lines, in a folder that is made if needed; nothing is kept without it.
        seed: of the pairs and of which clip is on the left.

    Raises:
        ValueError: for too few clips or questions, and a file that cannot be written to, is about other clips, or is
            damaged before its last line.
        TypeError: for a number of questions that is not whole.

    Example:
        >>> from reward_design.envs import task
        >>> from reward_design.preferences import Questionnaire, record_clips
        >>> clips = record_clips(task("four_rooms").make(render_mode="rgb_array"), num_clips=3, length=4)
        >>> ask = Questionnaire(clips, num_questions=2)
        >>> ask.give(ask.question().number, "first")
        >>> len(ask.given), ask.question().number
        (1, 1)
    """

    def __init__(
        self, clips: Sequence[Clip], *, num_questions: int, out: str | Path | None = None, seed: int = 0
    ) -> None:
        if len(clips) < 2:
            raise ValueError(f"a comparison needs at least two clips, got {len(clips)}; record more of them.")
        pairs = len(clips) * (len(clips) - 1) // 2
        num_questions = whole_number("num_questions", num_questions)
        if not 1 <= num_questions <= pairs:
            raise ValueError(
                f"num_questions must be in [1, {pairs}], the pairs of {len(clips)} clips, got {num_questions}."
            )
        self.clips, self.out = list(clips), None if out is None else Path(out)
        self.questions = _pairs(len(clips), num_questions, seed)
        self.done = threading.Event()
        self._lock, self._since = threading.Lock(), time.monotonic()
        self._file = None
        if out is not None:
            self._file = AnswerFile(out, _fingerprint(clips, self.questions), self.questions)
        self.given: list[Given] = [] if self._file is None else self._file.found
        self._check_done()

    def question(self) -> Question | None:
        """The first question without an answer, None if there is none left."""
        with self._lock:
            number = len(self.given)
            return self.questions[number] if number < len(self.questions) else None

    def give(self, number: int, answer: str, words: Sequence[str] = ("", "")) -> None:
        """Record an answer to the present question; one to any other (a second click) changes nothing.

        Args:
            number: of the question.
            answer: ``"first"``, ``"second"``, ``"equal"``, or ``"skip"`` for one that cannot be answered.
            words: about the first and the second clip; spaces and line ends become one space.

        Raises:
            ValueError: for something else, or words that are not two texts.
            TypeError: for a number that is not whole.
            OSError: if it could not be written to the file; then it does not count.
        """
        if not isinstance(answer, str) or answer not in ANSWERS:
            raise ValueError(f"an answer must be one of {', '.join(ANSWERS)}, got {answer!r}.")
        number = whole_number("the number of a question", number)
        one, two = (" ".join(text.split())[:MAX_WORDS] for text in checked_words(words))
        with self._lock:
            if number != len(self.given) or number >= len(self.questions):
                return
            _, first, second = self.questions[number]
            now = time.monotonic()
            given = [*self.given, Given(first, second, answer, round(now - self._since, 2), (one, two))]
            if self._file is not None:
                self._file.add(given)
            self.given, self._since = given, now
            self._check_done()

    def take_back(self) -> None:
        """Ask the last question again.

        Raises:
            OSError: if the file could not be written; then the answer stays.
        """
        with self._lock:
            if self.given:
                if self._file is not None:
                    self._file.rewrite(self.given[:-1])
                self.given = self.given[:-1]
                self.done.clear()

    def _check_done(self) -> None:
        if len(self.given) == len(self.questions):
            self.done.set()


def learn_from_answers(
    reward: Reward,
    clips: Sequence[Clip],
    given: Sequence[Given],
    key: Any,
    *,
    config: Config | None = None,
    num_rounds: int = 20,
) -> tuple[Params, dict[str, float]]:
    """Fit a Bradley-Terry reward to what a person said, in one compiled function.

    Args:
        reward: made by :func:`bradley_terry`.
        clips: what was compared.
        given: answers, ``questionnaire.given``; skipped ones are left out.
        key: random key.
        config: settings of learning; one in ``held_out_every`` answers measures accuracy.
        num_rounds: rounds of ``num_batches`` gradient steps.

    Returns:
        Params for ``reward_params=`` of every agent, and ``accuracy`` and ``loss`` on held-out answers (``accuracy`` is
        NaN where all of those are ties).

    Raises:
        ValueError: for fewer answers than ``2 * held_out_every``, one about clips that are not there, or no round.
        TypeError: for a reward of another sort.

    Example:
        >>> import jax
        >>> from reward_design.envs import task
        >>> from reward_design.preferences import Questionnaire, bradley_terry, learn_from_answers, record_clips
        >>> from reward_design.preferences import space_inputs
        >>> rooms = task("four_rooms")
        >>> clips = record_clips(rooms.make(render_mode="rgb_array"), num_clips=8, length=4)
        >>> ask = Questionnaire(clips, num_questions=24)
        >>> while (question := ask.question()) is not None:
        ...     ask.give(question.number, "first" if question.first > question.second else "second")
        >>> reward = bradley_terry(space_inputs(rooms))
        >>> params, metrics = learn_from_answers(reward, clips, ask.given, jax.random.key(0), num_rounds=2)
        >>> sorted(metrics)
        ['accuracy', 'loss']
    """
    config, model = config or Config(), model_of(reward)
    num_rounds = whole_number("num_rounds", num_rounds)
    if num_rounds < 1:
        raise ValueError(f"num_rounds must be at least 1, got {num_rounds}; nothing is learned without a round.")
    _check_given(given, len(clips))
    kept = [g for g in given if ANSWERS[g.answer] is not None]
    if len(kept) < 2 * config.held_out_every:
        raise ValueError(
            f"expected at least 2 * held_out_every = {2 * config.held_out_every} answers that are not skipped, got "
            f"{len(kept)}; ask more, or lower held_out_every."
        )
    trajectory = films.stacked(clips)
    init_key, fit_key = jax.random.split(key)
    params, _ = reward.init(init_key, jax.tree.map(lambda x: x[0], trajectory))
    inputs = jnp.swapaxes(checked_inputs(model.inputs, trajectory), 0, 1)
    ended = (jnp.asarray(trajectory.terminated) & jnp.asarray(trajectory.mask)).any(axis=0)
    watched = Segments(inputs, inputs, jnp.asarray(trajectory.mask).sum(axis=0, dtype=jnp.int32), ended)
    pairs = np.array([[g.first, g.second] for g in kept])
    preferred = jnp.array([float(ANSWERS[g.answer] or 0.0) for g in kept])
    answer = Answer(preferred, jnp.ones(len(kept)), (preferred == 0.5).astype(jnp.int32))
    asked = questions.Asked(inputs[pairs], watched.length[pairs], ended[pairs], answer, jnp.int32(len(kept)))
    params, metrics = _fitted(Fit(model, ("person",), config), params, watched, asked, fit_key, num_rounds)
    return params, {name: float(value) for name, value in metrics.items()}


@partial(jax.jit, static_argnums=(0, 5))
def _fitted(
    fit: Fit, params: Params, watched: Segments, asked: questions.Asked, key: Any, num_rounds: int
) -> tuple[Params, dict[str, Any]]:
    params = fit.with_input_scale(params, watched)
    draw = partial(questions.draw_asked, asked, config=fit.config, held_out=False)

    def one(carry: Any, key: Any) -> tuple[Any, None]:
        params, opt_state = carry
        return fit.train(params, opt_state, draw, None, key), None

    keys = jax.random.split(key, num_rounds + 1)
    (params, _), _ = jax.lax.scan(one, (params, fit.optimiser_state(params)), keys[1:])
    params = fit.normalised(params, watched)
    held_out = questions.draw_asked(asked, keys[0], fit.config, held_out=True)
    report = fit.report(params, held_out, held_out)
    return params, {"accuracy": report.accuracy, "loss": report.loss}


def _check_given(given: Sequence[Given], num_clips: int) -> None:
    """Refuse what says nothing about these clips; an index out of range would be clipped in compiled code."""
    for number, one in enumerate(given):
        if not isinstance(one.answer, str) or one.answer not in ANSWERS:
            raise ValueError(f"answer {number} must be one of {', '.join(ANSWERS)}, got {one.answer!r}.")
        for clip in (one.first, one.second):
            if not 0 <= whole_number(f"a clip of answer {number}", clip) < num_clips:
                raise ValueError(
                    f"answer {number} names clip {clip}, there are {num_clips} clips; give the clips that were "
                    "compared, in the same order."
                )


def _pairs(num_clips: int, num_questions: int, seed: int) -> list[Question]:
    """Different pairs in random order; each clip is about as often on the left as on the right."""
    generator = np.random.default_rng(seed)
    first, second = np.triu_indices(num_clips, 1)
    chosen = generator.permutation(len(first))[:num_questions]
    turned = generator.random(num_questions) < 0.5
    left, right = (np.where(turned, a[chosen], b[chosen]).tolist() for a, b in ((second, first), (first, second)))
    return [Question(number, *pair) for number, pair in enumerate(zip(left, right))]


def _fingerprint(clips: Sequence[Clip], asked: Sequence[Question]) -> str:
    """Hash of what is seen and asked."""
    digest = hashlib.sha256(json.dumps(asked).encode())
    for clip in clips:
        for frame in clip.frames:
            digest.update(np.ascontiguousarray(frame).tobytes())
    return digest.hexdigest()[:16]
