"""The language ``terms``: a reward as a JSON document of named task factors, compiled by us; nothing in it runs.

Source: the data-only interface follows W. Yu et al., "Language to Rewards for Robotic Skill Synthesis", 2023,
arXiv 2306.08647, where a model sets the parameters of a reward and never writes its code.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp

from reward_design._names import suggestion
from reward_design.combinators import weighted_sum
from reward_design.constructors import from_step, pointwise
from reward_design.core import Reward, State, Transition
from reward_design.envs.base import Factor, Task
from reward_design.llm.refusal import CandidateRefused

SHAPES: dict[str, str] = {
    "linear": "± x / scale",
    "exp": "decrease: exp(-|x| / scale), 1 at zero; increase: 1 - exp(-|x| / scale)",
    "tanh": "± tanh(x / scale)",
    "threshold": "1 where x is beyond scale (increase: x >= scale, decrease: x <= scale), else 0",
    "progress": "± (x - x of the step before) / scale, 0 on the first step of an episode",
}
"""What a term makes of the value x of its factor; ± is + for increase and - for decrease."""
DIRECTIONS = ("increase", "decrease")
MAX_TERMS, MAX_LENGTH, LARGEST = 16, 20_000, 1e6
_FIELDS = {"factor": str, "shape": str, "direction": str, "weight": float, "scale": float}


@dataclass(frozen=True)
class Term:
    """One line of the document; see :data:`SHAPES` for the equations."""

    factor: str
    shape: str
    direction: str
    weight: float
    scale: float


def terms_schema(task: Task) -> dict[str, Any]:
    """JSON schema of the documents for a task, for constrained decoding: within what all providers understand.

    Numbers have no limits there, so :func:`parse_terms` checks again.

    Example:
        >>> from reward_design.envs import task
        >>> schema = terms_schema(task("chain"))
        >>> schema["properties"]["terms"]["items"]["properties"]["shape"]["enum"]
        ['linear', 'exp', 'tanh', 'threshold', 'progress']
    """
    properties = {
        "factor": {"type": "string", "enum": list(task.factors)},
        "shape": {"type": "string", "enum": list(SHAPES)},
        "direction": {"type": "string", "enum": list(DIRECTIONS)},
        "weight": {"type": "number"},
        "scale": {"type": "number"},
    }
    return {
        "type": "object",
        **_closed({"terms": {"type": "array", "items": {"type": "object", **_closed(properties)}}}),
    }


def parse_terms(source: str, task: Task) -> list[Term]:
    """The terms of a document.

    Args:
        source: JSON text ``{"terms": [{"factor", "shape", "direction", "weight", "scale"}]}``; ``scale`` may be left
            out (1), and a text ``plan`` beside ``terms`` is passed over.
        task: whose factors it may name.

    Raises:
        CandidateRefused: at stage ``terms``, saying which entry is wrong and what it may be.

    Example:
        >>> from reward_design.envs import task
        >>> parse_terms('{"terms": [{"factor": "distanse"}]}', task("chain"))
        Traceback (most recent call last):
        reward_design.llm.refusal.CandidateRefused: refused at stage 'terms': terms[0]: shape is missing; ...
    """
    if len(source) > MAX_LENGTH:
        raise _refused(f"the document has {len(source)} characters; at most {MAX_LENGTH} are read. Use fewer terms.")
    entries = _entries(_json(source))
    terms = [_term(entry, f"terms[{i}]", task) for i, entry in enumerate(entries)]
    _check_different(terms)
    return terms


def terms_reward(source: str, task: Task) -> Reward:
    """The reward that a document describes: r_t = sum_i weight_i f_i(x_i,t), with f_i of :data:`SHAPES`.

    Keeps the optimal policy: no, in general.

    Args:
        source: see :func:`parse_terms`.
        task: whose factors it names.

    Returns:
        A :class:`Reward` with one term per entry, named after its factor (and its shape where a factor has several).
        Weights are ``params["weights"]``, scales ``params["rewards"][name]["scale"]``. With a ``progress`` term it is
        of kind ``CAUSAL``, otherwise ``POINTWISE``.

    Raises:
        CandidateRefused: at stage ``terms``.

    Example:
        >>> from reward_design.envs import task
        >>> text = '{"terms": [{"factor": "tilt", "shape": "exp", "direction": "decrease", "weight": 2, "scale": 0.1}]}'
        >>> terms_reward(text, task("cartpole")).settings["weights"]
        {'tilt': 2.0}
    """
    terms = parse_terms(source, task)
    names = _names(terms)
    parts = {name: _part(name, term, task.factors[term.factor]) for name, term in zip(names, terms)}
    return weighted_sum(weights={name: term.weight for name, term in zip(names, terms)}, **parts)


# --- compiling ------------------------------------------------------------------------------------------------------


def _part(name: str, term: Term, factor: Factor) -> Reward:
    sign = 1.0 if term.direction == "increase" else -1.0
    params = {"scale": term.scale}
    settings = {"factor": term.factor, "shape": term.shape, "direction": term.direction}
    if term.shape == "progress":
        return _progress(name, factor, sign, params, settings)
    shape = _FUNCTIONS[term.shape]
    fn = lambda p, t: shape(_value(factor, t), p["scale"], sign)  # noqa: E731
    return pointwise(name, fn, params=params, settings=settings)


def _progress(name: str, factor: Factor, sign: float, params: Mapping[str, float], settings: Any) -> Reward:
    def init(key: Any, example: Transition) -> tuple[Any, State]:
        zeros = jnp.zeros_like(_value(factor, example))
        return dict(params), State(episode={"last": zeros, "seen": zeros})

    def step(p: Any, state: State, t: Transition) -> tuple[Any, State]:
        now, past = _value(factor, t), state.episode
        gained = sign * past["seen"] * (now - past["last"]) / p["scale"]
        return gained, state._replace(episode={"last": now, "seen": jnp.ones_like(now)})

    return from_step(name, init, step, settings=settings)


def _value(factor: Factor, transition: Transition) -> Any:
    value = jnp.asarray(factor.fn(transition))
    return value.astype(jnp.result_type(float))


_FUNCTIONS: dict[str, Callable[[Any, Any, float], Any]] = {
    "linear": lambda x, scale, sign: sign * x / scale,
    "tanh": lambda x, scale, sign: sign * jnp.tanh(x / scale),
    "exp": lambda x, scale, sign: (1.0 - sign) / 2 - sign * jnp.expm1(-jnp.abs(x) / scale),
    "threshold": lambda x, scale, sign: (sign * (x - scale) >= 0).astype(x.dtype),
}


def _names(terms: list[Term]) -> list[str]:
    factors = [term.factor for term in terms]
    return [t.factor if factors.count(t.factor) == 1 else f"{t.factor}_{t.shape}_{t.direction}" for t in terms]


# --- checking -------------------------------------------------------------------------------------------------------


def _json(source: str) -> Any:
    def constant(name: str) -> Any:
        raise _refused(f"the number {name} is not allowed; give a finite one.")

    try:
        return json.loads(source, parse_constant=constant, object_pairs_hook=_object)
    except json.JSONDecodeError as error:
        raise _refused(
            f"the document is not JSON: {error.msg} at line {error.lineno}, column {error.colno}. Answer with one JSON "
            "object and nothing around it."
        ) from None
    except CandidateRefused:
        raise
    except (ValueError, RecursionError):
        raise _refused(
            "the document has a number of thousands of digits or is nested too deeply; it is a list of flat objects."
        ) from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise _refused(f"the name {twice[0]!r} stands twice in one object; keep one.")
    return dict(pairs)


def _entries(document: Any) -> list[Any]:
    if not isinstance(document, dict) or "terms" not in document:
        raise _refused('the document must be an object with a list "terms", like {"terms": [...]}.')
    extra = sorted(set(document) - {"terms", "plan"})
    if extra:
        raise _refused(f"unknown entry {extra[0]!r} beside terms{suggestion(extra[0], ['terms', 'plan'])} Remove it.")
    entries = document["terms"]
    if not isinstance(entries, list) or not 1 <= len(entries) <= MAX_TERMS:
        size = len(entries) if isinstance(entries, list) else type(entries).__name__
        raise _refused(f"terms must be a list of 1 to {MAX_TERMS} objects, got {size}.")
    return entries


def _term(entry: Any, where: str, task: Task) -> Term:
    if not isinstance(entry, dict):
        raise _refused(f"{where} must be an object with {', '.join(_FIELDS)}, got {type(entry).__name__}.")
    entry = {"scale": 1.0, **entry}
    for name in [*_FIELDS, *entry]:
        if name not in entry:
            raise _refused(f"{where}: {name} is missing; each term has {', '.join(_FIELDS)}.")
        if name not in _FIELDS:
            raise _refused(f"{where}: unknown entry {name!r}{suggestion(name, _FIELDS)} It has {', '.join(_FIELDS)}.")
    for name, options in (("factor", task.factors), ("shape", SHAPES), ("direction", DIRECTIONS)):
        _check_choice(entry[name], f"{where}.{name}", list(options))
    numbers = {name: _number(entry[name], f"{where}.{name}") for name in ("weight", "scale")}
    if numbers["weight"] == 0:
        raise _refused(f"{where}.weight is 0, so the term does nothing; give it a weight or remove it.")
    if entry["shape"] != "threshold" and numbers["scale"] < 1e-6:
        raise _refused(f"{where}.scale must be at least 1e-6, got {entry['scale']:g}; a turn of sign is the direction.")
    return Term(entry["factor"], entry["shape"], entry["direction"], **numbers)


def _check_choice(value: Any, where: str, options: list[str]) -> None:
    if not isinstance(value, str) or value not in options:
        hint = suggestion(value, options) if isinstance(value, str) else "."
        raise _refused(f"{where} must be one of {', '.join(options)}, got {json.dumps(value)[:60]}{hint}")


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _refused(f"{where} must be a number, got {json.dumps(value)[:60]}.")
    if not -LARGEST <= value <= LARGEST or not math.isfinite(value):
        raise _refused(
            f"{where} must lie within ±{LARGEST:g}, got {value if abs(value) < 1e30 else 'a larger number'}."
        )
    return float(value)


def _check_different(terms: list[Term]) -> None:
    keys = [(term.factor, term.shape, term.direction) for term in terms]
    for i, key in enumerate(keys):
        if key in keys[:i]:
            raise _refused(f"terms[{i}] repeats terms[{keys.index(key)}] ({', '.join(key)}); join them into one.")


def _closed(properties: dict[str, Any]) -> dict[str, Any]:
    return {"properties": properties, "required": list(properties), "additionalProperties": False}


def _refused(reason: str) -> CandidateRefused:
    return CandidateRefused("terms", reason)
