"""Whether frames of a simulator can be drawn on this machine."""

import os

import gymnasium

from reward_design.envs.mujoco_gl import draws, guard, refused

__all__ = ["MISSING", "draws", "guard", "prepare"]

MISSING = (
    "no OpenGL to draw MuJoCo with ({tried}); on Debian and Ubuntu: apt-get install libosmesa6, then set "
    "MUJOCO_GL=osmesa (or MUJOCO_GL=egl where there is EGL)."
)


def prepare(env: gymnasium.Env) -> str | None:
    """Choose an OpenGL for MuJoCo where none is chosen; a sentence if there is none, None for other simulators."""
    if not hasattr(env.unwrapped, "mujoco_renderer"):
        return None
    chosen = (refused or [os.environ.get("MUJOCO_GL")])[0]
    tried = [chosen] if chosen else [*(["glfw"] if os.environ.get("DISPLAY") else []), "egl", "osmesa"]
    for backend in tried:
        if draws(backend):
            os.environ["MUJOCO_GL"] = backend
            return None
    return MISSING.format(tried=", ".join(f"MUJOCO_GL={name}" for name in tried))
