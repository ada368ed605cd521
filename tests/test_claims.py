"""Every figure on the page of claims stands on the page that it cites, and its command exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
VERDICTS = {"**met**", "**partly**", "**not met**", "**not run**", "no goal"}


def rows():
    table = [line for line in (ROOT / "docs/claims.md").read_text().splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [row for row in cells if "](" in row[-1]]


def figures(text):
    """Numbers with their thousands and decimals; words like 5x5 and S5 are no figures."""
    plain = text.replace("−", "-").replace("`", "")
    return re.findall(r"(?<![\w.,-])-?\d+(?:[.,]\d+)*(?:e-\d+)?(?![\w]|-\d)", plain)


def missing(row):
    page = re.search(r"\]\(([^)#]+)", row[-1])[1]
    known = set(figures((ROOT / "docs" / page).read_text()))
    return [figure for figure in figures(row[1]) if figure not in known]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_a_claim_says_what_its_page_says(row):
    assert row[2] in VERDICTS
    assert missing(row) == []


def said_without_source(guide, text):
    """Figures of a guide, its code left out, that stand on none of the pages it links to."""
    prose = re.sub(r"```.*?```|\[[^]]*\]\([^)]*\)", "", text, flags=re.DOTALL)
    linked = {(guide.parent / page).resolve() for page in re.findall(r"\]\(([\w./]+\.md)", text)}
    known = {figure for page in linked for figure in figures(page.read_text())}
    return [figure for figure in figures(prose) if figure not in known]


@pytest.mark.parametrize("guide", sorted(ROOT.glob("docs/guides/*.md")), ids=lambda guide: guide.stem)
def test_a_guide_says_what_its_pages_say(guide):
    text = guide.read_text()
    assert said_without_source(guide, text) == []
    assert said_without_source(guide, text + " or 123.456") == ["123.456"]


def test_the_comparison_of_figures_can_fail():
    row = next(row for row in rows() if "1.18" in row[1])
    wrong = [row[0], row[1].replace("1.18", "1.81"), *row[2:]]
    assert missing(wrong) == ["1.81"]
    assert figures("1.73 and 1.77, 2,769 of −5 % in Room-5x5, 1e-14") == ["1.73", "1.77", "2,769", "-5", "1e-14"]


def commands():
    return sorted({command for row in rows() for command in re.findall(r"`((?:python|pytest) [^`]+)`", row[3])})


@pytest.mark.parametrize("command", commands())
def test_the_command_is_there(command):
    assert (ROOT / command.split()[1]).exists()
