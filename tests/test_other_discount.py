"""A forgotten discount is told from the numbers alone, and nothing else is called one."""

import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.distance import audit
from reward_design.distance.other_discount import finding, other_discount
from reward_design.envs import task

GAMMA = 0.95
NUM, ACTIONS = 12, 3


def world(seed, terminal=1):
    """A random MDP with three successors per action, its task reward, and a potential."""
    rng = np.random.default_rng(seed)
    transition = np.zeros((NUM, ACTIONS, NUM))
    for row in transition.reshape(-1, NUM):
        row[rng.choice(NUM, 3, replace=False)] = rng.dirichlet(np.ones(3))
    ends = np.arange(NUM) >= NUM - terminal
    transition[ends] = np.eye(NUM)[ends][:, None]
    return rng, transition, ends, rng.normal(size=(NUM, ACTIONS, 1)) * np.ones(NUM), rng.normal(size=NUM)


def shaped(phi, g):
    return g * phi - phi[:, None, None]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("g", [1.0, 0.99, 0.9, 0.6])
@pytest.mark.parametrize("terminal", [0, 2])
def test_shaping_with_another_discount_is_named(seed, g, terminal):
    _, transition, ends, a, phi = world(seed, terminal)
    found = other_discount(a, 2.5 * a + shaped(phi, g), transition, ends, gamma=GAMMA)
    assert found is not None
    assert found.discount == pytest.approx(g, abs=1e-6)
    assert found.scale == pytest.approx(2.5)
    live = ~ends
    expected = phi - phi.mean() if g == 1.0 else phi
    shift = (found.potential - expected)[live]
    np.testing.assert_allclose(shift, shift[0] if g == 1.0 else 0.0, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("terminal", [0, 2])
def test_other_differences_are_not(seed, terminal):
    rng, transition, ends, a, phi = world(seed, terminal)
    psi, forgotten = rng.normal(size=NUM), shaped(phi, 1.0)
    others = {
        "nothing": 0 * a,
        "the task's discount": shaped(phi, GAMMA),
        "a step cost": np.full_like(a, -0.3),
        "a bonus for a state": phi * np.ones_like(a),
        "a cost of leaving one": -phi[:, None, None] * np.ones_like(a),
        "two potentials": psi - phi[:, None, None] + 0 * a,
        "an action": phi[:ACTIONS, None] * np.ones_like(a),
        "nearly": forgotten + 1e-3 * rng.normal(size=a.shape),
        "with a bonus": forgotten + 0.5 * (np.arange(NUM) == 3)[:, None, None] * (np.arange(ACTIONS) == 0)[:, None],
    }
    for name, difference in others.items():
        assert other_discount(a, 2 * a + difference, transition, ends, gamma=GAMMA) is None, name
    assert other_discount(a, 2 * a + forgotten, transition, ends, gamma=GAMMA) is not None


@pytest.mark.parametrize("seed", range(4))
def test_of_many_scales_that_fit_the_plain_one_is_said(seed):
    rng, transition, ends, _, phi = world(seed)
    a = (
        shaped(rng.normal(size=NUM), 1.0) + 0 * transition
    )  # the task is shaping itself: any share of it may be counted as such
    found = other_discount(a, a + shaped(phi, 1.0), transition, ends, gamma=GAMMA)
    assert found is not None
    assert found.scale == 1.0
    shift = (found.potential - phi)[~ends]
    np.testing.assert_allclose(shift, shift[0], atol=1e-6)
    assert "the design is the task plus g phi(s') - phi(s)" in finding(found, GAMMA).text


def test_what_few_transitions_cannot_tell_is_left_open():
    transition = np.roll(np.eye(4), 1, axis=1)[:, None]  # a ring: any reward on it is shaping up to one number
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 4, 1, 4))
    assert other_discount(a, b, transition, np.zeros(4, bool), gamma=GAMMA) is None


def written_by_hand(where, g, scale=3.0):
    """A pointwise reward that says nothing about a discount."""

    def paid(t):
        return t.reward + scale * (g * where.potential(t.next_obs) * ~t.terminated - where.potential(t.obs))

    return rd.pointwise("progress", paid)


@pytest.mark.parametrize("name", ["chain", "four_rooms"])
def test_the_audit_names_a_forgotten_discount(name):
    where = task(name)
    found = audit(where, written_by_hand(where, 1.0))
    (said,) = [one for one in found.findings if one.check == "discount of shaping"]
    assert said.concern
    assert said.evidence == {"discount": 1.0, "gamma": where.gamma}
    assert f"g = 1 on every transition, and the task discounts with {where.gamma:g}" in said.text
    assert f"use potential_shaping(phi, gamma={where.gamma:g})" in said.text
    assert "discount of shaping" in found.verdict


def test_the_audit_names_no_other_design():
    chain = task("chain")
    loiter = rd.pointwise("loiter", lambda t: t.reward + 0.1 * (t.obs == t.next_obs))
    living = rd.pointwise("living", lambda t: t.reward - 0.1 * jnp.ones_like(t.reward))
    for design in (written_by_hand(chain, chain.gamma), loiter, living, chain.dense_reward):
        concerns = {one.check for one in audit(chain, design).findings if one.concern}
        assert "discount of shaping" not in concerns
