"""The board over what the commands really wrote: what it reads, what it refuses, its pages in a real browser."""

import hashlib
import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from rich.console import Console

from reward_design import envs
from reward_design.experiments import Board, compare, distance_table, playing, single
from reward_design.experiments.dashboard import panels, reading, searches, states
from reward_design.experiments.store import FILE
from tests.board_pages import DESIGNS, SMALL, TASK, Seer, get
from tests.browsers import until

pytest.importorskip("tornado")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """A folder with one of everything."""
    pytest.importorskip("jsonschema")
    pytest.importorskip("imageio_ffmpeg")
    from reward_design.llm import design

    root, quiet = tmp_path_factory.mktemp("results"), Console(quiet=True)
    shared = {"agent": "q_learning", "config": SMALL}
    compare(TASK, list(DESIGNS), seeds=2, total_timesteps=2_000, out=root / "compared", progress=False, **shared)
    single.train(TASK, "shaping", total_timesteps=1_024, evaluations=4, out=str(root / "run"), console=quiet, **shared)
    known = envs.task(TASK)
    rewards = {"sparse": known.sparse_reward, "misaligned": known.auxiliary["misaligned"]}
    found = distance_table.measure(known, rewards)
    distance_table.write(found, root / "distances")
    answers = iter([0.0, 1.0])  # a term that does nothing is refused

    def model(messages):
        weight = next(answers)
        term = {"factor": "distance", "shape": "progress", "direction": "decrease", "weight": weight, "scale": 1.0}
        return json.dumps({"terms": [term]})

    design(
        TASK, model=model, language="terms", rounds=1, candidates=1, seeds=1, steps=512, audits="none",
        out=root / "a search", **shared,
    )  # fmt: skip
    for name in ("episode.mp4", "episode.gif"):
        playing.play(task="four_rooms", episodes=1, video=root / "run" / name, console=quiet)
    return root


@pytest.fixture
def copy(results, tmp_path):
    return Path(shutil.copytree(results, tmp_path / "results"))


def digest(root):
    """Names, contents and times of everything in a folder."""
    rows = [(str(p), p.stat().st_mtime_ns, p.read_bytes() if p.is_file() else b"") for p in sorted(root.rglob("*"))]
    return hashlib.sha256(repr(rows).encode()).hexdigest()


def ids(tree, path=""):
    return [panel.id for panel in panels.panels(tree, path)]


def content(tree, path, name):
    return str(next(p for p in panels.panels(tree, path) if p.id == name).render("true_return"))


# --- reading ----------------------------------------------------------------------------------------------------------


def test_every_experiment_is_found_with_its_state(results):
    tree = reading.Reader(results).look()
    kinds = {path: experiment.kind for path, experiment in tree.experiments.items()}
    assert kinds == {"a search": "search", "compared": "comparison", "distances": "distances", "run": "run"}
    lines = {path: str(states.state(experiment)) for path, experiment in tree.experiments.items()}
    assert lines == {
        "a search": "finished: 1 of 2 candidates trained",
        "compared": "finished: 2 of 2 units",
        "distances": "finished: 3 rewards measured",
        "run": "finished: 1,024 of 1,024 steps",
    }
    assert [f.path for f in tree.files_below("", reading.CLIPS)] == ["run/episode.gif", "run/episode.mp4"]
    assert not [e for experiment in tree.experiments.values() for e in experiment.troubles]


def test_a_page_has_the_parts_of_its_folder(results):
    tree = reading.Reader(results).look()
    assert ids(tree) == ["contents", "clips"]
    assert ids(tree, "compared") == ["state", "curves/chain", "terms/chain", "distances/chain", "contents"]
    assert ids(tree, "run") == ["state", "curves/chain", "terms/chain", "clips"]
    assert ids(tree, "a search") == ["state", "curves", "candidates", "contents"]
    assert ids(tree, "distances") == ["distances"]
    assert set(re.findall(r"shaping|sparse", content(tree, "compared", "terms/chain"))) == {"shaping", "sparse"}
    assert content(tree, "distances", "distances").count("<td") == 12  # nine distances and three regrets, as a table


def test_candidates_in_the_middle_of_a_search_are_those_of_its_end(results):
    records = [json.loads(line) for line in (results / "a search" / FILE).read_text().splitlines()]
    whole = searches.candidates(records)
    partly = searches.candidates([r for r in records if r["kind"] not in ("candidates", "end")])
    for name in ("id", "source", "refusal", "statistics", "distance", "round"):
        assert [c.get(name) for c in partly] == [c.get(name) for c in whole], name
    assert [searches.status(c) for c in whole] == ["refused: terms", "trained"]
    assert searches.best(whole)["id"] == "0.1"
    begun = searches.candidates(records[: [r["kind"] for r in records].index("trained")])
    assert [searches.status(c) for c in begun] == ["refused: terms", "waits for training"]


def test_only_what_is_new_is_read_and_what_was_written_anew_is_read_again(copy):
    log = reading.Log(copy / "compared" / FILE).look()
    first = list(log.records)
    with log.path.open("a") as file:
        file.write('{"kind":"note"}\n{"kind":"torn')
    assert log.look().records[len(first) :] == [{"kind": "note"}]
    assert log.records[0] is first[0]  # kept, not read again
    assert log.troubles == []
    with log.path.open("a") as file:
        file.write('"}\n')
    assert log.look().records[-1] == {"kind": "torn"}
    os.truncate(log.path, 0)  # as --overwrite does, and then it grows beyond what it was
    log.path.write_text('{"kind":"other"}\n' * 2000)
    assert {r["kind"] for r in log.look().records} == {"other"}


@pytest.mark.parametrize("damage", ["noise", "number", "keys", "binary", "empty"])
def test_what_is_damaged_is_named_and_the_rest_is_shown(copy, damage):
    path = copy / "compared" / FILE
    lines = path.read_bytes().splitlines(keepends=True)
    bad = {"noise": b"{{{\n", "number": b"7\n", "keys": b'{"kind":"unit"}\n', "binary": b"\xff\x00\n", "empty": b"\n"}
    path.write_bytes(b"".join([*lines[:3], bad[damage], *lines[3:]]))
    tree = reading.Reader(copy).look()
    assert tree.experiments["compared"].troubles == [f"Line 4 of {FILE} is damaged and left out."]
    assert "Line 4" in content(tree, "compared", "troubles")
    assert str(states.state(tree.experiments["compared"])) == "finished: 2 of 2 units"


def test_records_of_another_program_do_not_break_the_page(copy):
    identity = {"kind": "comparison", "identity": {"tasks": 3, "rewards": None}}
    (copy / "compared" / FILE).write_text(json.dumps(identity) + "\n")
    (copy / "distances" / "distances.json").write_text('{"names": ["a"], "matrix": "x"}')
    (copy / "run" / FILE).write_text("")
    tree = reading.Reader(copy).look()
    assert "cannot be shown" in content(tree, "compared", "unreadable")
    assert "does not say yet" in content(tree, "run", "troubles")
    assert ids(tree) == ["contents", "clips"]
    with Board(copy) as page:
        assert "cannot be shown" in get(page, "panel?path=distances&id=distances")[1].decode()


def test_large_folders_stay_fast(results, tmp_path):
    for number in range(200):
        shutil.copytree(results / "compared", tmp_path / f"block{number % 7}" / f"task{number}")
    reader = reading.Reader(tmp_path)
    tree = reader.look()
    assert len(tree.experiments) == 200
    begun = time.process_time()
    reader._looked = float("-inf")
    listed = panels.panels(reader.look(), "")
    assert time.process_time() - begun < 2.0
    assert listed[0].render("").count("finished: 2 of 2 units") == 200


# --- what is refused --------------------------------------------------------------------------------------------------


def test_it_answers_get_alone_to_its_own_page_alone(copy):
    before = digest(copy)
    with Board(copy) as page:
        assert get(page, "")[0] == 200
        for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD"):
            for where in ("", "state", "panel", "files/run/episode.gif", "nothing", "/"):
                status, _, headers = get(page, where, method)
                assert (status, headers["Allow"]) == (405, "GET"), (method, where)
        assert get(page, "", Host=f"localhost:{page.port}")[0] == 200
        for host in ("evil.example", f"evil.example:{page.port}", "127.0.0.1", f"127.0.0.1:{page.port + 1}"):
            for where in ("", "state", "files/run/episode.gif", "static/board.js", "nothing"):
                assert get(page, where, Host=host)[0] == 403, (host, where)
        assert get(page, "", Origin="http://evil.example")[0] == 403
        for where in ("/", "/wrong/", f"/{page.word[:-1]}/", f"/{page.word}x/state"):
            assert get(page, where)[0] == 403
        policy = get(page, "")[2]["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "script-src 'self';" in policy
    assert digest(copy) == before


def test_nothing_outside_the_folder_is_served(copy, tmp_path):
    secret = tmp_path / "secret.gif"
    secret.write_bytes(b"GIF89a secret")
    (copy / "link.gif").symlink_to(secret)
    (copy / "run" / "notes.txt").write_text("secret")
    with Board(copy) as page:
        ways = ["../secret.gif", "..%2fsecret.gif", "run/../../secret.gif", "%2e%2e/secret.gif", "link.gif"]
        ways += [str(secret), "run/..%2f..%2fsecret.gif", f"compared/{FILE}", "run/notes.txt", "run", ""]
        ways += ["run/checkpoints"]
        for way in ways:
            status, body, _ = get(page, f"files/{way}")
            assert status in (403, 404), way
            assert b"secret" not in body, way
        for way in ("..", "../..", "%2e%2e%2f", "run/../..", "/etc", "nowhere"):
            assert get(page, f"view/{way}")[0] in (403, 404), way
            assert get(page, f"state?path={way}")[0] == 404, way
        assert get(page, "panel?path=compared&id=nothing")[0] == 404
        status, body, headers = get(page, "files/run/episode.gif")
        assert (status, body) == (200, (copy / "run" / "episode.gif").read_bytes())
        assert headers["Content-Type"] == "image/gif"
        status, body, _ = get(page, "files/run/episode.mp4", Range="bytes=0-99")
        assert (status, body) == (206, (copy / "run" / "episode.mp4").read_bytes()[:100])
        status, _, headers = get(page, "files/compared/report.html")
        assert headers["Content-Security-Policy"].startswith("sandbox;")


def test_names_from_files_are_text(copy):
    shutil.move(copy / "run", copy / "<img src=x onerror=alert(1)>")
    (copy / "compared" / "live.json").write_text("<script>")
    with Board(copy) as page:
        text = get(page, "panel?id=contents")[1].decode() + get(page, "panel?id=clips")[1].decode()
    assert "<img src=x" not in text
    assert "&lt;img src=x" in text


# --- in a browser -----------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(browser, results):
    before = digest(results)
    with Board(results) as page:
        seer = Seer(browser, page)
        seer.errors()  # of pages before, whose board has ended
        yield seer
        assert seer.errors() == []
        browser.get("about:blank")
    assert digest(results) == before  # looking changes nothing


def test_the_first_page_leads_to_everything(seen):
    rows = seen.open().wait("contents", "compared", "a search", "distances", "run", "finished: 2 of 2 units")
    assert seen.one("#status").text == "4 experiments, 0 running"
    for name, heading in (("a search", "A reward for chain, designed by eureka"), ("compared", "2 designs compared")):
        rows.find_element("link text", name).click()
        until(seen.browser, lambda heading=heading: heading in seen.one("#title").text)
        seen.browser.back()
        rows = seen.wait("contents", "compared")
    rows.find_element("link text", "compared/report.html").click()
    until(seen.browser, lambda: "Reward designs compared" in seen.browser.title)


def test_a_finished_comparison_shows_every_task_and_design(seen):
    seen.open("compared").wait("state", TASK, *DESIGNS)
    table = seen.one("section[data-panel=state] table").text
    assert len(re.findall(r"\d\.\d{3}", table)) == 2
    picture = seen.wait("curves/chain", *DESIGNS).find_element("css selector", "svg[role=img]")
    assert picture.get_attribute("aria-label").startswith("True return on chain")
    seen.wait("terms/chain", "potential_shaping")
    matrix = seen.wait("distances/chain", "true reward", *DESIGNS)
    assert matrix.find_element("css selector", "svg").size["width"] > 100
    matrix.find_element("css selector", "summary").click()
    assert len(matrix.find_elements("css selector", "table tbody tr")) == 3
    choice = seen.one("#metric")
    choice.find_element("css selector", "option[value=success]").click()
    until(seen.browser, lambda: seen.one("section[data-curves] svg").get_attribute("aria-label").startswith("Success"))
    seen.browser.refresh()  # the choice stays
    seen.wait("curves/chain", *DESIGNS)
    assert seen.one("section[data-curves] svg").get_attribute("aria-label").startswith("Success")


def test_a_search_shows_its_candidates(seen):
    table = seen.open("a%20search").wait("candidates", "0.0", "refused: terms", "0.1", "best", "trained")
    for details in table.find_elements("css selector", "summary"):
        details.click()
    assert "terms[0].weight is 0" in table.text
    assert '"factor": "distance"' in table.text
    assert seen.wait("curves", "environment steps").find_elements("css selector", "svg")


def test_a_clip_plays_and_the_distances_stand_there(seen):
    seen.open("run").wait("clips", "episode.mp4")
    video, image = seen.one("section[data-panel=clips] video"), seen.one("section[data-panel=clips] img")
    until(seen.browser, lambda: image.get_property("naturalWidth") > 50)
    seen.browser.execute_script("arguments[0].play()", video)
    until(seen.browser, lambda: video.get_property("currentTime") > 0.1)
    assert video.get_property("videoWidth") > 50
    seen.wait("terms/chain", "potential_shaping")
    seen.open("distances").wait("distances", "true reward", "sparse", "misaligned", "exact")


def test_a_narrow_window_and_the_keyboard(seen):
    from selenium.webdriver.common.keys import Keys

    size = {"width": 380, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    seen.browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        for path in ("", "compared", "a%20search", "distances"):
            seen.open(path)
            until(seen.browser, lambda: seen.browser.find_elements("css selector", "section[data-shown]"))
            width = seen.browser.execute_script("return document.documentElement.scrollWidth")
            assert width <= 380, path
    finally:
        seen.browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    seen.open("a%20search").wait("candidates", "0.1")
    seen.browser.switch_to.active_element.send_keys(Keys.TAB)
    assert seen.browser.switch_to.active_element.text == "Skip to the results"
    seen.one("section[data-panel=candidates] summary").send_keys(Keys.ENTER)
    assert "weight is 0" in seen.text("candidates")
    unnamed = "img:not([alt]), video:not([aria-label]), svg[role=img]:not([aria-label])"
    assert seen.browser.find_elements("css selector", unnamed) == []


def test_a_folder_that_was_removed_is_said_to_be_gone(browser, copy):
    with Board(copy) as page:
        seer = Seer(browser, page).open("compared")
        seer.wait("state", "chain")
        shutil.rmtree(copy / "compared")
        until(browser, lambda: seer.one("#trouble").is_displayed())
        assert seer.one("#trouble").text == "This folder is not there any more; what you see is the last it said."
        assert "chain" in seer.text("state")
    until(browser, lambda: seer.one("#trouble").text.startswith("The program behind this page is not there any more"))
    seer.errors()
