"""The smoke test of an exported program, in the worker: zeros, ends of the ranges, random and extreme inputs."""

from typing import Any

import jax
import numpy as np

from reward_design.llm.inputs import Spec
from reward_design.llm.refusal import CandidateRefused

NUM_LANES, NUM_STEPS, FAR = 48, 8, 1e4


def tried(exported: Any, candidate: Any) -> dict[str, Any]:
    """Run the program on made-up transitions, several steps where it has memory.

    Returns:
        ``range`` of the rewards, and ``remainder``: whether the components do not add up to the reward.

    Raises:
        CandidateRefused: at stage ``smoke`` for a value that is not finite, ``determinism`` where two runs differ.
    """
    generator, call = np.random.default_rng(0), jax.jit(exported.call)
    memory = [np.broadcast_to(x, (NUM_LANES, *x.shape)) for x in candidate.memory]
    specs = candidate.leaf_specs[: len(candidate.leaf_specs) - len(memory)]
    names = ("the reward", *(f"component {name!r}" for name in candidate.terms))
    rewards, apart = [], False
    for step in range(NUM_STEPS if memory else 1):
        inputs = [*(rows(spec, generator) for spec in specs), *memory]
        outputs = [np.asarray(x) for x in call(*inputs)]
        if step == 0:
            _check_same(outputs, [np.asarray(x) for x in call(*inputs)])
        scores, memory = outputs[: len(names)], outputs[len(names) :]
        for name, value in zip((*names, *("the new memory",) * len(memory)), outputs):
            _check_finite(name, value)
        rewards.append(scores[0])
        apart |= bool(len(scores) > 1 and not np.allclose(sum(scores[1:]), scores[0], rtol=1e-4, atol=1e-5))
    return {"remainder": apart, "range": [float(np.min(rewards)), float(np.max(rewards))]}


def rows(spec: Spec, generator: np.random.Generator) -> np.ndarray:
    """Values ``[NUM_LANES, ...]`` of one input: zero, lowest, highest, far away where it has no bounds, then random."""
    shape, dtype = (NUM_LANES, *spec["shape"]), np.dtype(spec["dtype"])
    if dtype.kind == "b":
        return np.concatenate([np.zeros((1, *shape[1:]), bool), generator.random((NUM_LANES - 1, *shape[1:])) < 0.5])
    low, high = (_side(spec, which, far) for which, far in (("low", -FAR), ("high", FAR)))
    if dtype.kind == "u":
        low = np.maximum(low, 0)
    if dtype.kind in "iu":
        top = float(np.iinfo(dtype).max)
        values = generator.integers(low, np.minimum(high, top), shape, endpoint=True).astype(float)
        high = np.minimum(high, top)
    else:
        near = np.where(np.abs(low) < FAR, low, -3.0), np.where(np.abs(high) < FAR, high, 3.0)
        values = generator.uniform(np.minimum(*near), np.maximum(*near), shape)
    values[0], values[1], values[2] = np.clip(0.0, low, high), low, high
    return values.astype(dtype)


def _side(spec: Spec, which: str, far: float) -> np.ndarray:
    side = spec[which]
    if side is None or not isinstance(side, list):
        return np.full(spec["shape"], far if side is None else side, float)
    return np.array([far if x is None else x for x in side], float).reshape(spec["shape"])


def _check_finite(name: str, value: np.ndarray) -> None:
    bad = ~np.isfinite(value.astype(float)).reshape(len(value), -1).all(axis=1)
    if bad.any():
        kind = {0: "zero inputs", 1: "the lowest inputs", 2: "the highest inputs"}.get(
            int(np.argmax(bad)), "random inputs"
        )
        raise CandidateRefused(
            "smoke",
            f"{name} is not finite for {kind}; guard divisions, logarithms, square roots and exponentials "
            "(jnp.maximum(x, 1e-6), jnp.clip).",
        )


def _check_same(first: list[np.ndarray], second: list[np.ndarray]) -> None:
    if not all(np.array_equal(a, b, equal_nan=a.dtype.kind == "f") for a, b in zip(first, second)):
        raise CandidateRefused("determinism", "two runs on the same inputs gave different values; remove randomness.")
