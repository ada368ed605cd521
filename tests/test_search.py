"""search: finds what is better, is a function of its seed, trains nothing twice, and says what is wrong."""

import csv
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
import reward_design.agents
from reward_design import cli
from reward_design.envs import task
from reward_design.experiments import compare, export, merge, resolve, search, units
from reward_design.experiments.executors import Processes
from reward_design.experiments.proposals import ask
from reward_design.experiments.results import Results
from reward_design.experiments.space import Changed, Range, numbers
from reward_design.experiments.store import StoreError

optuna = pytest.importorskip("optuna")

ARGS = {
    "agent": "q_learning", "seeds": 2, "total_timesteps": 4096, "config": {"num_envs": 4, "num_steps": 32},
    "space": {"weight": (-1, 1)}, "batch": 2, "progress": False,
}  # fmt: skip
COMPARE = {**{k: v for k, v in ARGS.items() if k not in ("space", "batch")}, "report": False}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("search")


@pytest.fixture(scope="module")
def found(folder):
    """The sparse reward of a chain, with a weight of either sign."""
    return search("chain", "sparse", trials=4, out=folder, **ARGS)


@pytest.fixture
def trained(monkeypatch):
    """Weights of the rewards that are trained, in order."""
    train_seeds, weights = units.train_seeds, []

    def counting(learner, config, env, reward, *args, **kwargs):
        weights.append(float(reward.init(jax.random.key(0), env.example)[0]["weight"]))
        return train_seeds(learner, config, env, reward, *args, **kwargs)

    monkeypatch.setattr(units, "train_seeds", counting)
    return weights


def summary(found):
    return [(trial.number, dict(trial.settings), trial.value and trial.value.value) for trial in found.trials]


def test_the_better_settings_win(found):
    values = {trial.settings["weight"]: trial.value.value for trial in found.trials}
    assert len(values) == 4
    assert found.best.settings["weight"] > 0
    good, bad = ([v for w, v in values.items() if (w > 0) == sign] for sign in (True, False))
    assert min(good) > 0.4 > 0.2 > max(bad)
    assert len(bad) > 0


def test_values_are_those_of_a_comparison_with_these_settings(found, tmp_path):
    best = found.best
    weighed = Changed("sparse", (("weight", best.settings["weight"]),))
    alone = compare("chain", {"alone": weighed}, out=tmp_path, **COMPARE).done["chain", "alone"]
    unit = found.results.done["chain", best.label]
    np.testing.assert_array_equal(alone.final(), unit.final())
    assert alone.record["fingerprint"] == unit.record["fingerprint"]
    assert best.value.value == pytest.approx(alone.final().mean())  # of two seeds


def test_the_folder_has_table_picture_and_ordinary_units(found, folder, tmp_path):
    rows = list(csv.DictReader((folder / "trials.csv").read_text().splitlines()))
    assert [float(row["weight"]) for row in rows] == [trial.settings["weight"] for trial in found.trials]
    assert [float(row["true_return"]) for row in rows] == [trial.value.value for trial in found.trials]
    assert (folder / "trials.png").read_bytes().startswith(b"\x89PNG")
    exported = list(csv.DictReader(export(Results.load(folder), tmp_path / "r.csv").read_text().splitlines()))
    assert [(row["reward"], row["seed"]) for row in exported] == [
        (trial.label, seed) for trial in found.trials for seed in ("0", "1")
    ]
    assert cli.main(["report", str(folder)]) == 0


def test_a_finished_search_trains_nothing(found, folder, trained):
    before = (folder / "records.jsonl").read_bytes()
    again = search("chain", "sparse", trials=4, out=folder, **ARGS)
    assert trained == []
    assert summary(again) == summary(found)
    assert (folder / "records.jsonl").read_bytes() == before


def test_an_interrupted_search_goes_on_as_if_nothing_had_happened(found, tmp_path, monkeypatch, trained):
    counting = units.train_seeds

    def interrupted(*args, **kwargs):
        if len(trained) == 2:
            raise KeyboardInterrupt
        return counting(*args, **kwargs)

    monkeypatch.setattr(units, "train_seeds", interrupted)
    with pytest.raises(KeyboardInterrupt):
        search("chain", "sparse", trials=4, out=tmp_path, **ARGS)
    path = tmp_path / "records.jsonl"
    path.write_bytes(path.read_bytes() + b'{"kind":"unit","ta')
    monkeypatch.setattr(units, "train_seeds", counting)
    search("chain", "sparse", trials=3, out=tmp_path, **ARGS)
    resumed = search("chain", "sparse", trials=4, out=tmp_path, **ARGS)
    assert summary(resumed) == summary(found)
    np.testing.assert_allclose(trained, [trial.settings["weight"] for trial in found.trials], rtol=1e-6)


class Backwards:
    """Trains the last unit first."""

    def run(self, plans, seeds, bar):
        for plan in reversed(plans):
            yield units.run(plan, seeds, lambda steps, seen: None)


def test_trials_of_a_batch_do_not_depend_on_the_order_in_which_they_end(found, tmp_path, trained):
    turned = search("chain", "sparse", trials=4, out=tmp_path, executor=Backwards(), **ARGS)
    assert summary(turned) == summary(found)
    expected = [found.trials[i].settings["weight"] for i in (1, 0, 3, 2)]
    np.testing.assert_allclose(trained, expected, rtol=1e-6)


def test_searches_of_several_machines_are_put_together(found, folder, tmp_path):
    other = search("chain", "sparse", trials=1, sampler_seed=1, out=tmp_path / "other", **ARGS)
    assert summary(other) != summary(found)[:1]
    both = merge([folder, tmp_path / "other"], tmp_path / "both")
    assert set(both.done) == set(found.results.done) | set(other.results.done)
    assert len(both.done) == 5
    assert len(both.rows) == 5


def test_settings_of_the_agent_and_of_the_reward_together(tmp_path):
    space = {"agent.learning_rate": "log:1e-3,1", "agent.num_envs": (1, 8), "auxiliary": (0, 2)}
    config = {"num_steps": 32}
    found = search("chain", "misaligned", trials=2, out=tmp_path, **{**ARGS, "config": config, "space": space})
    for trial in found.trials:
        record = found.results.done["chain", trial.label].record
        assert record["config"]["learning_rate"] == trial.settings["agent.learning_rate"]
        assert record["config"]["num_envs"] == trial.settings["agent.num_envs"]
        assert isinstance(trial.settings["agent.num_envs"], int)
        assert f"learning_rate={trial.settings['agent.learning_rate']} " in trial.label
        assert 0 <= trial.settings["weights.auxiliary"] <= 2
    assert len({unit.record["fingerprint"] for unit in found.results.done.values()}) == 2


def test_trials_that_cannot_be_trained_have_a_reason(tmp_path):
    edge = rd.pointwise(
        "edge", lambda p, t: jnp.where(p["height"] > 0, jnp.nan, t.reward), params={"height": jnp.float32(0)}
    )
    space = {"height": (-1, 1), "agent.num_envs": (1, 64)}
    config = {"num_steps": 128}  # longer than an episode
    found = search("chain", edge, trials=6, out=tmp_path, **{**ARGS, "config": config, "space": space})
    for trial in found.trials:
        if trial.settings["agent.num_envs"] > 32:
            assert "total_timesteps must be at least" in trial.reason
        elif trial.settings["height"] > 0:
            assert "'edge' was not finite" in trial.reason
        else:
            assert trial.value is not None
    assert len({trial.reason[:20] for trial in found.trials}) == 3
    assert found.best.settings["height"] < 0


def test_proposals_gather_where_the_value_is_high():
    ranges = {"rate": Range(1e-4, 1e-1, log=True), "depth": Range(1, 9, whole=True)}

    def value(settings):
        return -abs(np.log10(settings["rate"]) + 3) - 0.2 * abs(settings["depth"] - 4)

    history = []
    for number in range(40):
        for settings in ask(ranges, history, num=1, seed=number):
            history.append((settings, None if number == 3 else value(settings)))
    values = [value(settings) for settings, _ in history]
    assert all(isinstance(s["depth"], int) and 1 <= s["depth"] <= 9 and 1e-4 <= s["rate"] <= 1e-1 for s, _ in history)
    assert np.mean(values[20:]) > np.mean(values[:10]) + 0.3
    assert ask(ranges, history, num=3, seed=7) == ask(ranges, history, num=3, seed=7)
    assert ask(ranges, history, num=3, seed=7) != ask(ranges, history, num=3, seed=8)
    assert ask(ranges, history, num=3, seed=7) != ask(ranges, history[:20], num=3, seed=7)
    assert len({tuple(s.values()) for s in ask(ranges, history, num=4, seed=7)}) == 4


def test_changed_numbers_reach_every_form_of_a_reward():
    chain = task("chain")
    assert numbers(resolve("misaligned", chain), chain) == (
        "rewards.auxiliary.weight", "rewards.task.weight", "weights.auxiliary", "weights.task",
    )  # fmt: skip
    changed = Changed("misaligned", (("weights.task", 3.0),))(chain)
    for reward in (changed, rd.freeze_running(changed)):
        params, _ = reward.init(jax.random.key(0), chain.example)
        assert float(params["weights"]["task"]) == 3.0
        assert float(params["weights"]["auxiliary"]) != 3.0
        assert params["weights"]["task"].dtype == jnp.float32


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"space": {}}, "expected at least one range to search, got none"),
        ({"space": {"agent.learning_rat": (0, 1)}}, "did you mean 'agent.learning_rate'"),
        ({"space": {"learning_rate": (0, 1)}}, "did you mean 'agent.learning_rate'"),
        ({"space": {"weihgt": (0, 1)}}, "nothing is called 'weihgt'; did you mean 'weight'"),
        ({"space": {"weight": (1, 1)}}, "weight: expected a range low,high with low < high, got 1.0,1.0"),
        ({"space": {"weight": "log:0,1"}}, "weight: a range on a logarithmic scale must be positive"),
        ({"space": {"weight": "0"}}, "weight: expected a range, as in 0,1 or log:1e-4,1e-2, got '0'"),
        ({"space": {"agent.num_envs": (1, 2.5)}}, "agent.num_envs: expected whole numbers, got 1.0,2.5"),
        ({"space": {"agent.num_envs": (1, 4)}}, "'agent.num_envs' has a range and a fixed value"),
        ({"space": {"agent.total_timesteps": (1, 4)}}, "nothing is called 'agent.total_timesteps'"),
        ({"reward": "misaligned"}, "'weight' may be rewards.auxiliary.weight or rewards.task.weight"),
        ({"objective": "sucess"}, "unknown objective 'sucess'; did you mean 'success'"),
        ({"trials": 0}, "trials must be at least 1, got 0"),
        ({"batch": 0}, "batch must be at least 1, got 0"),
        ({"task": "chian"}, "did you mean 'chain'"),
        ({"reward": "sparce"}, "did you mean 'sparse'"),
        ({"agent": "qlearning"}, "did you mean 'q_learning'"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_written(changes, sentence, tmp_path):
    out = tmp_path / "new"
    with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
        search(**{"task": "chain", "reward": "sparse", "out": out, **ARGS, **changes})
    assert not out.exists()


def test_other_searches_and_comparisons_are_refused(found, folder):
    with pytest.raises(StoreError, match=r"search.space.weight.high 1.0 there, 2.0 here"):
        search("chain", "sparse", out=folder, **{**ARGS, "space": {"weight": (-1, 2)}})
    with pytest.raises(StoreError, match=r"search.sampler_seed 0 there, 1 here"):
        search("chain", "sparse", sampler_seed=1, out=folder, **ARGS)
    with pytest.raises(StoreError, match="total_timesteps 4096 there, 2048 here"):
        search("chain", "sparse", out=folder, **{**ARGS, "total_timesteps": 2048})
    with pytest.raises(StoreError, match="belongs to a different configuration"):
        compare("chain", "sparse", out=folder, **COMPARE)
    assert summary(search("chain", "sparse", trials=4, out=folder, **ARGS)) == summary(found)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ImportError, match="need the extra 'tune': pip install"):
        search("chain", "sparse", out=tmp_path / "new", **ARGS)
    assert not (tmp_path / "new").exists()


def test_on_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(reward_design.agents, "use_all_cores", lambda: 1)  # JAX has started
    out = str(tmp_path / "r")
    words = ["search", "--task", "chain", "--agent", "q_learning", "--total-timesteps", "512", "--seeds", "2"]
    words += ["--set", "num_envs=4", "num_steps=32", "--out", out, "--quiet", "--trials", "2", "--space"]
    assert cli.main([*words, "weight=0.5,1.5", "agent.learning_rate=log:1e-2,1"]) == 0
    text = capsys.readouterr().out
    assert "Best of 2: weight=" in text
    assert "trials.csv" in text
    assert cli.main([*words, "weight=0.5,2.5", "agent.learning_rate=log:1e-2,1"]) == 2
    assert "high 1.5 there, 2.5 here" in capsys.readouterr().err
    assert cli.main([*words, "weight"]) == 2
    assert "--space expects name=low,high, got 'weight'" in capsys.readouterr().err
    assert cli.main([*words, "weight=0,1", "weight=0,2"]) == 2
    assert "--space has two ranges for 'weight'" in capsys.readouterr().err


@pytest.mark.slow
def test_worker_processes_find_the_same(tmp_path):
    here = search("chain", "sparse", trials=2, out=tmp_path / "here", **ARGS)
    there = search("chain", "sparse", trials=2, out=tmp_path / "there", executor=Processes(2), **ARGS)
    assert [dict(t.settings) for t in there.trials] == [dict(t.settings) for t in here.trials]
    np.testing.assert_allclose([t.value.value for t in there.trials], [t.value.value for t in here.trials], atol=1e-6)
