"""Networks that say how much each step of an episode contributed to its return."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from reward_design.agents import networks


@dataclass(frozen=True, eq=False)
class Estimator:
    """A network over the steps of an episode as pure functions.

    Attributes:
        name: for settings and errors.
        init: ``(key, num_features) -> network``.
        initial: ``(network, lanes) -> carry``, the memory at the start of an episode, ``()`` for none; it must not
            depend on the values in ``network``.
        step: ``(network, carry, x [B, features]) -> (contribution [B], carry)``.
        unroll: ``(network, x [T, B, features]) -> contribution [T, B]`` of episodes from their start.
        memory: whether a contribution depends on the steps before.
    """

    name: str
    init: Callable[[Any, int], Any]
    initial: Callable[[Any, int], Any]
    step: Callable[[Any, Any, Any], tuple[Any, Any]]
    unroll: Callable[[Any, Any], Any]
    memory: bool


def mlp(hidden: Sequence[int] = (64, 64)) -> Estimator:
    """c_t = f(x_t): a function of the step alone, so that the return is a sum over steps and nothing else.

    Args:
        hidden: widths of the tanh layers; ``()`` is linear.
    """
    network = networks.MLP(tuple(hidden), 1, output_scale=0.01)

    def apply(params: Any, x: Float[Array, "*batch features"]) -> Float[Array, "*batch"]:
        return jnp.asarray(network.apply(params, x))[..., 0]

    def init(key: Any, num_features: int) -> Any:
        return network.init(key, jnp.zeros((1, num_features)))

    return Estimator("mlp", init, lambda params, lanes: (), lambda p, carry, x: (apply(p, x), carry), apply, False)


def _orthogonal(key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Any:
    """An orthogonal matrix; one after the other under vmap, where a batched QR can hang the CPU runtime."""
    single = jax.custom_batching.sequential_vmap(lambda key: nn.initializers.orthogonal()(key, shape, dtype))
    return single(key)


def recurrent(cell: str = "gru", *, width: int = 64, difference: bool = False) -> Estimator:
    """c_t = g(h_t) with a hidden state h_t of the prefix, or the difference g(h_t) - g(h_{t-1}) with g(h_0) = 0.

    The last prefix holds the whole episode, so g(h_t) may put everything on the last step. The difference form cannot
    hide there once its predictions g(h_t) are asked to be good early (``prediction`` of the loss).

    Args:
        cell: ``"gru"`` or ``"lstm"``.
        width: of the hidden state.
        difference: the difference form.
    """
    module: Any = {"gru": nn.GRUCell, "lstm": nn.OptimizedLSTMCell}[cell](width, recurrent_kernel_init=_orthogonal)
    head = networks.MLP((), 1, output_scale=0.01)

    def init(key: Any, num_features: int) -> Any:
        cell_key, head_key = jax.random.split(key)
        carry = module.initialize_carry(key, (1, num_features))
        made = module.init(cell_key, carry, jnp.zeros((1, num_features)))
        return {"cell": made, "head": head.init(head_key, jnp.zeros((1, width)))}

    def initial(params: Any, lanes: int) -> Any:
        return module.initialize_carry(jax.random.key(0), (lanes, 1)), jnp.zeros(lanes)

    def step(params: Any, carry: Any, x: Float[Array, "batch features"]) -> Any:
        hidden, output = module.apply(params["cell"], carry[0], x)
        value = jnp.asarray(head.apply(params["head"], output))[..., 0]
        return value - carry[1] if difference else value, (hidden, value)

    return Estimator(f"{cell}{'_difference' * difference}", init, initial, step, _scanned(step, initial), True)


def transformer(max_length: int, *, width: int = 64, heads: int = 4, difference: bool = False) -> Estimator:
    """c_t = g(x_0 .. x_t) by one block of causal attention with learned positions, or its difference.

    Args:
        max_length: longest episode; steps beyond it are NaN.
        width: of the tokens.
        heads: of the attention; must divide ``width``.
        difference: as in :func:`recurrent`.
    """
    if width % heads:
        raise ValueError(f"the width of a transformer must be a multiple of its {heads} heads, got {width}.")
    block = _Block(max_length, width, heads)
    positions = jnp.arange(max_length)

    def init(key: Any, num_features: int) -> Any:
        return block.init(key, jnp.zeros((1, 1, num_features)))

    def initial(params: Any, lanes: int) -> Any:
        return jnp.zeros((lanes, max_length, width)), jnp.zeros(lanes, jnp.int32), jnp.zeros(lanes)

    def step(params: Any, carry: Any, x: Float[Array, "batch features"]) -> Any:
        tokens, length, before = carry
        at = jnp.minimum(length, max_length - 1)
        token = block.apply(params, x[:, None], at[:, None], method="token")
        tokens = tokens.at[jnp.arange(len(x)), at].set(jnp.asarray(token)[:, 0])
        visible = (positions[None] <= at[:, None])[:, None, None]
        value = jnp.asarray(block.apply(params, token, tokens, visible, method="read"))[:, 0]
        value = jnp.where(length < max_length, value, jnp.nan)
        return value - before if difference else value, (tokens, length + 1, value)

    def unroll(params: Any, x: Float[Array, "time batch features"]) -> Float[Array, "time batch"]:
        value = jnp.asarray(block.apply(params, jnp.moveaxis(x, 0, 1))).T
        return jnp.diff(value, axis=0, prepend=0.0) if difference else value

    return Estimator(f"transformer{'_difference' * difference}", init, initial, step, unroll, True)


class _Block(nn.Module):
    """One pre-norm block; keys are the tokens themselves, so that they can be kept from step to step."""

    max_length: int
    width: int
    heads: int

    def setup(self) -> None:
        self.embed = nn.Dense(self.width)
        self.positions = self.param("positions", nn.initializers.normal(0.02), (self.max_length, self.width))
        self.attention = nn.MultiHeadDotProductAttention(self.heads, qkv_features=self.width)
        self.norms = [nn.LayerNorm(), nn.LayerNorm()]
        self.dense = [nn.Dense(2 * self.width), nn.Dense(self.width)]
        self.head = nn.Dense(1, kernel_init=nn.initializers.normal(0.01))

    def token(self, x: Any, at: Any) -> Any:
        return self.embed(x) + self.positions[at]

    def read(self, query: Any, tokens: Any, visible: Any) -> Any:
        y = query + self.attention(self.norms[0](query), self.norms[0](tokens), mask=visible)
        y = y + self.dense[1](nn.gelu(self.dense[0](self.norms[1](y))))
        return self.head(y)[..., 0]

    def __call__(self, x: Any) -> Any:
        batch, time = x.shape[:2]
        tokens = self.token(x, jnp.broadcast_to(jnp.arange(time), (batch, time)))
        visible = jnp.tril(jnp.ones((time, time), bool))[None, None]
        return self.read(tokens, tokens, jnp.broadcast_to(visible, (batch, 1, time, time)))


def _scanned(step: Callable[..., Any], initial: Callable[..., Any]) -> Callable[[Any, Any], Any]:
    def unroll(params: Any, x: Float[Array, "time batch features"]) -> Float[Array, "time batch"]:
        def body(carry: Any, x: Any) -> tuple[Any, Any]:
            contribution, carry = step(params, carry, x)
            return carry, contribution

        return jax.lax.scan(body, initial(params, x.shape[1]), x)[1]

    return unroll
