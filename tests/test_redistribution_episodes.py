"""Losses by enumeration, the store of episodes against a list, which of them teach, and tasks that pay later."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents.host import described
from reward_design.envs import task
from reward_design.redistribution import Fit, delayed_reward, hidden_reward, learning, randomised, spa
from reward_design.redistribution import episodes as store
from reward_design.redistribution.losses import random_steps
from reward_design.rollouts import random_trajectory
from tests import redistribution_oracle as oracle
from tests.cases import array_example
from tests.redistribution_fits import KEY, TINY, fitted, pairs, rollout_of

# --- losses -----------------------------------------------------------------------------------------------------------


def test_randomised_loss_against_all_subsets():
    rng, total, length = np.random.default_rng(0), 1.3, 5
    c = rng.normal(size=length)
    full = (total / length - c.mean()) ** 2
    bias = (1 - 2 / length) * c.var(ddof=1) / 2
    assert oracle.rrd_expectation(c, total, 2, unbiased=False) == pytest.approx(full + bias)
    assert oracle.rrd_expectation(c, total, 2, unbiased=True) == pytest.approx(full)
    assert bias > 0.05
    lengths, many = jnp.full(20_000, length), random_steps(KEY, jnp.full(20_000, length), 2, 7)
    picked = jnp.asarray(c)[many]
    for unbiased, expected in ((False, full + bias), (True, full)):
        loss = randomised(2, unbiased=unbiased).fn(picked, jnp.ones(many.shape, bool), lengths, jnp.full(20_000, total))
        assert float(loss.mean()) == pytest.approx(expected, abs=0.02)


def test_random_steps_are_distinct_where_there_are_enough():
    length = jnp.array([7, 4, 2, 1])
    steps = np.asarray(random_steps(KEY, length, 4, 7))
    assert steps.shape == (4, 4)
    assert all((steps[:, i] < int(n)).all() for i, n in enumerate(length))
    assert [len(set(steps[:, i])) for i in (0, 1)] == [4, 4]
    assert len(set(steps[:, 3])) == 1


# --- the store --------------------------------------------------------------------------------------------------------


def listed(rollouts, max_length):
    """All finished episodes as ``(order, rows of obs, return)``, in a loop."""
    whole = jax.tree.map(lambda *x: np.concatenate(x), *rollouts)
    found = []
    for lane in range(whole.mask.shape[1]):
        for rows, ended in oracle.lane_episodes(whole, lane):
            if ended and len(rows) <= max_length:
                found.append((rows[-1], lane, whole.obs[rows, lane], whole.reward[rows, lane].sum()))
    return sorted(found, key=lambda item: item[:2])


@pytest.mark.parametrize(("capacity", "max_length"), [(64, 12), (4, 12), (64, 2)])
def test_the_store_keeps_the_newest_episodes(capacity, max_length):
    whole = random_trajectory(array_example(), time=36)
    rollouts = [jax.tree.map(lambda x, i=i: x[12 * i : 12 * i + 12], whole) for i in range(3)]
    episodes = store.empty(jax.tree.map(lambda x: x[0], whole), capacity=capacity, max_length=max_length)
    insert = jax.jit(lambda e, r: store.insert(e, r, max_length=max_length))
    for rollout in rollouts:
        episodes = insert(episodes, rollout)
    expected = listed(rollouts, max_length)
    assert int(episodes.count) == len(expected)
    newest = expected[-capacity:]
    there = np.flatnonzero(store.present(episodes))
    batch = store.whole(episodes, jnp.asarray(there), max_length)
    got = [(batch.rows.obs[: batch.length[i], i], batch.total[i]) for i in range(len(there))]
    assert 0 < len(got) <= len(newest)
    assert capacity > 4 or len(got) == len(newest)
    for obs, total in got:
        same = [e for e in newest if len(e[2]) == len(obs) and np.allclose(e[2], obs)]
        assert len(same) == 1
        assert same[0][3] == pytest.approx(float(total), abs=1e-4)
    assert (int(episodes.skipped) > 0) == (max_length == 2)


def test_a_lane_that_was_started_anew_forgets_its_unfinished_episode():
    first = random_trajectory(array_example(), seed=1)
    alone = random_trajectory(array_example(), seed=2)
    example = jax.tree.map(lambda x: x[0], first)
    insert = jax.jit(lambda e, r: store.insert(e, r, max_length=24))
    episodes = insert(insert(store.empty(example, capacity=64, max_length=24), first), alone)
    expected = [*listed([first], 24), *listed([alone], 24)]
    totals = np.sort(np.asarray(episodes.total)[np.asarray(store.present(episodes))])
    np.testing.assert_allclose(totals, np.sort([item[3] for item in expected]), atol=1e-4)


# --- lessons ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("returns", [(9.0, 1.0, -2.0, 0.0, 9.0, 3.0, 2.0, 0.0), (0.0,) * 8])
def test_lessons_are_drawn_by_their_error_and_never_from_what_is_held_out(returns):
    rollout = rollout_of([[(0, 1, 1)]] * 8, returns, 1)
    episodes = store.empty(jax.tree.map(lambda x: x[0], rollout), capacity=8, max_length=1)
    episodes = store.insert(episodes, rollout, max_length=1)
    fit = Fit(capacity=8, batch_size=6000, holdout=4, min_episodes=4, lessons=True)
    nothing = lambda network, params, batch: jnp.zeros(batch.rows.mask.shape)  # noqa: E731
    odds = learning.lessons(nothing, {"network": (), "scale": 2.0}, episodes, fit, 1)
    error = np.abs(returns) if any(returns) else np.ones(8)
    error[[0, 4]] = 0
    for given, expected in ((odds, error / error.sum()), (None, np.array([0, 1, 1, 1, 0, 1, 1, 1]) / 6)):
        drawn = np.bincount(learning.training(episodes, KEY, fit, given), minlength=8) / 6000
        np.testing.assert_allclose(drawn, expected, atol=0.025)
    assert np.abs(error / error.sum() - 1 / 6).max() > 0.1


def test_a_rare_return_is_learned_sooner_from_lessons():
    episodes = [[(0, 0, 1)]] * 60
    episodes[7] = [(1, 1, 2)]
    rollout = rollout_of(episodes, [float(i == 7) for i in range(60)], 1)
    paid = {}
    for lessons in (False, True):
        fit = Fit(
            capacity=60, batch_size=4, num_updates=10, holdout=10, normalise=False, l2=0.0, learning_rate=0.05,
            lessons=lessons,
        )  # fmt: skip
        reward = spa(max_length=1, features=pairs, hidden=(), correction="none", fit=fit)
        params, state, _ = fitted(reward, rollout, 6)
        network = {**params["estimator"], "trust": jnp.float32(1.0)}
        output, _ = jax.jit(reward.unroll)({**params, "estimator": network}, state, rollout)
        paid[lessons] = np.asarray(output.terms["contribution"])[0]
    error = {key: abs(1 - c[7]) for key, c in paid.items()}
    assert error[True] < 0.6 * error[False]
    assert np.abs(paid[True][:7]).max() < 0.5  # without forgetting the others


# --- delayed tasks ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("every", [None, 7])
def test_a_delayed_task_pays_the_same_sums_later(every):
    plain, delayed = task("pendulum", horizon=20), delayed_reward(task("pendulum", horizon=20), every=every)
    rows = played(plain), played(delayed)
    np.testing.assert_allclose(rows[0].obs, rows[1].obs, atol=1e-5)
    np.testing.assert_allclose(rows[0].reward, rows[1].info["hidden_reward"], atol=1e-4)
    due = np.zeros(20, bool)
    due[[19] if every is None else [6, 13, 19]] = True
    assert ((np.abs(rows[1].reward) > 1e-6) == due).all()
    np.testing.assert_allclose(rows[1].reward.sum(), rows[0].reward.sum(), rtol=1e-4)
    dense = hidden_reward().unroll((), rd.State(), jax.tree.map(lambda x: x[:, None], rows[1]))[0]
    np.testing.assert_allclose(dense.reward[:, 0], rows[0].reward, atol=1e-4)


def played(known):
    """An episode with actions that do not depend on the task."""

    def body(carry, key):
        obs, state = carry
        action = jax.random.uniform(key, (1,), minval=-2.0, maxval=2.0)
        after, state, reward, terminated, truncated, info = known.env.step(key, state, action)
        row = rd.Transition(obs, action, after, reward, terminated, truncated, jnp.bool_(True), info)
        return (after, state), row

    keys = jax.random.split(KEY, known.horizon)
    return jax.jit(lambda: jax.lax.scan(body, known.env.reset(KEY), keys)[1])()


def test_delayed_tasks_in_gymnasium_and_errors():
    delayed = delayed_reward(task("chain", num_states=4, horizon=5, distractor=0.5))
    env = delayed.make()
    env.reset(seed=0)
    paid = [env.step(0) for _ in range(5)]
    assert [row[1] for row in paid] == [0, 0, 0, 0, 2.5]
    assert [row[4]["hidden_reward"] for row in paid] == [0.5] * 5
    assert paid[-1][3]
    with pytest.raises(ValueError, match="every must be a whole number of at least 1"):
        delayed_reward(TINY, every=0)
    with pytest.raises(TypeError, match="pays for the past"):
        delayed.tabular()


def test_a_task_of_the_host_is_delayed_too():
    pytest.importorskip("mujoco")
    delayed = delayed_reward(task("mujoco/InvertedPendulum"))
    envs = delayed.vector(2)
    envs.reset(seed=0)
    rows = []
    for _ in range(40):
        _, reward, terminated, truncated, info = envs.step(np.ones((2, 1), np.float32))
        rows.append((reward, info["hidden_reward"], terminated | truncated))
    paid, dense, ended = map(np.stack, zip(*rows, strict=True))
    assert ended.sum() >= 4
    np.testing.assert_array_equal(paid[~ended], 0)
    for lane in range(2):
        last = np.flatnonzero(ended[:, lane])[-1]
        assert paid[: last + 1, lane].sum() == pytest.approx(dense[: last + 1, lane].sum())
        assert dense[:, lane].min() >= 0
    assert described(envs) is delayed.env
    envs.close()
