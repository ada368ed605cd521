"""The methods that BARFI is compared with: one interface, each with the reward and the outer step it stands for."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents.actor_critic import ActorCritic
from reward_design.bilevel import BarfiConfig, barfi, method, outer, segments, state_action
from reward_design.bilevel.baselines import METHODS
from reward_design.envs import task

SMALL = {"total_timesteps": 1600, "num_envs": 2, "horizon": 200, "hidden": (8,), "inner_steps": 2, "warm_start": 1}
TABLE = np.random.default_rng(3).normal(size=(30, 5)).astype(np.float32)


def advice(obs, action):
    return jnp.asarray(TABLE)[obs % 30, action]


@pytest.mark.parametrize("name", ["barfi_discount", "look_ahead_corrected", "bipars_mgl", "bipars_imgl"])
def test_methods_train_in_the_same_interface(name):
    chain = task("chain")
    made = method(name, chain, "misaligned", advice=advice)
    metrics = barfi(BarfiConfig(**{**SMALL, **made.settings}), chain, made.reward, jax.random.key(0)).metrics
    assert metrics["true_return"].shape == (4,)
    learns = made.settings.get("outer") != "none"
    assert ("phi3" in metrics) == learns
    if learns:
        for i, moves in enumerate(made.settings.get("learn_phi", (True, True, True))):
            start = float(metrics[f"phi{i + 1}"][0])
            assert (abs(float(metrics[f"phi{i + 1}"][-1]) - start) > 1e-4) == moves


def slope(reward: rd.Reward, **settings):
    """Gradient of the inner objective on whole terminated episodes of the chain."""
    chain, rng = task("chain"), np.random.default_rng(0)
    trajectory = jax.tree.map(lambda x: np.zeros((12, 3, *x.shape[1:]), x.dtype), chain.example)
    obs = rng.integers(0, 10, (13, 3)).astype(np.int32)
    action, ends = rng.integers(0, 2, (12, 3)).astype(np.int32), rng.random((12, 3)) < 0.3
    ends[-1] = True
    following = np.concatenate([action[1:], action[:1]])
    trajectory = trajectory._replace(
        obs=obs[:-1], next_obs=obs[1:], action=action, reward=rng.normal(size=(12, 3)).astype(np.float32),
        terminated=ends, truncated=np.zeros_like(ends), mask=np.ones_like(ends), info={"next_action": following},
    )  # fmt: skip
    batch = segments.segments(jax.tree.map(jnp.asarray, trajectory), jnp.asarray(action))
    network = ActorCritic(chain.env, (8,), False)
    params, moments = network.init(jax.random.key(1))
    config = BarfiConfig(**SMALL, baseline=False, **settings)
    reward_params, state = reward.init(jax.random.key(0), jax.tree.map(lambda x: jnp.asarray(x[0]), trajectory))
    level = outer.Level(config, chain.env, reward, network, moments, state.running, jnp.float32(1.0))
    grads = jax.grad(lambda p: level.inner(p, reward_params, batch=batch, fresh=state)[0])(params)
    return jax.tree.leaves(grads["actor"])


def test_the_correction_undoes_the_bias_of_look_ahead_advice():
    """A policy gradient on advised returns is biased by Phi(s_t, a_t); with it added it is the plain gradient."""
    chain = task("chain")
    plain = slope(rd.environment_reward())
    biased, corrected = (
        slope(made.reward, **{k: v for k, v in made.settings.items() if k != "outer"})
        for made in (method(f"look_ahead{end}", chain, "aligned", advice=advice) for end in ("", "_corrected"))
    )
    for a, b, c in zip(plain, biased, corrected, strict=True):
        np.testing.assert_allclose(c, a, atol=2e-6)
        assert np.abs(b - a).max() > 1e-3


def test_every_method_builds():
    for name in METHODS:
        made = method(name, task("cartpole"), "misaligned", advice=advice)
        BarfiConfig(**made.settings)
        params, _ = made.reward.init(jax.random.key(0), task("cartpole").example)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(params))


def test_features_are_state_and_one_hot_action():
    cartpole = task("cartpole")
    example = cartpole.example._replace(action=jnp.ones_like(cartpole.example.action))
    x = state_action(cartpole)(example)
    assert x.shape == (example.mask.shape[0], 4 + 2)
    np.testing.assert_array_equal(x[:, 4:], np.tile([0.0, 1.0], (len(x), 1)))
    pendulum = task("pendulum")
    assert state_action(pendulum)(pendulum.example).shape[1] == 3 + 1


def test_names_and_missing_advice_are_refused():
    with pytest.raises(ValueError, match="unknown method 'lirgp'; did you mean 'lirpg'"):
        method("lirgp", task("chain"), "aligned")
    with pytest.raises(ValueError, match="method 'look_ahead' needs advice=, a function"):
        method("look_ahead", task("chain"), "aligned")
