"""Policies that do not belong to what they are saved with, and folders that are damaged: one sentence each."""

import jax
import pytest

from reward_design import environment_reward
from reward_design.agents import agent, checkpoint, dqn, load_policy, ppo, save_policy
from reward_design.agents.policies import Policy
from reward_design.envs import task
from reward_design.envs.host import SpacesOnly
from tests.test_policies import PPO, SMALL, Keyed

CHAIN = task("chain")


@pytest.fixture(scope="module")
def state():
    return agent("ppo").init(PPO, CHAIN.env, CHAIN.sparse_reward, jax.random.key(0), None)


@pytest.mark.parametrize(
    ("config", "name", "text"),
    [
        (ppo.Config(**SMALL, num_epochs=1, hidden=(16,)), "chain", r"is float32\[.*8.*\], and they need float32\[.*16"),
        (dqn.Config(total_timesteps=256, num_envs=4, hidden=(8,)), "chain", "not belong to agent 'dqn'"),
        (PPO, "cartpole", "not belong to agent 'ppo' with this config on 'cartpole'"),
    ],
)
def test_a_state_is_only_saved_with_what_it_was_trained_with(state, config, name, text, tmp_path, untyped):
    with pytest.raises(ValueError, match=rf"{text}.*; give the config and env that it was trained with\.$"):
        save_policy(tmp_path / "p", state, config, task(name))
    assert not list(tmp_path.iterdir())


def test_what_is_no_state_is_named(state, tmp_path, untyped):
    with pytest.raises(TypeError, match="expects what train or train_host returned, or its state, got NoneType"):
        save_policy(tmp_path / "p", None, PPO, CHAIN)
    with pytest.raises(TypeError, match="agent 'dqn' expects its own Config, got Config of"):
        save_policy(tmp_path / "p", state, PPO, CHAIN, agent=agent("dqn"))


def test_a_folder_says_what_it_lacks(state, tmp_path):
    save_policy(tmp_path / "p", state, PPO, CHAIN)
    folder = tmp_path / "p" / "0"
    folder.rename(tmp_path / "p" / "mine")
    with pytest.raises(ValueError, match="is damaged: its folder 'mine' should be named by a number, the updates done"):
        load_policy(tmp_path / "p")
    (tmp_path / "p" / "mine").rename(folder)
    (folder / checkpoint.SUMS).unlink()
    with pytest.raises(ValueError, match=r"is damaged: 0/sha256\.json, which has the hashes of its files, is missing"):
        load_policy(tmp_path / "p")


def test_parts_of_an_observation_have_the_same_number_of_rows():
    env = SpacesOnly(Keyed())
    keyed = Policy(agent("ppo"), PPO, env, agent("ppo").init(PPO, env, environment_reward(), jax.random.key(0), None))
    with pytest.raises(ValueError, match=r"expects observations of Dict.*got shape \[\(3,\), \(2, 2\)\]"):
        keyed({"x": [[0.0, 0.0], [0.0, 0.0]], "lamp": [0, 1, 2]})
