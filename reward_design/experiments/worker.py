"""The process that trains units for an executor: ``python -m reward_design.experiments.worker``.

It reads units from standard input and writes progress and records to standard output, each as eight bytes of length
and a pickle; first comes the path of modules, without which a unit cannot be unpacked. It ends when its input does, so
that it never outlives the process that started it.
"""

import contextlib
import os
import struct
import sys
import threading
from collections.abc import Iterator
from queue import SimpleQueue
from typing import Any, BinaryIO

import cloudpickle

DEVICES = "REWARD_DESIGN_WORKER_DEVICES"
"""Environment variable: devices of JAX that a worker makes of its share of the processor."""
_LENGTH = struct.Struct("<Q")


def packed(plan: Any, seeds: Any) -> bytes:
    """A unit as bytes: what it is made from, and the fingerprint that it must have.

    Raises:
        TypeError: for a task or design that cannot be pickled.
    """
    try:
        return cloudpickle.dumps((plan.order.portable(), plan.fingerprint, tuple(seeds)))
    except Exception as error:
        raise TypeError(
            f"{plan.label!r} on {plan.task.name!r} cannot be sent to a worker ({error}); give it by name, as "
            "module:attribute, or train here."
        ) from error


def write(stream: Any, value: Any) -> None:
    """Send one message."""
    data = cloudpickle.dumps(value)
    stream.write(_LENGTH.pack(len(data)) + data)
    stream.flush()


def messages(stream: Any) -> Iterator[Any]:
    """The messages of a stream until it ends; a message that was cut off is dropped."""
    while len(head := stream.read(_LENGTH.size)) == _LENGTH.size:
        (length,) = _LENGTH.unpack(head)
        data = stream.read(length)
        if len(data) < length:
            return
        yield cloudpickle.loads(data)


def on_ray(data: bytes, path: list[str], devices: int, mailbox: Any, number: int) -> dict[str, Any]:
    """Train one unit inside a task of Ray; its progress goes to the mailbox, under the driver's number of the unit."""
    _prepare(path, devices)
    order, fingerprint, seeds = cloudpickle.loads(data)
    from reward_design.experiments import mail, units

    return units.run(units.checked(order, fingerprint), seeds, mail.Sender(mailbox, number))


def _prepare(path: list[str], devices: int) -> None:
    """Modules of the driver can be imported, and JAX has as many devices and threads as it was given cores."""
    sys.path.extend(entry for entry in path if entry not in sys.path)
    os.environ["NPROC"] = str(devices)  # XLA would start a thread for every core, and the workers fight for them
    import jax

    with contextlib.suppress(RuntimeError):  # a worker of Ray may have trained before, and keeps what it has
        jax.config.update("jax_num_cpu_devices", devices)


def main() -> None:
    """Train what comes in until nothing does."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what rewards and simulators print must not get between the messages
    incoming: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_receive, args=(sys.stdin.buffer, incoming), daemon=True).start()
    _prepare(incoming.get(), int(os.environ.get(DEVICES, "1")))
    from reward_design.experiments import units

    while True:
        try:
            order, fingerprint, seeds = cloudpickle.loads(incoming.get())
            plan = units.checked(order, fingerprint)
        except Exception as error:
            write(out, ("refused", str(error).strip() or type(error).__name__))
            continue
        record = units.run(plan, seeds, lambda *done: write(out, ("progress", done)))
        write(out, ("record", record))


def _receive(stream: BinaryIO, incoming: "SimpleQueue[Any]") -> None:
    """Pass messages on; leave at once when the input ends, in the middle of whatever is being trained."""
    for message in messages(stream):
        incoming.put(message)
    os._exit(0)


if __name__ == "__main__":
    main()
