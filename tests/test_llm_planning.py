"""Language to Rewards with a model-predictive controller: candidates are planned with instead of learned from."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("mujoco")

import reward_design as rd
from reward_design import cli
from reward_design.envs import task
from reward_design.experiments.results import Results
from reward_design.llm import design
from reward_design.llm.designers import page, planning
from reward_design.llm.designers.controls import compare_with_controls
from reward_design.llm.terms import terms_reward

POLE = task("mujoco/InvertedPendulum", horizon=40)
PLANNER = {"horizon": 10, "num_samples": 5, "noise": 0.02}
SETTINGS = {"rounds": 1, "candidates": 2, "seeds": 2, "driver": "mpc", "config": PLANNER, "audits": "none"}


def tilt(direction):
    return json.dumps({
        "terms": [{"factor": "tilt", "shape": "exp", "direction": direction, "weight": 1.0, "scale": 0.1}]
    })  # fmt: skip


def model(messages):
    """A descriptor says that the pole should stand; the coder writes it down, first the wrong way round."""
    model.asked += 1
    if "terms" not in messages[0]["content"]:
        return f"The pole stands upright, try {model.asked}."
    return tilt("increase" if "try 1" in messages[-1]["content"] else "decrease")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    model.asked = 0
    return design(POLE, preset="l2r", model=model, out=tmp_path_factory.mktemp("l2r"), **SETTINGS)


def test_the_reward_that_says_upright_holds_the_pole(found):
    wrong, right = found.candidates
    assert found.best is not None
    assert found.best.id == right.id
    assert (wrong.fitness.success, right.fitness.success) == (0.0, 1.0)
    assert wrong.fitness.true_return < right.fitness.true_return == 40.0
    assert len(right.statistics.success) == 2
    assert right.statistics.terms == ("tilt",)
    assert sum(right.statistics.outcomes.values()) == 2
    assert right.statistics.traces
    assert right.statistics.env_steps == sum(right.statistics.length)


def test_a_search_that_is_there_is_neither_asked_for_nor_played_again(found, monkeypatch):
    def forbidden(*args):
        raise AssertionError

    before = model.asked
    monkeypatch.setattr(planning, "play_lanes", forbidden)
    again = design(POLE, preset="l2r", model=model, out=found.folder, **SETTINGS)
    assert model.asked == before
    assert again.candidates == found.candidates
    with pytest.raises(AssertionError):  # the guard does catch playing
        planning.played(POLE, POLE.dense_reward, found_config(), [0])


def found_config():
    return planning.Config(**PLANNER)


def test_the_episodes_are_those_of_the_planner(found):
    reward = terms_reward(tilt("decrease"), POLE)
    rows = planning.played(POLE, reward, found_config(), [0, 1])
    lengths = rows.mask.sum(0)
    assert tuple(lengths.tolist()) == found.candidates[1].statistics.length
    np.testing.assert_allclose(found.candidates[1].statistics.true_return, np.where(rows.mask, rows.reward, 0).sum(0))


def test_controls_are_planned_with_too(found):
    results = compare_with_controls(
        POLE, found, label="l2r", rounds=1, candidates=2, seeds=1, steps=None, driver="mpc", config=PLANNER,
        final_seeds=2, out=found.folder,
    )  # fmt: skip
    assert results.rewards == ("sparse", "dense", "random", "l2r")
    assert {unit.record["agent"] for unit in results.units.values()} == {"predictive_sampling"}
    assert all(unit.final("true_return").shape == (2,) for unit in results.done.values())
    assert len(results.done) == 4
    again = Results.load(found.folder / "final")
    assert [row.reward for row in again.rows] == ["sparse", "dense", "random", "l2r"]
    text = page.write(found.folder).read_text()
    assert "predictive_sampling" in text


def test_a_reward_that_is_not_finite_is_refused_and_named():
    broken = rd.pointwise("broken", lambda t: jnp.log(t.next_obs[..., 0] - 10.0))
    stopped = planning.Planning(POLE, "0.0", broken, found_config(), [0])
    assert "'broken' of a plan was NaN" in stopped.refused["0.0"].reason
    assert not planning.Planning(POLE, "0.0", POLE.dense_reward, found_config(), [0]).refused


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"driver": "mcp"}, ValueError, "driver must be 'rl' or 'mpc', got 'mcp'; did you mean 'mpc'"),
        ({"preset": "orso"}, ValueError, "preset 'orso' hands out training"),
        ({"steps": 100}, ValueError, "does not train, got steps=100"),
        ({"config": {"num_envs": 4}}, ValueError, "'predictive_sampling' has no setting 'num_envs'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_runs(settings, error, message, tmp_path):
    with pytest.raises(error, match=message):
        design(POLE, model=model, out=tmp_path, **{"preset": "l2r", **SETTINGS, **settings})
    with pytest.raises(TypeError, match="simulates with MuJoCo"):
        design("chain", model=model, preset="l2r", driver="mpc", out=tmp_path)


def test_the_command_has_the_flag(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: None)
    code = cli.main([
        "design", "--task", "mujoco/InvertedPendulum", "--preset", "random", "--driver", "mpc", "--rounds", "1",
        "--candidates", "1", "--seeds", "1", "--final-seeds", "0", "--audits", "none", "--out", str(tmp_path),
        "--set", "horizon=4", "num_samples=2", "num_knots=2", "noise=0.01", "--quiet",
    ])  # fmt: skip
    assert code == 0
    assert "Best: 0.0" in capsys.readouterr().out
