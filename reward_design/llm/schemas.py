"""JSON answers: found in the text of a model, checked against a schema on our side, described in the prompt."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from reward_design._optional import require

Message = dict[str, str]
_FENCE = re.compile(r"```(?:json)?\s*\n(.*?)```", re.DOTALL)


def check_schema(schema: Mapping[str, Any]) -> None:
    """Refuse what is no JSON schema, before it is sent anywhere.

    Raises:
        ValueError: naming what is wrong with it.
        ImportError: if the package ``jsonschema`` is missing.

    Example:
        >>> check_schema({"type": "objekt"})
        Traceback (most recent call last):
        ValueError: schema must be a JSON schema: 'objekt' is not valid under any of the given schemas.
    """
    jsonschema = _jsonschema()
    try:
        jsonschema.Draft202012Validator.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"schema must be a JSON schema: {error.message}.") from error


def read(text: str, schema: Mapping[str, Any]) -> str:
    """The JSON of an answer that fits a schema, as text for ``json.loads``.

    Args:
        text: of a model: JSON alone, in a fence, or after other words.
        schema: a JSON schema.

    Returns:
        The JSON, without what was around it.

    Raises:
        ValueError: saying, for the model, what is wrong: no JSON, or where it does not fit.

    Example:
        >>> read('Sure! {"a": 1} is it.', {"type": "object", "required": ["a"]})
        '{"a": 1}'
        >>> read('{"a": 1}', {"type": "object", "required": ["b"]})
        Traceback (most recent call last):
        ValueError: the JSON does not fit the schema at its top: 'b' is a required property
    """
    found = _json_in(text)
    validator = _jsonschema().Draft202012Validator(schema)
    wrong = min(validator.iter_errors(json.loads(found)), key=lambda error: list(map(str, error.path)), default=None)
    if wrong is not None:
        where = "/".join(map(str, wrong.path)) or "its top"
        raise ValueError(f"the JSON does not fit the schema at {where}: {wrong.message[:300]}")
    return found


def described(messages: Sequence[Message], schema: Mapping[str, Any]) -> list[Message]:
    """The messages, with the schema at the end of the last one: constrained decoding does not show it to the model."""
    *before, last = messages
    text = f"{last['content']}\n\nAnswer with JSON only, of this schema: {json.dumps(schema)}"
    return [*before, {**last, "content": text}]


def repair(messages: Sequence[Message], text: str, problem: str) -> list[Message]:
    """The messages that ask for a correction of ``text``."""
    request = f"That cannot be used: {problem}. Answer again, with the corrected JSON only."
    return [*messages, {"role": "assistant", "content": text}, {"role": "user", "content": request}]


def response_format(schema: Mapping[str, Any]) -> dict[str, Any]:
    """How OpenAI-compatible servers are asked for constrained decoding."""
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": dict(schema), "strict": True}}


def _json_in(text: str) -> str:
    """The first JSON document in a text; a value that is neither object nor list has to stand alone."""
    fenced = _FENCE.search(text)
    decoder = json.JSONDecoder(parse_constant=_no_constant)
    problem: Exception | None = None
    for candidate in (text.strip(), fenced[1].strip() if fenced else ""):
        try:
            decoder.decode(candidate)
            return candidate
        except (ValueError, RecursionError) as error:
            problem = problem or error
    first = [start for start in (text.find("["), text.find("{")) if start >= 0]
    for start in first if first == sorted(first) else first[1:]:  # a list inside a broken object is no answer
        try:
            _, end = decoder.raw_decode(text, start)
            return text[start:end]
        except (ValueError, RecursionError) as error:
            problem = error
    raise ValueError(f"the answer is no JSON: {problem}")


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")


def _jsonschema() -> Any:
    return require("jsonschema", "llm", "answers with a schema")
