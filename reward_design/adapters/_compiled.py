"""What the host adapters run in JAX: the reward traced once, to say what does not fit, and one compiled step."""

import itertools
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np

from reward_design.core import Params, Reward, State, Transition, select_lanes
from reward_design.describe import missing_entry, not_traceable

_config: Any = jax.config


@partial(jax.jit, static_argnums=(0, 1), donate_argnums=4)
def apply(
    step: Any, names: tuple[str, ...], params: Params, episode: Any, running: Any, fresh: Any, *parts: Any
) -> tuple[Any, Any, Any]:
    """One step of all wrappers, compiled once per reward and shapes; ``parts`` are those of :func:`transition`."""
    output, state = step(params, State(episode, running, fresh), transition(*parts))
    return jnp.stack([output.reward, *(output.terms[name] for name in names)]), state.episode, state.running


def transition(mask: Any, obs: Any, action: Any, next_obs: Any, flags: Any, info: Any) -> Transition:
    """``flags`` is ``[3, B]``: reward, terminated, truncated. Where both ends are true, terminated wins."""
    terminated = flags[1] != 0
    return Transition(obs, action, next_obs, flags[0], terminated, (flags[2] != 0) & ~terminated, mask, info)


@jax.jit
def select(lanes: Any, on_true: Any, on_false: Any) -> Any:
    """See :func:`reward_design.core.select_lanes`."""
    return select_lanes(lanes, on_true, on_false)


# --- before the first step ------------------------------------------------------------------------------------------


def start(
    reward: Reward, example: Transition, *, seed: int, info_keys: Sequence[str]
) -> tuple[Params, State, tuple[str, ...]]:
    """Params and state of a reward for the lanes of ``example``, and the names of its terms.

    Raises:
        ValueError: if it reads what is not there, or gives anything but one number per lane, whatever their number.
        TypeError: if it cannot be compiled.
    """
    with jax.default_device(cpu()):
        example = jax.tree.map(jnp.asarray, example)
        key = jax.random.key(seed)
        try:
            params, state = reward.init(key, example)
            output, _ = jax.eval_shape(cast(Any, reward.step), params, state, example)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError) as error:
            raise not_traceable(reward, error) from error
        except (KeyError, TypeError) as error:
            clearer = missing_entry(reward, error, example, info_keys=info_keys)
            raise clearer from (None if clearer is error else error)
        _check_rows(reward, key, example)
    return params, state, tuple(sorted(output.terms))


def _check_rows(reward: Reward, key: Any, example: Transition) -> None:
    """Refuse what fits this number of lanes by chance, such as ``obs[0]`` where it is the length of an observation."""
    lengths = {n for leaf in jax.tree.leaves(example) for n in leaf.shape}
    rows = next(n for n in itertools.count(11) if n not in lengths)
    other = jax.tree.map(lambda x: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype), example)
    try:
        params, state = _traced_init(reward, key, other)
        jax.eval_shape(cast(Any, reward.step), params, state, other)
    except (ValueError, TypeError, IndexError) as error:
        raise ValueError(
            f"reward {reward.name!r} must take a batch of any number of rows, as obs[..., 0] does and obs[0] does not; "
            f"it takes {len(example.mask)} and fails with {rows}: {error}"
        ) from error


def _traced_init(reward: Reward, key: Any, example: Any) -> tuple[Params, State]:
    try:
        return jax.eval_shape(reward.init, key, example)
    except jax.errors.JAXTypeError:  # it may be written with NumPy, as it is called once
        return reward.init(key, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example))


# --- values of JAX --------------------------------------------------------------------------------------------------


def owned(tree: Any) -> Any:
    """Strongly typed copies that nobody else refers to, committed to the CPU (``running`` is donated at every step)."""
    return jax.tree.map(lambda x: jnp.array(jax.device_put(np.array(x), cpu()), copy=True), tree)


def like(expected: Any, given: Any, what: str) -> Any:
    """``given`` with the dtypes of ``expected``, after a check of structure and shapes."""
    shapes, got = (jax.tree.map(jnp.shape, tree) for tree in (expected, given))
    if jax.tree.structure(expected) != jax.tree.structure(given) or shapes != got:
        raise ValueError(f"{what} must have the structure and shapes of reward.init, expected {shapes}, got {got}.")
    return owned(jax.tree.map(lambda new, old: np.asarray(new, old.dtype), given, expected))


def cpu() -> Any:
    """The device of all adapters: a step is far too small for another one."""
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX was told to start without the CPU
        return jax.local_devices()[0]


def float_dtype() -> Any:
    """What a float is in JAX."""
    return np.float64 if _config.jax_enable_x64 else np.float32
