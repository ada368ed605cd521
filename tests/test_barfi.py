"""BARFI: what both levels compute against plain sums and finite differences, and what it does to a bad heuristic."""

import contextlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

import reward_design as rd
from reward_design.agents import base, scoring
from reward_design.agents.actor_critic import ActorCritic
from reward_design.bilevel import (
    BARFI,
    BarfiConfig,
    alignment_reward,
    barfi,
    learned_discount,
    method,
    outer,
    segments,
    train_host,
)
from reward_design.envs import task

SMALL = {"num_envs": 2, "horizon": 200, "hidden": (8,), "replay": 8, "batch_size": 2, "inner_steps": 2,
         "warm_start": 1, "outer_batch_size": 3, "reward_learning_rate": 0.02}  # fmt: skip


def settings(num_updates: int = 4, **changes) -> BarfiConfig:
    return BarfiConfig(**{**SMALL, **changes, "total_timesteps": num_updates * 400})


def blend(name: str = "chain", **kwargs) -> rd.Reward:
    return alignment_reward(rd.environment_reward(), task(name).auxiliary["misaligned"], **kwargs)


def batch(key: int = 0, length: int = 12, rollouts: int = 3) -> segments.Segments:
    """Rollouts on the chain with several episode ends, tails without one, and masked rows."""
    rng = np.random.default_rng(key)
    example = task("chain").example
    trajectory = jax.tree.map(lambda x: np.zeros((length, rollouts, *x.shape[1:]), x.dtype), example)
    ends = rng.random((length, rollouts)) < 0.25
    ends[-3] = True
    trajectory = trajectory._replace(
        obs=rng.integers(0, 5, (length, rollouts)).astype(np.int32),
        next_obs=rng.integers(0, 5, (length, rollouts)).astype(np.int32),
        action=rng.integers(0, 2, (length, rollouts)).astype(np.int32),
        reward=rng.normal(size=(length, rollouts)).astype(np.float32),
        terminated=ends, mask=np.ones((length, rollouts), bool),
    )  # fmt: skip
    return segments.segments(jax.tree.map(jnp.asarray, trajectory), jnp.asarray(trajectory.action))


def level(reward: rd.Reward, **changes) -> outer.Level:
    config, env = settings(**changes), task("chain").env
    network = ActorCritic(env, config.hidden, config.normalise_obs)
    moments = network.init(jax.random.key(1))[1]
    running = reward.init(jax.random.key(0), scoring.reward_example(env, 3))[1].running
    return outer.Level(config, env, reward, network, moments, running, jnp.float32(2.0))


def test_objective_is_the_sum_of_the_paper():
    """Sum over steps of log pi G, episode by episode, without the tail whose return is unknown."""
    parts, rollouts, gamma, coef = level(blend()), batch(), 0.9, 0.3
    params = parts.network.init(jax.random.key(3))[0]
    paid = np.random.default_rng(1).normal(size=(12, 3)).astype(np.float32)
    for centred in (False, True):
        value, aux = segments.objective(
            parts.network, params, parts.moments, rollouts, jnp.asarray(paid),
            gamma=gamma, baseline=centred, entropy_coef=coef,
        )  # fmt: skip
        done = np.asarray(rollouts.transition.terminated).T
        returns, logs, entropies = [], [], []
        for lane in range(3):
            last = np.flatnonzero(done[:, lane])[-1]
            for t in range(last + 1):
                stop = t + int(np.argmax(done[t:, lane]))
                returns.append(sum(gamma ** (j - t) * float(paid[j, lane]) for j in range(t, stop + 1)))
                obs = rollouts.transition.obs[lane, t]
                x = parts.network.inputs(parts.moments, obs[None])
                logits = np.asarray(parts.network.head(params, x)[0], np.float64)
                p = np.exp(logits) / np.exp(logits).sum()
                logs.append(np.log(p[int(rollouts.raw[lane, t])]))
                entropies.append(-(p * np.log(p)).sum())
        advantage = np.array(returns) - (np.mean(returns) if centred else 0.0)
        expected = np.mean(np.array(logs) * advantage) + coef * np.mean(entropies)
        assert float(value) == pytest.approx(expected, abs=1e-5)
        assert float(aux["return"]) == pytest.approx(np.mean(returns), abs=1e-5)


def test_ring_keeps_the_newest_and_leaves_out_the_last():
    new = batch()
    numbered = lambda n: jax.tree.map(lambda x: jnp.full_like(x, n), new)  # noqa: E731
    ring = segments.empty(new, 9)
    for number in range(1, 6):  # three rollouts each: 3, 4 and 5 fit
        ring = segments.insert(ring, numbered(number))
    seen = {int(x) for x in np.unique(segments.draw(ring, jax.random.key(0), 200).transition.obs)}
    older = {int(x) for x in np.unique(segments.draw(ring, jax.random.key(0), 200, skip=3).transition.obs)}
    assert seen == {3, 4, 5}
    assert older == {3, 4}
    half = segments.insert(segments.empty(new, 9), numbered(7))
    assert set(np.unique(segments.draw(half, jax.random.key(0), 50).transition.obs)) == {7}


def objectives(parts: outer.Level, reward: rd.Reward) -> tuple:
    rollouts, fresh = batch(), segments.lane_state(reward, scoring.reward_example(parts.env, 3))
    reward_params = reward.init(jax.random.key(0), scoring.reward_example(parts.env, 3))[0]
    theta, as_params = ravel_pytree(parts.network.init(jax.random.key(3))[0])
    phi, as_phi = ravel_pytree(outer.learned(parts.config, reward_params))
    full = lambda x: outer.merged(reward_params, as_phi(x))  # noqa: E731
    inner = lambda t, x: parts.inner(as_params(t), full(x), batch=rollouts, fresh=fresh)[0]  # noqa: E731
    primary = lambda t, x: parts.primary(as_params(t), full(x), batch=rollouts, fresh=fresh)  # noqa: E731
    return theta, phi, inner, primary


def test_short_gradient_is_that_of_one_inner_step():
    reward = blend()
    parts = level(reward, outer="lirpg", learning_rate=1e-3, learn_discount=True)
    theta, phi, inner, primary = objectives(parts, reward)
    found, _, _ = outer._implicit(parts.config, inner, primary, theta, phi)
    after = jax.grad(lambda x: primary(theta + 1e-3 * jax.grad(inner)(theta, x), x))(phi)
    np.testing.assert_allclose(found, after, rtol=2e-2, atol=1e-7)
    assert float(jnp.abs(after).max()) > 1e-6


def test_sensitivity_is_the_derivative_of_the_inner_steps():
    reward, rate = blend(), 0.05
    parts = level(reward, outer="imgl", learning_rate=rate)
    theta, phi, inner, _ = objectives(parts, reward)
    _, as_params = ravel_pytree(parts.network.init(jax.random.key(3))[0])
    state = type("S", (), {"reward_params": reward.init(jax.random.key(0), scoring.reward_example(parts.env, 3))[0]})
    fresh = segments.lane_state(reward, scoring.reward_example(parts.env, 3))
    matrix, x = jnp.zeros((phi.size, theta.size)), theta
    for _ in range(3):
        matrix = outer.advance_sensitivity(parts, state, as_params(x), matrix, batch(), fresh)
        x = x + rate * jax.grad(inner)(x, phi)

    def ascend(phi):
        x = theta
        for _ in range(3):
            x = x + rate * jax.grad(inner)(x, phi)
        return x

    expected = jax.jacobian(ascend)(phi).T
    np.testing.assert_allclose(matrix, expected, atol=1e-5)
    assert float(jnp.abs(expected).max()) > 1e-3


def test_phi_rests_in_the_warm_start_and_moves_after_it():
    metrics = barfi(settings(4, warm_start=2), task("chain"), blend(), jax.random.key(0)).metrics
    start = np.array([0.0, 1.0, 1.0])
    path = np.stack([metrics[f"phi{i}"] for i in (1, 2, 3)], axis=-1)
    np.testing.assert_array_equal(path[:2], [start, start])
    assert np.abs(path[3] - start).max() > 1e-3


@pytest.mark.parametrize("kind", ["lirpg", "imgl"])
def test_short_gradients_move_phi(kind):
    metrics = barfi(settings(4, outer=kind), task("chain"), blend(), jax.random.key(0)).metrics
    assert abs(float(metrics["phi3"][-1]) - 1) > 1e-3


def test_phi_that_is_not_learned_stays():
    metrics = barfi(settings(4, learn_phi=(False, False, True)), task("chain"), blend(), jax.random.key(0)).metrics
    assert metrics["phi1"].tolist() == [0.0] * 4
    assert metrics["phi2"].tolist() == [1.0] * 4
    assert abs(float(metrics["phi3"][-1]) - 1) > 1e-3


def test_penalties_alone_shorten_the_horizon_and_shrink_phi():
    """With a primary reward of zero the outer gradient is that of the penalties: check C8 of the method's notes."""
    nothing = rd.pointwise("nothing", lambda t: jnp.zeros_like(t.reward))
    reward = alignment_reward(nothing, task("chain").auxiliary["misaligned"])
    config = settings(6, learn_discount=True, discount_penalty=1.0, reward_penalty=1.0, discount_learning_rate=0.1)
    metrics = barfi(config, task("chain"), reward, jax.random.key(0)).metrics
    assert (np.diff(metrics["discount"][1:]) < 0).all()
    assert (np.diff(np.abs(metrics["phi2"][1:])) < 0).all()
    assert (np.diff(np.abs(metrics["phi3"][1:])) < 0).all()


def test_discount_is_clamped():
    reward = blend(discount=0.999)
    params = reward.init(None, task("chain").example)[0]
    assert float(learned_discount({**params, "discount": jnp.float32(20.0)})) == pytest.approx(0.999)
    assert float(learned_discount(params)) == pytest.approx(0.999, abs=1e-5)


@pytest.mark.parametrize("method", ["identity", "cg", "exact"])
def test_other_inverses_run(method):
    metrics = barfi(settings(3, method=method, hidden=()), task("chain"), blend(), jax.random.key(0)).metrics
    assert np.isfinite(metrics["phi3"]).all()


def test_seeds_in_one_vmap_equal_single_runs():
    train = lambda key: barfi(settings(3), task("chain"), blended, key).metrics  # noqa: E731
    blended, keys = blend(), jax.random.split(jax.random.key(0), 2)
    many = jax.vmap(train)(keys)
    one = train(keys[1])
    for name in ("true_return", "phi3", "entropy"):
        np.testing.assert_allclose(many[name][1], one[name], rtol=1e-4, atol=1e-5)


def test_same_update_drives_environments_of_the_host():
    config = BarfiConfig(**{**SMALL, "horizon": 60, "total_timesteps": 360})
    with contextlib.closing(task("cartpole").vector(2)) as envs:
        metrics = train_host(config, envs, blend("cartpole"), jax.random.key(0)).metrics
    assert metrics["phi3"].shape == (config.num_updates,)
    assert abs(float(metrics["phi3"][-1]) - 1) > 1e-3
    assert metrics["episodes"].sum() >= 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gamma": 1.0}, r"gamma must be in \[0, 1\), got 1.0"),
        ({"num_terms": -1}, "num_terms must be at least 0, got -1"),
        ({"outer": "implicitt"}, "outer must be .*did you mean 'implicit'"),
        ({"method": "lu"}, "method must be 'identity', .*, got 'lu'"),
        ({"total_timesteps": 10}, "total_timesteps must be at least"),
    ],
)
def test_settings_out_of_range_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        BarfiConfig(**change)


def test_what_cannot_be_aligned_is_refused():
    chain = task("chain")
    with pytest.raises(TypeError, match="barfi learns the params of alignment_reward"):
        barfi(settings(), chain, rd.environment_reward(), jax.random.key(0))
    with pytest.raises(ValueError, match="horizon must be at least the horizon of 'chain'"):
        barfi(settings(horizon=10), chain, blend(), jax.random.key(0))
    whole = rd.from_trajectory("whole", lambda k, e: ((), rd.State()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match="primary reward 'whole' needs whole episodes"):
        alignment_reward(whole, rd.environment_reward())
    reads = rd.pointwise("reads", lambda t: t.info["speed"])
    with pytest.raises(ValueError, match="reads 'speed'"):
        barfi(settings(), chain, alignment_reward(rd.environment_reward(), reads), jax.random.key(0))
    with pytest.raises(ValueError, match="discount must be in"):
        blend(discount=1.0)
    endless = rd.pointwise("endless", lambda t: t.reward + jnp.inf)
    with pytest.raises(rd.NonFiniteRewardError, match="on 'chain'"):
        barfi(settings(), chain, alignment_reward(endless, rd.environment_reward()), jax.random.key(0))


@pytest.mark.slow
def test_a_bad_heuristic_is_taken_back():
    """GridWorld with a reward for loitering: the naive sum loses the goal, BARFI takes the heuristic back; C9."""
    square, keys = task("gridworld"), jax.random.split(jax.random.key(7), 8)
    ends = {}
    for name in ("primary", "naive", "barfi"):
        chosen = method(name, square, "misaligned")
        config = BarfiConfig(total_timesteps=40_000, horizon=square.horizon, **chosen.settings)
        metrics = jax.vmap(lambda key, c=chosen, f=config: base.train(BARFI, f, square, c.reward, key).metrics)(keys)
        ends[name] = np.median(metrics["true_return"][:, -20:].mean(1))
    assert ends["barfi"] > 0.9 * ends["primary"]
    assert ends["naive"] < 0.5 * ends["primary"]
    assert np.median(metrics["phi3"][:, -1] / metrics["phi2"][:, -1]) < 0.5


@pytest.mark.slow
def test_a_good_heuristic_is_kept():
    square, keys = task("gridworld"), jax.random.split(jax.random.key(7), 8)
    chosen = method("barfi", square, "aligned")
    config = BarfiConfig(total_timesteps=12_000, horizon=square.horizon)
    metrics = jax.vmap(lambda key: base.train(BARFI, config, square, chosen.reward, key).metrics)(keys)
    assert np.median(metrics["true_return"][:, -10:].mean(1)) > 98.5
    assert np.median(metrics["phi3"][:, -1] / metrics["phi2"][:, -1]) > 0.75
