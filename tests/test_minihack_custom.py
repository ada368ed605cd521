"""Levels of one's own on MiniHack: where they are found, and what is refused in one sentence."""

import warnings

import pytest

pytest.importorskip("nle")

from reward_design.envs import task
from tests.minihack_play import MAP

STAIRS = "STAIR:(5,1),down\n"


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"des_file": 5}, TypeError, r"des_file must be a level description as a string, or .* in \.des, got 5\.$"),
        (
            {"des_file": "nowhere.des"},
            ValueError,
            r"no file 'nowhere\.des' in the current folder, nor among MiniHack's\.$",
        ),
        ({"des_file": "mazewalks.des"}, ValueError, r"nor among MiniHack's; did you mean 'mazewalk\.des'\?$"),
        ({"penalty": "a"}, TypeError, "penalty must be a number, got 'a'"),
        ({"crop": "a"}, ValueError, "crop must be an odd number from 1 to 79, got 'a'"),
        ({"actions": "NESW"}, TypeError, "actions must be a tuple of names, .*, got 'NESW'"),
        ({"actions": ("N", "E", "N")}, ValueError, "actions must name each action once, got 'N' twice"),
    ],
)
def test_settings_that_cannot_be_are_refused(options, error, text, untyped):
    with pytest.raises(error, match=text):
        task("minihack/custom", **{"des_file": MAP + STAIRS, **options})


@pytest.mark.parametrize("rest", ["", "STAIR:(5,1),up\n", f"# {STAIRS}"])
def test_a_level_that_nobody_can_solve_is_warned_of(rest):
    with pytest.warns(UserWarning, match=r"this level has no stairs down .*, so nobody can solve it; add them"):
        task("minihack/custom", des_file=MAP + rest, horizon=8)


def test_a_file_is_found_in_the_current_folder_and_among_those_of_minihack(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.des").write_text(MAP + STAIRS)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        mine = task("minihack/custom", des_file="mine.des", actions=("N", "E"))
        monkeypatch.chdir("/")  # it was read when the task was made
        env = mine.make()
        env.reset(seed=0)
        env.close()
        assert task("minihack/custom", des_file="mazewalk.des", actions=("N", "E")).env.actions == ("N", "E")
