"""Pictures of learning from ranks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes


def deciding_levels(steps: Any, metrics: Mapping[str, Any], axes: Axes) -> Axes:
    """Which level of a ranking decides the compared pairs, over training: a stack of shares that sum to 1.

    Args:
        steps: ``[U]`` environment steps.
        metrics: arrays ``[U]`` by name, among them ``decided/<level>`` in the order of the ranking, and
            ``decided/tie``, with or without ``reward/`` in front, as the agents report them.
        axes: where to draw.

    Returns:
        ``axes``.

    Raises:
        ValueError: without such metrics.
    """
    known = {name.removeprefix("reward/"): np.asarray(value, float) for name, value in metrics.items()}
    names = [name for name in known if name.startswith("decided/") and name != "decided/tie"]
    if not names:
        raise ValueError("expected metrics called decided/<level>, got none; they come from a reward such as heron.")
    names += ["decided/tie"] * ("decided/tie" in known)
    shares = np.stack([known[name] for name in names])
    seen = np.isfinite(shares).all(axis=0)
    labels = [name.removeprefix("decided/") for name in names]
    colours = [f"C{i}" for i in range(len(names))]
    if labels[-1] == "tie":
        colours[-1] = "0.8"
    axes.stackplot(np.asarray(steps)[seen], shares[:, seen], labels=labels, colors=colours)
    axes.set(xlabel="environment steps", ylabel="share of pairs decided", ylim=(0, 1))
    axes.margins(x=0)
    axes.legend(loc="lower right", fontsize="small")
    return axes
