"""Pictures of learning from ranks."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes


def deciding_levels(steps: Any, metrics: Mapping[str, Any], axes: Axes, *, levels: Sequence[str] | None = None) -> Axes:
    """Which level of a ranking decides the compared pairs, over training: a stack of shares that sum to 1.

    Args:
        steps: ``[U]`` environment steps.
        metrics: arrays ``[U]`` by name, among them ``decided/<level>`` and ``decided/tie``, with or without ``reward/``
            in front, as the agents report them.
        axes: where to draw.
        levels: names of the levels, the most important one at the bottom; by default in the order of ``metrics``.

    Returns:
        ``axes``.

    Raises:
        ValueError: without such metrics, or for a level that they do not have.
    """
    known = {name.removeprefix("reward/decided/"): value for name, value in metrics.items() if "decided/" in name}
    known = {name.removeprefix("decided/"): np.asarray(value, float) for name, value in known.items()}
    names = [name for name in known if name != "tie"] if levels is None else list(levels)
    if not names or not set(names) <= set(known):
        raise ValueError(
            f"expected metrics called decided/<level>{f' for {names}' if names else ''}, got "
            f"{', '.join(known) or 'none'}; they come from a reward such as heron."
        )
    names += ["tie"] * ("tie" in known)
    shares = np.stack([known[name] for name in names])
    seen = np.isfinite(shares).all(axis=0)
    colours = [f"C{i}" for i in range(len(names))]
    if names[-1] == "tie":
        colours[-1] = "0.8"
    axes.stackplot(np.asarray(steps)[seen], shares[:, seen], labels=names, colors=colours)
    axes.set(xlabel="environment steps", ylabel="share of pairs decided", ylim=(0, 1))
    axes.margins(x=0)
    axes.locator_params(axis="x", nbins=4)
    axes.legend(loc="lower right", fontsize="small")
    return axes
