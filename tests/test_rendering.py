"""Pictures of functional tasks: what is drawn lies where the state says."""

import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.envs import EnvState, control_pictures, grid_pictures, list_tasks, rendering, task
from reward_design.envs.gymnasium_view import GymnasiumView
from tests.agent_envs import Counter


def colour(name):
    return np.array([int(name[i : i + 2], 16) for i in (1, 3, 5)])


def is_near(pixel, name):
    return np.abs(pixel.astype(int) - colour(name)).max() < 40


def centre(picture, layout, cell):
    rows = layout.walls.shape[0]
    side = picture.shape[1] // layout.walls.shape[1]
    assert picture.shape[0] >= rows * side
    return picture[int((cell[0] + 0.5) * side), int((cell[1] + 0.5) * side)]


@pytest.mark.parametrize("name", list_tasks())
def test_every_task_is_drawn_and_the_picture_follows_the_state(name):
    view = task(name).make(render_mode="rgb_array")
    view.action_space.seed(0)
    view.reset(seed=0)
    first = view.render()
    assert first.dtype == np.uint8
    assert first.ndim == 3
    assert first.shape[2] == 3
    assert first.shape[1] >= 320
    later = []
    for _ in range(6):
        view.step(view.action_space.sample())
        later.append(view.render())
    assert {picture.shape for picture in later} == {first.shape}
    assert any((picture != first).any() for picture in later)
    assert (view.render() == later[-1]).all()
    assert view.metadata["render_fps"] > 0


@pytest.mark.parametrize("name", ["four_rooms", "key_door", "cliff", "deep_sea"])
def test_grids_show_walls_goal_and_agent_in_every_state(name):
    layout = task(name).tabular().layout
    assert layout is not None
    goal = next(cell for cell, mark in layout.marks.items() if mark == "G")
    for state in range(0, len(layout.cells), 7):
        picture, at = grid_pictures.grid(layout, state), tuple(layout.cells[state])
        assert is_near(centre(picture, layout, at), rendering.BLUE)
        for wall in np.argwhere(layout.walls)[::11]:
            assert is_near(centre(picture, layout, wall), rendering.INK)
        if at != goal:
            side = picture.shape[1] // layout.walls.shape[1]
            corner = picture[int((goal[0] + 0.2) * side), int((goal[1] + 0.2) * side)]
            assert is_near(corner, rendering.GREEN)


def test_a_key_that_was_taken_is_gone():
    layout = task("key_door").tabular().layout
    assert layout is not None
    key = next(cell for cell, mark in layout.marks.items() if mark == "K")
    side = grid_pictures.grid(layout, 0).shape[1] // layout.walls.shape[1]
    corner = int((key[0] + 0.2) * side), int((key[1] + 0.2) * side)
    away = [np.flatnonzero((layout.layer == k) & (layout.cells != key).any(1))[0] for k in range(3)]
    shown = [is_near(grid_pictures.grid(layout, int(state))[corner], rendering.GOLD) for state in away]
    assert shown == [True, False, False]


def test_grids_in_characters():
    view = task("cliff").make(render_mode="ansi")
    view.reset(seed=0)
    assert view.render() == "............\n............\n............\n@CCCCCCCCCCG"
    view.step(0)
    assert view.render() == "............\n............\n@...........\nSCCCCCCCCCCG"
    door = task("key_door").make(render_mode="ansi")
    door.reset(seed=0)
    assert door.render().splitlines()[-1] == "without key"


def test_rods_point_where_their_angles_say():
    for angle in (0.0, 0.7, -2.0):
        cos, sin = np.cos(angle), np.sin(angle)
        picture = control_pictures.pendulum(cos, sin, 0.0, max_speed=8.0)
        x, y = 160 - 0.9 * sin * 160 / 1.4, 160 - 0.9 * cos * 160 / 1.4
        assert is_near(picture[round(y), round(x)], rendering.ORANGE)
    hanging = control_pictures.acrobot(0.0, np.pi / 2)
    unit = 360 / 4.6
    assert is_near(hanging[round(180 + 0.5 * unit), 180], rendering.BLUE)
    assert is_near(hanging[round(180 + unit), round(180 + 0.5 * unit)], rendering.ORANGE)
    fallen = control_pictures.cartpole(1.0, np.pi / 6, limit=2.4, length=0.5)
    tip = 320 + 1.4 * np.sin(np.pi / 6) * 80, 320 - (1.1 + 1.4 * np.cos(np.pi / 6)) * 80
    assert is_near(fallen[round(tip[1]), round(tip[0])], rendering.ORANGE)


def test_the_point_stands_where_it_is():
    view = task("point_maze").make(render_mode="rgb_array")
    view.reset(seed=3)
    env, picture = view.env, np.asarray(view.render())
    side = picture.shape[1] // env.walls.shape[1]
    x, y = np.asarray(view._state.inner[:2])
    assert is_near(picture[int(y * side), int(x * side)], rendering.BLUE)
    assert is_near(picture[int((env.goal[0] + 0.5) * side), int((env.goal[1] + 0.5) * side)], rendering.GREEN)


def test_environments_without_a_picture_show_their_numbers():
    view = GymnasiumView(Counter(), render_mode="rgb_array")
    view.reset(seed=0)
    first = view.render()
    assert first.shape == (64, 400, 3)
    view.step(0)
    assert (view.render() != first).any()
    many = rendering.numbers({"a": np.zeros(100), "b": jnp.float32(np.nan)})
    assert many.shape == (24 * 32 + 16, 400, 3)


def test_render_modes():
    view = task("chain").make()
    with pytest.raises(ValueError, match=r"render_mode of 'cartpole' must be 'rgb_array', got 'ansi'"):
        task("cartpole").make(render_mode="ansi")
    view.reset(seed=0)
    assert view.render() is None
    with pytest.raises(RuntimeError, match="must be reset before it is drawn"):
        task("chain").make(render_mode="ansi").render()
    with pytest.raises(TypeError, match="'counter' has no picture in characters"):
        Counter().render_text(EnvState((), 0))
    assert task("random_mdp").make().metadata["render_modes"] == ["rgb_array"]


def test_minigrid_draws_the_librarys_picture():
    pytest.importorskip("xminigrid")
    view = task("minigrid/MiniGrid-Empty-5x5").make(render_mode="rgb_array")
    view.reset(seed=0)
    first = view.render()
    view.step(1)
    assert first.dtype == np.uint8
    assert (first != view.render()).any()
