"""What a search has done, step by step: a step that is in the journal is not done again."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from reward_design.experiments.store import Store


class Journal:
    """Named steps with their values, each appended to a store as soon as it is known.

    The search is a deterministic function of the values of its steps; after a kill it runs again from its beginning and
    finds what it did before, so nothing is paid twice.

    Args:
        store: open records; ``{"kind": kind, "name": name, "value": value}`` each.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._known = {(r["kind"], r["name"]): r["value"] for r in store.records if "name" in r and "value" in r}

    def known(self, kind: str, name: str) -> bool:
        """Whether a step was done."""
        return (kind, name) in self._known

    def value(self, kind: str, name: str) -> Any:
        """The value of a step that was done."""
        return self._known[kind, name]

    def once(self, kind: str, name: str, make: Callable[[], Any]) -> Any:
        """The value of a step, done now if it was not done before: JSON values in any case."""
        if not self.known(kind, name):
            self.put(kind, name, make())
        return self.value(kind, name)

    def put(self, kind: str, name: str, value: Any) -> None:
        """Note a step."""
        self.store.append({"kind": kind, "name": name, "value": value})
        self._known[kind, name] = self.store.records[-1]["value"]

    def note(self, kind: str, **fields: Any) -> None:
        """Note something that is no step: a session, a stop."""
        self.store.append({"kind": kind, **fields})

    def values(self, kind: str) -> dict[str, Any]:
        """All values of a kind by name, in order."""
        return {name: value for (k, name), value in self._known.items() if k == kind}


def digest(value: Any) -> str:
    """Short hash of JSON values.

    Example:
        >>> digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1})
        True
    """
    plain = dict(value) if isinstance(value, Mapping) else value
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
