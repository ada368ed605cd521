"""The tasks of each family of environments, by the names that ``task`` takes, with a line of text each."""

from collections.abc import Callable, Iterable, Mapping

import gymnasium
from gymnasium.envs.registration import EnvSpec

from reward_design._names import suggestion
from reward_design._optional import require

VARIANTS = {
    "": "",
    "-sparse": " Pays only past a distance, or at the target.",
    "-episodic": " Pays everything with the last step.",
    "-dense": " Pays for closeness at every step.",
}
"""What the ending of a name means."""


def list_family(prefix: str) -> dict[str, str]:
    """One line of text for every task ``<prefix>/<id>``; see :func:`reward_design.envs.list_tasks`.

    Raises:
        ValueError: for an unknown family.
        ImportError: if the family needs an extra that is not installed.
    """
    if prefix not in FAMILIES:
        raise ValueError(f"unknown family {prefix!r}{suggestion(prefix, FAMILIES)} Families: {', '.join(FAMILIES)}.")
    return {f"{prefix}/{name}": line for name, line in sorted(FAMILIES[prefix]().items())}


def _first_sentence(text: str) -> str:
    head, dot, _ = text.partition(". ")
    return head + "." if dot else text


def _with_variants(texts: Mapping[str, str], endings: Iterable[str]) -> dict[str, str]:
    return {
        name + ending: _first_sentence(text) + VARIANTS[ending] for name, text in texts.items() for ending in endings
    }


def _mujoco() -> dict[str, str]:
    from reward_design.envs.mujoco_texts import FACTS

    return _with_variants({name: facts.text for name, facts in FACTS.items()}, ("", "-sparse", "-episodic"))


def _mjx() -> dict[str, str]:
    from reward_design.envs.mjx_tasks import NOISE
    from reward_design.envs.mujoco_texts import FACTS

    return _with_variants({name: FACTS[name].text for name in NOISE}, ("",))


def _robotics() -> dict[str, str]:
    from reward_design.envs.robotics_texts import FACTS

    return _with_variants({name: facts.text for name, facts in FACTS.items()}, ("", "-dense"))


def _minihack() -> dict[str, str]:
    from reward_design.envs.minihack_game import CUSTOM, UNSUPPORTED, registered
    from reward_design.envs.minihack_texts import family

    levels = {name: family(name).text for name in registered() if not name.startswith(UNSUPPORTED)}
    return {name: _first_sentence(text) for name, text in levels.items()} | {
        CUSTOM: "A level of your own: task('minihack/custom', des_file=...)."
    }


def _minigrid() -> dict[str, str]:
    """Of those that are installed: XLand-MiniGrid's in JAX, Farama's on the host."""
    found: dict[str, str] = {}
    missing: list[ImportError] = []
    for add in (_xminigrid, _farama):
        try:
            found |= add()
        except ImportError as error:
            missing.append(error)
    if not found:
        raise missing[0]
    return found


def _xminigrid() -> dict[str, str]:
    known = require("xminigrid", "jaxenvs", "grid worlds in JAX").registered_environments()
    return {name: "A grid world in JAX (XLand-MiniGrid)." for name in known if name.startswith("MiniGrid-")}


def _farama() -> dict[str, str]:
    from reward_design.envs.minigrid_host import farama_levels

    return dict.fromkeys(farama_levels(), "A grid world on the host (Farama's MiniGrid).")


def _gymnax() -> dict[str, str]:
    known = require("gymnax", "jaxenvs", "environments of gymnax").registered_envs
    return dict.fromkeys(known, "An environment of gymnax, in JAX.")


def _gymnasium() -> dict[str, str]:
    """The newest version of every registered id."""
    newest: dict[tuple[str | None, str], EnvSpec] = {}
    for spec in gymnasium.registry.values():
        key = spec.namespace, spec.name
        if key not in newest or (spec.version or 0) > (newest[key].version or 0):
            newest[key] = spec
    return {spec.id: _entry_point(spec.entry_point) for spec in newest.values()}


def _entry_point(made_by: object) -> str:
    if isinstance(made_by, str) or made_by is None:
        return made_by or "steps many at once only"
    return f"{getattr(made_by, '__module__', '')}:{getattr(made_by, '__qualname__', made_by)}"


FAMILIES: dict[str, Callable[[], dict[str, str]]] = {
    "gymnax": _gymnax, "minigrid": _minigrid, "mujoco": _mujoco, "mjx": _mjx, "minihack": _minihack,
    "robotics": _robotics, "gymnasium": _gymnasium,
}  # fmt: skip
"""Names without prefix, and a line of text each."""
