"""A model that can be asked: samples at the same time, retries, corrections, cache and budget."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from reward_design.llm import loop, schemas
from reward_design.llm.answers import Answer, checked, packed, unpacked
from reward_design.llm.budget import Budget, BudgetExceeded, Price
from reward_design.llm.cache import Cache, key
from reward_design.llm.endpoint import Completion
from reward_design.llm.outcomes import TRANSIENT, CacheMissError, ModelError, Retry
from reward_design.llm.schemas import Message


@dataclass(eq=False)
class ChatModel:
    """A model that can be asked; :func:`reward_design.llm.chat_model` makes one.

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
                    raise self.budget.out_of_time(error) from error
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
                raise self.budget.out_of_time(error) from error
            raise
        self.budget.settle(charge, got.prompt_tokens, got.completion_tokens)
        spent.prompt += got.prompt_tokens
        spent.completion += got.completion_tokens
        return got


# --- parts ----------------------------------------------------------------------------------------------------------


@dataclass
class _Spent:
    prompt: int = 0
    completion: int = 0


def _nothing(errors: list[ModelError]) -> ModelError:
    """The error of a round without any answer."""
    first, counts = errors[0], Counter(error.outcome for error in errors)
    if len(errors) == 1:
        return first
    said = ", ".join(f"{number} x {outcome}" for outcome, number in counts.most_common())
    text = f"none of {len(errors)} samples gave an answer ({said}); the first: {str(first).partition(': ')[2]}"
    return ModelError(first.outcome, text, came=first.text)
