"""The search: rounds, budgets, settings, and what is read in answers."""

import json

import pytest

from reward_design.llm import Budget, load_reward
from reward_design.llm.designers.answers import sign_scaled, source_of
from tests.scripted_model import Script, search, terms


def test_a_round_draws_until_enough_candidates_run(tmp_path):
    model = Script("no JSON at all {", terms(1.0), terms(1.0), terms(0.0), '{"terms": []}', terms(2.0))
    model.answers = [json.dumps(json.loads(a)) if a.endswith("}") else a for a in model.answers]
    found = search(model, tmp_path, candidates=2, rounds=1)
    stages = [c.refusal.stage if c.refusal else "runs" for c in found.candidates]
    assert stages.count("runs") == 2
    assert stages.count("duplicate") == 1
    assert stages.count("terms") >= 1
    assert sum(c.trained for c in found.candidates) == 2
    assert found.stopped == ""
    assert found.path is not None
    assert load_reward(found.path).settings["weights"]


def test_who_waits_for_the_model_is_told(tmp_path):
    told = []
    search(Script(terms()), tmp_path, rounds=1, candidates=1, on_progress=told.append)
    assert [event.kind for event in told][:3] == ["round", "ask", "runs"]
    assert told[1].text.startswith("asking script for an answer (")
    again = []
    search(Script(terms()), tmp_path, rounds=1, candidates=1, on_progress=again.append)
    assert "ask" not in [event.kind for event in again]  # it is in the records


def test_the_second_round_reflects_on_the_fittest(tmp_path):
    model = Script(*(terms(w) for w in range(1, 9)))
    found = search(model, tmp_path, candidates=2, rounds=2)
    first = [c for c in found.candidates if c.round == 0]
    winner = max(first, key=lambda c: c.fitness)
    last = model.asked[-1]
    assert [m["role"] for m in last] == ["system", "user", "assistant", "user"]
    assert last[2]["content"] == winner.source
    assert "Max:" in last[3]["content"]
    assert "STARC distance" not in last[3]["content"]  # audits are off here
    assert all(c.parents == (winner.id,) for c in found.candidates if c.round == 1)


def test_a_limit_keeps_what_there_is_and_says_so(tmp_path):
    model = Script(*(terms(w) for w in range(1, 9)))
    found = search(model, tmp_path, candidates=2, rounds=4, budget=Budget(calls=3))
    assert "limit of 3 calls" in found.stopped
    assert len(model.asked) == 3
    assert [c.trained for c in found.candidates] == [True] * 3
    assert found.path.is_file()
    more = search(model, tmp_path, candidates=2, rounds=2, budget=Budget(calls=4))
    assert more.stopped == ""
    assert len(model.asked) == 4
    assert more.used.calls == 4


def test_a_model_that_never_answers_with_a_reward_ends_in_words(tmp_path):
    found = search(Script("I will not."), tmp_path, candidates=2, rounds=1, language="code", budget=Budget(calls=4))
    assert found.best is None
    assert found.reward is None
    assert "calls" in found.stopped
    assert {c.refusal.stage for c in found.candidates} == {"answer"}
    assert "No candidate" in (tmp_path / "report.html").read_text()


def test_the_same_call_costs_nothing_again(tmp_path):
    model = Script(*(terms(w) for w in range(1, 9)))
    first = search(model, tmp_path, candidates=2, rounds=1)
    before = len(model.asked)
    again = search(model, tmp_path, candidates=2, rounds=1)
    assert len(model.asked) == before
    assert again.candidates == first.candidates
    page = (tmp_path / "report.html").read_text()
    assert all(f'id="c{c.id}"' in page for c in first.candidates)
    assert "<script" not in page


def test_another_search_is_refused_in_the_same_folder(tmp_path):
    search(Script(terms(1.0), terms(2.0)), tmp_path, candidates=2, rounds=1)
    with pytest.raises(ValueError, match="belongs to a different configuration"):
        search(Script(terms()), tmp_path, candidates=3, rounds=1)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"preset": "eurika"}, "unknown preset 'eurika'.*eureka"),
        ({"preset": "auto-mc-reward", "language": "terms"}, "works with code"),
        ({"rounds": 0}, "rounds must be at least 1"),
        ({"candidates": 0}, "candidates must be at least 1"),
        ({"audits": "some"}, "audits must be one of"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"seeds": [1, 1]}, "seeds must be at least 1, or different numbers"),
    ],
)
def test_settings_are_checked_before_anything_is_asked(settings, text, tmp_path):
    model = Script(terms())
    with pytest.raises(ValueError, match=text):
        search(model, tmp_path, **settings)
    assert model.asked == []


def test_sources_in_answers():
    assert source_of("```python\nx = 1\n```\n```\ndef reward(obs):\n    return 1.0", "code").startswith("def reward")
    assert source_of("import math\ndef reward(obs):\n    return 1.0", "code").startswith("import math")
    assert source_of("def other(): pass", "code") is None
    assert source_of("```json\n{}\n```", "terms") == "{}"
    assert source_of("}{", "terms") is None


def test_signs_need_plain_names_and_keep_memory():
    memory = "def initial_memory():\n    return 0\n\n"
    text = sign_scaled(f"{memory}def reward(obs, memory) -> tuple:\n    return 1, {{}}, memory")
    assert "def designed_reward(obs, memory) -> tuple:" in text
    assert text.rstrip().endswith("signs, result[2]")
    assert sign_scaled("def reward(obs=(1)):\n    return 1") == "def reward(obs=(1)):\n    return 1"
