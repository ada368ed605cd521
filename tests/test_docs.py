"""The code on the pages runs as it stands, block after block."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", ["README.md", "docs/agents.md", "docs/extending.md", "docs/host.md"])
def test_the_code_on_the_page_runs(page, capsys):
    code = blocks(page)
    assert len(code) >= 2
    namespace = {}
    for block in code:
        exec(compile(block, page, "exec"), namespace)
    assert "nan" not in capsys.readouterr().out.lower()


@pytest.mark.parametrize("page", ["README.md", *sorted(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))])
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        if "://" not in target:
            assert ((ROOT / page).parent / target).exists(), f"{page} links to {target}"


def test_the_readme_is_of_the_length_people_read():
    assert 80 <= len((ROOT / "README.md").read_text().splitlines()) <= 150
