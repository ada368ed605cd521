"""Several members of one form with different parameters, reduced to one reward."""

from typing import Any, Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from reward_design import learners
from reward_design.combinators import checked_names, composed
from reward_design.core import ApplyFn, Output, Params, Reward, State, Transition

Reduce = Literal["mean", "median", "min", "max", "lcb"]


def ensemble(reward: Reward, num: int, *, reduce: Reduce = "mean", coefficient: float | int = 1.0) -> Reward:
    """Members with the same form and different parameters, reduced to one reward.

    r' = reduce_k r(params_k): ``mean``, ``median``, ``min``, ``max``, or ``lcb`` = mean - coefficient · std
    (population). Terms are the members' means, plus the term ``ensemble`` = reduced - mean where the two differ.

    Keeps the optimal policy: only if every member does and ``reduce="mean"``.

    Args:
        reward: the member; its ``init`` is called with ``num`` keys, one after the other.
        num: number of members, at least 1.
        reduce: how members are combined.
        coefficient: standard deviations subtracted by ``lcb``; a param.

    Returns:
        A :class:`Reward` of the member's kind; ``params["members"]`` has leading axis ``num``.

    Raises:
        ValueError: if ``num`` is below 1 or ``reduce`` is unknown.

    Example:
        >>> import jax, reward_design as rd
        >>> noisy = rd.pointwise("noisy", lambda p, t: p + t.reward, params=lambda key, _: jax.random.normal(key))
        >>> rd.ensemble(noisy, 5, reduce="lcb").settings["num"]
        5

    Source: Eisenstein et al., "Helping or Herding? Reward Model Ensembles Mitigate but do not Eliminate Reward
    Hacking", 2023, arXiv 2312.09244 (mean, median, min, mean minus std).
    """
    if num < 1:
        raise ValueError(f"num must be at least 1, got {num}.")
    if reduce not in ("mean", "median", "min", "max", "lcb"):
        raise ValueError(f"reduce must be 'mean', 'median', 'min', 'max' or 'lcb', got {reduce!r}.")
    checked_names("ensemble", [reward])
    axes = State(episode=1, running=0, fresh=1)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        # lax.map and not vmap: a vmapped orthogonal initialiser (batched QR) can hang the CPU runtime.
        params, state = jax.lax.map(lambda k: reward.init(k, example), jax.random.split(key, num))
        lanes_first = jax.tree.map(lambda x: jnp.moveaxis(x, 0, 1), (state.episode, state.fresh))
        state = State(lanes_first[0], state.running, lanes_first[1])
        extra = {"coefficient": jnp.asarray(coefficient, jnp.asarray(example.reward).dtype)} if reduce == "lcb" else {}
        return {"members": params, **extra}, state

    def apply(which: str) -> ApplyFn:
        member: Any = jax.vmap(getattr(reward, which), in_axes=(0, axes, None), out_axes=(0, axes))

        def run(params: Params, state: State, transition: Transition) -> tuple[Output, State]:
            output, state = member(params["members"], state, transition)
            mean = output.reward.mean(axis=0)
            terms = {name: value.mean(axis=0) for name, value in output.terms.items()}
            if reduce == "mean":
                return Output(mean, terms), state
            value = reduced(output.reward, reduce, params.get("coefficient"))
            return Output(value, terms | {"ensemble": value - mean}), state

        return run

    settings = {"num": num, "reduce": reduce} | ({"coefficient": coefficient} if reduce == "lcb" else {})
    rebuild = lambda parts: ensemble(next(iter(parts.values())), num, reduce=reduce, coefficient=coefficient)  # noqa: E731
    learner = learners.within(learners.members(reward.learner, num), "members")
    return composed("ensemble", {reward.name: reward}, apply, init, rebuild, settings, learner=learner)


def reduced(values: Float[Array, "num ..."], reduce: str, coefficient: Any) -> Float[Array, "..."]:
    """What members say, along the first axis, as one value; see :func:`ensemble`."""
    if reduce != "lcb":
        return getattr(jnp, reduce)(values, axis=0)
    variance = values.var(axis=0)
    std = jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), 0.0)
    return values.mean(axis=0) - coefficient * std
