"""Asking language models: any OpenAI-compatible server, the small one that comes along, or a function of your own."""

import asyncio
import os
import random
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from reward_design.agents.settings import at_least, one_of
from reward_design.llm import embedded, loop, schemas
from reward_design.llm.answers import Answer, checked, packed, unpacked
from reward_design.llm.backends import Lazily, of_function
from reward_design.llm.budget import Budget, BudgetExceeded, Price
from reward_design.llm.cache import Cache, key
from reward_design.llm.endpoint import Completion, Endpoint
from reward_design.llm.outcomes import TRANSIENT, CacheMissError, ModelError, Retry
from reward_design.llm.schemas import Message

MODES = ("live", "record", "replay", "refresh")
KEYLESS = "none"
"""What is sent as key to a server that asks for none."""


@dataclass(eq=False)
class ChatModel:
    """A model that can be asked; :func:`chat_model` makes one.

    Attributes:
        name: for records and the cache, with the hash of its file where it is a local one.
        backend: ``(messages, schema, seconds, seed) -> Completion``, a coroutine.
        temperature: of sampling.
        max_tokens: of an answer.
        time_limit: seconds for one attempt, from connecting to the last byte.
        retry: when transient faults are tried again.
        price: for the budget.
        cache: of answers.
        mode: ``"live"``, ``"record"``, ``"replay"`` or ``"refresh"``.
        budget: hard limits.
        parallel: requests at the same time.
        outcomes: how often what happened: ``"answer"``, ``"cached"``, ``"repaired"``, every name in
            :data:`~reward_design.llm.outcomes.OUTCOMES`, and those with ``"retried: "`` in front.
    """

    name: str
    backend: Any
    temperature: float
    max_tokens: int
    time_limit: float
    retry: Retry
    price: Price | None
    cache: Cache | None
    mode: str
    budget: Budget
    parallel: int
    outcomes: Counter[str] = field(default_factory=Counter)

    def ask(
        self,
        messages: Sequence[Message],
        *,
        samples: int = 1,
        schema: Mapping[str, Any] | None = None,
        template: str = "",
        first: int = 0,
    ) -> list[Answer]:
        """Ask for ``samples`` answers to the same messages.

        Samples that failed for good are left out (:attr:`outcomes` counts them), so there may be fewer, but never none.

        Args:
            messages: ``{"role": "system" | "user" | "assistant", "content": text}`` each; the last one is the user's.
            samples: how many answers.
            schema: a JSON schema that answers have to fit. It is added to the last message, sent for constrained
                decoding where the server can do that, and checked here; a misfit is sent back once for correction.
            template: name and version of what made the messages, for the cache.
            first: number of the first sample; others than those that were asked for before are new ones.

        Returns:
            The answers, by number.

        Raises:
            ValueError: for messages that are none, or a schema that is none.
            ModelError: if all samples failed for good, with the outcome of the first.
            BudgetExceeded: at a hard limit, with the answers so far.
            CacheMissError: in mode ``replay``, for what was not recorded.
        """
        messages = checked(messages)
        if samples < 1 or first < 0:
            raise ValueError(f"samples must be at least 1 and first at least 0, got {samples} and {first}.")
        if schema is not None:
            schemas.check_schema(schema)
            messages = schemas.described(messages, schema)
        requests = [self._request(messages, schema, template, number) for number in range(first, first + samples)]
        ends: dict[int, Answer | ModelError] = {}
        stop = loop.run(self._round(messages, schema, requests, ends))
        answers = [end for _, end in sorted(ends.items()) if isinstance(end, Answer)]
        if stop is not None:
            stop.answers = answers
            raise stop
        if not answers:
            raise _nothing([end for end in ends.values() if isinstance(end, ModelError)])
        return answers

    async def _round(
        self, messages: list[Message], schema: Any, requests: list[dict], ends: dict[int, Answer | ModelError]
    ) -> BudgetExceeded | None:
        """Fill in how each sample ended; what stopped the round, if something did."""
        gate, stops = asyncio.Semaphore(self.parallel), []

        async def one(request: dict) -> None:
            end = self._recorded(request)
            if end is None:
                async with gate:
                    if stops:
                        return
                    try:
                        end = await self._sample(messages, schema, request)
                    except BudgetExceeded as stop:
                        stops.append(stop)
                        return
            ends[request["sample"]] = end

        done = await asyncio.gather(*map(one, requests), return_exceptions=True)
        for error in (error for error in done if isinstance(error, BaseException)):
            raise error
        return stops[0] if stops else None

    def _request(self, messages: list[Message], schema: Any, template: str, sample: int) -> dict[str, Any]:
        """All that decides what may be answered: the key of the cache."""
        sampling = {"temperature": float(self.temperature), "max_tokens": self.max_tokens}
        return {
            "model": self.name, "messages": messages, "sampling": sampling, "schema": schema, "template": template,
            "sample": sample,
        }  # fmt: skip

    def _recorded(self, request: dict[str, Any]) -> Answer | ModelError | None:
        """What the cache says; None where the model is to be asked."""
        if self.cache is None or self.mode in ("live", "refresh"):
            return None
        end = unpacked(self.cache.get(request), request["sample"])
        if self.mode == "replay" and end is None:
            raise CacheMissError(
                f"mode 'replay' asks no model, and sample {request['sample']} of this request is not in "
                f"{self.cache.folder} ({self.cache.path(request).name}); record it first, or use mode 'record'."
            )
        if self.mode == "record" and isinstance(end, ModelError) and end.outcome in TRANSIENT:
            return None
        if end is not None:
            self.outcomes["cached"] += 1
        return end

    async def _sample(self, messages: list[Message], schema: Any, request: dict[str, Any]) -> Answer | ModelError:
        """Ask, write down how it ended."""
        begun, spent = time.monotonic(), _Spent()
        seed = int(key(request)[:7], 16)
        try:
            text, reason = await self._valid(messages, schema, seed, spent)
            cost = 0.0 if self.price is None else self.price.of(spent.prompt, spent.completion)
            seconds = time.monotonic() - begun
            end = Answer(text, reason, spent.prompt, spent.completion, cost, seconds, False, request["sample"])
            self.outcomes["answer"] += 1
        except ModelError as error:
            end = error
            self.outcomes[error.outcome] += 1
        if self.cache is not None and self.mode != "live":
            price = None if self.price is None else asdict(self.price)
            self.cache.put(request, {**packed(end), "price": price, "date": time.strftime("%Y-%m-%d")})
        return end

    async def _valid(self, messages: list[Message], schema: Any, seed: int, spent: "_Spent") -> tuple[str, str]:
        """The text of an answer that fits the schema, after one correction if need be, and its finish reason."""
        got = await self._patiently(messages, schema, seed, spent)
        if schema is None:
            return got.text, got.finish_reason
        for final in (False, True):
            try:
                return schemas.read(got.text, schema), got.finish_reason
            except ValueError as error:
                cut = got.finish_reason == "length"
                problem = f"it was cut off at max_tokens={self.max_tokens}; be shorter" if cut else str(error)
                if final:
                    raise ModelError("truncated" if cut else "invalid", problem, came=got.text) from error
            got = await self._patiently(schemas.repair(messages, got.text, problem), schema, seed + 1, spent)
            self.outcomes["repaired"] += 1
        raise AssertionError("unreachable")

    async def _patiently(self, messages: list[Message], schema: Any, seed: int, spent: "_Spent") -> Completion:
        """One answer, in several attempts."""
        rng = random.Random()
        for number in range(self.retry.retries + 1):
            try:
                return await self._attempt(messages, schema, seed, spent)
            except ModelError as error:
                hopeless = error.outcome not in TRANSIENT or number == self.retry.retries
                if hopeless or (error.wait or 0.0) > self.retry.patience:
                    raise
                delay = self.retry.delay(number, error.wait, rng)
                if delay >= self.budget.remaining_seconds():
                    raise self.budget.out_of_time() from error
                self.outcomes[f"retried: {error.outcome}"] += 1
                await asyncio.sleep(delay)
        raise AssertionError("unreachable")

    async def _attempt(self, messages: list[Message], schema: Any, seed: int, spent: "_Spent") -> Completion:
        """One request, within time limit and budget."""
        charge = self.budget.charge(messages, self.max_tokens, self.price)
        left = self.budget.remaining_seconds()
        try:
            got = await self.backend(messages, schema, min(self.time_limit, left), seed)
        except BaseException as error:
            if isinstance(error, ModelError) and not error.may_have_cost:
                self.budget.refund(charge)
            if isinstance(error, ModelError) and error.outcome == "time-out" and left < self.time_limit:
                raise self.budget.out_of_time() from error
            raise
        self.budget.settle(charge, got.prompt_tokens, got.completion_tokens)
        spent.prompt += got.prompt_tokens
        spent.completion += got.completion_tokens
        return got


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
    service = os.environ.get(key_env) or (KEYLESS if base_url or os.environ.get("OPENAI_BASE_URL") else None)
    if service is None and mode != "replay":
        raise ValueError(
            f"model {model!r} needs a key in the environment variable {key_env}, or base_url= of a server that needs "
            "none; the model 'embedded' needs neither."
        )
    make = lambda: Endpoint(model, base_url, service or KEYLESS, seeded=False, **wish)  # noqa: E731
    return replace(settings, backend=Lazily(make))


# --- parts ----------------------------------------------------------------------------------------------------------


@dataclass
class _Spent:
    prompt: int = 0
    completion: int = 0


def _name(model: Any, cache: Any) -> str:
    if isinstance(model, str):
        return model
    name = f"{getattr(model, '__module__', '')}.{getattr(model, '__qualname__', '<' + type(model).__name__ + '>')}"
    if cache is not None and "<" in name:
        raise ValueError(f"answers of {name} cannot be told from those of another function; give name= with cache=.")
    return name


def _check_settings(model: ChatModel) -> None:
    at_least(model, 0, "temperature")
    at_least(model, 1, "max_tokens", "parallel")
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


def _nothing(errors: list[ModelError]) -> ModelError:
    """The error of a round without any answer."""
    first, counts = errors[0], Counter(error.outcome for error in errors)
    if len(errors) == 1:
        return first
    said = ", ".join(f"{number} x {outcome}" for outcome, number in counts.most_common())
    text = f"none of {len(errors)} samples gave an answer ({said}); the first: {str(first).partition(': ')[2]}"
    return ModelError(first.outcome, text, came=first.text)
