"""Messages by 64-bit keys, the same on the host and on the device, and how often an episode had each."""

from functools import lru_cache
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, UInt8, UInt32

UNUSED = 2**32 - 1
"""Both hashes of a row without a message; such rows come last."""


def digest(messages: Any, xp: Any = jnp) -> Any:
    """Keys of messages: two hashes of 32 bits, sums of bytes times random numbers modulo 2^32.

    Zeros at the end do not matter. Two messages have the same key with a probability of at most 2^-50.

    Args:
        messages: ``[*batch, length]`` uint8.
        xp: ``jax.numpy`` or ``numpy``, which give the same keys.

    Returns:
        ``[*batch, 2]`` uint32.

    Example:
        >>> import jax.numpy as jnp, numpy as np
        >>> message = np.frombuffer(b"You see here a key.", np.uint8)
        >>> bool((digest(jnp.asarray(message)) == digest(message, np)).all())
        True
    """
    *batch, length = messages.shape
    factors = xp.asarray(_factors(length)).reshape((1,) * len(batch) + (2, length))
    bytes_ = messages.astype(xp.uint32).reshape((*batch, 1, length))
    return xp.sum(bytes_ * factors, axis=-1, dtype=xp.uint32)


def sight(glyphs: Any, action: Any, xp: Any = jnp) -> Any:
    """A crop of the map and an action as bytes: the low bytes of the glyphs, their high bytes, the action.

    Args:
        glyphs: ``[*batch, tiles]`` numbers in [0, 65536).
        action: ``[*batch]`` in [0, 256).
        xp: ``jax.numpy`` or ``numpy``.

    Returns:
        ``[*batch, 2 tiles + 1]`` uint8.

    Example:
        >>> import numpy as np
        >>> sight(np.array([[258, 7]]), np.array([4]), np).tolist()
        [[2, 7, 1, 0, 4]]
    """
    tiles = xp.asarray(glyphs).astype(xp.int32)
    parts = [tiles & 255, tiles >> 8, xp.asarray(action).astype(xp.int32)[..., None]]
    return xp.concatenate(parts, axis=-1).astype(xp.uint8)


@lru_cache(maxsize=64)
def _factors(length: int) -> np.ndarray:
    """``[2, length]`` uint32; those of a shorter message are the first of a longer one."""
    draws = np.random.default_rng(2410_23022).integers(0, 2**32, (length, 2), dtype=np.uint32)
    return np.ascontiguousarray(draws.T)


def look_up(keys: UInt32[Array, "rows 2"], labels: Float[Array, " rows"], key: UInt32[Array, "batch 2"]) -> Array:
    """Labels of messages by key, 0 for those that are not in the table.

    Args:
        keys: ordered by the first hash.
        labels: of the rows.
        key: ``[batch, 2]``.
    """
    place = jnp.minimum(jnp.searchsorted(keys[:, 0], key[:, 0]), keys.shape[0] - 1)
    return jnp.where((keys[place] == key).all(axis=-1), labels[place], 0.0)


def no_counts(batch: int, size: int) -> dict[str, Array]:
    """Counts of an episode that begins: ``size`` messages can be told apart."""
    return {"keys": jnp.zeros((batch, size, 2), jnp.uint32), "counts": jnp.zeros((batch, size), jnp.int32)}


def count(
    seen: dict[str, Array], key: UInt32[Array, "batch 2"], spoken: Bool[Array, " batch"]
) -> tuple[Array, dict[str, Array]]:
    """How often the episode had each message, this time included; where all places are taken, the rarest is forgotten.

    Args:
        seen: of :func:`no_counts`.
        key: of the messages.
        spoken: where there is a message.

    Returns:
        ``[batch]`` counts N >= 1, and what was seen with these messages.
    """
    same = (seen["keys"] == key[:, None, :]).all(axis=-1) & (seen["counts"] > 0)
    place = jnp.where(same.any(axis=-1), jnp.argmax(same, axis=-1), jnp.argmin(seen["counts"], axis=-1))
    lanes = jnp.arange(key.shape[0])
    number = jnp.where(same.any(axis=-1), seen["counts"][lanes, place], 0) + 1
    counts = seen["counts"].at[lanes, place].set(jnp.where(spoken, number, seen["counts"][lanes, place]))
    keys = seen["keys"].at[lanes, place].set(jnp.where(spoken[:, None], key, seen["keys"][lanes, place]))
    return number, {"keys": keys, "counts": counts}


def is_spoken(messages: UInt8[Array, "batch length"]) -> Bool[Array, " batch"]:
    """Where a message has any letters."""
    return (messages != 0).any(axis=-1)
