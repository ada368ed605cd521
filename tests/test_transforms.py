"""Transforms and the count bonus against naive NumPy loops and closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reward_design as rd
from reward_design.rollouts import random_trajectory, with_garbage
from tests.cases import array_example, dict_example, rooms

KEY = jax.random.key(0)
ROLLOUT = random_trajectory(array_example())


def score(reward, t=ROLLOUT, state=None):
    params, fresh = reward.init(KEY, jax.tree.map(lambda x: x[0], t))
    return reward.unroll(params, fresh if state is None else state, t)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# --- pointwise transforms --------------------------------------------------------------------------------------------


def test_clip_and_scale():
    mask = ROLLOUT.mask
    clipped, _ = score(rd.clip(-0.5, 1))
    np.testing.assert_allclose(clipped.reward, np.clip(ROLLOUT.reward, -0.5, 1) * mask)
    scaled, _ = score(rd.scale(-3))
    np.testing.assert_allclose(scaled.reward, -3 * ROLLOUT.reward * mask)
    np.testing.assert_allclose(scaled.terms["scale"], -4 * ROLLOUT.reward * mask, rtol=1e-6)
    with pytest.raises(ValueError, match=r"clip needs low <= high, got low 2\.0 and high 1\.0; swap them"):
        rd.clip(2.0, 1.0)


@pytest.mark.parametrize("reference", [0.5, [0.5], [-1.0, 0.0, 2.5], np.array([1.0, 3.0])])
@pytest.mark.parametrize("slope", [1, 3.0])
def test_centred_sigmoid_is_the_mean_chance_of_beating_the_references(reference, slope):
    output, _ = score(rd.centred_sigmoid(reference=reference, slope=slope))
    gap = ROLLOUT.reward[..., None] - np.atleast_1d(reference)
    np.testing.assert_allclose(output.reward, sigmoid(slope * gap).mean(-1) * ROLLOUT.mask, rtol=1e-5)


def test_equal_references_are_one_reference():
    one, many = (score(rd.centred_sigmoid(reference=[0.7] * m))[0].reward for m in (1, 5))
    np.testing.assert_allclose(one, many, rtol=1e-6)


@given(st.lists(st.floats(-20, 20), min_size=2, max_size=12, unique=True), st.floats(-3, 3))
def test_sigmoids_are_bounded_monotone_and_see_only_the_difference(values, shift):
    t = jax.tree.map(lambda x: x[0], ROLLOUT)
    values = np.sort(np.resize(np.array(values, np.float32), 12))
    rows = jax.tree.map(lambda x: np.resize(x, (12, *x.shape[1:])), t)._replace(mask=np.ones(12, bool), reward=values)

    def scores(reward, reference, moved):
        params, state = reward.init(KEY, rows)
        params = params | {"reference": jnp.float32([reference])}
        return np.asarray(reward.step(params, state, rows._replace(reward=values + np.float32(moved)))[0].reward)

    for reward, low, high in ((rd.centred_sigmoid(), 0, 1), (rd.log_sigmoid(), -np.inf, 0)):
        plain = scores(reward, 0.0, 0.0)
        assert ((plain >= low) & (plain <= high)).all()
        assert (np.diff(plain) >= 0).all()
        np.testing.assert_allclose(scores(reward, shift, shift), plain, rtol=1e-3, atol=1e-5)
    assert np.abs(scores(rd.log_sigmoid(), shift + 1, shift) - plain).max() > 1e-9


def test_log_sigmoid_is_a_logical_and():
    """Sum of logs is the log of the product; the unbalanced pair loses although the raw sums are equal."""
    t = jax.tree.map(lambda x: x[0], ROLLOUT)._replace(mask=np.ones(3, bool))
    params, state = rd.log_sigmoid().init(KEY, t)

    def u(*scores):
        rows = t._replace(reward=np.array([*scores, 0], np.float32))
        return rd.log_sigmoid().step(params, state, rows)[0].reward[:2].sum()

    np.testing.assert_allclose(np.exp(u(0.3, -0.8)), sigmoid(0.3) * sigmoid(-0.8), rtol=1e-5)
    np.testing.assert_allclose([u(5, -4), u(0.5, 0.5)], [-4.02, -0.95], atol=0.01)


def test_references_can_come_from_info():
    t = ROLLOUT._replace(info={"base": np.stack([ROLLOUT.reward - 1, ROLLOUT.reward + 1], axis=-1)})
    output, _ = score(rd.centred_sigmoid(reference="base"), t)
    np.testing.assert_allclose(output.reward[t.mask], 0.5, rtol=1e-5)
    lower, _ = score(rd.log_sigmoid(reference="base"), t)
    np.testing.assert_allclose(lower.reward[t.mask], np.log(sigmoid(1) * sigmoid(-1)) / 2, rtol=1e-5)
    has = r"the reference score 'base' is not in info, which has \['hidden_reward', 'next_action', 'score'\]"
    with pytest.raises(ValueError, match=has):
        score(rd.centred_sigmoid(reference="base"))
    with pytest.raises(ValueError, match="slope must be positive, got 0"):
        rd.centred_sigmoid(slope=0)


# --- normalise_by_return ---------------------------------------------------------------------------------------------


def naive_normalised(t, gamma):
    """One list of all returns seen so far, with one pseudo-observation of mean 0 and squared deviation 1."""
    returns, current, out = [], np.zeros(t.mask.shape[1]), np.zeros(t.mask.shape)
    for row in range(len(t.mask)):
        count = 1 + len(returns)
        mean = sum(returns) / count
        variance = (1 + sum((r - mean) ** 2 for r in returns) + mean**2) / count
        new = []
        for lane in np.flatnonzero(t.mask[row]):
            out[row, lane] = t.reward[row, lane] / np.sqrt(variance + 1e-8)
            current[lane] = gamma * current[lane] + t.reward[row, lane]
            new.append(current[lane])
            if t.terminated[row, lane] or t.truncated[row, lane]:
                current[lane] = 0
        returns += new
    return out, returns


@pytest.mark.parametrize("gamma", [0.0, 0.9, 1])
def test_normaliser_equals_a_naive_loop_across_ends_and_masked_rows(gamma):
    t = ROLLOUT._replace(reward=3 + 5 * ROLLOUT.reward)
    output, state = score(rd.normalise_by_return(gamma=gamma), with_garbage(t))
    expected, returns = naive_normalised(t, gamma)
    np.testing.assert_allclose(output.reward, expected, rtol=1e-4)
    assert state.running["count"] == 1 + len(returns)
    if gamma:
        without_reset = naive_normalised(t._replace(terminated=np.zeros_like(t.mask)), gamma)[0]
        assert np.abs(without_reset - expected).max() > 1e-3


def test_normaliser_reaches_the_spread_of_the_return_and_removes_no_mean():
    rng = np.random.default_rng(0)
    t = random_trajectory(array_example(), time=400, lanes=8)
    t = t._replace(reward=(7 + 2 * rng.normal(size=(400, 8))).astype(np.float32))
    output, state = score(rd.normalise_by_return(gamma=0.9), t)
    _, returns = naive_normalised(t, 0.9)
    std = np.sqrt(state.running["m2"] / state.running["count"])
    np.testing.assert_allclose(std, np.std(returns), rtol=0.01)
    late = output.reward[-50:][t.mask[-50:]]
    np.testing.assert_allclose(late.mean(), 7 / np.std(returns), rtol=0.1)


def test_normaliser_refuses_a_useless_epsilon():
    with pytest.raises(ValueError, match="epsilon must be positive, got 0"):
        rd.normalise_by_return(gamma=0.9, epsilon=0.0)


# --- count_bonus -----------------------------------------------------------------------------------------------------


def naive_bonus(t, bins, *, episodic=False, scale=1.0):
    """``scale / sqrt(n + 1)`` with a dictionary of counts; lanes of one row see the counts before the row."""
    counts, out = {}, np.zeros(t.mask.shape)
    for row in range(len(t.mask)):
        visited = []
        for lane in np.flatnonzero(t.mask[row]):
            key = (int(bins[row, lane]), lane if episodic else None)
            out[row, lane] = scale / np.sqrt(counts.get(key, 0) + 1)
            visited.append(key)
            if episodic:
                counts[key] = counts.get(key, 0) + 1
                if t.terminated[row, lane] or t.truncated[row, lane]:
                    counts = {k: n for k, n in counts.items() if k[1] != lane}
        if not episodic:
            for key in visited:
                counts[key] = counts.get(key, 0) + 1
    return out


def integer_rollout():
    t = array_example()._replace(obs=np.full(3, 4, np.int32), next_obs=np.full(3, 4, np.int32))
    return random_trajectory(t)


@pytest.mark.parametrize("episodic", [False, True])
def test_bonus_of_integer_observations_equals_a_naive_count(episodic):
    t = integer_rollout()
    output, state = score(rd.count_bonus(scale=0.5, episodic=episodic, add=False), with_garbage(t))
    np.testing.assert_allclose(output.reward, naive_bonus(t, t.next_obs, episodic=episodic, scale=0.5), rtol=1e-5)
    if not episodic:
        assert state.running.sum() == t.mask.sum()
    other = naive_bonus(t, t.next_obs, episodic=not episodic, scale=0.5)
    assert np.abs(other - output.reward).max() > 0.01


def test_bonus_with_an_index_counts_modulo_the_number_of_bins():
    cells = np.floor(2 * ROLLOUT.next_obs[..., 0]).astype(int)
    output, _ = score(rd.count_bonus(index=rooms, num_bins=3, add=False))
    np.testing.assert_allclose(output.reward, naive_bonus(ROLLOUT, cells % 3), rtol=1e-5)
    assert np.abs(naive_bonus(ROLLOUT, cells) - output.reward).max() > 0.01


def test_sim_hash_of_dictionaries_equals_a_naive_count():
    t = random_trajectory(dict_example(), time=40)
    reward = rd.count_bonus(num_bins=16, add=False)
    params, state = reward.init(KEY, jax.tree.map(lambda x: x[0], t))
    flat = np.concatenate([np.asarray(x, float).reshape(40, 3, -1) for x in jax.tree.leaves(t.next_obs)], axis=-1)
    bits = flat @ np.asarray(params["projection"]).T > 0
    assert bits.shape[-1] == 4
    output, _ = reward.unroll(params, state, t)
    np.testing.assert_allclose(output.reward, naive_bonus(t, bits @ 2 ** np.arange(4)), rtol=1e-5)
    other = reward.init(jax.random.key(1), jax.tree.map(lambda x: x[0], t))[0]
    assert np.abs(reward.unroll(other, state, t)[0].reward - output.reward).max() > 0.01


def test_bonus_is_added_to_the_reward_unless_told_otherwise():
    output, _ = score(rd.count_bonus())
    np.testing.assert_allclose(output.terms["environment"], ROLLOUT.reward * ROLLOUT.mask)
    np.testing.assert_allclose(output.reward, ROLLOUT.reward * ROLLOUT.mask + output.terms["count_bonus"], rtol=1e-6)


def test_bonus_refuses_bad_indices():
    with pytest.raises(ValueError, match=r"index must return integers of shape \[B\] = \(3,\), got float32"):
        score(rd.count_bonus(index=lambda obs: obs[:, 0]))
    with pytest.raises(ValueError, match="num_bins must be at least 2, got 1"):
        rd.count_bonus(num_bins=1)
