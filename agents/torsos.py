"""Encoders of observations: embeddings, convolutions and dense layers, chosen by the space of each part."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float

from reward_design.agents import networks

TORSOS = ("mlp", "conv")
"""Values of the setting ``torso``."""
PIXEL_SIDE = 36
"""Smallest side of an image of pixels; smaller grids of bytes hold codes."""
TEXT_LENGTH = 64
"""Shortest vector of bytes that is read as text."""
ORDINAL = 64
"""Integers of a vector that has more values than this are numbers, not codes."""
VOCABULARY = 2**16
"""Most values of a code."""
BUCKETS = 512
"""Features of a text."""
EMBEDDING = 8
"""Width of the embedding of a code."""


class Part(NamedTuple):
    """How one part of an observation is read, see :func:`part_of`."""

    kind: str
    shape: tuple[int, ...] = ()
    low: int = 0
    size: int = 0


def part_of(space: spaces.Space) -> Part:
    """The rule by which a part of an observation is read.

    * ``"one_hot"``: Discrete, MultiDiscrete, MultiBinary;
    * ``"pixels"``: bytes ``[H, W]`` or ``[H, W, C]`` with both sides at least 36: convolutions on x / 255;
    * ``"image"``: floats ``[H, W, C]``: convolutions on x;
    * ``"codes"``: all other integer grids ``[H, W]`` or ``[H, W, C]`` (glyphs, MiniGrid's objects and colours) with at
      most 65,536 values, and short vectors of at most 64 values: an embedding for each code, then convolutions;
    * ``"text"``: at least 64 bytes in a vector: which of its trigrams occur, hashed to 512 features;
    * ``"floats"``: everything else (positions, ``blstats``): scaled by running moments.

    Raises:
        TypeError: for a space that a network cannot read.
    """
    if isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
        return Part("one_hot")
    if not isinstance(space, spaces.Box):
        raise TypeError(f"a network cannot read observations from {type(space).__name__}; use Box, Discrete or Dict.")
    rank, is_byte = len(space.shape), space.dtype == np.uint8
    if not np.issubdtype(space.dtype, np.integer):
        return Part("image" if rank == 3 else "floats", space.shape)
    low, size = int(space.low.min()), int(space.high.max()) - int(space.low.min()) + 1
    if is_byte and rank in (2, 3) and min(space.shape[:2]) >= PIXEL_SIDE:
        return Part("pixels", space.shape)
    if is_byte and rank == 1 and size == 256 and space.shape[0] >= TEXT_LENGTH:
        return Part("text", space.shape)
    if (rank in (2, 3) and size <= VOCABULARY) or (rank == 1 and size <= ORDINAL):
        return Part("codes", space.shape, low, size)
    return Part("floats", space.shape)


def leaves(space: spaces.Space, name: str = "obs") -> dict[str, spaces.Space]:
    """The parts of an observation that networks read, by path."""
    if not isinstance(space, spaces.Dict):
        return {name: space}
    found = {}
    for key in networks.readable_keys(space):
        found |= leaves(space[key], f"{name}/{key}")
    return found


def prepare(space: spaces.Space, obs: Any) -> dict[str, Array]:
    """What a torso reads of an observation; all that does not depend on parameters is done here, once per rollout.

    Args:
        space: the environment's observation space.
        obs: observations with any leading batch axes.

    Returns:
        ``"floats"`` (all numbers, to be scaled) and ``"one_hot"``, flat and only where there are any, and the other
        parts by path, integers as they are and texts as :func:`trigrams`.
    """
    flat, parts = {"floats": [], "one_hot": []}, {}
    for name, leaf in leaves(space).items():
        value, part = _at(obs, name), part_of(leaf)
        if part.kind == "one_hot":
            flat["one_hot"].append(networks.features(leaf, value))
        elif part.kind == "floats":
            batch = value.shape[: value.ndim - len(part.shape)]
            flat["floats"].append(value.reshape(*batch, -1).astype(jnp.float32))
        else:
            parts[name] = trigrams(value) if part.kind == "text" else value
    return parts | {kind: jnp.concatenate(values, axis=-1) for kind, values in flat.items() if values}


def _at(obs: Any, path: str) -> Array:
    for key in path.split("/")[1:]:
        obs = networks.entry(obs, key)
    return jnp.asarray(obs)


def trigrams(text: Array) -> Bool[Array, "*batch buckets"]:
    """Which hashed trigrams occur in zero-padded bytes ``[*batch, length]``."""
    codes = text.reshape(-1, text.shape[-1]).astype(jnp.uint32)
    first, second, third = codes[:, :-2], codes[:, 1:-1], codes[:, 2:]
    mixed = (first * 961 + second * 31 + third) * jnp.uint32(2654435761)  # Knuth's multiplicative hash
    bucket = jnp.where((first * second * third) > 0, mixed >> 23, BUCKETS).astype(jnp.int32)
    rows = jnp.broadcast_to(jnp.arange(len(codes))[:, None], bucket.shape)
    found = jnp.zeros((len(codes), BUCKETS), bool).at[rows, bucket].set(True, mode="drop")
    return found.reshape(*text.shape[:-1], BUCKETS)


class Torso(nn.Module):
    """Encodes every part of an observation, and all of them together with one dense layer of ``width``.

    Args:
        parts: name and :class:`Part` of what :func:`prepare` gives, see :func:`torso`.
        width: number of features that come out.
    """

    parts: tuple[tuple[str, Part], ...]
    width: int = 128

    @nn.compact
    def __call__(self, inputs: Mapping[str, Array]) -> Float[Array, "*batch width"]:
        """Apply the network to what :func:`prepare` gives, ``"floats"`` scaled."""
        lead, flat = (), []
        for name, part in self.parts:
            x = inputs[name]
            lead = x.shape[: x.ndim - _rank(part)]
            flat.append(self._encode(name, part, x.reshape(-1, *x.shape[len(lead) :])))
        x = nn.relu(nn.Dense(self.width, kernel_init=networks.HIDDEN_INIT)(jnp.concatenate(flat, axis=-1)))
        return x.reshape(*lead, self.width)

    def _encode(self, name: str, part: Part, x: Array) -> Array:
        """Features ``[rows, ...]`` of one part."""
        if part.kind == "one_hot":
            return x
        if part.kind == "floats":
            return nn.tanh(nn.Dense(64, kernel_init=networks.HIDDEN_INIT, name=name)(x))
        if part.kind == "text":
            return nn.relu(nn.Dense(64, kernel_init=networks.HIDDEN_INIT, name=name)(x.astype(jnp.float32)))
        if part.kind == "codes":
            init = nn.initializers.normal(_channels(part) ** -0.5)
            x = embed(self.param(f"{name}_embedding", init, (_channels(part) * part.size, EMBEDDING)), part, x)
            layers = _grid_layers(part.shape) if len(part.shape) > 1 else ()
        else:
            scale = 255.0 if part.kind == "pixels" else 1.0
            x = x.reshape(*x.shape[:3], -1).astype(jnp.float32) / scale
            layers = PIXEL_LAYERS if part.kind == "pixels" else _grid_layers(part.shape)
        for i, (kernel, stride, channels) in enumerate(layers):
            x = patches(x, kernel, stride, pad=part.kind != "pixels")
            x = nn.relu(nn.Dense(channels, kernel_init=networks.HIDDEN_INIT, name=f"{name}_{i}")(x))
        return x.reshape(len(x), -1)


def embed(table: Float[Array, "codes width"], part: Part, x: Array) -> Float[Array, "rows *cells width"]:
    """Sum of the embeddings of each cell's codes; each channel has its own rows of the table.

    Codes outside the space become the nearest ones inside.

    Args:
        table: ``[channels * size, width]``.
        part: what ``x`` is.
        x: integers ``[rows, *part.shape]``.
    """
    channels = _channels(part)
    codes = x.reshape(*x.shape[:3], channels) if len(part.shape) > 1 else x[..., None]
    codes = jnp.clip(codes.astype(jnp.int32) - part.low, 0, part.size - 1)
    first = jnp.arange(channels, dtype=jnp.int32) * part.size
    return jnp.take(table, codes + jnp.broadcast_to(first, codes.shape), axis=0, mode="clip").sum(axis=-2)


def _channels(part: Part) -> int:
    return part.shape[2] if len(part.shape) == 3 else 1


def patches(
    x: Float[Array, "rows height width channels"], size: int, stride: int, *, pad: bool
) -> Float[Array, "rows down across patch"]:
    """The squares of ``size`` that a convolution sees, flat; times a matrix they are the convolution.

    On a CPU, XLA's own convolutions take ten times as long inside a loop as outside (jax-ml/jax#12868), and training is
    a loop; products of matrices do not.

    Args:
        x: images.
        size: side of a square.
        stride: distance between two.
        pad: surround the image with zeros such that ``height / stride`` squares fit (rounded up).
    """
    if pad:
        short = [max((-(-side // stride) - 1) * stride + size - side, 0) for side in x.shape[1:3]]
        x = jnp.pad(x, ((0, 0), *((n // 2, n - n // 2) for n in short), (0, 0)))
    down, across = ((side - size) // stride * stride + 1 for side in x.shape[1:3])
    corners = [(i, j) for i in range(size) for j in range(size)]
    return jnp.concatenate([x[:, i : i + down : stride, j : j + across : stride] for i, j in corners], axis=-1)


PIXEL_LAYERS = ((8, 4, 32), (4, 2, 64), (3, 1, 64))
"""Kernel, stride and channels of the convolutions on pixels: those of Mnih et al., "Human-level control", 2015."""


def _grid_layers(shape: tuple[int, ...]) -> tuple[tuple[int, int, int], ...]:
    """Convolutions of stride 2 until at most 12 cells are left."""
    height, width, layers = *shape[:2], []
    while height * width > 12 or not layers:
        layers.append((3, 2, 32 if layers else 16))
        height, width = -(-height // 2), -(-width // 2)
    return tuple(layers)


def _rank(part: Part) -> int:
    return len(part.shape) if part.kind in ("pixels", "image", "codes") else 1


def torso(space: spaces.Space, width: int = 128) -> Torso:
    """The :class:`Torso` of an observation space."""
    parts = {name: part_of(leaf) for name, leaf in leaves(space).items()}
    together = {"floats", "one_hot"}
    named = {name: part for name, part in parts.items() if part.kind not in together}
    named |= {kind: Part(kind) for kind in sorted(together) if any(part.kind == kind for part in parts.values())}
    return Torso(tuple(named.items()), width)
