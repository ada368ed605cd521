"""Logs for TensorBoard and Weights & Biases: the numbers of the records, nothing lost or doubled by an interrupt."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

import reward_design.agents
from reward_design import cli
from reward_design.experiments import compare, single, tracking, writers
from reward_design.experiments.results import Results
from reward_design.experiments.store import FILE, read

pytest.importorskip("tensorboard")
pytest.importorskip("wandb")

ROOT = Path(__file__).parents[1]
SMALL: dict = {"num_envs": 4, "num_steps": 32}
BOTH = ("tensorboard", "wandb")
ARGS = {"agent": "q_learning", "total_timesteps": 1024, "config": SMALL}
COMPARE = {**ARGS, "seeds": [3, 5], "progress": False, "report": False}
TRAIN = {**ARGS, "evaluations": 4, "console": Console(quiet=True)}


def events(folder):
    """Scalars ``{tag: {step: value}}`` and hyper-parameters of one run; a step that is there twice fails."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "tensors": 0})
    read.Reload()
    found = {}
    for tag in read.Tags()["scalars"]:
        points = [(event.step, event.value) for event in read.Scalars(tag)]
        assert len(dict(points)) == len(points), f"{tag} has a step twice"
        found[tag] = dict(points)
    content = read.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
    start = HParamsPluginData.FromString(content).session_start_info
    return found, {k: getattr(v, v.WhichOneof("kind")) for k, v in start.hparams.items()}


def offline(folder):
    """Scalars, settings and summary of an offline run, from the records in its file (blocks of 32 KiB, as LevelDB)."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    data, at, part = file.read_bytes(), 7, b""
    found, settings, summary = {}, {}, {}
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack("<IHB", data[at : at + 7])
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind not in (1, 4):  # the record goes on
            continue
        record, part = Record.FromString(part), b""
        settings |= {u.key: json.loads(u.value_json) for u in record.run.config.update if u.key}
        summary |= {u.key: json.loads(u.value_json) for u in record.summary.update if u.key}
        row = {"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in record.history.item}
        for tag, value in row.items():
            if not tag.startswith("_") and tag != "env_steps":
                assert row["env_steps"] not in found.setdefault(tag, {}), f"{tag} has a step twice"
                found[tag][row["env_steps"]] = value
    return found, settings, summary, record


def logs_of(out, name):
    """The one log of a run in each format; ``name`` is ``task/design/seed_n``."""
    runs = {}
    for folder in (out / "wandb").glob("offline-run-*"):
        _, settings, _, _ = offline(folder)
        key = "/".join([settings["task"], settings["reward"], f"seed_{settings.get('seed')}"])
        assert key not in runs, f"{key} has two logs"
        runs[key.replace("seed_None", "all_seeds")] = folder
    return out / "tensorboard" / name, runs[name]


def expected_points(steps, values):
    return {step: value for step, value in zip(steps, values, strict=True) if value is not None}


def assert_same(found, expected):
    assert list(found) == list(expected)
    np.testing.assert_allclose(list(found.values()), list(expected.values()), rtol=1e-6)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    out = tmp_path_factory.mktemp("logged")
    compare("chain", ["sparse", "shaping"], out=out, log=BOTH, **COMPARE)
    return out


@pytest.mark.parametrize(("reward", "i", "seed"), [("sparse", 0, 3), ("shaping", 1, 5)])
def test_a_log_of_a_comparison_holds_the_curves_of_its_record(folder, reward, i, seed):
    record = Results.load(folder).done["chain", reward].record
    board, bias = logs_of(folder, f"chain/{reward}/seed_{seed}")
    (scalars, hparams), (history, settings, summary, _) = events(board), offline(bias)
    tags = {k if "/" in k else f"episode/{k}": v[i] for k, v in record["curves"].items()}
    assert {"episode/true_return", "episode/shaped_return", "episode/success"} <= set(tags) == set(history)
    for tag, values in tags.items():
        expected = expected_points(record["steps"], values)
        assert len(expected) > 3
        assert_same(scalars[tag], expected)
        assert_same(history[tag], expected)
    last = record["steps"][-1]
    assert scalars["final/success"] == {last: pytest.approx(record["final"]["success"][i])}
    assert summary["final/success"] == record["final"]["success"][i]
    for found in (hparams, settings):
        assert found["seed"] == seed
        assert found["learning_rate"] == record["config"]["learning_rate"]
        assert found["reward"] == reward


def test_seeds_and_designs_have_different_logs(folder):
    values = [
        events(folder / "tensorboard" / "chain" / reward / f"seed_{seed}")[0]["episode/length"]
        for reward in ("sparse", "shaping")
        for seed in (3, 5)
    ]
    assert all(a != b for i, a in enumerate(values) for b in values[:i])


def test_metrics_of_the_agent_are_logged_for_all_seeds(folder):
    losses = Results.load(folder).done["chain", "sparse"].record["losses"]
    board, bias = logs_of(folder, "chain/sparse/all_seeds")
    steps = Results.load(folder).done["chain", "sparse"].record["steps"]
    assert losses
    for name, values in losses.items():
        assert_same(events(board)[0][f"agent/{name}"], expected_points(steps, values))
        assert_same(offline(bias)[0][f"agent/{name}"], expected_points(steps, values))


def snapshot(out):
    """Files and when they were written, without what the library notes for itself."""
    found = [path for name in BOTH for path in (out / name).rglob("*") if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in found if "logs" not in path.parts}


def test_complete_logs_stay_and_others_are_written_anew(folder, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(folder, out, symlinks=True)
    before = snapshot(out)
    compare("chain", ["sparse", "shaping"], out=out, log=BOTH, **COMPARE)
    assert snapshot(out) == before
    board, bias = logs_of(out, "chain/sparse/seed_3")
    expected = events(board)[0]
    for place in (board, bias):
        (place / writers.COMPLETE).unlink()
        for file in place.glob("*tfevents*"):
            file.write_bytes(file.read_bytes()[:-100])  # killed in the middle of a point
    assert tracking.log(Results.load(out), writers.writers(BOTH, out)) == 2
    assert len(list(board.glob("*tfevents*"))) == 1
    assert events(board)[0] == expected
    assert_same(offline(logs_of(out, "chain/sparse/seed_3")[1])[0]["episode/length"], expected["episode/length"])
    changed = set(snapshot(out).items()) ^ set(before.items())
    assert {path.parent.name for path, _ in changed if "tensorboard" in path.parts} == {"seed_3"}


def test_replaced_records_take_their_logs_with_them(folder, tmp_path):
    out = tmp_path / "copy"
    shutil.copytree(folder, out, symlinks=True)
    compare("chain", "dense", out=out, overwrite=True, log="tensorboard", **COMPARE)
    assert sorted(path.name for path in (out / "tensorboard" / "chain").iterdir()) == ["dense"]
    assert not (out / "wandb").exists()


def test_w_and_b_stays_offline(folder, monkeypatch, tmp_path):
    for place in (folder / "wandb").glob("offline-run-*"):
        _, _, _, last = offline(place)
        assert last.WhichOneof("record_type") == "exit"
    monkeypatch.setenv("WANDB_MODE", "online")  # the log is offline whatever the environment says
    assert tracking.log(Results.load(folder), [writers.WandB(tmp_path)]) == 6
    assert len(list((tmp_path / "wandb").glob("offline-run-*"))) == 6


def evaluations(out):
    return [record for record in read(out) if record["kind"] == "evaluation"]


def assert_logs_equal_records(out):
    rows = evaluations(out)
    board, bias = logs_of(out, "chain/sparse/seed_0")
    assert len(list(board.glob("*tfevents*"))) == 1
    steps = [row["update"] * 128 for row in rows]
    for found in (events(board)[0], offline(bias)[0]):
        assert_same(found["episode/length"], expected_points(steps, [row["length"] for row in rows]))
        losses = [row["losses"]["td_error"] for row in rows]
        assert_same(found["agent/td_error"], expected_points(steps, losses))


def test_a_training_run_is_logged_line_by_line_and_goes_on_after_an_interrupt(tmp_path, monkeypatch):
    save, saved = single.checkpoint.save, []

    def twice(*args, **kwargs):
        if len(saved) == 2:
            raise KeyboardInterrupt
        saved.append(save(*args, **kwargs))

    monkeypatch.setattr(single.checkpoint, "save", twice)
    with pytest.raises(KeyboardInterrupt):
        single.train("chain", "sparse", out=str(tmp_path), log=BOTH, **TRAIN)
    assert len(evaluations(tmp_path)) == 3
    assert_logs_equal_records(tmp_path)
    assert not list(tmp_path.rglob(writers.COMPLETE))
    monkeypatch.setattr(single.checkpoint, "save", save)
    means = single.train("chain", "sparse", out=str(tmp_path), log=BOTH, **TRAIN)
    assert len(evaluations(tmp_path)) == 4
    assert_logs_equal_records(tmp_path)
    board, bias = logs_of(tmp_path, "chain/sparse/seed_0")
    assert offline(bias)[2]["evaluated/true_return"] == means["true_return"]
    assert list(events(board)[0]["evaluated/true_return"]) == [1024]
    before = snapshot(tmp_path)
    single.train("chain", "sparse", out=str(tmp_path), log=BOTH, **TRAIN)
    assert snapshot(tmp_path) == before


@pytest.mark.slow
def test_a_killed_training_run_is_logged_once(tmp_path):
    words = ["train", "--task", "chain", "--reward", "sparse", "--agent", "q_learning", "--total-timesteps", "256000"]
    words += ["--set", "num_envs=4", "num_steps=32", "--evaluations", "20", "--out", str(tmp_path), "--log", *BOTH]
    command = [sys.executable, "-m", "reward_design", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("WANDB_SERVICE", None)  # of this process, which would outlive the one that is killed
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
    deadline = time.monotonic() + 200
    while not ((tmp_path / FILE).is_file() and (tmp_path / FILE).read_bytes().count(b'"evaluation"') >= 3):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    killed_at = len(evaluations(tmp_path))
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr  # a checkpoint that was cut may be mentioned
    assert killed_at < len(evaluations(tmp_path))
    assert_logs_equal_records(tmp_path)


@pytest.mark.slow
def test_agents_of_other_libraries_are_logged(tmp_path):
    pytest.importorskip("stable_baselines3")
    config = {"num_envs": 4, "n_steps": 32, "batch_size": 32, "n_epochs": 1}
    args = {**TRAIN, "agent": "sb3/ppo", "config": config}
    single.train("chain", "sparse", out=str(tmp_path), log="tensorboard", **args)
    rows = evaluations(tmp_path)
    scalars, hparams = events(tmp_path / "tensorboard" / "chain" / "sparse" / "seed_0")
    steps = [1024 * row["update"] // rows[-1]["update"] for row in rows]
    assert_same(scalars["episode/length"], expected_points(steps, [row["length"] for row in rows]))
    assert len(rows) == 4
    assert hparams["agent"] == "sb3/ppo"


def test_bad_requests_get_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reward_design.agents, "use_all_cores", lambda: 1)  # JAX has started
    monkeypatch.chdir(tmp_path)
    assert cli.main(["train", "--task", "chain", "--log", "tensorboard"]) == 2
    assert "--log tensorboard expects a folder for the log, got none; give one with --out." in capsys.readouterr().err
    for command in (["compare"], ["train", "--out", "x"]):
        assert cli.main([*command, "--task", "chain", "--log", "wanbd"]) == 2
        assert "unknown log 'wanbd'; did you mean 'wandb'?" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "wandb", None)
    assert cli.main(["compare", "--task", "chain", "--log", "wandb"]) == 2
    assert "need the extra 'track': pip install 'reward-design[track]'" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "path"),
    [("minihack/Room-5x5", "minihack/Room-5x5"), ("my:own", "my%3Aown"), ("../../x", "%2E%2E/%2E%2E/x")],
)
def test_names_become_paths_inside_the_folder(name, path, tmp_path):
    writer = writers.TensorBoard(tmp_path)
    track = writers.Track((name, "sparse", "seed_0"), {}, "digest")
    writer.begin(track)
    writer.end({})
    assert writer.has(track)
    assert not writer.has(track._replace(digest="another"))
    assert (tmp_path / "tensorboard" / path / "sparse" / "seed_0" / writers.COMPLETE).is_file()


def test_a_file_that_is_not_on_disk_is_not_complete(folder, tmp_path, monkeypatch):
    _, bias = logs_of(folder, "chain/sparse/seed_3")
    (file,) = bias.glob("run-*.wandb")
    writer = writers.WandB(tmp_path)
    monkeypatch.setattr(writers, "PATIENCE", 0.05)
    assert writer._is_on_disk(file)
    for data in (b"", file.read_bytes()[:7], file.read_bytes()[:-5], file.read_bytes()[:2000]):
        (tmp_path / "cut").write_bytes(data)
        assert not writer._is_on_disk(tmp_path / "cut")


def test_logs_are_written_beside_the_work_and_their_errors_arrive(tmp_path):
    main, seen = threading.get_ident(), []

    class Recording(writers.TensorBoard):
        def has(self, track):
            seen.append((threading.get_ident() == main, track))
            if track == "bad":
                raise OSError("no room")
            return True

        def prepare(self):
            seen.append((threading.get_ident() == main, "prepared"))

    with tracking.beside([Recording(tmp_path)]) as written:
        written.prepare()
        written.submit(written.to[0].has, "good")
    assert seen == [(False, "prepared"), (False, "good")]
    with pytest.raises(OSError, match="no room"), tracking.beside([Recording(tmp_path)]) as written:
        written.submit(written.to[0].has, "bad")

    gate, late = threading.Event(), []

    def interrupted():
        with tracking.beside([Recording(tmp_path)]) as written:
            written.submit(gate.wait)
            written.submit(late.append, "written")
            threading.Timer(1.0, gate.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert late == []  # what had not begun is left for the next time
