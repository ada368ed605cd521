"""Starting a worker, talking to it with a wall-clock limit, and leaving nothing of it behind."""

import contextlib
import functools
import json
import os
import selectors
import signal
import site
import struct
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax

import reward_design
from reward_design.llm.refusal import STAGES, CandidateRefused

START_LIMIT = 60.0
"""Seconds that a worker has to start, which is not the candidate's time."""
MEMORY = 4 * 2**30
"""Address space of a worker in bytes; JAX itself maps about one gigabyte of it."""
LARGEST_ANSWER = 4 * 2**20
CLOSING = 2.0
"""Seconds that a worker which closed its channel has to end by itself."""
_START = "import sys; sys.path[:0] = [{root!r}]; from reward_design.llm.worker import main; main()"


class Worker:
    """One process for one candidate; a context manager that leaves nothing behind.

    Args:
        time_limit: seconds of CPU time that it gets once its walls stand.
        skip: walls to leave out.
    """

    def __init__(self, *, time_limit: float, skip: tuple[str, ...] = ()) -> None:
        self.limits = {
            "address_space": MEMORY, "cpu": time_limit, "files": 64, "readable": readable_paths(), "skip": list(skip),
        }  # fmt: skip
        self.process: subprocess.Popen[bytes] | None = None
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._unread = b""
        self._nested = False
        """Whether the candidate is a child of the process that was started, which then ends and buries it."""

    def __enter__(self) -> "Worker":
        self._folder = tempfile.TemporaryDirectory(prefix="candidate-")
        root = os.path.dirname(os.path.dirname(os.path.abspath(reward_design.__file__)))
        command = [sys.executable, "-I", "-B", "-c", _START.format(root=root), json.dumps(self.limits)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment(),
            cwd=self._folder.name, close_fds=True, start_new_session=True,
        )  # fmt: skip
        return self

    def __exit__(self, *_: Any) -> None:
        assert self.process is not None
        assert self._folder is not None
        if self._nested:
            self.process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(2.0)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                pipe.close()  # pyright: ignore[reportOptionalMemberAccess]
        self.process.wait()
        self._folder.cleanup()

    def start(self) -> dict[str, Any]:
        """Wait until the walls stand; what was reached."""
        reached = self._message(time.monotonic() + START_LIMIT, "start")
        if not isinstance(reached, dict) or not {"level", "features"} <= set(reached):
            raise CandidateRefused("worker", "the checker did not start properly; see that jax works in this Python.")
        self._nested = "namespaces" in reached["features"]
        return reached

    def ask(self, job: Mapping[str, Any], time_limit: float) -> dict[str, Any]:
        """Send the job and wait for the answer.

        Raises:
            CandidateRefused: if the worker refused the candidate, ended, or took too long.
        """
        deadline = time.monotonic() + time_limit
        data = json.dumps(job).encode()
        with contextlib.suppress(BrokenPipeError):
            self._write(struct.pack(">I", len(data)) + data, deadline)
        answer = self._message(deadline, "time")
        if not isinstance(answer, dict):
            raise CandidateRefused("worker", "the program answered for the checker; return a reward and nothing else.")
        if "reason" in answer:
            stage, reason = answer.get("stage"), answer["reason"]
            if not isinstance(stage, str) or stage not in STAGES or not isinstance(reason, str):
                stage, reason = "worker", "the program answered for the checker; return a reward and nothing else."
            raise CandidateRefused(stage, reason[:1000])
        return answer

    # --- pipes ------------------------------------------------------------------------------------------------------

    def _write(self, data: bytes, deadline: float) -> None:
        pipe = self.process.stdin  # pyright: ignore[reportOptionalMemberAccess]
        os.set_blocking(pipe.fileno(), False)  # pyright: ignore[reportOptionalMemberAccess]
        while data:
            self._wait(pipe, selectors.EVENT_WRITE, deadline, "time")
            data = data[os.write(pipe.fileno(), data[:65_536]) :]  # pyright: ignore[reportOptionalMemberAccess]

    def _message(self, deadline: float, stage: str) -> Any:
        (length,) = struct.unpack(">I", self._read(4, deadline, stage))
        if length > LARGEST_ANSWER:
            raise CandidateRefused(
                "worker", f"the answer has {length} bytes, at most {LARGEST_ANSWER} are read; make it smaller."
            )
        try:
            return json.loads(self._read(length, deadline, stage))
        except (ValueError, RecursionError):
            raise CandidateRefused("worker", "the program wrote into the checker's channel; write nothing.") from None

    def _read(self, count: int, deadline: float, stage: str) -> bytes:
        pipe = self.process.stdout  # pyright: ignore[reportOptionalMemberAccess]
        while len(self._unread) < count:
            self._wait(pipe, selectors.EVENT_READ, deadline, stage)
            part = os.read(pipe.fileno(), 65_536)  # pyright: ignore[reportOptionalMemberAccess]
            if not part:
                raise self._ended(deadline, stage)
            self._unread += part
        data, self._unread = self._unread[:count], self._unread[count:]
        return data

    def _wait(self, pipe: Any, event: int, deadline: float, stage: str) -> None:
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            if selector.select(max(0.0, deadline - time.monotonic())):
                return
        if stage == "start":
            raise CandidateRefused(
                "worker", f"the checker did not start within {START_LIMIT:g} s; the machine may be busy."
            )
        raise CandidateRefused(
            "time", f"the program took longer than {self.limits['cpu']:g} s; write no long or endless loops."
        )

    def _ended(self, deadline: float, stage: str) -> CandidateRefused:
        """Why the channel was closed; a program can also close it and go on, which no limit but this one ends."""
        try:
            grace = max(CLOSING, deadline - time.monotonic()) if stage == "start" else CLOSING
            code = self.process.wait(grace)  # pyright: ignore[reportOptionalMemberAccess]
        except subprocess.TimeoutExpired:
            return CandidateRefused(
                "worker", "the program closed the checker's channel; return a reward and nothing else."
            )
        number = -code if code < 0 else code - 128 if code > 128 else 0
        if stage == "start":
            return CandidateRefused("worker", f"the checker ended with code {code} before it read the program.")
        if number in (signal.SIGXCPU, signal.SIGKILL):
            return CandidateRefused("time", "the program used up its CPU time; write no long or endless loops.")
        if number in (signal.SIGABRT, signal.SIGBUS):
            return CandidateRefused("memory", "the program ran out of memory; use smaller arrays and constants.")
        if number:
            name = signal.Signals(number).name if number in list(signal.Signals) else str(number)
            return CandidateRefused("worker", f"the program crashed the checker ({name}); write plain array code.")
        return CandidateRefused("worker", "the program ended the checker; return a reward and nothing else.")


def environment() -> dict[str, str]:
    """The whole environment of a worker: nothing of the user's."""
    one = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "OPENBLAS", "MKL")}
    return {"JAX_PLATFORMS": "cpu", "PYTHONHASHSEED": "0", "TF_CPP_MIN_LOG_LEVEL": "3", **one}


@functools.cache
def readable_paths() -> list[str]:
    """Files and folders that Python and JAX themselves read."""
    own = [sys.prefix, sys.base_prefix, *sysconfig.get_paths().values(), *site.getsitepackages()]
    packages = [os.path.dirname(os.path.abspath(str(module.__file__))) for module in (jax, reward_design)]
    linked = [os.path.realpath(os.path.join(packages[1], name)) for name in ("envs", "agents")]
    system = [
        "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/dev/null", "/dev/urandom",
        "/sys/devices/system/cpu",
    ]  # fmt: skip
    return sorted({os.path.realpath(path) for path in (*own, *packages, *linked, *system)} - {"/", "/usr"})
