"""The Bradley-Terry model: a reward whose sum over a segment says which of two segments is preferred.

Source: R. A. Bradley, M. E. Terry, "Rank Analysis of Incomplete Block Designs", Biometrika 1952; as a reward model:
P. Christiano et al., "Deep Reinforcement Learning from Human Preferences", 2017, arXiv 1706.03741.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from reward_design._arguments import finite, number, whole_number
from reward_design.agents import networks
from reward_design.constructors import pointwise
from reward_design.core import Params, Reward, Transition
from reward_design.ensembles import Reduce, reduced

Inputs = Callable[[Transition], Float[Array, "*batch d"]]
"""What a reward model reads of a transition, for any leading axes."""
REDUCTIONS: tuple[str, ...] = get_args(Reduce)


class RewardNetwork(nn.Module):
    """Layers with ReLU, then one number per row.

    Attributes:
        hidden: widths of the layers.
    """

    hidden: Sequence[int] = (64, 64)

    @nn.compact
    def __call__(self, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Unnormalised rewards."""
        for width in self.hidden:
            x = nn.relu(nn.Dense(width)(x))
        return nn.Dense(1)(x)[..., 0]


def bradley_terry(
    inputs: Inputs | None = None,
    *,
    network: Any = None,
    num_members: int = 1,
    reduce: Reduce = "mean",
    coefficient: float | int = 1.0,
    gamma: float | int | None = None,
    extra: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    name: str = "bradley_terry",
) -> Reward:
    """A reward to be learned from preferences: r = reduce_k (f_k(x) - shift_k) scale_k, x what ``inputs`` reads.

    The model says P(A preferred to B) = sigmoid(sum_A f - sum_B f). Preferences fix f up to its scale and, among
    segments of equal length, up to a constant: ``shift`` and ``scale`` make the mean 0 and the spread 1 on calibration
    segments. ``scale`` is 0 until a learner has trained the network, so that nothing is ever paid by an untrained one.

    Keeps the optimal policy: only if the preferences are those of a return, and have been learned exactly.

    Args:
        inputs: ``transition -> [*batch, d]``; by default observation, action and next observation as they are,
            flattened. For indices and other spaces see :func:`space_inputs`.
        network: flax module ``[*batch, d] -> [*batch]``; by default :class:`RewardNetwork`.
        num_members: networks K of the ensemble, with initial weights of their own.
        reduce: how members are combined, see :func:`reward_design.ensemble`.
        coefficient: standard deviations subtracted by ``reduce="lcb"``; a param.
        gamma: the agent's discount, in [0, 1), for tasks whose episodes terminate: the last step of such an episode
            then counts for all that would follow, for the rest of a segment in a comparison, 1 / (1 - gamma) times in
            what is paid. Without it, an agent that is paid well next to the goal has no reason to end the episode
            there.
        extra: further params, which the teacher of a learner reads.
        settings: further ones to show.
        name: of the reward and its term.

    Returns:
        A :class:`Reward` of kind ``POINTWISE`` with params ``members``, ``shift`` and ``scale`` with an axis ``[K]``,
        ``input_mean`` and ``input_scale`` ``[d]``, the numbers ``coefficient`` and ``terminal_weight``, and ``extra``.

    Raises:
        ValueError: if ``num_members`` is below 1, ``reduce`` is unknown, or ``gamma`` is outside [0, 1).
        TypeError: for numbers, inputs or a network of another sort; at trace time, if ``inputs`` are not floating point
            ``[*batch, d]``.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.envs import task
        >>> from reward_design.preferences import bradley_terry
        >>> params, _ = bradley_terry(num_members=3).init(jax.random.key(0), task("pendulum").example)
        >>> params["scale"].tolist()  # not trained yet
        [0.0, 0.0, 0.0]

    Source: see the module.
    """
    if (num_members := whole_number("num_members", num_members)) < 1:
        raise ValueError(f"num_members must be at least 1, got {num_members}.")
    if reduce not in REDUCTIONS:
        raise ValueError(f"reduce must be one of {', '.join(REDUCTIONS)}, got {reduce!r}.")
    if inputs is not None and not callable(inputs):
        raise TypeError(f"inputs must be a function of a transition, or None for all of it, got {inputs!r}.")
    if network is not None and not (hasattr(network, "init") and hasattr(network, "apply")):
        raise TypeError(f"network must be a flax module, got {network!r}.")
    coefficient = finite("coefficient", coefficient)
    gamma = None if gamma is None else number("gamma", gamma)
    if gamma is not None and not 0 <= gamma < 1:
        raise ValueError(f"gamma must be in [0, 1), or None if nothing follows the end of an episode, got {gamma}.")
    model = Model(inputs or flat_inputs, network or RewardNetwork(), num_members, reduce, gamma is not None)

    def init(key: Any, example: Transition) -> Params:
        x = checked_inputs(model.inputs, example)
        # lax.map and not vmap: a vmapped orthogonal initialiser (batched QR) can hang the CPU runtime.
        members = jax.lax.map(lambda k: model.network.init(k, x), jax.random.split(key, num_members))
        return {
            "members": members,
            "shift": jnp.zeros(num_members),
            "scale": jnp.zeros(num_members),
            "input_mean": jnp.zeros(x.shape[-1]),
            "input_scale": jnp.ones(x.shape[-1]),
            "coefficient": jnp.asarray(coefficient, float),
            "terminal_weight": jnp.asarray(1.0 if gamma is None else 1 / (1 - gamma), float),
            **{entry: jnp.asarray(value, float) for entry, value in (extra or {}).items()},
        }

    def fn(params: Params, transition: Transition) -> Array:
        return model.pay(params, checked_inputs(model.inputs, transition), jnp.asarray(transition.terminated))

    settings = {"model": model, "reduce": reduce, **({} if gamma is None else {"gamma": gamma}), **(settings or {})}
    return pointwise(name, fn, params=init, settings=settings)


@dataclass(frozen=True, eq=False)
class Model:
    """The form of a reward model: what it reads, its network, how members are combined, whether episodes go on."""

    inputs: Inputs
    network: Any
    num_members: int
    reduce: Reduce
    absorbing: bool

    def __str__(self) -> str:
        return f"{self.num_members} {type(self.network).__name__}"

    def member(self, params: Params, member: Any, x: Float[Array, "*batch d"]) -> Float[Array, "*batch"]:
        """Unnormalised rewards f(x) of one member, with weights ``member``."""
        shape = (1,) * (x.ndim - 1) + (-1,)
        x = (x - params["input_mean"].reshape(shape)) * params["input_scale"].reshape(shape)
        return self.network.apply(member, jnp.clip(x, -10.0, 10.0))

    def members(self, params: Params, x: Float[Array, "*batch d"]) -> Float[Array, "members *batch"]:
        """Unnormalised rewards f_k(x) of every member."""
        return jax.vmap(self.member, in_axes=(None, 0, None))(params, params["members"], x)

    def pay(
        self, params: Params, x: Float[Array, "*batch d"], terminated: Bool[Array, "*batch"]
    ) -> Float[Array, "*batch"]:
        """The reward that an agent gets."""
        raw = self.members(params, x)
        shift, scale = (params[k].reshape((-1,) + (1,) * (raw.ndim - 1)) for k in ("shift", "scale"))
        paid = reduced((raw - shift) * scale, self.reduce, params["coefficient"])
        return jnp.where(terminated, params["terminal_weight"] * paid, paid)


def model_of(reward: Reward) -> Model:
    """The model of a reward that :func:`bradley_terry` made.

    Raises:
        TypeError: for another reward.
    """
    model = reward.settings.get("model")
    if not isinstance(model, Model):
        raise TypeError(f"expected a reward made by bradley_terry or heron, got {reward.name!r}.")
    return model


def score(
    rewards: Float[Array, "*members n time"], weights: Float[Array, "n time"], pool: str
) -> Float[Array, "*members n"]:
    """Scores of segments, whose differences are log-odds: the weighted sum or mean of their rewards."""
    total = jnp.einsum("...nt,nt->...n", rewards, weights)
    if pool == "sum":
        return total
    return total / jnp.broadcast_to(jnp.maximum(weights.sum(axis=-1), 1), total.shape)


def preference_loss(difference: Float[Array, "*pairs"], preferred: Float[Array, "*pairs"]) -> Float[Array, "*pairs"]:
    """Negative log-likelihood of Bradley-Terry: -y log sigmoid(d) - (1 - y) log sigmoid(-d), in softplus form.

    Args:
        difference: d, score of the first minus that of the second.
        preferred: y: 1 for the first, 0 for the second, 0.5 for a tie.

    Returns:
        Losses; finite for any finite difference.

    Example:
        >>> import jax.numpy as jnp
        >>> float(preference_loss(jnp.array(-1000.0), jnp.array(1.0)))
        1000.0
    """
    return preferred * jax.nn.softplus(-difference) + (1 - preferred) * jax.nn.softplus(difference)


# --- what a model reads ---------------------------------------------------------------------------------------------


def flat_inputs(transition: Transition) -> Float[Array, "*batch d"]:
    """Observation, action and next observation, flattened."""
    batch = jnp.shape(transition.reward)
    leaves = jax.tree.leaves((transition.obs, transition.action, transition.next_obs))
    return jnp.concatenate([jnp.reshape(x, (*batch, -1)).astype(float) for x in leaves], axis=-1)


def space_inputs(env: Any) -> Inputs:
    """Observation, action and next observation by the spaces of an environment: indices one-hot, bytes in [0, 1].

    Args:
        env: a task or an environment, with ``observation_space`` and ``action_space``.

    Returns:
        Inputs for :func:`bradley_terry`.

    Example:
        >>> from reward_design.envs import task
        >>> chain = task("chain")
        >>> space_inputs(chain)(chain.example).shape  # 20 states, two actions, 20 states
        (1, 42)
    """
    env = getattr(env, "env", env)

    def read(transition: Transition) -> Float[Array, "*batch d"]:
        parts = [
            networks.features(env.observation_space, transition.obs),
            networks.features(env.action_space, transition.action),
            networks.features(env.observation_space, transition.next_obs),
        ]
        return jnp.concatenate(parts, axis=-1)

    return read


def checked_inputs(inputs: Inputs, transition: Transition) -> Float[Array, "*batch d"]:
    """``inputs(transition)``.

    Raises:
        TypeError: if it is not floating point ``[*batch, d]``.
    """
    x, batch = jnp.asarray(inputs(transition)), jnp.shape(transition.reward)
    if x.shape[:-1] != batch or not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(
            f"inputs must return floating point [*batch, d] with batch {batch}, got {x.dtype} {x.shape}; stack what "
            "the reward model reads on the last axis."
        )
    return x
