"""A reward in a file is known by what the file holds, not by its path."""

import json
import shutil

import numpy as np
import pytest

import reward_design as rd
from reward_design.envs import task
from reward_design.experiments import artifacts, compare
from reward_design.experiments.runs import load_run
from reward_design.experiments.single import train
from reward_design.experiments.store import FILE, StoreError, read
from reward_design.llm import build_reward, load_reward, save_reward
from tests import design_worker

SMALL = {"total_timesteps": 256, "config": {"num_envs": 4, "num_steps": 32, "hidden": (8,), "num_minibatches": 1}}


def written(path, weight=1.0):
    entry = {"factor": "distance", "shape": "progress", "direction": "decrease", "weight": weight, "scale": 1.0}
    return str(save_reward(path, build_reward(json.dumps({"terms": [entry]}), "chain", language="terms")))


def without_hashes(folder):
    """The records as versions without hashes left them."""
    lines = (folder / FILE).read_text().splitlines()
    kept = [line for line in lines if json.loads(line)["kind"] != artifacts.KIND]
    assert len(kept) < len(lines)
    (folder / FILE).write_text("\n".join(kept) + "\n")


def same(folder, path, **settings):
    return compare("chain", [path], seeds=1, out=folder, progress=False, report=False, **SMALL, **settings)


def test_a_comparison_keeps_the_hash_and_refuses_a_changed_file(tmp_path):
    path, folder = written(tmp_path / "goal.reward"), tmp_path / "results"
    first = same(folder, path)
    (record,) = artifacts.recorded(read(folder)).values()
    assert record == {
        "kind": "artifact", "reward": "goal", "file": path, "sha256": [load_reward(path).settings["artifact"].sha256],
    }  # fmt: skip
    assert len(same(folder, path).records) == len(first.records)  # untouched: nothing is done again
    old = shutil.copy(path, tmp_path / "old.reward")
    written(path, weight=2.0)
    with pytest.raises(StoreError, match=r"reward 'goal' is another one .* its file was changed or replaced; put the"):
        same(folder, path)
    assert len(read(folder)) == len(first.records)
    shutil.copy(old, path)
    assert len(same(folder, path).records) == len(first.records)
    written(path, weight=2.0)
    assert same(folder, path, overwrite=True).done.keys() == first.done.keys()


def test_older_records_are_read_and_get_the_hash(tmp_path):
    path, folder = written(tmp_path / "goal.reward"), tmp_path / "results"
    first = same(folder, path)
    without_hashes(folder)
    again = same(folder, path)
    assert len(again.units) == 1
    assert again.units["chain", "goal"].record == first.units["chain", "goal"].record
    assert "goal" in artifacts.recorded(read(folder))


def test_a_run_says_that_its_file_was_changed(tmp_path):
    path, folder = written(tmp_path / "goal.reward"), tmp_path / "run"
    settings = {"out": str(folder), "evaluations": 1, **SMALL}
    train("chain", path, **settings)
    run = load_run(folder)
    assert run.notes == ()  # the file is found again by its path
    assert run.reward is not None
    written(path, weight=3.0)
    with pytest.raises(StoreError, match=r"reward 'goal' is another one than .*overwrite"):
        train("chain", path, **settings)
    assert any("file of reward 'goal' was changed" in note for note in load_run(folder).notes)
    (tmp_path / "goal.reward").unlink()
    assert any("cannot be made again" in note for note in load_run(folder).notes)
    without_hashes(folder)
    assert any("cannot be made again" in note for note in load_run(folder).notes)


def test_hashes_of_parts_are_found():
    entry = {"factor": "distance", "shape": "progress", "direction": "decrease", "weight": 1.0, "scale": 1.0}
    built = build_reward(json.dumps({"terms": [entry]}), "chain", language="terms")
    assert artifacts.hashes(rd.chain(rd.environment_reward(), built)) == artifacts.hashes(built)
    assert artifacts.hashes(task("chain").sparse_reward) == []


def test_a_search_does_not_go_on_with_another_reward_under_the_name_of_a_candidate(tmp_path):
    calls = tmp_path / "calls"
    found = design_worker.run(tmp_path / "out", calls)
    assert np.isfinite(found.best.fitness.true_return)
    good = tmp_path / "out" / "rewards" / f"{found.best.id}.reward"
    kept = good.read_text()
    written(good, weight=77.0)
    with pytest.raises(StoreError, match=f"not the reward that was checked as candidate {found.best.id}"):
        design_worker.run(tmp_path / "out", calls)
    good.write_text(kept)
    assert design_worker.run(tmp_path / "out", calls).best == found.best
