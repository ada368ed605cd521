"""What behaviour alignment concluded about a heuristic: a sentence, and how phi and the discount moved.

Every picture function takes values and an ``Axes``, draws, and returns the ``Axes``, as those in
:mod:`reward_design.experiments.plots` do.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from reward_design.bilevel.alignment import START
from reward_design.experiments import plots, statistics
from reward_design.experiments.designs import DEFAULT_AUXILIARY
from reward_design.experiments.results import Unit

WEIGHTS = {"phi1": "bonus φ1", "phi2": "primary φ2", "phi3": "auxiliary φ3"}
"""Names of the learned weights in records and pictures."""
_COLOURS = {"phi1": "#8b8f98", "phi2": "#009e73", "phi3": "#d55e00", "discount": "#3f7fbf"}
FILE = "alignment.png"
"""Name of the picture in the folder of a run."""


def conclusion(weights: Mapping[str, Any], auxiliary: str) -> str:
    """A sentence about the heuristic, from the final weights of all seeds.

    The weight of the heuristic is phi3 / phi2, what it counts next to the primary reward; it starts at 1.

    Args:
        weights: final values ``[N]`` of ``phi1``, ``phi2``, ``phi3`` and ``discount``.
        auxiliary: name of the heuristic.

    Returns:
        The sentence; of several seeds it tells the median, and how many agree.

    Example:
        >>> conclusion({"phi1": [0.1], "phi2": [2.0], "phi3": [0.06], "discount": [0.99]}, "centre")
        "BARFI suppressed the heuristic 'centre' to 0.03 of its weight (phi1 0.1, phi2 2, phi3 0.06, discount 0.99)."
        >>> conclusion({"phi1": [0], "phi2": [1.0], "phi3": [0.9], "discount": [0.99]}, "aligned")
        "BARFI kept the heuristic 'aligned' at 0.9 of its weight (phi1 0, phi2 1, phi3 0.9, discount 0.99)."
    """
    known = {name: np.atleast_1d(np.asarray(value, float)) for name, value in weights.items()}
    usable = known["phi2"] > 0
    numbers = ", ".join(f"{name} {np.median(value):.2g}" for name, value in known.items())
    if not usable.any():
        return (
            f"BARFI stopped paying the primary reward ({numbers}), so it says nothing about the heuristic "
            f"{auxiliary!r}: train longer, or lower reward_learning_rate."
        )
    shares = known["phi3"][usable] / known["phi2"][usable]
    share = float(np.median(shares))
    text = f"BARFI {_verb(share).format(repr(auxiliary), share)}"
    if len(known["phi2"]) > 1:
        same = sum(_verb(s) == _verb(share) for s in shares)
        return f"{text} in {same} of {len(known['phi2'])} seeds (medians: {numbers})."
    return f"{text} ({numbers})."


def _verb(share: float) -> str:
    """What became of a heuristic whose weight went from 1 to ``share``; ``{0}`` is its name, ``{1}`` the number."""
    if share < -0.1:
        return "turned against the heuristic {0}, with a weight of {1:.2g}"
    if share <= 0.1:
        return "suppressed the heuristic {0} to {1:.2g} of its weight"
    if share < 0.75:
        return "reduced the heuristic {0} to {1:.2g} of its weight"
    if share <= 1.25:
        return "kept the heuristic {0} at {1:.2g} of its weight"
    return "raised the heuristic {0} to {1:.2g} of its weight"


def learned(reward: str) -> str | None:
    """The auxiliary reward of a design ``"barfi/NAME"``, or None for other designs.

    Example:
        >>> learned("barfi/misaligned"), learned("barfi"), learned("sparse")
        ('misaligned', 'aligned', None)
    """
    name, _, auxiliary = reward.partition(" ")[0].partition("/")  # a search puts settings behind a space
    return (auxiliary or DEFAULT_AUXILIARY) if name == "barfi" else None


def of_unit(unit: Unit, auxiliary: str) -> str:
    """:func:`conclusion` of the runs of a comparison."""
    return conclusion({name: unit.final(name) for name in (*WEIGHTS, "discount")}, auxiliary)


def weights(steps: Any, curves: Mapping[str, Any], ax: Axes) -> Axes:
    """The weights phi while training, from the naive sum on: interquartile mean over seeds, with its 95 % band.

    Args:
        steps: ``[P]`` environment steps.
        curves: ``[N, P]`` by name, any of ``phi1``, ``phi2``, ``phi3``.
        ax: to draw in.
    """
    ax.axhline(0.0, color=plots.RULE, linewidth=0.8)
    started = {
        name: np.insert(np.atleast_2d(np.asarray(curves[name], float)), 0, start, axis=1)
        for name, start in zip(WEIGHTS, START, strict=True)
        if name in curves
    }
    _lines([0, *np.asarray(steps)], started, WEIGHTS, ax)
    return ax


def discount(steps: Any, curves: Mapping[str, Any], ax: Axes) -> Axes:
    """The discount of the inner learner while training, as :func:`weights`."""
    _lines(steps, {"discount": curves["discount"]}, {}, ax)
    ax.set_ylim(min(0.9, float(np.nanmin(curves["discount"])) - 0.02), 1.0)
    return ax


def _lines(steps: Any, curves: Mapping[str, Any], names: Mapping[str, str], ax: Axes) -> None:
    steps = np.asarray(steps, float)
    ends = {}
    for name, values in curves.items():
        band = statistics.bootstrap(np.atleast_2d(np.asarray(values, float)), num_resamples=500)
        ax.plot(steps, band.value, color=_COLOURS[name], linewidth=1.6)
        ax.fill_between(steps, band.low, band.high, color=_COLOURS[name], alpha=0.18, linewidth=0)
        if name in names:
            ends[names[name]] = float(np.asarray(band.value)[-1])
    ax.set_xlabel("environment steps per run")
    ax.xaxis.set_major_formatter(FuncFormatter(lambda x, _: plots.short(x)))
    ax.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
    ax.set_xlim(0, steps[-1])
    ax.margins(y=0.08)
    plots.label_ends(ax, ends, {text: _COLOURS[name] for name, text in names.items()})


def save(steps: Any, curves: Mapping[str, Any], folder: str | Path) -> Path:
    """Write the picture of one or several runs as ``alignment.png``.

    Args:
        steps: ``[P]``.
        curves: ``[N, P]`` by name.
        folder: where to.

    Returns:
        The file.
    """
    import matplotlib
    from matplotlib.figure import Figure

    style: Any = {**plots.STYLE, "figure.facecolor": "white"}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(8.5, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=[3, 2])
        weights(steps, curves, left).set_title("weights")
        discount(steps, curves, right).set_title("discount of the learner")
        figure.savefig(Path(folder) / FILE, dpi=150)
    return Path(folder) / FILE
