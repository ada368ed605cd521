"""One request to an OpenAI-compatible server, through the ``openai`` package; every fault gets its name.

The time limit is a total: also a server that sends a byte now and then does not hold a request longer. The size of an
answer is limited while it arrives.
"""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from reward_design._optional import require
from reward_design.llm.outcomes import ModelError
from reward_design.llm.schemas import Message, response_format

CONNECT_SECONDS = 10.0
_AGAIN = (408, 409, 425, 429)
"""Client errors that pass."""


class Completion(NamedTuple):
    """What a server answered."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class Endpoint:
    """A server, and how it wants to be asked.

    What a server refuses is noted and not tried again: constrained decoding (the schema is in the prompt anyway),
    ``max_tokens`` under its old name.

    Args:
        model: name on the server.
        base_url: address up to ``/v1``; None for ``OPENAI_BASE_URL``, or OpenAI itself.
        key: for the service.
        max_tokens: of an answer.
        temperature: of sampling.
        seeded: whether to send a seed.

    Raises:
        ImportError: without the extra ``llm``.
    """

    def __init__(
        self, model: str, base_url: str | None, key: str, *, max_tokens: int, temperature: float, seeded: bool
    ) -> None:
        openai = require("openai", "llm", "language models")
        self._openai, self._model, self._seeded = openai, model, seeded
        self._limit, self._temperature = max_tokens, temperature
        self._max_bytes = 65_536 + 256 * max_tokens
        self._plain, self._renamed = False, False
        direct = _is_loopback(base_url or os.environ.get("OPENAI_BASE_URL", ""))
        http = openai.DefaultAsyncHttpxClient(trust_env=not direct, event_hooks={"response": [self._limit_size]})
        headers = {"Accept-Encoding": "identity", "Connection": "close"}  # answers take longer than a new connection
        self._client = openai.AsyncOpenAI(
            base_url=base_url, api_key=key, max_retries=0, http_client=http, default_headers=headers
        )

    async def complete(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, seconds: float, seed: int
    ) -> Completion:
        """Send one request, or a second one in the way that the server wants.

        Raises:
            ModelError: for every other end than an answer with text.
        """
        try:
            async with asyncio.timeout(seconds):
                return await self._adapted(messages, schema, seconds, seed)
        except TimeoutError:
            text = f"no complete answer within {seconds:.3g} s; raise time_limit, or ask for fewer max_tokens"
            raise ModelError("time-out", text, may_have_cost=True) from None

    async def _adapted(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, seconds: float, seed: int
    ) -> Completion:
        plain, renamed = self._plain, self._renamed
        while True:
            try:
                got = await self._once(messages, None if plain else schema, renamed, seconds, seed)
            except self._openai.APIStatusError as error:
                said, before = str(error).lower(), (plain, renamed)
                if error.status_code in (400, 404, 415, 422, 501):
                    renamed |= "max_completion_tokens" in said
                    plain |= schema is not None and renamed == before[1] and "context" not in said
                if before == (plain, renamed):
                    raise self._refused(error) from error
            else:
                self._plain, self._renamed = plain, renamed
                return got

    async def _once(
        self, messages: Sequence[Message], schema: Mapping[str, Any] | None, renamed: bool, seconds: float, seed: int
    ) -> Completion:
        wish: dict[str, Any] = {"max_completion_tokens" if renamed else "max_tokens": self._limit}
        if schema is not None:
            wish["response_format"] = response_format(schema)
        if self._seeded:
            wish["seed"] = seed
        timeout = self._openai.Timeout(seconds, connect=min(CONNECT_SECONDS, seconds))
        create: Any = self._client.chat.completions.with_raw_response.create
        try:
            raw = await create(
                model=self._model, messages=list(messages), temperature=self._temperature, timeout=timeout, **wish
            )
        except self._openai.APITimeoutError as error:
            text = f"the server said nothing for {min(CONNECT_SECONDS, seconds):.3g} s or more"
            raise ModelError("time-out", text, may_have_cost=True) from error
        except self._openai.APIConnectionError as error:
            raise _unconnected(error, self._client.base_url.netloc.decode().rpartition("@")[2]) from error
        return _completion(raw.content, messages)

    async def _limit_size(self, response: Any) -> None:
        """Count the bytes of an answer as they come, and stop at the limit."""
        if response.headers.get("content-encoding", "identity") != "identity":
            text = "a compressed answer, which was not asked for and may unpack to any size"
            raise ModelError("malformed", text, may_have_cost=True)
        stream, most = response.stream, self._max_bytes
        base: Any = next(cls for cls in type(stream).__mro__ if cls.__name__ == "AsyncByteStream")

        class Limited(base):
            async def __aiter__(self) -> AsyncIterator[bytes]:
                size = 0
                async for part in stream:
                    size += len(part)
                    if size > most:
                        text = f"more than {most} bytes, for an answer of at most max_tokens"
                        raise ModelError("gigantic", text, may_have_cost=True)
                    yield part

            async def aclose(self) -> None:
                await stream.aclose()

        response.stream = Limited()

    def _refused(self, error: Any) -> ModelError:
        """What a status code means."""
        status, text = error.status_code, f"HTTP {error.status_code}: {_one_line(error.message)}"
        if status in _AGAIN and "insufficient_quota" not in str(error):
            wait = retry_after(error.response.headers)
            return ModelError("rate limit" if status == 429 else "server error", text, wait=wait)
        if status >= 500:
            return ModelError("server error", text, wait=retry_after(error.response.headers))
        return ModelError("rejected", text)


def retry_after(headers: Mapping[str, str], now: float | None = None) -> float | None:
    """Seconds of Retry-After, which comes as a number or as a date; None without one that can be read.

    Example:
        >>> retry_after({"retry-after": "7"}), retry_after({"retry-after": "soon"}), retry_after({})
        (7.0, None, None)
        >>> retry_after({"retry-after": "Thu, 01 Jan 1970 00:00:30 GMT"}, now=10.0)
        20.0
    """
    try:
        if "retry-after-ms" in headers:
            return _bounded(float(headers["retry-after-ms"]) / 1000)
        text = headers.get("retry-after")
        if text is None:
            return None
        if text.strip().replace(".", "", 1).isdigit():
            return _bounded(float(text))
        return _bounded(parsedate_to_datetime(text).timestamp() - (time.time() if now is None else now))
    except (ValueError, TypeError, OverflowError):
        return None


def _bounded(seconds: float) -> float | None:
    return max(0.0, seconds) if seconds == seconds else None


def _completion(body: bytes, messages: Sequence[Message]) -> Completion:
    """The first choice of a chat completion.

    Raises:
        ModelError: if there is none, or none with text.
    """
    try:
        answer = json.loads(body)
        choice = answer["choices"][0]
        message, reason = choice["message"], choice.get("finish_reason") or "stop"
        text, refusal = message.get("content") or "", message.get("refusal")
        if not isinstance(text, str) or not isinstance(reason, str):
            raise TypeError("content must be a string")
        usage = answer.get("usage") or {}
        prompt = int(usage.get("prompt_tokens") or sum(len(m["content"]) for m in messages) // 4 + 1)
        made = int(usage.get("completion_tokens") or len(text) // 4 + 1)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        text = f"not the JSON of a chat completion ({type(error).__name__}: {_one_line(str(error))})"
        raise ModelError("malformed", text, may_have_cost=True, came=_printable(body)) from error
    text = text.encode("utf-8", "replace").decode()
    if refusal or reason == "content_filter":
        said = _one_line(str(refusal or text or "its answer was filtered"))
        raise ModelError("refusal", f"the model declined: {said}", may_have_cost=True, came=said)
    if not text.strip():
        raise ModelError("empty", f"an answer without text (finish_reason {reason!r})", may_have_cost=True)
    return Completion(text, reason, max(prompt, 0), max(made, 0))


def _unconnected(error: BaseException, server: str) -> ModelError:
    """What broke, and whether that was before the server can have worked.

    Args:
        error: of the client.
        server: host and port, without user and password.
    """
    causes = [error]
    while (cause := causes[-1].__cause__ or causes[-1].__context__) is not None:
        causes.append(cause)
    unheard = any(type(cause).__name__ == "ConnectError" for cause in causes)
    why = f"{type(causes[-1]).__name__}: {_one_line(str(causes[-1]))}"
    text = f"nothing answers at {server}; is the server up, and the base URL right?" if unheard else "it broke off"
    return ModelError("connection", f"{text} ({why})", may_have_cost=not unheard)


def _is_loopback(url: str) -> bool:
    """Whether an address is on this machine, where no proxy helps."""
    return (urlsplit(url).hostname or "") in ("127.0.0.1", "localhost", "::1")


def _one_line(text: str, most: int = 300) -> str:
    return " ".join(text.split())[:most]


def _printable(body: bytes) -> str:
    return body[:2000].decode("utf-8", "replace")
