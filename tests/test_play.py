"""Episodes of policies: what is counted, shown and filmed, and what the command says when it cannot."""

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

import reward_design as rd
from reward_design import cli
from reward_design.agents import Policy, agent, base, ppo, save_policy
from reward_design.envs import task, task_from_gymnasium
from reward_design.experiments import Evaluation, evaluate, play, screens, video
from reward_design.experiments.evaluation import play_lanes

ROOT = Path(__file__).parents[1]
SMALL = ["--total-timesteps", "256", "--evaluations", "2", "--set", "num_envs=4", "num_steps=32", "hidden=8"]


def right(obs):
    return np.ones(len(obs), int)


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


# --- evaluate -------------------------------------------------------------------------------------------------------


def test_returns_of_known_episodes():
    """Right along the corridor of 20 cells: 19 steps, 1 at the end, and the shaping of each step by its formula."""
    chain = task("chain")
    played = evaluate(right, task=chain, reward="shaping", episodes=3)
    phi = np.array([float(chain.potential(np.int32(s))) for s in range(20)])
    phi[19] = 0.0  # terminal
    shaping = sum(chain.gamma * phi[s + 1] - phi[s] for s in range(19))
    assert played.shaped_return is not None
    np.testing.assert_allclose(played.shaped_return, 1 + shaping, rtol=1e-5)
    assert played.true_return.tolist() == [1.0] * 3
    assert played.length.tolist() == [19.0] * 3
    assert played.success.tolist() == [1.0] * 3


def test_a_time_limit_ends_an_episode_without_success():
    played = evaluate(lambda obs: 0 * right(obs), task="chain", episodes=2)
    assert played.length.tolist() == [100.0] * 2
    assert played.success.tolist() == [0.0] * 2
    assert played.shaped_return is None
    with pytest.raises(ValueError, match="there is no shaped_return: no reward was given"):
        played.estimate("shaped_return")


@pytest.mark.parametrize("name", ["cartpole", "gymnasium/CartPole-v1"])
def test_evaluation_equals_a_loop_written_by_hand(name):
    """Each lane stops at its own end; the reward counts the angle, and only within the episode."""
    tilt = rd.pointwise("tilt", lambda t: 1.0 - t.next_obs[..., 2] ** 2)

    def act(obs):
        return (obs[:, 2] + 0.3 * obs[:, 0] > 0).astype(int)

    rows = play_lanes(task(name).env, act, 3, 7)
    played = evaluate(act, task=name, reward=tilt, episodes=3, seed=7)
    for lane in range(3):
        length, paid = 0, 0.0
        for t in range(len(rows.reward)):
            assert rows.mask[t, lane]
            length, paid = length + 1, paid + 1.0 - float(rows.next_obs[t, lane, 2]) ** 2
            assert (rows.info["next_action"][t, lane] == act(rows.next_obs[t])[lane]).all()
            if rows.terminated[t, lane] or rows.truncated[t, lane]:
                break
            np.testing.assert_array_equal(rows.obs[t + 1, lane], rows.next_obs[t, lane])
        assert not rows.mask[t + 1 :, lane].any()
        assert abs(rows.next_obs[t, lane, 2]) > 0.209 or abs(rows.next_obs[t, lane, 0]) > 2.4
        assert played.length[lane] == length == played.true_return[lane]
        np.testing.assert_allclose(played.shaped_return[lane], paid, rtol=1e-5)
    assert len(set(played.length)) > 1


def test_evaluation_agrees_with_that_of_the_agents():
    chain, config = task("chain"), ppo.Config(total_timesteps=256, num_envs=4, num_steps=32, hidden=(8,))
    result = ppo.train(config, chain, chain.dense_reward, jax.random.key(0))
    inside = base.evaluate(agent("ppo"), config, chain, result.state, jax.random.key(0), num_episodes=2)
    played = evaluate(Policy(agent("ppo"), config, chain.env, result.state, task=chain), episodes=2)
    for name in ("true_return", "success", "length"):
        np.testing.assert_array_equal(getattr(played, name), inside[name])


def test_rewards_of_whole_episodes_and_with_memory():
    whole = rd.from_trajectory("length", lambda key, example: ((), ()), _length_at_the_end)
    assert evaluate(right, task="chain", reward=whole, episodes=2).shaped_return.tolist() == [19.0, 19.0]
    bonus = evaluate(right, task="chain", reward=rd.count_bonus(scale=1.0), episodes=2).shaped_return
    assert bonus[0] == bonus[1]  # counts are held fixed


def _length_at_the_end(params, state, t):
    mask = t.mask.astype(float)
    return (mask * 1.0), state


def test_more_episodes_than_lanes_and_seeds(monkeypatch):
    monkeypatch.setattr("reward_design.experiments.evaluation.MAX_LANES", 2)
    first, again = (evaluate(_push_left, task="cartpole", episodes=5, seed=4).length for _ in range(2))
    assert first.shape == (5,)
    np.testing.assert_array_equal(first, again)
    assert (first != evaluate(_push_left, task="cartpole", episodes=5, seed=5).length).any()
    with pytest.raises(ValueError, match="episodes must be at least 1, got 0"):
        evaluate(right, task="chain", episodes=0)
    with pytest.raises(ValueError, match="seed must be a whole number from 0 to 4294967295, got -1"):
        evaluate(right, task="chain", seed=-1)
    with pytest.raises(ValueError, match=r"does not know its task; give it: evaluate\(policy, task"):
        evaluate(right)


def _push_left(obs):
    return 0 * right(obs)


def test_estimates_have_intervals():
    played = Evaluation(np.arange(20.0), None, np.repeat([0.0, 1.0], 10), np.full(20, 7.0))
    value, low, high = played.estimate("true_return")
    assert low < value == 9.5 < high
    assert played.estimate("success").value == 0.5
    assert played.estimate("length") == (7.0, 7.0, 7.0)


def test_a_task_without_a_time_limit_is_cut(monkeypatch):
    for module in ("evaluation", "playing"):
        monkeypatch.setattr(f"reward_design.experiments.{module}.MAX_STEPS", 20)
    gymnasium.register("EndlessPlay-v0", entry_point=lambda **_: Endless())
    endless = task_from_gymnasium("EndlessPlay-v0")
    assert endless.horizon == 0
    assert evaluate(right, task=endless, episodes=2).length.tolist() == [20.0, 20.0]
    assert play(task=endless, episodes=1, console=_quiet()).length.tolist() == [20.0]


class Endless(gymnasium.Env):
    """Nothing ends."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, False, {}


def decoded(film):
    """Frames and rate of a video, by ffmpeg."""
    done = subprocess.run(
        [video.ffmpeg(), "-i", film, "-f", "rawvideo", "-pix_fmt", "rgb24", "-"], capture_output=True, check=True
    )
    width, height = map(int, re.search(rb", (\d+)x(\d+)", done.stderr).groups())
    rate = float(re.search(rb"([\d.]+) fps", done.stderr)[1])
    return np.frombuffer(done.stdout, np.uint8).reshape(-1, height, width, 3), rate


# --- play -----------------------------------------------------------------------------------------------------------


def _quiet():
    from rich.console import Console

    return Console(quiet=True)


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
    played = play(task="gymnasium/EndlessPlay-v1", episodes=1, video=tmp_path / "y.gif", console=_quiet())
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
