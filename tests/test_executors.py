"""Units in worker processes and on Ray: the same numbers, and nothing lost when a worker, a node or the driver dies."""

import contextlib
import os
import queue
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from reward_design.experiments import Here, Processes, RayCluster, compare, executors, units
from reward_design.experiments.executors import executor
from reward_design.experiments.progress import Progress
from tests.deadly import MARKER

ARGS = {
    "agent": "q_learning",
    "seeds": 2,
    "total_timesteps": 512,
    "config": {"num_envs": 4, "num_steps": 16},
    "progress": False,
    "report": False,
}


def same(ours, theirs):
    assert sorted(ours.done) == sorted(theirs.done)
    for name, unit in ours.done.items():
        np.testing.assert_array_equal(unit.curve()[1], theirs.done[name].curve()[1])


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    return compare("chain", ["sparse", "shaping"], out=tmp_path_factory.mktemp("here"), **ARGS)


def test_worker_processes_give_the_same(here, tmp_path):
    results = compare("chain", ["sparse", "shaping"], out=tmp_path, executor=Processes(2), **ARGS)
    same(here, results)


def test_a_unit_whose_worker_was_killed_is_trained_again(here, tmp_path, monkeypatch):
    monkeypatch.setenv(MARKER, str(tmp_path / "killed"))
    rewards = {"sparse": "tests.deadly:once", "shaping": "shaping"}
    results = compare("chain", rewards, out=tmp_path / "out", executor=Processes(1), **ARGS)
    assert (tmp_path / "killed").exists()
    same(here, results)


def test_a_unit_that_always_kills_its_worker_fails_alone(tmp_path):
    rewards = {"dying": "tests.deadly:always", "sparse": "sparse"}
    results = compare("chain", rewards, out=tmp_path, executor=Processes(1, retries=1), **ARGS)
    assert list(results.done) == [("chain", "sparse")]
    assert re.search(r"its worker process was ended by SIGKILL \(2 times\)", results.failed["chain", "dying"].reason)


def unit(label, total_timesteps=512):
    return units.planned(units.Order("chain", label, label, "q_learning", total_timesteps, ARGS["config"]))


def test_a_unit_that_begins_again_gives_its_steps_back():
    plan = unit("sparse")
    bar = Progress([plan], (0, 1), enabled=False)
    (row,) = bar.bar.tasks
    bar.begin(plan)
    bar.advance(plan, 256)
    assert row.completed == 2 * 256
    bar.begin(plan)
    assert row.completed == 0
    bar.advance(plan, 64)
    assert row.completed == 2 * 64
    assert not row.fields["speed"].startswith("-")


def test_a_worker_that_died_before_it_got_its_unit_is_lost_and_nothing_else():
    events = queue.Queue()
    member = executors._Worker(events, 1)
    member.process.kill()
    member.thread.join()
    plan = unit("sparse")
    member.take(plan, 0, (0, 1), Progress([plan], (0, 1), enabled=False))
    assert events.get_nowait() == (member, "lost", None)


def test_a_worker_that_dies_after_its_last_unit_does_not_train_it_again(monkeypatch):
    workers = []

    class Noted(executors._Worker):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            workers.append(self)

    monkeypatch.setattr(executors, "_Worker", Noted)
    plans = [unit("sparse"), unit("shaping", 5_000_000)]
    runs = Processes(2).run(plans, (0, 1), Progress(plans, (0, 1), enabled=False))
    first = next(runs)
    assert first["reward"] == "sparse"
    (idle,) = [member for member in workers if member.plan.label == "sparse"]
    idle.process.kill()
    idle.thread.join()
    assert [record["reward"] for record in runs] == ["shaping"]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the threads of a process of Linux")
@pytest.mark.parametrize("share", [1, 3])
def test_a_worker_has_as_many_threads_as_its_share_of_the_cores(share):
    code = (
        "from reward_design.experiments import worker\n"
        f"worker._prepare([], {share})\n"
        "import jax, pathlib\n"
        "assert jax.device_count() == SHARE\n"
        "names = [path.read_text() for path in pathlib.Path('/proc/self/task').glob('*/comm')]\n"
        "assert sum('XLAEigen' in name for name in names) == SHARE, names\n"
    ).replace("SHARE", str(share))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def children(pid):
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the process table of Linux")
def test_workers_end_with_a_driver_that_was_killed(tmp_path):
    script = (
        "from reward_design.experiments import Processes, compare\n"
        f"compare('chain', 'sparse', seeds=1, total_timesteps=10**9, out={str(tmp_path)!r}, agent='q_learning', "
        "progress=False, report=False, executor=Processes(1))"
    )
    driver = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 120
        while not (found := children(driver.pid)) and time.monotonic() < deadline:
            time.sleep(0.1)
        assert found
        driver.kill()
        driver.wait()
        while any(Path(f"/proc/{pid}").exists() and "Z" not in _state(pid) for pid in found):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        driver.kill()
        driver.wait()


def _state(pid):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    return "Z"


def test_executors_by_name():
    assert executor("here") == Here()
    assert executor("processes", workers=3) == Processes(3)
    assert executor("processes") == Processes()
    assert executor("ray", address="auto") == RayCluster("auto")
    with pytest.raises(ValueError, match="unknown executor 'proceses'; did you mean 'processes'"):
        executor("proceses")
    with pytest.raises(ValueError, match="--address is for --executor ray, got --executor here"):
        executor("here", address="auto")
    with pytest.raises(ValueError, match="--workers is for --executor processes, got --executor ray"):
        executor("ray", workers=2)
    with pytest.raises(ValueError, match="num_workers must be at least 1, got 0"):
        Processes(0)


# --- Ray -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["auto", "127.0.0.1:9", "ray://127.0.0.1:9"])
def test_a_ray_that_does_not_answer_is_named(address):
    pytest.importorskip("ray")
    with pytest.raises(ConnectionError, match=rf"no Ray cluster answers at '{address}' .* `ray start --head`"):
        RayCluster(address).connect()


def test_a_ray_that_cannot_be_started_here_is_named(tmp_path, monkeypatch):
    pytest.importorskip("ray")
    (tmp_path / "file").touch()
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / "file" / "ray"))
    with pytest.raises(ConnectionError, match=r"Ray did not start on this machine \(.*\); run the same command again"):
        RayCluster().connect()


STARTS_RAY = """
import os, warnings
import jax
from reward_design.experiments import RayCluster

jax.devices()
with warnings.catch_warnings(record=True) as at_start:
    warnings.simplefilter("always")
    ray = RayCluster().connect()
with warnings.catch_warnings(record=True) as later:
    warnings.simplefilter("always")
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
ray.shutdown()
print([sum("os.fork() was called" in str(w.message) for w in found) for found in (at_start, later)])
"""


@pytest.mark.slow
def test_the_forks_of_a_ray_that_is_started_here_raise_no_warning_and_later_ones_do():
    pytest.importorskip("ray")
    keep = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    done = subprocess.run([sys.executable, "-c", STARTS_RAY], env=keep, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "[0, 1]"
    assert "os.fork" not in done.stderr
