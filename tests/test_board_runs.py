"""The board beside programs that run, were killed or cannot be followed, and how it starts and ends itself."""

import http.client
import re
import subprocess
import sys
from pathlib import Path

import pytest

from reward_design.experiments import Board, compare
from reward_design.experiments.dashboard import pictures, reading, states
from reward_design.experiments.live import Live, Seen
from reward_design.experiments.store import Store
from tests.board_pages import DESIGNS, SMALL, TASK, Seer
from tests.browsers import until

pytest.importorskip("tornado")


def test_a_unit_in_the_middle_of_training_is_drawn_as_far_as_it_is(tmp_path):
    identity = {"agent": "ppo", "seeds": [0, 1], "tasks": ["chain"], "rewards": ["sparse"], "config": {}}
    name = ("chain", "sparse")
    with Store(tmp_path, identity), Live(tmp_path) as live:
        live.begin(name, [0, 1], total=1000)
        values = {"true_return": [0.5, float("nan")], "length": [9.0, float("nan")]}
        live.advance(name, 100, Seen(200, (0, 1), values), flush=True)
        live.advance(name, 200, Seen(400, (0,), {"true_return": [1.0], "length": [5.0]}), flush=True)
        (experiment,) = reading.Reader(tmp_path).look().experiments.values()
        assert str(states.state(experiment)) == "running: 0 of 1 units"
        assert states.units(experiment)[name] == states.Unit("running", 0.2)
        steps, drawn = pictures.results(experiment).done[name].curve()
        assert drawn.shape == (1, 20)  # of the run that is ahead, up to 400 of 1000 steps at 50 points
        assert (steps[-1], drawn[0, 9], drawn[0, 18], drawn[0, 19]) == (400, 0.5, 0.5, 1.0)
    (experiment,) = reading.Reader(tmp_path).look().experiments.values()
    assert str(states.state(experiment)) == "stopped: 0 of 1 units"


def test_a_killed_comparison_does_not_run(tmp_path):
    identity = {"agent": "ppo", "seeds": [0], "tasks": ["chain"], "rewards": ["sparse"], "config": {}}
    with Store(tmp_path, identity), Live(tmp_path) as live:
        live.begin(("chain", "sparse"), [0], total=10)
        kept = live.path.read_bytes()
    (tmp_path / "live.json").write_bytes(kept)  # as a kill leaves it
    (experiment,) = reading.Reader(tmp_path).look().experiments.values()
    if Path("/proc/locks").exists():
        assert states.state(experiment).word == "stopped"
        assert states.units(experiment)["chain", "sparse"].status == "waiting"


def test_a_comparison_goes_on_where_the_file_to_follow_it_cannot_be_written(tmp_path):
    (tmp_path / "live.part").mkdir()
    found = compare(
        TASK, ["sparse"], agent="q_learning", config=SMALL, seeds=1, total_timesteps=256, out=tmp_path, progress=False,
        report=False,
    )  # fmt: skip
    assert found.done


@pytest.mark.parametrize("address", ["0.0.0.0", "192.168.0.1", "::", "example.com", ""])
def test_other_addresses_are_refused(tmp_path, address):
    with pytest.raises(ValueError, match="expected a loopback address such as"):
        Board(tmp_path, address=address)


def test_bad_requests_are_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"expected a folder with results, got .*which is nothing; give its --out"):
        Board(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"port must be in \[0, 65535\], got 99999"):
        Board(tmp_path, port=99999)
    with Board(tmp_path) as page, pytest.raises(OSError, match=f"port {page.port} of 127.0.0.1 cannot be used"):
        Board(tmp_path, port=page.port)


@pytest.mark.slow
def test_the_page_follows_a_running_comparison_without_a_reload(browser, tmp_path):
    """A real comparison in another process; the page is opened before it begins, and left alone."""
    out = tmp_path / "followed"
    command = [sys.executable, "-m", "reward_design", "compare", "--task", TASK, "--rewards", *DESIGNS, "--agent"]
    command += ["q_learning", "--seeds", "2", "--total-timesteps", "400000", "--out", str(out), "--quiet"]
    with Board(tmp_path) as page:
        seer = Seer(browser, page).open()
        seer.wait("contents", "Nothing yet")
        browser.execute_script("window.sameDocument = true")
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            seer.wait("contents", "followed", "running: 0 of 2 units", seconds=300)
            assert browser.execute_script("return window.sameDocument")
            seer.open("followed")
            browser.execute_script("window.sameDocument = true")
            waits = "return [...document.querySelectorAll('.units td')].map(cell => cell.className).join()"
            look = lambda: browser.execute_script(waits)  # noqa: E731
            until(browser, lambda: "running" in look(), 300)
            until(browser, lambda: "n done,n running" in look(), 300)
            until(browser, lambda: "sparse" in seer.text("curves/chain"), 300)
            assert process.wait(300) == 0
            until(browser, lambda: seer.one("#status").text == "finished: 2 of 2 units")
            seer.wait("curves/chain", *DESIGNS)
            assert browser.execute_script("return window.sameDocument")
        finally:
            process.kill()
            process.wait()
    # the page of a board that has ended says so, and keeps what it showed
    until(browser, lambda: seer.one("#trouble").is_displayed())
    assert "shaping" in seer.text("curves/chain")


def test_the_command_serves_until_it_is_interrupted(tmp_path):
    command = [sys.executable, "-m", "reward_design", "board", str(tmp_path), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        url = re.search(r"http://127.0.0.1:(\d+)(/\S+)", process.stdout.readline())
        connection = http.client.HTTPConnection("127.0.0.1", int(url[1]), timeout=60)
        connection.request("GET", url[2])
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(2)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
