"""Where the frames of episodes go: a video, the terminal, or nowhere."""

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from rich.console import Console

from reward_design.core import Output, Transition
from reward_design.envs import mujoco_gl
from reward_design.envs.base import Task
from reward_design.experiments import video

TERMINAL_FPS = 8.0
MEMORY = 128 * 2**20
"""Bytes of frames of one episode that stay in memory; more go to a temporary file."""


class Frames:
    """Frames of one episode: pictures in a temporary file once they are many, or texts."""

    def __init__(self) -> None:
        self._file = tempfile.SpooledTemporaryFile(MEMORY)  # noqa: SIM115  (closed by __exit__)
        self._shapes: list[tuple[int, ...]] = []
        self._texts: list[str] = []

    def __enter__(self) -> "Frames":
        return self

    def __exit__(self, *_: Any) -> None:
        self._file.close()

    def add(self, frame: Any) -> None:
        """A picture ``[H, W, 3]`` or a text."""
        if isinstance(frame, np.ndarray):
            self._shapes.append(frame.shape)
            self._file.write(np.ascontiguousarray(frame, np.uint8).tobytes())
        else:
            self._texts.append(frame if isinstance(frame, str) else frame.getvalue())

    def __iter__(self) -> Iterator[Any]:
        yield from self._texts
        self._file.seek(0)
        for shape in self._shapes:
            yield np.frombuffer(self._file.read(int(np.prod(shape))), np.uint8).reshape(shape)


class Played(NamedTuple):
    """An episode that is over."""

    task: str
    number: int
    rows: Transition
    output: Output | None

    def lines(self) -> Iterator[tuple[str, str]]:
        """Two lines for every frame: where it is, and what was paid so far."""
        true = self.rows.reward[:, 0]
        shaped = None if self.output is None else self.output.reward[:, 0]
        for step in range(len(true) + 1):
            paid = [_paid("true", true, step)] + ([] if shaped is None else [_paid("shaped", shaped, step)])
            yield f"{self.task}   episode {self.number}   step {step}", "   ".join(paid)


def _paid(name: str, rewards: np.ndarray, step: int) -> str:
    now = rewards[step - 1] if step else 0.0
    return f"{name} {now:+.3f}, sum {rewards[:step].sum(dtype=np.float64):.3f}"


class Screen:
    """Nowhere."""

    mode: str | None = None

    def look(self, env: gymnasium.Env, frames: Frames | None) -> None:
        """Keep what there is to see."""
        if frames is not None and self.mode is not None:
            frames.add(env.render())

    def show(self, played: Played, frames: Frames) -> None:
        """Bring out the frames of an episode."""

    def close(self) -> None:
        """Nothing more comes."""


class Video(Screen):
    """A file."""

    mode = "rgb_array"

    def __init__(self, path: Path, fps: float, console: Console) -> None:
        self._path, self._writer, self._console = path, video.writer(path, fps), console
        self._framing = video.Framing()

    def look(self, env: gymnasium.Env, frames: Frames | None) -> None:
        """Keep the picture; a failure ends the video and nothing else."""
        if frames is None or self.mode is None:
            return
        try:
            frames.add(env.render())
        except Exception as error:  # drivers and libraries of all kinds; the episodes are what counts
            self.mode = None
            note_line(f"no video: drawing failed with {type(error).__name__}: {_first_line(error)}")

    def show(self, played: Played, frames: Frames) -> None:
        """Write the frames with their strips."""
        if self.mode is not None:
            for frame, lines in zip(frames, played.lines(), strict=True):
                self._writer.add(self._framing(frame, lines))

    def close(self) -> None:
        """Finish the file and name it."""
        self._writer.close()
        if self._writer.frames:
            self._console.print(f"video: {self._path} ({self._writer.frames} frames)", highlight=False)


class Terminal(Screen):
    """Standard output; over each other on a terminal, one after the other elsewhere."""

    mode = "ansi"

    def __init__(self, fps: float, console: Console) -> None:
        self._pause, self._console = 1.0 / fps, console

    def show(self, played: Played, frames: Frames) -> None:
        """Print the frames."""
        live = self._console.is_terminal
        for frame, lines in zip(frames, played.lines(), strict=True):
            page = "\n".join([frame.rstrip(), *lines, "", ""])
            self._console.file.write("\x1b[H\x1b[2J" + page if live else page)
            self._console.file.flush()
            if live:
                time.sleep(self._pause)


def screen_for(
    task: Task, path: str | os.PathLike[str] | None, fps: int | float | None, terminal: bool, console: Console
) -> Screen:
    """Where frames of a task go; nowhere, with a sentence, if a video was asked for and nothing can be drawn.

    Raises:
        ValueError: for a file that is no video, or a task without pictures in text on the terminal.
    """
    if path is None and not terminal:
        return Screen()
    probe = task.make()
    usual = probe.metadata.get("render_fps") or 30
    problem = None if terminal else mujoco_gl.prepare(probe)
    probe.close()
    if terminal:
        if not _draws(task, "ansi"):
            raise ValueError(f"task {task.name!r} has no pictures in text (render mode 'ansi'); make a video.")
        return Terminal(float(fps or TERMINAL_FPS), console)
    assert path is not None
    screen = Video(Path(path), float(fps or usual), console)
    if problem is None and not _draws(task, "rgb_array"):
        problem = f"task {task.name!r} has no pictures (render mode 'rgb_array')."
    if problem is None:
        return screen
    screen.close()
    note_line(f"no video: {problem}")
    return Screen()


def _draws(task: Task, mode: str) -> bool:
    """Whether a task has a render mode; what it says of itself is not always complete."""
    probe = task.make()
    known = mode in probe.metadata.get("render_modes", [])
    probe.close()
    if known:
        return True
    try:
        with warnings.catch_warnings(action="ignore"):
            env = task.make(render_mode=mode)
            env.reset(seed=0)
            frame = env.render()
            env.close()
    except Exception:  # whatever an environment raises for a mode that it does not have
        return False
    return isinstance(frame, (np.ndarray, str))


def note_line(sentence: str) -> None:
    """One line on standard error."""
    print(sentence, file=sys.stderr)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or ["no message"])[0]
