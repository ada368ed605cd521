"""Learning a reward from preferences beside an agent: cut segments, ask, fit, normalise; all in compiled code."""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from reward_design._arguments import finite, whole_number
from reward_design.agents.settings import at_least, one_of
from reward_design.core import Learner, Params, Transition
from reward_design.preferences import model as models
from reward_design.preferences import questions, segments
from reward_design.preferences.factors import quantities
from reward_design.preferences.fitting import Batch, Fit, Report
from reward_design.preferences.segments import Segments, Store
from reward_design.preferences.teachers import Teacher

SELECTIONS = ("uniform", "disagreement", "entropy")
WHOLE = (
    "segment_length", "capacity", "num_calibration", "refresh_every", "num_batches", "batch_segments",
    "pretrain_rounds", "max_labels", "num_questions", "num_candidates", "held_out_every",
)  # fmt: skip
"""Settings that are whole numbers."""


@dataclass(frozen=True)
class Config:
    """Settings of learning from preferences.

    Attributes:
        segment_length: steps of a segment; the task's horizon compares whole episodes.
        capacity: segments kept, the newest ones.
        num_calibration: the first segments, from the initial policy, on which margins, input scales and the reward's
            own scale are fixed for good. Nothing is paid before.
        refresh_every: environment steps between two rounds of learning.
        num_batches: gradient steps per round.
        batch_segments: segments per gradient step, of which all pairs are compared.
        pretrain_rounds: rounds when the calibration segments are complete.
        stratified: weigh pairs so that each level that decides any has the same say.
        keep_ties: learn from ties as 0.5 instead of leaving them out.
        pool: ``"sum"`` or ``"mean"`` of a segment's rewards is its score.
        learning_rate: of AdamW.
        weight_decay: of AdamW.
        max_labels: pairs that the teacher answers in all, None if answers are free; with a number, answers are kept and
            ``num_questions`` new ones are asked per round.
        num_questions: pairs per round, with ``max_labels``.
        selection: of questions: ``"uniform"``, or from ``num_candidates`` times as many pairs those with the largest
            ``"disagreement"`` between members or ``"entropy"`` of their mean answer.
        num_candidates: see ``selection``.
        held_out_every: one in so many segments (or answered pairs) is never trained on and measures accuracy.
    """

    segment_length: int = 32
    capacity: int = 1024
    num_calibration: int = 128
    refresh_every: int = 4096
    num_batches: int = 16
    batch_segments: int = 64
    pretrain_rounds: int = 8
    stratified: bool = False
    keep_ties: bool = False
    pool: str = "sum"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-4
    max_labels: int | None = None
    num_questions: int = 64
    selection: str = "uniform"
    num_candidates: int = 10
    held_out_every: int = 10

    def __post_init__(self) -> None:
        for name in WHOLE:
            if name != "max_labels" or self.max_labels is not None:
                whole_number(name, getattr(self, name))
        for name in ("learning_rate", "weight_decay"):
            finite(name, getattr(self, name))
        at_least(self, 0, "weight_decay")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}.")
        at_least(
            self, 1, "segment_length", "refresh_every", "num_batches", "pretrain_rounds", "num_questions",
            "num_candidates",
        )  # fmt: skip
        at_least(self, 2, "batch_segments", "held_out_every", "max_labels")
        at_least(self, 2 * self.held_out_every, "num_calibration")
        one_of(self, "pool", ("sum", "mean"))
        one_of(self, "selection", SELECTIONS)
        if self.capacity < self.num_calibration:
            raise ValueError(
                f"capacity must be at least num_calibration = {self.num_calibration}, got {self.capacity}."
            )
        if self.selection != "uniform" and self.max_labels is None:
            raise ValueError(
                f"selection={self.selection!r} chooses what to ask, so it needs max_labels; free answers are all used."
            )


class LearnerState(NamedTuple):
    """What learning from preferences remembers.

    Attributes:
        store: segments.
        reference: the calibration segments.
        units: what the teacher was calibrated to.
        asked: pairs with answers that are kept, ``()`` if answers are free.
        opt_state: of each member.
        steps: environment steps since the last round.
        rounds: of learning so far.
        report: of the last round.
    """

    store: Store
    reference: Segments
    units: Any
    asked: Any
    opt_state: Any
    steps: Int[Array, ""]
    rounds: Int[Array, ""]
    report: Report


def preference_learner(model: models.Model, teacher: Teacher, config: Config) -> Learner:
    """The learner of a reward made by :func:`bradley_terry`: fits it to the answers of a teacher on its own experience.

    Every update goes on cutting the lanes into segments. Once ``num_calibration`` are there, they fix all units, and
    the first rounds of learning begin; from then on there is a round every ``refresh_every`` environment steps. A round
    that makes the loss on held-out segments worse is not taken by the member concerned (with ``max_labels`` it is: a
    few answers, wrong ones among them, are no jury). Metrics: ``accuracy`` and ``accuracy/<level>`` on held-out pairs,
    ``loss``, ``decided/<level>`` and ``decided/tie`` (shares of pairs), ``cycle_rate``, ``rounds``, ``labels``; NaN
    before the first round.

    A factor that is not finite makes the reward NaN, which every agent stops at.

    Args:
        model: what is fitted, of the reward's settings.
        teacher: who answers.
        config: settings.

    Returns:
        A :class:`reward_design.Learner`.
    """
    fit = Fit(model, teacher.levels, config)

    def init(key: Any, params: Params, example: Transition) -> LearnerState:
        lanes = jnp.shape(example.reward)[0]
        sizes = (config.segment_length, models.checked_inputs(model.inputs, example).shape[-1], len(teacher.factors))
        reference = segments.empty(config.num_calibration, *sizes)
        values = jax.eval_shape(teacher.value, params, reference.quantities, reference.mask)
        units = teacher.calibrate(jnp.zeros(values.shape), jnp.zeros(values.shape[0], bool))
        asked = () if config.max_labels is None else questions.empty(config.max_labels, sizes[0], sizes[1])
        return LearnerState(
            segments.empty_store(config.capacity, lanes, *sizes), reference, units, asked,
            fit.optimiser_state(params), jnp.int32(0), jnp.int32(0), fit.no_report(),
        )  # fmt: skip

    def update(params: Params, state: LearnerState, batch: Transition, key: Any) -> tuple[Params, LearnerState, Any]:
        x = models.checked_inputs(model.inputs, batch)
        store = segments.append(state.store, x, quantities(teacher.factors, batch), batch)
        state = state._replace(store=store, steps=state.steps + jnp.asarray(batch.mask).sum(dtype=jnp.int32))
        first = (state.rounds == 0) & (store.count >= config.num_calibration)
        params, state = jax.tree.map(partial(jnp.where, first), _calibrated(params, state), (params, state))
        due = (state.rounds > 0) & (state.steps >= config.refresh_every)
        number = jnp.where(first, config.pretrain_rounds, jnp.where(due, 1, 0))
        state = state._replace(steps=jnp.where(number > 0, 0, state.steps))

        def one(i: Any, carry: Any) -> Any:
            params, state = carry
            return _round(params, state, jax.random.fold_in(key, i), asks=i == 0)

        # a loop and not a cond: under vmap over seeds a cond would compute a round in every update
        params, state = jax.lax.fori_loop(0, number, one, (params, state))
        return params, state, fit.metrics(state.report) | {"rounds": state.rounds}

    def _calibrated(params: Params, state: LearnerState) -> tuple[Params, LearnerState]:
        reference = segments.take(state.store.closed, jnp.arange(config.num_calibration))
        known = reference.length > 0
        units = teacher.calibrate(teacher.value(params, reference.quantities, reference.mask), known)
        return fit.with_input_scale(params, reference), state._replace(reference=reference, units=units)

    def _round(params: Params, state: LearnerState, key: Any, *, asks: Any) -> tuple[Params, LearnerState]:
        ask_key, fit_key, report_key = jax.random.split(key, 3)
        asked = state.asked
        if config.max_labels is not None:
            asked = questions.ask(fit, teacher, params, state.units, state.store, asked, ask_key, asks)
        draw = partial(_draw, params, state._replace(asked=asked))
        held_out = draw(report_key, held_out=True)
        check = held_out if config.max_labels is None else None  # few answers, wrong ones among them, are no jury
        params, opt_state = fit.train(params, state.opt_state, partial(draw, held_out=False), check, fit_key)
        params = fit.normalised(params, state.reference)
        values = teacher.value(params, state.store.closed.quantities, state.store.closed.mask)
        broken = ~jnp.isfinite(jnp.where((state.store.closed.length > 0)[:, None], values, 0.0)).all()
        params = {**params, "scale": jnp.where(broken, jnp.nan, params["scale"])}
        report = fit.report(params, held_out, draw(report_key, held_out=False))
        labels = state.report.labels + config.num_batches * questions.num_pairs(config.batch_segments)
        report = report._replace(
            cycle_rate=questions.cycles(teacher, params, state.units, state.store, report_key, config),
            labels=labels if config.max_labels is None else asked.count.astype(float),
        )
        return params, state._replace(asked=asked, opt_state=opt_state, rounds=state.rounds + 1, report=report)

    def _draw(params: Params, state: LearnerState, key: Any, *, held_out: bool) -> Batch:
        if config.max_labels is not None:
            return questions.draw_asked(state.asked, key, config, held_out=held_out)
        return questions.draw_free(teacher, params, state.units, state.store, key, config, held_out=held_out)

    return Learner(init, update)
