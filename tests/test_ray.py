"""Units on a real Ray cluster of two nodes: the same numbers, progress, and nothing left behind by an interrupt."""

import os
import signal
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from reward_design.experiments import RayCluster, compare, mail, units
from reward_design.experiments.progress import Progress
from reward_design.experiments.store import read

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
ray = pytest.importorskip("ray")

ARGS = {
    "agent": "q_learning",
    "seeds": 2,
    "total_timesteps": 512,
    "config": {"num_envs": 4, "num_steps": 16},
    "progress": False,
    "report": False,
}
SEEDS = (0, 1)
CHUNK = 64 * 160
LONG = units.NUM_CHUNKS * CHUNK
"""Environment steps of a chunk, and of a unit: whole updates, and an episode ends in each point of its curves."""


@pytest.fixture(scope="module")
def started():
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_DISABLE_IMPORT_WARNING", "1")
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        try:
            yield cluster
        finally:
            ray.shutdown()
            cluster.shutdown()


@pytest.fixture
def cluster(started):
    """Two nodes of Ray on this machine, with one core each; one that a test has lost is replaced."""
    while len(started.list_all_nodes()) < 2:
        started.add_node(num_cpus=1)
    return started


def signed(path, label, *, chunks=0, again=False):
    """The sparse reward; a process that makes it writes its number and the label down: the driver, then a worker.

    The worker waits after each of its first chunks until the driver has written down that it knows of them.

    Args:
        path: of the log.
        label: of the unit.
        chunks: after which it waits.
        again: whether it sends a letter again and again meanwhile.
    """
    driver = os.getpid()

    def made(task):
        with Path(path).open("a") as file:
            file.write(f"{label} {os.getpid()}\n")
        if chunks and os.getpid() != driver:
            wait_for_driver(told(path, label), chunks, again)
        return task.sparse_reward

    return made


def told(path, label):
    """The file in which the driver writes the steps of a unit that it knows of."""
    return Path(path).with_suffix(f".{label}")


def wait_for_driver(path, chunks, again):
    """From here on this worker sends a letter for each chunk of a unit and waits after the first ones."""
    send, period = mail.Sender.__call__, mail.PERIOD

    def known():
        return int(path.read_text() or 0) if path.exists() else 0

    def send_and_wait(sender, steps, *seen):
        send(sender, steps, *seen)
        wait_for(lambda: known() >= steps or (again and send(sender, steps, *seen)))
        if steps >= chunks * CHUNK:
            mail.Sender.__call__, mail.PERIOD = send, period

    mail.Sender.__call__, mail.PERIOD = send_and_wait, 0


def trainings(path):
    """Label and process of every training that was begun elsewhere."""
    lines = path.read_text().splitlines() if path.exists() else []
    pairs = [(label, int(pid)) for label, pid in map(str.split, lines)]
    return [(label, pid) for label, pid in pairs if pid != os.getpid()]


def unit(design, label="sparse", total_timesteps=LONG):
    return units.planned(units.Order("chain", label, design, "q_learning", total_timesteps, ARGS["config"]))


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_for(condition, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


class Noted(Progress):
    """A bar that keeps what it was told; ``on_advance`` is called with itself each time a unit has gone on."""

    def __init__(self, plans, on_advance=lambda bar: None):
        super().__init__(plans, SEEDS, enabled=False)
        self.events, self.on_advance = [], on_advance

    def begin(self, plan):
        super().begin(plan)
        self.events.append((plan.label, "begin"))

    def advance(self, plan, steps, seen=None):
        super().advance(plan, steps, seen)
        self.events.append((plan.label, steps))
        self.on_advance(self)

    def end(self, plan, failed=""):
        super().end(plan, failed)
        self.events.append((plan.label, failed or "end"))

    def of(self, label):
        return [event for name, event in self.events if name == label]


def same(ours, theirs):
    assert sorted(ours.done) == sorted(theirs.done)
    for name, found in ours.done.items():
        np.testing.assert_array_equal(found.curve()[1], theirs.done[name].curve()[1])


def test_two_nodes_give_the_same_numbers_and_may_be_lost(cluster, tmp_path):
    here = compare("chain", ["sparse", "shaping"], out=tmp_path / "here", **ARGS)
    results = compare("chain", ["sparse", "shaping"], out=tmp_path / "a", executor=RayCluster(cluster.address), **ARGS)
    assert len([node for node in ray.nodes() if node["Alive"]]) == 2
    same(here, results)
    lost = []

    class Watched(RayCluster):
        def run(self, plans, seeds, bar):
            for record in super().run(plans, seeds, bar):
                if not lost:
                    lost.append(cluster.list_all_nodes()[-1])
                    cluster.remove_node(lost[0], allow_graceful=False)
                yield record

    results = compare("chain", ["sparse", "shaping"], out=tmp_path / "b", executor=Watched(cluster.address), **ARGS)
    assert len(lost) == 1
    same(here, results)


def test_units_tell_how_far_they_are_and_begin_again_when_their_worker_is_lost(cluster, tmp_path):
    log, killed = tmp_path / "log", []

    def kill_once(bar):
        if not killed:
            killed.append(trainings(log)[0][1])
            os.kill(killed[0], signal.SIGKILL)
        told(log, "sparse").write_text(str(bar.of("sparse")[-1]))

    plans = [unit(signed(log, "sparse", chunks=3))]
    bar = Noted(plans, kill_once)
    (record,) = RayCluster(cluster.address).run(plans, SEEDS, bar)
    assert record["status"] == "done"
    assert [pid == killed[0] for _, pid in trainings(log)] == [True, False]
    events = bar.of("sparse")
    again = events.index("begin", 1)
    first, second = events[1:again], events[again + 1 : -1]
    assert events[0] == "begin"
    assert events[-1] == "end"
    assert first == [CHUNK]
    assert second == sorted(set(second))
    assert second[:3] == [CHUNK, 2 * CHUNK, 3 * CHUNK]
    assert all(steps % CHUNK == 0 for steps in second)


def test_live_curves_come_from_the_nodes(cluster, tmp_path):
    log, seen = tmp_path / "log", []

    class Watching(Noted):
        def advance(self, plan, steps, value=None):
            super().advance(plan, steps, value)
            seen.append(value)
            told(log, "sparse").write_text(str(steps))

    plans = [unit(signed(log, "sparse", chunks=3))]
    (record,) = RayCluster(cluster.address).run(plans, SEEDS, Watching(plans))
    assert len(seen) >= 3
    for value in seen:
        assert value.runs == (0, 1)
        chunk = [i for i, steps in enumerate(record["steps"]) if value.steps - CHUNK < steps <= value.steps]
        expected = np.asarray(record["curves"]["length"])[:, chunk]
        assert (expected.min(1) <= np.asarray(value.values["length"]) + 1e-6).all()
        assert (expected.max(1) >= np.asarray(value.values["length"]) - 1e-6).all()


def test_what_the_driver_does_on_sigterm_stays(cluster):
    ray.shutdown()
    got = []
    before = signal.signal(signal.SIGTERM, lambda *_: got.append(1))
    try:
        RayCluster(cluster.address).connect()
        signal.raise_signal(signal.SIGTERM)
        assert got == [1]
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("for_good", [True, False])
def test_a_mailbox_that_is_lost_costs_a_bar_and_no_unit(cluster, monkeypatch, tmp_path, for_good):
    log, inboxes = tmp_path / "log", []

    class Kept(mail.Inbox):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            inboxes.append(self)

    def lose(bar):
        if len(bar.of("sparse")) == 2:
            ray.kill(inboxes[0].mailbox, no_restart=for_good)
        told(log, "sparse").write_text(str(bar.of("sparse")[-1]))

    monkeypatch.setattr(mail, "Inbox", Kept)
    plans = [unit(signed(log, "sparse", chunks=1 if for_good else units.NUM_CHUNKS, again=not for_good))]
    bar = Noted(plans, lose)
    (record,) = RayCluster(cluster.address).run(plans, SEEDS, bar)
    expected = units.run(plans[0], SEEDS, lambda *_: None)
    np.testing.assert_array_equal(record["curves"]["true_return"], expected["curves"]["true_return"])
    events = bar.of("sparse")
    assert events.count("begin") == events.count("end") == 1
    assert max(event for event in events if event not in ("begin", "end")) == (CHUNK if for_good else LONG)


def test_units_of_which_nothing_was_ever_heard_begin_and_end_all_the_same(cluster, monkeypatch):
    class Dead(mail.Inbox):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            self.close()

    monkeypatch.setattr(mail, "Inbox", Dead)
    plans = [unit("sparse", total_timesteps=512), unit("shaping", "shaping", 512)]
    bar = Noted(plans)
    records = list(RayCluster(cluster.address).run(plans, SEEDS, bar))
    assert {record["reward"]: record["status"] for record in records} == {"sparse": "done", "shaping": "done"}
    assert bar.of("sparse") == bar.of("shaping") == ["begin", "end"]


def test_an_interrupt_cancels_what_is_handed_out_and_a_resume_trains_each_unit_once(cluster, tmp_path):
    log, labels = tmp_path / "log", ("a", "b", "c", "d")
    rewards = {label: signed(log, label, chunks=1) for label in labels}
    told(log, "a").write_text(str(LONG))  # the others wait in their first chunk
    args = {**ARGS, "total_timesteps": LONG, "out": tmp_path / "r"}
    stopped = []

    class Interrupted(RayCluster):
        def run(self, plans, seeds, bar):
            for record in super().run(plans, seeds, bar):
                yield record  # on record; two other units are in the middle, and a last one waits for a core
                stopped.append(record["reward"])
                wait_for(lambda: len(trainings(log)) == 3)
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        compare("chain", rewards, executor=Interrupted(cluster.address), **args)
    begun = trainings(log)
    unfinished = [pid for label, pid in begun if label not in stopped]
    assert stopped == ["a"]
    assert len(unfinished) == 2
    wait_for(lambda: not any(map(alive, unfinished)), 30)
    wait_for(lambda: ray.available_resources().get("CPU") == 2, 30)  # what waited would have started by now
    begun = trainings(log)
    assert {label for label, _ in begun} < {*labels}
    assert not any(alive(pid) for label, pid in begun if label not in stopped)

    for label in labels:
        told(log, label).write_text(str(LONG))
    results = compare("chain", rewards, executor=RayCluster(cluster.address), **args)
    again = Counter(label for label, _ in trainings(log)[len(begun) :])
    assert again == Counter({*labels} - {*stopped})
    assert Counter(r["reward"] for r in read(tmp_path / "r") if r["kind"] == "unit") == Counter(labels)
    first, *others = (results.done["chain", label].curve()[1] for label in labels)
    for other in others:
        np.testing.assert_array_equal(first, other)
