"""Estimators beside exact answers: the chain recovered, learning beside an agent, credit where it was earned."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents import dqn, ppo
from reward_design.envs import task
from reward_design.redistribution import (
    Fit,
    delayed_reward,
    mlp,
    redistributed,
    return_decomposition,
    rrd,
    rudder,
    smoothed_ircr,
    spa,
    squared_error,
    task_features,
)
from reward_design.rollouts import random_trajectory
from tests import redistribution_oracle as oracle
from tests.cases import array_example
from tests.redistribution_fits import KEY, TINY, fitted, pairs, rollout_of


def recovered(length, *, stop_at_goal, only_goal, l2=0.0):
    """Contributions ``[10]`` learned from all (or the successful) episodes of the chain, the data and the truth."""
    episodes, visits, returns, ends, hidden = oracle.chain_episodes(length, stop_at_goal=stop_at_goal)
    kept = [i for i in range(len(episodes)) if not only_goal or ends[i] == 4]
    rollout = rollout_of([episodes[i] for i in kept], returns[kept], length)
    fit = Fit(
        capacity=2 * len(kept),
        batch_size=len(kept),
        num_updates=200,
        holdout=3,
        normalise=False,
        l2=l2,
        learning_rate=0.02,
    )
    reward = redistributed(
        "linear", mlp(()), squared_error(per_step=False), max_length=length, features=pairs, correction="none", fit=fit
    )
    params, _, metrics = fitted(reward, rollout, 25)
    every = rd.Transition(
        np.repeat(np.arange(5), 2),
        np.tile([0, 1], 5),
        np.zeros(10, int),
        np.zeros(10, np.float32),
        *np.zeros((2, 10), bool),
        np.ones(10, bool),
        {},
    )
    c, _ = jax.jit(reward.step)(params, reward.init(KEY, every)[1], every)
    return np.asarray(c.terms["contribution"]), visits[kept], returns[kept], hidden, metrics


def test_the_chain_is_recovered_exactly_from_all_sequences():
    c, visits, returns, hidden, metrics = recovered(6, stop_at_goal=False, only_goal=False)
    assert len(returns) == 64
    assert np.linalg.matrix_rank(visits) == 10
    np.testing.assert_allclose(c, hidden, atol=0.02)
    assert metrics["explained_variance"] > 0.999
    assert metrics["fallback"] == 0


@pytest.mark.parametrize("l2", [0.1, 1.0])
def test_contributions_are_drawn_to_equal_shares(l2):
    c, visits, returns, hidden, _ = recovered(6, stop_at_goal=False, only_goal=False, l2=l2)
    episodes, *_ = oracle.chain_episodes(6)
    index = np.arange(128)  # two copies of each episode are stored
    taught = np.bincount(index[index % 3 != 0] % 64, minlength=64)
    steps = np.array([[2 * state + action for state, action, _ in steps] for steps in episodes])
    near = np.sqrt(taught[:, None, None] * l2 * 6) * np.eye(10)[steps]
    rows = np.concatenate([np.sqrt(taught)[:, None] * visits, near.reshape(-1, 10)])
    share = np.sqrt(taught[:, None] * l2 * 6) * np.repeat(returns[:, None] / 6, 6, axis=1)
    expected = np.linalg.lstsq(rows, np.concatenate([np.sqrt(taught) * returns, share.ravel()]), rcond=None)[0]
    np.testing.assert_allclose(c, expected, atol=0.03)
    assert np.abs(c - hidden).max() > 0.1  # not what it is without


def test_successes_alone_give_the_chain_up_to_a_potential():
    c, visits, returns, hidden, _ = recovered(8, stop_at_goal=True, only_goal=True)
    assert (len(returns), np.linalg.matrix_rank(visits)) == (25, 5)
    np.testing.assert_allclose(visits @ c, returns, atol=0.05)
    difference = (c - hidden).reshape(5, 2)
    assert np.abs(difference).max() > 0.05
    right, left = difference[:4, 1], difference[1:4, 0]
    np.testing.assert_allclose(right[:3] + left, 0, atol=0.05)  # there and back cancel: differences of a potential
    np.testing.assert_allclose(right.sum(), 0, atol=0.05)
    assert abs(difference[0, 0]) < 0.05


def test_permuted_steps_have_the_same_sum_and_padding_none():
    episodes, _, returns, _, _ = oracle.chain_episodes(6)
    reward = return_decomposition(max_length=8, features=pairs)
    rollout = rollout_of(episodes[:4], returns[:4], 8)
    params, state = reward.init(KEY, jax.tree.map(lambda x: x[0], rollout))
    params["estimator"]["trust"] = jnp.float32(1.0)
    unroll = jax.jit(reward.unroll)
    total = lambda r: np.asarray(unroll(params, state, r)[0].terms["contribution"]).sum(0)  # noqa: E731
    order = [3, 0, 5, 1, 4, 2, 6, 7]
    shuffled = jax.tree.map(lambda x: x[order], rollout)
    shuffled = shuffled._replace(terminated=rollout.terminated, reward=rollout.reward)
    np.testing.assert_allclose(total(rollout), total(shuffled), rtol=1e-5)
    garbage = rollout._replace(
        obs=np.where(rollout.mask, rollout.obs, 3), action=np.where(rollout.mask, rollout.action, 1)
    )
    np.testing.assert_allclose(total(rollout), total(garbage), rtol=1e-6)
    changed = rollout._replace(action=1 - rollout.action)
    assert np.abs(total(rollout) - total(changed)).max() > 1e-3


# --- learning beside an agent -----------------------------------------------------------------------------------------


SMALL = Fit(capacity=64, batch_size=8, num_updates=2, min_episodes=10, normalise=False)
METHODS = {
    "spa": lambda of: spa(correction="equal", valid="change", **of),
    "gru": lambda of: spa(model="gru", hidden=(8,), difference=True, **of),
    "rudder": lambda of: rudder(width=8, **of),
    "rrd": lambda of: rrd(num_steps=4, unbiased=True, **of),
}


@pytest.mark.parametrize("name", ["rrd", *(pytest.param(n, marks=pytest.mark.slow) for n in ("spa", "gru", "rudder"))])
def test_methods_learn_beside_ppo(name):
    delayed = delayed_reward(TINY)
    reward = METHODS[name]({"max_length": 12, "features": task_features(TINY), "fit": SMALL})
    config = ppo.Config(total_timesteps=1024, num_envs=4, num_steps=16, hidden=(8,))
    result = ppo.train(config, delayed, reward, KEY)
    metrics = {key: np.asarray(value) for key, value in result.metrics.items()}
    assert {"reward/loss", "reward/explained_variance", "reward/fallback", "reward/drift"} <= set(metrics)
    assert all(np.isfinite(value).all() for key, value in metrics.items() if key.startswith("reward/"))
    assert metrics["reward/episodes"][-1] == 64
    assert metrics["reward/fallback"][0] == 1


def test_methods_learn_beside_an_off_policy_agent_and_ircr_smoothly():
    of = {"max_length": 12, "features": task_features(TINY), "fit": SMALL}
    config = dqn.Config(total_timesteps=512, num_envs=4, num_steps=8, learning_starts=64, batch_size=8, hidden=(8,))
    both = rd.weighted_sum(a=spa(**of), b=smoothed_ircr(num_steps=4, **of))
    result = dqn.train(config, delayed_reward(TINY), both, KEY)
    assert result.metrics["reward/a/episodes"][-1] == result.metrics["reward/b/episodes"][-1] > 10
    with pytest.raises(TypeError, match="needs whole episodes"):
        dqn.train(config, delayed_reward(TINY), rudder(max_length=12), KEY)


def test_equal_returns_are_not_learned_from():
    rollout = random_trajectory(array_example(), time=36)
    flat = rollout._replace(reward=np.zeros_like(rollout.reward))
    fit = Fit(capacity=16, batch_size=4, min_episodes=10)
    for made, fallback in ((flat, 1.0), (rollout, None)):
        params, _, metrics = fitted(spa(max_length=36, fit=fit), made, 3)
        assert metrics["episodes"] > 5
        if fallback is not None:
            assert metrics["fallback"] == fallback
            assert metrics["loss"] == 0
        else:
            assert metrics["loss"] > 0
        assert np.isfinite(jax.tree.leaves(params)[0]).all()


@pytest.mark.parametrize(("per_step", "per_action", "fallback"), [(2.0, 0.0, 1.0), (2.0, 0.1, 1.0), (1.0, 3.0, 0.0)])
def test_contributions_have_to_explain_more_than_an_equal_share(per_step, per_action, fallback):
    rng = np.random.default_rng(0)
    episodes = [[(0, int(a), 0) for a in rng.integers(0, 2, length)] for length in rng.integers(1, 9, 200)]
    chosen = np.array([sum(step[1] for step in steps) for steps in episodes])
    lengths = np.array([len(steps) for steps in episodes])
    returns = per_step * lengths + per_action * chosen + rng.normal(0, 0.3, 200)
    fit = Fit(capacity=200, batch_size=16, num_updates=100, holdout=4, normalise=False, l2=0.0, learning_rate=0.02)
    reward = spa(max_length=8, features=pairs, hidden=(), correction="equal", fit=fit)
    params, _, metrics = fitted(reward, rollout_of(episodes, returns, 8), 6)
    assert metrics["explained_variance"] > 0.9  # also where there is nothing but the length to explain
    assert metrics["fallback"] == fallback

    order = np.argsort(lengths, kind="stable")  # of their ends
    held = np.arange(200) % 4 == 0
    kept, judged = order[~held], order[held]
    layer = jax.tree.leaves(params["estimator"]["network"])
    bias, kernel = next(x for x in layer if x.ndim == 1), next(x for x in layer if x.ndim == 2)
    each = float(params["estimator"]["scale"]) * np.ravel(np.asarray(kernel)[:2] + np.asarray(bias))
    error = np.square(returns - (lengths - chosen) * each[0] - chosen * each[1])[judged].mean()
    constant = (returns * lengths)[kept].sum() / np.square(lengths)[kept].sum()
    left = min(returns[judged].var(), np.square(returns - constant * lengths)[judged].mean())
    np.testing.assert_allclose(metrics["explained_beyond_split"], 1 - error / left, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("correction", "fallback"), [("equal", 1.0), ("last", 0.0), ("none", 0.0)])
def test_contributions_are_compared_with_what_would_be_paid_in_their_place(correction, fallback):
    rng = np.random.default_rng(0)
    episodes = [[(0, int(a), 0) for a in rng.integers(0, 2, length)] for length in rng.integers(1, 9, 200)]
    lengths = np.array([len(steps) for steps in episodes])
    returns = lengths + rng.normal(0, 0.3, 200)  # equal shares are right; a sum at the end is late
    fit = Fit(capacity=200, batch_size=16, num_updates=100, holdout=4, normalise=False, l2=0.0, learning_rate=0.02)
    reward = spa(max_length=8, features=pairs, hidden=(), correction=correction, fit=fit)
    _, _, metrics = fitted(reward, rollout_of(episodes, returns, 8), 6)
    assert metrics["explained_variance"] > 0.9
    assert metrics["fallback"] == fallback


@pytest.mark.slow
def test_credit_goes_to_the_step_that_earned_it():
    delayed = delayed_reward(task("chain", num_states=8, horizon=30, distractor=0.3))
    fit = Fit(num_updates=8, batch_size=32, normalise=False, learning_rate=1e-2)
    reward = spa(max_length=30, features=task_features(delayed), hidden=(), fit=fit)
    config = ppo.Config(total_timesteps=30_000, num_envs=8, num_steps=64)
    result = ppo.train(config, delayed, reward, KEY)
    assert result.metrics["reward/explained_variance"][-20:].max() > 0.8
    walls = rd.Transition(
        np.array([0, 3]),
        np.array([0, 0]),
        np.array([0, 2]),
        np.zeros(2, np.float32),
        *np.zeros((2, 2), bool),
        np.ones(2, bool),
        {"hidden_reward": np.zeros(2)},
    )
    params = result.state.reward_params
    params = {**params, "estimator": {**params["estimator"], "trust": jnp.float32(1.0)}}
    c = reward.step(params, reward.init(KEY, walls)[1], walls)[0].terms["contribution"]
    assert c[0] - c[1] > 0.1


def coin_walks(episodes=96, steps=16, seed=0):
    """Random walks on -3..3 that pay 1 at the end for each visit of +2: rollout, and the true rewards."""
    rng = np.random.default_rng(seed)
    position = np.zeros((steps + 1, episodes), np.int32)
    action = rng.integers(0, 2, (steps, episodes)).astype(np.int32)
    for t in range(steps):
        position[t + 1] = np.clip(position[t] + 2 * action[t] - 1, -3, 3)
    coins = (position[1:] == 2).astype(np.float32)
    ended = np.zeros((steps, episodes), bool)
    ended[-1] = True
    reward = np.where(ended, coins.sum(0), 0).astype(np.float32)
    obs, after = (
        np.stack([p, np.where(last, coins.sum(0), 0)], -1).astype(np.float32)
        for p, last in ((position[:-1], ended & False), (position[1:], ended))
    )
    return rd.Transition(obs, action, after, reward, ended, ended & False, ~(ended & False), {}), coins


@pytest.mark.slow
def test_a_prefix_model_hides_in_the_last_step_and_its_difference_does_not():
    rollout, _ = coin_walks()
    fit = Fit(capacity=960, batch_size=64, num_updates=100, holdout=5, learning_rate=3e-3, l2=0.0)
    shares = {}
    for difference in (False, True):
        reward = spa(max_length=16, model="gru", hidden=(24,), difference=difference, correction="none", fit=fit)
        params, state, metrics = fitted(reward, rollout, 8)
        assert metrics["explained_variance"] > 0.9
        shares[difference] = metrics["last_step_share"]
    assert shares[False] > 2 * shares[True]
    c = np.asarray(jax.jit(reward.unroll)(params, state, rollout)[0].terms["contribution"])[:-1]
    before, after = rollout.obs[:-1, :, 0], rollout.next_obs[:-1, :, 0]
    towards = np.abs(after - 2) < np.abs(before - 2)
    assert c[towards].mean() > c[~towards].mean() + 0.1
