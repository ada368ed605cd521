"""The notebooks of the docs were executed, without an error, and show what the notebooks are."""

import re
from pathlib import Path

import pytest

jupytext = pytest.importorskip("jupytext")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parent.parent
PAGES = sorted(ROOT.glob("docs/notebooks/*.ipynb"))


def sources(notebook):
    return [(cell.cell_type, cell.source) for cell in notebook.cells]


def problems(page, script):
    """What is wrong with an executed notebook, nothing if it is in order."""
    if sources(page) != sources(script):
        return "it is older than its script; run: make pages"
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    if [cell.execution_count for cell in code] != list(range(1, len(code) + 1)):
        return "it was not executed from top to bottom"
    outputs = [output for cell in code for output in cell.outputs]
    if any(output.output_type == "error" for output in outputs):
        return "it ended in an error"
    if not any("image/png" in output.get("data", {}) for output in outputs):
        return "it has no picture"
    text = "".join(output.get("text", "") for output in outputs)
    machine = re.search(r"/(?:home|root|tmp|Users|work)/\S+", text)
    return f"it shows a path of a machine: {machine[0]}" if machine else ""


def executed(path):
    return nbformat.read(path, as_version=4), jupytext.read(ROOT / "notebooks" / f"{path.stem}.py")


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)
def test_the_page_shows_the_notebook(path):
    assert problems(*executed(path)) == ""


def test_a_page_that_is_wrong_is_found():
    page, script = executed(PAGES[0])
    script.cells[0].source += " changed"
    assert "older" in problems(page, script)
    script = executed(PAGES[0])[1]
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    code[0].outputs.append(nbformat.v4.new_output("stream", name="stdout", text="saved in /tmp/abc"))
    assert "/tmp/abc" in problems(page, script)
    code[1].execution_count = None
    assert "top to bottom" in problems(page, script)


def test_every_notebook_has_a_page_in_the_navigation():
    shown = set(re.findall(r"notebooks/(\w+)\.ipynb", (ROOT / "mkdocs.yml").read_text()))
    assert shown == {path.stem for path in PAGES}
