"""The report and its pictures, from records of small real arrays."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.figure import Figure

from reward_design.experiments import plots, report
from reward_design.experiments.results import Results, curve_band
from reward_design.experiments.units import summary

SEEDS, UPDATES = 4, 30
META = {"versions": {"jax": "0.10"}, "device": "2 x cpu (test)", "commit": None, "time": "2026-01-01T00:00:00+00:00"}


def unit(task, reward, level, rng) -> dict:
    progress = 1 - np.exp(-np.arange(UPDATES) / 6)
    true_return = level * progress + 0.02 * rng.normal(size=(SEEDS, UPDATES))
    true_return[:, 0] = np.nan
    metrics = dict.fromkeys(("true_return", "shaped_return", "success"), true_return)
    metrics |= {
        "length": 10 + 0 * true_return,
        "episodes": np.ones_like(true_return),
        "entropy": np.ones_like(true_return),
    }
    metrics["episodes"][:, 0] = 0
    record = {"kind": "unit", "task": task, "reward": reward, "seeds": list(range(SEEDS)), "status": "done"}
    times = {"wall_s": 61.0, "compile_s": 2.0, "env_steps": 1200, "steps_per_s": 1000}
    return {**record, **META, **times, **summary(metrics, 10)}


def exact(task, names):
    cells = [[0, 0], [0, 1], [1, 0], [1, 1]]
    layout = {
        "walls": [[0, 0], [0, 0]], "cells": cells + cells[:2], "layer": [0, 0, 0, 0, 1, 1], "layer_names": ["a", "b"],
        "arrows": [[-1, 0], [0, 1]], "marks": [[1, 1, "G"]],
    }  # fmt: skip
    distances = np.abs(np.subtract.outer(np.arange(len(names)), np.arange(len(names)))) * 0.4
    return {
        "kind": "exact", "task": task, "description": "A small & <square> room.", "reason": None, "names": names,
        "missing": {"count_bonus": "not pointwise"}, "matrix": distances,
        "regret": {name: 0.3 * i for i, name in enumerate(names) if i}, "terminal": [0, 0, 0, 1, 0, 0],
        "maps": {name: [0.0, 0.1, -0.5, 0.0, 1.0, 0.2] for name in names},
        "greedy": {name: [[1, 0], [1, 1], [0, 1], [1, 1], [1, 0], [0, 1]] for name in names}, "layout": layout,
    }  # fmt: skip


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(0)
    rewards = ["sparse", "shaping", "my:own"]
    identity = {
        "agent": "ppo", "seeds": list(range(SEEDS)), "tasks": ["room", "hill"], "rewards": rewards,
        "config": {"room": {"total_timesteps": 300, "gamma": 0.9}, "hill": {"total_timesteps": 600, "gamma": 0.9}},
    }  # fmt: skip
    levels = {"sparse": 0.5, "shaping": 1.0, "my:own": 0.1}
    units = [unit(t, r, levels[r], rng) for t in identity["tasks"] for r in rewards if (t, r) != ("hill", "my:own")]
    failed = {
        **units[0],
        "task": "hill",
        "reward": "my:own",
        "status": "failed",
        "reason": "term 'x' was <NaN> at step 3",
    }
    session = {"kind": "session", "command": "reward-design compare --task room hill", **META}
    hill = {"kind": "exact", "task": "hill", "reason": "this task has no exact dynamics"}
    room = exact("room", ["true reward", "sparse", "shaping"])
    return Results([{"kind": "comparison", "identity": identity}, session, room, hill, *units, failed])


@pytest.fixture(scope="module")
def page(results):
    return report.render(results)


class Outline(HTMLParser):
    """Tags left open, and everything the page would load."""

    void = frozenset({"meta", "br", "link", "img", "input", "hr"})

    def __init__(self, text):
        super().__init__()
        self.open, self.loads, self.svgs = [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.svgs += tag == "svg"
        self.loads += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("#", "data:"))]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in self.void:
            self.open.pop()


def test_page_is_whole_and_loads_nothing(page):
    outline = Outline(page)
    assert outline.open == []
    assert outline.loads == []
    assert "<script" not in page
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)
    assert outline.svgs == 2 + 3 + 3  # curves; heat map and two scatters; a map for each design and the true reward


def test_page_says_what_was_found(page, results):
    headline = report.headline(results)
    assert headline[0].startswith(
        "Over 2 tasks, shaping improves most on sparse: a run with it is the better one in 100 %"
    )
    assert headline[0].endswith("; worse than it: own 0 %.")
    assert headline[1].startswith("On room, shaping reaches the highest true return, 0.9")
    assert len(headline) == 3
    assert "reward-design compare --task room hill" in page
    assert "term &#39;x&#39; was &lt;NaN&gt; at step 3" in page
    assert "A small &amp; &lt;square&gt; room." in page
    assert "this task has no exact dynamics" in page
    assert "count_bonus (not pointwise)" in page
    assert "2 x cpu (test)" in page


def test_pictures_use_the_colours_of_the_theme(page):
    pictures = re.findall(r"<svg .*?</svg>", page, flags=re.DOTALL)
    for colour, variable in ((plots.INK, "--ink"), (plots.MUTED, "--muted"), (plots.RULE, "--rule")):
        assert not any(colour in picture for picture in pictures)
        assert any(f"var({variable})" in picture for picture in pictures)
    assert "DejaVu" not in "".join(pictures)
    assert any(plots.colours(["my:own"])["my:own"] in picture for picture in pictures)


def test_the_same_records_give_the_same_page(page, results):
    assert report.render(Results(results.records)) == page


def test_page_of_a_comparison_without_finished_runs():
    identity = {
        "agent": "ppo",
        "seeds": [0],
        "tasks": ["room"],
        "rewards": ["sparse"],
        "config": {"room": {"gamma": 1}},
    }
    empty = Results([{"kind": "comparison", "identity": identity}])
    assert "No run has finished yet." in report.render(empty)


def test_rows_and_improvement(results):
    rows = {(row.task, row.reward): row for row in results.rows}
    assert list(rows) == [(t, r) for t in ("room", "hill") for r in ("sparse", "shaping", "my:own")]
    assert rows["room", "sparse"].improvement is None
    assert rows["room", "shaping"].improvement.value == 1.0
    assert rows["room", "my:own"].improvement.value == 0.0
    assert rows["hill", "my:own"].true_return is None
    assert results.improvement("shaping").value == 1.0
    finals = results.done["room", "shaping"].final()
    assert rows["room", "shaping"].true_return.low <= np.median(finals) <= rows["room", "shaping"].true_return.high


def test_curve_band_starts_where_every_seed_has_an_episode(results):
    steps, band = curve_band(results.done["room", "shaping"])
    assert steps.tolist() == [10.0 * (i + 1) for i in range(UPDATES)]
    assert np.isnan(band.value[0])
    assert np.isfinite(band.value[1:]).all()
    assert (band.low[1:] <= band.value[1:]).all()
    assert (band.value[1:] <= band.high[1:]).all()


def test_plot_functions_return_the_axes_they_got(results):
    record = results.exact["room"]
    for draw in (
        lambda ax: plots.learning_curves(results, "room", ax, metric="success"),
        lambda ax: plots.distance_heatmap(record, ax),
        lambda ax: plots.distance_scatter(results, "room", ax),
        lambda ax: plots.distance_scatter(results, "room", ax, against="true_return"),
        lambda ax: plots.reward_map(record, "sparse", ax, layer=1),
    ):
        ax = Figure().add_subplot()
        assert draw(ax) is ax
        assert ax.has_data() or ax.texts


def test_labels_are_moved_apart_and_keep_their_order():
    wanted = {"a": 0.5, "b": 0.5, "c": 0.51, "d": 0.99, "e": 1.0}
    placed = plots._spread(wanted, 0.075)
    ordered = sorted(placed, key=lambda name: placed[name])
    assert ordered[2:] == ["c", "d", "e"]
    assert np.diff([placed[k] for k in ordered]).min() > 0.07
    assert min(placed.values()) >= 0
    assert max(placed.values()) <= 1
    assert plots._spread({"a": 0.2, "b": 0.8}, 0.075) == {"a": 0.2, "b": 0.8}
    assert plots._spread({}, 0.1) == {}


def test_design_colours_are_fixed_and_distinct():
    names = ["sparse", "dense", "shaping", "aligned", "misaligned", "count_bonus", "environment", "my:own", "other"]
    assert len(set(plots.colours(names).values())) == len(names)
    assert plots.colours(["my:own", "dense"])["dense"] == plots.colours(names)["dense"]


def test_numbers_in_words():
    e = report.Estimate
    assert report.number(e(-0.5, -0.6, -0.4), 2) == "\u22120.50"
    assert report.interval(e(0.5, 0.25, 1.0), 1) == "0.2 to 1.0"
    assert report.digits([e(0.5, 0.0, 1.0)]) == 2
    assert report.digits([e(-150.0, -200.0, -100.0), None]) == 0
    assert report.digits([e(1.0, 1.0, 1.0)]) == 2
    assert report.percent(0.974) == "97 %"
    assert report.steps(60000) == "60,000"
    assert report.steps(2.4e6) == "2.4 million"
    assert report.seconds(185) == "3 min 5 s"
