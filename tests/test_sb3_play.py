"""Finished runs of stable-baselines3 and sbx are played, filmed and evaluated; what never ends is cut."""

# pyright: reportArgumentType=false

import gymnasium
import jax
import numpy as np
import pytest
from PIL import Image

from reward_design import cli
from reward_design.envs import task, task_from_gymnasium
from reward_design.experiments import evaluate, load_run

pytest.importorskip("torch")
stable_baselines3 = pytest.importorskip("stable_baselines3")

from reward_design.agents import agent, sb3  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # sbx's distributions use names that JAX moved
FAST = ["n_steps=32", "batch_size=32", "n_epochs=1"]


@pytest.fixture(autouse=True)
def ranks():
    """The distributions that sbx uses promote ranks."""
    with jax.numpy_rank_promotion("allow"):
        yield


@pytest.fixture(scope="module", autouse=True)
def same_devices():
    """JAX has started in the test process; the number of devices can no longer be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("reward_design.agents.use_all_cores", lambda: 1)
        yield


def trained(out, name, on, *own):
    words = ["train", "--task", on, "--agent", name, "--reward", "shaping", "--total-timesteps", "128"]
    assert cli.main([*words, "--out", str(out), "--set", "policy_kwargs={'net_arch': [8]}", *own]) == 0
    return out


@pytest.fixture(scope="module")
def pole(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("sb3") / "pole", "sb3/ppo", "cartpole", *FAST, "normalise_obs=true")


def test_a_finished_run_is_played_and_filmed(pole, tmp_path, capsys):
    film = tmp_path / "pole.gif"
    assert cli.main(["play", "--run", str(pole), "--episodes", "2", "--video", str(film)]) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line.split() for line in lines[1:3]]
    assert all(row[1] == row[4] and row[2] not in ("-", row[1]) for row in rows)  # one per step, and shaping beside it
    with Image.open(film) as image:
        assert image.n_frames == sum(int(row[4]) for row in rows) + 2


def test_the_actions_are_those_of_the_saved_file(pole):
    run, obs = load_run(pole), np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    model = stable_baselines3.PPO.load(pole / "model.zip")
    scaled = run.state.moments.normalize_obs(obs)
    assert run.finished
    assert not run.notes
    np.testing.assert_array_equal(run.policy()(obs), model.predict(scaled, deterministic=True)[0])
    assert (run.policy()(obs) != model.predict(obs, deterministic=True)[0]).any()
    assert run.policy()(obs[0]) == run.policy()(obs)[0]


def test_samples_follow_the_seed_and_nobody_elses(pole):
    run, obs = load_run(pole), np.zeros((50, 4), np.float32)
    before = np.random.get_state()[1].tolist()  # noqa: NPY002
    first, again, other = (run.policy(deterministic=False, seed=seed)(obs) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert np.random.get_state()[1].tolist() == before  # noqa: NPY002


def test_evaluation_agrees_with_that_after_training(pole):
    run = load_run(pole)
    inside = sb3.evaluate(run.agent, run.config, run.task, run.state.model, num_episodes=64, moments=run.state.moments)
    played = evaluate(run, episodes=64)
    assert played.shaped_return is not None
    assert inside["length"].mean() == pytest.approx(played.length.mean(), rel=0.2)


RUNS = [("sb3/ppo", "chain", FAST), ("sbx/ppo", "chain", FAST), ("sbx/sac", "pendulum", ["batch_size=8"])]


@pytest.mark.parametrize(("name", "on", "own"), RUNS, ids=[f"{name}-{on}" for name, on, _ in RUNS])
def test_every_kind_of_run_is_played(name, on, own, tmp_path, capsys):
    folder = trained(tmp_path / "run", name, on, *own)
    capsys.readouterr()
    for more in ([], ["--stochastic"], ["--random"]):
        assert cli.main(["play", "--run", str(folder), "--episodes", "1", *more]) == 0
        row = capsys.readouterr().out.splitlines()[1].split()
        assert row[2] != "-"
        assert 0 < int(row[4]) <= task(on).horizon


def test_an_unfinished_run_says_so(pole, tmp_path, capsys):
    (tmp_path / "records.jsonl").write_bytes((pole / "records.jsonl").read_bytes())
    assert cli.main(["play", "--run", str(tmp_path)]) == 2
    sentence = f"error: {tmp_path} has no model.zip yet: 'sb3/ppo' is saved when it is finished; "
    assert capsys.readouterr().err.startswith(sentence)


# --- no time limit --------------------------------------------------------------------------------------------------


class Endless(gymnasium.Env):
    """Only every second episode ends, after three steps."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,))
    action_space = gymnasium.spaces.Discrete(2)
    number = 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.number, self.time = self.number + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        return np.zeros(1, np.float32), 1.0, self.number % 2 == 0 and self.time == 3, False, {}


def test_a_task_without_a_time_limit_is_cut(monkeypatch):
    gymnasium.register("EndlessStableBaselines-v0", entry_point=lambda **_: Endless())
    monkeypatch.setattr(sb3, "MAX_STEPS", 20)
    known, learner = task_from_gymnasium("EndlessStableBaselines-v0"), agent("sb3/ppo")
    config = learner.Config(total_timesteps=64, gamma=known.gamma, n_steps=32, batch_size=32, n_epochs=1, num_envs=2)
    model = sb3.train(learner, config, known, known.sparse_reward, 0).state
    played = sb3.evaluate(learner, config, known, model, num_episodes=4)
    assert sorted(played["length"].tolist()) == sorted(played["true_return"].tolist())
    assert set(played["length"].tolist()) <= {3.0, 20.0}
    assert played["length"].tolist().count(20.0) == 2
    assert not played["success"].any()
