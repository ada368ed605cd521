"""Searches that are killed at every stage, and go on without paying twice."""

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from reward_design.experiments.store import read
from tests import design_worker
from tests.fault_tools import CACHE


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What the killed processes compile is compiled once."""
    return {**CACHE, "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}


def killed(out, calls, compiled, *stage):
    """A search in a process that kills itself there."""
    root = Path(__file__).resolve().parent.parent
    worker = [sys.executable, "-m", "tests.design_worker", str(out), str(calls), *stage]
    environment = {**os.environ, **compiled, "PYTHONPATH": str(root)}
    done = subprocess.run(worker, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("stage", design_worker.STAGES)
def test_a_kill_at_any_stage_pays_nothing_twice(stage, compiled, tmp_path):
    """Asked at most twice in all for two candidates; a call that was killed while it ran has to be made again."""
    calls, out = tmp_path / "calls", tmp_path / "out"
    killed(out, calls, compiled, stage)
    kinds = [record["kind"] for record in read(out)]
    assert stage in ("answering", "training") or kinds[-1] == stage
    trained = {r["name"]: r["value"] for r in read(out) if r["kind"] == "trained"}
    found = design_worker.run(out, calls)
    assert found.stopped == ""
    assert [c.trained for c in found.candidates] == [True, True]
    assert calls.read_text().count("\n") == 2
    after = [r for r in read(out) if r["kind"] == "trained"]
    assert len(after) == 2
    assert all(r["value"] == trained.get(r["name"], r["value"]) for r in after)


def timeless(candidate):
    return candidate.with_(statistics=dataclasses.replace(candidate.statistics, seconds=0.0))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Searches that nothing kills, each once."""
    known = {}

    def found(search):
        if search not in known:
            folder = tmp_path_factory.mktemp(search)
            known[search] = design_worker.run(folder / "out", folder / "calls", "", search)
        return known[search]

    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "stage", "again"),
    [
        ("orso", "update:5", "update:2"),
        ("orso", "slice:6", "slice:1"),
        ("orso-sets", "set:2", "slice:2"),
        ("host", "step:40", "step:9"),
        ("host", "update:3", "training"),
    ],
)
def test_a_kill_inside_a_slice_or_on_the_host_changes_nothing(search, stage, again, undisturbed, compiled, tmp_path):
    """Also killed twice; the model is asked no more often, and every number is that of the search nothing killed."""
    if search == "host":
        pytest.importorskip("mujoco")
    calls, out = tmp_path / "calls", tmp_path / "out"
    killed(out, calls, compiled, stage, search)
    killed(out, calls, compiled, again, search)
    before = [(r["kind"], r["name"], r["value"]) for r in read(out) if r["kind"] in ("slice", "trained", "answer")]
    found, expected = design_worker.run(out, calls, "", search), undisturbed(search)
    assert calls.read_text().count("\n") == len(expected.candidates)
    after = [(r["kind"], r["name"], r["value"]) for r in read(out) if r["kind"] in ("slice", "trained", "answer")]
    assert after[: len(before)] == before
    assert len({(kind, name) for kind, name, _ in after}) == len(after)  # no step was noted twice
    assert [timeless(c) for c in found.candidates] == [timeless(c) for c in expected.candidates]
    one, two = ([r["value"] for r in read(f.folder) if r["kind"] == "slice"] for f in (found, expected))
    assert one == two
    assert bool(one) == search.startswith("orso")
    assert {r["value"]["exhausted"] for r in read(found.folder) if r["kind"] == "set"} == (
        {"orso": {False}, "orso-sets": {False, True}}.get(search, set())
    )
