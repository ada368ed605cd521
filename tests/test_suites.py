"""Suites: what a file may say, and the statistics over all of its comparisons against loops."""

import itertools
import json
import re

import numpy as np
import pytest
from matplotlib.colors import to_hex, to_rgba_array
from matplotlib.figure import Figure
from scipy import stats

from reward_design import cli, envs
from reward_design.experiments import Results, plots, store, suites
from reward_design.experiments.migration import migrate
from reward_design.experiments.statistics import interquartile_mean
from reward_design.experiments.store import Store, StoreError
from reward_design.experiments.suites.verdict import normalised
from reward_design.llm import build_reward, save_reward

FILE = """
description = "two"
[sizes]
smoke = {{ seeds = 2, steps = 0.5, max_steps = 1000 }}
core = {{ seeds = 3 }}
[blocks.one]
tasks = ["chain"]
rewards = ["sparse", "{reward}"]
{more}
[files]
{files}
"""


def declared(tmp_path, reward="dense", more="", files=""):
    path = tmp_path / "mine.toml"
    path.write_text(FILE.format(reward=reward, more=more, files=files))
    return path


@pytest.mark.parametrize("size", ["smoke", "core", "full"])
def test_the_suite_of_the_package_is_valid_in_every_size(size):
    suite = suites.load_suite("core", size)
    assert suite.num_runs > 0
    assert {"smoke", "core"} & {suite.size} or suite.num_runs > suites.load_suite("core", "core").num_runs


def test_a_file_is_read(tmp_path):
    (block,) = suites.load_suite(declared(tmp_path)).blocks
    assert (block.tasks, block.rewards, block.agent, block.seeds) == (("chain",), ("sparse", "dense"), "ppo", 2)
    assert block.total_timesteps("chain") == 1000
    (block,) = suites.load_suite(declared(tmp_path, more="core = { steps = 0.5 }"), "core").blocks
    assert (block.seeds, block.total_timesteps("chain")) == (3, 30_000)
    (block,) = suites.load_suite(declared(tmp_path), "core").blocks
    assert block.total_timesteps("chain") is None


def test_a_saved_reward_of_each_task_is_a_design_by_name(tmp_path):
    known = envs.task("mountain_car")
    factor = next(iter(known.factors))
    terms = [{"factor": factor, "shape": "linear", "scale": 1.0, "direction": "increase", "weight": 0.5}]
    (tmp_path / "mine").mkdir()
    save_reward(
        tmp_path / "mine/mountain_car.reward", build_reward(json.dumps({"terms": terms}), known, language="terms")
    )
    path = declared(tmp_path, reward="mine", files='mine = "mine/{task}.reward"')
    with pytest.raises(ValueError, match=r"block 'one': .*there is no reward file .*mine/chain\.reward"):
        suites.load_suite(path)
    path.write_text(path.read_text().replace("chain", "mountain_car"))
    (block,) = suites.load_suite(path).blocks
    assert block.designs("mountain_car") == {"sparse": "sparse", "mine": str(tmp_path / "mine/mountain_car.reward")}


@pytest.mark.parametrize(
    ("settings", "size", "message"),
    [
        ({"files": "sparse = 'a.reward'"}, "smoke", "expected a name that no design has and a path .* got sparse = "),
        ({"files": "mine = 'a.toml'"}, "smoke", "expected a name that no design has and a path .* got mine = 'a.toml'"),
        ({"reward": "spares"}, "smoke", "block 'one': unknown reward 'spares'; did you mean 'sparse'"),
        ({"more": "agent = 'pppo'"}, "smoke", "block 'one': .*did you mean 'ppo'"),
        ({"more": "seed = 3"}, "smoke", "block 'one': unknown key 'seed'; did you mean"),
        ({"more": "sizes = ['cores']"}, "smoke", "unknown size 'cores'; did you mean 'core'"),
        ({"more": "smoke = { step = 0.1 }"}, "smoke", "unknown setting 'step'; did you mean 'steps'"),
        ({"more": "smoke = { steps = 2.0 }"}, "smoke", r"expected steps in \(0, 1\], .* got 2.0"),
        ({"more": "smoke = { steps = '1' }"}, "smoke", r"expected steps in \(0, 1\], .* got '1'"),
        ({"more": "smoke = { steps = nan }"}, "smoke", r"expected steps in \(0, 1\], .* got nan"),
        ({"more": "smoke = { seeds = true }"}, "smoke", "expected seeds as a whole number of at least 1, got True"),
        ({"more": "smoke = { seeds = 1.5 }"}, "smoke", "expected seeds as a whole number of at least 1, got 1.5"),
        ({"more": "smoke = { max_steps = '9' }"}, "smoke", "expected max_steps as a whole number .*, got '9'"),
        ({"more": "smoke = { max_steps = 0 }"}, "smoke", "expected max_steps as a whole number of at least 1, got 0"),
        ({"more": "smoke = 3"}, "smoke", "block 'one': expected a table of name = value, got 3"),
        ({"more": "sizes = 'smoke'"}, "smoke", r"block 'one', sizes: expected a list of names, as in \[\"smoke\"\]"),
        ({"more": "agent = 3"}, "smoke", "block 'one', agent: expected text in quotes, as in \"ppo\", got 3"),
        ({"files": "mine = 3"}, "smoke", "expected a name that no design has and a path .* got mine = 3"),
        ({"reward": "sparse"}, "smoke", "block 'one', rewards: 'sparse' stands there twice"),
        ({"more": "sizes = ['core']"}, "smoke", "has no block of size 'smoke'"),
        ({}, "smok", "has no size 'smok'; did you mean 'smoke'"),
        ({"more": "= 3"}, "smoke", "not valid TOML"),
    ],
)
def test_what_a_file_gets_wrong_is_named(tmp_path, settings, size, message):
    with pytest.raises(ValueError, match=message):
        suites.load_suite(declared(tmp_path, **settings), size)


SIZES = "[sizes]\nsmoke = { seeds = 2 }\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "mine.toml declares no sizes; add one, as in smoke = { seeds = 2 } under"),
        ("sizes = 3", r"mine.toml, \[sizes\]: expected a table of name = value, got 3"),
        (
            "sizes = { smoke = 3 }\n[blocks.b]\ntasks = ['chain']\nrewards = ['sparse']",
            "size 'smoke': expected a table",
        ),
        (SIZES, "mine.toml has no block of size 'smoke'"),
        (f"blocks = []\n{SIZES}", r"mine.toml, \[blocks\]: expected a table of name = value, got \[\]"),
        (f"{SIZES}[blocks]\nb = 3", "block 'b': expected a table of name = value, got 3"),
        (
            f"{SIZES}[blocks.b]\ntasks = 'chain'",
            r"block 'b', tasks: expected a list of names, as in \[\"chain\"\], got",
        ),
        (f"{SIZES}[blocks.b]\ntasks = [3]", r"block 'b', tasks: expected a list of names, .* got \[3\]"),
        (f"{SIZES}[blocks.b]\ntasks = ['chain']", r"block 'b', rewards: expected a list of names, .* got \[\]"),
        (f"files = 3\n{SIZES}", r"mine.toml, \[files\]: expected a table of name = value, got 3"),
        (f"description = 3\n{SIZES}", "mine.toml, description: expected text in quotes"),
    ],
)
def test_what_is_of_the_wrong_kind_in_a_file_is_named(tmp_path, text, message, capsys):
    (tmp_path / "mine.toml").write_text(text)
    assert cli.main(["report", str(tmp_path), "--suite", str(tmp_path / "mine.toml")]) == 2
    assert re.search(message, capsys.readouterr().err)


def test_a_folder_without_the_suite_is_named(tmp_path):
    with pytest.raises(ValueError, match="no comparison of the suite 'core', size 'smoke', in "):
        suites.load_verdict(suites.load_suite("core"), tmp_path)


def test_the_verdict_of_another_size_than_that_of_the_folder_is_refused(tmp_path):
    path = declared(tmp_path)
    asked = {"agent": "ppo", "seeds": [0, 1], "tasks": ["chain"], "rewards": ["sparse"], "config": {}}
    with Store(tmp_path / "out" / "one" / "chain", asked):
        pass
    with pytest.raises(
        StoreError, match=r"one/chain in .*out has 2 seeds, the size 'core' of the suite 'mine' has 3: give"
    ):
        suites.load_verdict(suites.load_suite(path, "core"), tmp_path / "out")
    assert list(suites.load_verdict(suites.load_suite(path), tmp_path / "out").results) == ["one/chain"]


def test_an_unknown_suite_is_named():
    with pytest.raises(ValueError, match="unknown suite 'coree'; did you mean 'core'"):
        suites.load_suite("coree")


def test_a_file_that_is_not_there_is_named_with_the_nearest_one(tmp_path):
    declared(tmp_path)
    with pytest.raises(
        ValueError, match=r"there is no file '.*/min.toml'; did you mean 'mine.toml'\? Suites by name: co"
    ):
        suites.load_suite(tmp_path / "min.toml")


def test_other_results_in_the_folder_of_a_suite_are_refused_with_what_can_be_done(tmp_path):
    place = tmp_path / "out" / "one" / "chain"
    with Store(place, {"seeds": [7], "agent": "q_learning", "tasks": ["chain"], "rewards": ["sparse"], "config": {}}):
        pass
    suite = suites.load_suite(declared(tmp_path, more="agent = 'q_learning'"))
    with pytest.raises(StoreError, match=rf"seeds \[7\] there, .*A suite has no --overwrite: delete {place} to"):
        suites.compare_suite(suite, out=tmp_path / "out", progress=False)


def test_results_of_another_size_are_refused_before_anything_runs(tmp_path):
    out = tmp_path / "out"
    identity = {"seeds": [0], "agent": "ppo", "tasks": ["cliff"], "rewards": ["sparse"], "config": {}}
    with Store(out / "one" / "cliff", identity):
        pass
    path = declared(tmp_path)
    path.write_text('[sizes]\ncore = { seeds = 2 }\n[blocks.one]\ntasks = ["chain", "cliff"]\nrewards = ["sparse"]\n')
    with pytest.raises(StoreError, match=r"one/cliff.*seeds \[0\] there, \[0 1\] here"):
        suites.compare_suite(suites.load_suite(path, "core"), out=out, progress=False)
    assert not (out / "one" / "chain").exists()


def test_a_suite_of_an_older_format_is_refused_before_anything_runs_with_the_command_that_migrates_it(tmp_path):
    out = tmp_path / "out"
    old = {"kind": "comparison", "format": 1, "identity": {}}
    for name in ("one/cliff", "two/four_rooms"):
        (out / name).mkdir(parents=True)
        (out / name / "records.jsonl").write_text(json.dumps(old) + "\n")
    path = declared(tmp_path)
    path.write_text(
        '[sizes]\nsmoke = { seeds = 1 }\n[blocks.one]\ntasks = ["chain", "cliff"]\nrewards = ["sparse"]\n'
        '[blocks.two]\ntasks = ["four_rooms"]\nrewards = ["sparse"]\n'
    )
    message = (
        rf"2 of 2 comparisons in {out} have an older format .*one/cliff the first: run `reward-design migrate {out}`"
    )
    with pytest.raises(StoreError, match=message):
        suites.compare_suite(suites.load_suite(path), out=out, progress=False)
    assert not (out / "one" / "chain").exists()
    assert len(migrate(out)) == 2
    assert not any(store.format_of(store.read(out / name)) < store.FORMAT for name in ("one/cliff", "two/four_rooms"))


def comparison(task, finals, distances=None):
    """Results of a task with the true returns of designs, and exact distances and regrets of some."""
    records = [{"kind": "comparison", "identity": {"agent": "ppo", "tasks": [task], "rewards": list(finals)}}]
    for reward, final in finals.items():
        records.append(
            {"kind": "unit", "task": task, "reward": reward, "status": "done", "seeds": list(range(len(final))),
             "final": {"true_return": list(final)}}
        )  # fmt: skip
    if distances:
        names = ["true reward", *distances]
        matrix = np.zeros((len(names), len(names)))
        matrix[0, 1:] = matrix[1:, 0] = [d for d, _ in distances.values()]
        regret = {name: r for name, (_, r) in distances.items()}
        records.append({"kind": "exact", "task": task, "names": names, "matrix": matrix.tolist(), "regret": regret,
                        "reason": None})  # fmt: skip
    return Results(records)


GENERATOR = np.random.default_rng(0)
RESULTS = {
    "a/chain": comparison(
        "chain",
        {"sparse": GENERATOR.normal(0, 1, 8), "good": GENERATOR.normal(5, 1, 8), "bad": GENERATOR.normal(-5, 1, 8)},
        {"sparse": (0.0, 0.0), "good": (0.3, 0.1), "bad": (1.2, 0.9)},
    ),
    "b/cliff": comparison(
        "cliff", {"sparse": GENERATOR.normal(0, 1, 8), "good": GENERATOR.normal(4, 1, 8)},
        {"sparse": (0.1, 0.3), "good": (0.5, 0.2)},
    ),
}  # fmt: skip


ANY = suites.load_suite("core", "core")


@pytest.fixture
def judged():
    return suites.verdict(RESULTS, ANY)


def test_scores_are_between_the_worst_and_the_best_design(judged):
    scores = normalised(RESULTS)
    middle = {key: np.sort(value)[2:6].mean() for key, value in scores.items()}
    np.testing.assert_allclose(middle["a/chain", "bad"], 0, atol=0.1)
    np.testing.assert_allclose(middle["a/chain", "good"], 1, atol=0.1)
    raw = {r: RESULTS["a/chain"].done["chain", r].final() for r in ("sparse", "good", "bad")}
    low, high = (np.sort(raw[r])[2:6].mean() for r in ("bad", "good"))
    np.testing.assert_allclose(scores["a/chain", "sparse"], np.clip((raw["sparse"] - low) / (high - low), 0, 1))


def test_lines_say_who_helped_where(judged):
    lines = {line.reward: line for line in judged.lines}
    assert lines["sparse"].improvement is None
    assert lines["good"].helped == ("a/chain", "b/cliff")
    assert lines["good"].harmed == ()
    assert lines["bad"].harmed == ("a/chain",)
    assert (lines["good"].num_tasks, lines["bad"].num_tasks) == (2, 1)
    scores = normalised(RESULTS)
    wins = [
        np.mean([(x > y) + (x == y) / 2 for x, y in itertools.product(scores[n, "good"], scores[n, "sparse"])])
        for n in RESULTS
    ]
    np.testing.assert_allclose(lines["good"].improvement.value, np.mean(wins))


def test_profiles_are_shares_of_runs(judged):
    levels, shares = judged.profiles
    scores = normalised(RESULTS)
    expected = np.mean([np.mean(scores[n, "good"] > levels[70]) for n in RESULTS])
    np.testing.assert_allclose(shares["good"][70], expected)
    assert (np.diff(shares["good"]) <= 0).all()


def test_rank_correlations_are_those_of_scipy(judged):
    distance, regret = [0.0, 0.3, 1.2, 0.1, 0.5], [0.0, 0.1, 0.9, 0.3, 0.2]
    found = judged.correlations["regret"]
    np.testing.assert_allclose(found.value, stats.spearmanr(distance, regret).statistic)
    assert found.low < found.value < found.high
    assert judged.correlations["loss"] is not None
    few = suites.verdict({"a/chain": RESULTS["a/chain"]}, judged.suite)
    assert few.correlations["regret"] is None


def test_a_block_is_named_where_two_have_the_task(judged):
    assert judged.tasks == {"a/chain": "chain", "b/cliff": "cliff"}
    assert "it helped on chain, cliff." in suites.sentences(judged)[0]
    both = suites.verdict({**RESULTS, "c/chain": RESULTS["a/chain"]}, judged.suite)
    assert both.tasks == {"a/chain": "a/chain", "b/cliff": "cliff", "c/chain": "c/chain"}


@pytest.mark.parametrize(
    ("distances", "said"),
    [
        ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], "goes with the regret"),
        ([0.6, 0.5, 0.4, 0.3, 0.2, 0.1], "goes against the regret"),
        ([0.3, 0.6, 0.1, 0.5, 0.2, 0.4], "tells nothing clear about the regret"),
    ],
)
def test_a_correlation_is_told_only_where_it_is_clear(distances, said):
    finals = {name: GENERATOR.normal(0, 1, 8) for name in ("sparse", *"abcde")}
    pairs = zip(distances, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6], strict=True)
    found = suites.verdict({"a/chain": comparison("chain", finals, dict(zip(finals, pairs, strict=True)))}, ANY)
    assert said in " ".join(suites.sentences(found))


def test_the_page_says_what_the_sentences_say(judged):
    page = suites.render(judged)
    assert "3 designs, 2 comparisons, 40 finished runs." in page  # five units of eight seeds, whatever was declared
    assert suites.sentences(judged)[0].startswith("good beats sparse in ")
    assert suites.sentences(judged)[0].split(" (")[0] in page
    assert '<a href="b/cliff/report.html">b/cliff</a>' in page
    assert "performance profiles" in page


def test_the_map_has_a_tile_and_a_score_for_every_design_on_every_task(judged):
    ax = Figure().add_subplot()
    suites.score_map(judged, ax)
    rows, columns = [[tick.get_text() for tick in ticks] for ticks in (ax.get_yticklabels(), ax.get_xticklabels())]
    assert (rows, columns) == (["sparse", "good", "bad"], ["chain", "cliff"])
    written = {(rows[int(y)], columns[int(x)]): text.get_text() for text in ax.texts for x, y in [text.get_position()]}
    scores = normalised(RESULTS)
    middles = {(r, n.split("/")[1]): interquartile_mean(score) for (n, r), score in scores.items()}
    assert written == {key: f"{middle:.2f}" for key, middle in middles.items()}
    colours = [to_hex(c).lower() for c in to_rgba_array(ax.collections[0].get_facecolor())]
    order = [(row, column) for row in rows for column in columns if (row, column) in middles]
    helped, harmed = (colours[order.index(key)] for key in (("good", "chain"), ("bad", "chain")))
    assert (helped, harmed) == (plots.GAIN, plots.LOSS)
    assert '"designs and tasks"' in suites.render(judged)


@pytest.mark.slow
def test_a_suite_runs_and_is_not_computed_again(tmp_path):
    suite = suites.load_suite(declared(tmp_path, more="agent = 'q_learning'"))
    first = suites.compare_suite(suite, out=tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "report.html").is_file()
    assert (tmp_path / "out" / "one" / "chain" / "report.html").is_file()
    page = (tmp_path / "out" / "report.html").read_text()
    (tmp_path / "out" / "report.html").unlink()
    assert cli.main(["report", str(tmp_path / "out"), "--suite", str(tmp_path / "mine.toml")]) == 0
    assert (tmp_path / "out" / "report.html").read_text() == page
    again = suites.compare_suite(suite, out=tmp_path / "out", progress=False)
    ours, theirs = first.results["one/chain"], again.results["one/chain"]
    assert len(theirs.records) == len(ours.records)
    np.testing.assert_array_equal(ours.done["chain", "dense"].final(), theirs.done["chain", "dense"].final())
