"""The code on the pages runs as it stands, block after block."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = ["README.md", *sorted(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md"))]
NEEDS = {
    "docs/board.md": ("tornado",),
    "docs/llm_rewards.md": ("flatbuffers",),
    "docs/annotators.md": ("nle", "jsonschema"),
    "docs/llm_designers.md": ("flatbuffers", "jsonschema"),
    "docs/llm_models.md": ("jsonschema",),
    "docs/minihack.md": ("nle",),
    "docs/robotics.md": ("gymnasium_robotics", "minigrid"),
    "docs/search.md": ("optuna",),
    "docs/sb3.md": ("stable_baselines3", "sbx"),
}
"""Optional packages of a page."""


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


def says_that_it_runs(page):
    return page == "README.md" or "code on this page runs in the tests" in (ROOT / page).read_text()


@pytest.mark.parametrize("page", [page for page in PAGES if says_that_it_runs(page)])
def test_the_code_on_the_page_runs(page, capsys):
    for package in NEEDS.get(page, ()):
        pytest.importorskip(package)
    code = blocks(page)
    assert code
    namespace = {}
    for block in code:
        exec(compile(block, page, "exec"), namespace)
    assert "nan" not in capsys.readouterr().out.lower()


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_the_readme_is_of_the_length_people_read():
    assert 80 <= len((ROOT / "README.md").read_text().splitlines()) <= 150
