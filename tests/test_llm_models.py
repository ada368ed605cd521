"""Models against a real server with scripted faults, functions as models, and what is refused before it is sent."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from reward_design import cli
from reward_design.llm import Budget, BudgetExceeded, ModelError, chat_model
from reward_design.llm import embedded as local
from tests.llm_questions import ASK, QUICK, SCHEMA, model
from tests.llm_server import GOOD_JSON, GOOD_TEXT, STEPS, ScriptedServer

pytest.importorskip("openai")


ENDS = {
    "good": None,
    "hang": "time-out",
    "slow headers": "time-out",
    "slow body": "time-out",
    "slow error": "time-out",
    "429": "rate limit",
    "429 after": "rate limit",
    "429 date": "rate limit",
    "429 tomorrow": "rate limit",
    "429 nonsense": "rate limit",
    "429 quota": "rejected",
    "500": "server error",
    "503": "server error",
    "endless error": "gigantic",
    "drop": "connection",
    "reset": "connection",
    "drop in the middle": "connection",
    "not http": "connection",
    "truncated json": "malformed",
    "malformed json": "malformed",
    "wrong form": "malformed",
    "wrong types": "malformed",
    "a list": "malformed",
    "deep json": "malformed",
    "not utf-8": "malformed",
    "squeezed": "malformed",
    "lone surrogate": None,
    "refusal": "refusal",
    "filtered": "refusal",
    "empty": "empty",
    "null": "empty",
    "gigantic": "gigantic",
    "401": "rejected",
    "404": "rejected",
    "413": "rejected",
    "cut": "truncated",
    "prose": "invalid",
    "wrong schema": "invalid",
    "no schema": None,
    "new name": None,
}
"""How a model ends that meets the same fault in every attempt."""


def test_every_fault_of_the_server_is_tested():
    assert set(ENDS) == set(STEPS)


@pytest.mark.parametrize("fault", ENDS)
def test_a_lasting_fault_has_a_name_and_an_end(fault):
    begun, end = time.monotonic(), ENDS[fault]
    with ScriptedServer([fault] * 20) as server:
        asked = model(server, time_limit=0.4 if end == "time-out" else 5.0)
        if end is None:
            assert asked.ask(ASK, schema=None if fault == "lone surrogate" else SCHEMA)[0].text
        else:
            with pytest.raises(ModelError) as caught:
                asked.ask(ASK, schema=SCHEMA)
            assert caught.value.outcome == end
            assert asked.outcomes[end] == 1
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize("fault", [name for name, end in ENDS.items() if end in ("rate limit", "server error")])
def test_what_passes_is_tried_again(fault):
    with ScriptedServer([fault]) as server:
        asked = model(server)
        if fault == "429 tomorrow":
            with pytest.raises(ModelError, match="rate limit"):
                asked.ask(ASK)
            return
        assert asked.ask(ASK)[0].text == GOOD_TEXT
        assert asked.outcomes == {"answer": 1, f"retried: {ENDS[fault]}": 1}


def test_retry_after_is_waited_for_and_plain_backoff_is_shorter():
    def gap(fault):
        with ScriptedServer([fault]) as server:
            model(server).ask(ASK)
            return server.times[1] - server.times[0]

    assert gap("429 after") >= 0.2
    assert gap("429") < 0.2


def test_partial_rounds_are_kept():
    with ScriptedServer(["refusal", "good", "401", "good"]) as server:
        asked = model(server, parallel=1)
        answers = asked.ask(ASK, samples=4)
        assert [answer.sample for answer in answers] == [1, 3]
        assert asked.outcomes == {"answer": 2, "refusal": 1, "rejected": 1}


def test_a_round_without_answers_is_an_error_with_the_counts():
    with ScriptedServer(["refusal", "refusal", "401"]) as server, pytest.raises(ModelError, match="2 x refusal"):
        model(server, parallel=1).ask(ASK, samples=3)


def test_nobody_there():
    with ScriptedServer() as server:
        url = server.url
    gone = chat_model("m", base_url=url, retries=QUICK, budget=(budget := Budget()))
    with pytest.raises(ModelError, match="connection") as caught:
        gone.ask(ASK)
    assert not caught.value.may_have_cost
    assert budget.used.calls == 2
    assert budget.used.tokens == 0


def test_requests_run_at_the_same_time_up_to_parallel():
    with ScriptedServer(["hang"] * 6) as server:
        asked = model(server, retries=0, parallel=6, time_limit=0.4)
        begun = time.monotonic()
        with pytest.raises(ModelError):
            asked.ask(ASK, samples=6)
        assert time.monotonic() - begun < 2


def test_an_interrupt_ends_a_request():
    usual = signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs of a shell ignore it
    with ScriptedServer(["hang"]) as server:
        timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        timer.start()
        begun = time.monotonic()
        try:
            with pytest.raises(KeyboardInterrupt):
                model(server, time_limit=30).ask(ASK)
        finally:
            timer.cancel()
            signal.signal(signal.SIGINT, usual)
        assert time.monotonic() - begun < 10


# --- functions, arguments --------------------------------------------------------------------------------------------


def test_a_function_is_a_model_with_time_limit_budget_and_schema():
    said = iter(["no idea", GOOD_JSON])
    own = chat_model(lambda messages: next(said), budget=(budget := Budget(calls=2)))
    assert own.ask(ASK, schema=SCHEMA)[0].text == GOOD_JSON
    assert budget.used.calls == 2
    with pytest.raises(BudgetExceeded):
        own.ask(ASK)
    sleeper = chat_model(lambda messages: time.sleep(3) or "late", time_limit=0.1, retries=0)
    with pytest.raises(ModelError, match="time-out"):
        sleeper.ask(ASK)
    with pytest.raises(ZeroDivisionError):
        chat_model(lambda messages: str(1 // 0)).ask(ASK)
    with pytest.raises(TypeError, match="must return text, got int"):
        chat_model(lambda messages: 3).ask(ASK)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"mode": "replya", "cache": "x"}, "did you mean 'replay'"),
        ({"mode": "replay"}, "needs cache="),
        ({"temperature": -1}, "temperature must be at least 0"),
        ({"time_limit": 0}, "time_limit must be more than 0"),
        ({"retries": -1}, "retries must be at least 0"),
    ],
)
def test_settings_are_checked(settings, match):
    with pytest.raises(ValueError, match=match):
        chat_model(lambda messages: "x", name="x", **settings)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"budget": 5}, r"budget must be made by reward_design.llm.Budget, got int: budget=Budget\(...\)"),
        ({"price": 0.5}, r"price must be made by reward_design.llm.Price, got float: price=Price\(...\)"),
    ],
)
def test_numbers_are_neither_budget_nor_price(settings, text, untyped):
    with pytest.raises(TypeError, match=text):
        chat_model(lambda messages: "x", name="x", **settings)


def test_limits_and_messages_in_words(untyped):
    with pytest.raises(TypeError, match="calls must be a number of at least 0, got '3'"):
        Budget(calls="3")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"messages must be a list; write \[\{'role': 'user', 'content': 'hello'"):
        chat_model(lambda messages: "x").ask("hello")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "url", ["localhost:8000", "http://", "ftp://host/v1", "127.0.0.1:8000/v1", "http://host:port/v1", "http://[::1/v1"]
)
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url, monkeypatch):
    with pytest.raises(ValueError, match=r"base_url must be the address of a server such as .*begin it with http"):
        chat_model("m", base_url=url)
    monkeypatch.setenv("OPENAI_BASE_URL", url)
    with pytest.raises(ValueError, match="base_url must be the address"):
        chat_model("m")
    assert chat_model("m", base_url="https://host:8443/v1").name == "m"


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel", "tab\tkey"])
def test_a_key_that_cannot_be_sent_is_refused_and_not_shown(key, monkeypatch):
    """In a header it would fail at every request, with the key in the text of the error."""
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ValueError, match="the key in the environment variable OPENAI_API_KEY has characters") as caught:
        chat_model("m", base_url="http://127.0.0.1:9/v1")
    assert key not in str(caught.value)


def test_a_line_break_behind_a_key_is_not_sent(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " sk-1234 \n")
    with ScriptedServer(contents=["yes"]) as server:
        model = chat_model("m", base_url=server.url, retries=0)
        assert model.ask([{"role": "user", "content": "?"}])[0].text == "yes"
        assert server.headers[-1]["authorization"] == "Bearer sk-1234"


@pytest.mark.parametrize("temperature", [float("nan"), float("inf"), -1.0])
def test_temperatures_that_are_no_setting(temperature):
    with pytest.raises(ValueError, match="temperature must be"):
        chat_model(lambda messages: "x", temperature=temperature)


def test_limits_that_are_no_number():
    with pytest.raises(ValueError, match="seconds must be at least 0, got nan"):
        Budget(seconds=float("nan"))


def test_a_cache_that_is_a_file_is_refused_before_anything_is_paid(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="must be a folder, got the file"):
        chat_model(lambda messages: "x", cache=tmp_path / "file", name="x")
    assert (tmp_path / "file").read_text() == "x"


@pytest.mark.parametrize(("settings", "text"), [({"port": 65536}, "port must be"), ({"threads": 0}, "threads must be")])
def test_serving_is_checked_before_weights_are_loaded(settings, text):
    with pytest.raises(ValueError, match=text):
        local.serve(Path("nowhere.gguf"), **settings)


def test_a_server_that_is_not_there_is_named_without_its_password():
    with ScriptedServer(contents=["yes"]) as server:
        port = server.url.split(":")[2].split("/")[0]
    model = chat_model("m", base_url=f"http://user:secret@127.0.0.1:{port}/v1", retries=0)
    with pytest.raises(ModelError, match=f"nothing answers at 127.0.0.1:{port}; is the server up") as caught:
        model.ask([{"role": "user", "content": "?"}])
    assert "secret" not in str(caught.value)


def test_an_empty_question_is_not_asked(capsys):
    assert cli.main(["llm", "ask", " ", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]) == 2
    assert "the question is empty" in capsys.readouterr().err


def test_a_service_needs_its_key(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(ValueError, match="needs a key in the environment variable OPENAI_API_KEY"):
        chat_model("some-model")


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": "x"}], [{"role": "user"}]])
def test_messages_are_checked(messages):
    with pytest.raises(ValueError, match="message"):
        chat_model(lambda messages: "x").ask(messages)
