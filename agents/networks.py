"""Networks of the agents and what goes into them."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from gymnasium import spaces
from jaxtyping import Array, Bool, Float


def orthogonal(scale: float) -> nn.initializers.Initializer:
    """Orthogonal weights (rows or columns, whichever are fewer), times ``scale``; without a decomposition.

    A random normal matrix X goes to its polar factor by the iteration of Newton and Schulz, X <- (3 X - X Xᵀ X) / 2,
    which converges from any X with singular values in (0, √3). Matrix products only: a vmapped QR decomposition has
    hung the CPU runtime with several devices.

    Source: Saxe, McClelland and Ganguli, "Exact solutions to the nonlinear dynamics of learning in deep linear neural
    networks", 2013, arXiv:1312.6120; Higham, "Functions of Matrices", 2008, section 8.3.
    """

    def init(key: Any, shape: Sequence[int], dtype: Any = jnp.float32) -> Array:
        rows, columns = int(np.prod(shape[:-1])), shape[-1]
        x = jax.random.normal(key, (min(rows, columns), max(rows, columns)))
        x = x / jnp.linalg.norm(x)
        x = jax.lax.fori_loop(0, 50, lambda _, x: 1.5 * x - 0.5 * (x @ x.T) @ x, x)
        return (scale * (x.T if rows > columns else x)).reshape(shape).astype(dtype)

    return init


HIDDEN_INIT = orthogonal(2.0**0.5)


class MLP(nn.Module):
    """Dense layers with tanh, and a linear layer of ``num_outputs`` whose weights start ``output_scale`` small.

    Weights start orthogonal, as is usual for PPO. On MuJoCo's Walker2d one run with them returned 3,436 after 500,000
    steps, one with independent normal weights 777 after 1,000,000.
    """

    hidden: Sequence[int]
    num_outputs: int
    output_scale: float = 1.0

    @nn.compact
    def __call__(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch outputs"]:
        """Apply the network."""
        for width in self.hidden:
            x = nn.tanh(nn.Dense(width, kernel_init=HIDDEN_INIT)(x))
        return nn.Dense(self.num_outputs, kernel_init=orthogonal(self.output_scale))(x)


MASK_KEY = "action_mask"
"""Key of a Dict observation that says which actions are allowed (1) and which are not (0)."""


def features(space: spaces.Space, obs: Any, xp: Any = jnp) -> Any:
    """Flat float features of an observation: one-hot for discrete spaces, bytes scaled to [0, 1], dicts concatenated.

    The key ``"action_mask"`` of a Dict is left out, see :func:`action_mask`.

    Args:
        space: the environment's observation space.
        obs: observations with any leading batch axes.
        xp: ``jax.numpy``, or ``numpy`` for a few rows on the host.

    Returns:
        ``[*batch, features]`` float32, of ``xp``.

    Raises:
        TypeError: for a space that a network cannot read.
    """
    if isinstance(space, (spaces.Box, spaces.MultiBinary)):
        scale = 255.0 if isinstance(space, spaces.Box) and space.dtype == np.uint8 else 1.0
        batch = obs.shape[: obs.ndim - len(space.shape)]
        return obs.reshape(*batch, -1).astype(xp.float32) / xp.float32(scale)
    if isinstance(space, spaces.Discrete):
        return _one_hot(obs - int(space.start), int(space.n), xp)
    if isinstance(space, spaces.MultiDiscrete):
        return xp.concatenate([_one_hot(obs[..., i], int(n), xp) for i, n in enumerate(space.nvec)], axis=-1)
    if isinstance(space, spaces.Dict):
        parts = [features(space[name], entry(obs, name), xp) for name in readable_keys(space)]
        return xp.concatenate(parts, axis=-1)
    raise TypeError(f"a network cannot read observations from {type(space).__name__}; use Box, Discrete or Dict.")


def entry(obs: Any, name: str) -> Any:
    """An entry of a Dict observation.

    Raises:
        ValueError: if the observation lacks it.
    """
    if name not in obs:
        raise ValueError(
            f"the observation lacks {name!r}, which its observation_space has; it has {', '.join(obs) or 'nothing'}: "
            "return it in reset and step, or take it out of the space."
        )
    return obs[name]


def readable_keys(space: Any) -> list[str]:
    """The keys of a Dict observation that networks read, sorted.

    Raises:
        TypeError: if there is none.
    """
    names = sorted(name for name in space if name != MASK_KEY)
    if not names:
        raise TypeError(f"a network needs an observation to read, got a Dict with the keys {sorted(space)}.")
    return names


def _one_hot(index: Any, num: int, xp: Any) -> Any:
    return (index[..., None] == xp.arange(num).reshape((1,) * index.ndim + (num,))).astype(xp.float32)


def action_mask(space: spaces.Space, obs: Any) -> Bool[Array | np.ndarray, "*batch actions"] | None:
    """Which actions are allowed: the key ``"action_mask"`` of a Dict observation, None where there is none.

    A row that allows nothing (of an observation in which nothing is decided) allows everything.

    Args:
        space: the environment's observation space.
        obs: observations with any leading batch axes, JAX or NumPy.

    Example:
        >>> import numpy as np
        >>> from gymnasium import spaces
        >>> from reward_design.agents.networks import action_mask
        >>> space = spaces.Dict({"x": spaces.Discrete(2), "action_mask": spaces.MultiBinary(2)})
        >>> action_mask(space, {"x": np.array([0, 1]), "action_mask": np.array([[0, 1], [0, 0]])}).tolist()
        [[False, True], [True, True]]
    """
    if not isinstance(space, spaces.Dict) or MASK_KEY not in space.spaces:
        return None
    allowed = obs[MASK_KEY] != 0
    return allowed | ~allowed.any(axis=-1, keepdims=True)


def masked(logits: Any, mask: Any, xp: Any = jnp) -> Any:
    """Logits with those of actions that are not allowed at -1e9: probability 0, and finite gradients."""
    return logits if mask is None else xp.where(mask, logits, xp.float32(-1e9))


def check_action_mask(observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Refuse a mask that does not fit the actions.

    Raises:
        TypeError: unless actions are Discrete and the mask has one entry for each.
    """
    if not isinstance(observation_space, spaces.Dict) or MASK_KEY not in observation_space.spaces:
        return
    shape = observation_space[MASK_KEY].shape
    if not isinstance(action_space, spaces.Discrete) or shape != (int(action_space.n),):
        raise TypeError(f"{MASK_KEY!r} needs Discrete actions and one entry for each, got {shape} for {action_space}.")


class Moments(NamedTuple):
    """Running mean and variance of features."""

    mean: Float[Array, " features"]
    var: Float[Array, " features"]
    count: Float[Array, ""]

    def update(self, x: Float[Array, "*batch features"], mask: Bool[Array, "*batch"] | None = None) -> "Moments":
        """Merge a batch, or those of its rows that ``mask`` marks (Chan, Golub and LeVeque, 1983)."""
        x = x.reshape(-1, x.shape[-1])
        counts = jnp.ones((len(x), 1), bool) if mask is None else mask.reshape(-1, 1)
        number = counts.sum()
        mean = jnp.sum(x, axis=0, where=counts) / jnp.maximum(number, 1)
        var = jnp.sum(jnp.square(x - mean[None]), axis=0, where=counts) / jnp.maximum(number, 1)
        total = self.count + number
        delta, share = mean - self.mean, number / total
        merged = self.var * (1 - share) + var * share + delta**2 * share * (1 - share)
        return Moments(self.mean + delta * share, merged, total)

    def normalise(self, x: Float[Array, "*batch features"]) -> Float[Array, "*batch features"]:
        """(x - mean) / std, cut at 10 standard deviations."""
        mean, var = jnp.broadcast_to(self.mean, x.shape), jnp.broadcast_to(self.var, x.shape)
        return jnp.clip((x - mean) / jnp.sqrt(var + 1e-8), -10.0, 10.0)


def initial_moments(num_features: int) -> Moments:
    """Mean 0 and variance 1 with next to no weight."""
    return Moments(jnp.zeros(num_features), jnp.ones(num_features), jnp.float32(1e-4))
