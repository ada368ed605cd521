"""CALM's reward: the steps that a model took for achievements of sub-goals, looked up while an agent learns.

Source: "Assessing the Zero-Shot Capabilities of LLMs for Action Evaluation in RL", 2024, arXiv:2409.12798. Its code
adds beta times the value of a table, at every step; here a sub-goal pays once in an episode unless asked otherwise, so
that nothing is gained by doing it again.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.constructors import from_step
from reward_design.core import Params, Reward, State, Transition
from reward_design.llm.annotate_calm import Annotations
from reward_design.llm.annotate_keys import digest, look_up, sight

VALUES = ("share", "count")
"""How verdicts about steps that look alike become one value."""
Look = Callable[[Transition], Any]
"""``transition -> [B, length]`` uint8."""


def seen(transition: Transition) -> Any:
    """What a step is recognised by: the map around the hero before the action, and the action (MiniHack).

    Raises:
        ValueError: for observations without ``"glyphs"``.
    """
    if not isinstance(transition.obs, dict) or "glyphs" not in transition.obs:
        raise ValueError(
            "subgoal_reward recognises steps by obs['glyphs'] and the action; give look=, a function of the transition "
            "to [B, length] uint8, for other observations."
        )
    glyphs = jnp.asarray(transition.obs["glyphs"])
    return sight(glyphs.reshape(glyphs.shape[0], -1), jnp.asarray(transition.action))


def subgoal_reward(
    annotations: Annotations,
    *,
    beta: float | int = 0.1,
    once: bool = True,
    value: str = "share",
    look: Look = seen,
) -> Reward:
    """Bonus for steps that were judged to achieve a sub-goal: r_t = β Σ_g w_g max(v_g(x_t) − once · m_g,t, 0).

    x is what a step is recognised by, v_g in [0, 1] what was said about such steps (0 for those nobody judged), and m_g
    the largest v_g of the episode so far: each sub-goal pays once, and at most β w_g. Without ``once`` it pays every
    time, as in the released code. It is a bonus: add it to the task's reward with
    :func:`reward_design.weighted_sum`. A term per sub-goal.

    Keeps the optimal policy: no; with ``once``, the undiscounted return of an episode changes by at most β Σ_g w_g.

    Args:
        annotations: of :func:`reward_design.llm.annotate` or
            :func:`~reward_design.llm.annotate_calm.programmatic`; steps without verdict count for nothing.
        beta: β; a param, as the weights w_g are (1 at first) and the table.
        once: whether a sub-goal pays once in an episode.
        value: v_g: ``"share"`` of positive verdicts about steps that look alike, or as released their ``"count"``,
            divided by the largest one.
        look: what a step is recognised by; must give the bytes in ``Step.key``.

    Returns:
        A :class:`Reward` of kind ``CAUSAL``.

    Raises:
        ValueError: without any verdict, for steps without keys, for an unknown ``value``, or a ``beta`` that is none.
        TypeError: for other annotations.

    Example:
        >>> import numpy as np, reward_design as rd
        >>> from reward_design.llm.annotate_calm import programmatic
        >>> from reward_design.llm.annotate_steps import Step
        >>> step = Step("", "", "", "", "PICKUP", frozenset({"picked_up"}), key=bytes([7, 0, 4]))
        >>> reward = subgoal_reward(programmatic([step]), beta=0.5)
        >>> glyphs, no = np.array([[7], [8]], np.int16), np.zeros(2, bool)
        >>> batch = rd.Transition({"glyphs": glyphs}, np.array([4, 4]), None, np.zeros(2, np.float32), no, no, ~no)
        >>> output, state = reward.step(*reward.init(None, batch), batch)
        >>> output.reward.tolist(), reward.step(reward.init(None, batch)[0], state, batch)[0].reward.tolist()
        ([0.5, 0.0], [0.0, 0.0])
    """
    if not isinstance(annotations, Annotations):
        raise TypeError(
            f"subgoal_reward needs what annotate or programmatic returns, got {type(annotations).__name__}."
        )
    if not math.isfinite(beta):
        raise ValueError(f"beta must be a finite number, got {beta}.")
    names = list(annotations.subgoals)
    keys, values, length = table(annotations, value)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        batch = len(_looked(look, example, length))
        params = {"keys": jnp.asarray(keys), "values": jnp.asarray(values), "beta": jnp.float32(beta)}
        return params | {"weights": {n: jnp.float32(1) for n in names}}, State(episode=jnp.zeros((batch, len(names))))

    def step(params: Params, state: State, t: Transition) -> tuple[Any, State]:
        found = jax.vmap(look_up, (None, 1, None), 1)(
            params["keys"], params["values"], digest(_looked(look, t, length))
        )
        new = jnp.maximum(found - state.episode, 0.0) if once else found
        terms = {name: params["beta"] * params["weights"][name] * new[:, i] for i, name in enumerate(names)}
        return (sum(terms.values()), terms), state._replace(episode=jnp.maximum(state.episode, found))

    settings = {"beta": beta, "once": once, "value": value, "subgoals": names, "rows": len(keys)}
    return from_step("subgoal_reward", init, step, settings=settings)


def table(annotations: Annotations, value: str = "share") -> tuple[np.ndarray, np.ndarray, int]:
    """Values of what was judged.

    Args:
        annotations: with keys of their steps.
        value: ``"share"`` or ``"count"``.

    Returns:
        ``[rows, 2]`` keys in the order that :func:`look_up` wants, ``[rows, subgoals]`` values, and the bytes of a key.

    Raises:
        ValueError: as :func:`subgoal_reward`.
    """
    if value not in VALUES:
        raise ValueError(f"value must be {' or '.join(map(repr, VALUES))}, got {value!r}.")
    lengths = {len(step.key) for step in annotations.steps}
    if not annotations.steps or not np.isfinite(annotations.verdicts).any():
        raise ValueError(f"subgoal_reward needs verdicts, got none about {len(annotations.steps)} steps.")
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            f"subgoal_reward needs steps with keys of one length, got lengths {sorted(lengths)}; use record_steps."
        )
    raw = np.array([np.frombuffer(step.key, np.uint8) for step in annotations.steps])
    keys, rows = np.unique(digest(raw, np), axis=0, return_inverse=True)
    shape = (len(keys), annotations.verdicts.shape[1])
    positive, known = np.zeros(shape), np.zeros(shape)
    np.add.at(positive, rows.reshape(-1), np.nan_to_num(annotations.verdicts))
    np.add.at(known, rows.reshape(-1), np.isfinite(annotations.verdicts))
    below = known if value == "share" else positive.max(axis=0, keepdims=True)
    return keys, (positive / np.maximum(below, 1)).astype(np.float32), lengths.pop()


def _looked(look: Look, t: Transition, length: int) -> Any:
    """The bytes ``[B, length]`` of steps.

    Raises:
        ValueError: for other shapes or types than the annotations have.
    """
    found = jnp.asarray(look(t))
    if found.ndim != 2 or found.dtype != np.uint8 or found.shape[1] != length:
        raise ValueError(
            f"look must give [B, {length}] uint8 as the annotated steps have it, got {found.dtype} of shape "
            f"{found.shape}; annotate steps of this task."
        )
    return found
