"""ICPL from the command line to the second round, a person choosing on the page in a real browser."""

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from reward_design.experiments.store import read
from reward_design.llm.designers.candidates import best
from reward_design.llm.designers.page import candidates
from tests.browsers import until
from tests.llm_server import ScriptedServer

ROOT = Path(__file__).parent.parent
FETCH = """
const [address, done] = arguments;
fetch(address).then(found => found.blob()).then(blob => {
  const reader = new FileReader();
  reader.onload = () => done(reader.result);
  reader.readAsDataURL(blob);
});
"""


def terms(direction, weight):
    entry = {"factor": "distance", "shape": "progress", "direction": direction, "weight": weight, "scale": 1.0}
    return json.dumps({"terms": [entry]})


ROUND = [("decrease", 1.0), ("increase", 1.0), ("decrease", 2.0)]
ANSWERS = [*(terms(*one) for one in ROUND), *(terms(direction, weight + 2) for direction, weight in ROUND)]


def command(server, out):
    return [
        *(sys.executable, "-m", "reward_design", "design", "--task", "chain", "--preset", "icpl", "--person"),
        *("--model", "scripted", "--base-url", server.url, "--language", "terms", "--rounds", "2"),
        *("--candidates", "3", "--seeds", "1", "--total-timesteps", "4096", "--final-seeds", "0", "--audits", "none"),
        *("--set", "num_envs=4", "num_steps=32", "hidden=8", "num_minibatches=1", "--out", str(out)),
    ]


def motion(driver, side):
    """How much of the picture in the page changes from the first to the last frame of a clip."""
    from selenium.webdriver.common.by import By

    source = driver.find_element(By.ID, side).get_attribute("src")
    data = driver.execute_async_script(FETCH, source).partition(",")[2]
    with Image.open(io.BytesIO(base64.b64decode(data))) as clip:
        first = np.asarray(clip.convert("RGB"), int)
        clip.seek(clip.n_frames - 1)
        return int(np.abs(np.asarray(clip.convert("RGB"), int) - first).sum())


def choose_the_laziest(driver, url, pairs):
    """Answer every question of a page by what its clips show; the motions that were seen."""
    from selenium.webdriver.common.by import By

    seen = []
    driver.get(url)
    for number in range(pairs):
        until(driver, lambda: driver.find_element(By.ID, "count").text == f"{number} of {pairs}")  # noqa: B023
        for side in ("first", "second"):
            until(driver, lambda: driver.find_element(By.ID, side).get_property("naturalWidth") > 0)  # noqa: B023
        one, two = motion(driver, "first"), motion(driver, "second")
        answer = "equal" if one == two else "first" if one < two else "second"
        driver.find_element(By.CSS_SELECTOR, f"[data-answer={answer}]").click()
        seen += [one, two]
    until(driver, lambda: driver.find_element(By.ID, "end").is_displayed())
    return seen


@pytest.mark.slow
def test_a_person_in_a_browser_decides_what_the_next_round_starts_from(browser, tmp_path):
    settings = {**os.environ, "BROWSER": "true", "OPENAI_API_KEY": "none", "PYTHONPATH": str(ROOT)}
    with ScriptedServer(contents=ANSWERS) as server:
        said, seen = [], []
        with subprocess.Popen(
            command(server, tmp_path), cwd=tmp_path, env=settings, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        ) as process:  # fmt: skip
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    said.append(line)
                    if "Choose on" in line:
                        seen.append(choose_the_laziest(browser, line.split()[-1], 3))
                assert process.wait(60) == 0, "".join(said)
            finally:
                process.kill()
        asked = server.requests
    assert len(seen) == 2
    assert all(min(motions) < max(motions) for motions in seen)  # the clips do differ

    records = read(tmp_path)
    found = candidates(records)
    lazy = next(c for c in found if c.round == 0 and '"increase"' in c.source)
    chosen = next(r["value"] for r in records if r["kind"] == "judge" and r["name"] == "0")
    assert chosen[0] == lazy.id
    assert chosen[1] != lazy.id
    first = [c for c in found if c.round == 0 and c.trained]
    assert best(first).id != lazy.id  # the task's own success would have chosen another
    assert all(c.parents == tuple(chosen) for c in found if c.round == 1)
    sources = {c.id: c.source for c in first}
    text = asked[-1]["messages"][-1]["content"]
    assert text.index(sources[chosen[0]]) < text.index(sources[chosen[1]])
    answers = [json.loads(line) for line in (tmp_path / "judge-0.jsonl").read_text().splitlines()]
    assert [a["answer"] for a in answers if "answer" in a].count("equal") == 1
