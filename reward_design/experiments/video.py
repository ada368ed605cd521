"""Videos: a writer for mp4 and gif, and the strip under a frame that tells what was paid for the step."""

import contextlib
import shutil
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from reward_design.envs.rendering import INK, PAPER, font

SUFFIXES = (".mp4", ".gif")
STRIP = 46
"""Height of the strip in pixels."""
MIN_WIDTH = 360
"""Narrower frames are enlarged as often as they fit, and centred, so that the strip can be read."""


class Mp4Writer:
    """H.264 by ffmpeg; the file grows as frames come, and what was written can be watched after an interrupt.

    A thread hands the frames over: Ctrl-C only ever reaches the main thread, so each frame arrives and is counted
    whole or not at all.
    """

    def __init__(self, path: Path, fps: float) -> None:
        self._path, self._fps, self._program = path, fps, ffmpeg()
        self._thread = ThreadPoolExecutor(1, "video")
        self._process: subprocess.Popen[bytes] | None = None
        self.frames = 0

    def add(self, frame: np.ndarray) -> None:
        """One more frame; sides are made even, as the format wants them."""
        self._thread.submit(self._write, frame).result()

    def _write(self, frame: np.ndarray) -> None:
        height, width = frame.shape[:2]
        frame = np.pad(frame, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge")
        if self._process is None:
            self._process = self._started(*frame.shape[:2])
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(frame.tobytes())
            self.frames += 1
        except BrokenPipeError:
            self._finish()

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: if ffmpeg could not write it.
        """
        self._thread.shutdown()
        self._finish()

    def _finish(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        assert process.stdin is not None
        assert process.stderr is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        said = process.stderr.read().decode(errors="replace").strip().splitlines()
        process.stderr.close()
        if process.wait():
            self.frames = 0
            raise OSError(f"ffmpeg could not write {self._path}: {said[-1] if said else 'it gave no reason'}.")

    def _started(self, height: int, width: int) -> "subprocess.Popen[bytes]":
        raw = ["-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}", "-r", f"{self._fps:g}", "-i", "-"]
        coded = ["-an", "-c:v", "libx264", "-pix_fmt", "yuv420p", "-crf", "20", str(self._path)]
        # A process group of its own, so that Ctrl-C leaves it to finish the file.
        return subprocess.Popen(
            [self._program, "-y", "-loglevel", "error", *raw, *coded],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, process_group=0,
        )  # fmt: skip


def ffmpeg() -> str:
    """Path of the program: that of the package imageio-ffmpeg, or the system's.

    Raises:
        ImportError: if there is neither.
    """
    try:
        import imageio_ffmpeg

        return imageio_ffmpeg.get_ffmpeg_exe()
    except (ImportError, RuntimeError) as error:
        found = shutil.which("ffmpeg")
        if found is None:
            raise ImportError(
                "writing mp4 needs ffmpeg, which the extra 'video' brings: pip install imageio-ffmpeg; or choose a "
                "name that ends in .gif."
            ) from error
        return found


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


def writer(path: Path, fps: float) -> Mp4Writer | GifWriter:
    """A video file; what it can be is checked before anything is played.

    Args:
        path: ends in ``.mp4`` (needs ffmpeg, which the package imageio-ffmpeg brings) or ``.gif``; its folder is made.
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


class Framing:
    """Frames of one size, whatever comes: the first one's, at least :data:`MIN_WIDTH` wide, with a strip below."""

    def __init__(self) -> None:
        self.size: tuple[int, int] | None = None
        self._factor = 1

    def __call__(self, frame: np.ndarray, lines: Sequence[str]) -> np.ndarray:
        """The frame over a strip with two lines of text."""
        from PIL import Image, ImageDraw

        frame = np.asarray(frame, np.uint8)[..., :3]
        if self.size is None:
            self._factor = max(1, MIN_WIDTH // frame.shape[1])
            self.size = max(frame.shape[1] * self._factor, MIN_WIDTH), frame.shape[0] * self._factor
        frame = frame.repeat(self._factor, axis=0).repeat(self._factor, axis=1)
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
