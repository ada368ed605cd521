"""Looks of lines: no two designs alike, also to eyes that lack a kind of cones, and the same in every picture."""

import itertools
import re

import matplotlib.colors
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from reward_design.experiments import plots, report
from reward_design.experiments.designs import DESIGNS
from reward_design.experiments.looks import _KNOWN, COLOURS, DASHES, SOLID, TRUE_REWARD, Look, looks
from reward_design.experiments.results import Results
from reward_design.experiments.suites import load_suite

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision Deficiency", 2009:
# what is left of linear RGB without the cones for red, green or blue.
EYES = {
    "all": np.eye(3),
    "without red": np.array([
        [0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]]),
    "without green": np.array([
        [0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]),
    "without blue": np.array([
        [1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]]),
}  # fmt: skip
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
FAR = 12.0
"""Least distance of two colours in CIELAB (1976) for lines of one pattern; about 2 can be seen side by side."""


def lab(colour, eye):
    rgb = np.array(matplotlib.colors.to_rgb(colour))
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    xyz = XYZ @ np.clip(EYES[eye] @ linear, 0, 1) / XYZ.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def apart(one, two):
    """How far two colours are for the eyes that tell them least."""
    return min(float(np.linalg.norm(lab(one, eye) - lab(two, eye))) for eye in EYES)


def confused(found):
    """Pairs of names whose lines look alike to some eyes."""
    pairs = itertools.combinations(found, 2)
    return [
        (a, b) for a, b in pairs if found[a].dashes == found[b].dashes and apart(found[a].colour, found[b].colour) < FAR
    ]


def test_the_distance_of_colours_is_that_of_cielab_and_knows_the_eyes():
    np.testing.assert_allclose(lab("#ff0000", "all"), [53.24, 80.09, 67.20], atol=0.05)
    np.testing.assert_allclose(lab("#ffffff", "without green"), [100, 0, 0], atol=0.05)
    assert np.linalg.norm(lab("#8b8f98", "all") - lab("#cc79a7", "all")) > 35
    assert apart("#8b8f98", "#cc79a7") < 5  # grey and pink, without the cones for green


@pytest.mark.parametrize(
    "names",
    [
        [f"mine:design_{i}" for i in range(16)],
        [f"mine:design_{i}" for i in range(20)],
        [*DESIGNS, TRUE_REWARD],
        ["sparse", "shaping", "naive", *(f"mine:design_{i}" for i in range(13))],
        ["sparse", "barfi/aligned", "barfi/misaligned", "naive/aligned", "naive/misaligned", "mine:design"],
        list(dict.fromkeys(name for block in load_suite("core", "full").blocks for name in block.rewards)),
    ],
    ids=["16", "20", "all", "mixed", "arguments", "core"],
)
def test_every_line_is_told_apart(names):
    found = looks(names)
    assert list(found) == names
    assert len(set(found.values())) == len(names)
    assert confused(found) == []


def test_looks_that_cannot_be_told_apart_would_be_found():
    assert confused({"a": Look("#8b8f98"), "b": Look("#cc79a7")}) == [("a", "b")]
    assert confused({"a": Look("#8b8f98"), "b": Look("#cc79a7", DASHES[0])}) == []


def test_colours_can_be_seen_on_white_and_on_black():
    for colour in (*COLOURS, *(look.colour for name, look in _KNOWN.items() if name != TRUE_REWARD)):
        assert 38 < lab(colour, "all")[0] < 75  # lightness from 0 to 100


def test_a_design_of_the_package_looks_the_same_in_every_company():
    for name in DESIGNS:
        alone = looks([name])[name]
        assert looks([*(f"mine:{i}" for i in range(12)), *reversed(DESIGNS)])[name] == alone
        assert plots.colours([name])[name] == alone.colour
    assert looks(["a", "b"]) == looks(["a", "b", "a"])
    assert looks(["a", "b"])["b"] != looks(["b", "a"])["b"]


def results(names):
    steps = np.arange(1, 11) * 100.0
    asked = {"tasks": ["room"], "rewards": names, "seeds": [0, 1], "agent": "ppo"}
    units = [
        {
            "kind": "unit", "task": "room", "reward": name, "status": "done", "seeds": [0, 1], "steps": steps.tolist(),
            "curves": {"true_return": [(steps * 0.001 + i * 0.05).tolist()] * 2}, "final": {},
        }
        for i, name in enumerate(names)
    ]  # fmt: skip
    return Results([{"kind": "comparison", "identity": asked}, *units])


@pytest.mark.parametrize("num_points", [1, 2])
def test_a_curve_can_be_seen_also_where_it_has_one_point(num_points):
    unit = {"kind": "unit", "task": "room", "reward": "sparse", "status": "done", "seeds": [0], "final": {}}
    unit |= {"steps": [100, 200], "curves": {"true_return": [[None, 0.5] if num_points == 1 else [0.2, 0.5]]}}
    asked = {"tasks": ["room"], "rewards": ["sparse"], "seeds": [0], "agent": "ppo"}
    figure = Figure(figsize=(4, 3), layout="constrained")
    ax = plots.learning_curves(Results([{"kind": "comparison", "identity": asked}, unit]), "room", figure.add_subplot())
    for text in ax.texts:
        text.set_visible(False)  # what is left in the colour of the design is its curve
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    colour = np.round(np.array(matplotlib.colors.to_rgb(looks(["sparse"])["sparse"].colour)) * 255)
    assert (np.abs(np.asarray(canvas.buffer_rgba())[..., :3] - colour) <= 1).all(-1).sum() > 10


def test_learning_curves_of_sixteen_designs_have_sixteen_looks_and_names_that_do_not_overlap():
    names = ["sparse", "shaping", *(f"mine:design_{i}" for i in range(14))]
    figure = Figure(figsize=(5.4, 3.3), layout="constrained")
    ax = plots.learning_curves(results(names), "room", figure.add_subplot())
    figure.draw_without_rendering()
    curves, samples = ([x for x in ax.lines if bool(x.get_transform() == ax.transAxes) is s] for s in (False, True))
    drawn = [{(x.get_color(), str(x._unscaled_dash_pattern)) for x in lines} for lines in (curves, samples)]
    assert len(curves) == len(samples) == 16
    assert drawn[0] == drawn[1]
    assert len(drawn[0]) == 16
    boxes = sorted((text.get_window_extent() for text in ax.texts), key=lambda box: box.y0)
    assert all(low.y1 - high.y0 < 0.4 * low.height for low, high in itertools.pairwise(boxes))
    assert all(figure.bbox.x1 >= box.x1 for box in boxes)


def test_the_report_carries_the_dashes_and_plain_lines_stay_plain():
    page = report._curves(results(["sparse", "mine:design"]), "room")
    assert len(re.findall(r"stroke-dasharray", page)) == 2  # the curve and its sample
    assert "stroke-dasharray" not in report._curves(results(["sparse", "shaping"]), "room")
    assert looks(["shaping"])["shaping"].dashes == SOLID
