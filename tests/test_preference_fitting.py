"""Segments, the model that is fitted to answers about them, and the questions that are asked, against loops."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.core import Transition
from reward_design.describe import check_gamma
from reward_design.envs import task
from reward_design.preferences import bradley_terry, preference_loss, questions, segments
from reward_design.preferences.fitting import Batch, Fit
from reward_design.preferences.model import model_of, score
from reward_design.preferences.teachers import Answer
from tests.preference_envs import changed

KEY = jax.random.key(0)


# --- segments ---------------------------------------------------------------------------------------------------------


def recording(time=60, lanes=3, seed=0, mask_rate=0.1):
    """Random episodes; the input of a step is its running number."""
    rng = np.random.default_rng(seed)
    number = np.arange(time * lanes, dtype=np.float32).reshape(time, lanes)
    terminated, truncated = rng.random((2, time, lanes)) < 0.12
    mask = rng.random((time, lanes)) >= mask_rate
    reward = rng.normal(size=(time, lanes)).astype(np.float32)
    trajectory = Transition(number, number, number, reward, terminated, truncated & ~terminated, mask)
    return jax.tree.map(jnp.asarray, trajectory)


def naive_segments(t, length):
    """Lists of running numbers, in the order in which the segments end."""
    found, under_way = [], [([], True) for _ in range(t.mask.shape[1])]
    for time, lane in itertools.product(*map(range, t.mask.shape)):
        if not t.mask[time, lane]:
            continue
        steps, whole = under_way[lane]
        steps = [*steps, float(t.obs[time, lane])]
        done = bool(t.terminated[time, lane] | t.truncated[time, lane])
        if len(steps) == length or t.terminated[time, lane] or (done and whole):
            found.append(steps)
        under_way[lane] = ([], done) if done or len(steps) == length else (steps, whole)
    return found


def cut(t, length, store=None):
    inputs = t.obs[..., None]
    store = segments.empty_store(200, t.mask.shape[1], length, 1, 1) if store is None else store
    return segments.append(store, inputs, 10 * inputs, t)


def as_lists(store):
    closed = jax.tree.map(lambda x: x[: int(store.count)], store.closed)
    np.testing.assert_array_equal(
        10 * closed.inputs * closed.mask[..., None], closed.quantities * closed.mask[..., None]
    )
    return [x[:n, 0].tolist() for x, n in zip(np.asarray(closed.inputs), closed.length)]


@pytest.mark.parametrize("length", [1, 4, 60])
def test_segments_are_those_of_a_loop_and_never_cross_an_episode(length):
    t = recording()
    expected = naive_segments(t, length)
    assert as_lists(cut(t, length)) == expected
    assert len(expected) > 10
    if length == 4:
        assert {1, 2, 3, 4} >= {len(steps) for steps in expected} > {4}


def test_segments_go_on_from_rollout_to_rollout():
    t = recording()
    store = None
    for part in range(6):
        store = cut(jax.tree.map(lambda x: x[10 * part : 10 * part + 10], t), 4, store)  # noqa: B023
    assert as_lists(store) == naive_segments(t, 4)


def test_ring_keeps_the_newest_segments():
    t = recording()
    store = segments.append(segments.empty_store(16, 3, 4, 1, 1), t.obs[..., None], t.obs[..., None], t)
    newest = naive_segments(t, 4)[-16:]
    kept = [x[:n, 0].tolist() for x, n in zip(np.asarray(store.closed.inputs), store.closed.length)]
    assert sorted(kept) == sorted(newest)


def test_held_out_places_are_never_trained_on():
    for count in (20, 57, 300):
        train, held = (
            set(np.asarray(questions.places(count, 100, KEY, 3000, every=10, held_out=held)).tolist())
            for held in (False, True)
        )
        stored = min(count, 100)
        assert held == set(range(9, stored, 10))
        assert train == set(range(stored)) - held


# --- the model --------------------------------------------------------------------------------------------------------


def trained_params(reward, example, **changes):
    params, _ = reward.init(KEY, example)
    return {**params, "scale": jnp.ones_like(params["scale"]), **changes}


def test_nothing_is_paid_before_anything_was_learned():
    example = task("pendulum").example
    reward = bradley_terry(num_members=2)
    params, state = reward.init(KEY, example)
    moved = example._replace(obs=example.obs + 1.0, mask=jnp.ones(1, bool))
    assert float(reward.step(params, state, moved)[0].reward[0]) == 0.0
    assert float(reward.step(trained_params(reward, example), state, moved)[0].reward[0]) != 0.0


def test_a_constant_changes_no_probability_unless_lengths_differ():
    rewards = jnp.asarray(np.random.default_rng(0).normal(size=(4, 6)), jnp.float32)
    full, ragged = jnp.ones((4, 6), bool), jnp.arange(6)[None] < jnp.array([6, 3, 2, 5])[:, None]
    for mask, pool, same in ((full, "sum", True), (ragged, "sum", False), (ragged, "mean", True)):
        scores = [score(rewards + constant, mask.astype(float), pool) for constant in (0.0, 2.0)]
        p, q = (jax.nn.sigmoid(s[0] - s[1]) for s in scores)
        assert (abs(float(p - q)) < 1e-5) == same


def test_the_end_of_an_episode_goes_on_where_that_is_asked():
    length, ended = jnp.array([4, 2, 3]), jnp.array([False, True, False])
    weights = segments.step_weights(length, ended, 4, absorbing=True)
    np.testing.assert_array_equal(weights, [[1, 1, 1, 1], [1, 3, 0, 0], [1, 1, 1, 0]])
    plain = segments.step_weights(length, ended, 4, absorbing=False)
    np.testing.assert_array_equal(plain, [[1, 1, 1, 1], [1, 1, 0, 0], [1, 1, 1, 0]])
    t = task("pendulum").example._replace(obs=jnp.ones((1, 3)), mask=jnp.ones(1, bool))
    for gamma, times in ((0.9, 10.0), (None, 1.0)):
        reward = bradley_terry(gamma=gamma)
        params, state = reward.init(KEY, t)
        params = {**params, "scale": jnp.ones(1)}
        paid, last = (
            float(reward.step(params, state, t._replace(terminated=jnp.array([end])))[0].reward[0])
            for end in (False, True)
        )
        assert last == pytest.approx(times * paid, rel=1e-5)
        assert paid != 0.0
    check_gamma(bradley_terry(gamma=0.9), 0.9)
    with pytest.raises(ValueError, match=r"discounts with gamma 0\.9"):
        check_gamma(bradley_terry(gamma=0.9), 0.99)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\), or None"):
        bradley_terry(gamma=1.0)


def fit_of(num_members=1, levels=("a",), **changes):
    reward = bradley_terry(lambda t: t.obs[..., None], num_members=num_members)
    params, _ = reward.init(KEY, jax.tree.map(lambda x: x[0], recording()))
    return Fit(model_of(reward), levels, changed(**changes)), params


def test_reward_is_normalised_on_the_calibration_segments():
    fit, params = fit_of(num_members=2)
    rng = np.random.default_rng(1)
    inputs = jnp.asarray(rng.normal(size=(30, 4, 1)), jnp.float32)
    equal = segments.Segments(inputs, inputs, jnp.full(30, 4), jnp.zeros(30, bool))
    paid = fit.model.members(params, inputs)
    params = fit.normalised(params, equal)
    normal = (paid - params["shift"].reshape(2, 1, 1)) * params["scale"].reshape(2, 1, 1)
    np.testing.assert_allclose(normal.mean((1, 2)), 0.0, atol=1e-5)
    np.testing.assert_allclose(normal.std((1, 2)), 1.0, rtol=1e-4)
    ragged = segments.Segments(inputs, inputs, jnp.asarray(rng.integers(1, 5, 30)), jnp.zeros(30, bool))
    params = fit.normalised(params, ragged)
    np.testing.assert_array_equal(params["shift"], 0.0)  # among unequal lengths the constant has a meaning
    inside = np.asarray(paid)[:, np.asarray(ragged.mask)]
    np.testing.assert_allclose(params["scale"], 1 / inside.std(1), rtol=1e-4)


def test_inputs_are_scaled_but_indicators_are_not():
    fit, params = fit_of()
    rng = np.random.default_rng(2)
    columns = [rng.normal(3.0, 0.01, (20, 4)), rng.integers(0, 2, (20, 4)), np.full((20, 4), 7.0)]
    inputs = jnp.asarray(np.stack(columns, -1), jnp.float32)
    length = jnp.asarray(rng.integers(1, 5, 20))
    params = fit.with_input_scale(params, segments.Segments(inputs, inputs, length, length > 9))
    inside = np.asarray(inputs)[np.arange(4)[None] < np.asarray(length)[:, None]]
    np.testing.assert_allclose(params["input_mean"], [inside[:, 0].mean(), 0.0, 7.0], rtol=1e-5)
    np.testing.assert_allclose(params["input_scale"], [1 / inside[:, 0].std(), 1.0, 1.0], rtol=1e-2)


def pairs_batch(preferred, weight=None, level=None):
    """Segments of one step, with the inputs 0, 1, 2, ..., paired with the next one."""
    num = len(preferred)
    inputs = jnp.arange(num + 1.0).reshape(-1, 1, 1)
    weight = jnp.ones(num) if weight is None else jnp.asarray(weight)
    level = jnp.zeros(num, jnp.int32) if level is None else jnp.asarray(level, jnp.int32)
    answer = Answer(jnp.asarray(preferred), weight, level)
    length = jnp.ones(num + 1, jnp.int32)
    return Batch(inputs, length, length > 1, jnp.arange(num), jnp.arange(num) + 1, answer)


def test_loss_is_the_mean_over_the_pairs_that_count():
    fit, params = fit_of()
    member = jax.tree.map(lambda x: x[0], params["members"])
    batch = pairs_batch([1.0, 0.5, 0.0, 1.0], weight=[1.0, 1.0, 1.0, 0.0])
    d = fit.differences(params, member, batch)
    losses = [float(preference_loss(d[i], batch.answer.preferred[i])) for i in range(4)]
    assert float(fit.loss(member, params, batch)) == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5)
    kept, _ = fit_of(keep_ties=True)
    assert float(kept.loss(member, params, batch)) == pytest.approx(sum(losses[:3]) / 3, rel=1e-5)
    assert float(fit.loss(member, params, pairs_batch([0.5, 0.5]))) == 0.0


def test_stratified_weights_give_each_level_the_same_say():
    fit, _ = fit_of(levels=("a", "b", "c"), stratified=True)
    answer = pairs_batch([1.0] * 8 + [0.5], level=[0] * 6 + [1, 2, 3]).answer
    weight = np.asarray(fit.weight(answer))
    np.testing.assert_allclose([weight[:6].sum(), weight[6], weight[7]], weight[:8].sum() / 3, rtol=1e-5)
    assert weight[8] == 0.0


def test_without_a_decided_pair_nothing_moves():
    fit, params = fit_of()
    ties, decided = pairs_batch([0.5] * 4), pairs_batch([1.0, 0.0, 1.0, 1.0])
    state = fit.optimiser_state(params)
    same, _ = fit.train(params, state, lambda key: ties, ties, KEY)
    moved, _ = fit.train(params, state, lambda key: decided, decided, KEY)
    for old, kept, new in zip(*(jax.tree.leaves(p["members"]) for p in (params, same, moved))):
        np.testing.assert_array_equal(old, kept)
        assert (np.asarray(old) != np.asarray(new)).any() or old.size == 1


def test_steps_that_make_held_out_pairs_worse_are_not_taken():
    fit, params = fit_of()
    right, wrong = pairs_batch([1.0] * 4), pairs_batch([0.0] * 4)
    state = fit.optimiser_state(params)
    kept, _ = fit.train(params, state, lambda key: right, wrong, KEY)
    taken, _ = fit.train(params, state, lambda key: right, right, KEY)
    member = lambda p: jax.tree.map(lambda x: x[0], p["members"])  # noqa: E731
    assert jax.tree.all(jax.tree.map(jnp.array_equal, kept["members"], params["members"]))
    assert fit.loss(member(taken), params, right) < fit.loss(member(params), params, right)


# --- questions ----------------------------------------------------------------------------------------------------


def test_acquisition_is_disagreement_or_entropy():
    p = jnp.array([[0.9, 0.5, 1.0, 0.6], [0.1, 0.5, 1.0, 0.6]])
    np.testing.assert_allclose(questions.acquisition(p, "disagreement"), [0.4, 0.0, 0.0, 0.0], atol=1e-6)
    entropy = -(0.6 * np.log(0.6) + 0.4 * np.log(0.4))
    np.testing.assert_allclose(questions.acquisition(p, "entropy"), [np.log(2), np.log(2), 0.0, entropy], rtol=1e-5)


@pytest.mark.parametrize("selection", ["disagreement", "entropy"])
def test_the_pairs_that_tell_most_are_asked(selection):
    fit, params = fit_of(num_members=3, selection=selection, max_labels=100, num_questions=5)
    store = cut(recording(), 4)
    pairs = jnp.asarray(np.random.default_rng(0).integers(0, int(store.count), (2, 40)))
    chosen = np.asarray(questions.most_informative(fit, params, store, pairs))
    raw = np.asarray(fit.model.members(params, store.closed.inputs))
    sums = (raw * np.asarray(store.closed.mask)).sum(-1)
    p = 1 / (1 + np.exp(-(sums[:, pairs[0]] - sums[:, pairs[1]])))
    told = p.std(0) if selection == "disagreement" else 0.25 - (p.mean(0) - 0.5) ** 2  # the same order as the entropy
    assert set(np.round(told[chosen], 5)) == set(np.round(np.sort(told)[-5:], 5))
