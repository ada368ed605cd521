"""Memory of a policy: a gated recurrent unit over the steps of an episode.

Source: Cho et al., "Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation",
2014, arXiv:1406.1078, with the reset gate applied after the recurrent product.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from reward_design.core import Transition

INPUT_INIT = nn.initializers.variance_scaling(1.0, "fan_in", "normal")


class Memory(NamedTuple):
    """Where the hidden states of some sequences start.

    Attributes:
        carry: hidden states before the first step, leaves ``[1, sequences, width]``.
        fresh: steps before which the hidden state is set to 0.
    """

    carry: Any
    fresh: Bool[Array, "time sequences"]


def gru(key: Any, num_inputs: int, width: int) -> dict[str, Array]:
    """Parameters of a gated recurrent unit."""
    input_key, state_key = jax.random.split(key)
    return {
        "input": INPUT_INIT(input_key, (num_inputs, 3 * width)),
        "state": INPUT_INIT(state_key, (width, 3 * width)),
        "bias": jnp.zeros(3 * width),
        "candidate_bias": jnp.zeros(width),
    }


def gru_step(params: Any, h: Float[Array, "*batch width"], x: Float[Array, "*batch inputs"]) -> Array:
    """The next hidden state: r, z = sigmoid(W x + U h), n = tanh(W x + r (U h + b)), h' = (1 - z) n + z h.

    Args:
        params: of :func:`gru`.
        h: hidden state.
        x: input.

    Returns:
        Hidden state ``[*batch, width]``.
    """
    return _gates(params, h, _project(params, x))


def gru_unroll(
    params: Any,
    h: Float[Array, "lanes width"],
    x: Float[Array, "time lanes inputs"],
    fresh: Bool[Array, "time lanes"],
) -> Float[Array, "time lanes width"]:
    """Hidden states after each step.

    Args:
        params: of :func:`gru`.
        h: hidden states before the first step.
        x: inputs.
        fresh: steps before which the hidden state is set to 0.

    Returns:
        Hidden states ``[time, lanes, width]``.
    """

    def body(h: Array, xs: tuple[Array, Array]) -> tuple[Array, Array]:
        h = _gates(params, forget(h, xs[1]), xs[0])
        return h, h

    return jax.lax.scan(body, h, (_project(params, x), fresh))[1]


def forget(carry: Any, fresh: Bool[Array, " lanes"]) -> Any:
    """Hidden states with those of some lanes set to 0."""
    return jax.tree.map(lambda h: jnp.where(fresh[:, None], 0.0, h), carry)


def starts(trajectory: Transition) -> Bool[Array, "time lanes"]:
    """Steps before which the memory is cleared: the one before ended an episode or was no experience.

    The first step of a rollout is none: the hidden states recorded with it are as they were used.
    """
    ended = trajectory.done | ~trajectory.mask
    return jnp.concatenate([jnp.zeros_like(ended[:1]), ended[:-1]])


def sequences(leaf: Array, length: int) -> Array:
    """Cut ``[T, B, ...]`` into ``[length, T / length * B, ...]``."""
    cut = leaf.reshape(-1, length, *leaf.shape[1:])
    return jnp.moveaxis(cut, 0, 1).reshape(length, -1, *leaf.shape[2:])


def _project(params: Any, x: Array) -> Array:
    product = x @ params["input"]
    return product + jnp.broadcast_to(params["bias"], product.shape)


def _gates(params: Any, h: Array, projected: Array) -> Array:
    width = h.shape[-1]
    recurrent = h @ params["state"]
    gates = jax.nn.sigmoid(projected[..., : 2 * width] + recurrent[..., : 2 * width])
    r, z = gates[..., :width], gates[..., width:]
    candidate = recurrent[..., 2 * width :] + jnp.broadcast_to(params["candidate_bias"], h.shape)
    n = jnp.tanh(projected[..., 2 * width :] + r * candidate)
    return (1 - z) * n + z * h
