"""How the line of a design looks: its colour and its dashes, which together belong to one design alone.

Eyes without one of the three kinds of cones tell about five colours apart on white and on black, so the first five
designs have solid lines and the others five colours for every pattern of dashes.
"""

from collections.abc import Iterable
from itertools import product
from typing import Any, NamedTuple

INK = "#1d1f24"
"""Colour of text and of the true reward."""
TRUE_REWARD = "true reward"
"""Name of the task's own reward among the designs."""
SOLID = "solid"
DASHES = ((0, (3, 1.8)), (0, (8, 1.5, 1.2, 1.5)), (0, (1, 1.4)), (0, (3.5, 1.3, 1, 1.3, 1, 1.3)))
"""Dashed, dash-dot, dotted, dash-dot-dot, as matplotlib takes them."""
SKY, BROWN, OLIVE, INDIGO, ROSE = COLOURS = ("#56b4e9", "#8c5a2b", "#b5a100", "#5058b0", "#e07b91")
"""Colours of lines with dashes."""


class Look(NamedTuple):
    """Of a line.

    Attributes:
        colour: as ``#rrggbb``.
        dashes: a line style of matplotlib.
    """

    colour: str
    dashes: Any = SOLID

    @property
    def line(self) -> dict[str, Any]:
        """As arguments of ``Axes.plot``."""
        return {"color": self.colour, "linestyle": self.dashes}


_DASHED, _DASH_DOT, _DOTTED, _ = DASHES
_KNOWN = {
    "sparse": Look("#8b8f98"),
    "dense": Look("#1f86c8"),
    "shaping": Look("#009e73"),
    "aligned": Look("#e09c00"),
    "misaligned": Look("#d55e00"),
    "barfi": Look(INDIGO, _DASHED),
    "naive": Look(ROSE, _DASHED),
    "heron": Look(OLIVE, _DASHED),
    "llm": Look(SKY, _DASHED),
    "rudder": Look(BROWN, _DASHED),
    "count_bonus": Look(ROSE, _DASH_DOT),
    "spa": Look(BROWN, _DASH_DOT),
    "environment": Look(INDIGO, _DASH_DOT),
    "return_decomposition": Look(SKY, _DASH_DOT),
    "uniform": Look(OLIVE, _DASH_DOT),
    "ircr": Look(ROSE, _DOTTED),
    "rrd": Look(INDIGO, _DOTTED),
    TRUE_REWARD: Look(INK),
}


def looks(names: Iterable[str]) -> dict[str, Look]:
    """A look per design, no two alike up to twenty designs of your own; the package's own always have the same one.

    Args:
        names: of designs, those with an argument behind a slash included; the first of those that share what stands
            before it has the look of that name.

    Example:
        >>> looks(["sparse", "my:own"])["sparse"].line
        {'color': '#8b8f98', 'linestyle': 'solid'}
        >>> looks(["barfi/aligned"]) == {"barfi/aligned": looks(["barfi"])["barfi"]}
        True
    """
    names = list(dict.fromkeys(names))
    found: dict[str, Look] = {name: _KNOWN[name] for name in names if name in _KNOWN}
    for name in names:
        known = _KNOWN.get(name.partition("/")[0])
        if known is not None and known not in found.values():
            found.setdefault(name, known)
    pool = [Look(colour, dashes) for dashes, colour in product(DASHES, COLOURS)]
    free = [look for look in pool if look not in found.values()] or pool
    own = [name for name in names if name not in found]
    found |= {name: free[i % len(free)] for i, name in enumerate(own)}
    return {name: found[name] for name in names}
