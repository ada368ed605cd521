"""Which settings a search tries next, put on record before they are tried."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from reward_design._optional import require
from reward_design.experiments.results import Results
from reward_design.experiments.space import Range
from reward_design.experiments.store import Store

Settings = Mapping[str, float | int]


def library() -> Any:
    """Optuna.

    Raises:
        ImportError: without the extra ``tune``.
    """
    return require("optuna", "tune", "searches")


def proposed(records: Sequence[Mapping[str, Any]]) -> list[Settings]:
    """Settings of all trials on record, in order."""
    return [settings for record in records if record["kind"] == "proposal" for settings in record["trials"]]


def proposals(
    kept: Store,
    first: int,
    batch: int,
    seed: int,
    ranges: Mapping[str, Range],
    value: Callable[[Results, Settings], float | None],
) -> list[Settings]:
    """Settings of the trials from ``first`` on: those on record, or new ones, which are put there.

    Args:
        kept: records of the search.
        first: number of the first of these trials.
        batch: how many.
        seed: of the search.
        ranges: by name.
        value: of the objective for settings that were tried; None if there is none.
    """
    known = proposed(kept.records)
    if first >= len(known):
        results = Results(kept.records)
        history = [(settings, value(results, settings)) for settings in known]
        draw = int(np.random.SeedSequence([seed, first]).generate_state(1)[0])
        kept.append({"kind": "proposal", "trials": ask(ranges, history, num=batch, seed=draw)})
    return proposed(kept.records)[first : first + batch]


def ask(
    ranges: Mapping[str, Range], history: Sequence[tuple[Settings, float | None]], *, num: int, seed: int
) -> list[dict[str, float | int]]:
    """Choices of a tree-structured Parzen estimator, a function of its arguments alone.

    Args:
        ranges: by name.
        history: settings that were tried, and what came of them; the first ten are random.
        num: how many, made for being tried at the same time.
        seed: of the random numbers.

    Returns:
        ``num`` settings by name, rounded as they will be shown.

    Example:
        >>> ranges = {"beta": Range(0.0, 1.0), "num_epochs": Range(1, 8, whole=True)}
        >>> ask(ranges, [], num=2, seed=0) == ask(ranges, [], num=2, seed=0)
        True
    """
    optuna: Any = library()
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        spread = {
            name: optuna.distributions.IntDistribution(int(r.low), int(r.high), log=r.log)
            if r.whole
            else optuna.distributions.FloatDistribution(r.low, r.high, log=r.log)
            for name, r in ranges.items()
        }
        sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=num > 1)
        study = optuna.create_study(direction="maximize", sampler=sampler)
        complete, fail = optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.FAIL
        for settings, value in history:
            state = fail if value is None else complete
            study.add_trial(
                optuna.trial.create_trial(params=dict(settings), distributions=spread, value=value, state=state)
            )
        asked = [study.ask(spread).params for _ in range(num)]
    finally:
        optuna.logging.set_verbosity(before)
    return [{name: found.rounded(choice[name]) for name, found in ranges.items()} for choice in asked]
