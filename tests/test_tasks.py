"""The contract of every task, and of finding tasks by name."""

import functools
import subprocess
import sys
from typing import Any

import cloudpickle
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.utils.env_checker import check_env

from reward_design import Kind, Transition
from reward_design.envs import Factor, Task, gymnasium_view, list_adapters, list_tasks, task

STEPS, LANES = 300, 2
every_task = pytest.mark.parametrize("name", list_tasks())


def compiled_rollout(problem: Task):
    """Function of a key: transitions [T, B] under random actions, with resets, and the steps of each episode so far."""
    env = problem.functional()
    actions = sample_actions(env.action_space, np.random.default_rng(0))

    def lane(key, actions):
        def body(carry, inputs):
            key, action = inputs
            obs, state = carry
            step_key, reset_key = jax.random.split(key)
            next_obs, next_state, reward, terminated, truncated, info = env.step(step_key, state, action)
            done = terminated | truncated
            transition = Transition(obs, action, next_obs, reward, terminated, truncated, jnp.bool_(True), info)
            carry = jax.tree.map(functools.partial(jnp.where, done), env.reset(reset_key), (next_obs, next_state))
            return carry, (transition, next_state.time)

        start, rest = jax.random.split(key)
        return jax.lax.scan(body, env.reset(start), (jax.random.split(rest, STEPS), actions))[1]

    lanes = jax.vmap(lane, out_axes=1, in_axes=(0, 1))
    return jax.jit(lambda key: lanes(jax.random.split(key, LANES), actions))


def sample_actions(space: Any, rng: np.random.Generator) -> np.ndarray:
    if isinstance(space, spaces.Discrete):
        return rng.integers(space.n, size=(STEPS, LANES), dtype=np.int32)
    return rng.uniform(space.low, space.high, (STEPS, LANES, *space.shape)).astype(space.dtype)


@pytest.fixture(scope="module")
def rollouts():
    """The rollout function of each task, compiled once."""
    return functools.cache(lambda name: compiled_rollout(task(name)))


@pytest.fixture(scope="module")
def recorded(rollouts):
    """One rollout of each task."""
    return functools.cache(lambda name: rollouts(name)(jax.random.key(0)))


# --- the contract of a task -----------------------------------------------------------------------------------------


@every_task
def test_observations_are_in_the_space(name, recorded):
    space, (trajectory, _) = task(name).functional().observation_space, recorded(name)
    shape = space.shape or ()
    for values in (trajectory.obs, trajectory.next_obs):
        assert values.shape == (STEPS, LANES, *shape)
        rows = np.asarray(values).reshape(-1, *shape)
        assert all(space.contains(row[()]) for row in rows[::7])
        assert len(np.unique(rows, axis=0)) > 1


@every_task
def test_dtypes_and_example(name, recorded):
    problem, (trajectory, time) = task(name), recorded(name)
    assert trajectory.reward.dtype == jnp.float32
    assert trajectory.terminated.dtype == trajectory.truncated.dtype == bool
    assert time.dtype == jnp.int32
    assert np.isfinite(trajectory.reward).all()
    same = jax.tree.map(lambda a, b: (a.dtype, a.shape[1:]) == (b.dtype, b.shape[2:]), problem.example, trajectory)
    assert all(jax.tree.leaves(same))
    assert all(leaf.shape[0] == 1 for leaf in jax.tree.leaves(problem.example))


@every_task
def test_episodes_end_by_termination_or_at_the_horizon(name, recorded):
    problem, (trajectory, time) = task(name), recorded(name)
    terminated, truncated, time = (np.asarray(x) for x in (trajectory.terminated, trajectory.truncated, time))
    assert not (terminated & truncated).any()
    assert time.max() <= problem.horizon
    np.testing.assert_array_equal(truncated, (time == problem.horizon) & ~terminated)
    done = terminated | truncated
    assert done.any() or problem.horizon > STEPS
    after = np.where(done[:-1], 1, time[:-1] + 1)
    np.testing.assert_array_equal(time[1:], after)


@every_task
def test_factors_rewards_and_potential(name, recorded):
    problem, (trajectory, _) = task(name), recorded(name)
    batch = jax.tree.map(lambda x: x[0], trajectory)
    rewards = {"true": problem.true_reward, "sparse": problem.sparse_reward, "dense": problem.dense_reward}
    rewards |= dict(problem.auxiliary)
    assert set(problem.auxiliary) >= {"aligned", "misaligned"}

    @jax.jit
    def evaluate(batch, trajectory):
        out: dict[str, Any] = {"factors": {}, "unroll": {}, "step": {}}
        for label, factor in problem.factors.items():
            out["factors"][label] = (factor.fn(batch), factor.fn(trajectory))
        for label, reward in rewards.items():
            params, state = reward.init(jax.random.key(0), batch)
            out["unroll"][label] = reward.unroll(params, state, trajectory)[0]
            out["step"][label] = reward.step(params, state, batch)[0] if reward.step else None
        out["potential"] = (problem.potential(batch.obs), problem.potential(trajectory.obs))
        out["success"] = (problem.success(batch), problem.success(trajectory))
        return out

    out = jax.tree.map(np.asarray, evaluate(batch, trajectory))
    for label, (first, all_of_them) in out["factors"].items():
        assert (first.shape, all_of_them.shape) == ((LANES,), (STEPS, LANES)), label
        assert first.dtype == all_of_them.dtype == np.float32, label
        assert np.isfinite(all_of_them).all(), label
        np.testing.assert_array_equal(first, all_of_them[0])
    for label, output in out["unroll"].items():
        assert output.reward.shape == (STEPS, LANES), label
        assert np.isfinite(output.reward).all(), label
        np.testing.assert_allclose(sum(output.terms.values()), output.reward, rtol=1e-5, atol=1e-5, err_msg=label)
        if rewards[label].kind is Kind.POINTWISE:
            np.testing.assert_allclose(out["step"][label].reward, output.reward[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(out["unroll"]["true"].reward, trajectory.reward)
    potential, success = out["potential"][1], out["success"][1]
    assert potential.shape == success.shape == (STEPS, LANES)
    assert success.dtype == bool
    assert potential.min() >= -0.01
    assert potential.max() <= 1.01
    assert np.ptp(potential) > 0.01
    np.testing.assert_array_equal(out["unroll"]["sparse"].reward > 0, success)


@every_task
def test_words(name):
    problem = task(name)
    assert problem.name == name
    assert len(problem.description) > 150
    assert "  " not in problem.description
    assert "{" not in problem.description
    assert 0 < problem.gamma <= 1
    assert len(problem.factors) >= 3
    for factor in problem.factors.values():
        assert isinstance(factor, Factor)
        assert factor.sign in (-1, 1)
        assert factor.unit
        assert "\n" not in factor.description.strip()
    assert "\n" not in list_tasks()[name]


@every_task
def test_same_key_same_experience(name, rollouts, recorded):
    jax.tree.map(np.testing.assert_array_equal, rollouts(name)(jax.random.key(0)), recorded(name))


def test_random_starts_differ():
    reset = jax.jit(jax.vmap(task("four_rooms", start="random").functional().reset))
    obs, _ = reset(jax.random.split(jax.random.key(0), 50))
    assert len(np.unique(obs)) > 10


# --- the gymnasium view ---------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*(Box action spaces|Box observation space)")  # advice, not a fault
@every_task
def test_gymnasium_view_passes_check_env(name):
    view = task(name).make()
    check_env(view, skip_render_check=True)


def play(view: gymnasium.Env, seed: int, steps: int) -> list:
    """Everything that comes out of `steps` steps of fixed actions, resets without a seed included."""
    view.action_space.seed(0)
    obs, _ = view.reset(seed=seed)
    seen = [obs]
    for _ in range(steps):
        obs, reward, terminated, truncated, _ = view.step(view.action_space.sample())
        seen.append((obs, reward, terminated, truncated))
        if terminated or truncated:
            seen.append(view.reset()[0])
    return seen


def test_gymnasium_view_is_reproducible_over_episodes():
    problem = task("random_mdp", num_states=9, num_actions=3, num_goals=2, seed=4)
    one, same, other = play(problem.make(), 1, 60), play(problem.make(), 1, 60), play(problem.make(), 2, 60)
    assert one == same
    assert one != other
    assert sum(not isinstance(row, tuple) for row in one) > 2


def test_gymnasium_view_gives_the_functional_numbers():
    problem = task("deep_sea", size=4)
    view, model = problem.make(), problem.tabular()
    obs, info = view.reset(seed=0)
    assert info == {}
    for action in (1, np.int64(1), 0, np.int32(1)):
        state = obs
        obs, reward, terminated, truncated, info = view.step(action)
        assert model.transition[state, int(action), obs] == 1
        assert reward == pytest.approx(model.reward[state, int(action), obs], abs=1e-6)
        assert type(reward) is float
        assert type(terminated) is type(truncated) is bool
        assert obs.dtype == np.int64
    assert terminated
    assert not truncated


def test_gymnasium_view_truncates_at_the_horizon():
    view = task("four_rooms", horizon=7).make()
    view.reset(seed=0)
    assert [view.step(0)[2:4] for _ in range(7)] == [(False, False)] * 6 + [(False, True)]


def test_gymnasium_view_refuses_what_it_cannot_do():
    view = task("chain").make()
    with pytest.raises(RuntimeError, match="'chain' must be reset before the first step"):
        view.step(0)
    view.reset(seed=0)
    with pytest.raises(ValueError, match=r"action of 'chain' must be in Discrete\(2\), got 5"):
        view.step(5)


def test_gymnasium_view_can_be_sent_to_another_process():
    copy = cloudpickle.loads(cloudpickle.dumps(task("chain").make()))
    assert isinstance(copy, gymnasium_view.GymnasiumView)
    assert copy.reset(seed=0)[0] == 0


def test_views_share_compiled_functions():
    problem = task("chain")
    first, second = problem.make(), problem.make()
    first.reset(seed=0)
    first.step(0)
    compiled: Any = gymnasium_view._step
    before = compiled._cache_size()
    second.reset(seed=1)
    second.step(np.int64(1))
    assert compiled._cache_size() == before


def test_vector_of_views():
    venv = task("chain").vector(3, seed=0)
    obs, _ = venv.reset(seed=0)
    assert obs.shape == (3,)
    obs, reward, _, _, _ = venv.step(np.array([0, 1, 1]))
    assert obs.tolist() == [0, 1, 1]
    assert reward.tolist() == [0, 0, 0]
    venv.close()


# --- names ----------------------------------------------------------------------------------------------------------


def test_same_arguments_same_task():
    assert task("chain") is task("chain", num_states=20)
    assert task("chain", num_states=6) is task("chain", num_states=6)
    assert task("chain") is not task("chain", num_states=6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("four_roms", r"unknown task 'four_roms'; did you mean 'four_rooms'\? Tasks: chain, deep_sea"),
        ("xyzzy", r"unknown task 'xyzzy'\. Tasks: chain"),
        ("gymnax/", r"unknown task 'gymnax/'"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(ValueError, match=message):
        task(name)


def test_unknown_settings():
    with pytest.raises(TypeError, match=r"'chain' has no setting 'num_state'; did you mean 'num_states'\? Settings"):
        task("chain", num_state=3)
    with pytest.raises(TypeError, match="'goal' of task 'four_rooms' must be hashable, got list; give a tuple"):
        task("four_rooms", goal=[1, 2])


def test_listing_builds_nothing():
    code = "import sys, reward_design.envs as e; e.list_tasks(), e.list_adapters(); print(*sys.modules)"
    modules = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"reward_design.envs.chain", "reward_design.envs.cartpole", "gymnax", "torch", "mujoco"} & set(modules)
    assert set(list_adapters()) == {"gymnasium", "gymnax", "minigrid", "minihack", "mjx", "mujoco", "robotics"}
