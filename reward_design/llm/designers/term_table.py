"""All documents of the language ``terms`` as one reward: what differs is in its params, so nothing compiles again."""

import functools
from typing import Any

import jax.numpy as jnp
import numpy as np

from reward_design.constructors import from_step
from reward_design.core import Reward, State, Transition
from reward_design.envs.base import Task
from reward_design.llm import terms as language
from reward_design.llm.terms import MAX_TERMS, SHAPES, parse_terms


@functools.lru_cache(maxsize=32)
def term_table(task: Task) -> Reward:
    """r_t = Σ_j w_j f_j(x_j,t) with factor, shape, direction, weight and scale of every term j in params.

    The same numbers as :func:`reward_design.llm.terms.terms_reward` for every document, see :func:`table_params`. All
    shapes of all factors are computed, and one is taken per term.

    Keeps the optimal policy: no, in general.

    Args:
        task: whose factors are read.

    Returns:
        A :class:`Reward` of kind ``CAUSAL`` with 16 numbered terms, ``"00"`` and so on; new params pay nothing.

    Example:
        >>> from reward_design.envs import task
        >>> term_table(task("chain")).kind.name
        'CAUSAL'
    """
    factors = list(task.factors.values())

    def values(t: Transition) -> Any:
        return jnp.stack([jnp.asarray(f.fn(t)).astype(jnp.result_type(float)) for f in factors], axis=-1)

    def init(key: Any, example: Transition) -> tuple[Any, State]:
        zeros = jnp.zeros_like(values(example))
        empty = {k: jnp.asarray(v) for k, v in _empty().items()}
        return empty, State(episode={"last": zeros, "seen": zeros[..., :1]})

    def step(p: Any, state: State, t: Transition) -> tuple[Any, State]:
        now, past = values(t), state.episode
        x, before = now[..., p["factor"]], past["last"][..., p["factor"]]
        s, scale, weight, shape = (p[name][None] for name in ("sign", "scale", "weight", "shape"))
        shaped = {
            "linear": s * x / scale,
            "exp": (1.0 - s) / 2 - s * jnp.expm1(-jnp.abs(x) / scale),
            "tanh": s * jnp.tanh(x / scale),
            "threshold": (s * (x - scale) >= 0).astype(x.dtype),
            "progress": s * past["seen"] * (x - before) / scale,
        }
        chosen = jnp.zeros_like(x)
        for number, name in enumerate(SHAPES):
            chosen = jnp.where(shape == number, shaped[name], chosen)
        paid = jnp.where(weight == 0, 0.0, weight * chosen)
        terms = {f"{j:02d}": paid[..., j] for j in range(MAX_TERMS)}
        return (paid.sum(-1), terms), State(episode={"last": now, "seen": jnp.ones_like(past["seen"])})

    return from_step("terms", init, step)


def table_params(source: str, task: Task) -> dict[str, np.ndarray]:
    """The params of a document, its terms in the order of their names.

    Raises:
        CandidateRefused: for text that is no document for this task.
    """
    entries = parse_terms(source, task)
    found = _empty()
    ordered = sorted(zip(language._names(entries), entries, strict=True), key=lambda item: item[0])
    for j, (_, entry) in enumerate(ordered):
        found["factor"][j] = list(task.factors).index(entry.factor)
        found["shape"][j] = list(SHAPES).index(entry.shape)
        found["sign"][j] = 1.0 if entry.direction == "increase" else -1.0
        found["weight"][j], found["scale"][j] = entry.weight, entry.scale
    return found


def _empty() -> dict[str, np.ndarray]:
    ones, zeros = np.ones(MAX_TERMS, np.float32), np.zeros(MAX_TERMS, np.float32)
    places = np.zeros(MAX_TERMS, np.int32)
    return {"factor": places, "shape": places.copy(), "sign": ones, "weight": zeros, "scale": ones.copy()}
