"""CALM's annotator: what a model is shown, how verdicts are scored, what happens to failures."""

import json

import numpy as np
import pytest

from reward_design.llm import Budget, Labeller, ModelError, annotate, chat_model, retrieval_reward, subgoal_reward
from reward_design.llm.annotate_calm import baselines, find_subgoals, labels, programmatic, score
from reward_design.llm.annotate_prompts import LEGEND, Prompt, better, helpful, label
from reward_design.llm.annotate_steps import KEYROOM, Step, Subgoal
from tests.annotated_steps import DOOR, KEY, NOTHING, STEPS


def verdict(key, door):
    return json.dumps({"key": {"evidence": "e", "achieved": key}, "door": {"evidence": "e", "achieved": door}})


def oracle(messages):
    """The truth, from what a model is shown."""
    text = messages[-1]["content"]
    return verdict("Message: g - a key" in text, "Map before:\n+ @" in text and "Map after:\n- @" in text)


def naive_f1(said, truth):
    hits = sum(a and b for a, b in zip(said, truth))
    return 2 * hits / (sum(said) + sum(truth)) if hits else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_scores_against_counting(seed):
    rng = np.random.default_rng(seed)
    said, truth = rng.random(40) < 0.4, rng.random(40) < 0.3
    unknown = rng.random(40) < 0.2
    got = score(np.where(unknown, np.nan, said), truth)
    assert got.f1 == pytest.approx(naive_f1(said[~unknown], truth[~unknown]))
    assert got.accuracy == pytest.approx((said == truth)[~unknown].mean())
    assert got.failures == unknown.sum()
    assert got.f1_failures_wrong == pytest.approx(naive_f1(np.where(unknown, ~truth, said), truth))
    assert got.f1_failures_wrong < got.f1


def test_the_truth_scores_one_and_its_opposite_zero():
    right = annotate(chat_model(oracle), STEPS)
    np.testing.assert_array_equal(right.verdicts, labels(STEPS, KEYROOM))
    assert all(s.f1 == 1 for s in right.scores().values())
    assert right.evidence[0] == ["e", "e"]
    wrong = annotate(chat_model(lambda m: verdict(*(not v["achieved"] for v in json.loads(oracle(m)).values()))), STEPS)
    assert wrong.scores()["key"].f1 == 0


def test_a_failure_is_counted_and_is_no_negative():
    def moody(messages):
        return oracle(messages) if "Message: (none)" in messages[-1]["content"] else "I would rather not say."

    done = annotate(chat_model(moody), STEPS)
    assert done.failures == {"invalid": 2}
    assert np.isnan(done.verdicts[:2]).all()
    scores = done.scores()["key"]
    assert (scores.steps, scores.failures, scores.positives) == (2, 2, 0)
    assert scores.f1_failures_wrong == 0
    silent = annotate(chat_model(lambda messages: verdict(False, False)), STEPS).scores()["key"]
    assert (silent.failures, silent.positives, silent.recall) == (0, 1, 0)


def test_a_budget_keeps_what_there_is():
    done = annotate(chat_model(oracle, budget=Budget(calls=2)), STEPS)
    assert done.stopped == "calls"
    assert len(done.steps) == len(done.verdicts) == len(done.evidence) == 2
    assert done.scores()["door"].f1 == 1


def test_a_server_that_is_gone_keeps_what_there_is_and_says_so():
    """Not step after step until the end, each with all its retries."""
    asked = []

    def leaving(messages):
        asked.append(messages)
        if len(asked) > 2:
            raise ModelError("connection", "nobody there")
        return oracle(messages)

    done = annotate(chat_model(leaving, retries=0), STEPS * 5)
    assert (done.stopped, len(asked), len(done.steps)) == ("connection", 5, 5)
    assert done.failures == {"connection": 3}
    assert np.isfinite(done.verdicts[:2]).all()
    assert np.isnan(done.verdicts[2:]).all()
    assert done.scores()["key"].failures == 3


def test_a_server_that_comes_back_is_asked_on():
    asked = []

    def shaky(messages):
        asked.append(messages)
        if len(asked) % 3:
            raise ModelError("connection", "nobody there")
        return oracle(messages)

    done = annotate(chat_model(shaky, retries=0), STEPS * 3)
    assert (done.stopped, len(done.steps), done.failures["connection"]) == (None, 12, 8)


def test_a_server_that_was_never_there_is_an_error():
    pytest.importorskip("openai")
    model = chat_model("m", base_url="http://127.0.0.1:9/v1", retries=0)
    with pytest.raises(ModelError, match=r"nothing answers at 127.0.0.1:9; is the server up"):
        annotate(model, STEPS)
    assert model.budget.used.calls == 3


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"model": "embedded"}, TypeError, r"needs a model of chat_model, got str; give chat_model"),
        ({"steps": ["@"]}, TypeError, "steps must be Step objects, as record_steps gives them"),
        (
            {"subgoals": ["key"]},
            TypeError,
            r"a dictionary \{name: Subgoal\(text\)\} or how many to find, got \['key'\]",
        ),
        ({"subgoals": {"key": "pick up the key"}}, TypeError, r"a dictionary \{name: Subgoal\(text\)\}"),
        ({"subgoals": {}}, ValueError, "needs steps and sub-goals, got 4 and 0"),
        ({"subgoals": 2}, ValueError, "needs the task in words; give description="),
        ({"subgoals": 0}, ValueError, "number of sub-goals to find must be at least 1, got 0"),
    ],
)
def test_what_cannot_be_annotated_is_told(change, error, text, untyped):
    given = {"model": chat_model(oracle), "steps": STEPS, "subgoals": KEYROOM, **change}
    with pytest.raises(error, match=text):
        annotate(**given)


@pytest.mark.parametrize(
    ("make", "error", "text"),
    [
        (lambda: Labeller("embedded", "win"), TypeError, "needs a model of chat_model, got str"),  # pyright: ignore[reportArgumentType]
        (lambda: Labeller(chat_model(oracle), None), ValueError, "must say what the player wants.*got None"),  # pyright: ignore[reportArgumentType]
        (lambda: retrieval_reward("x"), TypeError, "retrieval_reward needs a Labeller, got str; give Labeller"),  # pyright: ignore[reportArgumentType]
        (lambda: retrieval_reward(Labeller(chat_model(oracle), "win"), beta=-1), ValueError, "beta must be at least 0"),
        (lambda: subgoal_reward("x"), TypeError, "needs what annotate or programmatic returns, got str"),  # pyright: ignore[reportArgumentType]
        (lambda: subgoal_reward(programmatic(STEPS), beta=float("nan")), ValueError, "beta must be a finite number"),
        (lambda: baselines([]), ValueError, "baselines need steps to judge, got none"),
    ],
)
def test_rewards_and_labellers_say_what_they_need(make, error, text, untyped):
    with pytest.raises(error, match=text):
        make()


def test_baselines_by_hand():
    found = baselines([KEY, KEY, DOOR, NOTHING, NOTHING])
    assert found["majority"]["key"].f1 == 0
    assert found["majority"]["any"].f1 == pytest.approx(naive_f1([1] * 5, [1, 1, 1, 0, 0]))
    assert found["always"]["door"].f1 == pytest.approx(2 * (1 / 5) / (1 + 1 / 5))
    assert found["keyword"]["key"].f1 == 1
    assert found["keyword"]["door"].f1 == 0  # the game says "Never mind."
    assert found["keyword"]["any"].recall == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("block", "text"),
    [
        ({"role": "none"}, "You analyse"),
        ({"legend": False}, LEGEND),
        ({"task": "none"}, "locked closet"),
        ({"remark": False}, "may be empty"),
        ({"show_map": False}, "Map before"),
        ({"show_message": False}, "g - a key"),
        ({"show_action": False}, "PICKUP"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else None,
)
def test_each_block_can_be_left_out(block, text):
    full, less = (json.dumps(Prompt(**kind).messages(KEY, KEYROOM)) for kind in ({}, block))
    assert text in full
    assert text not in less
    assert "picked_up" not in full  # the label is never shown


def test_prompts_are_checked():
    with pytest.raises(ValueError, match="did you mean 'expert'"):
        Prompt(role="exprt")
    with pytest.raises(ValueError, match="must show the map or the message"):
        Prompt(show_map=False, show_message=False)
    with pytest.raises(ValueError, match="needs steps and sub-goals"):
        annotate(chat_model(oracle), [])


def test_subgoals_can_be_found_and_have_no_labels():
    def finder(messages):
        if "Name the 2 sub-goals" in messages[-1]["content"]:
            return json.dumps({"subgoals": [{"name": "key", "text": "Take it."}, {"name": "Door", "text": "Open it."}]})
        return oracle(messages)

    done = annotate(chat_model(finder), STEPS, 2, description="A room with a closet.")
    assert list(done.subgoals) == ["key", "door"]
    assert done.verdicts[0].tolist() == [1, 0]
    with pytest.raises(ValueError, match=r"\['key', 'door'\] have no programmatic labels"):
        done.scores()
    nameless = chat_model(lambda messages: json.dumps({"subgoals": [{"name": " ", "text": "x"}]}))
    with pytest.raises(ModelError, match="no names"):
        find_subgoals(nameless, "A room.", 1)


def test_the_label_is_read_from_its_field_alone():
    assert label({"analysis": "FOO FOO FOO", "label": "BAR"}) == 0
    assert label({"analysis": "BAR", "label": "FOO"}) == 1
    assert [label({"closer": word}) for word in ("first", "second", "equal")] == [1, 0, 0.5]
    for messages, schema in (helpful("win", "You die..."), better("win", "You die...", "You win!")):
        assert "You die..." in messages[-1]["content"]
        assert next(iter(schema["properties"])) == "analysis"  # thinking comes before the label


def test_unknown_goals_of_ones_own():
    rats = {"rat": Subgoal("kill a rat", ("killed",), ("kill",))}
    step = Step("@", "@", "", "You kill the rat!", "E", frozenset({"killed"}))
    assert baselines([step, NOTHING], rats)["keyword"]["rat"].f1 == 1
