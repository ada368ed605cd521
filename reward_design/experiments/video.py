"""Videos: a writer for mp4 and gif, and the strip under a frame that tells what was paid for the step."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from reward_design.envs.rendering import INK, PAPER, font

SUFFIXES = (".mp4", ".gif")
STRIP = 46
"""Height of the strip in pixels."""
MIN_WIDTH = 360
"""Narrower frames are centred on a wider one, so that the strip can be read."""


class Writer(Protocol):
    """Takes frames one by one."""

    frames: int

    def add(self, frame: np.ndarray) -> None:
        """One more frame ``[H, W, 3]`` uint8."""
        ...

    def close(self) -> None:
        """Finish the file."""
        ...


def writer(path: Path, fps: float) -> Writer:
    """A video file; what it can be is checked before anything is played.

    Args:
        path: ends in ``.mp4`` (needs imageio and imageio-ffmpeg) or ``.gif``; its folder is made.
        fps: frames per second.

    Raises:
        ValueError: for another suffix, or a rate that is not positive.
        ImportError: if what writes mp4 is not installed.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ValueError(f"a video must end in {' or '.join(SUFFIXES)}, got {str(path)!r}.")
    if not fps > 0:
        raise ValueError(f"fps must be above 0, got {fps}.")
    path.parent.mkdir(parents=True, exist_ok=True)
    return GifWriter(path, fps) if path.suffix.lower() == ".gif" else Mp4Writer(path, fps)


class Mp4Writer:
    """H.264 by ffmpeg; the file grows as frames come, and what was written can be watched after an interrupt."""

    def __init__(self, path: Path, fps: float) -> None:
        try:
            import imageio
            import imageio_ffmpeg  # noqa: F401  (imageio finds it by itself)
        except ImportError as error:
            raise ImportError(
                "writing mp4 needs imageio and ffmpeg: pip install imageio imageio-ffmpeg; or choose a name in .gif."
            ) from error
        self._writer: Any = imageio.get_writer(path, fps=fps, codec="libx264", macro_block_size=2, quality=8)
        self.frames = 0

    def add(self, frame: np.ndarray) -> None:
        """One more frame; sides are made even, as the format wants them."""
        height, width = frame.shape[:2]
        self._writer.append_data(np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge"))
        self.frames += 1

    def close(self) -> None:
        """Finish the file."""
        self._writer.close()


class GifWriter:
    """By Pillow; frames are kept in memory with 8 bits per pixel, so it is for short videos."""

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._duration = path, max(20, round(1000 / fps))  # viewers slow down what is shorter
        self._frames: list[Any] = []
        self.frames = 0

    def add(self, frame: np.ndarray) -> None:
        """One more frame."""
        from PIL import Image

        palette = Image.Palette.ADAPTIVE
        self._frames.append(Image.fromarray(frame).convert("P", palette=palette, colors=128))
        self.frames += 1

    def close(self) -> None:
        """Write the file."""
        if self._frames:
            first, *others = self._frames
            first.save(self._path, save_all=True, append_images=others, duration=self._duration, loop=0)


class Framing:
    """Frames of one size, whatever comes: the first one's, at least :data:`MIN_WIDTH` wide, with a strip below."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None

    def __call__(self, frame: np.ndarray, lines: Sequence[str]) -> np.ndarray:
        """The frame over a strip with two lines of text."""
        from PIL import Image, ImageDraw

        frame = np.asarray(frame, np.uint8)[..., :3]
        if self.size is None:
            height, width = frame.shape[:2]
            self.size = max(width, MIN_WIDTH), height
        width, height = self.size
        page = Image.new("RGB", (width, height + STRIP), PAPER)
        picture = Image.fromarray(frame)
        if picture.width > width or picture.height > height:
            picture.thumbnail((width, height))
        page.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
        draw = ImageDraw.Draw(page)
        for number, line in enumerate(lines):
            draw.text((8, height + 4 + 20 * number), line, fill=INK, font=font(14))
        return np.asarray(page)
