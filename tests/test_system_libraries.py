"""Parts of the system that are missing or broken: shared libraries of optional packages, and the OpenGL of MuJoCo."""

import os
import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import reward_design as rd
from reward_design._optional import require, unloadable
from reward_design.envs import mujoco_gl, task
from reward_design.envs.mujoco_gl import guard

ENDING = sysconfig.get_config_var("EXT_SUFFIX")


def extension_without(library, folder, name):
    """A real extension module, copied, that asks the loader for ``library`` in the place of those it was linked to."""

    def renamed(found):
        return library.encode().ljust(len(found[0]), b"\0") if len(found[0]) >= len(library) else found[0]

    for path in sorted(Path(np.__file__).parent.rglob(f"*{ENDING}")):
        data = path.read_bytes()
        changed = re.sub(rb"(?<=\0)lib[\w+.-]+\.so[.\d]*(?=\0)", renamed, data)
        if changed != data:
            (folder / f"{name}{ENDING}").write_bytes(changed)
            return
    raise AssertionError("no extension module of NumPy is linked to a library with a long name")


def run(*words, path, **variables):
    """The command in a process of its own."""
    root = Path(rd.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(path), str(root)]), **variables}
    return subprocess.run(
        [sys.executable, "-m", "reward_design", *words], env=environment, capture_output=True, text=True, cwd=path
    )


@pytest.mark.skipif(sys.platform != "linux", reason="patches an ELF file")
@pytest.mark.parametrize(
    ("module", "name", "library", "message"),
    [
        ("mujoco", "mujoco/Hopper", "libGL.so.9", "shared library libGL.so.9, .* apt-get install libgl1."),
        ("nle", "minihack/Room-5x5", "libbz2.so.9", "shared library libbz2.so.9, .* apt-get install libbz2-1.0."),
        (
            "minihack",
            "minihack/Room-5x5",
            "libnone.so.1",
            "libnone.so.1, .* apt-file search libnone.so.1 names its package.",
        ),
        ("mujoco", "gymnasium/Hopper-v5", "libGL.so.9", "shared library libGL.so.9, .* apt-get install libgl1."),
    ],
)
def test_a_missing_shared_library_is_named_with_its_package(module, name, library, message, tmp_path):
    extension_without(library, tmp_path, module)
    done = run("train", "--task", name, "--total-timesteps", "4096", path=tmp_path)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(rf"error: .* need .*{message}.*\n", done.stderr), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="names the loader's error on Linux")
def test_a_broken_file_of_a_package_is_told_from_a_missing_package(tmp_path, monkeypatch):
    (tmp_path / f"broken_one{ENDING}").write_bytes(b"not a library at all, and long enough to be read" * 50)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ImportError, match=r"installed but broken \(.*invalid ELF header\); pip install --force-reinst"):
        require("broken_one", "mine")
    with pytest.raises(ImportError, match=r"need the extra 'mine': pip install 'reward-design\[mine\]'"):
        require("not_there_at_all", "mine")


def test_an_older_system_library_and_causes_are_named():
    older = ImportError("/lib/libc.so.6: version `GLIBC_2.99' not found (required by x.so)")
    outer = RuntimeError("while making the environment")
    outer.__cause__ = older
    assert unloadable(outer, "nle.nethack") == (
        "GLIBC_2.99 of libc.so.6, which is older on this machine; use a newer system, or an older nle."
    )
    assert unloadable(RuntimeError("another"), "nle") is None


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="breaks a library of Linux")
@pytest.mark.parametrize("command", ["train", "compare"])
def test_training_needs_no_opengl_whatever_mujoco_gl_says(command, tmp_path):
    pytest.importorskip("mujoco")
    for name in ("libOSMesa.so", "libOSMesa.so.8", "libOSMesa.so.6"):
        (tmp_path / name).write_text("not a library")
    broken = {"MUJOCO_GL": "osmesa", "LD_LIBRARY_PATH": str(tmp_path)}
    alone = [sys.executable, "-c", "import mujoco"]
    assert subprocess.run(alone, env={**os.environ, **broken}, capture_output=True).returncode != 0
    for name in ("mujoco/Hopper",) if command == "compare" else ("mujoco/Hopper", "gymnasium/Hopper-v5"):
        words = [command, "--task", name, "--total-timesteps", "1024", "--set", "num_envs=2", "--out", f"out{name[:3]}"]
        done = run(*words, *(["--rewards", "sparse", "--seeds", "1"] if command == "compare" else []),
                   path=tmp_path, **broken)  # fmt: skip
        assert done.returncode == 0, done.stderr


def test_an_unknown_opengl_is_refused_with_those_there_are(monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "elg")
    monkeypatch.delitem(sys.modules, "mujoco", raising=False)
    with pytest.raises(ValueError, match=r"MUJOCO_GL must be egl, osmesa, glfw or off \(no pictures\), got 'elg'"):
        guard()


@pytest.mark.parametrize("name", ["mujoco/Hopper", "robotics/PointMaze_UMaze", "robotics/AntMaze_UMaze"])
def test_an_opengl_is_chosen_for_mazes_too(name, monkeypatch):
    env = task(name).make(render_mode="rgb_array")
    monkeypatch.delenv("MUJOCO_GL", raising=False)
    monkeypatch.setattr(mujoco_gl, "refused", [])
    monkeypatch.setattr(mujoco_gl, "draws", lambda backend: backend == "osmesa")
    assert mujoco_gl.prepare(env) is None
    assert os.environ.pop("MUJOCO_GL") == "osmesa"
    assert mujoco_gl.prepare(task("cartpole").make()) is None
    assert "MUJOCO_GL" not in os.environ


def test_pictures_of_mujoco_without_opengl_say_what_to_install(monkeypatch):
    env = task("mujoco/Hopper").make(render_mode="rgb_array")
    env.reset(seed=0)
    monkeypatch.setattr(mujoco_gl, "draws", lambda backend: False)
    with pytest.raises(ImportError, match=r"no OpenGL to draw MuJoCo with .*apt-get install libosmesa6"):
        env.render()
    words = r"render_mode must be None or one of 'human', 'rgb_array', .* got 'ansi'"
    with pytest.warns(UserWarning, match="render_mode='ansi'"), pytest.raises(ValueError, match=words):
        task("mujoco/Hopper").make(render_mode="ansi")
