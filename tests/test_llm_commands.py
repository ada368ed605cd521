"""``reward-design llm ask`` and ``design`` against a real server: limits, prices, modes of the cache."""

import json

import pytest

from reward_design import cli
from reward_design.experiments.store import read
from reward_design.llm.commands import of_command
from tests.llm_server import ScriptedServer

pytest.importorskip("openai")

TERMS = json.dumps(
    {"terms": [{"factor": "distance", "shape": "progress", "direction": "decrease", "weight": 1.0, "scale": 1.0}]}
)


@pytest.fixture
def run(capsys, monkeypatch):
    """A command: its exit code, what it printed, and what it said beside."""
    monkeypatch.setattr("reward_design.agents.use_all_cores", lambda: 1)

    def command(*words):
        code = cli.main([str(word) for word in words])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def ask(server, *words):
    return ("llm", "ask", "Is it late?", "--model", "m", "--base-url", server.url, *words)


def test_limits_of_ask_keep_the_answers_so_far(run):
    with ScriptedServer() as server:
        code, out, err = run(*ask(server, "--samples", 4, "--calls", 2))
        assert (code, out.count("A fine answer."), len(server.requests)) == (1, 2, 2)
        assert "stopped by --calls 2 with 2 of 4 answers, kept nowhere but here" in err
        code, out, err = run(*ask(server, "--tokens", 5))
        assert (code, out, len(server.requests)) == (1, "", 2)
        assert "stopped by --tokens 5 with 0 of 1 answers" in err
        assert run(*ask(server, "--seconds", 0))[0] == 1
        assert len(server.requests) == 2


def test_a_limit_on_time_says_what_was_waited_for(run):
    code, _, err = run("llm", "ask", "Hi", "--model", "m", "--base-url", "http://127.0.0.1:9/v1", "--seconds", 0.2)
    assert code == 1
    assert "stopped by --seconds 0.2 with 0 of 1 answers" in err
    assert "The last attempt ended in connection: nothing answers at 127.0.0.1:9" in err


def test_what_came_before_a_limit_is_kept_in_the_cache(run, tmp_path):
    cache = ("--samples", 3, "--cache", tmp_path)
    with ScriptedServer() as server:
        code, _, err = run(*ask(server, *cache, "--calls", 2))
        assert code == 1
        assert f"kept in {tmp_path}: a larger --calls goes on from them" in err
        assert run(*ask(server, *cache, "--calls", 3))[0] == 0
        assert len(server.requests) == 3


def test_money_of_ask_needs_a_price_and_is_shown(run):
    with ScriptedServer() as server:
        code, _, err = run(*ask(server, "--money", 1.0))
        assert (code, server.requests) == (2, [])
        assert "--money needs to know what the model costs; give --price PROMPT ANSWER DATE" in err
        priced = ("--price", 2.0, 8.0, "2026-11-26")
        code, _, err = run(*ask(server, "--money", 1.0, *priced))
        assert code == 0
        assert f"{(20 * 2.0 + 10 * 8.0) / 1e6:.4g} spent" in err  # the tokens that the server counts
        code, _, err = run(*ask(server, "--money", 1e-6, *priced))
        assert (code, len(server.requests)) == (1, 1)
        assert "stopped by --money 1e-06 with 0 of 1 answers" in err
        code, _, err = run(*ask(server, "--price", 2.0, 8.0, "yesterday"))
        assert (code, "must be the day when it was looked up" in err) == (2, True)


def test_modes_of_ask(run, tmp_path):
    with ScriptedServer(contents=["one", "two", "three"]) as server:
        cache = ("--cache", tmp_path / "answers")
        code, _, err = run(*ask(server, *cache, "--mode", "replay"))
        assert (code, server.requests) == (1, [])
        assert "error: mode 'replay' asks no model" in err
        assert "record it first" in err
        assert run(*ask(server, *cache))[1] == "one\n"
        code, out, err = run(*ask(server, *cache, "--mode", "replay"))
        assert (code, out, "from the cache" in err) == (0, "one\n", True)
        assert run(*ask(server, *cache, "--mode", "refresh"))[1] == "two\n"
        assert run(*ask(server, *cache))[1] == "two\n"
        assert run(*ask(server, *cache, "--mode", "live"))[1] == "three\n"
        assert run(*ask(server, *cache))[1] == "two\n"
        assert len(server.requests) == 3
        code, _, err = run(*ask(server, "--mode", "replay"))
        assert (code, "--mode replay needs --cache FOLDER" in err) == (2, True)
        code, _, err = run(*ask(server, *cache, "--mode", "rewind"))
        assert (code, "'rewind'" in err) == (2, True)


def search(server, out, *words):
    return (
        *("design", "--task", "chain", "--preset", "eureka", "--language", "terms", "--rounds", 1, "--candidates", 1),
        *("--seeds", 1, "--total-timesteps", 512, "--set", "num_envs=4", "num_steps=32", "hidden=8"),
        *("num_minibatches=1", "--audits", "none", "--final-seeds", 0, "--model", "m", "--base-url", server.url),
        *("--out", out, *words),
    )  # fmt: skip


def test_a_search_is_replayed_without_its_model_and_a_miss_is_an_error(run, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    with ScriptedServer(contents=[TERMS]) as server:
        assert run(*search(server, first))[0] == 0
        asked = len(server.requests)
        assert asked == 1
        replay = ("--cache", first / "answers", "--mode", "replay")
        code, out, _ = run(*search(server, again, *replay))
        assert (code, len(server.requests)) == (0, asked)
        assert "Best: 0.0" in out
        kept = [json.loads((folder / "best.reward").read_text())["sha256"] for folder in (first, again)]
        assert kept[0] == kept[1]
        code, out, err = run(*search(server, tmp_path / "other", "--temperature", 0.5, *replay))
        assert (code, len(server.requests)) == (2, asked)
        assert "error: mode 'replay' asks no model, and sample 0" in err
        assert "record it first" in err


def test_money_of_a_search_is_a_limit(run, tmp_path):
    with ScriptedServer(contents=["no JSON at all"]) as server:
        assert run(*search(server, tmp_path / "a", "--money", 1.0))[2].startswith("error: --money needs to know")
        assert server.requests == []
        priced = ("--price", 0.0, 1000.0, "2026-11-26", "--max-tokens", 1000)  # up to 1.0 a request, and 0.01 in truth
        code, out, _ = run(*search(server, tmp_path / "b", "--money", 1.045, *priced))
        assert (code, len(server.requests)) == (1, 5)
        assert "Ended early: the limit of 1.045 money is reached" in out
        assert "a larger --money goes on" in out
        used = [record["value"]["used"]["money"] for record in read(tmp_path / "b") if record["kind"] == "answer"]
        assert max(used) == pytest.approx(0.04)


def test_the_help_of_ask_shows_examples(capsys):
    with pytest.raises(SystemExit):
        cli.main(["llm", "ask", "--help"])
    said = capsys.readouterr().out
    assert "For example, the embedded model" in said
    assert "--price PROMPT ANSWER DATE" in said


def test_what_a_limit_says_of_other_things_stays():
    assert of_command("raise time_limit, or Budget()") == "raise time_limit, or Budget()"
