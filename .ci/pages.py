"""Run the notebooks at full length and keep them, with pictures, as pages of the docs.

Each notebooks/NAME.py becomes docs/notebooks/NAME.ipynb, which the docs site shows and which can be read wherever
notebooks are shown. Times, warnings and what depends on the machine are left out. It takes minutes for each; a page is
only made anew when its cells have changed (tests/test_notebook_pages.py tells which those are).

Usage: python .ci/pages.py [NAME ...]        NAME: 02_shaping_right_and_wrong, or its beginning
"""

import os
import sys
import tempfile
import time
from pathlib import Path

import jupytext
import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "notebooks"


def changed(script, page):
    """Whether a page is missing, or shows other cells than its script."""
    if not page.exists():
        return True
    shown = [cell.source for cell in nbformat.read(page, as_version=4).cells]
    return shown != [cell.source for cell in jupytext.read(script).cells]


def execute(script):
    """The notebook of a script with its outputs, run in an empty folder."""
    notebook = jupytext.read(script)
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(notebook, timeout=None, record_timing=False, resources={"metadata": {"path": folder}}).execute()
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"]}
    return notebook


def main(names):
    """Make the named pages, or those that are out of date."""
    os.environ.pop("REWARD_DESIGN_SHORT", None)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    PAGES.mkdir(exist_ok=True)
    for script in sorted((ROOT / "notebooks").glob("*.py")):
        page = PAGES / f"{script.stem}.ipynb"
        wanted = any(script.stem.startswith(name) for name in names) if names else changed(script, page)
        if wanted:
            begin = time.monotonic()
            nbformat.write(execute(script), page)
            print(f"{page.relative_to(ROOT)}: {time.monotonic() - begin:.0f} s, {page.stat().st_size / 1024:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
