"""HERON by name: rankings in words, in compare and train; runs judged by rank; the picture of who decides."""

import json

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import pytest

from reward_design import agents
from reward_design.cli import main
from reward_design.envs import task
from reward_design.experiments import compare, resolve
from reward_design.experiments.preference_plots import deciding_levels
from reward_design.experiments.ranked import win_rate
from reward_design.experiments.ranked_design import starved_note, with_ranking
from reward_design.preferences import compare_ranked, factor_sum, task_factors


@pytest.fixture(autouse=True)
def one_device(monkeypatch):
    """JAX has started in this process, with one device."""
    monkeypatch.setattr(agents, "use_all_cores", lambda: 1)


def test_a_ranking_in_words_is_the_ranking():
    pendulum = task("pendulum")
    reward = resolve("heron/speed=0.5,tilt", pendulum)
    assert reward.settings["levels"] == ("speed", "tilt")
    params, _ = reward.init(jax.random.key(0), pendulum.example)
    np.testing.assert_allclose(params["margins"], [0.5, 0.1])
    assert resolve("heron", pendulum).settings["levels"] == tuple(pendulum.factors)
    assert with_ranking(["heron"], "a, b", None) == ("heron/a,b",)
    assert with_ranking(["sparse"], None, None) == ("sparse",)


@pytest.mark.parametrize(
    ("design", "message"),
    [
        ("heron/tit=0.5", r"has no factor 'tit'; did you mean 'tilt'\?"),
        ("heron/tilt=wide", "the margin of factor 'tilt' must be a number, got 'wide'"),
        ("heron/tilt=-1", "margin of factor 'tilt' must be at least 0"),
        ("heronn", "unknown reward 'heronn'; did you mean 'heron'"),
    ],
)
def test_rankings_that_cannot_be_are_refused(design, message):
    with pytest.raises(ValueError, match=message):
        resolve(design, task("pendulum"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reward", "sparse", "--factors", "tilt"], "are for the reward 'heron', got sparse"),
        (["--reward", "heron", "--factors", "tilt,speed", "--margins", "0.1"], "got 1 for 2"),
        (["--reward", "heron", "--margins", "0.1"], "--margins 0.1 needs --factors"),
    ],
)
def test_the_command_line_says_what_is_missing(words, message, capsys):
    assert main(["train", "--task", "pendulum", *words]) == 2
    assert message in capsys.readouterr().err


def test_compare_trains_on_a_ranking_and_keeps_it_out_of_exact_distances(tmp_path):
    out = tmp_path / "results"
    words = ["--task", "chain", "--rewards", "sparse", "heron", "--factors", "goal_reached,distance", "--margins"]
    words += ["0,0.2", "--seeds", "2", "--total-timesteps", "8192", "--out", str(out), "--quiet"]
    assert main(["compare", *words, "--set", "num_envs=8", "num_steps=128", "hidden=8"]) == 0
    records = [json.loads(line) for line in (out / "records.jsonl").read_text().splitlines()]
    label = "heron/goal_reached=0,distance=0.2"
    unit = next(r for r in records if r.get("reward") == label)
    assert unit["status"] == "done"
    assert unit["losses"]["reward/rounds"][-1] >= 8
    assert [list(r["fingerprints"]) for r in records if r["kind"] == "exact"] == [["sparse"]]
    page = (out / "report.html").read_text()
    assert label in page


def test_learned_rewards_alone_can_be_compared(tmp_path):
    results = compare(
        "chain", ["heron"], seeds=1, total_timesteps=1024, out=tmp_path, config={"num_envs": 4, "num_steps": 64},
        progress=False,
    )  # fmt: skip
    assert results.done["chain", "heron"].final("success").shape == (1,)


def test_win_rate_is_the_mean_over_pairs_with_an_interval():
    rng = np.random.default_rng(0)
    ours, theirs, margins = rng.normal(size=(12, 2)), rng.normal(size=(9, 2)) - [0.8, 0.0], [0.3, 0.0]
    expected = np.mean([float(compare_ranked(a, b, margins=margins)) for a in ours for b in theirs])
    found = win_rate(ours, theirs, margins=margins)
    assert found.value == pytest.approx(expected)
    assert found.low < found.value < found.high
    back = win_rate(theirs, ours, margins=margins)
    assert back.value == pytest.approx(1 - expected)
    assert win_rate(ours, ours, margins=margins).value == pytest.approx(0.5)
    assert win_rate(ours + 9, theirs, margins=margins)[:3] == (1.0, 1.0, 1.0)


def test_intervals_of_win_rates_cover_a_difference_of_nothing():
    covered = 0
    for seed in range(40):
        a, b = np.random.default_rng(seed).normal(size=(2, 10, 1))
        found = win_rate(a, b, margins=[0.0], num_resamples=300)
        covered += found.low <= 0.5 <= found.high
    assert covered >= 34


def test_weighted_sum_of_factors_is_the_sum():
    pendulum = task("pendulum")
    ranking = task_factors(pendulum, ["tilt", "effort"])
    reward = factor_sum(ranking, base=10)
    t = pendulum.example._replace(
        obs=jnp.array([[0.6, 0.8, 1.0]]), next_obs=jnp.array([[0.0, 1.0, 1.0]]), action=jnp.array([[2.0]]),
        mask=jnp.array([True]),
    )  # fmt: skip
    output, _ = reward.step(*reward.init(jax.random.key(0), t), t)
    assert float(output.reward[0]) == pytest.approx(-10 * np.pi / 2 - 2.0, rel=1e-5)
    assert set(output.terms) == {"tilt", "effort"}
    with pytest.raises(ValueError, match=r"needs a weight for each of \['tilt', 'effort'\]"):
        factor_sum(ranking, weights={"tilt": 1.0})


def test_picture_stacks_the_shares():
    metrics = {
        "reward/decided/speed": [np.nan, 0.3, 0.3], "reward/decided/tie": [np.nan, 0.1, 0.2],
        "reward/decided/tilt": [np.nan, 0.6, 0.5], "task": "pendulum",
    }  # fmt: skip
    axes = plt.figure().gca()
    assert deciding_levels([0, 10, 20], metrics, axes) is axes  # as sorted by JAX
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["speed", "tilt", "tie"]
    tops = [np.asarray(stack.get_paths()[0].vertices)[:, 1].max() for stack in axes.collections]
    np.testing.assert_allclose(tops, [0.3, 0.9, 1.0], atol=1e-6)
    axes = deciding_levels([0, 10, 20], metrics, plt.figure().gca(), levels=["tilt", "speed"])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["tilt", "speed", "tie"]
    with pytest.raises(ValueError, match=r"for \['tit'\], got speed, tie, tilt"):
        deciding_levels([0, 10, 20], metrics, axes, levels=["tit"])
    with pytest.raises(ValueError, match="expected metrics called decided/<level>, got none"):
        deciding_levels([0], {"loss": [1.0]}, axes)
    plt.close("all")


def test_a_note_says_when_the_first_factor_decides_everything():
    assert "give it a larger margin" in (starved_note({"reward/starved": np.ones((1, 3)), "loss": 0.0}) or "")
    assert starved_note({"reward/starved": np.array([[1.0, 0.0]])}) is None
    assert starved_note({"reward/starved": np.array([[np.nan]])}) is None
    assert starved_note({"loss": np.ones(3)}) is None
