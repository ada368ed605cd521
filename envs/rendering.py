"""Drawing pictures of environments: a canvas in the units of the problem, and what has no picture of its own."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

Number = int | float | np.number
Point = tuple[Number, Number]
Picture = UInt8[np.ndarray, "height width 3"]

PAPER, INK, GREY, LIGHT = "#fbfaf6", "#27313d", "#9aa4b0", "#dfe3e8"
BLUE, ORANGE, GREEN, RED, GOLD, BROWN = "#2f6db5", "#e07b39", "#3b9d6a", "#c8473f", "#e0b13a", "#8a5a36"
SMOOTH = 2
"""Pixels are drawn this many times finer on each axis and then averaged, which smooths edges."""


class Canvas:
    """A picture to draw on, in world coordinates with x to the right and y upwards.

    Args:
        size: width and height in pixels.
        world: ``(left, bottom, right, top)`` of what the picture shows.
        background: colour.
    """

    def __init__(self, size: tuple[int, int], world: tuple[Number, Number, Number, Number], background: str = PAPER):
        from PIL import Image, ImageDraw

        self.size = size
        self._image = Image.new("RGB", (size[0] * SMOOTH, size[1] * SMOOTH), background)
        self._draw = ImageDraw.Draw(self._image)
        left, bottom, right, top = world
        self._origin = np.array([left, top])
        self._scale = np.array([size[0] / (right - left), -size[1] / (top - bottom)]) * SMOOTH

    def polygon(self, points: Sequence[Point], colour: str) -> None:
        """Filled polygon."""
        self._draw.polygon([self._at(p) for p in points], fill=colour)

    def box(self, corner: Point, opposite: Point, colour: str, *, radius: Number = 0) -> None:
        """Filled rectangle with rounded corners; ``radius`` in world units."""
        (x0, y0), (x1, y1) = self._at(corner), self._at(opposite)
        left, upper = min(x0, x1), min(y0, y1)
        area = (left, upper, max(left, x0 - 1, x1 - 1), max(upper, y0 - 1, y1 - 1))
        self._draw.rounded_rectangle(area, radius * abs(self._scale[0]), fill=colour)

    def line(self, points: Sequence[Point], colour: str, width: Number) -> None:
        """Connected segments; ``width`` in pixels of the picture."""
        self._draw.line([self._at(p) for p in points], fill=colour, width=round(width * SMOOTH), joint="curve")

    def rod(self, start: Point, end: Point, colour: str, width: Number) -> None:
        """Thick line with round ends."""
        self.line([start, end], colour, width)
        for centre in (start, end):
            self.dot(centre, colour, width / 2)

    def dot(self, centre: Point, colour: str, radius: Number) -> None:
        """Filled circle; ``radius`` in pixels of the picture."""
        x, y = self._at(centre)
        r = radius * SMOOTH
        self._draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)

    def text(self, where: Point, words: str, colour: str = INK, size: Number = 14, anchor: str = "mm") -> None:
        """Words around a point; ``anchor`` as in Pillow (``mm`` centred, ``lm`` from the left)."""
        self._draw.text(self._at(where), words, fill=colour, font=font(size * SMOOTH), anchor=anchor)

    def picture(self) -> Picture:
        """What has been drawn."""
        from PIL import Image

        return np.asarray(self._image.resize(self.size, Image.Resampling.BOX))

    def _at(self, point: Point) -> tuple[float, float]:
        x, y = (np.asarray(point, float) - self._origin) * self._scale
        return float(x), float(y)


def font(size: Number) -> Any:
    """The font that comes with Pillow."""
    from PIL import ImageFont

    return ImageFont.load_default(float(size))


def numbers(obs: Any) -> Picture:
    """Bars of the numbers that an agent sees, for environments without a picture; at most 32 of them."""
    import jax

    named = [
        (jax.tree_util.keystr(path, simple=True, separator="."), value)
        for path, leaf in jax.tree_util.tree_leaves_with_path(obs)
        for value in np.ravel(np.asarray(leaf, float)).tolist()
    ]
    rows = max(min(len(named), 32), 1)
    canvas = Canvas((400, 24 * rows + 16), (-2.0, -rows - 1 / 3, 2.0, 1 / 3))
    canvas.line([(0, 1), (0, -rows - 1)], LIGHT, 1)
    for row, (name, value) in enumerate(named[:rows]):
        y = -row - 0.5
        reach = float(np.tanh(value / 2)) if np.isfinite(value) else 0.0
        canvas.box((0, y - 0.3), (reach, y + 0.3), BLUE if value >= 0 else ORANGE)
        canvas.text((-1.9, y), f"{name} {row}".strip(), GREY, 12, "lm")
        canvas.text((1.9, y), f"{value:.3g}", INK, 12, "rm")
    return canvas.picture()
