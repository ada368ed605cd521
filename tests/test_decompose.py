"""The parts of a difference: recovered exactly where they are known, least squares where they are not."""

import itertools

import numpy as np
import pytest

from reward_design.distance import decompose_difference, starc_distance

S, A, GAMMA = 5, 3, 0.9


def random_mdp(seed):
    rng = np.random.default_rng(seed)
    return rng, rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A, S))


def ingredients(rng, transition):
    phi, noise = 3 * rng.normal(size=S), 2 * rng.normal(size=(S, A, S))
    return phi, GAMMA * phi - phi[:, None, None], noise - (transition * noise).sum(-1, keepdims=True)


@pytest.mark.parametrize("seed", range(4))
def test_known_parts_are_recovered(seed):
    rng, transition, task = random_mdp(seed)
    phi, shaping, redistribution = ingredients(rng, transition)
    designed = 1.7 * task + shaping + redistribution
    found = decompose_difference(task, designed, transition, gamma=GAMMA)
    assert found.scale == pytest.approx(1.7, abs=1e-10)
    np.testing.assert_allclose(found.potential, phi, atol=1e-10)
    np.testing.assert_allclose(found.parts["potential"], np.broadcast_to(shaping, task.shape), atol=1e-10)
    np.testing.assert_allclose(found.parts["redistribution"], redistribution, atol=1e-10)
    assert found.sizes["residual"] < 1e-12
    assert found.cosine == pytest.approx(1)
    assert found.shares["residual"] == 0
    assert all(found.shares[name] > 1e-3 for name in ("scale", "potential", "redistribution"))


def test_constant_potential_is_found():
    """A potential is not free up to a constant when the discount is below 1."""
    _, transition, task = random_mdp(0)
    found = decompose_difference(task, task + 7 * (GAMMA - 1), transition, gamma=GAMMA)
    np.testing.assert_allclose(found.potential, 7, atol=1e-9)
    assert found.shares["potential"] == pytest.approx(1)


@pytest.mark.parametrize("seed", range(4))
def test_equals_least_squares_over_all_moves(seed):
    rng, transition, task = random_mdp(seed)
    designed = task + rng.normal(size=task.shape)
    weight = rng.uniform(0.1, 1, (S, A))
    columns = [task]
    for x in range(S):
        column = np.zeros((S, A, S))
        column[:, :, x] += GAMMA
        column[x] -= 1
        columns.append(column)
    for s, a, t in itertools.product(range(S), range(A), range(S - 1)):
        column = np.zeros((S, A, S))
        column[s, a, t], column[s, a, S - 1] = transition[s, a, S - 1], -transition[s, a, t]
        columns.append(column)
    root = np.sqrt(weight[..., None] * transition).ravel()
    design = np.array([column.ravel() for column in columns]).T
    amounts = np.linalg.lstsq(root[:, None] * design, root * designed.ravel(), rcond=None)[0]
    found = decompose_difference(task, designed, transition, gamma=GAMMA, weight=weight)
    assert found.scale == pytest.approx(amounts[0], abs=1e-9)
    np.testing.assert_allclose(found.potential, amounts[1 : 1 + S], atol=1e-9)
    residual = (designed.ravel() - design @ amounts).reshape(task.shape)
    np.testing.assert_allclose(found.parts["residual"], residual, atol=1e-9)
    assert found.sizes["residual"] > 0.1
    np.testing.assert_allclose(sum(found.parts.values()), designed - task, atol=1e-12)
    assert sum(found.shares.values()) == pytest.approx(1)


def test_cosine_is_that_of_the_distance():
    rng, transition, task = random_mdp(1)
    designed = task + rng.normal(size=task.shape)
    found = decompose_difference(task, designed, transition, gamma=GAMMA)
    weighted = {"canonicalisation": "minimal_weighted", "norm": "weighted_2", "metric": "weighted_2"}
    d = starc_distance(task, designed, transition, gamma=GAMMA, **weighted)
    assert d == pytest.approx(np.sqrt(2 - 2 * found.cosine), abs=1e-12)


def test_opposite_trivial_and_equal():
    rng, transition, task = random_mdp(2)
    _, shaping, redistribution = ingredients(rng, transition)
    opposite = decompose_difference(task, shaping - task, transition, gamma=GAMMA)
    assert opposite.scale == 0
    assert opposite.cosine == pytest.approx(-1)
    assert opposite.sizes["residual"] > 0.1
    trivial = decompose_difference(task, shaping + redistribution, transition, gamma=GAMMA)
    assert trivial.scale == 0
    assert np.isnan(trivial.cosine)
    no_task = decompose_difference(shaping + np.zeros_like(task), task, transition, gamma=GAMMA)
    assert not no_task.identified
    assert no_task.scale == 1
    equal = decompose_difference(task, task, transition, gamma=GAMMA)
    assert equal.scale == pytest.approx(1)
    assert set(equal.shares.values()) == {0.0}


def test_errors():
    rng, transition, task = random_mdp(3)
    with pytest.raises(ValueError, match="weight must be positive and finite, got the least entry 0"):
        decompose_difference(task, task, transition, gamma=GAMMA, weight=np.eye(S, A))
    with pytest.raises(ValueError, match=r"reward_b must have shape \[S, A, S\]"):
        decompose_difference(task, task[None], transition, gamma=GAMMA)
    with pytest.raises(ValueError, match=r"reward_a must be finite, got inf"):
        decompose_difference(np.where(rng.random(task.shape) < 0.1, np.inf, task), task, transition, gamma=GAMMA)
