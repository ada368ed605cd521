"""Check that sdist and wheel hold every file once, and nothing that is not ours.

The folders envs/ and agents/ are reached under two paths in the repository (reward_design/envs is a link to envs), so
that a careless build packs them twice, or installs them as the top-level packages `envs` and `agents`.
"""

import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def expected() -> set[str]:
    """Files of the package by their place in an installation, read through the links."""
    package = ROOT / "reward_design"
    folders = [package, package / "envs", package / "agents"]
    files = {path for folder in folders for path in folder.rglob("*") if path.is_file()}
    return {path.relative_to(ROOT).as_posix() for path in files if "__pycache__" not in path.parts}


def check_wheel(path: Path) -> list[str]:
    """Everything that is wrong with the wheel."""
    names = [name for name in zipfile.ZipFile(path).namelist() if ".dist-info/" not in name]
    wrong = [f"{name} twice in the wheel" for name in set(names) if names.count(name) > 1]
    wrong += [f"{name} missing from the wheel" for name in expected() - set(names)]
    return wrong + [f"{name} does not belong in the wheel" for name in set(names) - expected()]


def check_sdist(path: Path) -> list[str]:
    """Everything that is wrong with the sdist."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    names = [member.name.partition("/")[2] for member in members if member.isfile()]
    sources = {name.removeprefix("reward_design/") if _is_mapped(name) else name for name in expected()}
    wrong = [f"{name} twice in the sdist" for name in set(names) if names.count(name) > 1]
    wrong += [f"{name} is a link in the sdist" for name in (m.name for m in members if m.issym() or m.islnk())]
    wrong += [f"{name} twice in the sdist, through the link" for name in names if _is_mapped(name)]
    return wrong + [f"{name} missing from the sdist" for name in sources - set(names)]


def _is_mapped(name: str) -> bool:
    return name.startswith(("reward_design/envs/", "reward_design/agents/"))


def main() -> None:
    """Check the archives in the folder given as the first argument."""
    folder = Path(sys.argv[1])
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    wrong = check_wheel(wheel) + check_sdist(sdist)
    if wrong:
        sys.exit("\n".join(sorted(wrong)))
    print(f"{wheel.name} and {sdist.name} hold the {len(expected())} files of the package, each once.")


if __name__ == "__main__":
    main()
