"""The command line: exit codes, one sentence for bad input, resume, and a quick answer to --help."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import reward_design.agents
from reward_design import cli
from reward_design.experiments import single
from reward_design.experiments.store import FILE

ROOT = Path(__file__).parents[1]
TABLE = ["--agent", "q_learning", "--total-timesteps", "512", "--set", "num_envs=4", "num_steps=32"]
DEEP = ["--total-timesteps", "512", "--set", "num_envs=4", "num_steps=32", "hidden=8", "num_epochs=1"]


@pytest.fixture(autouse=True)
def same_devices(monkeypatch):
    """JAX has started in the test process; the number of devices can no longer be changed."""
    monkeypatch.setattr(reward_design.agents, "use_all_cores", lambda: 1)


def run(*words, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "200"}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, timeout=120, env=environment, **options
    )


def test_help_is_for_people():
    done = run("-m", "reward_design", "--help")
    assert done.returncode == 0
    for word in ("compare", "train", "list", "report", "Start with:"):
        assert word in done.stdout
    done = run("-m", "reward_design", "compare", "--help")
    assert done.returncode == 0
    for word in ("--task", "--rewards", "--seeds", "default: 20", "For example", "my_module:my_reward"):
        assert word in done.stdout


def test_help_does_not_wait_for_heavy_imports():
    heavy = "{'flax', 'optax', 'matplotlib', 'scipy', 'gymnasium', 'orbax', 'torch', 'mujoco'}"
    done = run("-c", f"import sys, reward_design.cli; print({heavy} & set(sys.modules))")
    assert done.stdout.strip() == "set()", done.stdout + done.stderr


def test_list_names_everything(capsys):
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out
    for word in ("four_rooms", "minigrid/<id>", "misaligned", "module:attribute", "ppo", "q_learning"):
        assert word in text


def test_list_names_every_task_of_a_family(capsys):
    assert cli.main(["list", "--family", "mujoco"]) == 0
    text = capsys.readouterr().out
    for word in ("mujoco/HalfCheetah ", "mujoco/Humanoid-episodic", "Pays only past a distance"):
        assert word in text
    assert cli.main(["list", "--family", "mujco"]) == 2
    assert "unknown family 'mujco'; did you mean 'mujoco'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["compare", "--task", "for_rooms", "--rewards", "sparse"], "did you mean 'four_rooms'"),
        (["compare", "--task", "chain", "--rewards", "sparze"], "did you mean 'sparse'"),
        (["compare", "--task", "chain", "--agent", "qlearning"], "did you mean 'q_learning'"),
        (["compare", "--task", "chain", "--rewards", "no_such_module:x"], "no module 'no_such_module'"),
        (["compare", "--task", "chain", "--set", "learning_rate"], "expects name=value"),
        (["compare", "--task", "chain", "--total-timesteps", "3"], "total_timesteps"),
        (["train", "--task", "chain", "--reward", "dens"], "did you mean 'dense'"),
        (["train", "--task", "chain", "--seed", "-1"], "seed must be a whole number from 0 to 4294967295, got -1"),
        (["train", "--task", "chain", "--seed", "4294967296"], "seed must be a whole number from 0 to 4294967295, got"),
        (["report", "no/such/folder"], "no records.jsonl in no/such/folder"),
    ],
)
def test_bad_requests_get_one_sentence_and_code_2(words, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "results").exists()


def test_unknown_options_get_code_2(capsys):
    assert cli.main(["compare"]) == 2
    assert "name them with --task, or a suite with --suite" in capsys.readouterr().err
    for words in (["compare", "--task", "chain", "--seds", "3"], ["compar"], []):
        with pytest.raises(SystemExit) as stop:
            cli.main(words)
        assert stop.value.code == 2


def test_compare_report_and_a_failing_reward(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine_nan.py").write_text(
        "import jax.numpy as jnp\nfrom reward_design import pointwise\n"
        "bad = pointwise('bad', lambda t: t.reward / 0.0 * 0.0)\n"
    )
    words = ["compare", "--task", "chain", "--rewards", "sparse", "mine_nan:bad", "--seeds", "2", *DEEP, "--out", "r"]
    assert cli.main(words) == 1
    text = capsys.readouterr().out
    assert re.search(r"chain *\n +sparse +[01]\.\d\d", text)
    assert "failed mine_nan:bad on chain: reward 'bad' was not finite" in text
    assert f"Report: {tmp_path / 'r' / 'report.html'}" in text
    page = (tmp_path / "r" / "report.html").read_text()
    assert "reward-design compare --task chain --rewards sparse mine_nan:bad" in page
    assert "was not finite" in page

    (tmp_path / "r" / "report.html").unlink()
    assert cli.main(["report", "r"]) == 0
    assert (tmp_path / "r" / "report.html").read_text() == page
    assert cli.main([*words, "--seeds", "3"]) == 2
    assert "r belongs to a different configuration (seeds [0 1] there, [0 1 2] here)" in capsys.readouterr().err


def lines_of(folder):
    records = [json.loads(line) for line in (folder / FILE).read_text().splitlines()]
    return [r for r in records if r["kind"] == "evaluation"]


@pytest.mark.slow
def test_train_goes_on_from_its_checkpoint_with_the_same_numbers(tmp_path, capsys, monkeypatch):
    words = ["train", "--task", "chain", "--reward", "sparse", *TABLE, "--evaluations", "4", "--out"]
    assert cli.main([*words, str(tmp_path / "whole")]) == 0
    whole = capsys.readouterr().out
    save, saved = single.checkpoint.save, []

    def once(*args, **kwargs):
        if saved:
            raise KeyboardInterrupt
        saved.append(save(*args, **kwargs))

    monkeypatch.setattr(single.checkpoint, "save", once)
    assert cli.main([*words, str(tmp_path / "cut")]) == 130
    assert "run the same command again to go on" in capsys.readouterr().err
    assert len(lines_of(tmp_path / "cut")) == 2
    monkeypatch.setattr(single.checkpoint, "save", save)
    assert cli.main([*words, str(tmp_path / "cut")]) == 0
    resumed = capsys.readouterr().out
    assert "going on from 128 steps" in resumed
    assert lines_of(tmp_path / "cut") == lines_of(tmp_path / "whole")
    assert len(lines_of(tmp_path / "whole")) == 4
    assert whole.splitlines()[-1] == resumed.splitlines()[-1]
    assert whole.splitlines()[-1].startswith("evaluated without exploration on 32 episodes")

    assert cli.main([*words, str(tmp_path / "cut")]) == 0
    assert "finished before: 512 steps" in capsys.readouterr().out
    assert cli.main([*words, str(tmp_path / "cut"), "--seed", "1"]) == 2
    assert "seed 0 there, 1 here" in capsys.readouterr().err


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(tmp_path):
    """A real process and a real signal: the second unit is interrupted, the next start computes only that."""
    out = tmp_path / "r"
    words = ["compare", "--task", "chain", "--rewards", "sparse", "dense", "--seeds", "2", "--out", str(out), *TABLE]
    command = [sys.executable, "-m", "reward_design", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    deadline = time.monotonic() + 300
    while not ((out / FILE).is_file() and '"status":"done"' in (out / FILE).read_text()):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 130, error
    assert "Interrupted. What is finished is kept in" in error
    assert "Traceback" not in error
    done = run("-m", "reward_design", *words)
    assert done.returncode == 0, done.stderr
    units = [json.loads(line) for line in (out / FILE).read_text().splitlines() if '"kind":"unit"' in line]
    assert [u["reward"] for u in units] == ["sparse", "dense"]
    assert np.isfinite(units[1]["final"]["length"]).all()
