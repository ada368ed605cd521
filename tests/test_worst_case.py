"""Worst-case regret: enumeration, a second linear programme, the bands of STARC and of its negative controls."""

import itertools

import numpy as np
import pytest
from scipy.optimize import linprog, minimize_scalar

from reward_design.agents.dynamic_programming import expected_return, policy_iteration
from reward_design.distance import (
    dard_distance,
    epic_distance,
    policy_regret,
    projected_angle,
    regret_bound,
    starc_distance,
    worst_case_regret,
)
from reward_design.envs.random_mdp import random_reward, random_transition

GAMMA = 0.9


def random_mdp(seed, num_states=6, num_actions=3):
    rng = np.random.default_rng(seed)
    transition = rng.dirichlet(np.full(num_states, 0.5), (num_states, num_actions))
    return rng, transition, rng.dirichlet(np.ones(num_states))


def disguised(rng, reward, transition, noise=3.0):
    noise = noise * rng.normal(size=reward.shape)
    phi = 5 * rng.normal(size=reward.shape[-1])
    return 2 * reward + GAMMA * phi - phi[:, None, None] + noise - (transition * noise).sum(-1, keepdims=True)


def second_programme(a, b, transition, initial):
    """The same maximum over the raw expected rewards and dense constraints, with its own range of J_A."""
    num_states, num_actions, _ = a.shape
    r_a, r_b = ((transition * r).sum(-1).ravel() for r in (a, b))
    flow = np.repeat(np.eye(num_states), num_actions, axis=1) - GAMMA * transition.reshape(-1, num_states).T
    zero = np.zeros_like(flow)

    def best(c, **kwargs):
        return -linprog(-c, **kwargs).fun

    worst = best(
        np.concatenate([r_a, -r_a]), A_ub=np.concatenate([r_b, -r_b])[None], b_ub=[0],
        A_eq=np.block([[flow, zero], [zero, flow]]), b_eq=np.concatenate([initial, initial]),
    )  # fmt: skip
    single = {"A_eq": flow, "b_eq": initial}
    return worst / (best(r_a, **single) + best(-r_a, **single))


@pytest.mark.parametrize("seed", range(6))
def test_equals_the_second_programme_and_beats_enumeration(seed):
    rng, transition, initial = random_mdp(seed, 4, 2)
    a, b = rng.normal(size=(2, 4, 2, 4))
    found = worst_case_regret(a, b, transition, initial, gamma=GAMMA)
    assert found.regret == pytest.approx(second_programme(a, b, transition, initial), abs=1e-8)

    policies = np.eye(2)[np.array(list(itertools.product(range(2), repeat=4)))]
    j_a, j_b = (expected_return(transition, r, policies, initial, gamma=GAMMA) for r in (a, b))
    allowed = j_b[None, :] >= j_b[:, None]  # the second is not ranked below the first
    loss = (j_a[:, None] - j_a[None, :])[allowed].max() / np.ptp(j_a)
    assert 0.1 < loss <= found.regret + 1e-9
    assert found.spread == pytest.approx(np.ptp(j_a), rel=1e-9)


def test_large_problems_equal_their_dual():
    """By duality the worst case is min over λ ≥ 0 of the range of J under a - λ b, which policy iteration gives."""
    rng, transition, initial = random_mdp(3, 200, 3)
    a = rng.normal(size=(200, 3, 200))
    b = a + rng.normal(size=a.shape)

    def spread(weight):
        reward = a - weight * b
        best, worst = (policy_iteration(transition, sign * reward, gamma=GAMMA).values @ initial for sign in (1, -1))
        return best + worst

    dual = minimize_scalar(spread, bounds=(0, 5), method="bounded", options={"xatol": 1e-10}).fun
    found = worst_case_regret(a, b, transition, initial, gamma=GAMMA)
    assert found.loss == pytest.approx(dual, rel=1e-7)
    assert found.regret == pytest.approx(dual / spread(0.0), rel=1e-7)
    assert 0.1 < found.regret < 0.9


@pytest.mark.parametrize("seed", range(4))
def test_witnesses_show_the_regret(seed):
    rng, transition, initial = random_mdp(seed)
    a = rng.normal(size=(6, 3, 6))
    b = disguised(rng, a + 0.5 * rng.normal(size=a.shape), transition)
    found = worst_case_regret(a, b, transition, initial, gamma=GAMMA)
    for policy in found.policies:
        np.testing.assert_allclose(policy.sum(-1), 1, atol=1e-12)
    for r, returns in ((a, found.returns_a), (b, found.returns_b)):
        own = [float(expected_return(transition, r, policy, initial, gamma=GAMMA)) for policy in found.policies]
        np.testing.assert_allclose(own, returns, atol=1e-10)
    assert found.returns_b[1] >= found.returns_b[0] - 1e-8
    assert found.returns_a[0] - found.returns_a[1] == pytest.approx(found.regret * found.spread, abs=1e-8)
    assert found.loss == pytest.approx(found.regret * found.spread, abs=1e-10)
    assert policy_regret(a, b, transition, initial, gamma=GAMMA) <= found.regret + 1e-9


def test_equivalent_opposite_and_trivial():
    for seed in range(5):
        rng, transition, initial = random_mdp(seed)
        reward = rng.normal(size=(6, 3, 6))
        same = disguised(rng, reward, transition)
        nothing = same - 2 * reward

        def worst(a, b, transition=transition, initial=initial):
            return worst_case_regret(a, b, transition, initial, gamma=GAMMA).regret

        assert worst(reward, same) < 1e-8
        assert worst(same, reward) < 1e-8
        assert worst(reward, -same) == pytest.approx(1, abs=1e-8)
        assert worst(reward, 0 * reward) == pytest.approx(1, abs=1e-8)
        assert worst(reward, nothing) == pytest.approx(1, abs=1e-8)
        assert worst(nothing, reward) == 0
        assert 0.1 < worst(reward, same + 2 * rng.normal(size=reward.shape)) < 1


def test_the_example_of_two_states():
    transition = np.stack([np.eye(2), np.eye(2)[::-1]], axis=1)
    position, moving = np.zeros((2, 2, 2)), np.zeros((2, 2, 2))
    position[1], moving[:, 1] = 1.0, 1.0
    start = [1.0, 0.0]
    assert policy_regret(position, moving, transition, start, gamma=0.5) == pytest.approx(1 / 3, abs=1e-12)
    found = worst_case_regret(position, moving, transition, start, gamma=0.5)
    assert found.regret >= 1 / 3
    assert found.spread == pytest.approx(1)
    assert projected_angle(position, moving, transition, gamma=0.5) == pytest.approx(np.pi / 2, abs=1e-9)


def pairs(num):
    for seed in range(num):
        rng, transition, initial = random_mdp(seed)
        reward = rng.normal(size=(6, 3, 6))
        for weight in (0.1, 1.0, 10.0):
            other = reward + weight * rng.normal(size=reward.shape)
            yield transition, initial, disguised(rng, reward, transition, 5.0), other


def test_starc_stays_in_a_band_of_worst_case_regret_and_its_peers_do_not():
    starc = [f"{name} {norm}" for name in ("val", "minimal") for norm in (1, 2, "inf")]
    columns = {name: [] for name in ("worst", *starc, "epic", "dard")}
    for transition, initial, a, b in pairs(12):
        columns["worst"].append(worst_case_regret(a, b, transition, initial, gamma=GAMMA).regret)
        for name in starc:
            canonicalisation, norm = name.split()
            norm = int(norm) if norm != "inf" else norm
            kwargs = {"canonicalisation": canonicalisation, "norm": norm, "metric": norm}
            columns[name].append(starc_distance(a, b, transition, gamma=GAMMA, **kwargs))
        columns["epic"].append(2 * epic_distance(a, b, gamma=GAMMA))
        columns["dard"].append(2 * dard_distance(a, b, transition, gamma=GAMMA))
    worst = np.array(columns.pop("worst"))
    ratios = {name: worst / np.array(d) for name, d in columns.items()}
    for name in starc:
        assert ratios[name].min() > 0.3
        assert ratios[name].max() < 2.5
    for name in ("epic", "dard"):
        assert ratios[name].min() < 0.1
    for name in ("val 2", "minimal 2"):
        correlation = np.corrcoef(worst, columns[name])[0, 1]
        assert correlation > 0.9
        assert max(np.corrcoef(worst, columns[peer])[0, 1] for peer in ("epic", "dard")) < correlation - 0.1


def test_the_band_at_the_size_of_the_experiments():
    """32 states, 4 actions, discount 0.95; redistributed where it makes the difference, and never to STARC."""
    gamma, rows = 0.95, []
    for seed in range(8):
        rng = np.random.default_rng(seed)
        transition = random_transition(rng, 32, 4)
        reward = rng.normal(size=(32, 4, 32))
        for weight in (0.05, 0.3, 1.0, 5.0):
            noise, phi = 3 * rng.normal(size=reward.shape), 5 * rng.normal(size=32)
            noise -= (transition * noise).sum(-1, keepdims=True)
            other = reward + weight * rng.normal(size=reward.shape) + noise + gamma * phi - phi[:, None, None]
            kwargs = {"transition": transition, "gamma": gamma}
            worst = worst_case_regret(reward, other, initial=np.full(32, 1 / 32), **kwargs).regret
            starc = [
                starc_distance(reward, other, canonicalisation=name, norm=norm, metric=norm, **kwargs)
                for name, norm in (("val", 2), ("minimal", 2), ("val", "inf"))
            ]
            rows.append(
                [
                    worst,
                    *starc,
                    2 * epic_distance(reward, other, gamma=gamma),
                    2 * dard_distance(reward, other, **kwargs),
                ]
            )
    worst, val, minimal, largest, epic, dard = np.array(rows).T
    for d in (val, minimal):
        assert (worst / d).min() > 0.45
        assert (worst / d).max() < 1.6
        assert np.corrcoef(worst, d)[0, 1] > 0.94
    assert (worst / largest).min() > 0.4
    assert (worst / largest).max() < 2.1
    for d in (epic, dard):
        assert (worst / d).min() < 0.25


def test_val_predicts_the_regret_of_the_experiments_better_than_its_peers():
    """The order of the published table at 2-2, on a small part of its pairs (all of them: benchmarks)."""
    names, gamma, start = ("val", "minimal_weighted", "val_potential", "epic", "none"), 0.95, np.full(32, 1 / 32)
    found, regret = {name: [] for name in names}, []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        transition = random_transition(rng, 32, 4)
        for _ in range(4):
            first, last = (random_reward(rng, 32, 4, gamma=gamma) for _ in range(2))
            others = np.array([first + (last - first) * i / 8 for i in range(1, 9)])
            losses = [
                np.asarray(policy_regret(*pair, transition, start, gamma=gamma))
                for pair in ((first, others), (others, first))
            ]
            regret.append(np.mean(losses, axis=0))
            for name in names:
                found[name].append(starc_distance(first, others, transition, gamma=gamma, canonicalisation=name))
    correlation = {name: np.corrcoef(np.ravel(d), np.ravel(regret))[0, 1] for name, d in found.items()}
    assert correlation["val"] > 0.8
    assert correlation["val"] - correlation["epic"] > 0.03
    assert abs(correlation["val"] - correlation["minimal_weighted"]) < 0.03
    assert correlation["epic"] - correlation["none"] > 0.1
    assert correlation["val"] > correlation["val_potential"] > correlation["none"]


def test_the_bound_holds_and_says_something():
    useful = 0
    for transition, initial, a, b in pairs(12):
        worst = worst_case_regret(a, b, transition, initial, gamma=GAMMA).regret
        found = regret_bound(a, b, transition, initial, gamma=GAMMA)
        assert worst <= found.bound + 1e-9 <= found.constant * found.distance + 1e-8
        assert found.distance == pytest.approx(starc_distance(a, b, transition, gamma=GAMMA, norm="inf", metric="inf"))
        useful += found.bound < 1
    assert useful >= 3


def test_least_visit_equals_simulated_hitting_times():
    rng, transition, initial = random_mdp(0, 4, 2)
    policy = rng.dirichlet(np.ones(2), 4)
    walk = np.einsum("sa,sat->st", policy, transition)
    expected = []
    for target in range(4):
        inside = walk.copy()
        inside[target] = 0.0  # stopped at the target
        reached, at, total = initial[target], initial * (np.arange(4) != target), initial[target]
        for step in range(1, 600):
            at = at @ inside
            total += GAMMA**step * at[target]
            at[target] = 0.0
        assert reached <= total
        expected.append(total)
    a = rng.normal(size=(4, 2, 4))
    found = regret_bound(a, -a, transition, initial, gamma=GAMMA, policy=policy)
    assert found.least_visit == pytest.approx(min(expected), rel=1e-9)


def test_an_unreachable_state_makes_the_constant_infinite_and_not_the_bound():
    rng, transition, _ = random_mdp(1, 4, 2)
    transition[:3, :, 3] = 0
    transition /= transition.sum(-1, keepdims=True)
    a, start = rng.normal(size=(4, 2, 4)), np.eye(4)[0]
    b = a.copy()
    b[3] = rng.normal(size=(2, 4))
    found = regret_bound(a, b, transition, start, gamma=GAMMA)
    assert found.constant == np.inf
    assert np.isfinite(found.bound)
    assert worst_case_regret(a, b, transition, start, gamma=GAMMA).regret < 1e-8
    assert starc_distance(a, b, transition, gamma=GAMMA) > 0.1


def test_errors():
    rng, transition, initial = random_mdp(0)
    reward = rng.normal(size=(6, 3, 6))
    bad = np.where(np.arange(6) == 2, np.nan, reward)
    for message, arguments in [
        ("initial must be a distribution", (reward, reward, transition, 2 * initial)),
        (r"reward_b must be finite, got nan at index \[0, 0, 2\]", (reward, bad, transition, initial)),
        (r"reward_a must have shape \[S, A, S\] = \(6, 3, 6\) without", (reward[None], reward, transition, initial)),
    ]:
        with pytest.raises(ValueError, match=message):
            worst_case_regret(*arguments, gamma=GAMMA)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\), got 1.0"):
        worst_case_regret(reward, reward, transition, initial, gamma=1.0)
