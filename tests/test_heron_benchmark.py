"""HERON's benchmark on the host: play against a plain loop, weights that reach the run, ensembles of equals."""

import importlib
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from reward_design.agents import ppo
from reward_design.envs import task
from reward_design.preferences import factor_sum

pytest.importorskip("mujoco")
sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

heron, heron_host = map(importlib.import_module, ("heron", "heron_host"))

KEY = jax.random.key(3)
HOPPER = task("mujoco/Hopper", horizon=40)
SMALL = ppo.Config(total_timesteps=128, num_envs=2, num_steps=64, num_epochs=1, num_minibatches=1, gamma=HOPPER.gamma)


def full_torque(obs, rng):
    return np.ones((len(obs), 3), np.float32), ()


def by_hand(problem, key, lanes):
    """Distance rate, healthy steps, mean effort and return of the first episode of each lane, step by step."""
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    envs = problem.vector(lanes)
    envs.reset(seed=int(rng.integers(2**31)))
    sums, running, lengths = np.zeros((lanes, 4)), set(range(lanes)), np.zeros(lanes)
    while running:
        _, reward, terminated, truncated, info = envs.step(np.ones((lanes, 3), np.float32))
        for lane in list(running):
            last = info["final_info"] if terminated[lane] or truncated[lane] else info
            healthy = 1.0 if last["reward_survive"][lane] > 0 else 0.0
            sums[lane] += (last["x_velocity"][lane], healthy, -3.0, reward[lane])
            lengths[lane] += 1
            if terminated[lane] or truncated[lane]:
                running.remove(lane)
    envs.close()
    sums[:, 2] /= lengths
    return sums[:, :3], sums[:, 3], lengths


def test_an_episode_is_worth_what_a_loop_over_its_steps_says():
    values, returns = heron_host.played(HOPPER, full_torque, KEY, 3)
    expected, rewards, lengths = by_hand(HOPPER, KEY, 3)
    assert lengths.min() < HOPPER.horizon  # somebody falls, and what follows the fall does not count
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    np.testing.assert_allclose(returns, rewards, rtol=1e-4)
    assert not np.allclose(values, by_hand(HOPPER, jax.random.key(4), 3)[0], rtol=1e-4)


def test_each_candidate_learns_from_its_own_weights_and_ensembles_act_by_the_mean():
    weights = np.array([[1.0, 0.0, 0.0], [-1.0, 0.0, 0.0]])
    params = heron.weights_as_params(HOPPER, weights)
    result = heron.trained(HOPPER, SMALL, factor_sum(heron.factors_of(HOPPER)), (1000, 1001), params)
    forward, backward = result.metrics["shaped_return"]  # of the same first rollout
    np.testing.assert_allclose(forward, -backward, rtol=1e-4)
    assert np.abs(forward).min() > 0

    own = jax.tree.map(lambda x: x[0], result.state)
    members = jax.tree.map(lambda x: x[np.array([0, 1, 1])][:, None], own)
    values, returns = heron.judged_ensemble(HOPPER, SMALL, members, KEY[None])
    actors = [heron_host.mode(HOPPER, SMALL, jax.tree.map(lambda x, i=i: x[i], own)) for i in range(2)]
    third = lambda obs, rng: ((actors[0](obs, rng)[0] + 2 * actors[1](obs, rng)[0]) / 3, ())  # noqa: E731
    expected = heron_host.played(HOPPER, third, KEY)
    np.testing.assert_allclose(values[0], expected[0].mean(axis=0), rtol=1e-3)
    np.testing.assert_allclose(returns[0], expected[1].mean(), rtol=1e-3)
    alone, _ = heron.judged(HOPPER, SMALL, own, jax.numpy.stack([KEY, KEY]))
    assert not np.allclose(alone[0], values[0], rtol=1e-3)
    assert not np.allclose(alone[0], alone[1], rtol=1e-3)


def test_records_of_single_seeds_are_one_report_without_the_seeds_of_tuning():
    def record(seed, value):
        own = {"factors": [[value]], "true_return": [value], "reward/accuracy": [value]}
        return {"task": "mujoco/Hopper", "design": "heron", "first_seed": seed, **own}

    records = [record(1, 4.0), record(1000, 9.0), record(0, 2.0), {**record(0, 7.0), "task": "mujoco/Ant"}]
    found = heron.reported(records, "mujoco/Hopper")["heron"]
    assert found["factors"] == [[2.0], [4.0]]
    assert found["true_return"] == [2.0, 4.0]
    assert found["reward/accuracy"] == pytest.approx([3.0])
