"""The methods that BARFI is compared with: same data, updates and inner learner, another reward or outer step."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from gymnasium import spaces
from jaxtyping import Array, Float

from reward_design._names import suggestion
from reward_design.bilevel.alignment import alignment_reward
from reward_design.combinators import chain, environment_reward, weighted_sum
from reward_design.core import Reward, Transition
from reward_design.envs.base import Task
from reward_design.shaping import look_ahead_advice, potential_shaping


@dataclasses.dataclass(frozen=True, eq=False)
class Method:
    """What to give to :func:`reward_design.bilevel.barfi`.

    Attributes:
        description: one line.
        reward: the reward.
        settings: of :class:`reward_design.bilevel.BarfiConfig` that make the method.
    """

    description: str
    reward: Reward
    settings: Mapping[str, Any]


def method(
    name: str,
    task: Task,
    auxiliary: str | Reward,
    *,
    primary: Reward | None = None,
    advice: Callable[[Any, Any], Any] | None = None,
) -> Method:
    """A method by name, for a task and a heuristic.

    ========================  =========================================================================================
    ``barfi``                 r = phi1 + phi2 r^p + phi3 r^aux, phi by implicit gradients
    ``barfi_discount``        the same, and the learner's discount
    ``primary``               r^p
    ``naive``                 r^p + r^aux
    ``shaping``               r^p + gamma Phi(s') - Phi(s), Phi the task's potential of states
    ``look_ahead``            r^p + gamma Phi(s', a') - Phi(s, a), Phi the ``advice``; biased for a policy gradient
    ``look_ahead_corrected``  the same with Phi(s, a) added to the return of each step, which undoes the bias
    ``lirpg``                 the reward of ``barfi``, phi by the gradient through one inner step
    ``bipars_mgl``            r^p + z_phi(s, a) r^aux with z linear in state and action, by the same one-step gradient
    ``bipars_imgl``           the same with the sensitivity of the policy accumulated over all inner steps
    ========================  =========================================================================================

    Args:
        name: of the table.
        task: the task.
        auxiliary: the heuristic, or the name of one in ``task.auxiliary``.
        primary: what counts; by default the environment's reward.
        advice: ``(obs [B], action [B]) -> [B]``, for the look-ahead methods.

    Returns:
        A :class:`Method`.

    Raises:
        ValueError: for an unknown name, with the nearest one, or a look-ahead method without ``advice``.

    Example:
        >>> from reward_design.envs import task
        >>> method("naive", task("chain"), "misaligned").settings
        {'outer': 'none'}

    Sources: for BARFI see :func:`reward_design.bilevel.barfi`; E. Wiewiora, G. Cottrell, C. Elkan, "Principled Methods
    for Advising Reinforcement Learning Agents", 2003; Z. Zheng, J. Oh, S. Singh, "On Learning Intrinsic Rewards for
    Policy Gradient Methods", 2018, arXiv 1804.06459; Y. Hu et al., "Learning to Utilize Shaping Rewards: A New Approach
    of Reward Shaping", 2020, arXiv 2011.02669. In the last two phi starts at the naive sum, as for ``barfi``.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}{suggestion(name, METHODS)} Known: {', '.join(METHODS)}.")
    description, changes, build = METHODS[name]
    if name.startswith("look_ahead"):
        if advice is None:
            raise ValueError(f"method {name!r} needs advice=, a function (obs, action) -> [B]; others do not.")
        changes = {**changes, "advice": advice} if name == "look_ahead_corrected" else changes
    heuristic = task.auxiliary[auxiliary] if isinstance(auxiliary, str) else auxiliary
    reward = build(task, primary or environment_reward(), heuristic, advice)
    return Method(description, reward, changes)


def state_action(task: Task) -> Callable[[Transition], Float[Array, "batch features"]]:
    """Features for weights that depend on state and action: flat observation, and action, one-hot if discrete."""
    space = task.env.action_space

    def features(transition: Transition) -> Float[Array, "batch features"]:
        batch = transition.mask.shape[0]
        parts = [jnp.reshape(x, (batch, -1)).astype(jnp.float32) for x in jax.tree.leaves(transition.obs)]
        action = jnp.asarray(transition.action)
        if isinstance(space, spaces.Discrete):
            action = jax.nn.one_hot(action - int(space.start), int(space.n))
        return jnp.concatenate([*parts, jnp.reshape(action, (batch, -1)).astype(jnp.float32)], axis=-1)

    return features


def _aligned(task: Task, primary: Reward, auxiliary: Reward, _: Any) -> Reward:
    return alignment_reward(primary, auxiliary)


def _local(task: Task, primary: Reward, auxiliary: Reward, _: Any) -> Reward:
    return alignment_reward(primary, auxiliary, features=state_action(task))


def _naive(task: Task, primary: Reward, auxiliary: Reward, _: Any) -> Reward:
    return weighted_sum(primary=primary, auxiliary=auxiliary)


def _shaping(task: Task, primary: Reward, auxiliary: Reward, _: Any) -> Reward:
    return chain(primary, potential_shaping(task.potential, gamma=task.gamma))


def _look_ahead(task: Task, primary: Reward, auxiliary: Reward, advice: Any) -> Reward:
    return chain(primary, look_ahead_advice(advice, gamma=task.gamma))


_MATCHED = {"outer": "none"}
_WEIGHT = {"learn_phi": (False, False, True)}
METHODS: dict[str, tuple[str, Mapping[str, Any], Callable[..., Reward]]] = {
    "barfi": ("blend aligned by implicit gradients", {}, _aligned),
    "barfi_discount": ("the same with a learned discount", {"learn_discount": True}, _aligned),
    "primary": ("the task's reward alone", _MATCHED, lambda task, primary, auxiliary, advice: primary),
    "naive": ("task's reward plus heuristic", _MATCHED, _naive),
    "shaping": ("task's reward plus potential-based shaping", _MATCHED, _shaping),
    "look_ahead": ("task's reward plus look-ahead advice, uncorrected", _MATCHED, _look_ahead),
    "look_ahead_corrected": ("the same with Wiewiora's correction", _MATCHED, _look_ahead),
    "lirpg": ("blend by one-step meta-gradients", {"outer": "lirpg"}, _aligned),
    "bipars_mgl": ("state- and action-dependent weight, one step", {"outer": "lirpg", **_WEIGHT}, _local),
    "bipars_imgl": ("state- and action-dependent weight, accumulated", {"outer": "imgl", **_WEIGHT}, _local),
}
"""Description, settings and reward of each method; see :func:`method`."""
