"""Whether frames of a simulator can be drawn on this machine, found out in a process that may fail."""

import functools
import os
import subprocess
import sys

import gymnasium

MISSING = (
    "no OpenGL to draw MuJoCo with ({tried}); on Debian and Ubuntu: apt-get install libosmesa6, then set "
    "MUJOCO_GL=osmesa (or MUJOCO_GL=egl where there is EGL)."
)
_PROBE = (
    "import mujoco as m; c = m.GLContext(64, 64); c.make_current(); "
    "m.MjrContext(m.MjModel.from_xml_string('<mujoco/>'), m.mjtFontScale.mjFONTSCALE_100); "
    "print('drawn', flush=True); import os; os._exit(0)"
)

_refused: list[str] = []


def guard() -> None:
    """Before MuJoCo is imported: a chosen OpenGL that is not there would make the import itself fail."""
    chosen = os.environ.get("MUJOCO_GL", "").lower()
    if chosen in ("egl", "osmesa", "glfw") and "mujoco" not in sys.modules and not draws(chosen):
        _refused.append(chosen)
        os.environ["MUJOCO_GL"] = "off"


def prepare(env: gymnasium.Env) -> str | None:
    """Choose an OpenGL for MuJoCo where none is chosen; a sentence if there is none, None for other simulators."""
    if not hasattr(env.unwrapped, "mujoco_renderer"):
        return None
    chosen = (_refused or [os.environ.get("MUJOCO_GL")])[0]
    tried = [chosen] if chosen else [*(["glfw"] if os.environ.get("DISPLAY") else []), "egl", "osmesa"]
    for backend in tried:
        if draws(backend):
            os.environ["MUJOCO_GL"] = backend
            return None
    return MISSING.format(tried=", ".join(f"MUJOCO_GL={name}" for name in tried))


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
