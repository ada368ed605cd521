"""Interrupts that arrive where Python cannot raise are not lost."""

import contextlib
import gc
import signal
import sys
import time
import weakref

import pytest

from reward_design import cli
from reward_design._interrupts import interruptible


class Interrupting:
    """Sends a signal while it is collected."""

    def __init__(self, number):
        self.number = number

    def __del__(self):
        signal.raise_signal(self.number)
        time.sleep(0)


@contextlib.contextmanager
def collecting(callback):
    """``callback()`` whenever the garbage collector begins or ends."""

    def called(phase, info):
        callback()

    gc.callbacks.append(called)
    try:
        yield
    finally:
        gc.callbacks.remove(called)


def wait():
    """Long enough for an interrupt to come again, many times over."""
    for _ in range(1000):
        time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_in_a_finaliser_comes_again(number, capfd):
    def run():
        thing = Interrupting(number)
        del thing
        wait()

    with pytest.raises(KeyboardInterrupt), interruptible() as stopped_by:
        run()
    assert stopped_by == [signal.SIGTERM] * (2 * (number == signal.SIGTERM))
    assert "ignored" not in capfd.readouterr().err


def test_an_interrupt_that_is_lost_again_and_again_gets_through():
    left = [None] * 5

    class Thing:
        pass

    def lose(_):
        signal.raise_signal(signal.SIGINT)
        time.sleep(0)

    def losing():
        if left:
            left.pop()
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)

    def run():
        thing = Thing()
        references.append(weakref.ref(thing, lose))
        del thing
        for _ in left[:]:
            gc.collect()
        wait()

    references = []
    with pytest.raises(KeyboardInterrupt), interruptible(), collecting(losing):
        run()
    assert not left
    assert references[0]() is None


def test_a_command_ends_although_the_interrupt_met_the_garbage_collector(tmp_path, capfd, monkeypatch):
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: 1)  # JAX has started
    sent, handler = [], signal.getsignal(signal.SIGTERM)

    def send():
        if not sent and signal.getsignal(signal.SIGTERM) != handler:  # the command runs
            sent.append(None)
            signal.raise_signal(signal.SIGINT)
            time.sleep(0)

    out = tmp_path / "r"
    words = ["compare", "--task", "chain", "--rewards", "sparse", "dense", "--total-timesteps", "4096"]
    with collecting(send):
        assert cli.main([*words, "--seeds", "2", "--out", str(out)]) == 130
    error = capfd.readouterr().err
    assert "Interrupted. What is finished is kept in" in error
    assert "ignored" not in error


@pytest.mark.parametrize(
    "words", [["audit", "--task", "chain", "--reward", "dense"], ["train", "--task", "cartpole", "--agent", "sb3/ppo"]]
)
def test_nothing_is_promised_of_what_does_not_go_on(words, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    command = cli._parsed([*words, "--out", str(tmp_path)])
    monkeypatch.setattr(type(command), "run", interrupted)
    assert cli.main([*words, "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "\nInterrupted.\n"


def test_everything_is_as_it_was_afterwards_and_other_errors_are_shown():
    shown, handler = [], signal.getsignal(signal.SIGTERM)
    hook, sys.unraisablehook = sys.unraisablehook, shown.append

    class Failing:
        def __del__(self):
            raise ValueError("a finaliser")

    try:
        with interruptible():
            assert signal.getsignal(signal.SIGTERM) is not handler
            thing = Failing()
            del thing
        assert sys.unraisablehook == shown.append
    finally:
        sys.unraisablehook = hook
    assert [str(lost.exc_value) for lost in shown] == ["a finaliser"]
    assert signal.getsignal(signal.SIGTERM) == handler
