"""Many seeds at once: sharded over all local devices, vmapped inside each shard."""

import functools
import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from reward_design._cores import num_cores
from reward_design.agents import base, replay, scoring
from reward_design.core import Reward
from reward_design.envs.base import FunctionalEnv, Task

QUICK: dict[str, Any] | None = {"xla_backend_optimization_level": 1}
"""Options of compilations for programs that run for long on a CPU: they run as fast, and compile in 0.6 of the time."""


def train_seeds(
    agent: base.Agent,
    config: Any,
    env: FunctionalEnv | Task,
    reward: Reward,
    keys: Any,
    *,
    reward_params: Any = None,
    state: Any = None,
    num_chunks: int = 1,
    on_chunk: Callable[[int, Mapping[str, np.ndarray], Any], None] | None = None,
    on_metrics: Callable[[int, Mapping[str, np.ndarray]], None] | None = None,
    devices: list[Any] | None = None,
) -> base.TrainResult:
    """Train one run per key, sharded over devices and vmapped inside each shard; equal to the unsharded runs.

    On a CPU call :func:`use_all_cores` before JAX starts, so that every core is a device.

    Args:
        agent: the agent.
        config: its settings.
        env: functional environment or task.
        reward: the reward to train on.
        keys: ``[num_seeds]`` random keys.
        reward_params: parameters of the reward, shared by all seeds; by default each seed initialises its own.
        state: state ``[num_seeds, ...]`` to go on from, as ``on_chunk`` or a checkpoint gave it; default is a new run.
        num_chunks: split the run so that ``on_chunk`` or ``on_metrics`` hears about progress; rounded so that all
            chunks are equal.
        on_chunk: called with the number of updates done, the chunk's metrics ``[num_seeds, updates]`` and the state,
            which is only valid during the call (its buffers are reused). The devices wait for it.
        on_metrics: called with the number of updates done and the chunk's metrics, while the devices are already at the
            next chunk: progress that costs no time.
        devices: default ``jax.local_devices()``.

    Returns:
        A :class:`~reward_design.agents.base.TrainResult` with leading axis ``num_seeds``; metrics begin at ``state``.

    Raises:
        NonFiniteRewardError: naming reward, term, step and seed.
        ValueError: if the replays of all seeds do not fit into memory.
    """
    env = base.functional(env)
    base.check_fits(agent, config, env, reward)
    num_seeds = len(keys)
    devices = (devices or jax.local_devices())[:num_seeds]
    padded = np.arange(math.ceil(num_seeds / len(devices)) * len(devices)) % num_seeds
    trim = functools.partial(jax.tree.map, lambda x: x[:num_seeds])
    mesh = Mesh(np.asarray(devices), ("seeds",))
    start = 0 if state is None else int(np.asarray(state.num_updates)[0])
    length = _chunk_length(config.num_updates - start, num_chunks)
    init, run = sharded(agent, env, reward, mesh, length)

    if state is None:
        held = getattr(jax.eval_shape(init, config, keys[padded], reward_params), "replay", None)
        if held is not None and (devices[0].platform == "cpu" or len(devices) == 1):  # memory that all share
            replay.check_memory(held.rows, held.episode)
        state = init(config, keys[padded], reward_params)
    else:
        state = jax.device_put(jax.tree.map(lambda x: x[padded], state), NamedSharding(mesh, P("seeds")))
    chunks = []

    def collect(done: int, metrics: Any, fault: scoring.Fault) -> None:
        chunks.append({k: np.asarray(v)[:num_seeds] for k, v in metrics.items()})
        scoring.raise_on_fault(trim(fault), env, reward)
        if on_metrics is not None:
            on_metrics(done, chunks[-1])

    running: deque[tuple[int, Any, scoring.Fault]] = (
        deque()
    )  # what the devices were handed and nobody has looked at yet
    for done in range(start + length, config.num_updates + 1, length):
        state, metrics = run(config, state)
        running.append((done, metrics, jax.tree.map(jnp.copy, state.fault)))  # the next call reuses those of the state
        while len(running) > (on_chunk is None):
            collect(*running.popleft())
        if on_chunk is not None:
            on_chunk(done, chunks[-1], trim(state))
    while running:
        collect(*running.popleft())
    metrics = {k: np.concatenate([c[k] for c in chunks], axis=1) for k in chunks[0]} if chunks else {}
    return base.TrainResult(trim(state), metrics)


@functools.lru_cache(maxsize=64)
def sharded(agent: base.Agent, env: FunctionalEnv, reward: Reward, mesh: Mesh, length: int) -> tuple[Any, Any]:
    """Compiled ``init`` and ``run`` on the devices of a mesh with the axis ``"seeds"``, kept for the next call.

    ``init(config, keys, reward_params) -> state`` and ``run(config, state) -> (state, metrics)``, which does ``length``
    updates and reuses the buffers of the state it gets. The number of keys is a multiple of that of the devices.
    """
    quick = QUICK if mesh.devices.flat[0].platform == "cpu" else None
    shard = functools.partial(jax.shard_map, mesh=mesh, out_specs=P("seeds"), check_vma=False)
    init = functools.partial(base.initial_states, agent, env, reward)

    def run(config: Any, state: Any) -> Any:
        return jax.vmap(lambda s: base.updates(agent, env, reward, config, s, length))(state)

    return (
        jax.jit(shard(init, in_specs=(P(), P("seeds"), P())), compiler_options=base.ONCE),
        jax.jit(shard(run, in_specs=(P(), P("seeds"))), donate_argnums=1, compiler_options=quick),
    )


def _chunk_length(num_updates: int, num_chunks: int) -> int:
    """Largest divisor of ``num_updates`` that gives at least ``num_chunks`` chunks: one compilation serves all."""
    most = max(1, num_updates // max(1, num_chunks))
    return next(n for n in range(most, 0, -1) if num_updates % n == 0)


def use_all_cores() -> int:
    """Make every CPU core a JAX device; call it before anything runs on JAX. Returns the number of devices.

    Raises:
        RuntimeError: if JAX has already started with another number of devices.
    """
    cores = num_cores()
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:
        if jax.device_count("cpu") != cores:
            raise RuntimeError(
                f"use_all_cores() must be called before JAX starts: it runs with {jax.device_count('cpu')} CPU "
                f"device(s) and there are {cores} cores. Move the call to the top of the script."
            ) from None
    return cores
