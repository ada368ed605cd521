"""The names of every family of environments."""

import pytest

from reward_design.envs import list_adapters, list_tasks, task
from reward_design.envs.minihack_game import CUSTOM, _spec


@pytest.mark.parametrize("family", list_adapters())
def test_families_name_what_can_be_made(family):
    names = list_tasks(family)
    assert all(name.startswith(f"{family}/") and line for name, line in names.items())
    known = {
        "gymnasium": "CartPole-v1", "gymnax": "CartPole-v1", "minigrid": "MiniGrid-Empty-5x5-v0",
        "minihack": "Room-5x5", "mjx": "Hopper", "mujoco": "Ant-sparse", "robotics": "FetchReach-dense",
    }  # fmt: skip
    assert task(f"{family}/{known[family]}").name in names
    if family == "minihack":
        for name in names:
            assert name.endswith(CUSTOM) or _spec(name.partition("/")[2]) is not None


def test_an_unknown_family_is_refused_with_the_nearest_one():
    with pytest.raises(ValueError, match=r"unknown family 'mujco'; did you mean 'mujoco'\? Families: gymnax, minigrid"):
        list_tasks("mujco")
