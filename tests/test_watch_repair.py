"""The demonstration task of RUDDER, as benchmarks/watch_repair.py has it: its values, its agent, how soon it learns."""

import importlib
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

watch = importlib.import_module("watch_repair")

KEY = jax.random.key(0)


def episodes(action, key=KEY):
    """Episodes in all lanes whose decision is ``action``."""
    return watch.played(jnp.zeros((4, 2)).at[:, action].set(1.0), key)


def test_the_values_of_a_repair_are_those_of_the_published_task():
    np.testing.assert_allclose(watch.value_of_repair(), [-1.5, 3.5, 3.5, -1.5], atol=1e-12)


def test_returns_of_repairs_have_the_mean_and_the_spread_of_the_costs():
    batches = jax.vmap(lambda key: episodes(0, key))(jax.random.split(KEY, 200))
    repaired = batches.obs[:, 1, :, 0] == 1
    assert 0.9 < repaired.mean() < 1.0  # one decision in twenty is a random other one
    brand, total = jnp.argmax(batches.obs[:, 0, :, 4:], axis=-1), batches.reward.sum(axis=1)
    assert (total[~repaired] == 0).all()
    assert batches.terminated[:, -1].all()
    assert not batches.terminated[:, :-1].any()
    for index, mean in enumerate(watch.value_of_repair()):
        own = np.asarray(total[repaired & (brand == index)])
        jams, tyres = (50 * p * (1 - p) * cost**2 for p, cost in ((0.1, 0.1), (0.05, 7.0)))
        spread = np.sqrt(jams + tyres + 1.5**2 + (1.0 if index == 3 else 2.0) ** 2)
        assert abs(own.mean() - mean) < 4 * spread / np.sqrt(len(own))
        assert own.std() == pytest.approx(spread, rel=0.1)


def test_success_is_the_better_decision():
    batch = episodes(0)
    good = np.asarray(watch.ENV.success(batch))
    brand, repaired = np.argmax(batch.obs[0, :, 4:], axis=-1), np.asarray(batch.obs[1, :, 0] == 1)
    np.testing.assert_array_equal(good[-1], repaired == np.isin(brand, [1, 2]))
    assert not good[:-1].any()


def test_values_move_one_decision_after_the_other():
    q = np.zeros((4, 2))
    decided, target = ([1, 1, 2, 1], [0, 0, 1, 0]), [10.0, 20.0, 5.0, -5.0]
    expected = q.copy()
    for brand, action, value in zip(*decided, target):
        expected[brand, action] += 0.1 * (value - expected[brand, action])
    got = watch.moved(jnp.asarray(q), tuple(map(jnp.asarray, decided)), jnp.asarray(target))
    np.testing.assert_allclose(got, expected, rtol=1e-6)


def test_temporal_differences_are_those_of_a_loop_over_states():
    batch = episodes(0)
    known = {}
    rng = np.random.default_rng(0)
    values = np.array(rng.normal(size=(2, 51, 51, 4, 51)), np.float32)
    values[..., 50] = 0
    expected, first = values.copy(), []
    for lane in range(watch.LANES):
        states = [(*row[:3].astype(int), row[4:].argmax(), int(row[3])) for row in np.asarray(batch.next_obs)[:, lane]]
        rewards = np.asarray(batch.reward)[:, lane]
        known = {state: expected[state] for state in states}
        first.append(rewards[0] + known[states[0]])
        for t in range(1, 50):  # the decision in states[t - 1] led to states[t]
            expected[states[t - 1]] += 0.1 * (rewards[t] + known[states[t]] - known[states[t - 1]])
    got, target = jax.jit(watch.td_targets)(jnp.asarray(values), batch)
    np.testing.assert_allclose(target, first, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_run_is_done_when_the_last_decisions_were_good():
    good = np.concatenate([np.zeros(1000), np.ones(2000)]).astype(bool)
    slow = next(n for n in range(watch.WINDOW, 3000) if good[n - watch.WINDOW : n].mean() >= watch.SHARE)
    assert watch.episodes_needed(good) == slow
    assert watch.episodes_needed(np.zeros(2000, bool)) is None


@pytest.mark.slow
@pytest.mark.parametrize("method", ["rudder", "spa"])
def test_redistribution_needs_no_more_episodes_than_published(method):
    good, q = watch.train(method, 2600 // watch.LANES, KEY)  # published: 1,900 to 3,800
    assert watch.episodes_needed(np.asarray(good).reshape(-1)) is not None
    np.testing.assert_array_equal(np.asarray(q[:, 0] > q[:, 1]), watch.value_of_repair() > 0)
