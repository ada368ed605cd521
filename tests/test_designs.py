"""Designs by name, by module and attribute, and as objects."""

import dataclasses
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design.agents import ppo
from reward_design.core import Kind, Reward
from reward_design.envs import task
from reward_design.experiments.budgets import assignments, settings
from reward_design.experiments.credit_designs import METHODS
from reward_design.experiments.designs import DESIGNS, labelled, resolve, resolve_fixed, with_auxiliary

MODULE = """
import jax.numpy as jnp
from reward_design import pointwise

mine = pointwise("mine", lambda t: 2.0 * t.reward)

def for_task(task):
    return pointwise("for_" + task.name, lambda t: t.reward)

def factory(scale=3.0):
    return pointwise("factory", lambda t: scale * t.reward)

def plain(transition):
    return -transition.action**2

def wrong(task):
    return 1.0

number = 7
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_rewards.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("x = 1 / 0\n")
    (tmp_path / "my_needs.py").write_text("import a_package_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    yield
    for name in ("my_rewards", "my_broken", "my_needs"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("name", sorted(DESIGNS))
@pytest.mark.parametrize("where", ["chain", "mountain_car"])
def test_every_design_is_built_for_every_task(name, where):
    reward = resolve(name, task(where))
    assert isinstance(reward, Reward)
    assert DESIGNS[name].description
    assert (reward.kind is Kind.POINTWISE) == (name not in ("count_bonus", *METHODS))


@pytest.mark.parametrize("name", METHODS)
def test_what_a_method_of_redistribution_pays_sums_to_what_the_task_paid(name):
    known = task("chain", num_states=4, horizon=8)
    config = settings(ppo.AGENT, known, total_timesteps=2048, config={"num_envs": 4, "num_steps": 64})
    metrics = ppo.train(config, known, resolve(name, known), jax.random.key(0)).metrics
    assert np.isfinite(metrics["shaped_return"]).all()
    assert metrics["true_return"].mean() > 0.2
    if name in ("uniform", "rudder"):  # every episode is paid exactly, whatever the estimator says
        cut = 8 / 64  # of the episodes a rollout cuts one in each lane, and pays its parts in two rollouts
        np.testing.assert_allclose(metrics["shaped_return"], metrics["true_return"], atol=2 * cut)


def test_the_count_bonus_counts_what_the_task_says():
    def paid(known):
        reward = resolve("count_bonus", known)
        step = lambda state, last=False: known.example._replace(  # noqa: E731
            next_obs=jnp.array([state]), terminated=jnp.array([last]), mask=jnp.ones(1, bool)
        )
        rows = jax.tree.map(lambda *x: jnp.stack(x), step(0), step(0), step(1, True), step(0), step(2))
        output, _ = reward.unroll(*reward.init(jax.random.key(0), known.example), rows)
        return output.terms["count_bonus"][:, 0]

    chain = task("chain")
    np.testing.assert_allclose(paid(chain), 0.1 / np.sqrt([1, 2, 1, 3, 1]), rtol=1e-6)
    pairs = dataclasses.replace(chain, count_index=lambda obs: obs // 2)
    np.testing.assert_allclose(paid(pairs), 0.01 / np.sqrt([1, 2, 3, 1, 1]), rtol=1e-6)


def test_rewards_of_a_module_in_the_current_folder(module):
    chain = task("chain")
    assert resolve("my_rewards:mine", chain).name == "mine"
    assert resolve("my_rewards:for_task", chain).name == "for_chain"
    assert resolve("my_rewards:factory", chain).name == "factory"


@pytest.mark.parametrize(
    ("design", "error", "message"),
    [
        ("shapping", ValueError, r"unknown reward 'shapping'; did you mean 'shaping'\? Known: sparse"),
        ("my_reward:mine", ValueError, "there is no module 'my_reward' in .* or installed"),
        ("my_rewards:mien", ValueError, "'my_rewards' has no 'mien'; did you mean 'mine'"),
        ("my_rewards:plain", ValueError, "building it for task 'chain' failed with AttributeError"),
        ("my_rewards:wrong", TypeError, "must return a Reward, got float"),
        ("my_rewards:number", TypeError, "must be a Reward or a function task -> Reward, got int"),
        ("my_broken:x", ValueError, "importing 'my_broken' failed with ZeroDivisionError"),
        ("my_needs:x", ValueError, "importing 'my_needs' needs 'a_package_that_is_not_there'"),
        (7, TypeError, "got int"),
    ],
)
def test_what_is_no_reward_is_named(module, design, error, message):
    with pytest.raises(error, match=message):
        resolve(design, task("chain"))


def test_labels():
    chain = task("chain")
    assert list(labelled("sparse")) == ["sparse"]
    assert list(labelled([chain.sparse_reward, "dense"])) == [chain.sparse_reward.name, "dense"]
    assert labelled({"a": "dense"}) == {"a": "dense"}
    with pytest.raises(ValueError, match="'dense' was given twice"):
        labelled(["dense", "dense"])
    with pytest.raises(ValueError, match="at least one reward"):
        labelled([])


def test_settings_come_from_the_budget_the_task_and_what_was_asked_for():
    from reward_design.agents import agent

    ppo = agent("ppo")
    config = settings(ppo, task("chain"), config={"hidden": "32,16", "learning_rate": "1e-4", "normalise_obs": "false"})
    assert config.hidden == (32, 16)
    assert config.learning_rate == 1e-4
    assert config.normalise_obs is False
    assert config.gamma == task("chain").gamma
    assert settings(ppo, task("chain"), total_timesteps=4096).total_timesteps == 4096
    assert settings(ppo, task("chain"), config=ppo.Config(num_envs=8), total_timesteps=4096).num_envs == 8
    assert settings(ppo, task("chain"), config={"num_envs": "1e1"}).num_envs == 10
    with pytest.raises(ValueError, match="did you mean 'gae_lambda'"):
        settings(ppo, task("chain"), config={"lambda": 1})
    with pytest.raises(ValueError, match="'normalise_obs' of agent 'ppo' must be bool, got 'maybe'"):
        settings(ppo, task("chain"), config={"normalise_obs": "maybe"})
    with pytest.raises(ValueError, match="expects name=value, got 'lr'"):
        assignments(["lr"])


# --- designs with an auxiliary reward, and with an agent of their own ------------------------------------------------


def test_a_design_takes_the_auxiliary_behind_the_slash():
    grid = task("gridworld")
    for name, chosen in (("barfi/misaligned", "misaligned"), ("naive/misaligned", "misaligned"), ("naive", "aligned")):
        reward = resolve(name, grid)
        assert reward.children["auxiliary"] is grid.auxiliary[chosen]


def test_an_unknown_auxiliary_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match=r"has no auxiliary reward 'misalinged'; did you mean 'misaligned'\?"):
        resolve("barfi/misalinged", task("gridworld"))


def test_an_auxiliary_for_designs_that_take_none_is_refused():
    with pytest.raises(ValueError, match="reward 'sparse' takes nothing behind a slash, got 'sparse/aligned'"):
        resolve("sparse/aligned", task("chain"))
    with pytest.raises(ValueError, match="none of the rewards takes an auxiliary, got auxiliary='aligned'; use naive/"):
        with_auxiliary(["sparse", "dense"], "aligned")


def test_the_auxiliary_goes_to_those_that_take_one_and_name_none():
    assert with_auxiliary(["sparse", "barfi", "naive/aligned", "m:f"], "misaligned") == [
        "sparse", "barfi/misaligned", "naive/aligned", "m:f",
    ]  # fmt: skip
    assert with_auxiliary({"mine": "barfi"}, "x") == {"mine": "barfi/x"}
    assert with_auxiliary("barfi", None) == "barfi"


@pytest.mark.parametrize("name", ["spa", "rrd", "heron", "barfi"])
def test_what_is_measured_before_training_is_not_learned_in_it(name):
    with pytest.raises(ValueError, match=f"reward '{name}' is learned while an agent trains, so before that"):
        resolve_fixed(name, task("chain"))
    assert resolve_fixed("sparse", task("chain")) is task("chain").sparse_reward
