"""Asking language models: any OpenAI-compatible server, the small one that comes along, or a function of your own."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from reward_design.agents.settings import at_least, one_of
from reward_design.llm import embedded
from reward_design.llm.backends import Lazily, of_function
from reward_design.llm.budget import Budget, Price
from reward_design.llm.cache import Cache
from reward_design.llm.chat import ChatModel
from reward_design.llm.endpoint import Endpoint
from reward_design.llm.outcomes import Retry
from reward_design.llm.schemas import Message

MODES = ("live", "record", "replay", "refresh")
KEYLESS = "none"
"""What is sent as key to a server that asks for none."""


def chat_model(
    model: str | Callable[[list[Message]], str] = "embedded",
    *,
    base_url: str | None = None,
    key_env: str = "OPENAI_API_KEY",
    temperature: float | int = 1.0,
    max_tokens: int = 1024,
    time_limit: float | int | None = None,
    retries: int | Retry = 4,
    price: Price | None = None,
    cache: Path | str | None = None,
    mode: str | None = None,
    budget: Budget | None = None,
    parallel: int | None = None,
    name: str | None = None,
) -> ChatModel:
    """A language model that can be asked.

    Args:
        model: ``"embedded"``, the small one that needs no network; a file ``*.gguf``, served in the same way; the name
            of a model on a server; or a function ``messages -> text``, which is called in another thread.
        base_url: address of an OpenAI-compatible server up to ``/v1`` (vLLM, Ollama, llama.cpp, hosted services); by
            default that in the environment variable ``OPENAI_BASE_URL``, or OpenAI.
        key_env: environment variable with the key; servers that want none do without.
        temperature: of sampling, at least 0.
        max_tokens: of an answer.
        time_limit: seconds for one attempt, from connecting to the last byte; by default 60, and 600 for local models.
        retries: attempts after a first one that failed for the time being, or a :class:`Retry` with all settings.
        price: of the model, for ``Budget(money=...)`` and records; local models cost nothing.
        cache: folder of recorded answers.
        mode: ``"record"`` answers from the cache, asks for what is not there and keeps it; ``"replay"`` never asks, and
            what is not there is an error; ``"refresh"`` asks anew and overwrites; ``"live"`` asks and keeps nothing. By
            default ``"record"`` with a cache and ``"live"`` without.
        budget: hard limits, which several models may share.
        parallel: requests at the same time; by default 8 to servers, 1 to local models and functions.
        name: in records and in the cache; a function that has none of its own needs one there.

    Returns:
        A :class:`ChatModel`.

    Raises:
        ValueError: for settings that cannot be, a missing key, money without a price.
        TypeError: for a budget or a price that is none.
        ImportError: if the extra ``llm``, or for local models ``local-llm``, is missing.

    Example:
        >>> parrot = chat_model(lambda messages: messages[-1].get("content", "").upper())
        >>> parrot.ask([{"role": "user", "content": "hello"}])[0].text
        'HELLO'
    """
    own = not isinstance(model, str)
    local = isinstance(model, str) and (model == "embedded" or model.endswith(".gguf"))
    if mode is None:
        mode = "live" if cache is None else "record"
    settings = ChatModel(
        name=name or _name(model, cache), backend=None, temperature=float(temperature), max_tokens=max_tokens,
        time_limit=float((600.0 if local else 60.0) if time_limit is None else time_limit),
        retry=Retry(retries) if isinstance(retries, int) else retries,
        price=Price(0.0, 0.0, "1970-01-01") if local and price is None else price,
        cache=None if cache is None else Cache(cache), mode=mode, budget=Budget() if budget is None else budget,
        parallel=(1 if own or local else 8) if parallel is None else parallel,
    )  # fmt: skip
    _check_settings(settings)
    if not isinstance(model, str):
        return replace(settings, backend=of_function(model))
    wish = {"max_tokens": max_tokens, "temperature": float(temperature)}
    if local:
        file = lambda: embedded.weights() if model == "embedded" else Path(model)  # noqa: E731
        backend = Lazily(lambda: Endpoint("local", embedded.serve(file()), KEYLESS, seeded=True, **wish))
        return replace(settings, backend=backend, name=name or embedded.identity(file()))
    address = base_url or os.environ.get("OPENAI_BASE_URL")
    _check_address(address)
    service = _key(key_env) or (KEYLESS if address else None)
    if service is None and mode != "replay":
        raise ValueError(
            f"model {model!r} needs a key in the environment variable {key_env}, or base_url= of a server that needs "
            "none; the model 'embedded' needs neither."
        )
    make = lambda: Endpoint(model, base_url, service or KEYLESS, seeded=False, **wish)  # noqa: E731
    return replace(settings, backend=Lazily(make))


# --- parts ----------------------------------------------------------------------------------------------------------


def _name(model: Any, cache: Any) -> str:
    if isinstance(model, str):
        return model
    name = f"{getattr(model, '__module__', '')}.{getattr(model, '__qualname__', '<' + type(model).__name__ + '>')}"
    if cache is not None and "<" in name:
        raise ValueError(f"answers of {name} cannot be told from those of another function; give name= with cache=.")
    return name


def _check_address(url: str | None) -> None:
    try:
        parts = urlsplit(url or "http://none")
        fits = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port that is no number, half an IPv6 address
        fits = False
    if not fits:
        raise ValueError(
            f"base_url must be the address of a server such as 'http://127.0.0.1:8000/v1', got {url!r}; begin it with "
            "http:// or https://."
        )


def _key(name: str) -> str | None:
    """The key in an environment variable, spaces and line breaks around it left out."""
    found = os.environ.get(name, "").strip()
    if not all("!" <= letter <= "~" for letter in found):
        raise ValueError(
            f"the key in the environment variable {name} has characters that cannot be sent, such as a space or a line "
            "break; set the key alone."
        )
    return found or None


def _check_settings(model: ChatModel) -> None:
    for name, kind, given in (("budget", Budget, model.budget), ("price", Price | None, model.price)):
        if not isinstance(given, kind):
            made = name.capitalize()
            raise TypeError(
                f"{name} must be made by reward_design.llm.{made}, got {type(given).__name__}: {name}={made}(...)."
            )
    at_least(model, 0, "temperature")
    at_least(model, 1, "max_tokens", "parallel")
    if model.temperature == float("inf"):
        raise ValueError("temperature must be finite, got inf; 0 to 2 is usual.")
    one_of(model, "mode", MODES)
    if not model.time_limit > 0:
        raise ValueError(f"time_limit must be more than 0 seconds, got {model.time_limit}.")
    if model.cache is None and model.mode != "live":
        raise ValueError(f"mode {model.mode!r} needs cache=, the folder of recorded answers.")
    if model.budget.money is not None and model.price is None:
        raise ValueError(
            f"Budget(money=...) needs the price of model {model.name!r}: price=Price(prompt=..., completion=..., "
            "date=...), per million tokens."
        )
