"""Candidates of a round train together as they would train alone, and go on where they stopped."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents import agent, scoring, train_seeds
from reward_design.envs import task
from reward_design.experiments import budgets
from reward_design.experiments.store import Store
from reward_design.llm.designers.alternatives import alternatives
from reward_design.llm.designers.candidates import Candidate
from reward_design.llm.designers.evaluation import train_all
from reward_design.llm.designers.journal import Journal
from reward_design.llm.designers.presets import PRESETS
from reward_design.llm.designers.random_search import random_terms
from reward_design.llm.designers.session import Session
from reward_design.llm.designers.term_table import table_params, term_table
from reward_design.llm.designers.training import Training
from reward_design.llm.terms import terms_reward
from reward_design.rollouts import random_trajectory
from reward_design.testing import check_reward
from tests.cases import array_example

CHAIN, PPO = task("chain"), agent("ppo")
CONFIG = budgets.settings(
    PPO, CHAIN, total_timesteps=1024, config={"num_envs": 4, "num_steps": 32, "hidden": (8,), "num_minibatches": 1}
)
SHAPED = rd.chain(CHAIN.sparse_reward, rd.potential_shaping(CHAIN.potential, gamma=CHAIN.gamma))
BROKEN = rd.pointwise("broken", lambda t: jnp.where(t.obs > 3, jnp.nan, 0.0))
REWARDS = {"0.0": CHAIN.sparse_reward, "0.1": SHAPED, "0.2": BROKEN}


def test_alternatives_keep_the_contract():
    causal = rd.potential_shaping(lambda obs: obs[..., 0], gamma=0.9)
    check_reward(alternatives([rd.environment_reward(), causal]), array_example())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    training = Training(CHAIN, PPO, CONFIG, REWARDS, [0, 1], folder)
    training.advance(list(REWARDS), CONFIG.num_updates // 2)
    return training, folder


def test_together_as_alone_and_a_broken_reward_stops_itself_only(trained):
    training, folder = trained
    again = Training(CHAIN, PPO, CONFIG, REWARDS, [0, 1], folder)  # from the checkpoint of the first half
    assert again.done == {"0.0": 4, "0.1": 4, "0.2": 4}
    assert list(again.refused) == ["0.2"]
    assert "broken" in again.refused["0.2"].reason
    again.advance(list(REWARDS), CONFIG.num_updates // 2)
    assert again.done == {"0.0": 8, "0.1": 8, "0.2": 4}
    keys = jax.vmap(jax.random.key)(jnp.arange(2, dtype=jnp.uint32))
    for name in ("0.0", "0.1"):
        alone = train_seeds(PPO, CONFIG, CHAIN, REWARDS[name], keys)
        found = {k: np.concatenate([row[k] for row in again.metrics[name]], axis=1) for k in ("success", "length")}
        for metric, values in found.items():
            np.testing.assert_allclose(values, alone.metrics[metric], rtol=1e-4, err_msg=f"{name} {metric}")
    assert training.recent_success("0.1", 2) >= 0.0


def test_statistics_tell_terms_by_their_own_names(trained):
    training, _ = trained
    found, episodes = training.statistics("0.1")
    assert set(found.terms) == {"goal", "potential_shaping"} or "potential_shaping" in found.terms
    assert found.episodes == episodes.mask.shape[1] == 16
    assert found.env_steps == 4 * 128 * 2
    assert found.traces
    total = np.sum([np.nan_to_num(np.array(found.curves[f"term/{t}"], float)) for t in found.terms], axis=0)
    paid = np.nan_to_num(np.array(found.curves["shaped_return"], float))
    np.testing.assert_allclose(total, paid, atol=2e-3)


@pytest.mark.slow
def test_a_round_in_which_every_reward_breaks_ends(tmp_path):
    broken = Candidate("0.0", "", "code", 0)
    with Store(tmp_path, {}) as store:
        session = Session(CHAIN, PRESETS["eureka"], "code", None, Journal(store), tmp_path, PPO, CONFIG, (0,), 1)
        session.built["0.0"] = BROKEN
        train_all(session, 0, [session.update(broken)])
    assert session.candidates["0.0"].refusal.stage == "training"


def test_the_table_of_terms_pays_what_documents_say():
    """Random documents over every shape and direction, through episodes with every kind of ending and mask."""
    for name in ("gridworld", "cartpole"):
        made = task(name)
        rows = random_trajectory(scoring.reward_example(made.env), seed=1)
        rows = jax.tree.map(jnp.asarray, rows)
        table = term_table(made)
        example = jax.tree.map(lambda x: x[0], rows)
        _, empty = table.init(jax.random.key(0), example)
        for seed in range(5):
            document = random_terms(made, np.random.default_rng(seed))
            written = terms_reward(document, made)
            params, state = written.init(jax.random.key(0), example)
            wanted, _ = written.unroll(params, state, rows)
            found, _ = table.unroll(jax.tree.map(jnp.asarray, table_params(document, made)), empty, rows)
            np.testing.assert_allclose(found.reward, wanted.reward, rtol=1e-5, atol=1e-5, err_msg=document)
            for number, term in enumerate(sorted(wanted.terms)):
                np.testing.assert_allclose(found.terms[f"{number:02d}"], wanted.terms[term], rtol=1e-5, atol=1e-5)
            assert float(jnp.abs(wanted.reward).max()) > 0
        paid, _ = table.unroll(table.init(jax.random.key(0), example)[0], empty, rows)
        assert float(jnp.abs(paid.reward).max()) == 0
