"""The parts of a page: each has a version, so that the browser asks again only for what has changed."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import quote

import jinja2
from markupsafe import Markup, escape

from reward_design.experiments import plots, report
from reward_design.experiments.dashboard import pictures, reading, searches, states
from reward_design.experiments.dashboard.reading import Experiment, Tree
from reward_design.experiments.results import Results

MAX_FILES = 60
"""Clips, and pictures, of one page."""
NAMES = {
    "comparison": "Comparison", "run": "Run", "search": "Search for a reward", "distances": "Distances",
    "unknown": "Unknown",
}  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """One part of a page.

    Attributes:
        id: name, unique on the page.
        title: heading.
        note: a line below it.
        version: another text whenever the content may be another one.
        render: the content as HTML, given the metric of curves.
    """

    id: str
    title: str
    note: str
    version: str
    render: Callable[[str], str]


def panels(tree: Tree, path: str) -> list[Panel]:
    """The parts of the page of a folder, in order."""
    found: list[Panel] = []
    experiment = tree.experiments.get(path)
    try:
        found += list(_of(experiment)) if experiment is not None else []
    except Exception as error:  # records of another program, or of another version: say so and show the rest
        found.append(_ready("unreadable", "What cannot be shown", "", _sentence(error)))
    troubles = [*tree.troubles, *(experiment.troubles if experiment else [])]
    if troubles:
        found.insert(0, _ready("troubles", "What could not be read", "", _list(troubles)))
    return [*found, *_below(tree, path)]


def title(tree: Tree, path: str) -> str:
    """Heading of a page."""
    experiment = tree.experiments.get(path)
    return _what(experiment) if experiment is not None else path or "Results"


def line(tree: Tree, path: str) -> str:
    """How far it is, in one line."""
    experiment, inside = tree.experiments.get(path), tree.below(path)
    if experiment is not None:
        return _state(experiment)
    busy = sum(_state(e).startswith("running") for e in inside)
    return f"{len(inside)} experiment{'' if len(inside) == 1 else 's'}, {busy} running"


def failed_to_draw(error: Exception) -> str:
    """The content of a part that cannot be drawn."""
    return _sentence(error)


# --- by kind --------------------------------------------------------------------------------------------------------


def _of(experiment: Experiment) -> Iterator[Panel]:
    makers = {"comparison": _comparison, "run": _run, "search": _search, "distances": _distances}
    if experiment.kind in makers:
        yield from makers[experiment.kind](experiment)
    if experiment.distances and experiment.kind != "distances":
        yield from _distances(experiment)


def _comparison(experiment: Experiment) -> Iterator[Panel]:
    found = states.units(experiment)
    known = pictures.results(experiment)
    names, colours = plots.shown(known.rewards), plots.colours(known.rewards)
    content = _template(
        "board_units.html.j2", tasks=known.tasks, rewards=known.rewards, units=found, names=names, colours=colours,
        note=states.state(experiment).note,
        failed={name: unit for name, unit in found.items() if unit.status == "failed"},
    )  # fmt: skip
    yield _ready("state", "How far it is", "true return at the end, interquartile mean over seeds", content)
    for task in known.tasks:
        yield from _curves(experiment, known, task)
        exact = known.exact.get(task, {})
        if len(exact.get("names", ())) > 1:
            note, drawn = (
                "STARC: 0 the same task, 2 the opposite one; exact, from the task's dynamics",
                partial(_exact, exact),
            )
            version = _hash(exact["names"], exact["matrix"])
            yield Panel(f"distances/{task}", f"Distances on {task}", note, version, drawn)


def _run(experiment: Experiment) -> Iterator[Panel]:
    found = states.state(experiment)
    lines = [r for r in experiment.records if r["kind"] == "evaluation"]
    content = _template("board_run.html.j2", state=found, last=lines[-1] if lines else {}, identity=experiment.identity)
    yield _ready("state", "How far it is", "", content)
    if lines:
        known = pictures.results(experiment)
        yield from _curves(experiment, known, known.tasks[0])


def _search(experiment: Experiment) -> Iterator[Panel]:
    listed = searches.candidates(experiment.records)
    used = [r["value"].get("used") for r in experiment.records if r["kind"] == "answer" and r.get("value")]
    found = states.state(experiment)
    content = _template(
        "board_search.html.j2", state=found, used=next((u for u in reversed(used) if u), None),
        identity=experiment.identity, best=searches.best(listed),
    )  # fmt: skip
    yield _ready("state", "How far it is", "", content)
    if any(map(searches.trained, listed)):
        note = "success of the task itself, whatever a candidate pays; means over seeds"
        version = _hash([c["id"] for c in listed if searches.trained(c)])
        yield Panel("curves", "Success while learning", note, version, lambda _: _figure(pictures.success(listed)))
    content = _template(
        "board_candidates.html.j2", candidates=listed, best=searches.best(listed), status=searches.status,
        score=searches.score,
    )  # fmt: skip
    yield _ready("candidates", "Candidates", "a row opens its terms or code, and why it was refused", content)


def _distances(experiment: Experiment) -> Iterator[Panel]:
    found = experiment.distances
    exact = found.get("settings", {}).get("exact")
    note = f"STARC: 0 the same task, 2 the opposite one; {'exact' if exact else 'from samples'}"
    yield Panel(
        "distances", f"Distances on {found.get('task', '?')}", note, _hash(found), partial(_measured, found)
    )  # fmt: skip


def _curves(experiment: Experiment, known: Results, task: str) -> Iterator[Panel]:
    mine = {reward: unit for (where, reward), unit in known.done.items() if where == task and unit.record["curves"]}
    if not mine:
        return
    version = _hash({r: [u.record["steps"][-1], u.record["seeds"], u.record.get("time")] for r, u in mine.items()})
    note = "interquartile mean over seeds, band: 95 % interval" if experiment.kind == "comparison" else ""
    yield Panel(f"curves/{task}", f"Learning on {task}", note, version, partial(_drawn_curves, known, task))
    if any(pictures.term_names(unit) for unit in mine.values()):
        note = "what each term of the reward paid per episode, while learning"
        drawn = partial(_drawn_terms, known, task, list(mine))
        yield Panel(f"terms/{task}", f"Terms of the rewards on {task}", note, version, drawn)


def _below(tree: Tree, path: str) -> Iterator[Panel]:
    """Experiments, clips, pictures and pages under a folder."""
    inside = tree.below(path)
    pages = tree.files_below(path, reading.PAGES)
    if inside or (pages and path in tree.experiments) or not path:
        rows = [{"path": e.path, "what": _what(e), "state": _state(e), "age": states.age(e)} for e in inside]
        content = _template("board_contents.html.j2", rows=rows, pages=pages, link=_link, empty=not (rows or pages))
        yield _ready("contents", "Experiments in this folder" if rows else "Pages in this folder", "", content)
    for name, heading, kinds in (("clips", "Clips", reading.CLIPS), ("pictures", "Pictures", reading.PICTURES)):
        files = tree.files_below(path, kinds)
        if files:
            note = f"the first {MAX_FILES} of {len(files)}" if len(files) > MAX_FILES else ""
            content = _template("board_files.html.j2", files=files[:MAX_FILES], link=_link, is_video=_is_video)
            yield _ready(name, heading, note, content)


# --- contents -------------------------------------------------------------------------------------------------------


def _drawn_curves(known: Results, task: str, metric: str) -> str:
    return _figure(pictures.curves(known, task, metric if metric in pictures.METRICS else "true_return"))


def _drawn_terms(known: Results, task: str, rewards: list[str], _: str) -> str:
    names = plots.shown(known.rewards)
    drawn = [(r, pictures.terms(known, task, r)) for r in rewards if pictures.term_names(known.done[task, r])]
    figures = [
        Markup("<figure><figcaption><b>{}</b></figcaption>{}</figure>").format(names[r], svg) for r, svg in drawn
    ]
    return Markup('<div class="trio">{}</div>').format(Markup("").join(figures))


def _exact(exact: Mapping[str, Any], _: str) -> str:
    numbers = _template("board_matrix.html.j2", names=plots.shown(exact["names"]), matrix=exact["matrix"], regret={})
    return _figure(report.heatmap(exact, exact["task"]), "plain") + numbers


def _measured(found: Mapping[str, Any], _: str) -> str:
    numbers = _template(
        "board_matrix.html.j2", names=plots.shown(found["names"]), matrix=found["matrix"], regret=found["regret"],
        notes=found.get("notes", ()),
    )  # fmt: skip
    return _figure(pictures.heatmap(found), "plain") + numbers


def _figure(svg: Markup, style: str = "") -> str:
    return Markup('<figure class="{}">{}</figure>').format(style, svg)


def _what(experiment: Experiment) -> str:
    """An experiment in a few words."""
    asked = experiment.identity
    try:
        if experiment.kind == "comparison":
            num_tasks = len(asked["tasks"])
            where = asked["tasks"][0] if num_tasks == 1 else f"{num_tasks} tasks"
            return f"{len(asked['rewards'])} designs compared on {where}"
        if experiment.kind == "run":
            return f"{asked['agent']} on {asked['task']} with {asked['reward']}"
        if experiment.kind == "search":
            return f"A reward for {asked['task']}, designed by {asked['preset']}"
        if experiment.kind == "distances":
            return f"Distances on {experiment.distances['task']}"
    except (KeyError, TypeError, IndexError):
        pass
    return NAMES[experiment.kind]


def _state(experiment: Experiment) -> str:
    try:
        return str(states.state(experiment))
    except Exception as error:  # as in panels()
        return f"cannot be read ({type(error).__name__})"


def _link(path: str) -> str:
    return quote(path)


def _is_video(path: str) -> bool:
    return PurePosixPath(path).suffix.lower() in (".mp4", ".webm")


def _ready(name: str, heading: str, note: str, content: str) -> Panel:
    return Panel(name, heading, note, _hash(content), lambda _: content)


def _sentence(error: Exception) -> str:
    text = (
        f"This part cannot be shown: its records are not as this version writes them ({type(error).__name__}: {error})."
    )
    return Markup('<p class="trouble">{}</p>').format(text)


def _list(sentences: list[str]) -> str:
    return Markup('<ul class="trouble">{}</ul>').format(Markup("").join(f"<li>{escape(s)}</li>" for s in sentences))


def _hash(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, default=str, sort_keys=True).encode()).hexdigest()[:16]


def _template(name: str, **values: Any) -> Markup:
    return Markup(environment().get_template(name).render(**values))


@lru_cache(maxsize=1)
def environment() -> jinja2.Environment:
    """Templates of the package."""
    loader = jinja2.PackageLoader("reward_design.experiments", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"number": report.number, "percent": report.percent}
    return environment
