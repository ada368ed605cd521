"""Robotics tasks: rewards equal to the environments' own, ends, seeds, faults, the way through mazes, HER."""

import copy
import heapq
import itertools
import pickle
import tempfile

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("gymnasium_robotics")

import reward_design as rd
from reward_design.agents import ppo
from reward_design.agents.collector import Collector
from reward_design.envs import robotics_compat, task
from reward_design.envs.robotics_goals import MazePaths, hindsight_reward
from reward_design.envs.robotics_texts import FACTS

NAMES = list(FACTS)
VARIANTS = [*NAMES, "FetchReach-dense", "FetchSlide-dense", "PointMaze_UMaze-dense", "AntMaze_Medium-dense"]


def opened(name, **settings):
    return task(f"robotics/{name}", **settings)


def recorded(known, steps=250, lanes=4, seed=0):
    """Transitions ``[T, B]`` of random play, some of it towards the goal."""
    envs = known.vector(lanes, seed=seed)
    width = known.env.action_space.shape[0]

    def policy(obs, rng):
        action = rng.uniform(-1, 1, (lanes, width)).astype(np.float32)
        towards = obs["desired_goal"] - obs["achieved_goal"]
        if width <= 4:
            size = towards.shape[1]
            action[::2, :size] = np.clip(10 * towards[::2], -1, 1)
        return action, np.zeros(lanes)

    rows, _ = Collector(envs, known.env, steps, seed=seed).collect(policy, np.random.default_rng(seed))
    envs.close()
    return rows


@pytest.mark.parametrize("name", VARIANTS)
def test_every_step_of_a_task_keeps_the_contract(name):
    known = opened(name)
    env = known.make()
    obs, _ = env.reset(seed=3)
    env.action_space.seed(0)
    ends, paid = 0, []
    for t in range(300):
        assert env.observation_space.contains(obs)
        obs, reward, terminated, truncated, info = env.step(env.action_space.sample())
        paid.append(reward)
        assert not terminated
        assert reward == env.compute_reward(obs["achieved_goal"], obs["desired_goal"], info)
        assert info["is_success"].dtype == np.float32
        assert info["simulator_fault"] is False
        assert truncated == ((t + 1) % known.horizon == 0)
        if truncated:
            ends += 1
            obs, _ = env.reset()
    assert ends == 300 // known.horizon
    assert np.isfinite(paid).all()
    env.close()


@pytest.mark.parametrize("name", VARIANTS)
def test_rewards_are_those_of_the_environment_on_a_thousand_transitions(name):
    known = opened(name)
    rows = recorded(known)
    assert rows.mask.sum() == 1000
    flat = jax.tree.map(lambda x: x.reshape(1000, *x.shape[2:]), rows)
    own = known.dense_reward if name.endswith("-dense") else known.sparse_reward
    compute_reward = hindsight_reward(own, flat)  # depends on the goals after the step, and on nothing else
    np.testing.assert_allclose(
        compute_reward(flat.next_obs["achieved_goal"], flat.next_obs["desired_goal"], {}), flat.reward, atol=1e-5
    )
    for variant, reward in (
        (name.split("-")[0], known.sparse_reward),
        (f"{name.split('-')[0]}-dense", known.dense_reward),
    ):
        theirs = opened(variant).make()
        achieved, desired = rows.next_obs["achieved_goal"].astype(float), rows.next_obs["desired_goal"].astype(float)
        expected = theirs.compute_reward(achieved, desired, {})
        np.testing.assert_allclose(hindsight_reward(reward, flat)(achieved, desired, {}), expected, atol=1e-5)
        theirs.close()


@pytest.mark.parametrize("name", VARIANTS)
def test_what_a_task_says_of_recorded_steps(name):
    known = opened(name)
    rows = recorded(known, 60)
    for factor in known.factors.values():
        values = np.asarray(factor.fn(rows))
        assert values.shape == (60, 4)
        assert np.isfinite(values).all()
        assert factor.sign in (-1, 1)
    assert known.potential(rows.obs).shape == (60, 4)
    assert (known.potential(rows.obs) <= 0).all()
    for reward in known.auxiliary.values():
        params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], rows))
        assert np.isfinite(reward.unroll(params, state, rows)[0].reward).all()
    np.testing.assert_array_equal(known.success(rows), rows.info["is_success"] > 0)
    assert len(known.description) > 200


def test_factors_are_what_they_say():
    push = opened("FetchPush")
    env = push.make()
    env.reset(seed=1)
    env.action_space.seed(1)
    data, model = env.unwrapped.data, env.unwrapped.model
    site = {name: model.site(name).id for name in ("robot0:grip", "object0")}
    rows = recorded(push, 50)
    assert (push.factors["speed"].fn(rows) > 0.1).any()
    for _ in range(20):
        before = [data.site_xpos[i].copy() for i in site.values()]
        obs, *_ = env.step(env.action_space.sample())
        t = rows._replace(next_obs=obs)
        grip, thing = (data.site_xpos[i] for i in site.values())
        assert push.factors["object_distance"].fn(t) == pytest.approx(np.linalg.norm(grip - thing), abs=1e-5)
        assert push.factors["object_height"].fn(t) == pytest.approx(thing[2], abs=1e-5)
        moved = np.linalg.norm(grip - before[0]) / env.unwrapped.dt
        assert push.factors["speed"].fn(t) == pytest.approx(moved, abs=0.6)  # of the end of the step, and its mean


def test_seeds_reproduce_and_differ():
    def play(seed, vectorisation="sync"):
        envs = task("robotics/FetchPush", vectorisation=vectorisation, horizon=5).vector(2, seed=seed)
        rows = [envs.reset(seed=seed)[0]]
        for action in np.random.default_rng(0).uniform(-1, 1, (12, 2, 4)).astype(np.float32):
            rows.append(envs.step(action)[0])
        envs.close()
        return np.concatenate([np.concatenate(list(row.values()), axis=1) for row in rows])

    np.testing.assert_array_equal(play(1), play(1))
    np.testing.assert_array_equal(play(1), play(1, "process"))
    assert not np.array_equal(play(1), play(2))


def test_reaching_the_goal_is_success_and_pays():
    known = opened("FetchReach")
    rows = recorded(known, 50, seed=1)
    last = jax.tree.map(lambda x: x[-1], rows)
    assert np.asarray(known.success(last)).tolist()[::2] == [True, True]
    assert last.reward[::2].tolist() == [0, 0]
    assert last.truncated.all()


def test_a_maze_goes_on_at_the_goal_unless_told_otherwise():
    for continuing in (True, False):
        known = opened("PointMaze_Open", continuing_task=continuing)
        rows = recorded(known, 300, seed=2)
        there = rows.info["is_success"] > 0
        assert there[:, ::2].sum() > 2
        np.testing.assert_array_equal(rows.reward, there)
        np.testing.assert_array_equal(rows.terminated, there & (not continuing))
    assert "ends as soon as" in known.description


@pytest.mark.parametrize("name", ["FetchReach", "AntMaze_UMaze"])
def test_a_simulator_that_breaks_ends_its_episode(name):
    known = opened(name)
    envs = known.vector(2, seed=0)
    collector = Collector(envs, known.env, 2)  # pyright: ignore[reportArgumentType]
    zeros = lambda obs, rng: (np.zeros((2, *known.env.action_space.shape), np.float32), np.zeros(2))  # noqa: E731
    collector.collect(zeros, np.random.default_rng(0))
    before = jax.tree.map(lambda x: x[1].copy(), collector.obs)
    envs.envs[1].unwrapped.data.qvel[2] = np.nan
    rows, _ = collector.collect(zeros, np.random.default_rng(0))
    assert rows.truncated.tolist() == rows.info["simulator_fault"].tolist() == [[False, True], [False, False]]
    assert rows.reward[0, 1] == 0
    assert collector.faults == 1
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a[0, 1], b, rtol=1e-6), rows.next_obs, before)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(rows))


# --- mazes ------------------------------------------------------------------------------------------------------------


def fine_paths(walls, start, directions, pieces):
    """Dijkstra over the cells of a grid that is ``pieces`` times as fine, in cells."""
    fine = np.kron(walls, np.ones((pieces, pieces), bool))
    distance, queue = {start: 0.0}, [(0.0, start)]
    moves = [m for m in itertools.product((-1, 0, 1), repeat=2) if 0 < abs(m[0]) + abs(m[1]) <= directions // 4]
    while queue:
        far, (r, c) = heapq.heappop(queue)
        for dr, dc in moves:
            cell, longer = (r + dr, c + dc), far + np.hypot(dr, dc) / pieces
            if not (fine[cell] or fine[r + dr, c] or fine[r, c + dc]) and longer < distance.get(cell, np.inf):
                distance[cell] = longer
                heapq.heappush(queue, (longer, cell))
    return distance


@pytest.mark.parametrize("name", ["PointMaze_UMaze", "PointMaze_Open", "PointMaze_Medium", "AntMaze_UMaze"])
def test_the_way_through_a_maze_is_between_the_shortest_and_that_of_a_grid(name):
    known = opened(name)
    env = known.make()
    maze, facts = env.unwrapped.maze, FACTS[name]
    env.close()
    assert facts.cell == maze.maze_size_scaling
    walls = np.array([[cell == 1 for cell in row] for row in maze.maze_map])
    free = np.argwhere(~walls)
    way = MazePaths(maze.maze_map, facts.cell)
    for start in free[np.random.default_rng(0).integers(len(free), size=4)]:
        longest = fine_paths(walls, tuple(start.tolist()), 4, 1)
        shortest = fine_paths(walls, tuple((9 * start + 4).tolist()), 8, 9)
        for goal in free:
            places = {
                "achieved_goal": maze.cell_rowcol_to_xy(start).astype(np.float32)[None],
                "desired_goal": maze.cell_rowcol_to_xy(goal).astype(np.float32)[None],
            }
            length = float(way(places)[0]) / facts.cell
            assert length <= longest[tuple(goal.tolist())] + 1e-4
            assert length >= 0.92 * shortest[tuple((9 * goal + 4).tolist())] - 1e-4  # eight directions cost 8 %
            assert float(known.potential(places)[0]) == pytest.approx(-length * facts.cell / 0.45, abs=1e-3)


def test_the_way_leads_around_walls():
    way = MazePaths([[1, 1, 1, 1, 1], [1, 0, 0, 0, 1], [1, 1, 1, 0, 1], [1, 0, 0, 0, 1], [1, 1, 1, 1, 1]], 1.0)
    goal = {"desired_goal": jnp.array([[-1.0, -1.0]])}
    lengths = [
        float(way({"achieved_goal": jnp.array([place]), **goal})[0])
        for place in ([-1.0, -1.0], [-0.6, -1.0], [1.0, -1.0], [1.0, 1.0], [0.0, 1.0], [-1.0, 1.0], [0.0, 0.1])
    ]
    np.testing.assert_allclose(lengths[:4], [0, 0.4, 2, 4], atol=1e-5)
    assert lengths == sorted(lengths[:6]) + lengths[6:]  # farther along the U is farther
    assert 1 <= lengths[6] <= 6  # inside a wall: the nearest cell
    gradient = jax.grad(lambda place: way({"achieved_goal": place, **goal}).sum())(jnp.array([[-1.0, -1.0]]))
    assert np.isfinite(gradient).all()


# --- HER --------------------------------------------------------------------------------------------------------------


def test_hindsight_refuses_what_it_cannot_compute():
    known = opened("FetchReach")
    rows = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), recorded(known, 250))
    effort = rd.pointwise("effort", lambda t: -jnp.square(t.action).sum(-1))
    with pytest.raises(ValueError, match="reward 'effort' depends on more than the goals after the step"):
        hindsight_reward(effort, rows)
    with pytest.raises(ValueError, match=r"'environment' depends on more than .* HER cannot compute it"):
        hindsight_reward(rd.environment_reward(), rows)
    with pytest.raises(TypeError, match="'count_bonus' is of kind CAUSAL, use a POINTWISE one"):
        hindsight_reward(rd.count_bonus(), rows)
    doubled = hindsight_reward(known.sparse_reward, rows, params={"weight": 2.0})
    assert doubled(np.zeros(3), np.ones(3), {}) == -2
    assert doubled(np.zeros((2, 3)), np.zeros((2, 3)), [{}, {}]).tolist() == [0, 0]


def test_her_of_stable_baselines_finds_the_function():
    sb3 = pytest.importorskip("stable_baselines3")
    env = opened("FetchReach").make()
    buffer = {"n_sampled_goal": 2, "goal_selection_strategy": "future"}
    model = sb3.DDPG(
        "MultiInputPolicy", env, replay_buffer_class=sb3.HerReplayBuffer, replay_buffer_kwargs=buffer,
        policy_kwargs={"net_arch": [8]}, learning_starts=60, buffer_size=200, batch_size=16, device="cpu",
    )  # fmt: skip
    model.learn(70)
    rows = model.replay_buffer.sample(64)
    distance = (rows.next_observations["achieved_goal"] - rows.next_observations["desired_goal"]).norm(dim=1)
    np.testing.assert_array_equal(rows.rewards[:, 0].numpy(), -(distance > 0.05).numpy().astype(np.float32))


# --- MuJoCo 3.12 and later --------------------------------------------------------------------------------------------


def test_joint_functions_equal_those_of_the_package():
    from gymnasium_robotics.utils import mujoco_utils as theirs

    originals = {fn.__name__: getattr(theirs, fn.__name__) for fn in robotics_compat.REPLACED}
    if robotics_compat.needs_help(__import__("mujoco").__version__):
        pytest.skip("the originals do not run on this MuJoCo")
    env = opened("FetchPush").make().unwrapped
    env.reset(seed=0)
    model, data = env.model, env.data
    names = [model.joint(i).name for i in range(model.njnt)]
    assert set(model.jnt_type.tolist()) == {0, 2, 3}
    for name in names:
        for field in ("qpos", "qvel"):
            ours = getattr(robotics_compat, f"get_joint_{field}")(model, data, name)
            np.testing.assert_array_equal(ours, originals[f"get_joint_{field}"](model, data, name))
            results = []
            for function in (getattr(robotics_compat, f"set_joint_{field}"), originals[f"set_joint_{field}"]):
                kept = getattr(data, field).copy()
                function(model, data, name, ours + 0.5)
                results.append(getattr(data, field).copy())
                getattr(data, field)[:] = kept
            np.testing.assert_array_equal(*results)
    with pytest.raises(ValueError, match="the model has no joint 'elbow'"):
        robotics_compat.get_joint_qpos(model, data, "elbow")
    with pytest.raises(ValueError, match="joint 'object0:joint' takes 7 numbers, got 1"):
        robotics_compat.set_joint_qpos(model, data, "object0:joint", 0.0)


def test_environments_run_the_same_on_the_replaced_functions(monkeypatch):
    from gymnasium_robotics.utils import mujoco_utils as theirs

    def play():
        env = opened("FetchPickAndPlace").make()
        env.reset(seed=0)
        env.action_space.seed(0)
        return [env.step(env.action_space.sample())[0]["observation"] for _ in range(20)]

    expected = play()
    for fn in robotics_compat.REPLACED:  # put back at the end
        monkeypatch.setattr(theirs, fn.__name__, getattr(theirs, fn.__name__))
    robotics_compat.replace_joint_functions()
    assert theirs.get_joint_qpos is robotics_compat.get_joint_qpos
    np.testing.assert_array_equal(play(), expected)


# --- the rest ---------------------------------------------------------------------------------------------------------


def test_described_and_copied():
    known = opened("FetchReach")
    for env in (copy.deepcopy(known.env), pickle.loads(pickle.dumps(opened("FetchReach").env))):
        assert env.observation_space == known.env.observation_space
    assert known.make().spec.id == "FetchReach-v4"
    assert opened("FetchReach-dense").name == "robotics/FetchReach-dense"


def test_a_maze_leaves_no_file_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    known = task("robotics/AntMaze_Open", gamma=0.9)
    envs = known.vector(2, seed=0)
    envs.close()
    assert list(tmp_path.iterdir()) == []


def test_ppo_trains_on_it():
    known = opened("FetchReach")
    config = ppo.Config(total_timesteps=400, num_envs=2, num_steps=100, num_minibatches=2, hidden=(8,))
    shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(known.potential, gamma=known.gamma))
    result = ppo.train_host(config, known.vector(2), shaped, jax.random.key(0))
    assert -50 <= result.metrics["true_return"][-1] < 0
    assert np.isfinite(result.metrics["value_loss"]).all()


@pytest.mark.slow
def test_ppo_learns_it_from_sparse_reward_and_potential():
    known = task("robotics/FetchReach")
    config = ppo.Config(
        total_timesteps=32_000,
        num_envs=8,
        num_steps=100,
        num_epochs=8,
        entropy_coef=0.0,
        entropy_coef_end=0.0,
        learning_rate=1e-3,
    )
    shaped = rd.chain(rd.environment_reward(), rd.potential_shaping(known.potential, gamma=known.gamma))
    result = ppo.train_host(config, known.vector(8), shaped, jax.random.key(0))
    assert result.metrics["success"][-5:].mean() >= 0.7  # exploration included


def test_bad_input_is_refused_with_one_sentence():
    with pytest.raises(ValueError, match=r"unknown robotics task 'FetchReech'; did you mean 'FetchReach'\? There are "):
        task("robotics/FetchReech")
    with pytest.raises(ValueError, match="'FetchPush' has no variant 'sparse'; there is dense, or leave it out"):
        task("robotics/FetchPush-sparse")
    with pytest.raises(ValueError, match="'FetchPush' has no setting continuing_task; only mazes have it"):
        task("robotics/FetchPush", continuing_task=True)
    with pytest.raises(ValueError, match="vectorisation must be 'sync', 'async' or 'process', got 'threads'"):
        task("robotics/FetchPush", vectorisation="threads")
    with pytest.raises(ValueError, match="horizon must be a positive integer, got -1"):
        task("robotics/FetchPush", horizon=-1)
    env = opened("FetchReach").make()
    env.reset()
    with pytest.raises(ValueError, match="actions must be finite"):
        env.step(np.array([0, 0, np.nan, 0], np.float32))
    assert isinstance(env, gymnasium.Wrapper)
