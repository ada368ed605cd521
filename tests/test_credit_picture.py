"""The picture of the credit over an episode."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from reward_design.experiments import plots


def test_credit_draws_both_rewards_step_by_step():
    figure, ax = plt.subplots()
    given, true = np.array([0.2, 0.5, -0.1]), np.array([0.0, 1.0, 0.0])
    assert plots.credit(given, true, ax) is ax
    drawn = [line.get_ydata() for line in ax.lines]
    np.testing.assert_array_equal(drawn[0], true)
    np.testing.assert_array_equal(drawn[1], given)
    assert {text.get_text() for text in ax.texts} == {"spa", "true reward"}
    plt.close(figure)


def test_credit_refuses_two_episodes():
    figure, ax = plt.subplots()
    with pytest.raises(ValueError, match=r"two arrays \[T\] of one episode, got shapes \(2,\) and \(3,\)"):
        plots.credit(np.zeros(2), np.zeros(3), ax)
    plt.close(figure)
