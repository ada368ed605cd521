"""Answers of models: the form that is asked for, what is kept of them, and what they may cost."""

import json
import time
from typing import Any

import pytest

from reward_design.llm import Budget, BudgetExceeded, CacheMissError, ModelError, Price, Retry, chat_model
from reward_design.llm.cache import key
from tests.llm_questions import ASK, SCHEMA, model
from tests.llm_server import GOOD_JSON, GOOD_TEXT, ScriptedServer

pytest.importorskip("openai")

PRICE = Price(prompt=1.0, completion=2.0, date="2026-11-26")


# --- schemas ---------------------------------------------------------------------------------------------------------


def test_a_schema_is_sent_described_and_checked():
    with ScriptedServer() as server:
        (answer,) = model(server).ask(ASK, schema=SCHEMA)
        assert json.loads(answer.text)["achieved"] is True
        request = server.requests[0]
        assert request["response_format"]["json_schema"]["schema"] == SCHEMA
        assert "additionalProperties" in request["messages"][-1]["content"]


@pytest.mark.parametrize("fault", ["prose", "wrong schema", "cut"])
def test_a_misfit_is_sent_back_once_with_what_is_wrong(fault):
    with ScriptedServer([fault]) as server:
        asked = model(server)
        (answer,) = asked.ask(ASK, schema=SCHEMA)
        assert answer.text == GOOD_JSON
        assert answer.prompt_tokens == 40
        said = server.requests[1]["messages"]
        assert [message["role"] for message in said] == ["user", "assistant", "user"]
        assert {"prose": "no JSON", "wrong schema": "required property", "cut": "cut off"}[fault] in said[-1]["content"]
        assert asked.outcomes["repaired"] == 1


def test_a_server_without_schemas_is_asked_in_words_and_that_is_remembered():
    with ScriptedServer(["no schema"] * 10) as server:
        asked = model(server)
        for _ in range(2):
            assert asked.ask(ASK, schema=SCHEMA)[0].text == GOOD_JSON
        assert ["response_format" in request for request in server.requests] == [True, False, False]


def test_a_refusal_for_another_reason_does_not_end_constrained_decoding():
    with ScriptedServer(["404", "404"]) as server:
        asked = model(server)
        with pytest.raises(ModelError, match="does not exist"):
            asked.ask(ASK, schema=SCHEMA)
        asked.ask(ASK, schema=SCHEMA)
        assert "response_format" in server.requests[-1]


def test_a_schema_that_is_none_is_refused_before_anything_is_sent():
    with ScriptedServer() as server, pytest.raises(ValueError, match="must be a JSON schema"):
        model(server).ask(ASK, schema={"type": "objekt"})
    assert not server.requests


# --- cache -----------------------------------------------------------------------------------------------------------


def test_modes(tmp_path):
    with ScriptedServer() as server:
        recorded = model(server, cache=tmp_path)
        first = recorded.ask(ASK, samples=3)
        assert len(server.requests) == len(list(tmp_path.iterdir())) == 3
        again = recorded.ask(ASK, samples=4)
        assert [answer.cached for answer in again] == [True, True, True, False]
        assert [answer.text for answer in again[:3]] == [answer.text for answer in first]
        assert len(server.requests) == 4
        model(server, cache=tmp_path, mode="refresh").ask(ASK)
        model(server, cache=tmp_path, mode="live").ask(ASK)
        assert len(server.requests) == 6
        replayed = model(server, cache=tmp_path, mode="replay", budget=Budget(calls=0))
        assert len(replayed.ask(ASK, samples=4)) == 4
        with pytest.raises(CacheMissError, match=r"sample 4 .* record it first"):
            replayed.ask(ASK, samples=5)
        assert len(server.requests) == 6


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.5},
        {"max_tokens": 49},
        {"name": "another"},
        {"schema": SCHEMA},
        {"template": "v2"},
        {"first": 1},
        {"messages": [{"role": "user", "content": "Was the door opened?"}]},
    ],
    ids=lambda change: next(iter(change)),
)
def test_all_that_decides_an_answer_is_in_the_key_and_no_secret(tmp_path, change, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    asked: dict[str, Any] = {"messages": ASK}
    settings = {}
    for name, value in change.items():
        (settings if name in ("temperature", "max_tokens", "name") else asked)[name] = value
    with ScriptedServer() as server:
        for _ in range(2):
            model(server, cache=tmp_path).ask(ASK)
        assert len(server.requests) == 1
        changed = model(server, cache=tmp_path, **settings)
        changed.ask(asked.pop("messages"), **asked)
        assert len(server.requests) == 2
        assert server.headers[0]["authorization"] == "Bearer sk-secret"
    for file in tmp_path.iterdir():
        assert "sk-secret" not in file.read_text()
        assert server.url not in file.read_text()


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff\xff", b"[]", b'{"result": 1}', None])
def test_a_damaged_entry_is_asked_for_again(tmp_path, damage):
    with ScriptedServer() as server:
        asked = model(server, cache=tmp_path)
        asked.ask(ASK)
        (file,) = tmp_path.iterdir()
        whole = file.read_bytes()
        entry = json.loads(whole)
        assert file.stem == key(entry["request"])
        file.write_bytes(whole.replace(b"picked up", b"lost") if damage is None else damage)
        assert asked.ask(ASK)[0].cached is False
        assert file.stat().st_size > 100
        assert asked.ask(ASK)[0].cached is True


def test_failures_for_good_are_kept_and_others_are_tried_again(tmp_path):
    with ScriptedServer(["refusal", "500", "500"]) as server:
        asked = model(server, cache=tmp_path, parallel=1)
        for _ in range(2):
            with pytest.raises(ModelError, match="refusal"):
                asked.ask(ASK)
        with pytest.raises(ModelError, match="server error"):
            asked.ask(ASK, first=1)
        replayed = model(server, cache=tmp_path, mode="replay")
        with pytest.raises(ModelError, match="server error"):
            replayed.ask(ASK, first=1)
        assert asked.ask(ASK, first=1)[0].text == GOOD_TEXT
        assert len(server.requests) == 4


def test_answers_of_a_function_without_a_name_are_not_kept(tmp_path):
    with pytest.raises(ValueError, match="give name="):
        chat_model(lambda messages: "x", cache=tmp_path)
    named = chat_model(lambda messages: "x", cache=tmp_path, name="x")
    assert named.ask(ASK)[0].cached is False
    assert named.ask(ASK)[0].cached is True


# --- budget ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "limit"), [({"calls": 2}, "calls"), ({"tokens": 200}, "tokens"), ({"money": 2.6e-4}, "money")]
)
def test_a_limit_stops_before_it_is_exceeded_and_keeps_what_there_is(tmp_path, limits, limit):
    with ScriptedServer() as server:
        asked = model(server, budget=(budget := Budget(**limits)), price=PRICE, parallel=1, cache=tmp_path)
        with pytest.raises(BudgetExceeded, match=f"limit of .* {limit} is reached") as caught:
            asked.ask(ASK, samples=5)
        assert caught.value.limit == limit
        assert len(caught.value.answers) == len(server.requests) == 2
        used = budget.report()
        assert used[limit] <= limits[limit]
        assert used["tokens"] == 60
        assert used["money"] == pytest.approx(2 * (20 * 1.0 + 10 * 2.0) / 1e6)
        richer = model(server, budget=Budget(calls=3), cache=tmp_path)
        assert len(richer.ask(ASK, samples=5)) == 5  # nothing is paid twice
        assert len(server.requests) == 5


def test_requests_at_the_same_time_do_not_exceed_a_limit_together():
    with ScriptedServer() as server:
        asked = model(server, budget=Budget(calls=3), parallel=8)
        with pytest.raises(BudgetExceeded) as caught:
            asked.ask(ASK, samples=8)
        assert len(server.requests) == len(caught.value.answers) == 3


@pytest.mark.parametrize("fault", ["hang", "429 after"])
def test_wall_time_ends_requests_and_waits(fault):
    with ScriptedServer([fault] * 50) as server:
        asked = model(server, budget=Budget(seconds=0.7), retries=Retry(retries=50, first=0.01), time_limit=30)
        begun = time.monotonic()
        with pytest.raises(BudgetExceeded, match=r"0\.7 seconds"):
            asked.ask(ASK)
        assert time.monotonic() - begun < 2


def test_a_request_that_may_have_cost_is_charged_and_one_turned_away_is_not():
    for fault, charged in (("hang", True), ("malformed json", True), ("429", False), ("401", False)):
        with ScriptedServer([fault]) as server:
            asked = model(server, retries=0, budget=(budget := Budget()), price=PRICE, time_limit=0.4)
            with pytest.raises(ModelError):
                asked.ask(ASK)
            assert budget.used.calls == 1
            assert (budget.used.tokens >= 50) == charged
            assert (budget.used.money > 0) == charged


def test_money_needs_a_price_and_a_price_needs_a_date():
    with pytest.raises(ValueError, match="needs the price of model 'm'"):
        chat_model("m", base_url="http://127.0.0.1:1/v1", budget=Budget(money=1.0))
    with pytest.raises(ValueError, match="date of a price must be the day"):
        Price(prompt=1.0, completion=1.0, date="yesterday")
