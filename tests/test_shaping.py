"""What shaping promises, on exact solutions in float64, each promise with a control that must break it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.rollouts import random_trajectory
from tests.cases import array_example, height
from tests.mdps import (
    Table,
    action_values,
    policy_action_values,
    random_mdps,
    reward_tables,
    share_of_flips,
)

GAMMA = 0.93
MDPS = random_mdps()
OPTIMAL = action_values(MDPS.transition, MDPS.reward, GAMMA)
PHI, ADVICE = Table(6), Table(6, 3)

pytestmark = pytest.mark.usefixtures("float64")


def shaping(*, gamma=GAMMA, **settings):
    return rd.potential_shaping(PHI, gamma=gamma, **settings)


def solved(reward, *, potential=MDPS.phi, temperature=0.0, **how):
    tables = reward_tables(reward, MDPS, potential, **how)
    return action_values(MDPS.transition, tables, GAMMA, temperature=temperature)


# --- the optimal policy ----------------------------------------------------------------------------------------------


def test_action_values_are_lowered_by_the_potential():
    shaped = solved(shaping())
    np.testing.assert_allclose((shaped - OPTIMAL + MDPS.phi[..., None])[:, :-1], 0, atol=1e-10)
    without_end = solved(shaping(), tell_the_end=False)
    assert np.abs(without_end - OPTIMAL + MDPS.phi[..., None])[:, :-1].max() > 1


def bonus():
    return rd.weighted_sum(
        task=rd.environment_reward(), bonus=rd.pointwise("bonus", lambda t: 0.5 * jnp.ones_like(t.reward))
    )


INVARIANT = {
    "shaping": shaping,
    "weighted": lambda: rd.weighted_sum(task=rd.environment_reward(), hint=shaping(add=False), weights={"hint": 2.5}),
    "scaled": lambda: rd.chain(shaping(), rd.scale(3.0)),
    "twice": lambda: rd.chain(shaping(), shaping()),
    "link_of_a_chain": lambda: rd.chain(rd.environment_reward(), shaping(name="hint")),
    "frozen": lambda: rd.freeze_running(rd.chain(shaping(), rd.normalise_by_return(gamma=GAMMA))),
}
VARIANT = {
    "gamma_mismatch": (lambda: shaping(gamma=1.0), {}),
    "terminal_potential": (shaping, {"tell_the_end": False}),
    "constant_bonus": (bonus, {}),
    "clip_after_shaping": (lambda: rd.chain(shaping(), rd.clip()), {}),
    "bounded_after_shaping": (lambda: rd.chain(shaping(), rd.centred_sigmoid()), {}),
}


@pytest.mark.parametrize("build", INVARIANT.values(), ids=INVARIANT)
def test_greedy_policies_are_kept(build):
    assert share_of_flips(solved(build()), OPTIMAL) == 0


@pytest.mark.parametrize(("build", "how"), VARIANT.values(), ids=VARIANT)
def test_greedy_policies_flip_often_when_a_condition_is_broken(build, how):
    assert share_of_flips(solved(build(), **how), OPTIMAL) > 0.15


def test_a_shifted_potential_changes_rewards_by_a_known_amount_and_no_policy():
    shifted = reward_tables(shaping(), MDPS, MDPS.phi + 5.0)
    change = shifted - reward_tables(shaping(), MDPS, MDPS.phi)
    np.testing.assert_allclose(change[:, :-1, :, :-1], (GAMMA - 1) * 5.0, atol=1e-10)
    np.testing.assert_allclose(change[:, :-1, :, -1], -5.0, atol=1e-10)
    assert share_of_flips(action_values(MDPS.transition, shifted, GAMMA), OPTIMAL) == 0


@pytest.mark.parametrize("offset", [-1e-6, 1e-6])
def test_two_goals_need_a_terminal_potential_of_zero(offset):
    """Grzes 2017: goal 1 (r 0, Φ 1000) beats goal 2 (r 100, Φ 10) for gamma above 10/99, if Φ(goal) is not zeroed."""
    gamma = 10 / 99 + offset
    reward = rd.potential_shaping(lambda obs: jnp.array([50.0, 1000.0, 10.0])[obs], gamma=gamma)

    def better_goal(tell_the_end):
        t = rd.Transition(
            obs=np.zeros(2, int), action=np.arange(2), next_obs=np.array([1, 2]), reward=np.array([0.0, 100.0]),
            terminated=np.full(2, tell_the_end), truncated=np.zeros(2, bool), mask=np.ones(2, bool),
        )  # fmt: skip
        params, state = reward.init(jax.random.key(0), t)
        return 1 + int(np.argmax(reward.step(params, state, t)[0].reward))

    assert better_goal(tell_the_end=True) == 2
    assert better_goal(tell_the_end=False) == (1 if offset > 0 else 2)


def soft_policy(q, temperature=0.7):
    odds = np.exp((q - q.max(-1, keepdims=True)) / temperature)
    return (odds / odds.sum(-1, keepdims=True))[:, :-1]


def test_maximum_entropy_policies_are_kept_at_the_same_temperature():
    plain = action_values(MDPS.transition, MDPS.reward, GAMMA, temperature=0.7)
    shaped = solved(shaping(), temperature=0.7)
    np.testing.assert_allclose((shaped - plain + MDPS.phi[..., None])[:, :-1], 0, atol=1e-10)
    np.testing.assert_allclose(soft_policy(shaped), soft_policy(plain), atol=1e-10)
    scaled = solved(rd.chain(shaping(), rd.scale(3.0)), temperature=0.7)
    assert np.abs(soft_policy(scaled) - soft_policy(plain)).max() > 0.1


def test_look_ahead_advice_needs_its_correction():
    policy = OPTIMAL.argmax(-1)
    advised = rd.look_ahead_advice(ADVICE, gamma=GAMMA)
    tables = reward_tables(advised, MDPS, MDPS.advice, next_action=policy)
    q = policy_action_values(MDPS.transition, tables, policy, GAMMA)
    np.testing.assert_allclose((q - OPTIMAL + MDPS.advice)[:, :-1], 0, atol=1e-10)
    assert share_of_flips(q + MDPS.advice, OPTIMAL) == 0
    assert share_of_flips(q, OPTIMAL) > 0.5


# --- learning --------------------------------------------------------------------------------------------------------


def learned(q, rewards, phi_sampler, *, sarsa, steps=800, epsilon=0.3):
    """Action values after every step of a closed loop with common random numbers; rewards ``[S, A, S]``."""
    rng, history, state = np.random.default_rng(1), [], 0
    action, q = 0, q.copy()
    for _ in range(steps):
        following = rng.choice(6, p=MDPS.transition[0, state, action])
        reward = rewards(phi_sampler(), state, action, following)
        explore, anything = rng.random() < epsilon, rng.integers(3)
        chosen = anything if explore else int(q[following].argmax())
        target = q[following, chosen] if sarsa else q[following].max()
        q[state, action] += 0.2 * (reward + GAMMA * (0 if following == 5 else target) - q[state, action])
        history.append((q.copy(), state, action, following))
        state, action = (0, 0) if following == 5 else (following, chosen)
    return history


@pytest.mark.parametrize("sarsa", [False, True])
def test_shaping_is_an_initialisation_of_the_action_values(sarsa):
    """Wiewiora 2003: Q_0 = Φ unshaped and Q_0 = 0 shaped differ by Φ for ever and act alike; a drifting Φ breaks it."""
    phi = MDPS.phi[0] * (np.arange(6) != 5)
    shaped = reward_tables(shaping(), MDPS, MDPS.phi)[0]
    plain = MDPS.reward[0]
    look = lambda table: lambda _, s, a, n: table[s, a, n]  # noqa: E731
    one = learned(np.tile(phi[:, None], 3), look(plain), lambda: None, sarsa=sarsa)
    two = learned(np.zeros((6, 3)), look(shaped), lambda: None, sarsa=sarsa)
    for (q_one, *path_one), (q_two, *path_two) in zip(one, two):
        assert path_one == path_two
        np.testing.assert_allclose(q_one - q_two, np.tile(phi[:, None], 3), atol=1e-11)
    drift = np.random.default_rng(2)
    moving = learned(np.zeros((6, 3)), lambda c, s, a, n: plain[s, a, n] + c * (shaped - plain)[s, a, n],
                     lambda: drift.random() * 2, sarsa=sarsa)  # fmt: skip
    assert np.abs(one[-1][0] - moving[-1][0] - phi[:, None]).max() > 0.1


def advantages(reward, value, following_value, t, *, lam, bootstrap_truncated):
    """Generalised advantages ``[T, B]`` in a plain loop, cut at every end of an episode."""
    ended = t.terminated | t.truncated
    stops = t.terminated if bootstrap_truncated else ended
    delta = reward + GAMMA * np.where(stops, 0, following_value) - value
    out, carry = np.zeros_like(delta), np.zeros(delta.shape[1])
    for row in reversed(range(len(delta))):
        carry = delta[row] + GAMMA * lam * np.where(ended[row], 0, carry)
        out[row] = carry
    return out


def long_rollout(time=60):
    t = random_trajectory(array_example(), time=time)
    return jax.tree.map(lambda x: x.astype(np.float64) if x.dtype == np.float32 else x, t)


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
@pytest.mark.parametrize("bootstrap", [True, False])
def test_advantages_are_equal_with_the_shifted_critic(lam, bootstrap):
    """Both ways to treat a time limit are consistent; mixing them is not."""
    t = long_rollout()
    t = t._replace(mask=np.ones_like(t.mask))
    phi, phi_next = (np.asarray(jax.vmap(height)(o)) for o in (t.obs, t.next_obs))
    value, value_next = np.sin(3 * t.obs[..., 0]), np.sin(3 * t.next_obs[..., 0])
    plain = advantages(t.reward, value, value_next, t, lam=lam, bootstrap_truncated=bootstrap)

    def shaped(time_limit_is_terminal):
        reward = rd.potential_shaping(height, gamma=GAMMA, time_limit_is_terminal=time_limit_is_terminal)
        params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], t))
        rewards = np.asarray(reward.unroll(params, state, t)[0].reward)
        return advantages(rewards, value - phi, value_next - phi_next, t, lam=lam, bootstrap_truncated=bootstrap)

    np.testing.assert_allclose(shaped(time_limit_is_terminal=not bootstrap), plain, atol=1e-12)
    assert np.abs(shaped(time_limit_is_terminal=bootstrap) - plain).max() > 0.5


def all_trajectories(horizon=3, states=3, actions=2):
    """Every state-action sequence of a small problem as one lane, with its probability and score function."""
    rng = np.random.default_rng(3)
    dynamics = rng.dirichlet(np.ones(states), (states, actions))
    policy = rng.dirichlet(np.ones(actions), states)
    grid = np.indices((states, actions) * horizon + (states,)).reshape(2 * horizon + 1, -1)
    s, a, n = grid[0:-1:2], grid[1:-1:2], grid[2::2]
    probability = policy[s, a].prod(0) * dynamics[s, a, n].prod(0) / states
    psi = np.eye(states * actions)[s * actions + a] - (np.eye(states)[s][..., None] * policy[s][:, :, None]).reshape(
        horizon, -1, states * actions
    )
    flags = np.zeros(s.shape, bool)
    last = (np.arange(horizon) == horizon - 1)[:, None] | flags
    following = np.concatenate([a[1:], a[:1]])
    reward = rng.normal(size=(states, actions, states))[s, a, n]
    t = rd.Transition(s, a, n, reward, flags, last, ~flags, {"next_action": following})
    return t, probability, psi


def returns_to_go(reward):
    out, carry = np.zeros_like(reward), 0.0
    for row in reversed(range(len(reward))):
        out[row] = carry = reward[row] + GAMMA * carry
    return out


def test_potential_is_a_baseline_of_the_policy_gradient():
    """Exact over all trajectories: the mean gradient is kept, its spread changes as E[|ψ|²(Φ² - 2ΦG)] says."""
    t, probability, psi = all_trajectories()
    phi = np.array([2.0, -1.0, 4.0])
    gradient = lambda g: np.einsum("b,tbk,tb->k", probability, psi, g)  # noqa: E731

    def to_go(reward):
        params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], t))
        return returns_to_go(np.asarray(reward.unroll(params, state, t)[0].reward))

    plain = to_go(rd.environment_reward())
    shaped = to_go(rd.potential_shaping(lambda obs: jnp.asarray(phi)[obs], gamma=GAMMA, time_limit_is_terminal=True))
    np.testing.assert_allclose(shaped, plain - phi[t.obs], atol=1e-12)
    np.testing.assert_allclose(gradient(shaped), gradient(plain), atol=1e-12)
    size = (psi**2).sum(-1)
    second = lambda g: np.einsum("b,tb,tb->", probability, size, g**2)  # noqa: E731
    predicted = np.einsum("b,tb,tb->", probability, size, phi[t.obs] ** 2 - 2 * phi[t.obs] * plain)
    np.testing.assert_allclose(second(shaped) - second(plain), predicted, atol=1e-10)

    table = phi[:, None] * np.array([1.0, -1.0])
    advice = rd.look_ahead_advice(lambda s, a: jnp.asarray(table)[s, a], gamma=GAMMA)
    ends = t._replace(terminated=t.truncated)
    params, state = advice.init(jax.random.key(0), jax.tree.map(lambda x: x[0], ends))
    uncorrected = returns_to_go(np.asarray(advice.unroll(params, state, ends)[0].reward))
    assert np.abs(gradient(uncorrected) - gradient(plain)).max() > 0.1
    corrected = uncorrected + table[t.obs, t.action]
    np.testing.assert_allclose(gradient(corrected), gradient(plain), atol=1e-12)
