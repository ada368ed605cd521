"""A search in worker processes and on Ray has the trials of one here, also if some fail or it is interrupted."""

import csv
import signal
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from reward_design.experiments import Processes, RayCluster, search
from reward_design.experiments.records import FILE
from reward_design.experiments.store import read
from tests.fault_tools import FAST, Program

pytest.importorskip("optuna")

ARGS = {
    "agent": "q_learning", "seeds": 2, "total_timesteps": 2048, "config": {"num_envs": 4, "num_steps": 32},
    "space": {"weight": (0, 1)}, "batch": 2, "trials": 4, "sampler_seed": 4, "progress": False,
}  # fmt: skip
WORDS = (
    *("search", "--task", "chain", "--reward", "tests.deadly:edge", "--agent", "q_learning", "--seeds", "2"),
    *("--total-timesteps", "2048", "--set", "num_envs=4", "num_steps=32", "--batch", "2", "--trials", "4", "--quiet"),
    *("--sampler-seed", "4", "--space", "weight=0,1", "--executor", "ray"),
)
RAY = {"RAY_DISABLE_IMPORT_WARNING": "1", "RAY_USAGE_STATS_ENABLED": "0"}


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """An undisturbed search in this process."""
    out = tmp_path_factory.mktemp("here")
    return out, search("chain", "tests.deadly:edge", out=out, **ARGS)


@pytest.fixture(scope="module")
def executors():
    """Executors by name; Ray is started once, on this machine, and not before it is asked for."""

    def made(name):
        if name == "processes":
            return Processes(2)
        pytest.importorskip("ray")
        with pytest.MonkeyPatch.context() as patch:
            for key, value in RAY.items():
                patch.setenv(key, value)
            started.append(RayCluster())
            started[0].connect()
        return started[0]

    started = []
    yield made
    if started:
        import ray

        ray.shutdown()


def rows(folder):
    return list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))


def same(folder, expected):
    """The same settings, values and reasons in the same order, each result on record once."""
    ours, theirs = rows(folder), rows(expected)
    numbers = ("true_return", "low", "high")
    plain = [[{k: v for k, v in row.items() if k not in numbers} for row in found] for found in (ours, theirs)]
    assert plain[0] == plain[1]
    values = [[float(row[k] or "nan") for row in found for k in numbers] for found in (ours, theirs)]
    np.testing.assert_allclose(values[0], values[1], atol=1e-6)
    done = Counter(r["reward"] for r in read(folder) if r["kind"] == "unit" and r["status"] == "done")
    assert set(done.values()) == {1}
    assert len(done) == sum(row["true_return"] != "" for row in theirs)


def test_one_of_the_trials_fails(here):
    out, found = here
    (failed,) = [trial for trial in found.trials if trial.value is None]
    assert failed.number == 2
    assert failed.settings["weight"] > 0.5
    assert "'edge' was not finite" in failed.reason
    assert [row["reason"] for row in rows(out)] == [trial.reason for trial in found.trials]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["processes", "ray"])
def test_executors_find_the_same_also_after_an_interrupt(name, here, executors, tmp_path):
    class Interrupted(type(executors(name))):
        def run(self, plans, seeds, bar):
            for number, record in enumerate(super().run(plans, seeds, bar)):
                if number == 1:
                    raise KeyboardInterrupt  # one result of the batch is on record, the other is lost
                yield record

    with pytest.raises(KeyboardInterrupt):
        search("chain", "tests.deadly:edge", out=tmp_path, executor=Interrupted(), **ARGS)
    assert sum(record["kind"] == "unit" for record in read(tmp_path)) == 1
    search("chain", "tests.deadly:edge", out=tmp_path, executor=executors(name), **ARGS)
    same(tmp_path, here[0])


@pytest.mark.slow
def test_ctrl_c_of_a_search_on_ray_and_the_same_command_again(here, tmp_path):
    pytest.importorskip("ray")
    program = replace(Program(WORDS), environment={**FAST, **RAY}).cached(tmp_path / "cache")
    out, deadline = tmp_path / "r", time.monotonic() + 600
    process = program.start(out)
    while not ((out / FILE).is_file() and b'"kind":"unit"' in (out / FILE).read_bytes()):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 130
    assert errors.strip().splitlines()[-1].startswith("Interrupted. What is finished is kept in")
    before = read(out)
    status, output, errors = program.finish(out)
    if "Ray did not start on this machine" in errors:  # it gives itself 30 seconds
        status, output, errors = program.finish(out)
    assert status == 0, errors
    assert "Best of 3: weight=" in output
    assert "Traceback" not in errors
    assert read(out)[: len(before)] == before
    same(out, here[0])
