"""Several rewards of which one is paid, chosen by a parameter: one compilation trains all candidates of a round."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from reward_design.combinators import composed, init_each, joined, part_state
from reward_design.core import Output, Params, Reward, State, Transition


def alternatives(rewards: Sequence[Reward]) -> Reward:
    """r'_t = r_i,t with i = ``params["index"]``, so that ``jax.vmap`` over it trains on every one of the rewards.

    All are computed; one that is not finite leaves the others as they are.

    Keeps the optimal policy: only if the chosen reward does.

    Args:
        rewards: at least one.

    Returns:
        A :class:`Reward` of the maximum of their kinds. Its terms are numbered, ``"00"`` and so on, because their names
        differ: they are the sorted terms of the chosen reward, and 0 beyond those that it has.

    Example:
        >>> import jax, reward_design as rd
        >>> from reward_design.envs import task
        >>> both = alternatives([rd.environment_reward(), task("chain").sparse_reward])
        >>> int(both.init(jax.random.key(0), task("chain").example)[0]["index"])
        0
    """
    if not rewards:
        raise ValueError("alternatives needs at least one reward, got none.")
    parts = {f"r{i:03d}": reward for i, reward in enumerate(rewards)}
    init_parts = init_each(parts)

    def init(key: Any, example: Transition) -> tuple[Params, State]:
        params, state = init_parts(key, example)
        return {"index": jnp.int32(0), "rewards": params}, state

    def apply(which: str) -> Any:
        def run(params: Params, state: State, transition: Transition) -> tuple[Output, State]:
            outputs, states = [], {}
            for name, part in parts.items():
                output, states[name] = getattr(part, which)(
                    params["rewards"][name], part_state(state, name), transition
                )
                outputs.append(output)
            return _chosen(outputs, params["index"]), joined(states)

        return run

    rebuild = lambda children: alternatives(list(children.values()))  # noqa: E731
    return composed("alternatives", parts, apply, init, rebuild)


def _chosen(outputs: Sequence[Output], index: Any) -> Output:
    reward = jnp.stack([output.reward for output in outputs])[index]
    zeros = jnp.zeros_like(reward)
    columns = [[output.terms[name] for name in sorted(output.terms)] for output in outputs]
    width = max(map(len, columns))
    terms = {
        f"{j:02d}": jnp.stack([column[j] if j < len(column) else zeros for column in columns])[index]
        for j in range(width)
    }
    return Output(reward, terms)
