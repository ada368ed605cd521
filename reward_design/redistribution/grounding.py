"""Whether an action did anything: the grounding signal g_t of stepwise progress attribution."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool

from reward_design.agents.networks import MASK_KEY
from reward_design.core import Transition

Grounding = Callable[[Transition], Bool[Array, " batch"]]
"""``transition [B] -> [B]``, True where the action was valid."""


def changed(*, threshold: float = 1e-3, exempt: tuple[int, ...] = ()) -> Grounding:
    """Valid where the observation changed.

    Args:
        threshold: floats have changed where one differs by more, in the units of the observation; integers and bytes
            where they differ at all.
        exempt: actions that are always valid: those that are meant to do nothing.

    Returns:
        A :data:`Grounding`.

    Example:
        >>> import jax.numpy as jnp, reward_design as rd
        >>> no = jnp.zeros(2, bool)
        >>> t = rd.Transition(jnp.array([3, 3]), jnp.array([0, 1]), jnp.array([3, 4]), jnp.zeros(2), no, no, ~no)
        >>> changed()(t).tolist(), changed(exempt=(0,))(t).tolist()
        ([False, True], [True, True])
    """

    def grounding(transition: Transition) -> Bool[Array, " batch"]:
        moved = jax.tree.map(lambda a, b: _differs(a, b, threshold), transition.obs, transition.next_obs)
        valid = jnp.stack(jax.tree.leaves(moved)).any(axis=0)
        if exempt:
            valid = valid | jnp.isin(jnp.asarray(transition.action), jnp.asarray(exempt))
        return valid

    return grounding


def allowed(transition: Transition) -> Bool[Array, " batch"]:
    """Valid where the mask ``"action_mask"`` of the observation, or of the info, allows the action.

    Args:
        transition: with integer actions ``[B]`` and the mask ``[B, actions]``.

    Raises:
        ValueError: if there is no such mask.
    """
    for where in (transition.obs, transition.info):
        if isinstance(where, Mapping) and MASK_KEY in where:
            action = jnp.asarray(transition.action, jnp.int32)
            return jnp.take_along_axis(jnp.asarray(where[MASK_KEY]) != 0, action[:, None], axis=1)[:, 0]
    raise ValueError(
        f"grounding 'mask' needs the entry {MASK_KEY!r} in the observation or in info; use grounding='change', or give "
        "a function of the transition."
    )


def unless(flag: str) -> Grounding:
    """Valid unless the environment says otherwise in ``info[flag]``.

    Args:
        flag: name of an info entry ``[B]``, true where the action was invalid.

    Returns:
        A :data:`Grounding`, which raises a ValueError at trace time where info has no such entry.
    """

    def grounding(transition: Transition) -> Bool[Array, " batch"]:
        if flag not in transition.info:
            there = ", ".join(transition.info) or "none"
            raise ValueError(f"info has no entry {flag!r}; it has {there}. Name a flag that the environment reports.")
        return jnp.asarray(transition.info[flag]) == 0

    return grounding


def resolved(grounding: str | Grounding | None) -> Grounding | None:
    """The function that a setting stands for: ``"change"``, ``"mask"``, a function, or None.

    Raises:
        ValueError: for another name.
    """
    if grounding is None or callable(grounding):
        return grounding
    if grounding not in ("change", "mask"):
        raise ValueError(f"valid must be 'change', 'mask', a function or None, got {grounding!r}.")
    return changed() if grounding == "change" else allowed


def _differs(a: Any, b: Any, threshold: float) -> Bool[Array, " batch"]:
    a, b = jnp.asarray(a), jnp.asarray(b)
    different = jnp.abs(b - a) > threshold if jnp.issubdtype(a.dtype, jnp.floating) else a != b
    return different.reshape(a.shape[0], -1).any(axis=1)
