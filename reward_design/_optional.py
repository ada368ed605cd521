"""Packages that only some parts need, imported on use."""

import importlib
from types import ModuleType


def require(module: str, extra: str, what: str | None = None) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Args:
        module: name to import, for example ``"gymnax"``.
        extra: extra of this distribution that installs it.
        what: plural subject of the error message, ``"gymnax environments"``; ``"parts that use <module>"`` if left out.

    Returns:
        The imported module.

    Raises:
        ImportError: if the package, or something that it needs itself, is missing.

    Example:
        >>> from reward_design._optional import require
        >>> require("json", "jaxenvs").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        missing = "" if error.name in (None, module, module.split(".")[0]) else f" ({error.name!r} is missing)"
        raise ImportError(
            f"{what or f'parts that use {module}'} need the extra {extra!r}: "
            f"pip install 'reward-design[{extra}]'.{missing}",
            name=error.name,
        ) from error
