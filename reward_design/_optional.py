"""Packages that only some parts need, imported on use."""

import importlib
import re
from types import ModuleType

PACKAGES = {
    "libEGL": "libegl1",
    "libGL": "libgl1",
    "libOSMesa": "libosmesa6",
    "libX11": "libx11-6",
    "libbz2": "libbz2-1.0",
    "libgcc_s": "libgcc-s1",
    "libglfw": "libglfw3",
    "libgomp": "libgomp1",
    "libstdc++": "libstdc++6",
    "libz": "zlib1g",
}
"""Debian's packages of shared libraries."""


def require(module: str, extra: str, what: str | None = None) -> ModuleType:
    """Import an optional package, or say which extra brings it, or which part of the system it lacks.

    Args:
        module: name to import, for example ``"gymnax"``.
        extra: extra of this distribution that installs it.
        what: plural subject of the error message, ``"gymnax environments"``; ``"parts that use <module>"`` if left out.

    Returns:
        The imported module.

    Raises:
        ImportError: if the package, something that it needs itself, or a shared library is missing.

    Example:
        >>> from reward_design._optional import require
        >>> require("json", "jaxenvs").__name__
        'json'
    """
    what = what or f"parts that use {module}"
    try:
        return importlib.import_module(module)
    except (ImportError, OSError) as error:
        if (text := unloadable(error, module)) is not None:
            raise ImportError(f"{what} need {text}", name=getattr(error, "name", None) or module) from error
        if not isinstance(error, ImportError):
            raise
        missing = "" if error.name in (None, module, module.split(".")[0]) else f" ({error.name!r} is missing)"
        raise ImportError(
            f"{what} need the extra {extra!r}: pip install 'reward-design[{extra}]'.{missing}",
            name=error.name,
        ) from error


def unloadable(error: BaseException | None, module: str) -> str | None:
    """What an installed package needs that the system's loader did not find, and how to get it.

    Args:
        error: raised by the import; what it was raised from counts as well.
        module: that was imported.

    Returns:
        The end of a sentence that begins with "... need", or None if the loader is not to blame.

    Example:
        >>> text = "libGL.so.1: cannot open shared object file: No such file or directory"
        >>> unloadable(ImportError(text), "mujoco")
        'the shared library libGL.so.1, which this machine lacks; on Debian and Ubuntu: apt-get install libgl1.'
        >>> unloadable(ImportError("No module named 'mujoco'"), "mujoco") is None
        True
    """
    if error is None:
        return None
    text, package = str(error), (getattr(error, "name", None) or module).split(".")[0]
    found = re.search(r"([\w.+-]+): cannot open shared object file", text)
    found = found or re.search(r"Library not loaded: (?:\S*/)?(\S+)", text)
    if found:
        known = PACKAGES.get(found[1].partition(".")[0])
        how = f"apt-get install {known}" if known else f"apt-file search {found[1]} names its package"
        return f"the shared library {found[1]}, which this machine lacks; on Debian and Ubuntu: {how}."
    newer = re.search(r"([\w.+-]+): version [`'](\S+?)' not found", text)
    if newer:
        return f"{newer[2]} of {newer[1]}, which is older on this machine; use a newer system, or an older {package}."
    if re.search(r"invalid ELF header|file too short|undefined symbol|wrong ELF class|DLL load failed", text):
        reason = text.splitlines()[0].rstrip(".")
        return f"{package}, which is installed but broken ({reason}); pip install --force-reinstall --no-deps {package}"
    return unloadable(error.__cause__ or error.__context__, module)
