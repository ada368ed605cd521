"""What stands behind a model: a server, made on first use, or a function of the user."""

import asyncio
import os
from collections.abc import Callable
from typing import Any

from reward_design.llm import loop
from reward_design.llm.endpoint import Completion, Endpoint
from reward_design.llm.outcomes import ModelError
from reward_design.llm.schemas import Message


class Lazily:
    """A backend that is made when a process first asks it: what the cache knows needs neither package nor server."""

    def __init__(self, make: Callable[[], Endpoint]) -> None:
        self._make, self._made = make, {}

    async def __call__(self, *args: Any) -> Completion:
        """One answer."""
        lock, made = self._made.setdefault(os.getpid(), (asyncio.Lock(), []))
        async with lock:
            if not made:
                made.append(await loop.in_thread(self._make))  # a daemon: an interrupt does not wait for it
        return await made[0].complete(*args)


def of_function(fn: Callable[[list[Message]], str]) -> Any:
    """A backend of a function; tokens are estimated, four letters each."""

    async def backend(messages: list[Message], schema: Any, seconds: float, seed: int) -> Completion:
        try:
            async with asyncio.timeout(seconds):
                text = await loop.in_thread(lambda: fn([dict(message) for message in messages]))
        except TimeoutError:
            raise ModelError("time-out", f"the function did not return within {seconds:.3g} s") from None
        if not isinstance(text, str):
            raise TypeError(f"a model that is a function must return text, got {type(text).__name__}.")
        if not text.strip():
            raise ModelError("empty", "the function returned no text")
        prompt = sum(len(message["content"]) for message in messages) // 4 + 1
        return Completion(text, "stop", prompt, len(text) // 4 + 1)

    return backend
