"""Statistics over seeds against SciPy, naive loops and known values."""

import numpy as np
import pytest
import scipy.stats

from reward_design.experiments import statistics as st


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 6, 7, 20, 21])
def test_interquartile_mean_equals_scipy(n):
    scores = np.random.default_rng(n).standard_cauchy((3, n))
    np.testing.assert_allclose(st.interquartile_mean(scores), scipy.stats.trim_mean(scores, 0.25, axis=-1))
    np.testing.assert_allclose(st.interquartile_mean(scores.T, axis=0), st.interquartile_mean(scores))


def test_interquartile_mean_ignores_outliers_and_keeps_nan():
    assert st.interquartile_mean([1.0, 1.0, 1.0, 1e9]) == 1.0
    assert np.mean([1.0, 1.0, 1.0, 1e9]) > 1e8  # the control: the mean does not
    assert np.isnan(st.interquartile_mean([1.0, np.nan, 1.0, 1.0]))
    with pytest.raises(ValueError, match="at least one score"):
        st.interquartile_mean([])


def naive_bootstrap(strata, num_resamples, seed):
    """The same draws, one resample and one number at a time."""
    generator = np.random.default_rng(seed)
    picks = [generator.integers(len(s), size=(num_resamples, len(s))) for s in strata]
    values = []
    for r in range(num_resamples):
        pooled = [s[i] for s, p in zip(strata, picks, strict=True) for i in p[r]]
        values.append(scipy.stats.trim_mean(pooled, 0.25))
    return np.quantile(values, [0.05, 0.95])


def test_bootstrap_equals_naive_loop_over_strata_of_different_size():
    generator = np.random.default_rng(0)
    strata = [generator.normal(size=5), generator.normal(3.0, 2.0, size=8)]
    estimate = st.bootstrap(strata, confidence=0.9, num_resamples=50, seed=3)
    np.testing.assert_allclose((estimate.low, estimate.high), naive_bootstrap(strata, 50, 3))
    np.testing.assert_allclose(estimate.value, scipy.stats.trim_mean(np.concatenate(strata), 0.25))


def test_bootstrap_is_stratified():
    """Two tasks that differ in level but not between seeds leave no uncertainty; without strata they would."""
    levels = [np.zeros(10), np.ones(10)]
    assert st.bootstrap(levels, np.mean)[1:] == (0.5, 0.5)
    pooled = st.bootstrap(np.concatenate(levels), np.mean)
    assert pooled.high - pooled.low > 0.2


def test_bootstrap_agrees_with_scipy_on_the_mean():
    scores = np.random.default_rng(1).normal(size=30)
    ours = st.bootstrap(scores, np.mean, num_resamples=5000)
    theirs = scipy.stats.bootstrap((scores,), np.mean, n_resamples=5000, method="percentile", rng=0)
    low, high = theirs.confidence_interval
    np.testing.assert_allclose((ours.low, ours.high), (low, high), atol=0.02)


def test_bootstrap_of_curves_equals_bootstrap_of_points(monkeypatch):
    curves = np.random.default_rng(2).normal(size=(6, 7, 2))
    whole = st.bootstrap(curves, num_resamples=100)
    monkeypatch.setattr(st, "_CHUNK", 1)
    chunked = st.bootstrap(curves, num_resamples=100)
    assert whole.low.shape == (7, 2)
    np.testing.assert_array_equal(whole.high, chunked.high)
    point = st.bootstrap(curves[:, 4, 1], num_resamples=100)
    np.testing.assert_allclose((whole.value[4, 1], whole.low[4, 1], whole.high[4, 1]), point)


def test_bootstrap_covers_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(4)
    samples = generator.normal(size=(30, 400))
    estimate = st.bootstrap(samples, np.mean, num_resamples=500)
    covered = np.mean((estimate.low <= 0) & (estimate.high >= 0))
    assert 0.88 < covered < 0.98


def test_single_seed_gives_a_point():
    assert st.bootstrap([2.0]) == (2.0, 2.0, 2.0)


@pytest.mark.parametrize("confidence", [0.0, 1.0, 95.0])
def test_confidence_is_checked(confidence):
    with pytest.raises(ValueError, match=r"confidence must be in \(0, 1\)"):
        st.bootstrap([1.0, 2.0], confidence=confidence)


def naive_improvement(x, y):
    return np.mean([1.0 if a > b else 0.5 if a == b else 0.0 for a in x for b in y])


def test_probability_of_improvement_equals_naive_loop_and_mann_whitney():
    generator = np.random.default_rng(5)
    x, y = generator.integers(0, 5, 9).astype(float), generator.integers(0, 4, 7).astype(float)
    estimate = st.probability_of_improvement(x, y)
    assert estimate.value == pytest.approx(naive_improvement(x, y))
    assert estimate.value == pytest.approx(scipy.stats.mannwhitneyu(x, y).statistic / 63)
    assert estimate.low < estimate.value < estimate.high


def test_probability_of_improvement_averages_tasks():
    better, same = [np.ones(4), np.zeros(4)], [np.zeros(4), np.zeros(4)]
    assert st.probability_of_improvement(better, same) == (0.75, 0.75, 0.75)
    assert st.probability_of_improvement(same, better).value == 0.25


def test_probability_of_improvement_known_ends_and_errors():
    assert st.probability_of_improvement(np.arange(5.0) + 10, np.arange(5.0)) == (1.0, 1.0, 1.0)
    assert st.probability_of_improvement(np.arange(5.0), np.arange(5.0)).value == 0.5
    with pytest.raises(ValueError, match="same tasks on both sides, got 1 and 2"):
        st.probability_of_improvement([np.ones(2)], [np.ones(2), np.ones(2)])
    with pytest.raises(ValueError, match="at least one seed"):
        st.bootstrap([np.ones(2), np.ones(0)])
