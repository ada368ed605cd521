"""Rewards that are learned beside an agent: what their learners see, in compositions and in every agent's loop."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents import base, dqn, ppo, q_learning, reinforce, sac, train_seeds
from reward_design.envs import task
from reward_design.rollouts import random_trajectory
from tests.agent_envs import Counter, Target
from tests.cases import array_example

KEY = jax.random.key(0)
ROLLOUT = jax.tree.map(jnp.asarray, random_trajectory(array_example()))
ENV = Counter(stoppable=True)
SMALL = {"total_timesteps": 128, "num_envs": 4, "hidden": (8,), "gamma": 0.9}


def tally(name="tally"):
    """A reward whose param is the sum of all rewards that its learner saw; its learner counts the rows."""

    def init(key, params, example):
        return jnp.zeros(example.mask.shape)

    def update(params, state, batch, key):
        seen = jnp.where(batch.mask, batch.reward, 0.0)
        params = {"total": params["total"] + seen.sum()}
        return params, state + batch.mask.sum(axis=0), {"rows": batch.mask.sum()}

    reward = rd.pointwise(name, lambda p, t: 0 * t.reward + p["total"], params={"total": 0.0})
    return dataclasses.replace(reward, learner=rd.Learner(init, update))


def taught(reward, rollouts=(ROLLOUT,)):
    """Params, learner state and metrics after some rollouts."""
    example = jax.tree.map(lambda x: x[0], ROLLOUT)
    params, _ = reward.init(KEY, example)
    state, metrics = reward.learner.init(KEY, params, example), {}
    update = jax.jit(reward.learner.update)
    for rollout in rollouts:
        params, state, metrics = update(params, state, rollout, KEY)
    return params, state, metrics


def earned(scale=1.0):
    return float(scale * np.where(ROLLOUT.mask, ROLLOUT.reward, 0).sum())


def test_a_link_of_a_chain_learns_from_what_the_link_before_it_pays():
    params, _, metrics = taught(rd.chain(rd.scale(3.0), tally(), rd.clip(), tally()))
    assert params["tally"]["total"] == pytest.approx(earned(3.0), rel=1e-5)
    assert params["tally_2"]["total"] == pytest.approx(float(ROLLOUT.mask.sum()), rel=1e-5)  # clipped at 1
    assert metrics["tally/rows"] == metrics["tally_2/rows"] == ROLLOUT.mask.sum()


def test_the_links_before_keep_their_state_from_rollout_to_rollout():
    reward = rd.chain(rd.normalise_by_return(gamma=0.9), tally())
    link = rd.normalise_by_return(gamma=0.9)
    params, state = link.init(KEY, jax.tree.map(lambda x: x[0], ROLLOUT))
    first, state = link.unroll(params, state, ROLLOUT)
    second, _ = link.unroll(params, state, ROLLOUT)
    total = float(first.reward.sum() + second.reward.sum())
    assert taught(reward, [ROLLOUT] * 2)[0]["tally"]["total"] == pytest.approx(total, rel=1e-4)
    assert abs(2 * float(first.reward.sum()) - total) > 0.1


def test_parts_of_a_weighted_sum_see_the_same_transitions():
    params, _, metrics = taught(rd.weighted_sum(a=tally(), b=rd.environment_reward(), c=tally(), weights={"c": 2.0}))
    assert params["rewards"]["a"] == params["rewards"]["c"]
    assert params["rewards"]["a"]["total"] == pytest.approx(earned(), rel=1e-5)
    assert sorted(metrics) == ["a/rows", "c/rows"]
    assert params["weights"]["c"] == 2.0


def test_delayed_and_ensembles_learn_as_the_reward_itself():
    assert taught(rd.delayed(tally()))[0]["total"] == pytest.approx(earned(), rel=1e-5)
    params, state, _ = taught(rd.ensemble(tally(), 3))
    np.testing.assert_allclose(params["members"]["total"], [earned()] * 3, rtol=1e-5)
    assert state.shape == (3, ROLLOUT.mask.shape[1])


@pytest.mark.parametrize("build", [rd.environment_reward, lambda: rd.chain(rd.scale(2.0), rd.clip())])
def test_nothing_learns_where_no_part_does(build):
    assert build().learner is None


# --- in the agents ----------------------------------------------------------------------------------------------------

AGENTS = [
    pytest.param(ppo, ppo.Config(num_steps=8, num_minibatches=2, **SMALL), ENV, id="ppo"),
    pytest.param(dqn, dqn.Config(num_steps=8, learning_starts=16, batch_size=8, **SMALL), ENV, id="dqn"),
    pytest.param(sac, sac.Config(num_steps=2, learning_starts=16, batch_size=8, **SMALL), Target(), id="sac"),
    pytest.param(reinforce, reinforce.Config(horizon=8, **SMALL), ENV, id="reinforce"),
]


@pytest.mark.parametrize(("agent", "config", "env"), AGENTS)
def test_agents_teach_the_reward_every_rollout(agent, config, env):
    result = agent.train(config, env, tally(), KEY)
    rows = np.asarray(result.metrics["reward/rows"])
    assert rows.shape == (config.num_updates,)
    assert result.state.learner_state.sum() == rows.sum() > 0
    plain = agent.train(config, env, rd.environment_reward(), KEY)
    assert plain.state.learner_state == ()
    assert not any(name.startswith("reward/") for name in plain.metrics)
    if env is ENV:  # 1 per step
        assert result.state.reward_params["total"] == rows.sum()


def test_ppo_scores_a_rollout_with_what_was_learned_from_it():
    config = ppo.Config(num_steps=8, num_minibatches=2, **SMALL)
    result = ppo.train(config, Counter(horizon=1), tally(), KEY)
    total = 32.0 * (1 + np.arange(config.num_updates))
    np.testing.assert_allclose(result.metrics["shaped_return"], total)


def test_given_params_are_where_learning_starts():
    config = ppo.Config(num_steps=8, num_minibatches=2, **SMALL)
    result = ppo.train(config, ENV, tally(), KEY, reward_params={"total": jnp.float32(1000.0)})
    assert result.state.reward_params["total"] == 1128.0


def test_a_run_in_chunks_is_the_run_in_one_piece():
    config = ppo.Config(num_steps=8, num_minibatches=2, **SMALL)
    keys = jax.random.split(KEY, 2)
    run = partial(train_seeds, ppo.AGENT, config, ENV, rd.chain(rd.scale(0.1), tally()), keys)
    whole, chunked = run(), run(num_chunks=4)
    jax.tree.map(np.testing.assert_array_equal, whole.state.reward_params, chunked.state.reward_params)
    assert whole.state.reward_params["tally"]["total"].shape == (2,)


def test_a_reward_that_is_learned_to_be_nan_changes_no_parameter():
    def update(params, state, batch, key):
        return {"total": params["total"] + jnp.nan}, state, {}

    bad = dataclasses.replace(tally(), learner=tally().learner._replace(update=update))
    config = ppo.Config(num_steps=8, num_minibatches=2, **SMALL)
    with pytest.raises(rd.NonFiniteRewardError, match="'tally'"):
        ppo.train(config, ENV, bad, KEY)
    state = jax.jit(lambda: base.updates(ppo.AGENT, ENV, bad, config, ppo.init(config, ENV, bad, KEY), 2)[0])()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((state.params, state.reward_params)))


def test_agents_that_do_not_train_rewards_refuse_one_that_has_to_be_learned():
    chain = task("chain", num_states=5)
    with pytest.raises(
        TypeError, match="agent 'q_learning' does not train rewards, and the reward 'tally' has to be learned"
    ):
        q_learning.train(q_learning.Config(total_timesteps=1024), chain, tally(), KEY)
    q_learning.train(q_learning.Config(total_timesteps=1024), chain, dataclasses.replace(tally(), learner=None), KEY)
