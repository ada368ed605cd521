import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.core import Transition
from reward_design.envs.base import EnvState
from reward_design.envs.maze_map import NEIGHBOURS, parse_map, wall_limits
from reward_design.envs.point_maze import MARGIN, POCKET, point_maze

TASK = point_maze()
ENV = TASK.env
STEP = jax.jit(ENV.step)


@functools.cache
def rollout(task):
    """``[T, B]`` transitions of 64 lanes that push hard in directions held for some steps; no resets."""
    env = task.env

    def lane(key):
        obs, state = env.reset(key)
        push = jax.random.choice(key, jnp.array([-1e6, -3.0, -1.0, 0.0, 1.0, 3.0, 1e6]), (25, 2))

        def body(carry, action):
            obs, state, alive = carry
            new_obs, state, reward, terminated, truncated, info = env.step(key, state, action)
            row = Transition(obs, action, new_obs, reward, terminated, truncated, alive, info)
            return (new_obs, state, alive & ~terminated), (row, state.inner)

        return jax.lax.scan(body, (obs, state, jnp.bool_(True)), jnp.repeat(push, 8, axis=0))[1]

    return jax.jit(jax.vmap(lane, out_axes=1))(jax.random.split(jax.random.key(0), 64))


def state_at(x, y, vx=0.0, vy=0.0):
    return EnvState(jnp.array([x, y, vx, vy], jnp.float32), jnp.int32(0))


def walk(targets, key=0):
    """Feedback control through way points (x, y): the transitions of one lane up to the end, ``[T, 1]``."""
    step = STEP
    obs, state = ENV.reset(jax.random.key(key))
    rows = []
    for target in targets:
        for _ in range(60):
            error = np.array(target) - np.asarray(state.inner[:2])
            action = jnp.asarray(4 * error - 6 * np.asarray(state.inner[2:]), jnp.float32)
            new_obs, state, *rest, info = step(jax.random.key(0), state, action)
            rows.append(Transition(obs, action, new_obs, *rest, jnp.bool_(True), info))
            obs = new_obs
            if rest[1] or rest[2] or np.abs(error).max() < 0.1:
                break
        if rest[1] or rest[2]:
            break
    return jax.tree.map(lambda *x: jnp.stack(x)[:, None], *rows)


AROUND = [(1.5, 4.5), (1.5, 1.5), (6.5, 1.5), (7.5, 4.5)]


# --- dynamics ---------------------------------------------------------------------------------------------------------


def test_never_inside_a_wall_with_extreme_actions():
    rows, inner = rollout(TASK)
    position = np.asarray(inner[..., :2])
    column, row = np.floor(position).astype(int)[..., 0], np.floor(position).astype(int)[..., 1]
    assert not ENV.walls[row, column].any()
    assert np.isfinite(position).all()
    assert 0.2 < np.asarray(rows.info["hit_wall"]).mean() < 0.95
    assert len(np.unique(row * 9 + column)) == (~ENV.walls).sum(), "the test must visit every free cell"
    observed = np.asarray(rows.next_obs)
    assert np.abs(observed).max() <= 1.0
    moved = np.abs(np.diff(position, axis=0)).max()
    assert 0.3 < moved <= ENV.max_speed + 1e-5


def naive_step(inner, action):
    """The same dynamics, written as loops over axes with tests of single cells."""
    position, velocity = np.array(inner[:2], float), np.array(inner[2:], float)
    velocity = ENV.damping * velocity + ENV.force * np.clip(action, -1, 1)
    hit = [False, False]
    for axis in (0, 1):
        cell = np.floor(position).astype(int)
        target, neighbour = position[axis] + velocity[axis], cell.copy()
        for side, edge in ((-1, cell[axis] + MARGIN), (1, cell[axis] + 1 - MARGIN)):
            neighbour[axis] = cell[axis] + side
            beyond = side * (target - edge) > 1e-6
            if ENV.walls[neighbour[1], neighbour[0]] and beyond:
                target, hit[axis] = edge, True
        position[axis] = target
    return np.concatenate([position, np.where(hit, 0, velocity)]), any(hit)


def test_steps_equal_a_naive_simulation():
    rows, inner = rollout(TASK)
    before = np.asarray(inner)[:-1, :6].reshape(-1, 4)
    after = np.asarray(inner)[1:, :6].reshape(-1, 4)
    actions, hits = np.asarray(rows.action)[1:, :6].reshape(-1, 2), np.asarray(rows.info["hit_wall"])[1:, :6].ravel()
    expected = [naive_step(a, b) for a, b in zip(before, actions)]
    np.testing.assert_allclose(after, np.stack([state for state, _ in expected]), atol=2e-5)
    assert np.mean([hit != other for (_, hit), other in zip(expected, hits)]) < 0.01


def test_wall_stops_one_axis_and_the_other_slides():
    """Against the wall at x = 5 in the dead end: x stops at the margin, y goes on."""
    state = state_at(4.9, 4.5, vx=0.3)
    _, new, *_, info = STEP(jax.random.key(0), state, jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(new.inner, [5 - MARGIN, 4.6, 0.0, 0.1], atol=1e-6)
    assert bool(info["hit_wall"])
    _, new, *_, info = STEP(jax.random.key(0), state_at(4.2, 4.5), jnp.array([1.0, 1.0]))
    np.testing.assert_allclose(new.inner, [4.3, 4.6, 0.1, 0.1], atol=1e-6)
    assert not bool(info["hit_wall"])


def test_start_goal_and_time_limit():
    _, start = jax.jit(jax.vmap(ENV.reset))(jax.random.split(jax.random.key(0), 500))
    offset = np.asarray(start.inner) - [1.5, 4.5, 0, 0]
    assert np.abs(offset[:, :2]).max() <= 0.4 < np.abs(offset[:, :2]).max() + 0.02
    assert not offset[:, 2:].any()
    for x, reached in ((7.5 - 0.6, True), (7.5 - 0.7, False)):
        _, _, reward, terminated, truncated, _ = STEP(jax.random.key(0), state_at(x, 4.5), jnp.array([1.0, 0.0]))
        assert float(reward) == float(reached)
        assert bool(terminated) is reached
        assert not bool(truncated)
    last = state_at(1.5, 4.5)._replace(time=jnp.int32(199))
    assert bool(STEP(jax.random.key(0), last, jnp.zeros(2))[4])
    at_goal = state_at(7.5, 4.5)._replace(time=jnp.int32(199))
    assert not bool(STEP(jax.random.key(0), at_goal, jnp.zeros(2))[4])


def test_several_starts_are_drawn_evenly():
    env = point_maze(maze=("#######", "#S.G.S#", "#######")).env
    _, start = jax.jit(jax.vmap(env.reset))(jax.random.split(jax.random.key(0), 400))
    assert 0.4 < (np.asarray(start.inner[:, 0]) > 3).mean() < 0.6


# --- distances --------------------------------------------------------------------------------------------------------


def test_path_distance_of_known_places():
    """Around the pocket the way from the start takes 3 + 6 + 3 cells, and cuts corners."""

    def path(x, y):
        return float(ENV.path_distance(ENV._observe(jnp.array([x, y, 0.0, 0.0]))))

    assert path(7.5, 4.5) == pytest.approx(0.0, abs=1e-5)
    assert path(7.5, 1.5) == pytest.approx(3.0, abs=1e-5)
    assert path(6.5, 4.5) == pytest.approx(1.0, abs=1e-5)
    assert 8.5 < path(1.5, 4.5) < 12.0
    assert path(4.5, 4.5) > path(1.5, 4.5) + 1.5
    straight = float(ENV.straight_distance(ENV._observe(jnp.array([4.5, 4.5, 0.0, 0.0]))))
    assert straight == pytest.approx(3.0, abs=1e-5)


def test_path_distance_changes_no_faster_than_the_point_moves():
    rows, _ = rollout(TASK)
    path = np.asarray(ENV.path_distance(rows.next_obs)) - np.asarray(ENV.path_distance(rows.obs))
    step = np.linalg.norm(np.asarray(ENV.position(rows.next_obs) - ENV.position(rows.obs)), axis=-1)
    excess = np.abs(path) - 1.09 * step
    assert excess.max() < 0.25
    assert np.mean(excess > 0.05) < 0.02
    assert np.abs(path).max() > 0.3
    assert (
        np.asarray(ENV.path_distance(rows.next_obs)) >= np.asarray(ENV.straight_distance(rows.next_obs)) - 1e-4
    ).all()


def test_observation_gives_the_position_back():
    rows, inner = rollout(TASK)
    np.testing.assert_allclose(ENV.position(rows.next_obs), inner[..., :2], atol=1e-5)


# --- task -------------------------------------------------------------------------------------------------------------


def test_parts_accept_any_leading_axes():
    rows, _ = rollout(TASK)
    flat = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), rows)
    fns = [factor.fn for factor in TASK.factors.values()] + [TASK.success, lambda t: TASK.potential(t.obs)]
    evaluate = jax.jit(lambda t: [fn(t) for fn in fns])
    few = jax.tree.map(lambda x: np.asarray(x[:8]), flat)
    for fn, whole, folded in zip(fns, evaluate(rows), evaluate(flat)):
        assert whole.shape == (200, 64)
        np.testing.assert_allclose(np.ravel(whole), folded, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(fn(few), folded[:8], rtol=1e-4, atol=1e-5)
    phi = TASK.potential(rows.next_obs)
    assert phi.min() >= 0
    assert phi.max() <= 1
    assert phi.std() > 0.1


def worth(reward, rows):
    """Discounted return of ``rows`` ``[T, 1]`` under ``reward``."""
    params, state = reward.init(jax.random.key(0), TASK.example)
    output, _ = jax.jit(reward.unroll)(params, state, rows)
    np.testing.assert_allclose(sum(output.terms.values()), output.reward, atol=1e-6)
    return float((TASK.gamma ** np.arange(len(output.reward)) * output.reward[:, 0]).sum())


def test_the_misaligned_reward_prefers_the_dead_end():
    goal, trap = walk(AROUND), walk([(4.5, 4.5)] * 10)
    assert bool(TASK.success(goal)[-1, 0])
    assert not TASK.success(trap).any()
    trap = jax.tree.map(lambda x: jnp.concatenate([x, jnp.repeat(x[-1:], 200 - len(x), axis=0)]), trap)
    true, aligned, misaligned = TASK.true_reward, TASK.auxiliary["aligned"], TASK.auxiliary["misaligned"]
    assert worth(true, goal) == pytest.approx(worth(TASK.sparse_reward, goal))
    assert worth(true, goal) > 0.3
    assert worth(true, goal) + worth(aligned, goal) > worth(true, trap) + worth(aligned, trap) + 0.5
    assert worth(true, trap) + worth(misaligned, trap) > worth(true, goal) + worth(misaligned, goal) + 0.5
    assert worth(TASK.dense_reward, goal) > worth(TASK.dense_reward, trap) + 1


# --- maps and settings ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maze", "message"),
    [
        (("####", "#SG#", "###"), "equally long rows"),
        (("####", "#SX#", "####"), "made of '#', '.', 'S' and 'G', got 'X'"),
        (("####", "#SG.", "####"), "closed by walls"),
        (("####", "#S.#", "####"), "one goal 'G' and a start 'S', got 0 and 1"),
        (("#####", "#SGG#", "#####"), "got 2 and 1"),
        (("#####", "#S#G#", "#####"), "cannot be reached from the start in row 1, column 1"),
    ],
)
def test_bad_maps(maze, message):
    with pytest.raises(ValueError, match=message):
        point_maze(maze=maze)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"damping": 1.0}, r"damping must be in \[0, 1\), got 1.0"),
        ({"force": 0.5}, "must be in \\(0, 0.9\\] cells per step, got 2"),
        ({"goal_radius": 0.7}, "goal_radius must be in \\(0, 0.5\\], got 0.7"),
        ({"horizon": 0}, "horizon must be a positive integer, got 0"),
    ],
)
def test_bad_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        point_maze(**settings)


def test_map_reading():
    walls, starts, goal = parse_map(POCKET)
    assert walls.shape == (9, 9)
    assert starts.tolist() == [[4, 1]]
    assert goal == (4, 7)
    limits = wall_limits(walls, 0.01)
    np.testing.assert_allclose(limits[4, 1], [0.01, 1.99, -0.99, 1.99], atol=1e-6)
    np.testing.assert_allclose(limits[4, 4], [-0.99, 0.99, -0.99, 1.99], atol=1e-6)
    assert NEIGHBOURS[4] == (0, 0)
