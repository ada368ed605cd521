"""The page of a suite: which design helped where, in words, a table and pictures."""

import os
from dataclasses import replace
from typing import Any

import jinja2

from reward_design.experiments import plots, report
from reward_design.experiments.store import REPORT
from reward_design.experiments.suites import picture
from reward_design.experiments.suites.verdict import Verdict, sentences


def write(judged: Verdict, out: str | os.PathLike[str]) -> Verdict:
    """Write ``out/report.html``, and return the verdict with its path."""
    return replace(judged, report=str(report.put(render(judged), out)))


def render(judged: Verdict) -> str:
    """The page as HTML text; links lead to the reports of the comparisons beside it."""
    loader = jinja2.PackageLoader("reward_design.experiments", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": report.number, "percent": report.percent, "percents": report.percents}
    looks = plots.looks(judged.rewards)
    levels, shares = judged.profiles

    def profile(axes: Any) -> None:
        for reward, share in shares.items():
            axes.plot(levels, share, **looks[reward].line, linewidth=1.6)
        plots.label_ends(axes, {reward: float(share[0]) for reward, share in shares.items()}, looks)
        axes.set_xlabel("normalised score")
        axes.set_ylabel("share of runs above it")
        axes.invert_xaxis()

    def score_map(axes: Any) -> None:
        picture.score_map(judged, axes)

    width, height = 2.2 + 0.62 * len(judged.results), 1.5 + 0.3 * len(judged.rewards)
    return environment.get_template("suite.html.j2").render(
        judged=judged,
        sentences=sentences(judged),
        colours=plots.colours(judged.rewards),
        names=plots.shown(judged.rewards),
        profiles=report.svg(profile, 6.8, max(3.6, 0.24 * len(shares)), "performance profiles") if shares else None,
        score_map=report.svg(score_map, width, height, "designs and tasks") if shares else None,
        links={
            name: f"{name.split('/')[0]}/{name.split('/', 1)[1].replace('/', '-')}/{REPORT}" for name in judged.results
        },
    )
