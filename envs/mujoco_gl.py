"""The OpenGL that MuJoCo is told to draw with, tried before MuJoCo is imported: the import fails without it."""

import functools
import os
import subprocess
import sys
from types import ModuleType

import gymnasium

from reward_design._optional import require

BACKENDS = ("egl", "osmesa", "glfw")
_OTHERS = ("", "off", "disable", "disabled", "false", "0", "on", "enable", "enabled", "true", "1", "cgl", "wgl")
_PROBE = (
    "import mujoco as m; c = m.GLContext(64, 64); c.make_current(); "
    "m.MjrContext(m.MjModel.from_xml_string('<mujoco/>'), m.mjtFontScale.mjFONTSCALE_100); "
    "print('drawn', flush=True); import os; os._exit(0)"
)

MISSING = (
    "no OpenGL to draw MuJoCo with ({tried}); on Debian and Ubuntu: apt-get install libosmesa6, then set "
    "MUJOCO_GL=osmesa (or MUJOCO_GL=egl where there is EGL)."
)
"""What to say where there is no OpenGL."""

refused: list[str] = []
"""The OpenGL that was chosen and is not there."""


def import_mujoco(extra: str, what: str) -> ModuleType:
    """MuJoCo, with :func:`guard`; see :func:`reward_design._optional.require`."""
    guard()
    return require("mujoco", extra, what)


def guard() -> None:
    """Before MuJoCo is imported: turn drawing off where the chosen OpenGL is not there. Nothing but pictures needs it.

    Raises:
        ValueError: for a choice that MuJoCo does not know.
    """
    chosen = os.environ.get("MUJOCO_GL", "").lower().strip()
    if "mujoco" in sys.modules:
        return
    if chosen not in (*BACKENDS, *_OTHERS):
        raise ValueError(
            f"the environment variable MUJOCO_GL must be egl, osmesa, glfw or off (no pictures), got {chosen!r}."
        )
    if chosen in BACKENDS and not draws(chosen):
        refused.append(chosen)
        os.environ["MUJOCO_GL"] = "off"


@functools.cache
def draws(backend: str) -> bool:
    """Whether MuJoCo can draw with this OpenGL. A broken driver may crash the process that asks it, so another asks."""
    environment = {**os.environ, "MUJOCO_GL": backend, "PYOPENGL_PLATFORM": backend}
    if backend not in ("egl", "osmesa"):
        del environment["PYOPENGL_PLATFORM"]
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROBE], env=environment, capture_output=True, text=True, timeout=60
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return "drawn" in done.stdout


def prepare(env: gymnasium.Env) -> str | None:
    """Choose an OpenGL for MuJoCo where none is chosen; a sentence if there is none, None for other simulators."""
    held = [part.unwrapped for part in vars(env.unwrapped).values() if isinstance(part, gymnasium.Env)]  # in mazes
    if not any(hasattr(part, "mujoco_renderer") for part in (env.unwrapped, *held)):
        return None
    chosen = (refused or [os.environ.get("MUJOCO_GL")])[0]
    tried = [chosen] if chosen else [*(["glfw"] if os.environ.get("DISPLAY") else []), "egl", "osmesa"]
    for backend in tried:
        if draws(backend):
            os.environ["MUJOCO_GL"] = backend
            return None
    return MISSING.format(tried=", ".join(f"MUJOCO_GL={name}" for name in tried))
