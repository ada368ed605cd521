"""compare: the agent's own numbers, nothing computed twice, failures kept apart, clear refusals."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design.agents import q_learning
from reward_design.constructors import pointwise
from reward_design.envs import task
from reward_design.experiments import compare, maps, units
from reward_design.experiments.provenance import fingerprint
from reward_design.experiments.results import Results
from reward_design.experiments.store import FILE, StoreError
from reward_design.experiments.units import summary

SMALL: dict = {"num_envs": 4, "num_steps": 32}
ARGS = {"agent": "q_learning", "seeds": 3, "total_timesteps": 512, "config": SMALL, "progress": False, "report": False}


def broken(t):
    """NaN from the first step on."""
    return jnp.full_like(t.reward, jnp.nan)


@pytest.fixture(scope="module")
def designs():
    return {"sparse": "sparse", "broken": pointwise("broken", broken), "shaping": "shaping"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def results(folder, designs):
    return compare("chain", designs, out=folder, **ARGS)


def forbidden(*args, **kwargs):
    raise AssertionError("must not train")


def test_units_carry_all_that_is_needed_to_judge_them(results):
    assert set(results.done) == {("chain", "sparse"), ("chain", "shaping")}
    record = results.done["chain", "shaping"].record
    assert record["seeds"] == [0, 1, 2]
    assert record["config"]["num_envs"] == 4
    assert record["config"]["gamma"] == task("chain").gamma
    assert record["env_steps"] == 3 * 512
    assert record["versions"]["jax"] == jax.__version__
    assert set(record["curves"]) >= {"true_return", "shaped_return", "success", "length", "term/potential_shaping"}
    assert record["wall_s"] > 0
    assert results.session["command"].startswith("compare(['chain']")


def test_numbers_are_those_of_the_agent_alone(results):
    config = q_learning.Config(gamma=task("chain").gamma, total_timesteps=512, **SMALL)
    alone = q_learning.train(config, task("chain"), task("chain").sparse_reward, jax.random.key(1))
    expected = summary({k: np.asarray(v)[None] for k, v in alone.metrics.items()}, config.steps_per_update)
    unit = results.done["chain", "sparse"]
    np.testing.assert_allclose(unit.final("length")[1], expected["final"]["length"][0], rtol=1e-4)
    np.testing.assert_allclose(unit.curve("true_return")[1][1], expected["curves"]["true_return"][0], rtol=1e-4)


def test_a_failing_reward_is_recorded_and_the_others_go_on(results):
    unit = results.failed["chain", "broken"]
    assert "'broken' was not finite: term 'broken' at step 0" in unit.reason
    assert "NonFiniteRewardError" in unit.record["trace"]
    row = next(row for row in results.rows if row.reward == "broken")
    assert row.true_return is None
    assert row.reason == unit.reason


def test_finished_units_are_not_computed_again_and_failed_ones_are(results, folder, designs, monkeypatch):
    trained = []

    def counting(learner, config, env, reward, *args, **kwargs):
        trained.append(reward.name)
        raise FloatingPointError("still broken")

    monkeypatch.setattr(units, "train_seeds", counting)
    before = len(results.records)
    again = compare("chain", designs, out=folder, **ARGS)
    assert trained == ["broken"]
    assert len(again.records) == before + 2  # a session and the failed unit
    assert again.failed["chain", "broken"].reason == "still broken"
    np.testing.assert_array_equal(again.done["chain", "sparse"].final(), results.done["chain", "sparse"].final())


def test_an_interrupt_loses_only_the_unit_under_way(tmp_path, monkeypatch):
    train_seeds, trained = units.train_seeds, []

    def interrupted(learner, config, env, reward, *args, **kwargs):
        trained.append(reward.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train_seeds(learner, config, env, reward, *args, **kwargs)

    monkeypatch.setattr(units, "train_seeds", interrupted)
    args = {**ARGS, "out": tmp_path}
    with pytest.raises(KeyboardInterrupt):
        compare("chain", ["sparse", "dense"], **args)
    assert list(Results.load(tmp_path).done) == [("chain", "sparse")]
    (tmp_path / FILE).write_bytes((tmp_path / FILE).read_bytes() + b'{"kind":"unit","ta')
    monkeypatch.setattr(units, "train_seeds", train_seeds)
    results = compare("chain", ["sparse", "dense"], **args)
    assert [r["reward"] for r in results.records if r["kind"] == "unit"] == ["sparse", "dense"]


def test_another_configuration_is_refused(results, folder, designs, monkeypatch):
    monkeypatch.setattr(units, "train_seeds", forbidden)
    before = (folder / FILE).read_bytes()
    with pytest.raises(StoreError, match=r"seeds \[0 1 2\] there, 0..4 here"):
        compare("chain", designs, out=folder, **{**ARGS, "seeds": 5})
    with pytest.raises(StoreError, match=r"config.chain.total_timesteps 512 there, 1024 here"):
        compare("chain", designs, out=folder, **{**ARGS, "total_timesteps": 1024})
    with pytest.raises(StoreError, match="--extend to add to it"):
        compare("chain", {**designs, "dense": "dense"}, out=folder, **ARGS)
    with pytest.raises(StoreError, match="'sparse' on 'chain' does not compute what it did"):
        compare("chain", {**designs, "sparse": "dense"}, out=folder, **ARGS)
    assert (folder / FILE).read_bytes() == before


def test_bad_input_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.setattr(units, "train_seeds", forbidden)
    out = tmp_path / "new"
    wide = pointwise("wide", lambda t: jnp.ones((*t.reward.shape, 2)))
    whole = pointwise("whole", lambda t: jnp.ones_like(t.reward, dtype=int))
    mismatch = rd.chain(task("chain").sparse_reward, rd.potential_shaping(task("chain").potential, gamma=0.5))
    cases = [
        (("chian", "sparse"), {}, ValueError, "did you mean 'chain'"),
        (("chain", "sparce"), {}, ValueError, "unknown reward 'sparce'; did you mean 'sparse'"),
        (("chain", "sparse"), {"agent": "pppo"}, ValueError, "did you mean 'ppo'"),
        (("chain", wide), {}, ValueError, "must have shape"),
        (("chain", whole), {}, TypeError, "must be floating point"),
        (("chain", mismatch), {}, ValueError, "gamma"),
        (("chain", []), {}, ValueError, "at least one reward"),
        (([], "sparse"), {}, ValueError, "at least one task"),
        ((["chain", "chain"], "sparse"), {}, ValueError, "a name of its own"),
        (("chain", "sparse"), {"seeds": 0}, ValueError, "seeds must be"),
        (("chain", "sparse"), {"config": {"learning_rat": 1}}, ValueError, "did you mean 'learning_rate'"),
        (
            ("chain", "sparse"),
            {"config": {"num_envs": "many"}},
            ValueError,
            "'num_envs' of agent 'q_learning' must be int",
        ),
    ]
    for positional, keywords, error, message in cases:
        with pytest.raises(error, match=message):
            compare(*positional, out=out, **{**ARGS, **keywords})
        assert not out.exists()


def test_extend_adds_without_computing_the_old_again(tmp_path, monkeypatch):
    args = {**ARGS, "out": tmp_path}
    compare("chain", "sparse", **args)
    train_seeds, trained = units.train_seeds, []

    def counting(learner, config, env, reward, *rest, **kwargs):
        trained.append((env.name, reward.name))
        return train_seeds(learner, config, env, reward, *rest, **kwargs)

    monkeypatch.setattr(units, "train_seeds", counting)
    results = compare("chain", "dense", extend=True, **args)
    assert trained == [("chain", task("chain").dense_reward.name)]
    assert results.rewards == ("sparse", "dense")
    assert len(results.rows) == 2
    assert results.exact["chain"]["names"] == ["true reward", "sparse", "dense"]


def naive_group(values, episodes, start, end):
    total, weight = 0.0, 0.0
    for value, count in zip(values[start:end], episodes[start:end], strict=True):
        if count:
            total, weight = total + value * count, weight + count
    return total / weight if weight else values[end - 1]


def test_summary_equals_naive_loop():
    rng = np.random.default_rng(0)
    episodes = rng.integers(0, 3, (2, 430)).astype(float)
    episodes[:, :5] = 0
    values = rng.normal(size=(2, 430))
    values[:, :5] = np.nan
    metrics = dict.fromkeys(("true_return", "shaped_return", "success", "length", "term/a"), values)
    found = summary({**metrics, "episodes": episodes, "entropy": values**2, "env_steps": values}, 10)
    assert len(found["steps"]) == 200
    assert found["steps"][-1] == 4300
    edges = np.concatenate([[0], found["steps"] // 10])
    for seed in range(2):
        expected = [naive_group(values[seed], episodes[seed], a, b) for a, b in itertools.pairwise(edges)]
        np.testing.assert_allclose(found["curves"]["term/a"][seed], expected)
        np.testing.assert_allclose(found["final"]["length"][seed], naive_group(values[seed], episodes[seed], 387, 430))
        np.testing.assert_allclose(found["final"]["true_return_over_training"][seed], np.nanmean(values[seed]))
    assert set(found["losses"]) == {"entropy"}
    assert len(found["losses"]["entropy"]) == 200


def test_fingerprint_is_of_what_is_computed():
    chain = task("chain")

    def reward(weights):
        return pointwise("same", lambda t: jnp.asarray(weights)[t.obs % len(weights)])

    marks = [
        fingerprint(chain.env, reward(np.arange(n, dtype=np.float32) * scale)) for n in (3, 500) for scale in (1, 1, 2)
    ]
    assert marks[0] == marks[1] != marks[2]
    assert marks[3] == marks[4] != marks[5]
    assert fingerprint(chain.env, chain.sparse_reward) != fingerprint(
        task("deep_sea").functional(), task("deep_sea").sparse_reward
    )


def test_exact_part_of_the_report():
    four_rooms = task("four_rooms")
    rewards = {
        "sparse": four_rooms.sparse_reward,
        "bonus": rd.count_bonus(),
        "away": pointwise("away", lambda t: -t.reward),
    }
    record = maps.exact(four_rooms, rewards)
    assert record["names"] == ["true reward", "sparse", "away"]
    assert "not pointwise" in record["missing"]["bonus"]
    np.testing.assert_allclose(record["matrix"][0, 1:], [0.0, 2.0], atol=1e-8)
    assert record["regret"]["sparse"] == pytest.approx(0, abs=1e-9)
    assert record["regret"]["away"] == pytest.approx(1, abs=1e-6)
    assert record["maps"]["true reward"].max() == 1.0
    greedy, layout = record["greedy"]["sparse"], record["layout"]
    start = layout["cells"].tolist().index([1, 1])
    assert greedy[start].tolist() == [0, 1, 1, 0]  # right and down
    assert maps.exact(task("mountain_car"), rewards)["reason"] == "this task has no exact dynamics"
