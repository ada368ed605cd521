"""The table of the fault drill on its page is that of its records."""

import re
from pathlib import Path

from benchmarks.fault_drill import known_rows, table
from tests.fault_blows import BLOWS

ROOT = Path(__file__).parent.parent


def on_page(text):
    """Kind -> blows, runs, equal, lost and doubled."""
    lines = re.findall(r"^\| `(\w+)` \|[^|]*\| (.*) \|$", text, flags=re.MULTILINE)
    return {kind: tuple(map(int, cells.split(" | "))) for kind, cells in lines}


def in_records(rows):
    found = [line.split() for line in table(rows)[1:]]
    return {kind: tuple(map(int, figures)) for kind, *figures in found}


def test_the_page_of_the_drill_says_what_its_records_say():
    text = (ROOT / "docs/compare.md").read_text()
    rows = known_rows(ROOT / "benchmarks/records/fault_drill.jsonl")
    assert on_page(text) == in_records(rows)
    assert {*in_records(rows)} <= {*BLOWS}
    assert on_page(text) != in_records(rows[1:])
