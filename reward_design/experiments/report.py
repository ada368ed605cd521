"""One self-contained HTML page from the records of a comparison: no scripts, no network, light and dark."""

import contextlib
import io
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jinja2
import matplotlib
import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from reward_design.experiments import alignment, plots
from reward_design.experiments.results import Results, Row
from reward_design.experiments.statistics import Estimate
from reward_design.experiments.store import REPORT, StoreError

_THEME = {plots.INK: "--ink", plots.MUTED: "--muted", plots.RULE: "--rule", plots.WALL: "--wall"}


def render(results: Results) -> str:
    """The report as HTML text.

    Args:
        results: of :func:`reward_design.experiments.compare`, or read with ``Results.load``.

    Returns:
        A page without references to other files.
    """
    loader = jinja2.PackageLoader("reward_design.experiments", "templates")
    environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "number": number,
        "percent": percent,
        "percents": percents,
        "steps": steps,
        "seconds": seconds,
    }
    rows = results.rows
    return environment.get_template("report.html.j2").render(
        headline=headline(results),
        results=results,
        colours=plots.colours(results.rewards),
        names=_names(results),
        tasks=[_task(results, name, [row for row in rows if row.task == name]) for name in results.tasks],
        overall=_overall(results) if len(results.tasks) > 1 else [],
        num_seeds=len(results.identity["seeds"]),
        totals=_totals(results),
        settings=_settings(results),
    )


def write(results: Results, out: str | os.PathLike[str]) -> Results:
    """Write ``out/report.html``, and return the results with its path. An earlier report stays whole until then.

    Raises:
        StoreError: if it cannot be written there.
    """
    return Results(results.records, str(put(render(results), out)))


def put(page: str, out: str | os.PathLike[str]) -> Path:
    """Write a page as ``out/report.html``, whole or not at all."""
    path = Path(out) / REPORT
    draft = path.with_suffix(".html.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_text(page, encoding="utf-8")
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise StoreError(
            f"the report {path} could not be written ({error.strerror}), the records are kept; make room there, or get "
            "the right to write, and run the same command again."
        ) from error
    return path


def headline(results: Results) -> list[str]:
    """What was found, in plain sentences, the most important first."""
    tasks = [s for task in results.tasks for s in _headline(results, task)]
    return [*_headline_overall(results), *tasks] or ["No run has finished yet."]


def svg(draw: Callable[[Any], Any], width: float, height: float, label: str, *, columns: int = 1) -> Markup:
    """A picture as inline SVG in the colours of the reader's theme.

    Args:
        draw: called with the ``Axes``, or with a list of them if ``columns`` is above 1.
        width: inches.
        height: inches.
        label: description for screen readers.
        columns: axes side by side.
    """
    style: Any = {**plots.STYLE, "svg.hashsalt": label}
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), layout="constrained")
        axes = [figure.add_subplot(1, columns, i + 1) for i in range(columns)]
        draw(axes if columns > 1 else axes[0])
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = re.sub(r"^.*?<svg ", "<svg ", text, count=1, flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"'DejaVu Sans'(, [^,;\"]+)*", "var(--sans)", text)
    for colour, variable in _THEME.items():
        text = re.sub(colour, f"var({variable})", text, flags=re.IGNORECASE)
    head = f'<svg role="img" aria-label="{Markup.escape(label)}" '
    return Markup(text.replace("<svg ", head, 1))


def heatmap(exact: Mapping[str, Any], task: str) -> Markup:
    """The matrix of distances in an exact record, in a size that fits its names."""
    longest = max(map(len, plots.shown(exact["names"]).values()))
    size = 0.3 + 0.52 * len(exact["names"])
    width, height = size + 0.09 * longest, size + 0.055 * longest
    return svg(lambda ax: plots.distance_heatmap(exact, ax), width, height, f"STARC distances on {task}")


def number(value: float | Estimate | None, digits: int = 2) -> str:
    """``0.97``, with a proper minus; a dash for nothing."""
    if value is None:
        return "–"
    return f"{value.value if isinstance(value, Estimate) else value:.{digits}f}".replace("-", "\u2212")


def interval(value: Estimate | None, digits: int = 2) -> str:
    """``0.95 to 0.98``."""
    return "" if value is None else f"{number(value.low, digits)} to {number(value.high, digits)}"


def digits(estimates: Iterable[Estimate | None]) -> int:
    """Decimals that tell apart about 100 values in the range of the estimates, so that a column has one format."""
    known = [e for e in estimates if e is not None]
    if not known:
        return 2
    span = max(e.high for e in known) - min(e.low for e in known) or max(abs(known[0].value), 1e-6)
    return int(np.clip(2 - np.ceil(np.log10(span)), 0, 5))


def percent(value: Estimate | float | None) -> str:
    """``97 %``."""
    if value is None:
        return "–"
    return f"{100 * (value.value if isinstance(value, Estimate) else value):.0f} %"


def percents(value: Estimate | None) -> str:
    """``50–75 %``."""
    return "" if value is None else f"{100 * value.low:.0f}–{100 * value.high:.0f} %"


def steps(number: float | int) -> str:
    """``1.2 million``, ``60,000``."""
    return f"{number / 1e6:.3g} million" if number >= 1e6 else f"{number:,.0f}"


def seconds(number: float | int) -> str:
    """``12.3 s``, ``3 min 5 s``."""
    return f"{number:.1f} s" if number < 60 else f"{int(number) // 60} min {int(number) % 60} s"


# --- parts of the page ----------------------------------------------------------------------------------------------


def _headline(results: Results, task: str) -> list[str]:
    rows = [row for row in results.rows if row.task == task and row.true_return is not None]
    if not rows:
        return []
    decimals = digits(row.true_return for row in rows)
    rows.sort(key=lambda row: (-round(_value(row.true_return), decimals), -_value(row.over_training)))
    best = [row for row in rows if number(row.true_return, decimals) == number(rows[0].true_return, decimals)]
    names = plots.shown(results.rewards)
    rest = [f"{names[row.reward]} {number(row.true_return, decimals)}" for row in rows if row not in best]
    first = f"On {task}, {_listed([names[row.reward] for row in best])}"
    top = number(best[0].true_return, decimals)
    if len(best) == len(rows) > 1:
        return [f"{first} end at the same true return, {top}; {names[best[0].reward]} learns soonest."]
    verb = "reaches" if len(best) == 1 else "reach"
    soonest = f" ({names[best[0].reward]} soonest)" if len(best) > 1 else ""
    return [f"{first} {verb} the highest true return, {top}{soonest}{'; ' if rest else ''}{_listed(rest)}."]


def _headline_overall(results: Results) -> list[str]:
    """Over several tasks: the design that improves most on the baseline, and those that are worse than it."""
    found = [row for row in _overall(results) if len(results.tasks) > 1]
    if not found:
        return []
    found.sort(key=lambda row: -row["improvement"].value)
    best, text = found[0], f"Over {len(results.tasks)} tasks, "
    if best["improvement"].value > 0.5:
        text += f"{_name(results, best)} improves most on {results.baseline}: a run with it is the better one in "
        text += f"{percent(best['improvement'])} of pairs ({percents(best['improvement'])})"
    else:
        text += f"no design improves on {results.baseline}"
    worse = [f"{_name(results, row)} {percent(row['improvement'])}" for row in found if row["improvement"].high < 0.5]
    return [f"{text}{'; worse than it: ' if worse else ''}{_listed(worse)}."]


def _names(results: Results) -> dict[str, str]:
    """How designs are written, those included that only the exact part knows."""
    exact = [
        name for record in results.exact.values() for name in (*record.get("names", ()), *record.get("missing", ()))
    ]
    return plots.shown(dict.fromkeys([plots.TRUE_REWARD, *results.rewards, *exact]))


def _name(results: Results, row: Mapping[str, Any]) -> str:
    return plots.shown(results.rewards)[row["reward"]]


def _value(value: Estimate | None) -> float:
    return -np.inf if value is None else value.value


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def _task(results: Results, task: str, rows: Sequence[Row]) -> dict[str, Any]:
    exact = results.exact.get(task, {})
    decimals = digits(row.true_return for row in rows)
    has_matrix = len(exact.get("names", ())) > 1
    done = any(row.true_return is not None for row in rows)
    return {
        "name": task,
        "rows": [
            {**vars(row), "bar": _bar(row.true_return, rows), "interval": interval(row.true_return, decimals)}
            for row in rows
        ],
        "digits": decimals,
        "curves": _curves(results, task) if done else "",
        "alignments": _alignments(results, task),
        "exact": exact,
        "heatmap": heatmap(exact, task) if has_matrix else "",
        "scatters": _scatters(results, task) if has_matrix else [],
        "maps": _maps(exact, task),
    }


def _curves(results: Results, task: str) -> Markup:
    return svg(lambda ax: plots.learning_curves(results, task, ax), 5.4, 3.3, f"Learning curves on {task}")


def _alignments(results: Results, task: str) -> list[dict[str, Any]]:
    """What BARFI concluded about each heuristic on a task, with its picture."""
    found = []
    for (where, reward), unit in results.done.items():
        auxiliary = alignment.learned(reward)
        if where != task or auxiliary is None or "phi3" not in unit.record["curves"]:
            continue
        curves = {name: unit.curve(name)[1] for name in (*alignment.WEIGHTS, "discount")}
        draw = partial(_alignment, unit.curve("phi3")[0], curves)
        picture = svg(draw, 7.4, 2.9, f"Weights that {reward} learned on {task}", columns=2)
        found.append({"name": reward, "text": alignment.of_unit(unit, auxiliary), "picture": picture})
    return found


def _alignment(steps: Any, curves: Mapping[str, Any], axes: Any) -> None:
    alignment.weights(steps, curves, axes[0]).set_title("weights", fontsize=9)
    alignment.discount(steps, curves, axes[1]).set_title("discount of the learner", fontsize=9)


def _scatters(results: Results, task: str) -> list[dict[str, Any]]:
    titles = {
        "regret": ("Regret of the policy that is optimal for the design", "exact; 0 is optimal, 1 the worst policy"),
        "true_return": ("True return that the agent reached", "interquartile mean, 95 % interval"),
    }

    def picture(kind: str) -> Markup:
        label = f"{titles[kind][0]} against STARC distance on {task}"
        return svg(lambda ax: plots.distance_scatter(results, task, ax, against=kind), 3.9, 3.2, label)

    return [{"title": title, "note": note, "svg": picture(kind)} for kind, (title, note) in titles.items()]


def _maps(exact: Mapping[str, Any], task: str) -> list[dict[str, Any]]:
    if not exact.get("layout") or not exact.get("maps"):
        return []
    layers = exact["layout"]["layer_names"]
    height, width = np.shape(exact["layout"]["walls"])
    unit = min(3.4 / max(width, height), 5.5 / (width * len(layers)), 0.42)

    def draw(name: str, axes: Any) -> None:
        for layer, ax in enumerate(axes if len(layers) > 1 else [axes]):
            plots.reward_map(exact, name, ax, layer=layer)
            if len(layers) > 1:
                ax.set_title(layers[layer], fontsize=8.5, color=plots.MUTED, pad=3)

    def picture(name: str) -> Markup:
        label = f"Reward and greedy policy of {name} on {task}"
        size = (unit * width * len(layers) + 0.12, unit * height + (0.28 if len(layers) > 1 else 0.1))
        return svg(lambda axes: draw(name, axes), *size, label, columns=len(layers))

    return [{"name": name, "svg": picture(name), "range": _map_range(exact["maps"][name])} for name in exact["maps"]]


def _map_range(values: Sequence[float]) -> str:
    low, high = np.min(values), np.max(values)
    return f"{low:.3g} to {high:.3g}".replace("-", "\u2212")


def _bar(value: Estimate | None, rows: Sequence[Row]) -> dict[str, float] | None:
    """Positions in percent of an interval on the common scale of a task."""
    shown = [row.true_return for row in rows if row.true_return is not None]
    if value is None or not shown:
        return None
    low, high = min(e.low for e in shown), max(e.high for e in shown)
    span = (high - low) or 1.0
    return {k: round(3 + 94 * (getattr(value, k) - low) / span, 2) for k in ("low", "value", "high")}


def _overall(results: Results) -> list[dict[str, Any]]:
    found = [(reward, results.improvement(reward)) for reward in results.rewards]
    return [
        {"reward": reward, "improvement": value, "bar": {k: 100 * getattr(value, k) for k in ("low", "value", "high")}}
        for reward, value in found
        if value is not None
    ]


def _totals(results: Results) -> dict[str, Any]:
    done = [unit.record for unit in results.done.values()]
    return {
        "runs": sum(len(r["seeds"]) for r in done),
        "env_steps": sum(r["env_steps"] for r in done),
        "wall_s": sum(r["wall_s"] for r in done),
        "compile_s": sum(r["compile_s"] for r in done),
    }


def _settings(results: Results) -> dict[str, Any]:
    """Settings that all tasks share, and per task those that differ."""
    config = results.identity["config"]
    main = [config[task] for task in results.tasks if task in config] or list(config.values())
    first = main[0]
    shared = [n for n in first if all(values.get(n) == first[n] for values in main)]
    differs = lambda n, v: n not in shared or v != first[n]  # noqa: E731
    own = {name: {n: v for n, v in values.items() if differs(n, v)} for name, values in config.items()}
    return {"shared": {n: first[n] for n in shared}, "own": {task: values for task, values in own.items() if values}}
