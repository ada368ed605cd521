"""BARFI from the command line: it trains with its own agent, says what it concluded, and draws it."""

import matplotlib.image
import numpy as np
import pytest
from matplotlib.figure import Figure

import reward_design.agents
from reward_design import cli
from reward_design.experiments import Results, alignment, compare, load_run
from reward_design.experiments.report import render

SHORT = ["--total-timesteps", "1600"]


@pytest.fixture(autouse=True)
def same_devices(monkeypatch):
    """JAX has started in the test process; the number of devices can no longer be changed."""
    monkeypatch.setattr(reward_design.agents, "use_all_cores", lambda: 1)


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.9, "kept the heuristic 'x' at 0.9 of its weight"),
        (0.5, "reduced the heuristic 'x' to 0.5 of its weight"),
        (0.03, "suppressed the heuristic 'x' to 0.03 of its weight"),
        (-0.4, "turned against the heuristic 'x', with a weight of -0.4"),
        (2.0, "raised the heuristic 'x' to 2 of its weight"),
    ],
)
def test_the_sentence_tells_the_relative_weight(share, text):
    weights = {"phi1": 0.1, "phi2": 3.0, "phi3": 3.0 * share, "discount": 0.99}
    assert text in alignment.conclusion(weights, "x")


def test_the_sentence_counts_the_seeds_that_agree():
    weights = {"phi1": [0.0] * 4, "phi2": [1.0, 1.0, 2.0, -1.0], "phi3": [0.01, 0.02, 2.0, 5.0], "discount": [0.9] * 4}
    assert "suppressed the heuristic 'x' to 0.02 of its weight in 2 of 4 seeds" in alignment.conclusion(weights, "x")


def test_no_verdict_where_the_primary_reward_is_not_paid():
    weights = {"phi1": [0.0], "phi2": [-0.2], "phi3": [1.0], "discount": [0.99]}
    assert "stopped paying the primary reward" in alignment.conclusion(weights, "x")


def test_pictures_start_at_the_naive_sum():
    ax = Figure().subplots()
    alignment.weights([10, 20], {"phi1": [[1, 2]], "phi2": [[1, 3]], "phi3": [[0.5, -1]]}, ax)
    drawn = [xy for line in ax.get_lines() if len(xy := np.asarray(line.get_xydata())) == 3]
    np.testing.assert_allclose(np.stack([xy[0] for xy in drawn]), [(0, 0), (0, 1), (0, 1)])
    np.testing.assert_allclose(np.stack([xy[-1] for xy in drawn]), [(20, 2), (20, 3), (20, -1)])


def test_train_says_what_it_concluded_and_keeps_the_picture(tmp_path, capsys):
    out = tmp_path / "run"
    words = ["train", "--task", "gridworld", "--reward", "barfi", "--auxiliary", "misaligned", "--out", str(out)]
    assert cli.main([*words, *SHORT]) == 0
    printed = capsys.readouterr().out
    assert "barfi on gridworld with barfi/misaligned" in printed
    assert "the heuristic 'misaligned'" in printed
    assert matplotlib.image.imread(out / alignment.FILE).std() > 0
    run = load_run(out)
    assert (run.label, run.agent.name, run.notes) == ("barfi/misaligned", "barfi", ())
    assert float(run.reward_params["phi"][2]) != 1.0


def test_compare_trains_barfi_beside_other_designs(tmp_path, capsys):
    out = tmp_path / "both"
    words = ["compare", "--task", "gridworld", "--rewards", "sparse", "barfi", "--auxiliary", "misaligned", "--quiet"]
    assert cli.main([*words, "--seeds", "2", "--out", str(out), *SHORT, "--set", "num_envs=4", "num_steps=50"]) == 0
    assert "gridworld: BARFI" in capsys.readouterr().out
    results = Results.load(out)
    assert results.agents == ("ppo", "barfi")
    unit = results.done["gridworld", "barfi/misaligned"]
    assert unit.curve("phi3")[1].shape[0] == 2
    assert unit.record["config"]["horizon"] == 50
    page = render(results)
    assert alignment.of_unit(unit, "misaligned").replace("'", "&#39;") in page
    assert "finished runs of ppo and barfi" in page


def test_barfi_as_agent_gives_matched_baselines(tmp_path):
    settings = {"num_envs": 2, "horizon": 100, "hidden": ()}
    results = compare(
        "chain", ["environment", "barfi/misaligned"], agent="barfi", seeds=2, total_timesteps=1000, config=settings,
        out=tmp_path, progress=False, report=False,
    )  # fmt: skip
    assert {unit.record["config"]["horizon"] for unit in results.done.values()} == {100}
    assert "phi3" not in results.done["chain", "environment"].record["curves"]
