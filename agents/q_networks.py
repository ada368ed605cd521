"""Networks of the off-policy agents: relu layers in flax, and the same in NumPy for the host."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import numpy as np
from jaxtyping import Array, Float

INIT = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")  # U(-1, 1) / sqrt(fan_in)
EPSILON = 1e-6


class ReluMLP(nn.Module):
    """Dense layers with relu, and a linear layer.

    Attributes:
        hidden: widths.
        num_outputs: width of the last layer.
        layer_norm: normalise before each relu.
    """

    hidden: Sequence[int]
    num_outputs: int
    layer_norm: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """Apply the network."""
        for i, width in enumerate(self.hidden):
            x = nn.Dense(width, kernel_init=INIT, name=f"Dense_{i}")(x)
            if self.layer_norm:
                x = nn.LayerNorm(epsilon=EPSILON, name=f"LayerNorm_{i}")(x)
            x = nn.relu(x)
        return nn.Dense(self.num_outputs, kernel_init=INIT, name=f"Dense_{len(self.hidden)}")(x)


def numpy_relu_mlp(params: Mapping[str, Any]) -> Callable[[np.ndarray], np.ndarray]:
    """The forward pass of :class:`ReluMLP` in NumPy."""
    layers = params["params"]
    num_hidden = sum(name.startswith("Dense") for name in layers) - 1
    dense = [(layers[f"Dense_{i}"]["kernel"], layers[f"Dense_{i}"]["bias"]) for i in range(num_hidden + 1)]
    norms = [layers.get(f"LayerNorm_{i}") for i in range(num_hidden)]

    def apply(x: np.ndarray) -> np.ndarray:
        for (kernel, bias), norm in zip(dense[:-1], norms, strict=True):
            x = x @ kernel + bias
            if norm is not None:
                spread = np.sqrt(x.var(axis=-1, keepdims=True) + EPSILON)
                x = (x - x.mean(axis=-1, keepdims=True)) / spread * norm["scale"] + norm["bias"]
            x = np.maximum(x, 0.0)
        return x @ dense[-1][0] + dense[-1][1]

    return apply
