"""Memory of replay and of worker processes, next to stable-baselines3's buffers and gymnasium's vector environments.

    python benchmarks/memory.py

Replay: bytes per transition by the shapes, and how much more memory the process (or, with a GPU, the device) holds when
the buffer is made and when it is full, for the transitions that DQN or SAC store on a task. Ours is filled by the
``insert`` of training; of stable-baselines3's buffers every array is written once. Workers: proportional set size (what
is shared by n processes counts 1/n in each) of the process that trains, of each worker and of all together, after 200
steps of random actions. Every row is measured in a fresh process. Appends a JSON line per row to ``--out`` and prints
two tables.
"""

import contextlib
import ctypes
import dataclasses
import functools
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import tyro

MIB = 2**20
CHUNK = 10_000
NUM_STEPS = 200


@dataclasses.dataclass
class Args:
    """Settings of the benchmark.

    Attributes:
        tasks: whose transitions are stored.
        capacities: transitions that a buffer keeps.
        level: MiniHack level of the workers.
        workers: numbers of workers, with one environment each.
        shared: environments over 2 workers, as ``ProcessVectorEnv`` spreads them on two cores; 0 leaves it out.
        out: file that gets a JSON line per row.
        measure: one measurement as JSON, for the processes that this script starts.
    """

    tasks: tuple[str, ...] = ("mujoco/HalfCheetah", "minihack/Room-5x5")
    capacities: tuple[int, ...] = (100_000, 1_000_000)
    level: str = "minihack/Room-5x5"
    workers: tuple[int, ...] = (2, 4, 8)
    shared: int = 8
    out: Path = Path("results/memory.jsonl")
    measure: str = ""


def main(args: Args) -> None:
    """Measure every row in a process of its own."""
    if args.measure:
        given = json.loads(args.measure)
        print(json.dumps({"ours": our_replay, "sb3": their_replay, "workers": workers}[given.pop("what")](**given)))
        return
    replays = [
        fresh(args, what=what, task=task, capacity=capacity)
        for task in args.tasks
        for capacity in args.capacities
        for what in ("ours", "sb3")
    ]
    kinds = [(kind, number, number) for number in args.workers for kind in ("process", "async", "own", "serial")]
    kinds += [("process", args.shared, 2)] if args.shared else []
    lanes = [fresh(args, what="workers", task=args.level, kind=k, num_envs=n, num_workers=w) for k, n, w in kinds]
    print("\n| transitions of | room for | buffer | bytes each | by shapes | when made | when full | highest |")
    print("|---|---|---|---|---|---|---|---|")
    for row in replays:
        sizes = [f"{row[name] / MIB:,.0f} MiB" for name in ("by_shapes", "made", "full", "highest")]
        cells = [row["task"], f"{row['capacity']:,}", row["buffer"], f"{row['bytes_each']:,.0f}", *sizes]
        print(f"| {' | '.join(cells)} |")
    print("\n| environments | vector environment | workers | trainer | each worker | helpers | together |")
    print("|---|---|---|---|---|---|---|")
    for row in lanes:
        sizes = [f"{row[name] / MIB:,.0f} MiB" for name in ("trainer", "worker", "helpers", "together")]
        print(f"| {row['num_envs']} | {row['vector']} | {row['num_workers']} | {' | '.join(sizes)} |")


def fresh(args: Args, **given: Any) -> dict[str, Any]:
    """A measurement in a process of its own, appended to the file."""
    command = [sys.executable, __file__, "--measure", json.dumps(given)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{given} failed: {done.stderr.strip().splitlines()[-1:]}")
    row = {**given, **json.loads(done.stdout.splitlines()[-1])}
    row["versions"] = {name: version(name) for name in ("jax", "gymnasium", "stable_baselines3", "nle")}
    args.out.parent.mkdir(parents=True, exist_ok=True)
    with args.out.open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(row), flush=True)
    return row


# --- replay ---------------------------------------------------------------------------------------------------------


def our_replay(task: str, capacity: int) -> dict[str, Any]:
    """The replay of DQN and SAC with one lane, filled by rollouts of 10,000 steps."""
    import jax
    import jax.numpy as jnp

    from reward_design import envs
    from reward_design.agents import replay
    from reward_design.envs.base import example_transition

    example = example_transition(envs.task(task).env)
    rollout = jax.tree.map(lambda x: jnp.ones((CHUNK, *x.shape), x.dtype), example)
    insert = jax.jit(replay.insert, donate_argnums=0)
    small = replay.empty(example, (), CHUNK)
    jax.block_until_ready(insert(small, rollout, ()))  # what a program needs once is not the buffer's
    shapes = jax.eval_shape(lambda: replay.empty(example, (), capacity))
    insert = insert.lower(shapes, rollout, ()).compile()
    del small
    before = held()
    buffer = jax.block_until_ready(replay.empty(example, (), capacity))
    made = held() - before
    reset_peak()
    for _ in range(-(-capacity // CHUNK)):
        buffer = jax.block_until_ready(insert(buffer, rollout, ()))
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(buffer.rows))
    full, highest = held() - before, peak() - before
    assert int(buffer.count.sum()) == capacity
    return {"buffer": "reward-design", "bytes_each": size / capacity, "by_shapes": size, "made": made, "full": full,
            "highest": highest, "device": jax.devices()[0].platform}  # fmt: skip


def their_replay(task: str, capacity: int) -> dict[str, Any]:
    """The buffer that stable-baselines3 chooses for the spaces, every array written once."""
    import numpy as np
    from gymnasium import spaces
    from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

    from reward_design import envs

    env = envs.task(task).env
    kind: Any = DictReplayBuffer if isinstance(env.observation_space, spaces.Dict) else ReplayBuffer
    kind(10, env.observation_space, env.action_space, device="cpu")
    before = held(host=True)
    buffer = kind(capacity, env.observation_space, env.action_space, device="cpu")
    made = held(host=True) - before
    reset_peak()
    values = [
        part for value in vars(buffer).values() for part in (value.values() if isinstance(value, dict) else [value])
    ]
    arrays = [value for value in values if isinstance(value, np.ndarray) and len(value) == capacity]
    for array in arrays:
        for start in range(0, capacity, CHUNK):
            array[start : start + CHUNK] = 1
    size = sum(array.nbytes for array in arrays)
    return {"buffer": f"stable-baselines3 {kind.__name__}", "bytes_each": size / capacity, "by_shapes": size,
            "made": made, "full": held(host=True) - before, "highest": peak(host=True) - before,
            "device": "cpu"}  # fmt: skip


def held(*, host: bool = False) -> int:
    """Bytes that live on the device now, or are resident in this process where the device is the CPU."""
    stats = None if host else device_stats()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # give back what was freed, of which the next buffer would be made
    return stats["bytes_in_use"] if stats else status("VmRSS")


def peak(*, host: bool = False) -> int:
    """The highest :func:`held` since :func:`reset_peak` (on a GPU: since the start)."""
    stats = None if host else device_stats()
    return stats["peak_bytes_in_use"] if stats else status("VmHWM")


def device_stats() -> Any:
    """Of the default device; None on a CPU."""
    import jax

    return jax.local_devices()[0].memory_stats()


def reset_peak() -> None:
    """Let the highest resident size of this process begin anew."""
    Path("/proc/self/clear_refs").write_text("5")


def status(name: str) -> int:
    """A size of this process, in bytes."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


# --- workers --------------------------------------------------------------------------------------------------------


def workers(task: str, kind: str, num_envs: int, num_workers: int) -> dict[str, Any]:
    """Proportional set sizes of a vector environment's processes after some steps."""
    import gymnasium
    from gymnasium.vector import AutoresetMode

    from reward_design import envs
    from reward_design.envs.process_vector import ProcessVectorEnv
    from reward_design.envs.serial_vector import SerialVectorEnv

    env: Any = envs.task(task).env
    known = {"info": env.info, "observation_space": env.observation_space, "action_space": env.action_space}
    made: Any
    if kind == "process":
        made = ProcessVectorEnv(env.make, num_envs, num_workers=num_workers, seed=0, **known)
    elif kind == "serial":
        made, num_workers = SerialVectorEnv(env.make, num_envs, seed=0, **known), 0
    else:
        makers = [functools.partial(level_of_minihack, task) if kind == "own" else env.make] * num_envs
        made = gymnasium.vector.AsyncVectorEnv(makers, autoreset_mode=AutoresetMode.SAME_STEP, context="spawn")
    made.reset(seed=0)
    made.action_space.seed(0)
    for _ in range(NUM_STEPS):
        made.step(made.action_space.sample())
    pids = made.pids if kind == "process" else [p.pid for p in made.processes] if kind != "serial" else []
    everyone = {pid: proportional(pid) for pid in family("self")}
    trainer = proportional("self")
    each = [everyone.pop(pid) for pid in pids]
    helpers = sum(everyone.values())
    made.close()
    name = type(made).__name__ + (" of MiniHack's own environments" if kind == "own" else "")
    return {"vector": name, "trainer": trainer, "worker": statistics.median(each or [0]),
            "num_workers": num_workers, "helpers": helpers, "together": trainer + sum(each) + helpers}  # fmt: skip


def level_of_minihack(task: str) -> Any:
    """MiniHack's own environment of a level, with the arrays that the task reads; does not import JAX."""
    import gymnasium
    import minihack  # noqa: F401  (registers the levels)

    keys = {"observation_keys": ("glyphs_crop", "blstats", "message"), "disable_env_checker": True}
    return gymnasium.make(f"MiniHack-{task.partition('/')[2]}-v0", **keys)


def family(pid: int | str) -> Iterator[int]:
    """Process ids of all descendants."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        for child in map(int, (thread / "children").read_text().split()):
            yield child
            yield from family(child)


def proportional(pid: int | str) -> int:
    """Proportional set size of a process, in bytes."""
    found = re.search(r"^Pss:\s+(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024


if __name__ == "__main__":
    main(tyro.cli(Args, description=__doc__))
