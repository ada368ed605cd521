"""Folders and files that a command cannot use: one sentence that says what to do, and nothing is changed."""

import pytest

from reward_design import cli
from reward_design.experiments import Results, data
from reward_design.experiments.records import FILE, encoded
from reward_design.experiments.store import Store, StoreError

WHOLE = {"agent": "ppo", "seeds": [0], "tasks": ["chain"], "rewards": ["sparse"], "config": {"chain": {"gamma": 0.9}}}


def unit(**changes):
    return {
        "kind": "unit", "task": "chain", "reward": "sparse", "agent": "ppo", "seeds": [0], "status": "done",
        "fingerprint": "f", "config": {}, "steps": [1], "episodes": [1], "losses": {}, "wall_s": 1.0, "compile_s": 1.0,
        "env_steps": 1, "final": {"true_return": [1.0]}, "curves": {"true_return": [[1.0]]}, **changes,
    }  # fmt: skip


def folder(path, identity, *records):
    with Store(path, identity) as store:
        for record in records:
            store.append(record)
    return str(path)


@pytest.mark.parametrize(
    ("identity", "what"),
    [
        ({"task": "chain", "reward": "sparse", "seed": 0, "agent": "ppo"}, "a run of `reward-design train`"),
        ({"preset": "eureka", "task": "chain", "seeds": [0]}, "a search of `reward-design design`"),
        ({}, "records of something else"),
        ({**WHOLE, "tasks": "chain"}, "records of something else"),
    ],
    ids=["train", "design", "empty", "wrong"],
)
def test_what_is_no_comparison_is_not_reported_exported_or_merged(identity, what, tmp_path, capsys):
    path = folder(tmp_path / "r", identity)
    before = (tmp_path / "r" / FILE).read_bytes()
    for words in (["report", path], ["export", path, "--to", str(tmp_path / "r.csv")], ["merge", path]):
        assert cli.main(words) == 2
        said = capsys.readouterr().err
        assert f"error: {path} holds {what}, and no comparison; name a folder that" in said
        assert f"`reward-design board {path}`" in said
    assert (tmp_path / "r" / FILE).read_bytes() == before
    assert not (tmp_path / "r.csv").exists()


def test_records_that_only_look_like_a_comparison_are_named(tmp_path):
    for identity in ([], None, "chain"):
        (tmp_path / FILE).write_bytes(encoded({"kind": "comparison", "format": 2, "identity": identity}))
        with pytest.raises(StoreError, match="holds records of something else, and no comparison"):
            Results.load(tmp_path)
    (tmp_path / FILE).unlink()
    assert Results.load(folder(tmp_path, WHOLE)).tasks == ("chain",)


def test_an_export_that_cannot_be_written_is_a_sentence(tmp_path, capsys):
    path = folder(tmp_path / "r", WHOLE, unit())
    (tmp_path / "there.csv").mkdir()
    (tmp_path / "file").write_text("mine")
    for place, why in (("there.csv", "Is a directory"), ("file/r.csv", "File exists|Not a directory")):
        with pytest.raises(StoreError, match=rf"{place} could not be written \(({why})\); give another file"):
            data.export(Results.load(path), tmp_path / place)
        assert cli.main(["export", path, "--to", str(tmp_path / place)]) == 2
        assert "could not be written" in capsys.readouterr().err
    assert (tmp_path / "file").read_text() == "mine"
    text = data.export(Results.load(path), tmp_path / "new" / "r.csv").read_text()
    assert text.splitlines()[1].startswith("chain,sparse,ppo,0,f")


def test_a_file_in_place_of_a_folder_is_named(tmp_path, capsys):
    file = tmp_path / "suite.toml"
    file.touch()
    for words in (["report", str(file)], ["export", str(file), "--to", str(tmp_path / "r.csv")], ["merge", str(file)]):
        assert cli.main(words) == 2
        assert f"expected a folder with results, got the file {file}; name the folder" in capsys.readouterr().err


def test_folders_that_overlap_in_part_are_not_merged(tmp_path, capsys):
    first = folder(tmp_path / "a", {**WHOLE, "seeds": [0, 1]}, unit(seeds=[0, 1]))
    second = folder(tmp_path / "b", {**WHOLE, "seeds": [1, 2]}, unit(seeds=[1, 2]))
    assert cli.main(["merge", first, second, "--out", str(tmp_path / "m")]) == 2
    assert "only equal or entirely different seeds of equally long runs can be put together" in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--task", "chain"], "--task"),
        (["--seeds", "3", "--agent", "dqn"], "--agent, --seeds"),
        (["--rewards", "sparse"], "--rewards"),
        (["--set", "gamma=0.9", "--total-timesteps", "10", "--overwrite"], "--total-timesteps, --set, --overwrite"),
    ],
)
def test_settings_that_a_suite_would_ignore_are_refused(words, named, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: 1)
    assert cli.main(["compare", "--suite", "core", "--out", str(tmp_path / "s"), *words]) == 2
    assert capsys.readouterr().err.startswith(f"error: {named} cannot go with --suite, which declares tasks, ")
    assert not (tmp_path / "s").exists()


def test_a_size_without_a_suite_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: 1)
    assert cli.main(["compare", "--task", "chain", "--size", "core", "--out", str(tmp_path / "s")]) == 2
    assert "--size is one of a suite, got --size core without --suite" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()


def test_a_batch_of_no_trials_is_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: 1)
    words = ["search", "--task", "chain", "--space", "weight=0,1", "--batch", "0", "--out", str(tmp_path / "s")]
    assert cli.main(words) == 2
    assert "batch must be at least 1, got 0" in capsys.readouterr().err
    assert not (tmp_path / "s").exists()
