"""A designed reward as one file: in every place that takes a reward, and what is said where it does not fit."""

import dataclasses
import json

import gymnasium
import jax
import numpy as np
import pytest

from reward_design import cli
from reward_design.adapters.functional import RewardEnv
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper
from reward_design.envs import task
from reward_design.experiments import designs
from reward_design.llm import CandidateRefused, build_reward, load_reward, save_reward
from reward_design.llm.artifact import FORMAT
from reward_design.llm.build import artifact_of

SCALE = 0.5


def terms(factor="tilt"):
    entry = {"factor": factor, "shape": "linear", "direction": "decrease", "weight": 2.0, "scale": SCALE}
    return json.dumps({"terms": [entry]})


@pytest.fixture(scope="module")
def upright(tmp_path_factory):
    """A file that pays -2 |angle| / 0.5 on CartPole."""
    folder = tmp_path_factory.mktemp("rewards")
    return save_reward(folder / "upright", build_reward(terms(), "cartpole", language="terms"))


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: 1)


def by_hand(next_obs):
    return -2.0 * np.abs(np.asarray(next_obs)[..., 2]) / SCALE


@pytest.mark.parametrize("given", [str, lambda path: path], ids=["text", "path"])
def test_wrappers_of_gymnasium_take_the_file(upright, given):
    env = RewardWrapper(gymnasium.make("CartPole-v1"), given(upright))
    env.reset(seed=0)
    next_obs, reward, *_, info = env.step(1)
    assert reward == pytest.approx(by_hand(next_obs), abs=1e-6)
    assert (info["env_reward"], list(info["reward_terms"])) == (1.0, ["tilt"])
    envs = VectorRewardWrapper(gymnasium.make_vec("CartPole-v1", num_envs=2), given(upright))
    envs.reset(seed=0)
    next_obs, rewards, *_ = envs.step(np.array([0, 1]))
    np.testing.assert_allclose(rewards, by_hand(next_obs), atol=1e-6)
    assert np.all(rewards < -1e-4)


def test_the_wrapper_of_stable_baselines3_takes_the_file(upright):
    pytest.importorskip("stable_baselines3")
    from stable_baselines3.common.env_util import make_vec_env

    from reward_design.adapters.sb3 import VecRewardWrapper

    venv = VecRewardWrapper(make_vec_env("CartPole-v1", n_envs=2, seed=0), str(upright))
    venv.reset()
    next_obs, rewards, *_ = venv.step(np.array([0, 1]))
    np.testing.assert_allclose(rewards, by_hand(next_obs), atol=1e-6)


def test_functional_environments_take_the_file(upright):
    env = RewardEnv(task("cartpole").env, upright, num_envs=2)
    params, state = env.init(jax.random.key(0))
    _, state = env.reset(jax.random.key(1), state)
    next_obs, state, reward, *_ = env.step(jax.random.key(2), params, state, np.array([0, 1]))
    np.testing.assert_allclose(reward, by_hand(next_obs), atol=1e-6)


def test_other_words_are_no_reward_of_a_wrapper(untyped):
    with pytest.raises(TypeError, match=r"expected a Reward or a file that ends in \.reward, got 'sparse'"):
        RewardWrapper(gymnasium.make("CartPole-v1"), "sparse")


def test_an_environment_of_other_observations_is_an_error_that_says_so(upright):
    """JAX would read the last entry of an observation that is too short, and nobody would notice."""
    with pytest.raises(ValueError, match=r"reads obs of shape .* = \(1, 4\), got \(1, 2\); use it on the task that it"):
        RewardWrapper(gymnasium.make("MountainCar-v0"), upright)


def test_a_missing_file_is_told_with_the_nearest_name(upright):
    with pytest.raises(FileNotFoundError, match=r"there is no reward file .*uprigth.reward'; did you mean 'upright"):
        load_reward(upright.with_name("uprigth.reward"))
    with pytest.raises(FileNotFoundError, match=r"nowhere/x.reward'; save_reward writes one"):
        load_reward(upright.parent / "nowhere" / "x.reward")


def test_a_name_that_is_nearly_a_file_is_told_the_file(upright, monkeypatch):
    monkeypatch.chdir(upright.parent)
    for name in ("upright", "upright.rewrd", "./upright.json"):
        with pytest.raises(ValueError, match=rf"unknown reward '{name}'; did you mean 'upright\.reward'\?"):
            designs.known(name)
    with pytest.raises(ValueError, match="unknown reward 'shapping'; did you mean 'shaping'"):
        designs.known("shapping")
    with pytest.raises(ValueError, match="unknown reward 'barfy/misaligned'; did you mean 'barfi'"):
        designs.known("barfy/misaligned")


def test_a_folder_is_no_file(tmp_path):
    (tmp_path / "search.reward").mkdir()
    with pytest.raises(IsADirectoryError, match=r"search.reward' is a folder; give the file"):
        load_reward(tmp_path / "search.reward")


def test_the_file_is_named_in_a_refusal_and_so_is_its_task(upright):
    with pytest.raises(CandidateRefused, match=r"upright.reward', which was made for task 'cartpole': .* got .tilt"):
        load_reward(upright, "chain")
    broken = upright.with_name("broken.reward")
    broken.write_text(upright.read_text().replace("tilt", "spin"))
    with pytest.raises(CandidateRefused, match=r"broken.reward': the file was changed after it was saved"):
        load_reward(broken)


def test_a_file_of_another_version_is_told_from_a_file_that_is_none(upright):
    text = upright.read_text()
    other = FORMAT.replace("version 1", "version 0")
    assert text.count(FORMAT) == 1
    older = upright.with_name("older.reward")
    older.write_text(text.replace(FORMAT, other))
    with pytest.raises(CandidateRefused, match=rf"the file is a {other}, .* build the reward anew .* entry 'source'"):
        load_reward(older)
    older.write_text(text.replace(FORMAT, "something"))
    with pytest.raises(CandidateRefused, match=f"the file is not a {FORMAT}"):
        load_reward(older)


def test_a_reward_without_a_task_of_its_own_needs_one(upright):
    lost = upright.with_name("lost.reward")
    artifact = dataclasses.replace(artifact_of(load_reward(upright)), task=None)
    lost.write_text(artifact.to_text())
    with pytest.raises(CandidateRefused, match=r"lost.reward': the file does not say for which task .* give the task"):
        load_reward(lost)
    assert list(load_reward(lost, "cartpole").settings["weights"]) == ["tilt"]


@pytest.mark.parametrize("command", ["train", "compare", "audit", "distance"])
def test_commands_say_what_is_wrong_with_a_file(command, upright, quick, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli.main([command, "--task", "chain", "--reward", str(upright)]) == 2
    assert "which was made for task 'cartpole'" in capsys.readouterr().err
    assert cli.main([command, "--task", "cartpole", "--reward", str(upright.with_name("uprigt.reward"))]) == 2
    assert "did you mean 'upright.reward'?" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []  # nothing was begun
