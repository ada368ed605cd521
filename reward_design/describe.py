"""What a composed reward consists of, for people and for checks before training."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jax.core import Tracer

from reward_design.core import Kind, Reward, Transition


def describe(reward: Reward) -> str:
    """Readable tree of a composed reward: name, kind and settings of every part.

    Args:
        reward: any reward.

    Returns:
        One line per part, drawn like the command ``tree``.

    Example:
        >>> import reward_design as rd
        >>> print(rd.describe(rd.chain(rd.environment_reward(), rd.clip(high=2.0))))
        chain (POINTWISE)
        ├── environment (POINTWISE)
        └── clip (POINTWISE) low=-1.0, high=2.0
    """
    return "\n".join(_lines(reward.name, reward, "", ""))


def walk(reward: Reward) -> Iterator[tuple[str, Reward]]:
    """Every part of a reward with its path, the reward itself first.

    Args:
        reward: any reward.

    Returns:
        Iterator over ``(path, part)``; the path joins names with ``/``, ``chain/clip`` for example.

    Example:
        >>> import reward_design as rd
        >>> [path for path, _ in rd.walk(rd.chain(rd.environment_reward(), rd.clip()))]
        ['chain', 'chain/environment', 'chain/clip']
    """
    yield reward.name, reward
    for key, child in reward.children.items():
        for path, part in walk(child):
            yield "/".join([reward.name, key, *path.split("/")[1:]]), part


def check_gamma(reward: Reward, gamma: Any) -> None:
    """Refuse a reward that discounts differently from the agent.

    Potential-based shaping keeps the optimal policy only if its gamma is the agent's. A traced ``gamma`` (an agent
    swept over gamma) cannot be compared and passes.

    Args:
        reward: any reward.
        gamma: the agent's discount per environment step, in [0, 1].

    Raises:
        ValueError: if a part of the reward has another gamma among its settings.

    Example:
        >>> import reward_design as rd
        >>> rd.check_gamma(rd.potential_shaping(lambda obs: obs, gamma=0.9), 0.99)
        Traceback (most recent call last):
            ...
        ValueError: 'potential_shaping' discounts with gamma 0.9, the agent with 0.99; give both the same gamma.
    """
    if isinstance(gamma, Tracer):
        return
    for path, part in walk(reward):
        own = part.settings.get("gamma")
        if own is not None and not math.isclose(own, float(gamma), rel_tol=0.0, abs_tol=1e-7):
            raise ValueError(
                f"{path!r} discounts with gamma {own}, the agent with {float(gamma):.6g}; give both the same gamma."
            )


def require_online(reward: Reward, where: str = "a step-by-step wrapper") -> None:
    """Refuse a reward that cannot be computed step by step.

    Args:
        reward: any reward.
        where: what cannot serve it, for the message.

    Raises:
        TypeError: if the kind of the reward is ``TRAJECTORY``.

    Example:
        >>> import reward_design as rd
        >>> rd.require_online(rd.environment_reward())
    """
    if reward.kind is Kind.TRAJECTORY:
        raise TypeError(
            f"{reward.name!r} needs whole episodes (kind TRAJECTORY); {where} cannot serve it. "
            "Use unroll on recorded episodes, or wrap it in delayed(...)."
        )


def missing_entry(
    reward: Reward | str, error: Exception, example: Transition, *, info_keys: Sequence[str] | None = None
) -> Exception:
    """The error for a reward that reads something by a name that its transitions do not have.

    Args:
        reward: the reward, or what else reads a transition: ``"the potential of 'my task'"``.
        error: what calling it raised.
        example: a transition as the reward got it.
        info_keys: of the wrapper, which the user can extend; None where the environment alone says what info has.

    Returns:
        A ``ValueError`` that says what there is, or ``error`` itself if it is about something else.

    Example:
        >>> import reward_design as rd
        >>> obs = {"cell": 0, "position": 1}
        >>> example = rd.Transition(obs, 0, obs, 0.0, False, False, True, {})
        >>> print(missing_entry(rd.environment_reward(), KeyError("goal"), example))
        reward 'environment' reads 'goal', which is no key of the observation (it has cell, position).
    """
    info = example.info if info_keys is None else info_keys
    who = reward if isinstance(reward, str) else f"reward {reward.name!r}"
    if isinstance(error, TypeError) and "string indexing" in str(error):
        shape = getattr(example.obs, "shape", ("",))[1:]
        read = str(error).rpartition("=")[2]
        return ValueError(
            f"{who} reads {read} by its name from an array, but the observation is one array of shape "
            f"{shape} without keys; index it by position."
        )
    if not isinstance(error, KeyError) or not error.args or error.args[0] in info:
        return error
    reads, keys = f"{who} reads {error.args[0]!r}, which is", []
    if isinstance(example.obs, Mapping):
        keys.append(f"no key of the observation (it has {', '.join(map(str, example.obs))})")
    if info_keys is not None:
        keys.append(f"not among info_keys = {tuple(info_keys)}")
        hint = "; name it there if it is an entry of the environment's info."
    else:
        keys += [f"no entry of the info (it has {', '.join(info)})"] if info else []
        hint = "."
    return ValueError(f"{reads} {' and '.join(keys) or 'nothing that the environment gives'}{hint}")


def not_traceable(reward: Reward, error: Exception) -> TypeError:
    """The error for a reward that turns arrays into numbers while it is traced.

    Args:
        reward: the reward.
        error: what JAX raised.

    Returns:
        A ``TypeError`` that says how to write it.

    Example:
        >>> import reward_design as rd
        >>> print(not_traceable(rd.environment_reward(), TypeError("Attempted boolean conversion of traced array.")))
        reward 'environment' must be written with jax.numpy (jnp.sin in place of np.sin and math.sin, jnp.where in place
        of if), because it is compiled: Attempted boolean conversion of traced array.
    """
    said = str(error).partition("\n")[0].rstrip(".")
    return TypeError(
        f"reward {reward.name!r} must be written with jax.numpy (jnp.sin in place of np.sin and math.sin, jnp.where in "
        f"place of if), because it is compiled: {said}."
    )


def _lines(label: str, reward: Reward, first: str, rest: str) -> Iterator[str]:
    settings = ", ".join(f"{k}={_text(v)}" for k, v in reward.settings.items())
    yield f"{first}{label} ({reward.kind.name}) {settings}".rstrip()
    children = list(reward.children.items())
    for number, (key, child) in enumerate(children):
        name = child.name if key == child.name else f"{key}: {child.name}"
        last = number == len(children) - 1
        yield from _lines(name, child, rest + ("└── " if last else "├── "), rest + ("    " if last else "│   "))


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k}: {_text(v)}" for k, v in value.items()) + "}"
    if hasattr(value, "shape") and value.shape:
        return f"array{tuple(value.shape)}"
    return getattr(value, "__name__", None) or str(value)
