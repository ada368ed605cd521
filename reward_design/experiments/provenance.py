"""Where results come from: versions, device, commit, and what exactly was computed."""

import hashlib
import importlib.metadata
import platform
import subprocess
from datetime import UTC, datetime
from typing import Any

import jax

import reward_design
from reward_design.agents.scoring import reward_example
from reward_design.core import Reward
from reward_design.describe import missing_entry
from reward_design.envs.base import FunctionalEnv
from reward_design.envs.host import HostEnv

_PACKAGES = ("jax", "jaxlib", "numpy", "flax", "optax", "gymnasium")


def provenance() -> dict[str, Any]:
    """Versions, device, commit of the current directory (None outside a repository) and time, as JSON types."""
    versions = {"reward-design": reward_design.__version__, "python": platform.python_version()}
    versions |= {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {
        "versions": versions,
        "device": device(),
        "commit": commit(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def device() -> str:
    """What JAX runs on, in words."""
    devices = jax.local_devices()
    kind = _processor() if devices[0].platform == "cpu" else devices[0].device_kind
    return f"{len(devices)} x {devices[0].platform} ({kind})"


def commit() -> str | None:
    """Commit of the current directory, with ``+`` if there are changes; None where there is none."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def fingerprint(env: FunctionalEnv | HostEnv, reward: Reward) -> str:
    """Hash of the program that environment and reward compile to, constants included.

    Two rewards with the same fingerprint compute the same numbers; an edited one has another, whatever its name. Of an
    environment on the host only its name, spaces and horizon count.

    Raises:
        ValueError: if the reward returns a wrong shape, or reads something that the environment does not give; raised
            before any training.
        TypeError: if it returns a wrong dtype.
    """
    example = reward_example(env)

    def program(key: Any, trajectory: Any) -> Any:
        params, state = reward.init(key, example)
        output = reward.unroll(params, state, trajectory)
        if isinstance(env, HostEnv):
            return output
        obs, env_state = env.reset(key)
        return output, obs, env.step(key, env_state, trajectory.action[0, 0])

    trajectory = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), example)
    try:
        text = jax.jit(program).lower(jax.random.key(0), trajectory).as_text()
    except (KeyError, TypeError) as error:
        clearer = missing_entry(reward, error, example)
        raise clearer from (None if clearer is error else error)
    if isinstance(env, HostEnv):
        text += f"{env.name} {env.observation_space} {env.action_space} {env.horizon}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _git(*words: str) -> str:
    done = subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=5)
    return done.stdout.strip()


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as file:
            return next(line.split(":")[1].strip() for line in file if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
