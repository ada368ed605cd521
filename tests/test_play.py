"""Episodes of policies that are watched: what is shown and filmed, and what the command says when it cannot."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
from PIL import Image
from rich.console import Console

import reward_design as rd
from reward_design import cli
from reward_design.agents import ppo, save_policy
from reward_design.envs import task
from reward_design.experiments import play, screens, video
from tests.agent_envs import Endless

ROOT = Path(__file__).parents[1]
SMALL = ["--total-timesteps", "256", "--evaluations", "2", "--set", "num_envs=4", "num_steps=32", "hidden=8"]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Folders of a finished run on the device and one on the host."""
    folder = tmp_path_factory.mktemp("runs")
    for name, reward in (("chain", "shaping"), ("gymnasium/CartPole-v1", "environment")):
        out = str(folder / name.rpartition("/")[2])
        assert cli.main(["train", "--task", name, "--reward", reward, *SMALL, "--out", out]) == 0
    return folder


@pytest.fixture(autouse=True)
def same_devices(monkeypatch):
    """JAX has started in the test process; the number of devices can no longer be changed."""
    monkeypatch.setattr(rd.agents, "use_all_cores", lambda: 1)


@pytest.fixture(scope="module", autouse=True)
def same_devices_in_fixtures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rd.agents, "use_all_cores", lambda: 1)
        yield


def decoded(film):
    """Frames and rate of a video, by ffmpeg."""
    done = subprocess.run(
        [video.ffmpeg(), "-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    width, height = map(int, re.search(rb", (\d+)x(\d+)", done.stderr).groups())
    rate = float(re.search(rb"([\d.]+) fps", done.stderr)[1])
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), rate


# --- play -----------------------------------------------------------------------------------------------------------


def test_a_gif_of_a_run(runs, tmp_path, capsys):
    film = tmp_path / "sub" / "chain.gif"
    words = ["play", "--run", str(runs / "chain"), "--episodes", "2", "--video", str(film), "--stochastic"]
    assert cli.main(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["episode", "true", "return", "shaped", "success", "length"]
    lengths = [int(line.split()[-1]) for line in lines[1:3]]
    assert lines[3].split()[0] == "mean"
    assert float(lines[3].split()[-1]) == pytest.approx(np.mean(lengths), rel=1e-3)
    assert lines[4] == f"video: {film} ({sum(lengths) + 2} frames)"
    with Image.open(film) as image:
        assert image.n_frames == sum(lengths) + 2
        assert image.size == (480, 24 + video.STRIP)
        assert image.info["duration"] == 120
        strip = np.asarray(image.convert("RGB"))[24:]
        assert (strip < 100).any()  # there is text


def test_an_mp4_is_read_back(tmp_path, capsys):
    film = tmp_path / "pole.mp4"
    assert (
        cli.main(["play", "--task", "cartpole", "--random", "--episodes", "1", "--video", str(film), "--fps", "25"])
        == 0
    )
    length = int(capsys.readouterr().out.splitlines()[1].split()[-1])
    frames, fps = decoded(film)
    assert fps == 25
    assert frames.shape == (length + 1, 320 + video.STRIP, 480, 3)
    view = task("cartpole").make(render_mode="rgb_array")
    view.reset(seed=0)
    assert np.abs(frames[0][:320].astype(int) - view.render()).mean() < 5  # it is lossy


def test_frames_have_one_even_size(tmp_path):
    writer, framing = video.writer(tmp_path / "x.mp4", 10.0), video.Framing()
    for side in (31, 31, 17, 90):
        writer.add(framing(np.full((side, side, 3), 200, np.uint8), ("a", "b")))
    writer.close()
    assert decoded(tmp_path / "x.mp4")[0].shape == (4, 388, 360, 3)  # 11 x 31 + 46, and one to be even


def test_a_disk_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    place = tmp_path / "folder.mp4"
    place.mkdir()
    assert cli.main(["play", "--task", "chain", "--random", "--episodes", "1", "--video", str(place)]) == 2
    assert capsys.readouterr().err.startswith(f"error: ffmpeg could not write {place}: ")


def test_frames_in_the_terminal_tell_both_rewards(capsys):
    words = ["play", "--task", "cliff", "--random", "--reward", "misaligned", "--episodes", "1", "--terminal"]
    assert cli.main(words) == 0
    out = capsys.readouterr().out
    pages = [page for page in out.split("\n\n") if "cliff   episode 0   step" in page]
    length = int(out.splitlines()[-1].split()[-1])
    assert len(pages) == length + 1
    assert "@CCCCCCCCCCG\ncliff   episode 0   step 0\ntrue +0.000, sum 0.000   shaped +0.000, sum 0.000" in pages[0]
    true, shaped = out.splitlines()[-1].split()[1:3]
    end = pages[-1].splitlines()[-1].replace(",", "").split()
    assert float(end[3]) == pytest.approx(float(true), rel=1e-3)
    assert float(end[7]) == pytest.approx(float(shaped), rel=1e-3)


def test_a_run_on_the_host_resumes_and_plays(runs, capsys):
    folder = str(runs / "CartPole-v1")
    assert cli.main(["train", "--task", "gymnasium/CartPole-v1", *SMALL, "--out", folder]) == 0
    assert "finished before: 256 steps" in capsys.readouterr().out
    assert cli.main(["play", "--run", folder, "--episodes", "2"]) == 0
    first = capsys.readouterr().out
    assert cli.main(["play", "--run", folder, "--episodes", "2"]) == 0
    assert capsys.readouterr().out == first
    row = first.splitlines()[1].split()
    assert row[1] == row[2] == row[4]  # one per step, paid by the environment itself


def test_random_actions_show_the_reward_of_the_run(runs, capsys):
    words = ["--random", "--episodes", "2", "--seed", "3"]
    assert cli.main(["play", "--run", str(runs / "chain"), *words]) == 0
    of_run = capsys.readouterr().out
    assert cli.main(["play", "--task", "chain", "--reward", "shaping", *words]) == 0
    assert capsys.readouterr().out == of_run
    assert of_run.splitlines()[1].split()[2] != "-"


def test_an_unfinished_run_plays_with_a_note(tmp_path, capsys, monkeypatch):
    save = rd.experiments.single.checkpoint.save

    def once(*args, **options):
        save(*args, **options)
        raise KeyboardInterrupt

    monkeypatch.setattr(rd.experiments.single.checkpoint, "save", once)
    assert cli.main(["train", "--task", "chain", *SMALL, "--out", str(tmp_path / "r")]) == 130
    assert cli.main(["play", "--run", str(tmp_path / "r"), "--episodes", "1"]) == 0
    assert "note: the run is unfinished: 1 of 2 updates." in capsys.readouterr().err


def test_saved_policies_play_where_they_are_told(tmp_path, capsys):
    envs = gymnasium.make_vec("CartPole-v1", num_envs=4)
    config = ppo.Config(total_timesteps=128, num_steps=32, num_envs=4, hidden=(8,))
    result = ppo.train_host(config, envs, rd.environment_reward(), jax.random.key(0))
    envs.close()
    save_policy(tmp_path / "p", result, config, envs)
    assert cli.main(["play", "--run", str(tmp_path / "p")]) == 2
    assert "give the task or environment itself" in capsys.readouterr().err
    words = ["play", "--run", str(tmp_path / "p"), "--task", "cartpole", "--reward", "dense", "--episodes", "1"]
    assert cli.main(words) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[2] != "-"
    assert cli.main(["play", "--run", str(tmp_path / "p"), "--task", "chain"]) == 2
    assert "acts on the observation space" in capsys.readouterr().err


def test_action_masks_are_kept_by_random_actions():
    from reward_design.experiments.playing import _random

    act = _random(gymnasium.spaces.Discrete(4), 0)
    masks = np.array([[0, 1, 0, 1]] * 50)
    assert set(act({"action_mask": masks}).tolist()) == {1, 3}


def test_what_cannot_be_drawn_is_played_all_the_same(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(type(task("chain").env), "render", lambda *_: 1 / 0)
    assert cli.main(["play", "--task", "chain", "--random", "--episodes", "2", "--video", str(tmp_path / "x.gif")]) == 0
    printed = capsys.readouterr()
    assert printed.err == "no video: drawing failed with ZeroDivisionError: division by zero\n"
    assert len(printed.out.splitlines()) == 4
    gymnasium.register("EndlessPlay-v1", entry_point=lambda **_: Endless(), max_episode_steps=5)
    played = play(task="gymnasium/EndlessPlay-v1", episodes=1, video=tmp_path / "y.gif", console=Console(quiet=True))
    assert played.length.tolist() == [5.0]
    assert "has no pictures (render mode 'rgb_array')" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "there is no policy to play: give --run FOLDER, or --task NAME --random"),
        (["--task", "chain"], "add --random to play random actions"),
        (["--run", "nowhere"], "nowhere is not a run: there is no such folder"),
        (["--run", "."], "is not a run: it has no records.jsonl"),
        (["--run", __file__], "test_play.py is a file, and a run is a folder; give the one that `train` was given"),
        (["--task", "chain", "--random", "--seed", "-1"], "seed must be a whole number from 0 to 4294967295, got -1"),
        (["--task", "chain", "--random", "--video", "x.avi"], "a video must end in .mp4 or .gif, got 'x.avi'"),
        (["--task", "chain", "--random", "--video", "x.gif", "--fps", "0"], "fps must be above 0, got 0.0"),
        (["--task", "chain", "--random", "--episodes", "0"], "episodes must be at least 1, got 0"),
        (["--task", "chain", "--random", "--video", "x.gif", "--terminal"], "choose one of the two"),
        (["--task", "cartpole", "--random", "--terminal"], "'cartpole' has no pictures in text"),
        (["--task", "chian", "--random"], "did you mean 'chain'"),
        (["--task", "chain", "--random", "--reward", "shapping"], "did you mean 'shaping'"),
    ],
)
def test_bad_requests_get_one_sentence(words, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["play", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert sentence in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_machine_without_ffmpeg_is_told_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "imageio_ffmpeg", None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ImportError, match=r"pip install imageio-ffmpeg; or choose a name that ends in \.gif"):
        video.writer(tmp_path / "x.mp4", 10.0)


def test_many_frames_go_through_a_file(monkeypatch):
    monkeypatch.setattr(screens, "MEMORY", 1000)
    pictures = [np.random.default_rng(i).integers(0, 255, (20, 10 + i, 3)).astype(np.uint8) for i in range(5)]
    with screens.Frames() as frames:
        for picture in pictures:
            frames.add(picture)
        for _ in range(2):
            for got, picture in zip(frames, pictures, strict=True):
                np.testing.assert_array_equal(got, picture)


# --- processes ------------------------------------------------------------------------------------------------------


def _command(*words, **environment):
    known = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-m", "reward_design", *words], capture_output=True, text=True, timeout=300, env=known
    )


@pytest.mark.slow
def test_without_opengl_mujoco_is_played_and_the_package_named(tmp_path):
    pytest.importorskip("mujoco")
    film = tmp_path / "x.gif"
    words = ["play", "--task", "mujoco/Hopper", "--random", "--episodes", "1", "--video", str(film)]
    done = _command(*words, MUJOCO_GL="off")
    assert done.returncode == 0, done.stderr
    assert "no video: no OpenGL to draw MuJoCo with (MUJOCO_GL=off)" in done.stderr
    assert "apt-get install libosmesa6" in done.stderr
    assert "MUJOCO_GL=osmesa" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout.splitlines()[-1].split()[0] == "mean"
    assert not film.exists()


@pytest.mark.parametrize("delay", [0.01, 0.03, 0.06, 0.1])
def test_an_interrupted_frame_is_written_and_counted_or_neither(tmp_path, delay):
    film, handed_over = video.writer(tmp_path / "x.mp4", 30.0), 0
    frames = np.random.default_rng(0).integers(256, size=(8, 240, 320, 3), dtype=np.uint8)
    threading.Timer(delay, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT)).start()
    with contextlib.suppress(KeyboardInterrupt):
        while True:
            film.add(frames[handed_over % 8])
            handed_over += 1
    film.close()
    assert film.frames in (handed_over, handed_over + 1)
    assert film.frames
    assert len(decoded(tmp_path / "x.mp4")[0]) == film.frames


@pytest.mark.slow
def test_ctrl_c_leaves_a_film_of_what_was_played(tmp_path):
    film = tmp_path / "x.mp4"
    words = ["play", "--task", "chain", "--random", "--episodes", "1000000", "--video", str(film)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-m", "reward_design", *words],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    for _ in range(4):
        process.stdout.readline()
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, error = process.communicate(timeout=120)
    assert process.returncode == 130, error
    assert "Interrupted." in error
    assert "Traceback" not in error
    count = int(out.splitlines()[-1].split("(")[1].split()[0])
    assert len(decoded(film)[0]) == count >= 3 * 20
