"""What a redistribution pays, against loops over lanes and rows: conservation, cut rollouts, edge cases."""

import dataclasses
import itertools

import hypothesis
import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.redistribution import (
    CORRECTIONS,
    Fit,
    changed,
    correct_return,
    ircr,
    mlp,
    return_decomposition,
    rrd,
    spa,
    transformer,
    unless,
)
from reward_design.redistribution.estimators import recurrent
from reward_design.rollouts import random_trajectory
from tests import redistribution_oracle as oracle
from tests.cases import array_example, trusted

KEY = jax.random.key(0)
ROLLOUT = random_trajectory(array_example())
EXAMPLE = jax.tree.map(lambda x: x[0], ROLLOUT)


PLAIN = jax.jit(spa(max_length=12).unroll)
PLAIN_STATE = spa(max_length=12).init(KEY, EXAMPLE)[1]


def unrolled(reward):
    """``unroll`` as one program, which is far faster than a scan run by itself."""
    return jax.jit(reward.unroll)


def contributions(reward, rollout=ROLLOUT, **weights):
    """Params of a trusted reward with the default estimator, and c_t of a rollout."""
    params, state = trusted(reward).init(KEY, EXAMPLE)
    output, _ = PLAIN({"estimator": params["estimator"], "alpha": 1.0}, PLAIN_STATE, rollout)
    return {**params, **weights}, state, np.asarray(output.terms["contribution"])


# --- correct_return ---------------------------------------------------------------------------------------------------


def test_correct_return_of_the_paper_notes():
    c, mask = np.array([[0.4], [-0.1], [0.5]]), np.ones((3, 1), bool)
    for correction, expected in [("equal", (0.4667, -0.0333, 0.5667)), ("last", (0.4, -0.1, 0.7)), ("none", c[:, 0])]:
        got = correct_return(c, np.ones(1), mask, correction=correction)
        np.testing.assert_allclose(got[:, 0], expected, atol=1e-4)


@hypothesis.given(st.integers(0, 1000), st.sampled_from([0.0, -3.0, 1.0, 250.0]))
def test_corrections_conserve_returns_of_any_sign_and_length(seed, scale):
    rng, time, lanes = np.random.default_rng(seed), 9, 3
    mask = rng.random((time, lanes)) < 0.7
    mask[rng.integers(time)] = True
    mask[rng.integers(1, time) :, 0] = False
    mask[0, 0] = True
    c, returns = rng.normal(size=mask.shape), scale * rng.normal(size=lanes)
    for correction in CORRECTIONS:
        with jax.enable_x64(True):
            got = np.asarray(correct_return(np.where(mask, c, np.nan), returns, mask, correction=correction))
        np.testing.assert_allclose(got, oracle.corrected(c, returns, mask, correction), atol=1e-9)
        error = np.abs(got.sum(0) - returns).max()
        assert (error < 1e-6) == (correction != "none")


def test_one_step_earns_its_return_and_padding_nothing():
    c, mask = np.full((3, 2), 0.3), np.array([[1, 1], [0, 1], [0, 1]], bool)
    got = correct_return(c, np.array([2.0, 0.9]), mask, correction="equal")
    np.testing.assert_allclose(got, [[2.0, 0.3], [0.0, 0.3], [0.0, 0.3]], rtol=1e-6)


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_odd_shapes_are_corrected_all_the_same(correction):
    assert correct_return(np.zeros((0, 2)), np.zeros(2), np.zeros((0, 2), bool), correction=correction).shape == (0, 2)
    padding = np.array([[True, False]] * 3)  # the second lane holds no episode, its return nothing to pay
    got = np.asarray(correct_return(np.full((3, 2), 0.5), np.array([-3.0, 7.0]), padding, correction=correction))
    np.testing.assert_array_equal(got[:, 1], 0)
    assert (got[:, 0].sum() == pytest.approx(-3.0)) == (correction != "none")
    single = correct_return(np.full((1, 1), 0.5), np.array([-5.0]), np.ones((1, 1), bool), correction=correction)
    np.testing.assert_allclose(single, 0.5 if correction == "none" else -5.0)
    holes = np.array([[False], [True], [False], [True]])  # rows of an autoreset inside
    expected = {"none": [1, 1], "equal": [4.5, 4.5], "last": [1, 8]}[correction]
    with_holes = correct_return(np.ones((4, 1)), np.array([9.0]), holes, correction=correction)
    np.testing.assert_allclose(with_holes[:, 0], [0, expected[0], 0, expected[1]])


def test_whole_numbers_are_not_kept_whole():
    for correction in CORRECTIONS:
        got = correct_return(np.ones((2, 1)), np.array([2.5]), np.ones((2, 1), bool), correction=correction)
        counts = correct_return(np.ones((2, 1), int), np.array([5]), np.ones((2, 1), bool), correction=correction)
        assert counts.dtype == got.dtype
        assert float(counts.sum()) == (2.0 if correction == "none" else 5.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"correction": "equall"}, "correction must be 'none', 'equal' or 'last', got 'equall'; did you mean 'equal'"),
        ({"returns": np.ones(3)}, r"contributions and mask must have one shape \[T, B\] and returns \[B\]"),
        ({"returns": np.array([1.0, np.nan])}, "returns must be finite, got NaN or infinity"),
        ({"contributions": np.full((3, 2), np.inf)}, "contributions must be finite, got NaN or infinity in a step"),
    ],
)
def test_correct_return_refuses(change, message):
    given = {"contributions": np.ones((3, 2)), "returns": np.ones(2), "mask": np.ones((3, 2), bool)}
    given |= {"correction": "last"} | change
    jaxtyped = change.get("returns") is not None and len(change["returns"]) == 3
    error = Exception if jaxtyped else ValueError
    with pytest.raises(error, match=None if jaxtyped else message):
        correct_return(**given)


# --- what is paid -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gamma", [None, 0.9])
@pytest.mark.parametrize("correction", ["none", "equal", "last"])
def test_a_rollout_is_paid_as_the_loop_says(correction, gamma):
    reward = spa(max_length=12, correction=correction, discount_compensation=gamma)
    params, state, c = contributions(reward)
    assert np.abs(c).max() > 0.1
    output, after = unrolled(reward)(params, state, ROLLOUT)
    expected, left = oracle.paid(ROLLOUT, c, correction=correction, gamma=gamma)
    np.testing.assert_allclose(output.reward, expected, atol=1e-4)
    owing = after.episode["account"]
    np.testing.assert_allclose(np.stack([owing["owed"], owing["progress"]], -1), left, atol=1e-4)


@pytest.mark.parametrize("correction", ["equal", "last"])
def test_an_episode_cut_by_rollouts_is_paid_its_return(correction):
    first, second = random_trajectory(array_example(), seed=1), random_trajectory(array_example(), seed=2)
    reward = spa(max_length=24, correction=correction)
    params, state, _ = contributions(reward)
    unroll, owed, sums = unrolled(reward), None, []
    for rollout in (first, second):
        output, state = unroll(params, state, rollout)
        c = np.asarray(output.terms["contribution"])
        expected, owed = oracle.paid(rollout, c, correction=correction, owed=owed)
        np.testing.assert_allclose(output.reward, expected, atol=1e-4)
        sums.append(np.asarray(output.reward))
    both = jax.tree.map(lambda a, b: np.concatenate([a, b]), first, second)
    received, crossing = np.concatenate(sums), 0
    for lane in range(3):
        for rows, ended in oracle.lane_episodes(both, lane):
            crossing += ended and rows[0] < 12 <= rows[-1]
            if ended:
                assert received[rows, lane].sum() == pytest.approx(both.reward[rows, lane].sum(), abs=1e-4)
    assert crossing >= 2


def test_the_discounted_return_is_that_of_the_delayed_reward():
    gamma, time = 0.99, 12
    rollout = random_trajectory(array_example(), time=time)._replace(
        mask=np.ones((time, 3), bool), terminated=np.zeros((time, 3), bool), truncated=np.zeros((time, 3), bool)
    )
    rollout.terminated[-1] = True
    discounts = gamma ** np.arange(time)
    for correction, compensation in itertools.product(("equal", "last"), (None, gamma)):
        reward = spa(max_length=time, correction=correction, discount_compensation=compensation)
        params, state, _ = contributions(reward)
        output, _ = unrolled(reward)(params, state, rollout)
        got = discounts @ np.asarray(output.reward)
        delayed = gamma ** (time - 1) * rollout.reward.sum(0)
        difference = np.abs(got - delayed).max()
        assert difference < 1e-4 if compensation else difference > 1e-2


@pytest.mark.parametrize(("correction", "kind"), [("none", "last"), ("last", "last"), ("equal", "equal")])
def test_an_untrusted_estimator_is_not_paid(correction, kind):
    reward = spa(max_length=12, correction=correction)
    params, state = reward.init(KEY, EXAMPLE)
    output, _ = unrolled(reward)(params, state, ROLLOUT)
    expected, _ = oracle.paid(ROLLOUT, np.zeros(ROLLOUT.mask.shape), correction=kind)
    np.testing.assert_allclose(output.reward, expected, atol=1e-5)
    assert np.abs(np.asarray(output.reward)).max() > 0.5


def test_episodes_with_an_unknown_return_are_not_corrected():
    reward = spa(max_length=12, fit=Fit(truncated=False))
    params, state, _ = contributions(reward)
    output, _ = unrolled(reward)(params, state, ROLLOUT)
    cut = np.asarray(ROLLOUT.truncated & ~ROLLOUT.terminated & ROLLOUT.mask)
    assert cut.sum() > 1
    np.testing.assert_allclose(output.terms["correction"][cut], 0)
    assert np.abs(output.terms["correction"][np.asarray(ROLLOUT.terminated & ROLLOUT.mask)]).min() > 1e-3


def test_a_reward_that_is_not_finite_is_reported():
    broken = ROLLOUT._replace(reward=np.where((np.arange(12) == 4)[:, None], np.inf, ROLLOUT.reward))
    for reward in (spa(max_length=12, correction="none"), return_decomposition(max_length=12), ircr()):
        params, state = reward.init(KEY, EXAMPLE)
        output, _ = unrolled(reward)(params, state, broken)
        assert np.isnan(np.asarray(output.reward)[4][ROLLOUT.mask[4]]).all()
        assert np.isfinite(np.asarray(output.reward)[:4]).all()


def test_alpha_and_beta_are_params():
    reward = spa(max_length=12, valid=lambda t: t.action == 1)
    params, state, _ = contributions(reward)
    one, _ = unrolled(reward)({**params, "beta": jnp.float32(0.0)}, state, ROLLOUT)
    other, _ = unrolled(reward)({**params, "alpha": jnp.float32(2.0), "beta": jnp.float32(0.25)}, state, ROLLOUT)
    invalid = (ROLLOUT.action != 1) & ROLLOUT.mask
    np.testing.assert_allclose(other.reward, 2 * one.reward - 0.25 * invalid, atol=1e-4)
    assert invalid.any()


# --- grounding --------------------------------------------------------------------------------------------------------


def grounded(valid, transition, **settings):
    reward = spa(max_length=4, valid=valid, **settings)
    params, state = jax.jit(reward.init)(KEY, transition)
    return np.asarray(jax.jit(reward.step)(params, state, transition)[0].terms["grounding"])


def transition(obs, next_obs, **changes):
    no = np.zeros(len(obs), bool)
    made = rd.Transition(
        obs, np.arange(len(obs), dtype=np.int32), next_obs, np.zeros(len(obs), np.float32), no, no, ~no
    )
    return made._replace(**changes)


def test_penalty_charges_invalid_actions_and_bonus_pays_valid_ones():
    t = transition(np.array([1, 1]), np.array([1, 2]))
    np.testing.assert_allclose(grounded("change", t), [-0.5, 0.0])
    np.testing.assert_allclose(grounded("change", t, mode="bonus", beta=0.1), [0.0, 0.1])


def test_grounding_by_change_mask_flag_and_exemption():
    floats = transition(np.array([[1.0, 2.0]] * 3), np.array([[1.0, 2.0], [1.0, 2.0005], [1.0, 2.1]]))
    np.testing.assert_allclose(grounded("change", floats), [-0.5, -0.5, 0.0])
    np.testing.assert_allclose(grounded(changed(threshold=0.0, exempt=(0,)), floats), [0.0, 0.0, 0.0])
    masked = {"action_mask": np.array([[1, 0, 0], [1, 0, 0], [0, 0, 1]], np.int8), "x": np.zeros((3, 1))}
    np.testing.assert_allclose(grounded("mask", floats._replace(obs=masked, next_obs=masked)), [0.0, -0.5, 0.0])
    flagged = floats._replace(info={"invalid": np.array([True, False, True])})
    np.testing.assert_allclose(grounded(unless("invalid"), flagged), [-0.5, 0.0, -0.5])


def test_the_last_step_uses_its_real_flag():
    t = transition(np.array([1, 1]), np.array([1, 2]), terminated=np.array([True, True]))
    np.testing.assert_allclose(grounded("change", t), [-0.5, 0.0])


def corridor(gamma, bonus, cells=5, horizon=20):
    """Steps of the best policy from one end of a corridor to the goal, which pays 1; moves that move earn a bonus."""

    def outcome(cell, move, time):
        after = max(cell + move, 0)
        rest = 1.0 if after == cells else gamma * value[time + 1, after]
        return rest + bonus * (after != cell), after

    value, best = np.zeros((horizon + 1, cells)), {}
    for time in reversed(range(horizon)):
        for cell in range(cells):
            value[time, cell], best[time, cell] = max(outcome(cell, move, time) for move in (-1, 1))
    cell = steps = 0
    while cell < cells and steps < horizon:
        cell, steps = best[steps, cell], steps + 1
    return steps


def test_a_bonus_pays_for_dithering():
    assert corridor(0.99, 0.0) == corridor(0.99, 0.01) == 5
    assert corridor(0.99, 0.05) == corridor(0.99, 0.5) == 19


# --- ircr -------------------------------------------------------------------------------------------------------------


def test_uniform_split_gives_every_step_the_mean_of_its_episode():
    reward = ircr(normalise=False)
    params, state = reward.init(KEY, EXAMPLE)
    output, _ = unrolled(reward)(params, state, ROLLOUT)
    expected, _ = oracle.paid(ROLLOUT, np.zeros(ROLLOUT.mask.shape), correction="equal")
    np.testing.assert_allclose(output.reward, expected, atol=1e-5)


def test_ircr_scales_mean_rewards_between_the_extremes_seen():
    reward = ircr()
    params, state = reward.init(KEY, EXAMPLE)
    learner = reward.learner.init(KEY, params, EXAMPLE)
    params, _, _ = reward.learner.update(params, learner, ROLLOUT, KEY)
    output, _ = unrolled(reward)(params, state, ROLLOUT)
    means = {}
    for lane in range(3):
        for number, (rows, ended) in enumerate(oracle.lane_episodes(ROLLOUT, lane)):
            if ended:
                means[lane, number] = (rows, ROLLOUT.reward[rows, lane].mean())
    values = [mean for _, mean in means.values()]
    for (lane, _), (rows, mean) in means.items():
        expected = (mean - min(values)) / (max(values) - min(values))
        np.testing.assert_allclose(np.asarray(output.reward)[rows, lane], expected, atol=1e-5)
    assert params["rate"] == pytest.approx(np.mean(values), abs=1e-5)


def test_ircr_pays_nothing_while_all_means_are_equal():
    flat = ROLLOUT._replace(reward=np.full_like(ROLLOUT.reward, 2.0))
    reward = ircr()
    params, state = reward.init(KEY, EXAMPLE)
    params, _, _ = reward.learner.update(params, reward.learner.init(KEY, params, EXAMPLE), flat, KEY)
    np.testing.assert_array_equal(unrolled(reward)(params, state, flat)[0].reward, 0)


# --- estimators -------------------------------------------------------------------------------------------------------

ESTIMATORS = [
    pytest.param(lambda: mlp((8,)), id="mlp"),
    pytest.param(lambda: recurrent("gru", width=8), id="gru"),
    pytest.param(lambda: recurrent("lstm", width=8, difference=True), id="lstm"),
    pytest.param(lambda: transformer(7, width=8, difference=True), id="transformer"),
]


@pytest.mark.parametrize("build", ESTIMATORS)
def test_estimators_are_causal_and_step_as_they_unroll(build):
    estimator = build()
    x = jax.random.normal(KEY, (7, 3, 4))
    network = jax.tree.map(lambda w: w + 0.3 * jax.random.normal(KEY, w.shape), estimator.init(KEY, 4))
    unroll, step = jax.jit(estimator.unroll), jax.jit(estimator.step)
    whole = unroll(network, x)
    carry, steps = estimator.initial(network, 3), []
    for row in x:
        c, carry = step(network, carry, row)
        steps.append(c)
    np.testing.assert_allclose(whole, np.stack(steps), atol=1e-4)
    np.testing.assert_allclose(whole[:, 1:2], unroll(network, x[:, 1:2]), atol=1e-4)
    later = unroll(network, x.at[5:].add(9.0))
    np.testing.assert_allclose(whole[:5], later[:5], atol=1e-4)
    assert np.abs(later[5:] - whole[5:]).max() > 1e-2
    earlier = unroll(network, x.at[0].add(9.0))
    assert (np.abs(earlier[1:] - whole[1:]).max() > 1e-3) == estimator.memory


def test_differences_add_up_to_the_last_prediction():
    plain, difference = (transformer(7, width=8, difference=d) for d in (False, True))
    network, x = plain.init(KEY, 4), jax.random.normal(KEY, (7, 3, 4))
    np.testing.assert_allclose(difference.unroll(network, x).sum(0), plain.unroll(network, x)[-1], atol=1e-5)


def test_a_transformer_refuses_to_guess_beyond_its_length():
    estimator = transformer(2, width=8)
    network = estimator.init(KEY, 3)
    carry = estimator.initial(network, 1)
    values = []
    for _ in range(3):
        value, carry = estimator.step(network, carry, jnp.ones((1, 3)))
        values.append(bool(jnp.isfinite(value[0])))
    assert values == [True, True, False]


# --- errors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: spa(max_length=0), "max_length must be at least 1, got 0"),
        (lambda: spa(max_length=5, model="lstmm"), "model must be 'mlp', 'gru', 'lstm' or 'transformer', got 'lstmm'"),
        (lambda: spa(max_length=5, difference=True), "difference needs a model with memory"),
        (lambda: spa(max_length=5, mode="fine"), "mode must be 'penalty' or 'bonus', got 'fine'"),
        (lambda: spa(max_length=5, valid="changed"), "valid must be 'change', 'mask', a function or None"),
        (lambda: rrd(max_length=5, num_steps=1, unbiased=True), "num_steps must be at least 2, got 1"),
        (lambda: dataclasses.replace(rd.environment_reward(), kind=rd.Kind.TRAJECTORY), "have no step"),
    ],
)
def test_factories_refuse(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_a_mask_that_is_not_there_is_named():
    with pytest.raises(ValueError, match="grounding 'mask' needs the entry 'action_mask'"):
        grounded("mask", transition(np.zeros((2, 1)), np.zeros((2, 1))))


def test_the_discount_that_is_compensated_must_be_the_agents():
    with pytest.raises(ValueError, match=r"discounts with gamma 0\.9, the agent with 0\.99"):
        rd.check_gamma(spa(max_length=5, discount_compensation=0.9), 0.99)
