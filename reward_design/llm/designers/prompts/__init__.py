"""The words of the designers: one template per message, filled in by :func:`render`."""

import functools
from typing import Any

import jinja2

VERSION = 1
"""Of all templates together; part of the key of every answer in a cache."""


def render(name: str, **values: Any) -> str:
    """A template with its values.

    Args:
        name: of the file, without its ending.
        **values: what it names; one that is missing is an error.

    Example:
        >>> "terms" in render("answer", language="terms")
        True
    """
    return _environment().get_template(f"{name}.j2").render(**values).strip()


def label(name: str) -> str:
    """Name and version of a template, for caches.

    Example:
        >>> label("eureka")
        'designers/eureka/1'
    """
    return f"designers/{name}/{VERSION}"


@functools.cache
def _environment() -> jinja2.Environment:
    loader = jinja2.PackageLoader("reward_design.llm.designers.prompts", ".")
    return jinja2.Environment(
        loader=loader, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
