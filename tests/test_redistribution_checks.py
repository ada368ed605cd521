"""Redistribution against enumeration: best policies stay the best, and what the released script does differently."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.redistribution import ircr, mlp, redistributed, rudder, spa, squared_error, unless
from reward_design.rollouts import random_trajectory
from tests import redistribution_oracle as oracle
from tests.cases import array_example, trusted

KEY = jax.random.key(0)
HORIZON, STATES = 5, 6


def all_sequences(seed):
    """All action sequences of a random deterministic MDP, each a lane that is paid at the end, and their returns."""
    rng = np.random.default_rng(seed)
    moves, dense = rng.integers(0, STATES, (STATES, 2)), rng.normal(size=(STATES, 2))
    action = np.array(list(itertools.product((0, 1), repeat=HORIZON)), np.int32).T
    state = np.zeros((HORIZON + 1, action.shape[1]), np.int32)
    for t in range(HORIZON):
        state[t + 1] = moves[state[t], action[t]]
    returns = dense[state[:-1], action].sum(0)
    last = np.broadcast_to((np.arange(HORIZON) == HORIZON - 1)[:, None], action.shape)
    paid = np.where(last, returns, 0).astype(np.float32)
    hot = np.eye(STATES, dtype=np.float32)[state]
    return rd.Transition(hot[:-1], action, hot[1:], paid, last, last & False, last | True, {}), returns


@pytest.mark.parametrize("correction", ["equal", "last"])
def test_the_best_sequence_stays_the_best_without_discount_or_with_its_compensation(correction):
    gamma, changed = 0.7, 0
    plain, compensated = (
        trusted(spa(max_length=HORIZON, correction=correction, discount_compensation=g)) for g in (None, gamma)
    )
    runs = [(reward, jax.jit(reward.unroll)) for reward in (plain, compensated)]
    discounts = gamma ** np.arange(HORIZON)
    for seed in range(12):
        rollout, returns = all_sequences(seed)
        example = jax.tree.map(lambda x: x[0], rollout)
        paid = []
        for reward, run in runs:
            params, state = reward.init(jax.random.key(seed), example)
            params["estimator"]["scale"] = jnp.float32(300.0)  # contributions of about 3
            paid.append(np.asarray(run(params, state, rollout)[0].reward))
        assert np.abs(paid[0] - rollout.reward).max() > 0.1
        np.testing.assert_allclose(paid[0].sum(0), returns, atol=1e-3)
        np.testing.assert_allclose(discounts @ paid[1], discounts[-1] * returns, atol=1e-3)
        near = returns > returns.max() - 1e-2  # several sequences may be the best
        assert near[np.argmax(paid[0].sum(0))]
        assert near[np.argmax(discounts @ paid[1])]
        changed += not near[np.argmax(discounts @ paid[0])]
    assert changed >= 2  # a discount without compensation prefers what is paid early


def best_policies(rng, gamma, *, shaped):
    """Backward induction on a random MDP of 6 states, 3 actions and 8 steps: the best actions ``[8, 6]``."""
    model = rng.dirichlet(np.ones(6), (6, 3))
    reward = np.broadcast_to(rng.normal(size=(6, 3)), (8, 6, 3))
    potential = np.concatenate([3 * rng.normal(size=(8, 6)), np.zeros((1, 6))])
    if shaped:
        reward = reward + np.einsum("sap,hp->hsa", model, potential[1:]) - potential[:-1, :, None]
    value, best = np.zeros(6), []
    for h in reversed(range(8)):
        q = reward[h] + gamma * model @ value
        best.append(q.argmax(-1))
        value = q.max(-1)
    return np.stack(best[::-1])


def test_redistributions_that_differ_by_a_potential_have_the_same_best_policies():
    different = {1.0: 0, 0.9: 0}
    for gamma, seed in itertools.product(different, range(200)):
        pair = [best_policies(np.random.default_rng(seed), gamma, shaped=shaped) for shaped in (False, True)]
        different[gamma] += not np.array_equal(pair[0], pair[1])
    assert different[1.0] == 0
    assert different[0.9] > 40


# --- what the released script does ------------------------------------------------------------------------------------


def read_off(contributions, returns, **settings):
    """What SPA pays an episode a lane whose observation is its contribution, by a linear estimator of weight 1."""
    c = np.asarray(contributions, np.float32)
    last = np.broadcast_to((np.arange(len(c)) == len(c) - 1)[:, None], c.shape)
    paid = np.where(last, np.asarray(returns, np.float32)[None], 0)
    rollout = rd.Transition(
        c[..., None], np.zeros(c.shape, np.int32), c[..., None], paid, last, last & False, last | True, {}
    )
    reward = redistributed(
        "read", mlp(()), squared_error(per_step=False), max_length=len(c), features=lambda t: t.obs, **settings
    )
    params, state = reward.init(KEY, jax.tree.map(lambda x: x[0], rollout))
    network = jax.tree.map(lambda x: jnp.ones_like(x) if x.ndim == 2 else jnp.zeros_like(x), params["estimator"])
    estimator = {**params["estimator"], "network": network["network"], "trust": jnp.float32(1.0)}
    return np.asarray(jax.jit(reward.unroll)({**params, "estimator": estimator}, state, rollout)[0].reward)


def test_contributions_are_kept_and_not_weighed_by_the_steps_that_remain():
    c, valid = [[0.2], [0.3], [0.5]], np.ones((3, 1))
    got = read_off(c, [1.0], valid=lambda t: jnp.ones_like(t.mask), mode="bonus", beta=0.5)
    np.testing.assert_allclose(got[:, 0], [0.7, 0.8, 1.0], atol=1e-5)
    released = oracle.released_step_rewards(np.array(c), valid)
    np.testing.assert_allclose(released[:, 0], [1.4, 0.8, 0.0], atol=1e-9)
    assert got.sum() == pytest.approx(1 + 3 * 0.5, abs=1e-5)
    assert released.sum() == pytest.approx(2.2)


def test_contributions_are_not_replaced_by_a_comparison_with_other_episodes():
    returns = np.array([1.0, 0.0, 0.0, 1.0, 0.0])
    released = oracle.leave_one_out(returns)
    np.testing.assert_allclose(released, [0.75, -0.5, -0.5, 0.75, -0.5])
    np.testing.assert_allclose(oracle.leave_one_out(np.array([0.3])), [0.3])  # alone: the return itself
    for correction in ("equal", "last"):
        got = read_off(np.tile([[0.1], [0.4]], 5), returns, correction=correction)
        np.testing.assert_allclose(got.sum(0), returns, atol=1e-6)
        assert np.abs(got[0] - released).min() > 0.05


# --- rollouts at the edge ---------------------------------------------------------------------------------------------

EDGES = {
    "one step": lambda t: jax.tree.map(lambda x: x[:1, :1], t)._replace(terminated=np.ones((1, 1), bool)),
    "nothing": lambda t: t._replace(mask=np.zeros_like(t.mask)),
    "a lane without experience": lambda t: t._replace(mask=t.mask & (np.arange(3) != 1)),
    "whole numbers": lambda t: t._replace(reward=np.round(5 * t.reward).astype(np.int32)),
    "double precision": lambda t: t._replace(reward=np.asarray(-5 * t.reward, np.float64)),
    "all cut": lambda t: t._replace(truncated=np.ones_like(t.mask), terminated=np.zeros_like(t.mask)),
}
PAYERS = {
    "last": trusted(spa(max_length=12)),
    "equal": trusted(spa(max_length=12, correction="equal")),
    "uniform": ircr(normalise=False),
}


@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("payer", PAYERS)
def test_every_ended_episode_is_paid_its_return(payer, edge):
    rollout, reward = EDGES[edge](random_trajectory(array_example(), seed=4)), PAYERS[payer]
    params, state = reward.init(KEY, jax.tree.map(lambda x: x[0], rollout))
    got = np.asarray(jax.jit(reward.unroll)(params, state, rollout)[0].reward)
    assert np.isfinite(got).all()
    assert not got[~np.asarray(rollout.mask)].any()
    ended = 0
    for lane in range(got.shape[1]):
        for rows, whole in oracle.lane_episodes(rollout, lane):
            if whole:
                ended += 1
                assert got[rows, lane].sum() == pytest.approx(np.asarray(rollout.reward)[rows, lane].sum(), abs=1e-4)
    assert (ended == 0) == (edge == "nothing")


def test_a_flag_that_is_not_there_is_named():
    row = jax.tree.map(lambda x: x[0], random_trajectory(array_example()))._replace(info={"health": np.ones(3)})
    with pytest.raises(ValueError, match=r"info has no entry 'ilegal'; it has health\."):
        unless("ilegal")(row)


def test_rudder_refuses_a_length_of_nothing():
    with pytest.raises(ValueError, match="max_length must be at least 1, got 0"):
        rudder(max_length=0)
