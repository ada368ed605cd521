"""Returns of shaped episodes through step and unroll: telescoping, dynamic potentials, normalisers, refusals."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import reward_design as rd
from reward_design.rollouts import random_trajectory, with_garbage
from tests.cases import Network, array_example, height, vector

KEY = jax.random.key(0)
TIME = 60
ROLLOUT = random_trajectory(array_example(), time=TIME)


def start(reward, t=ROLLOUT):
    return reward.init(KEY, jax.tree.map(lambda x: x[0], t))


def episodes(t):
    """Rows and lane of every finished episode."""
    for lane in range(t.mask.shape[1]):
        rows = []
        for row in np.flatnonzero(t.mask[:, lane]):
            rows.append(row)
            if t.terminated[row, lane] or t.truncated[row, lane]:
                yield np.array(rows), lane
                rows = []


def residuals(shaped, t, gamma, phi=height):
    """U_Φ - U + Φ(s_0) - γ^N Φ(s_N) of every episode, relative to the size of its parts."""
    before, after = (np.asarray(jax.vmap(phi)(o), np.float64) for o in (t.obs, t.next_obs))
    out = []
    for rows, lane in episodes(t):
        discount = gamma ** np.arange(len(rows))
        u, v = (float(discount @ np.asarray(r, np.float64)[rows, lane]) for r in (t.reward, shaped))
        end = 0.0 if t.terminated[rows[-1], lane] else after[rows[-1], lane]
        first = before[rows[0], lane]
        size = max(1.0, abs(u), abs(v), abs(first))
        out.append((v - u + first - gamma ** len(rows) * end) / size)
    return np.array(out)


def stepped(reward, t, params_of=lambda params, row: params):
    params, state = start(reward, t)
    step, rewards = jax.jit(reward.step), []
    for row in range(TIME):
        output, state = step(params_of(params, row), state, jax.tree.map(lambda x, r=row: x[r], t))
        rewards.append(np.asarray(output.reward))
    return np.stack(rewards)


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("through", ["step", "unroll"])
def test_shaping_telescopes_in_every_episode(dynamic, through):
    reward = rd.chain(rd.environment_reward(), rd.potential_shaping(height, gamma=0.9, dynamic=dynamic))
    t = with_garbage(ROLLOUT)
    shaped = stepped(reward, t) if through == "step" else reward.unroll(*start(reward), t)[0].reward
    left = residuals(shaped, ROLLOUT, 0.9)
    assert len(left) > 20
    assert np.abs(left).max() < 1e-4
    assert np.abs(residuals(shaped, ROLLOUT, 0.95)).max() > 0.01


GAMMA_SWEEP = jax.jit(rd.potential_shaping(height, gamma=0.5).unroll)


@given(st.floats(0, 1), st.integers(0, 5))
def test_shaping_telescopes_for_any_discount(gamma, seed):
    t = random_trajectory(array_example(), seed=seed, time=TIME)
    params, state = start(rd.potential_shaping(height, gamma=0.5))
    shaped = GAMMA_SWEEP(params | {"gamma": jnp.float32(gamma)}, state, t)[0].reward
    assert np.abs(residuals(shaped, t, float(np.float32(gamma)))).max() < 1e-4


def test_the_observation_after_a_reset_does_not_telescope():
    """What a vector environment with automatic reset returns as next observation is the next episode's first."""
    reset_obs = np.concatenate([ROLLOUT.obs[1:], ROLLOUT.obs[:1]])
    cut = (ROLLOUT.truncated & ~ROLLOUT.terminated)[..., None]
    wrong = ROLLOUT._replace(next_obs=np.where(cut, reset_obs, ROLLOUT.next_obs))
    reward = rd.potential_shaping(height, gamma=0.9)
    shaped = reward.unroll(*start(reward), wrong)[0].reward
    assert np.abs(residuals(shaped, ROLLOUT, 0.9)).max() > 0.1


def test_ends_of_episodes():
    """Terminal: Φ(s') is 0. Truncated: it is kept, unless the time limit counts as terminal. Both: terminal."""
    t = jax.tree.map(lambda x: x[:, :4], random_trajectory(array_example(), lanes=4, time=8))
    terminated = np.array([False, True, False, True])
    truncated = np.array([False, False, True, True])
    row = jax.tree.map(lambda x: x[0], t)._replace(terminated=terminated, truncated=truncated, mask=np.ones(4, bool))
    now, later = np.asarray(height(row.obs)), 0.9 * np.asarray(height(row.next_obs))
    for as_terminal, zero in ((False, terminated), (True, terminated | truncated)):
        for dynamic in (False, True):
            reward = rd.potential_shaping(
                height, gamma=0.9, add=False, time_limit_is_terminal=as_terminal, dynamic=dynamic
            )
            output, _ = reward.step(*reward.init(KEY, row), row)
            np.testing.assert_allclose(output.reward, np.where(zero, 0, later) - now, rtol=1e-5, atol=1e-6)


# --- dynamic potentials ----------------------------------------------------------------------------------------------


def moving(params, row):
    """Params that change from step to step, as while a potential is learned."""
    return params | {"potential": jax.tree.map(lambda x: x + 0.3 * np.sin(row + 1.0), params["potential"])}


def test_a_moving_potential_telescopes_when_it_is_stored_and_not_when_it_is_recomputed():
    network = Network()
    stored = rd.potential_shaping(network, gamma=0.9, dynamic=True)
    recomputed = rd.potential_shaping(network, gamma=0.9)
    params, _ = start(stored)

    apply = jax.jit(network.apply)

    def potentials(obs):
        return np.stack([apply(moving(params, row)["potential"], obs[row]) for row in range(TIME)])

    first, entered = potentials(ROLLOUT.obs), potentials(ROLLOUT.next_obs)
    left = {"stored": [], "recomputed": []}
    shaped = {"stored": stepped(stored, ROLLOUT, moving), "recomputed": stepped(recomputed, ROLLOUT, moving)}
    for rows, lane in episodes(ROLLOUT):
        discount = 0.9 ** np.arange(len(rows))
        end = 0.0 if ROLLOUT.terminated[rows[-1], lane] else entered[rows[-1], lane]
        for name, values in shaped.items():
            own = discount @ (values - ROLLOUT.reward)[rows, lane]
            left[name].append(own + first[rows[0], lane] - 0.9 ** len(rows) * end)
    assert np.abs(left["stored"]).max() < 1e-4
    assert np.abs(left["recomputed"]).max() > 0.1


# --- normalisers -----------------------------------------------------------------------------------------------------


def test_a_frozen_normaliser_keeps_the_identity_and_a_drifting_one_does_not():
    reward = rd.chain(rd.potential_shaping(height, gamma=0.9), rd.normalise_by_return(gamma=0.9))
    params, state = start(reward)
    _, state = reward.unroll(params, state, ROLLOUT)
    statistics = state.running["normalise_by_return"]
    std = np.sqrt(statistics["m2"] / statistics["count"])
    frozen = rd.freeze_running(reward).unroll(params, state, ROLLOUT)[0].reward
    assert np.abs(residuals(frozen * std, ROLLOUT, 0.9)).max() < 1e-4
    drifting = reward.unroll(params, start(reward)[1], ROLLOUT)[0].reward
    assert np.abs(residuals(drifting * std, ROLLOUT, 0.9)).max() > 0.01


def test_normalising_first_and_shaping_afterwards_keeps_the_identity_while_statistics_drift():
    normaliser = rd.normalise_by_return(gamma=0.9)
    reward = rd.chain(normaliser, rd.potential_shaping(height, gamma=0.9))
    scaled = np.asarray(normaliser.unroll(*start(normaliser), ROLLOUT)[0].reward)
    shaped = reward.unroll(*start(reward), ROLLOUT)[0].reward
    assert np.abs(residuals(shaped, ROLLOUT._replace(reward=scaled), 0.9)).max() < 1e-4


# --- params and refusals ---------------------------------------------------------------------------------------------


def test_gradients_reach_the_potential_and_gamma():
    reward = rd.potential_shaping(Network(), gamma=0.9)
    params, state = start(reward)
    gradient = jax.grad(lambda p: reward.unroll(p, state, ROLLOUT)[0].reward.sum())(params)
    assert float(gradient["gamma"]) != 0
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(gradient["potential"])) > 0


def test_integer_potentials_are_cast():
    t = jax.tree.map(lambda x: x[0], ROLLOUT)._replace(mask=np.ones(3, bool))
    reward = rd.potential_shaping(lambda obs: jnp.floor(vector(obs)[:, 0]).astype(jnp.int32), gamma=1)
    assert reward.step(*reward.init(KEY, t), t)[0].reward.dtype == jnp.float32


def test_potentials_of_the_wrong_shape_are_refused():
    reward = rd.potential_shaping(lambda obs: obs[:, :1], gamma=0.9)
    with pytest.raises(ValueError, match=r"the potential must return shape \[B\] = \(3,\), got \(3, 1\); squeeze"):
        reward.step(*start(reward), jax.tree.map(lambda x: x[0], ROLLOUT))
    with pytest.raises(
        TypeError, match="phi must be a function of observations or an object with init and apply, got float"
    ):
        inspect.unwrap(rd.potential_shaping)(1.0, gamma=0.9)


def test_look_ahead_advice_without_the_next_action_is_refused():
    reward = rd.look_ahead_advice(lambda obs, action: obs[:, 0] * action, gamma=0.9)
    with pytest.raises(ValueError, match=r"look_ahead_advice needs info\['next_action'\].* got \['score'\]"):
        reward.step(*start(reward), jax.tree.map(lambda x: x[0], ROLLOUT._replace(info={"score": ROLLOUT.reward})))
