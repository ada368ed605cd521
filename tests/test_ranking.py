"""Ranked comparison and Bradley-Terry scores against loops, closed forms and exhaustive enumeration."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.envs import task
from reward_design.preferences import (
    Factor,
    StarvedLevelsWarning,
    bradley_terry_scores,
    compare_ranked,
    cycle_rate,
    decide,
    level_shares,
    preference_loss,
    ranked_teacher,
    task_factors,
    warn_if_starved,
)
from reward_design.preferences import factors as parts

MARGINS = [0.5, 0.1, 0.0]
CYCLE = np.array([[0.0, 3.0], [0.7, 2.0], [1.4, 1.0]])


def naive(a, b, margins):
    """Label and level, from the paper's description."""
    for level, margin in enumerate(margins):
        difference = float(a[level]) - float(b[level])
        if difference > margin:
            return 1.0, level
        if difference < -margin:
            return 0.0, level
    return 0.5, len(margins)


def random_pairs(num=10_000, levels=3, seed=0):
    rng = np.random.default_rng(seed)
    a, b = rng.normal(size=(2, num, levels)).astype(np.float32)
    same = rng.random((num, levels)) < 0.4  # ties on every level
    return a, np.where(same, a, b)


@pytest.mark.parametrize(
    ("a", "b", "preferred", "level"),
    [
        ((1, 0, 0), (0.4, 9, 9), 1.0, 0),
        ((1, 0, 0), (0.6, 0.2, 0), 0.0, 1),
        ((1, 0.05, 1), (0.6, 0.1, 0), 1.0, 2),
        ((1, 2, 3), (1, 2, 3), 0.5, 3),
        ((1, 0, 0), (0.5, 0, 0), 0.5, 3),
    ],
)
def test_cases_that_were_worked_out_by_hand(a, b, preferred, level):
    verdict = decide(a, b, margins=MARGINS)
    assert (float(verdict.preferred), int(verdict.level)) == (preferred, level)
    assert float(compare_ranked(b, a, margins=MARGINS)) == 1 - preferred


def test_comparison_is_the_loop_of_the_paper():
    a, b = random_pairs()
    for margins in ([0.0, 0.0, 0.0], [0.5, 0.1, 0.0], [2.0, 2.0, 2.0]):
        verdict = jax.jit(decide)(a, b, margins=jnp.array(margins))
        expected = [naive(x, y, margins) for x, y in zip(a, b)]
        np.testing.assert_array_equal(verdict.preferred, [label for label, _ in expected])
        np.testing.assert_array_equal(verdict.level, [level for _, level in expected])
        assert len(set(np.asarray(verdict.level).tolist())) == 4  # every level decides some, and there are ties


def test_turning_a_pair_round_turns_the_label_round():
    a, b = random_pairs()
    forth, back = (compare_ranked(*pair, margins=MARGINS) for pair in ((a, b), (b, a)))
    np.testing.assert_array_equal(forth, 1 - back)
    assert set(np.asarray(forth).tolist()) == {0.0, 0.5, 1.0}


def test_any_leading_axes():
    a, b = random_pairs(24)
    flat = compare_ranked(a, b, margins=MARGINS)
    np.testing.assert_array_equal(
        compare_ranked(a.reshape(2, 3, 4, 3), b.reshape(2, 3, 4, 3), margins=MARGINS), flat.reshape(2, 3, 4)
    )


@pytest.mark.parametrize(("larger", "smaller"), [(0.6, 0.5), (0.8, 0.7), (10.3, 10.2), (0.3, 0.2)])
def test_a_difference_of_the_margin_does_not_decide_whatever_the_rounding(larger, smaller):
    assert float(compare_ranked([larger], [smaller], margins=[0.1])) == 0.5
    assert float(compare_ranked([larger + 1e-3], [smaller], margins=[0.1])) == 1.0
    assert float(compare_ranked([np.nextafter(np.float32(larger), 99)], [np.float32(larger)], margins=[0.0])) == 1.0


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_short_floats_decide_by_their_own_rounding(dtype):
    values = jnp.array([[0.5], [0.4], [10.5], [10.25]], dtype)
    assert compare_ranked(values[:1], values[1:2], margins=[0.1]).tolist() == [0.5]  # 0.4 is rounded by up to 1e-3
    assert compare_ranked(values[2:3], values[3:], margins=[0.0]).tolist() == [1.0]


def test_counts_and_flags_can_be_ranked():
    kinds = {np.uint8: ([3, 0], [5, 0]), bool: ([False, True], [True, True]), np.int32: ([-2, 7], [0, 7])}
    for kind, (a, b) in kinds.items():
        a, b = np.array(a, kind), np.array(b, kind)
        assert float(compare_ranked(a, b, margins=[0, 0])) == 0.0
        assert float(compare_ranked(b, a, margins=[0.5, 0.5])) == 1.0
        assert float(compare_ranked(a, b, margins=[2, 0])) == 0.5  # at most the margin


def test_infinite_factors_are_ordered_as_numbers_are():
    inf = np.inf
    for margin in (0.0, 0.5):
        for low, high in ((-inf, 3.0), (3.0, inf), (-inf, inf)):
            assert float(compare_ranked([high, 0.0], [low, 9.0], margins=[margin, 0.0])) == 1.0
            assert float(compare_ranked([low, 9.0], [high, 0.0], margins=[margin, 0.0])) == 0.0
        for same in (-inf, inf):  # no level decides between equals, the next one does
            assert float(compare_ranked([same, 0.0], [same, 9.0], margins=[margin, 0.0])) == 0.0
            assert float(compare_ranked([same, 9.0], [same, 9.0], margins=[margin, 0.0])) == 0.5
    assert float(compare_ranked([100.0, 0.0], [0.0, 1.0], margins=[inf, 0.0])) == 0.0  # never decides


def test_labels_do_not_depend_on_the_rest_of_the_batch():
    a, b = random_pairs(64)
    together = compare_ranked(a, b, margins=MARGINS)
    alone = jnp.stack([compare_ranked(x, y, margins=MARGINS) for x, y in zip(a, b)])
    np.testing.assert_array_equal(together, alone)
    # margins from the batch at hand, as in the released scripts, give one pair two labels
    near, far = (np.array([[0.0], [0.6], [last]], np.float32) for last in (0.1, 9.0))
    labels = [float(compare_ranked(x[1], x[0], margins=[0.5 * x.std()])) for x in (near, far)]
    assert labels == [1.0, 0.5]


def test_preferences_can_be_cyclic_with_margins_only():
    a, b, c = CYCLE
    for x, y in ((a, b), (b, c), (c, a)):
        assert float(compare_ranked(x, y, margins=[1.0, 0.0])) == 1.0
    assert float(cycle_rate(CYCLE, margins=[1.0, 0.0])) == 1.0
    values = np.random.default_rng(0).normal(size=(30, 3)).round(1)
    assert float(cycle_rate(values, margins=[0.0, 0.0, 0.0])) == 0.0
    assert float(cycle_rate(values[:2], margins=MARGINS)) == 0.0


def test_cycle_rate_counts_triples():
    values = np.random.default_rng(1).normal(size=(12, 2))
    margins = [0.8, 0.0]
    beats = lambda i, j: naive(values[i], values[j], margins)[0] == 1.0  # noqa: E731
    cyclic = [
        (beats(i, j) and beats(j, k) and beats(k, i)) or (beats(j, i) and beats(k, j) and beats(i, k))
        for i, j, k in itertools.combinations(range(12), 3)
    ]
    assert 0 < sum(cyclic) < len(cyclic)
    assert float(cycle_rate(values, margins=margins)) == pytest.approx(np.mean(cyclic), rel=1e-5)


def test_bad_input_is_refused_in_one_sentence():
    with pytest.raises(ValueError, match="margins must have one entry for each of the 2 levels"):
        compare_ranked([1.0, 2.0], [1.0, 2.0], margins=[0.0])
    with pytest.raises(ValueError, match="with levels in common"):
        compare_ranked([1.0], [1.0, 2.0], margins=[0.0, 0.0])
    with pytest.raises(ValueError, match="margins must be at least 0"):
        compare_ranked([1.0], [1.0], margins=[-1.0])
    with pytest.raises(ValueError, match=r"margins must be at least 0, got \[nan\]"):
        compare_ranked([1.0], [0.0], margins=[np.nan])
    with pytest.raises(ValueError, match="compare_ranked needs at least one level"):
        compare_ranked(np.zeros((3, 0)), np.zeros((3, 0)), margins=np.zeros(0))
    with pytest.raises(ValueError, match="factors_b must not be NaN"):
        compare_ranked([1.0, 1.0], [0.0, np.nan], margins=[0.0, 0.0])
    inside = jax.jit(compare_ranked)(jnp.array([[1.0, jnp.nan], [1.0, 1.0]]), jnp.zeros((2, 2)), margins=jnp.zeros(2))
    np.testing.assert_array_equal(inside, [np.nan, 1.0])


def test_histogram_of_the_deciding_level_and_its_warning():
    a, b = random_pairs(5000)
    level = decide(a, b, margins=MARGINS).level
    np.testing.assert_allclose(level_shares(level, 3), np.bincount(level, minlength=4) / 5000, rtol=1e-5)
    weighted = level_shares(jnp.array([0, 0, 1]), 3, jnp.array([1.0, 0.0, 3.0]))
    np.testing.assert_allclose(weighted, [0.25, 0.75, 0.0, 0.0])
    names = ["progress", "energy", "noise"]
    assert not warn_if_starved(level_shares(level, 3), names)
    with pytest.warns(StarvedLevelsWarning, match="'progress' decides 97.0% of the pairs, so that 'energy', 'noise'"):
        assert warn_if_starved([0.97, 0.02, 0.01, 0.0], names)
    assert not warn_if_starved([1.0, 0.0], ["alone"])  # one level starves nobody


# --- factors ---------------------------------------------------------------------------------------------------------


def test_segments_are_worth_what_a_loop_says():
    rng = np.random.default_rng(2)
    steps = rng.normal(size=(6, 7, 4)).astype(np.float32)
    length = np.array([7, 1, 3, 5, 2, 7])
    mask = np.arange(7)[None] < length[:, None]
    rules = [Factor(name, len, aggregate=name) for name in parts.AGGREGATES]
    values = parts.aggregate(rules, jnp.asarray(np.where(mask[..., None], steps, np.nan)), jnp.asarray(mask))
    for n, stop in enumerate(length):
        part = steps[n, :stop]
        expected = [part[:, 0].mean(), part[:, 1].sum(), part[-1, 2], part[:, 3].max()]
        np.testing.assert_allclose(values[n], expected, rtol=1e-5)


def test_labels_do_not_depend_on_the_unit_of_a_factor_unless_its_margin_does():
    rng = np.random.default_rng(3)
    values = jnp.asarray(rng.normal(size=(40, 2)), jnp.float32)
    scale = jnp.array([1000.0, 0.01])

    def labels(unit, values):
        teacher = ranked_teacher([Factor(name, len, margin=0.5, unit=unit) for name in "ab"])
        units = teacher.calibrate(values, jnp.ones(40, bool))
        return np.asarray(teacher.answer(teacher.params, units, None, values[:20], values[20:]).preferred)

    np.testing.assert_array_equal(labels("std", values), labels("std", values * scale[None]))
    assert (labels("absolute", values) != labels("absolute", values * scale[None])).any()
    assert {0.0, 1.0} <= set(labels("std", values).tolist())


def test_spread_is_the_sample_deviation_and_a_constant_falls_through():
    values = np.random.default_rng(4).normal(size=(20, 3)).astype(np.float32)
    values[:, 1] = 0.1
    known = np.arange(20) < 15
    np.testing.assert_allclose(
        parts.spread(jnp.asarray(values), jnp.asarray(known))[::2], values[:15].std(0, ddof=1)[::2], rtol=1e-5
    )
    assert float(parts.spread(jnp.asarray(values), jnp.asarray(known))[1]) == 0.0
    teacher = ranked_teacher([Factor("constant", len, margin=0.5), Factor("other", len)])
    units = teacher.calibrate(jnp.asarray(values[:, 1:]), jnp.asarray(known))
    answer = teacher.answer(teacher.params, units, None, jnp.array([[0.1, 1.0]]), jnp.array([[0.1, 0.0]]))
    assert (float(answer.preferred[0]), int(answer.level[0])) == (1.0, 1)


def test_factors_of_one_level_are_added_in_deviations():
    teacher = ranked_teacher([[Factor("big", len), Factor("small", len)], Factor("last", len)])
    assert teacher.levels == ("big+small", "last")
    units = {"spread": jnp.array([100.0, 0.1, 1.0]), "level_spread": jnp.array([1.4, 1.0])}
    pairs = jnp.array([[100.0, 0.0, 0.0], [0.0, 0.2, 0.0], [100.0, -0.1, 1.0], [0.0, 0.0, 0.0]])
    answer = teacher.answer(teacher.params, units, None, pairs[::2], pairs[1::2])
    np.testing.assert_array_equal(answer.preferred, [0.0, 1.0])  # 1 < 2 deviations; 1 - 1 = 0, then the last
    np.testing.assert_array_equal(answer.level, [0, 1])


def test_rankings_that_make_no_sense_are_refused():
    pendulum = task("pendulum")
    assert [f.sign for f in task_factors(pendulum)] == [f.sign for f in pendulum.factors.values()]
    with pytest.raises(ValueError, match=r"has no factor 'tlt'; did you mean 'tilt'\?"):
        task_factors(pendulum, ["tlt"])
    with pytest.raises(ValueError, match="one margin for each of the 2 factors"):
        task_factors(pendulum, ["tilt", "speed"], margins=[0.1])
    with pytest.raises(ValueError, match="sign of factor 'x' must be 1 or -1, got 2"):
        Factor("x", len, sign=2)
    with pytest.raises(ValueError, match=r"aggregate must be .* got 'median'"):
        Factor("x", len, aggregate="median")
    with pytest.raises(ValueError, match="margin of factor 'x' must be at least 0"):
        Factor("x", len, margin=float("nan"))
    with pytest.raises(ValueError, match="names of their own"):
        ranked_teacher([Factor("x", len), Factor("x", len)])
    with pytest.raises(ValueError, match="share one margin"):
        ranked_teacher([[Factor("x", len, margin=0.1), Factor("y", len, margin=0.2)]])
    with pytest.raises(ValueError, match="at least one level"):
        ranked_teacher([])
    with pytest.raises(TypeError, match=r"expects preferences\.Factor objects, got str"):
        ranked_teacher(["tilt"])
    with pytest.raises(TypeError, match=r"expects preferences\.Factor objects, got int"):
        ranked_teacher([1])
    with pytest.raises(TypeError, match="a ranking is a sequence of levels, got one factor"):
        parts.as_levels(Factor("x", len))
    with pytest.raises(TypeError, match="fn of factor 'x' must be a function of a transition, got None"):
        Factor("x", None)


# --- Bradley-Terry ----------------------------------------------------------------------------------------------------

ITEMS = np.array(list(itertools.product([0.0, 1.0], repeat=3)))
PAIRS = np.array(list(itertools.combinations(range(8), 2)))


def labels():
    return compare_ranked(ITEMS[PAIRS[:, 0]], ITEMS[PAIRS[:, 1]], margins=np.zeros(3))


@pytest.mark.usefixtures("float64")
def test_scores_of_all_triples_of_bits():
    scores = np.asarray(bradley_terry_scores(PAIRS[:, 0], PAIRS[:, 1], labels(), num_items=8))
    expected = [11.6449, 7.8680, 4.5893, 1.5107]
    np.testing.assert_allclose(scores, [-x for x in expected] + expected[::-1], atol=3e-4)
    p = 1 / (1 + np.exp(-(scores[PAIRS[:, 0]] - scores[PAIRS[:, 1]])))
    error = p - np.asarray(labels())
    gradient = np.bincount(PAIRS[:, 0], error, 8) - np.bincount(PAIRS[:, 1], error, 8) + 2e-3 * scores
    np.testing.assert_allclose(gradient, 0, atol=1e-9)
    assert (np.diff(scores) > 0).all()  # the lexicographic order, of all 28 pairs


@pytest.mark.usefixtures("float64")
def test_a_linear_reward_gives_the_first_bit_more_than_the_others_together():
    differences, preferred = jnp.asarray(ITEMS[PAIRS[:, 0]] - ITEMS[PAIRS[:, 1]]), labels()

    def penalised(w):
        return preference_loss(differences @ w, preferred).sum() + 1e-3 * jnp.sum(w**2)

    w = jnp.zeros(3)
    for _ in range(60):
        w = w - jnp.linalg.solve(jax.hessian(penalised)(w), jax.grad(penalised)(w))
    np.testing.assert_allclose(w, [15.089, 7.689, 3.887], atol=2e-3)
    assert w[0] > w[1] + w[2]


@pytest.mark.usefixtures("float64")
def test_a_cycle_has_equal_scores_and_the_loss_of_a_coin():
    scores = bradley_terry_scores([0, 1, 2], [1, 2, 0], [1.0, 1.0, 1.0], num_items=3)
    np.testing.assert_allclose(scores, 0.0, atol=1e-9)
    first, second = np.array([0, 1, 2]), np.array([1, 2, 0])
    assert float(preference_loss(scores[first] - scores[second], jnp.ones(3)).mean()) == pytest.approx(math.log(2))
    decided = bradley_terry_scores([0, 1, 0], [1, 2, 2], [1.0, 1.0, 1.0], num_items=3)
    assert decided[0] - decided[2] > 5
    with pytest.raises(ValueError, match="l2 must be above 0"):
        bradley_terry_scores([0], [1], [1.0], num_items=2, l2=0.0)


def test_loss_is_the_likelihood_and_does_not_underflow():
    difference, preferred = np.linspace(-5, 5, 11, dtype=np.float32), np.array([0.0, 0.5, 1.0], np.float32)
    d, y = (jnp.asarray(x.ravel()) for x in np.meshgrid(difference, preferred))
    p = 1 / (1 + np.exp(-np.asarray(d, np.float64)))
    expected = -(np.asarray(y) * np.log(p) + (1 - np.asarray(y)) * np.log(1 - p))
    np.testing.assert_allclose(preference_loss(d, y), expected, rtol=1e-5)
    extreme = jax.value_and_grad(preference_loss)(jnp.float32(-500.0), jnp.float32(1.0))
    assert extreme == (500.0, -1.0)
    naive_form = jax.grad(lambda d: -jnp.log(1 / (1 + jnp.exp(-d))))(jnp.float32(-500.0))
    assert not np.isfinite(naive_form)
