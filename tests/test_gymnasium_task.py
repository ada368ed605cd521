"""Tasks from gymnasium ids, in `compare` and `train`, stepped on the host."""

import copy
import pickle

import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import reward_design as rd
from reward_design.adapters.gymnasium import RewardWrapper, VectorRewardWrapper
from reward_design.envs import Factor, task, task_from_gymnasium
from reward_design.experiments import compare
from reward_design.experiments.single import train
from reward_design.redistribution import delayed_reward

SMALL = {"num_envs": 2, "num_steps": 32, "hidden": (8,), "num_minibatches": 2, "num_epochs": 1}


def hill(**settings):
    speed = Factor(lambda t: jnp.abs(t.next_obs[..., 1]), "1/step", 1, "speed")
    return task_from_gymnasium(
        "MountainCar-v0", factors={"speed": speed}, potential=lambda obs: jnp.sin(3 * obs[..., 0]), **settings
    )


def test_a_task_has_what_gymnasium_knows():
    known = task("gymnasium/MountainCar-v0")
    assert (known.name, known.horizon, known.gamma) == ("gymnasium/MountainCar-v0", 200, 0.99)
    assert known.description.startswith("The Mountain Car MDP is a deterministic MDP")
    assert known.make().spec.id == "MountainCar-v0"
    assert known.example.obs.shape == (1, 2)
    assert known is task("gymnasium/MountainCar-v0")
    with pytest.raises(TypeError, match="is stepped on the host"):
        known.tabular()


def test_settings_reach_the_environments():
    envs = task("gymnasium/MountainCar-v0", horizon=5, goal_velocity=0.02).vector(2, seed=1)
    assert envs.envs[0].unwrapped.goal_velocity == 0.02
    envs.reset()
    for _ in range(5):
        _, _, _, truncated, infos = envs.step(np.zeros(2, int))
    assert truncated.all()
    assert len(infos["final_obs"]) == 2


def test_info_entries_are_those_that_a_step_gives():
    assert task_from_gymnasium("Taxi-v3", info={"action_mask": ((6,), np.int8)}).example.info["action_mask"].shape == (
        1,
        6,
    )
    with pytest.raises(ValueError, match=r"gives no info entry 'action_mas'; did you mean 'action_mask'\? It gives: "):
        task_from_gymnasium("Taxi-v3", info={"action_mas": ((6,), np.int8)})
    with pytest.raises(ValueError, match=r"gives no info entry 'speed'\. It gives: none\."):
        task_from_gymnasium("MountainCar-v0", info={"speed": ((), float)})
    with pytest.raises(ValueError, match=r"'action_mask' of 'Taxi-v3' has shape \(6,\), and info= says \(\)"):
        task_from_gymnasium("Taxi-v3", info={"action_mask": ((), np.int8)})


@pytest.mark.parametrize("vectorisation", ["sync", "async", "process"])
def test_a_seed_fixes_the_run(vectorisation):
    known = task("gymnasium/MountainCar-v0", vectorisation=vectorisation)
    runs = []
    for seed in (0, 0, 1):
        envs = known.vector(2, seed=seed)
        runs.append(envs.reset(seed=seed)[0])
        envs.close()
    np.testing.assert_array_equal(runs[0], runs[1])
    assert not np.array_equal(runs[0], runs[2])


def test_rewards_factors_and_wrappers_read_it():
    known = hill()
    envs = VectorRewardWrapper(known.vector(3, seed=0), rd.potential_shaping(known.potential, gamma=known.gamma))
    obs, _ = envs.reset(seed=0)
    next_obs, reward, *_ = envs.step(np.array([0, 1, 2]))
    expected = -1 + 0.99 * np.sin(3 * next_obs[:, 0]) - np.sin(3 * obs[:, 0])
    np.testing.assert_allclose(reward, expected, atol=1e-5)
    rows = known.example._replace(next_obs=jnp.asarray(next_obs))
    np.testing.assert_allclose(known.factors["speed"].fn(rows), np.abs(next_obs[:, 1]))


def test_it_can_be_copied_and_pickled():
    known = task("gymnasium/CartPole-v1").env
    for other in (copy.deepcopy(known), pickle.loads(pickle.dumps(known))):
        assert other.observation_space == known.observation_space


def test_compare_and_train_run_on_it(tmp_path, capsys):
    results = compare(
        hill(horizon=20), ["environment", "shaping"], seeds=2, total_timesteps=256, config=SMALL, out=tmp_path / "c",
        progress=False, report=True,
    )  # fmt: skip
    assert not results.failed
    done = results.done["gymnasium/MountainCar-v0", "shaping"]
    np.testing.assert_allclose(done.final("true_return"), -20)
    assert not np.allclose(done.final("shaped_return"), -20, atol=1e-3)
    assert "gymnasium/MountainCar-v0" in (tmp_path / "c" / "report.html").read_text()

    run = {"total_timesteps": 256, "config": SMALL, "out": str(tmp_path / "t"), "evaluations": 2}
    first = train(hill(horizon=20), **run)
    assert first["true_return"] == -20
    assert train(hill(horizon=20), **run) == first
    assert "finished before: 256 steps" in capsys.readouterr().out


class Colour(gymnasium.Env):
    observation_space = gymnasium.spaces.Text(5)
    action_space = gymnasium.spaces.Discrete(2)


@pytest.mark.filterwarnings("ignore:.*different from the unwrapped version.*:UserWarning")
@pytest.mark.parametrize(
    ("env_id", "kwargs"),
    [("Blackjack-v1", {"natural": True}), ("FrozenLake-v1", {"map_name": "4x4"}), ("CliffWalking-v1", {})],
)
def test_toy_texts_of_gymnasium_are_tasks_with_rewards_in_any_order(env_id, kwargs):
    known = task_from_gymnasium(env_id, horizon=12, **kwargs)
    inner = RewardWrapper(known.make(), rd.environment_reward())
    check_env(RewardWrapper(inner, rd.scale(2.0)), skip_render_check=True)
    returns = []
    for wrap in (lambda envs: envs, lambda envs: VectorRewardWrapper(envs, rd.scale(2.0))):
        envs = wrap(known.vector(2, seed=3))
        envs.reset(seed=3)
        envs.action_space.seed(0)
        returns.append(np.stack([envs.step(envs.action_space.sample())[1] for _ in range(30)]))
        envs.close()
    np.testing.assert_allclose(returns[1], 2 * returns[0], rtol=1e-6)
    late = delayed_reward(known).make()
    late.reset(seed=1)
    rows = [late.step(0)]
    while not (rows[-1][2] or rows[-1][3]):
        rows.append(late.step(0))
    assert len(rows) <= 12
    assert [row[1] for row in rows[:-1]] == [0.0] * (len(rows) - 1)
    assert rows[-1][1] == pytest.approx(sum(row[4]["hidden_reward"] for row in rows))


def test_bad_input_is_refused_with_one_sentence():
    with pytest.raises(ValueError, match=r"gymnasium knows no environment 'CartPole-v7'; did you mean 'CartPole-v1'\?"):
        task("gymnasium/CartPole-v7")
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\], got 1.5"):
        task_from_gymnasium("CartPole-v1", gamma=1.5)
    for horizon in (0, -5):
        with pytest.raises(ValueError, match=f"horizon must be a whole number of at least 1, or None .* got {horizon}"):
            task_from_gymnasium("CartPole-v1", horizon=horizon)
    with pytest.raises(ValueError, match="gymnasium cannot make '': Malformed environment ID"):
        task_from_gymnasium("")
    with (
        pytest.warns(DeprecationWarning, match="out of date"),
        pytest.raises(ValueError, match=r"gymnasium cannot make 'CliffWalking-v0': .* use `CliffWalking-v1` instead"),
    ):
        task_from_gymnasium("CliffWalking-v0")
    with pytest.raises(ValueError, match="vectorisation must be 'sync', 'async' or 'process', got 'fast'"):
        task_from_gymnasium("CartPole-v1", vectorisation="fast")
    gymnasium.register("Colour-v0", lambda **_: Colour())
    with pytest.raises(TypeError, match=r"expected a space of numbers, got Text"):
        task_from_gymnasium("Colour-v0")
    plain = task("gymnasium/CartPole-v1")
    for number in (0, -1):
        with pytest.raises(ValueError, match=f"num_envs must be at least 1, got {number}"):
            plain.vector(number)
    with pytest.raises(ValueError, match=r"has no potential; give one: task_from_gymnasium\(..., potential=phi\)"):
        plain.potential(jnp.zeros((1, 4)))
    with pytest.raises(TypeError, match="is stepped on the host"):
        rd.agents.reinforce.train(rd.agents.reinforce.Config(), plain, rd.environment_reward(), jax.random.key(0))
