"""Canonicalisations against explicit least squares, their linear algebra, the norms, and unreachable states."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog

from reward_design.agents.dynamic_programming import expected_return
from reward_design.distance import (
    CANONICALISATIONS,
    canonicalise,
    dard_distance,
    minimal_potential,
    reachable,
    starc_distance,
)

S, A, GAMMA = 5, 3, 0.9
STARC = ("val", "minimal", "minimal_weighted")
NORMS = (1, 2, "inf", "weighted_1", "weighted_2", "weighted_inf")


def random_mdp(seed):
    rng = np.random.default_rng(seed)
    return rng, rng.dirichlet(np.ones(S), (S, A)), rng.normal(size=(S, A, S))


def moves(transition, *, redistribution):
    """Every harmless move as a column ``[S·A·S]``: one per potential, and per pair of successors that trade reward."""
    columns = []
    for x in range(S):
        column = np.zeros((S, A, S))
        column[:, :, x] += GAMMA
        column[x] -= 1
        columns.append(column.ravel())
    for s, a, t in itertools.product(range(S), range(A), range(S - 1)) if redistribution else ():
        column = np.zeros((S, A, S))
        column[s, a, t], column[s, a, S - 1] = transition[s, a, S - 1], -transition[s, a, t]
        columns.append(column.ravel())
    return np.array(columns).T


def least(reward, transition, weights, *, redistribution):
    """The equivalent reward of least weighted 2-norm, by least squares over all moves."""
    root = np.sqrt(weights).ravel()
    columns = moves(transition, redistribution=redistribution)
    amounts = np.linalg.lstsq(root[:, None] * columns, root * reward.ravel(), rcond=None)[0]
    return (reward.ravel() - columns @ amounts).reshape(reward.shape)


@pytest.mark.parametrize("seed", range(3))
def test_minimal_ones_equal_explicit_least_squares(seed):
    _, transition, reward = random_mdp(seed)
    ones = np.ones_like(reward)
    for name, weights, redistribution in (
        ("minimal", ones, True), ("minimal_weighted", transition, True), ("minimal_potential", ones, False),
    ):  # fmt: skip
        expected = least(reward, transition, weights, redistribution=redistribution)
        found = canonicalise(reward, transition, gamma=GAMMA, canonicalisation=name)
        np.testing.assert_allclose(found, expected, atol=1e-12, err_msg=name)
        assert np.abs(found - reward).max() > 0.1


@pytest.mark.parametrize("seed", range(3))
def test_least_1_norm_over_potentials_equals_the_linear_programme(seed):
    rng, transition, reward = random_mdp(seed)
    columns = moves(transition, redistribution=False)
    num, size = columns.shape
    bound = np.block([[columns, -np.eye(num)], [-columns, -np.eye(num)]])
    expected = linprog(
        np.r_[np.zeros(size), np.ones(num)],
        A_ub=bound,
        b_ub=np.r_[-reward.ravel(), reward.ravel()],
        bounds=(None, None),
    ).fun
    found = minimal_potential(reward, gamma=GAMMA, norm=1)
    assert np.abs(found).sum() == pytest.approx(expected, rel=1e-3)
    assert np.abs(found).sum() < 0.999 * np.abs(minimal_potential(reward, gamma=GAMMA)).sum()
    amounts = np.linalg.lstsq(columns, (found - reward).ravel(), rcond=None)[0]
    np.testing.assert_allclose(columns @ amounts, (found - reward).ravel(), atol=1e-12)  # only shaping was added

    def d(a, b):
        a, b = (minimal_potential(r, gamma=GAMMA, norm=1) for r in (a, b))
        return starc_distance(a, b, transition, gamma=GAMMA, canonicalisation="none", norm=1, metric=1)

    phi, noise = 5 * rng.normal(size=S), 3 * rng.normal(size=reward.shape)
    shaped = 3 * (reward + GAMMA * phi - phi[:, None, None])
    assert d(reward, shaped) < 1e-6
    assert d(reward, -shaped) == pytest.approx(2, abs=1e-6)
    assert d(reward, reward + noise - (transition * noise).sum(-1, keepdims=True)) > 0.3
    batch = minimal_potential(np.stack([reward, 2 * shaped]), gamma=GAMMA, norm=1)
    np.testing.assert_allclose(batch[0], found, atol=1e-12)
    np.testing.assert_allclose(
        minimal_potential(reward, gamma=GAMMA),
        canonicalise(reward, transition, gamma=GAMMA, canonicalisation="minimal_potential"), atol=1e-12,
    )  # fmt: skip


def test_minimal_potential_errors():
    _, _, reward = random_mdp(0)
    with pytest.raises(ValueError, match="norm must be 1 or 2, got 'inf'; the least norm of another kind"):
        minimal_potential(reward, gamma=GAMMA, norm="inf")
    with pytest.raises(ValueError, match=r"reward must have shape \[..., S, A, S\], got \(5, 3\)"):
        minimal_potential(reward[..., 0], gamma=GAMMA)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\), got 1.0"):
        minimal_potential(reward, gamma=1.0)
    with pytest.raises(ValueError, match=r"reward must be finite, got nan at index \[0, 0, 2\]"):
        minimal_potential(np.where(np.arange(S) == 2, np.nan, reward), gamma=GAMMA)


def test_dimension_of_the_quotient():
    _, transition, _ = random_mdp(0)
    assert np.linalg.matrix_rank(moves(transition, redistribution=True)) == S * A * S - S * (A - 1)
    units = np.eye(S * A * S).reshape(-1, S, A, S)
    for name in STARC:
        image = canonicalise(units, transition, gamma=GAMMA, canonicalisation=name).reshape(len(units), -1)
        assert np.linalg.matrix_rank(image, tol=1e-9) == S * (A - 1)


def naive_dard(reward, transition):
    c = np.zeros_like(reward)
    for s, a, t in itertools.product(range(S), range(A), range(S)):
        total = reward[s, a, t]
        for b, x, y in itertools.product(range(A), range(S), range(S)):
            total += GAMMA * transition[t, b, y] / A / S * reward[t, b, y]
            total -= transition[s, b, x] / A / S * reward[s, b, x]
            total -= GAMMA * transition[s, b, x] * transition[t, b, y] / A * reward[x, b, y]
        c[s, a, t] = total
    return c


def test_dard_equals_loops():
    rng, transition, reward = random_mdp(1)
    other = rng.normal(size=reward.shape)
    x, y = naive_dard(reward, transition), naive_dard(other, transition)
    np.testing.assert_allclose(canonicalise(reward, transition, gamma=GAMMA, canonicalisation="dard"), x, atol=1e-12)
    rho = np.corrcoef(x.ravel(), y.ravel())[0, 1]
    assert dard_distance(reward, other, transition, gamma=GAMMA) == pytest.approx(np.sqrt((1 - rho) / 2), abs=1e-12)
    centred = [z - (transition * z).sum() / transition.sum() for z in (x, y)]
    inner = [[(transition * p * q).sum() for p in centred] for q in centred]
    rho = inner[0][1] / np.sqrt(inner[0][0] * inner[1][1])
    d = dard_distance(reward, other, transition, gamma=GAMMA, coverage=transition)
    assert d == pytest.approx(np.sqrt((1 - rho) / 2), abs=1e-12)


@pytest.mark.parametrize("name", list(CANONICALISATIONS))
def test_linear_idempotent_and_keeps_the_order(name):
    far = 0.0
    for seed in range(5):
        rng, transition, reward = random_mdp(seed)
        other = rng.normal(size=reward.shape)

        def c(r, transition=transition):
            return canonicalise(r, transition, gamma=GAMMA, canonicalisation=name)

        np.testing.assert_allclose(c(2 * reward - 3 * other), 2 * c(reward) - 3 * c(other), atol=1e-11)
        again = np.abs(c(c(reward)) - c(reward)).max()
        moved = starc_distance(reward, c(reward), transition, gamma=GAMMA)
        far = max(far, again, moved)
        if name != "dard":
            assert again < 1e-11
            assert moved < 1e-9
    assert name != "dard" or far > 0.05


@pytest.mark.parametrize("name", STARC)
def test_differences_of_returns_are_kept(name):
    rng, transition, reward = random_mdp(2)
    c = canonicalise(reward, transition, gamma=GAMMA, canonicalisation=name)
    start = rng.dirichlet(np.ones(S))
    policies = rng.dirichlet(np.ones(A), (4, S))
    before, after = (expected_return(transition, r, policies, start, gamma=GAMMA) for r in (reward, c))
    np.testing.assert_allclose(np.diff(before), np.diff(after), atol=1e-12)
    assert np.abs(np.diff(before)).min() > 1e-3


# --- norms ----------------------------------------------------------------------------------------------------------


def full_norm(x, norm, transition):
    if norm == "weighted_inf":
        return (np.abs(x) * transition).max()
    if isinstance(norm, str) and norm.startswith("weighted"):
        p = int(norm[-1])
        return (transition * np.abs(x) ** p).sum() ** (1 / p)
    return np.linalg.norm(x.ravel(), np.inf if norm == "inf" else int(norm))


@pytest.mark.parametrize("name", list(CANONICALISATIONS))
@pytest.mark.parametrize("norm", [None, *NORMS])
def test_norms_are_those_of_the_full_tensor(name, norm):
    rng, transition, reward = random_mdp(3)
    other = rng.normal(size=reward.shape)
    x, y = (canonicalise(r, transition, gamma=GAMMA, canonicalisation=name) for r in (reward, other))
    if norm is not None:
        x, y = x / full_norm(x, norm, transition), y / full_norm(y, norm, transition)
    for metric in NORMS:
        d = starc_distance(
            reward, other, transition, gamma=GAMMA, canonicalisation=name, norm=norm, metric=metric
        )  # fmt: skip
        assert d == pytest.approx(full_norm(x - y, metric, transition), rel=1e-10), metric


@pytest.mark.parametrize("norm", NORMS)
def test_opposites_and_trivial_rewards_in_every_norm(norm):
    rng, transition, reward = random_mdp(4)
    noise, phi = 3 * rng.normal(size=reward.shape), 5 * rng.normal(size=S)
    nothing = GAMMA * phi - phi[:, None, None] + np.zeros_like(reward)
    unseen = nothing + noise - (transition * noise).sum(-1, keepdims=True)
    for name in CANONICALISATIONS:
        kwargs = {"gamma": GAMMA, "canonicalisation": name, "norm": norm, "metric": norm}
        assert starc_distance(reward, -3 * reward, transition, **kwargs) == pytest.approx(2, abs=1e-12)
        if name != "none":
            assert starc_distance(reward, nothing, transition, **kwargs) == pytest.approx(1, abs=1e-12)
            assert starc_distance(0 * reward, 1e6 * nothing, transition, **kwargs) == 0
        if name in STARC:
            assert starc_distance(-1e-6 * nothing, 1e3 * unseen, transition, **kwargs) == 0
            assert starc_distance(reward, 2 * reward + unseen, transition, **kwargs) < 1e-9


def test_without_a_norm_scale_counts():
    _, transition, reward = random_mdp(5)
    assert starc_distance(reward, 2 * reward, transition, gamma=GAMMA, norm=None) > 0.1
    assert starc_distance(reward, 2 * reward, transition, gamma=GAMMA) < 1e-12


def test_weighted_2_of_the_projection_is_the_angle_between_flow_free_rewards():
    """2 sin(θ/2) for the angle θ of the rewards projected on the null space of the flow constraints."""
    rng, transition, reward = random_mdp(6)
    other = rng.normal(size=reward.shape)
    flow = np.repeat(np.eye(S), A, axis=1) - GAMMA * transition.reshape(-1, S).T
    x, y = (
        (np.eye(S * A) - flow.T @ np.linalg.solve(flow @ flow.T, flow)) @ (transition * r).sum(-1).ravel()
        for r in (reward, other)
    )
    angle = np.arccos(x @ y / np.linalg.norm(x) / np.linalg.norm(y))
    d = starc_distance(
        reward, other, transition, gamma=GAMMA, canonicalisation="minimal_weighted", norm="weighted_2",
        metric="weighted_2",
    )  # fmt: skip
    assert d == pytest.approx(2 * np.sin(angle / 2), abs=1e-12)


# --- unreachable states ---------------------------------------------------------------------------------------------


def test_unreachable_states_are_named():
    rng, transition, reward = random_mdp(7)
    transition[:3, :, 3:] = 0
    transition[:3] /= transition[:3].sum(-1, keepdims=True)
    start = np.eye(S)[0]
    assert reachable(transition, start).tolist() == [True] * 3 + [False] * 2
    assert reachable(transition, np.eye(S)[4]).all()
    other = reward.copy()
    other[3:] = rng.normal(size=other[3:].shape)
    with pytest.warns(UserWarning, match="no policy reaches the states 3, 4 from the start"):
        assert starc_distance(reward, other, transition, gamma=GAMMA, initial=start) > 0.1
    assert starc_distance(reward, other, transition, gamma=GAMMA, initial=np.full(S, 1 / S)) > 0.1
