"""A worker process of a :class:`ProcessVectorEnv`, from both ends of its pipe."""

import contextlib
import os
import pickle
import signal
import threading
import time
import traceback
from collections.abc import Sequence
from multiprocessing import connection, parent_process
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from reward_design.envs.process_memory import Memory, Path, at

DONE, CLOSE = b".", b"c"
STEP = (b"0", b"1")
"""Command to step, by the slot that the observations and infos go to."""
GRACE = 2.0
"""Seconds that a worker has to close its environments before it is killed."""


class Worker:
    """One process and its end of the pipe.

    Args:
        processes: multiprocessing context.
        lanes: numbers of the lanes that it steps.
        shared: factory (pickled), shared memory and its layout.
        start_timeout: seconds that it may take to start.

    Attributes:
        misfit: whether it ended over an observation that does not fit its space, which no new process would mend.
    """

    def __init__(self, processes: Any, lanes: np.ndarray, shared: tuple[bytes, Any, Memory], start_timeout: float):
        self._processes, self._shared = processes, shared
        self.lanes, self.start_timeout, self.faults_in_row = lanes.tolist(), start_timeout, 0
        self.trace, self.misfit = "", False
        self.start()

    def __str__(self) -> str:
        first, last = self.lanes[0], self.lanes[-1]
        return f"the worker of lane {first}" if first == last else f"the worker of lanes {first} to {last}"

    def start(self) -> None:
        """Start the process; its first answer says whether it could make its environments."""
        make, buffer, memory = self._shared
        self.pipe, theirs = self._processes.Pipe()
        arguments = (theirs, make, self.lanes[0], len(self.lanes), buffer, memory)
        self.process: Any = self._processes.Process(target=work, args=arguments, daemon=True, name=str(self))
        self.process.start()
        theirs.close()  # so that the death of the process closes the pipe
        self.waiting = True

    def send(self, command: bytes) -> None:
        """Send a command; that nobody listens is noticed with the answer."""
        self.waiting = True
        with contextlib.suppress(OSError):
            self.pipe.send_bytes(command)

    def send_reset(self, seeds: Sequence[int | None], options: Any, slot: int) -> None:
        """Send the command to reset, with the seeds of all lanes; observations go to ``slot``."""
        self.send(pickle.dumps(([seeds[lane] for lane in self.lanes], options or None, slot)))

    def answer(self, timeout: float) -> str | None:
        """None once the last command is done, or else what happened instead; then the process has ended."""
        try:
            if not self.pipe.poll(max(timeout, 0.0)):
                self.end(0.0)
                return "did not answer in time"
            reply = self.pipe.recv_bytes()
            self.waiting = False
        except (EOFError, OSError):
            return f"died with exit code {self.end(GRACE)}"
        if reply == DONE:
            return None
        lane, kind, text, self.trace, self.misfit = pickle.loads(reply)
        self.end(GRACE)
        return f"raised {kind} in lane {lane}: {text.rstrip('.')}"

    @property
    def alive(self) -> bool:
        """Whether there is a process that runs."""
        return self.process is not None and self.process.is_alive()

    def end(self, grace: float) -> int | None:
        """Wait ``grace`` seconds for the process to end, then kill it; leaves no zombie. Returns the exit code."""
        process, self.process, self.waiting = self.process, None, False
        if process is None:
            return None
        process.join(grace)
        if process.is_alive():
            process.kill()
        process.join()
        self.pipe.close()
        code = process.exitcode
        process.close()
        return code


def end_all(workers: list[Worker]) -> None:
    """End all workers, in ``GRACE`` seconds, and empty the list."""
    for worker in workers:
        worker.send(CLOSE)
    deadline = time.monotonic() + GRACE
    for worker in workers:
        worker.end(max(0.0, deadline - time.monotonic()))
    workers.clear()


class Lanes:
    """The environments of one worker, and the rows of shared memory that they write.

    Attributes:
        current: the lane at work, to blame for an error.
        misfit: whether the error is an observation that does not fit its space.
    """

    def __init__(self, first: int, num_lanes: int, buffer: Any, memory: Memory) -> None:
        views = memory.views(buffer)
        self._obs = [(path[1:], view, view.shape[2:]) for path, view in views.items() if path[0] == "obs"]
        self._final = [(path[1:], view, view.shape[1:]) for path, view in views.items() if path[0] == "final_obs"]
        self._info = [(path[1], view) for path, view in views.items() if path[0] == "info"]
        self._reward, self._terminated, self._truncated = (
            views[(name,)] for name in ("reward", "terminated", "truncated")
        )
        self._action = {path[1:]: view for path, view in views.items() if path[0] == "action"}
        self._lanes = range(first, first + num_lanes)
        self._envs: list[gymnasium.Env] = []
        self.current, self.misfit = first, False

    def open(self, make: bytes) -> None:
        """Make the environments with a pickled factory."""
        factory = pickle.loads(make)
        for lane in self._lanes:
            self.current = lane
            self._envs.append(factory())
        self._action_space = self._envs[0].action_space
        self._discrete = isinstance(self._action_space, spaces.Discrete)

    def reset(self, seeds: list[int | None], options: Any, slot: int) -> None:
        """Reset all lanes. Entries that the info of a reset lacks become 0."""
        for lane, env, seed in zip(self._lanes, self._envs, seeds, strict=True):
            self.current = lane
            obs, info = env.reset(seed=seed, options=options)
            self._write(self._obs, (slot, lane), env, obs)
            for name, view in self._info:
                view[slot, lane] = info.get(name, 0)

    def step(self, slot: int) -> None:
        """Step all lanes with the actions in shared memory, and reset those that ended."""
        for lane, env in zip(self._lanes, self._envs, strict=True):
            self.current = lane
            obs, self._reward[lane], terminated, truncated, info = env.step(self._action_of(lane))
            self._terminated[lane], self._truncated[lane] = terminated, truncated
            for name, view in self._info:
                if name not in info:
                    raise KeyError(f"every step must give the info entry {name!r}, got {sorted(map(str, info))}")
                view[slot, lane] = info[name]
            if terminated or truncated:
                self._write(self._final, lane, env, obs)
                obs, _ = env.reset()
            self._write(self._obs, (slot, lane), env, obs)

    def close(self) -> None:
        """Close all environments, whatever they say."""
        for env in self._envs:
            with contextlib.suppress(Exception):
                env.close()

    def _write(self, views: list[tuple[Path, np.ndarray, tuple]], row: Any, env: gymnasium.Env, obs: Any) -> None:
        path, shape = (), ()
        try:
            for path, view, shape in views:
                part = at(obs, path)
                if getattr(part, "shape", ()) != shape and np.shape(part) != shape:  # which NumPy would broadcast
                    raise ValueError(f"it must have shape {shape}, got {np.shape(part)}")
                view[row] = part
        except (KeyError, IndexError, TypeError, ValueError) as error:
            from reward_design.envs.observations import amiss  # imports JAX, which the server of processes shall not

            self.misfit, name = True, env.spec.id if env.spec else type(env.unwrapped).__name__
            entry = "".join(f"[{key!r}]" for key in path)
            told = f"{name!r}: the observation{entry} does not fit its space: {error}; correct one of them."
            raise ValueError(amiss(name, env.observation_space, obs) or told) from error

    def _action_of(self, lane: int) -> Any:
        if self._discrete:
            return self._action[()][lane]

        def build(space: spaces.Space, path: Path) -> Any:
            if isinstance(space, spaces.Dict):
                return {name: build(part, (*path, name)) for name, part in space.items()}
            if isinstance(space, spaces.Tuple):
                return tuple(build(part, (*path, i)) for i, part in enumerate(space))
            action = self._action[path][lane]
            return action.copy() if isinstance(action, np.ndarray) else action

        return build(self._action_space, ())


def work(pipe: Any, make: bytes, first: int, num_lanes: int, buffer: Any, memory: Memory) -> None:
    """Body of a worker process: make environments, then reset and step them on command until the pipe closes.

    Every command is answered by ``DONE``, or by ``(lane, name of the error, text, traceback, misfit)``, pickled, after
    which the process ends. Ctrl-C is left to the parent; if the parent dies, so does the worker, even in a hung
    environment.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with_parent, daemon=True).start()
    lanes = Lanes(first, num_lanes, buffer, memory)
    try:
        lanes.open(make)
        pipe.send_bytes(DONE)
        while (command := pipe.recv_bytes()) != CLOSE:
            if command in STEP:
                lanes.step(STEP.index(command))
            else:
                lanes.reset(*pickle.loads(command))
            pipe.send_bytes(DONE)
    except EOFError:
        pass
    except Exception as error:
        with contextlib.suppress(OSError):
            told = (type(error).__name__, str(error), traceback.format_exc())
            pipe.send_bytes(pickle.dumps((lanes.current, *told, lanes.misfit)))
    finally:
        lanes.close()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)
