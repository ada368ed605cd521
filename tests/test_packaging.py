"""The package list, the lock, the direction of imports: what only breaks after an installation, or slowly."""

import ast
import configparser
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from jaxtyping import TypeCheckError
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import reward_design
from reward_design.envs.base import Tabular

ROOT = Path(__file__).resolve().parent.parent
MAPPED = ("envs", "agents")
LOCKED_EXTRAS = (
    "dev",
    "docs",
    "notebooks",
    "sb3",
    "sbx",
    "jaxenvs",
    "mujoco",
    "mjx",
    "robotics",
    "minihack",
    "minigrid",
    "video",
    "llm",
    "local-llm",
    "track",
    "tune",
    "board",
)
OPTIONAL = runpy.run_path(str(ROOT / ".ci" / "smoke.py"))["OPTIONAL"]
LAYERS = (
    *("core", "envs", "agents", "bilevel", "redistribution", "preferences", "distance"),
    *("llm", "experiments", "designers", "cli"),
)


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    return config


def lines(text: str) -> list[str]:
    return [line for line in text.strip().splitlines() if line and not line.startswith("#")]


def files() -> dict[str, Path]:
    """Every file of the package: its path as installed -> where it really lies."""
    folders = {"reward_design": ROOT / "reward_design"} | {f"reward_design/{name}": ROOT / name for name in MAPPED}
    return {
        f"{prefix}/{path.relative_to(folder).as_posix()}": path
        for prefix, folder in folders.items()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }


def modules() -> dict[str, Path]:
    """Module name -> file."""
    named = {path.removesuffix(".py").replace("/", "."): file for path, file in files().items() if path.endswith(".py")}
    return {name.removesuffix(".__init__"): file for name, file in named.items()}


def test_package_list_equals_the_folders():
    with_python = {path.rpartition("/")[0].replace("/", ".") for path in files() if path.endswith(".py")}
    listed = lines(setup_cfg()["options"]["packages"])
    assert sorted(listed) == sorted(with_python)
    assert len(listed) == len(set(listed))
    for package in listed:
        assert f"{package.replace('.', '/')}/__init__.py" in files(), f"{package} has no __init__.py"


def test_package_data_covers_every_other_file():
    data = {package: lines(globs) for package, globs in setup_cfg()["options.package_data"].items()}
    packaged = {
        path.relative_to(ROOT)
        for package, globs in data.items()
        for glob in globs
        for path in (ROOT / package.replace(".", "/")).glob(glob)
    }
    others = {path.relative_to(ROOT) for path in files().values() if path.suffix != ".py"}
    assert packaged == others


@pytest.mark.parametrize("name", MAPPED)
def test_links_lead_to_the_folders_that_the_package_map_names(name):
    link = ROOT / "reward_design" / name
    assert link.is_symlink()
    assert link.resolve() == ROOT / name
    assert f"reward_design.{name} = {name}" in lines(setup_cfg()["options"]["package_dir"])


def test_version_heads_the_changelog():
    headings = [line for line in (ROOT / "CHANGELOG.md").read_text().splitlines() if line.startswith("## ")]
    assert headings[0].removeprefix("## ").split(",")[0].strip("[]") == reward_design.__version__


def test_all_is_every_extra_for_users():
    extras = setup_cfg()["options.extras_require"]
    (requirement,) = lines(extras["all"])
    assert Requirement(requirement).extras == set(extras) - {"all", "dev", "docs"}


def test_lock_fits_the_metadata():
    pins = {canonicalize_name(name): version for name, _, version in (pin.partition("==") for pin in lock())}
    config = setup_cfg()
    wanted = lines(config["options"]["install_requires"])
    wanted += [line for extra in LOCKED_EXTRAS for line in lines(config["options.extras_require"][extra])]
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def lock() -> list[str]:
    return lines((ROOT / "constraints.txt").read_text())


def test_lock_is_usable_everywhere():
    assert len(lock()) > 50
    for pin in lock():
        name, separator, version = pin.partition("==")
        assert separator, pin
        assert name, pin
        assert not set(version) & set("+/@ "), f"{pin} ties the lock to one machine or index"


def imports(file: Path) -> Iterator[tuple[int, int, str]]:
    """Line, relative level and full dotted name of everything that a file imports, functions included."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, 0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.lineno, node.level, f"{node.module or ''}.{alias.name}") for alias in node.names)


def layer(module: str) -> int:
    """Position in LAYERS of ``reward_design.something``; what has no layer of its own is core."""
    parts = module.split(".")
    first = parts[1] if len(parts) > 1 else ""
    first = {"__main__": "cli", "cli_design": "cli"}.get(first, first)
    if parts[1:3] == ["llm", "designers"]:
        first = "designers"  # they train agents, which the rest of llm does not
    return LAYERS.index(first) if first in LAYERS else 0


def upward_imports(module: str, file: Path) -> list[str]:
    # reward_design.llm names what designers have: it imports them on use, and here for type checkers
    own = LAYERS.index("designers") if module == "reward_design.llm" else layer(module)
    return [
        f"{module}:{line} ({LAYERS[own]}) imports {name}"
        for line, _, name in imports(file)
        if name.split(".")[0] == "reward_design" and layer(name) > own
    ]


def test_imports_point_downwards():
    assert [wrong for module, file in modules().items() for wrong in upward_imports(module, file)] == []


@pytest.mark.parametrize(
    "line",
    [
        "from reward_design.experiments import compare",
        "from reward_design import cli",
        "import reward_design.distance.starc",
        "def f():\n    from reward_design.agents.ppo import train",
    ],
)
def test_upward_imports_are_found(tmp_path, line):
    file = tmp_path / "module.py"
    file.write_text(line)
    assert len(upward_imports("reward_design.envs.chain", file)) == 1


def test_nothing_installed_imports_what_is_not():
    outside = {"envs", "agents", "tests", "benchmarks", "notebooks"}
    wrong = [
        (module, line, name)
        for module, file in modules().items()
        for line, _, name in imports(file)
        if name.split(".")[0] in outside
    ]
    assert wrong == []


def test_imports_are_absolute_in_linked_folders():
    linked = {module: file for module, file in modules().items() if file.relative_to(ROOT).parts[0] in MAPPED}
    assert linked
    assert [(module, line) for module, file in linked.items() for line, level, _ in imports(file) if level] == []


def test_annotations_are_checked_through_the_links():
    with pytest.raises(TypeCheckError, match="initial"):
        Tabular(np.ones((2, 1, 2)), np.ones((2, 1, 2)), np.ones(3), 0.9, np.ones(2, bool), np.arange(2))
    assert Tabular.__module__ == "reward_design.envs.base"


def test_import_is_light():
    heavy = ["torch", "gymnasium", "matplotlib", "mujoco", "minihack", "openai"]
    code = f"import sys, reward_design; print([name for name in {heavy} if name in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_modules_import_without_any_extra_or_name_it():
    code = f"""
import importlib, sys
OPTIONAL = {OPTIONAL}
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in OPTIONAL:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Absent())
for module in {sorted(modules())}:
    try:
        importlib.import_module(module)
    except ImportError as error:
        if "reward-design[" not in str(error):
            print(module, error)
"""
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout == ""
