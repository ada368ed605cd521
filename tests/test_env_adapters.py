import functools
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design._optional import require
from reward_design.constructors import pointwise
from reward_design.core import Transition
from reward_design.envs.base import Factor
from reward_design.envs.cartpole import cartpole
from reward_design.envs.gymnax_adapter import gymnax_task
from reward_design.envs.minigrid_adapter import minigrid_task
from reward_design.envs.minigrid_parts import milestone
from reward_design.envs.mountain_car import mountain_car

gymnax = pytest.importorskip("gymnax")
xminigrid = pytest.importorskip("xminigrid")

DOOR_KEY = minigrid_task("MiniGrid-DoorKey-5x5", view_size=5)
SYMBOLIC = minigrid_task("MiniGrid-DoorKey-5x5", view_size=5, reward="library", observation="symbolic")
CARTPOLE = gymnax_task("CartPole-v1")
SHORT = {"CartPole-v1": 30, "MountainCar-v0": 30, "Breakout-MinAtar": 30, "Pendulum-v1": 30}


LENGTH = 80
"""Steps of every compiled episode; shorter ones are cut from it, so that each environment compiles once."""


@functools.cache
def compiled(env):
    def run(key, actions):
        obs, state = env.reset(key)

        def body(carry, row):
            obs, state = carry
            key, action = row
            next_obs, state, *rest = env.step(key, state, action)
            return (next_obs, state), Transition(obs, action, next_obs, *rest[:3], jnp.bool_(True), rest[3])

        return jax.lax.scan(body, (obs, state), (jax.random.split(key, LENGTH), actions))[1], (obs, state)

    return jax.jit(run)


def episode(env, key, actions):
    """One lane of ours over ``actions`` without resets: ``[T]`` transitions, and the first observation and state."""
    actions = jnp.asarray(actions, jnp.int32)
    rows, start = compiled(env)(key, jnp.concatenate([actions, jnp.zeros(LENGTH - len(actions), jnp.int32)]))
    return jax.tree.map(lambda x: x[: len(actions)], rows), start


def signature(tree):
    return [(x.shape, x.dtype, getattr(x, "weak_type", False)) for x in jax.tree.leaves(tree)]


# --- gymnax -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("env_id", SHORT)
def test_gymnax_episodes_equal_the_library(env_id):
    """The library's own ``step`` (with autoreset) from the same state with the same key, over whole episodes."""
    task = gymnax_task(env_id, horizon=SHORT[env_id])
    env, params = gymnax.make(env_id)
    params = params.replace(max_steps_in_episode=SHORT[env_id])
    key = jax.random.key(1)
    _, start = env.reset_env(key, params)
    keys = jax.random.split(key, 60)
    actions = jax.vmap(env.action_space(params).sample)(keys)
    _, ours = task.env.reset(key)
    first, second = jax.jit(lambda s: two_loops(env, params, task.env, s, keys, actions))((start, ours))
    for theirs, mine in zip(first, second, strict=True):
        np.testing.assert_allclose(theirs, mine, rtol=1e-6, atol=1e-6)
    assert bool((second[2] | second[3]).any())


def two_loops(env, params, functional, states, keys, actions):
    """Both libraries side by side; where an episode ends, the reset of theirs is where ours goes on."""

    def body(carry, row):
        theirs, ours = carry
        key, action = row
        first, _ = jax.random.split(key)  # gymnax splits its key once, for the reset
        _, theirs, reward, terminated, truncated, info = env.step(key, theirs, action, params)
        obs, ours, *rest, _ = functional.step(first, ours, action)
        done = terminated | truncated
        inner = jax.tree.map(lambda a, b: jnp.where(done, a, b), theirs, ours.inner)
        ours = ours._replace(inner=inner, time=jnp.where(done, 0, ours.time))
        return (theirs, ours), ((info["final_observation"], reward, terminated, truncated & ~terminated), (obs, *rest))

    states = jax.tree.map(jnp.asarray, states)
    states = (jax.tree.map(lambda a, b: jnp.asarray(a, b.dtype), states[0], states[1].inner), states[1])
    return jax.lax.scan(body, states, (keys, actions))[1]


@pytest.mark.parametrize("env_id", ["CartPole-v1", "MountainCar-v0", "FrozenLake-misc", "SpaceInvaders-MinAtar"])
def test_gymnax_spaces_states_and_task(env_id):
    task = gymnax_task(env_id)
    env = task.env
    obs, state = env.reset(jax.random.key(0))
    action = jax.tree.map(jnp.asarray, env.action_space.sample())
    new_obs, new_state, reward, terminated, truncated, info = env.step(jax.random.key(1), state, action)
    assert signature((obs, state)) == signature((new_obs, new_state))
    assert signature((reward, terminated, truncated)) == [((), jnp.float32, False)] + 2 * [((), jnp.bool_, False)]
    assert env.observation_space.contains(np.asarray(obs)[()])
    assert task.potential(task.example.obs).shape == (1,)
    rows = jax.tree.map(lambda x: jnp.zeros((3, 2, *x.shape[1:]), x.dtype), task.example)
    assert task.potential(rows.obs).shape == task.success(rows).shape == (3, 2)
    for factor in task.factors.values():
        assert factor.fn(rows).shape == (3, 2)
    assert info["elapsed"] == np.float32(1 / task.horizon)


@pytest.mark.parametrize(("env_id", "own"), [("CartPole-v1", cartpole()), ("MountainCar-v0", mountain_car())])
def test_gymnax_classic_control_equals_ours(env_id, own):
    theirs = CARTPOLE if env_id == "CartPole-v1" else gymnax_task(env_id)
    assert theirs.horizon == own.horizon
    actions = jax.random.randint(jax.random.key(3), (60,), 0, own.env.action_space.n)
    rows, (obs, _) = episode(theirs.env, jax.random.key(2), actions)
    _, state = own.env.reset(jax.random.key(0))
    state = state._replace(inner=obs)

    def body(state, action):
        obs, state, *rest = own.env.step(jax.random.key(0), state, action)
        return state, (obs, *rest[:3])

    mine = jax.lax.scan(body, state, actions)[1]
    until = int(np.argmax(np.append(np.asarray(mine[2] | mine[3]), True))) + 1
    for a, b in zip(mine, (rows.next_obs, rows.reward, rows.terminated, rows.truncated), strict=True):
        np.testing.assert_allclose(a[:until], b[:until], rtol=2e-4, atol=2e-5)


def test_gymnax_terminated_wins_over_truncated():
    rows, _ = episode(CARTPOLE.env, jax.random.key(0), np.ones(20))
    assert bool(rows.terminated.any())
    assert not bool(rows.truncated.any())
    fell_at = int(np.argmax(rows.terminated)) + 1
    for horizon, expected in ((fell_at, False), (fell_at - 1, True)):
        env = gymnax_task("CartPole-v1", horizon=horizon).env
        rows, _ = episode(env, jax.random.key(0), np.ones(horizon))
        assert bool(rows.terminated[-1]) is not expected
        assert bool(rows.truncated[-1]) is expected
        assert not bool(rows.truncated[:-1].any())


def test_gymnax_task_takes_what_the_user_knows():
    factor = Factor(lambda t: jnp.abs(t.next_obs[..., 2]), "rad", -1, "angle")
    extra = pointwise("extra", lambda p, t: p["w"] * t.reward, params={"w": 2.0})
    task = gymnax_task(
        "CartPole-v1",
        gamma=0.9,
        description="text",
        factors={"angle": factor},
        potential=lambda obs: -jnp.abs(obs[..., 2]),
        auxiliary={"extra": extra},
        dense_reward=extra,
        success=lambda t: jnp.asarray(t.reward > 5),
        length=0.7,
    )
    assert (task.name, task.gamma, task.description) == ("gymnax/CartPole-v1", 0.9, "text")
    assert task.dense_reward is extra
    assert task.auxiliary == {"extra": extra}
    assert "angle" in task.factors
    assert not task.success(task.example).any()
    assert task.env.params.length == 0.7
    np.testing.assert_allclose(task.potential(jnp.full((2, 4), 0.5)), -0.5)


def test_unknown_names():
    with pytest.raises(ValueError, match=r"unknown gymnax environment 'CartPole-v9'; did you mean 'CartPole-v1'\?"):
        gymnax_task("CartPole-v9")
    with pytest.raises(ValueError, match="did you mean 'gravity'"):
        gymnax_task("CartPole-v1", gravitty=3.0)
    with pytest.raises(ValueError, match="did you mean 'MiniGrid-DoorKey-5x5'"):
        minigrid_task("MiniGrid-DoorKey-5")
    with pytest.raises(ValueError, match="unknown reward setting 'dense'; did you mean"):
        minigrid_task("MiniGrid-DoorKey-5x5", reward="dense")
    with pytest.raises(ValueError, match="view_size must be odd and at least 3, got 4"):
        minigrid_task("MiniGrid-DoorKey-5x5", view_size=4)


@pytest.mark.parametrize(
    ("build", "module", "what"),
    [
        (lambda: gymnax_task("CartPole-v1"), "gymnax", "gymnax environments"),
        (lambda: minigrid_task("MiniGrid-Unlock"), "xminigrid", "minigrid environments"),
    ],
)
def test_missing_extra(monkeypatch, build, module, what):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError) as caught:
        build()
    assert str(caught.value) == f"{what} need the extra 'jaxenvs': pip install 'reward-design[jaxenvs]'."


def test_missing_dependency_of_an_extra_is_named(monkeypatch, tmp_path):
    (tmp_path / "half_installed.py").write_text("import surely_not_installed")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"reward-design\[llm\]'\. \('surely_not_installed' is missing\)"):
        require("half_installed", "llm")
    assert require("math", "llm").pi > 3


# --- minigrid ---------------------------------------------------------------------------------------------------------


def route(env, start):
    """Shortest action sequence by breadth-first search over the library's own states: key, door, goal."""
    step = jax.jit(jax.vmap(lambda s, a: env.step(jax.random.key(0), s, a), in_axes=(None, 0)))
    frontier, seen = [(start, ())], set()
    while frontier:
        successors = []
        for state, path in frontier:
            obs, states, _, terminated, *_ = step(state, jnp.arange(6))
            for action in (0, 1, 2, 3, 5):
                if terminated[action]:
                    return [*path, action]
                new = jax.tree.map(lambda x, a=action: x[a], states)
                mark = (*_mark(new), np.asarray(obs[action]).tobytes())
                if mark not in seen:
                    seen.add(mark)
                    successors.append((new, (*path, action)))
        frontier = successors
    raise AssertionError("no way to the goal")


def _mark(state):
    agent = state.inner.agent
    return np.asarray(agent.position).tobytes(), int(agent.direction), int(agent.pocket[0])


@pytest.fixture(scope="module")
def solved():
    _, (_, start) = episode(DOOR_KEY.env, jax.random.key(4), [0])
    path = route(DOOR_KEY.env, start)
    rows, _ = episode(DOOR_KEY.env, jax.random.key(4), jnp.array(path))
    return rows


def test_door_key_milestones_on_the_shortest_way(solved):
    assert not solved.terminated[:-1].any()
    assert bool(solved.terminated[-1])
    assert bool(DOOR_KEY.success(solved)[-1])
    np.testing.assert_array_equal(solved.reward, np.eye(len(solved.reward))[-1])
    for name in ("picked_up", "door_used"):
        assert int(solved.info[name].sum()) == 1
    for name in ("has_key", "unlocked", "door_open", "closeness"):
        np.testing.assert_array_equal(milestone(solved.next_obs, name), solved.info[name])
        assert solved.info[name].min() >= 0
        assert solved.info[name].max() <= 1
    assert int(solved.info["picked_up"].argmax()) < int(solved.info["door_used"].argmax())
    phi = np.asarray(DOOR_KEY.potential(solved.next_obs))
    assert phi[-1] == 1.0
    assert float(DOOR_KEY.potential(solved.obs[0])) < 1 / 3
    assert np.all(np.diff(phi) > -0.2)


def rewarded(reward, rows):
    rows = jax.tree.map(lambda x: x[:, None], rows)
    params, state = reward.init(jax.random.key(0), DOOR_KEY.example)
    output, _ = jax.jit(reward.unroll)(params, state, rows)
    np.testing.assert_allclose(sum(output.terms.values()), output.reward, atol=1e-6)
    return float(output.reward.sum())


def test_door_key_auxiliary_rewards(solved):
    """The aligned one pays once; the misaligned one pays again and again for opening and shutting the door."""
    assert rewarded(DOOR_KEY.auxiliary["aligned"], solved) == pytest.approx(0.5)
    assert rewarded(DOOR_KEY.auxiliary["misaligned"], solved) == pytest.approx(0.2)
    assert rewarded(DOOR_KEY.sparse_reward, solved) == 1.0
    opened = int(solved.info["door_used"].argmax())
    playing = jnp.concatenate([solved.action[: opened + 1], jnp.full(60, 5)])
    rows, _ = episode(DOOR_KEY.env, jax.random.key(4), playing)
    assert int(rows.info["door_used"].sum()) == 61
    assert not rows.terminated.any()
    assert rewarded(DOOR_KEY.auxiliary["aligned"], rows) == pytest.approx(0.5)
    assert rewarded(DOOR_KEY.auxiliary["misaligned"], rows) > 6 > 1 + 0.2
    taken = int(solved.info["picked_up"].argmax())
    juggling = jnp.concatenate([solved.action[: taken + 1], jnp.array([4, 3] * 20)])
    rows, _ = episode(DOOR_KEY.env, jax.random.key(4), juggling)
    assert int(rows.info["picked_up"].sum()) == 21
    assert int(rows.info["put_down"].sum()) == 20
    assert rewarded(DOOR_KEY.auxiliary["aligned"], rows) == pytest.approx(0.2)
    assert rewarded(DOOR_KEY.auxiliary["misaligned"], rows) == pytest.approx(2.1)
    assert rewarded(DOOR_KEY.dense_reward, solved) > rewarded(DOOR_KEY.dense_reward, rows) + 1


def test_minigrid_rewards_equal_the_library(solved):
    """The library's own ``step`` over the whole episode, reward and ends; ours drops only its autoreset."""
    env, params = xminigrid.make("MiniGrid-DoorKey-5x5", view_size=5)
    rows, (obs, _) = episode(SYMBOLIC.env, jax.random.key(4), solved.action)
    timestep = jax.jit(lambda key: env.reset(params, key))(jax.random.key(4))
    step = jax.jit(lambda timestep, action: env.step(params, timestep, action))
    np.testing.assert_array_equal(obs["view"], timestep.observation)
    for t, action in enumerate(solved.action):
        timestep = step(timestep, action)
        np.testing.assert_array_equal(rows.next_obs["view"][t], timestep.observation)
        assert float(rows.reward[t]) == pytest.approx(float(timestep.reward))
        assert bool(rows.terminated[t]) == bool(timestep.last())
    assert 0.9 < float(rows.reward[-1]) < 1.0
    np.testing.assert_allclose(SYMBOLIC.potential(rows.next_obs), DOOR_KEY.potential(solved.next_obs))


def test_minigrid_one_hot_is_the_symbolic_view(solved):
    rows, _ = episode(SYMBOLIC.env, jax.random.key(4), solved.action)
    kinds = np.array([0, 1, 2, 6, 7, 8, 9, 10])
    flat = np.asarray(solved.next_obs)
    tiles = kinds[flat[:, :208].reshape(-1, 26, 8).argmax(-1)]
    np.testing.assert_array_equal(tiles[:, :25].reshape(-1, 5, 5), rows.next_obs["view"][..., 0])
    np.testing.assert_array_equal(tiles[:, 25], rows.next_obs["carried"][:, 0])
    np.testing.assert_array_equal(flat[:, 208:212].argmax(-1), rows.next_obs["direction"])
    np.testing.assert_array_equal(flat[:, 212:], rows.next_obs["milestones"])
    np.testing.assert_array_equal(flat[:, :208].reshape(-1, 26, 8).sum(-1), 1)


def test_minigrid_time_limit_and_shapes():
    task = minigrid_task("MiniGrid-FourRooms", horizon=6, view_size=3)
    rows, (obs, state) = episode(task.env, jax.random.key(0), jnp.ones(6, jnp.int32))
    np.testing.assert_array_equal(rows.truncated, [False] * 5 + [True])
    new_obs, new_state, *_ = jax.eval_shape(task.env.step, jax.random.key(0), state, jnp.int32(0))
    assert signature((obs, state)) == signature((new_obs, new_state))
    assert task.env.observation_space.contains(np.asarray(obs))
    assert bool(rows.info["turned"].all())
    many = jax.tree.map(lambda x: jnp.broadcast_to(x, (3, *x.shape)), rows)
    for fn in [factor.fn for factor in task.factors.values()] + [task.success, lambda t: task.potential(t.obs)]:
        assert fn(many).shape == (3, 6)
    assert rewarded_by(task.auxiliary["misaligned"], task, rows) == pytest.approx(0.6)
    assert rewarded_by(task.auxiliary["aligned"], task, rows) == pytest.approx(0.0)


def rewarded_by(reward, task, rows):
    params, state = reward.init(jax.random.key(0), task.example)
    return float(jax.jit(reward.unroll)(params, state, jax.tree.map(lambda x: x[:, None], rows))[0].reward.sum())
