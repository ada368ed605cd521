"""Where the units of a comparison are trained: in this process, in worker processes, or on a Ray cluster.

An executor takes units and gives their records, in the order in which they end. The records are written by the caller
alone, so that a worker that is lost takes nothing with it but the unit that it was at.
"""

import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import warnings
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from reward_design._cores import num_cores
from reward_design._names import suggestion
from reward_design._optional import require
from reward_design.agents.settings import at_least
from reward_design.experiments import mail, units, worker
from reward_design.experiments.progress import Progress
from reward_design.experiments.units import Plan

EXECUTORS = ("here", "processes", "ray")
"""Names on the command line."""


@runtime_checkable
class Executor(Protocol):
    """Something that trains units."""

    def run(self, plans: Sequence[Plan], seeds: Sequence[int], bar: Progress) -> Iterator[dict[str, Any]]:
        """The record of every unit, in the order in which they end; a unit that cannot be trained has one as well."""
        ...


@dataclass(frozen=True)
class Here:
    """One unit after the other in this process, the seeds of each over all local devices."""

    def run(self, plans: Sequence[Plan], seeds: Sequence[int], bar: Progress) -> Iterator[dict[str, Any]]:
        """See :class:`Executor`."""
        for plan in plans:
            bar.begin(plan)
            record = units.run(plan, seeds, lambda *done, plan=plan: bar.advance(plan, *done))
            bar.end(plan, failed=record.get("reason", ""))
            yield record


@dataclass(frozen=True)
class Processes:
    """Units in worker processes of this machine, each with an even share of the cores.

    A worker that dies is replaced and its unit trained again, ``retries`` times; then the unit counts as failed, and
    the others go on. Workers end when this process does, however it ends.

    Attributes:
        num_workers: processes, at least 1.
        retries: of a unit whose worker died.
    """

    num_workers: int = 2
    retries: int = 2

    def __post_init__(self) -> None:
        at_least(self, 1, "num_workers")
        at_least(self, 0, "retries")

    def run(self, plans: Sequence[Plan], seeds: Sequence[int], bar: Progress) -> Iterator[dict[str, Any]]:
        """See :class:`Executor`."""
        waiting: deque[tuple[Plan, int]] = deque((plan, 0) for plan in plans)
        events: queue.Queue[tuple[_Worker, str, Any]] = queue.Queue()
        devices = max(1, num_cores() // self.num_workers)
        busy: set[_Worker] = set()

        def start() -> _Worker:
            busy.add(member := _Worker(events, devices))  # before it gets a unit: from here on an interrupt ends it
            return member

        try:
            for _ in range(min(self.num_workers, len(plans))):
                start().take(*waiting.popleft(), seeds, bar)
            while busy:
                member, kind, value = events.get()
                if member not in busy:  # it died after its last unit, which is not to be trained again
                    continue
                if kind == "progress":
                    bar.advance(member.plan, *value)
                    continue
                busy.discard(member)
                lost = kind == "lost"
                if lost and member.attempt < self.retries:
                    waiting.appendleft((member.plan, member.attempt + 1))
                else:
                    record = value
                    if kind != "record":
                        record = units.failed(units.header(member.plan, seeds), _gone(member) if lost else value)
                    bar.end(member.plan, failed=record.get("reason", ""))
                    yield record
                if waiting:
                    free = start() if lost else member
                    busy.add(free)
                    free.take(*waiting.popleft(), seeds, bar)
                elif not lost:
                    member.stop()
        finally:
            for member in busy:
                member.stop()


class _Worker:
    """A worker process, and a thread that passes on what it says."""

    def __init__(self, events: "queue.Queue[Any]", devices: int) -> None:
        environment = os.environ | {worker.DEVICES: str(devices), "OMP_NUM_THREADS": str(devices)}
        command = [sys.executable, "-m", worker.__name__]
        self.process: Any = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, start_new_session=True
        )
        self.plan: Any = None
        self.attempt = 0
        self.stopped = False
        self._send(sys.path)
        self.thread = threading.Thread(target=self._listen, args=(events,), daemon=True)
        self.thread.start()

    def take(self, plan: Plan, attempt: int, seeds: Sequence[int], bar: Progress) -> None:
        """Start on a unit."""
        data = worker.packed(plan, seeds)
        self.plan, self.attempt = plan, attempt
        bar.begin(plan)
        self._send(data)

    def stop(self) -> None:
        """End the process, at once."""
        self.stopped = True
        self.process.kill()
        self.thread.join()

    def _send(self, value: Any) -> None:
        with contextlib.suppress(
            BrokenPipeError, ValueError
        ):  # it has died, its pipe may be closed; the thread says so
            worker.write(self.process.stdin, value)

    def _listen(self, events: "queue.Queue[Any]") -> None:
        for kind, value in worker.messages(self.process.stdout):
            events.put((self, kind, value))
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):
                stream.close()
        if not self.stopped:
            events.put((self, "lost", None))


def _gone(member: _Worker) -> str:
    code = member.process.returncode
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    times = "once" if member.attempt == 0 else f"{member.attempt + 1} times"
    return f"its worker process {how} ({times}); the machine may be short of memory: use fewer workers."


@dataclass(frozen=True)
class RayCluster:
    """Units as tasks of Ray (``pip install 'reward-design[ray]'``), each on one core unless said otherwise.

    A unit whose worker or node is lost is trained again elsewhere by Ray. Units tell how far they are, and those that
    have not ended are cancelled when the driver is interrupted. The package, and modules of your own that rewards come
    from, must be importable on every node.

    Attributes:
        address: of the cluster: ``"auto"``, ``"ray://host:port"`` or ``"host:port"``; None starts one on this machine.
        retries: of a unit whose worker or node was lost.
        num_cpus: that a unit occupies.
        num_gpus: that a unit occupies.

    Raises:
        ConnectionError: if no cluster answers there, or none could be started.
    """

    address: str | None = None
    retries: int = 3
    num_cpus: float = 1
    num_gpus: float = 0

    def __post_init__(self) -> None:
        at_least(self, 0, "retries")

    def run(self, plans: Sequence[Plan], seeds: Sequence[int], bar: Progress) -> Iterator[dict[str, Any]]:
        """See :class:`Executor`."""
        if not plans:
            return
        ray = self.connect()
        train = ray.remote(num_cpus=self.num_cpus, num_gpus=self.num_gpus, max_retries=self.retries)(worker.on_ray)
        devices = max(1, int(self.num_cpus))
        inbox, pending = mail.Inbox(ray), {}
        try:
            for number, plan in enumerate(plans):
                unit = worker.packed(plan, seeds)
                pending[train.remote(unit, sys.path, devices, inbox.mailbox, number)] = number
            while pending:
                ended, _ = ray.wait(list(pending), num_returns=1, timeout=mail.PERIOD)
                inbox.deliver({number: plans[number] for number in pending.values()}, bar)
                for reference in ended:
                    plan = plans[number := pending.pop(reference)]
                    try:
                        record = ray.get(reference)
                    except ray.exceptions.RayError as error:
                        record = units.failed(units.header(plan, seeds), f"Ray gave it up: {str(error).strip()}")
                    if number not in inbox.attempts:  # it was over before anything was heard of it
                        bar.begin(plan)
                    bar.end(plan, failed=record.get("reason", ""))
                    yield record
        finally:
            for reference in pending:
                ray.cancel(reference, force=True)
            inbox.close()

    def connect(self) -> Any:
        """The module ``ray``, connected; a second call changes nothing."""
        ray: Any = require("ray", "ray", "clusters")
        try:
            _probe(self.address)
            with _own_sigterm(), _quiet_forks():
                ray.init(address=self.address, ignore_reinit_error=True, log_to_driver=False, logging_level="ERROR")
        except Exception as error:  # of many kinds; one that is too slow to start raises this class itself
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise ConnectionError(self._unreachable(reason)) from error
        return ray

    def _unreachable(self, reason: str) -> str:
        if self.address is None:
            return (
                f"Ray did not start on this machine ({reason}); run the same command again when the machine is less "
                "busy, or use --executor processes."
            )
        return (
            f"no Ray cluster answers at {self.address!r} ({reason}); start one with `ray start --head`, or leave "
            "--address out to have one on this machine."
        )


def executor(name: str, *, workers: int | None = None, address: str | None = None) -> Executor:
    """An executor by name, as on the command line.

    Args:
        name: one of :data:`EXECUTORS`.
        workers: of ``"processes"``; None is its default.
        address: of ``"ray"``.

    Raises:
        ValueError: for an unknown name, or workers or an address that nothing would use.

    Example:
        >>> executor("processes", workers=4)
        Processes(num_workers=4, retries=2)
    """
    if name not in EXECUTORS:
        raise ValueError(f"unknown executor {name!r}{suggestion(name, EXECUTORS)} Known: {', '.join(EXECUTORS)}.")
    if address is not None and name != "ray":
        raise ValueError(f"--address is for --executor ray, got --executor {name}; leave one of them out.")
    if workers is not None and name != "processes":
        raise ValueError(f"--workers is for --executor processes, got --executor {name}; leave one of them out.")
    if name == "ray":
        return RayCluster(address)
    if name == "here":
        return Here()
    return Processes() if workers is None else Processes(workers)


@contextlib.contextmanager
def _own_sigterm() -> Iterator[None]:
    """Keep what the driver does on SIGTERM, if it does something: Ray would end it there, with a dump of its stack."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    if callable(before) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _quiet_forks() -> Iterator[None]:
    """Without JAX's warning of forks: those of Ray become its own programs at once, and nobody can do without them."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        yield


def _probe(address: str | None) -> None:
    """Raise OSError if nothing listens at ``host:port``, which Ray itself would try for minutes."""
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
