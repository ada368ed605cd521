"""CALM's annotator: what a model is shown, how verdicts are scored, what happens to failures."""

import dataclasses
import json
from collections import Counter

import jax
import numpy as np
import pytest

import reward_design as rd
from reward_design.envs import task
from reward_design.llm import Budget, Labeller, ModelError, annotate, chat_model, retrieval_reward, subgoal_reward
from reward_design.llm.annotate_calm import Annotations, baselines, find_subgoals, labels, programmatic, score
from reward_design.llm.annotate_prompts import LEGEND, Prompt, better, helpful, label
from reward_design.llm.annotate_steps import KEYROOM, Step, Subgoal, record_steps

KEY = Step(". @ (", ". . @", "", "g - a key named The Master Key.", "PICKUP", frozenset({"picked_up", "message"}))
DOOR = Step("+ @ .", "- @ .", "", "Never mind.", "APPLY", frozenset({"door_opened", "door_unlocked"}))
NOTHING = Step(". @ .", ". . @", "", "", "E", frozenset())
STEPS = [KEY, DOOR, NOTHING, NOTHING]


@pytest.fixture
def nethack():
    pytest.importorskip("nle")


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
        (lambda: Subgoal(""), ValueError, "needs a text that says what to achieve, got ''"),
        (
            lambda: Subgoal("open it", ("door_open",)),
            ValueError,
            "unknown event 'door_open'.*did you mean 'door_opened'",
        ),
        (
            lambda: Subgoal("open it", "door_opened"),  # pyright: ignore[reportArgumentType]
            TypeError,
            r"a tuple of words, got 'door_opened'; write \('door_op",
        ),
        (
            lambda: record_steps("cartpole", 3),
            ValueError,
            "of MiniHack, got task 'cartpole'; give one such as 'minihack/K",
        ),
        (lambda: record_steps("minihack/KeyRoom-S5", 0), ValueError, "at least 1, got 0"),
    ],
)
def test_sub_goals_and_steps_that_cannot_be_are_told(make, error, text, untyped, nethack):
    with pytest.raises(error, match=text):
        make()


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


def test_equal_parts_need_sub_goals_with_events(nethack):
    goals = {"rest": Subgoal("rest for a while")}
    with pytest.raises(ValueError, match=r"nobody knows when \['rest'\] are achieved .* balanced=False"):
        record_steps(task("minihack/KeyRoom-S5"), 3, subgoals=goals)
    assert len(record_steps("minihack/KeyRoom-S5", 3, subgoals=goals, balanced=False)) == 3


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


# --- the reward -----------------------------------------------------------------------------------------------------

GOALS = ("key", "door")


def judged(rng, num):
    """Steps that look like one of six, with verdicts of which some are missing."""
    looks = rng.integers(6, size=num)
    steps = [Step("", "", "", "", "", frozenset(), key=bytes([int(i), 1])) for i in looks]
    verdicts = np.where(rng.random((num, 2)) < 0.2, np.nan, rng.random((num, 2)) < 0.4)
    return Annotations(steps, KEYROOM, verdicts, [["", ""]] * num, Counter())


def naive_value(found, look, goal, value):
    """Of what was said about steps that look so."""
    counts = {}
    for step, row in zip(found.steps, found.verdicts):
        yes, known = counts.get(step.key, (0, 0))
        counts[step.key] = (yes + (row[goal] == 1), known + (not np.isnan(row[goal])))
    yes, known = counts.get(look, (0, 0))
    most = max(y for y, _ in counts.values())
    return yes / max(known if value == "share" else most, 1)


def naive_bonus(found, looks, ends, beta, once, value):
    """Step by step, a sub-goal at a time."""
    paid, rewards = [0.0, 0.0], []
    for look, end in zip(looks, ends):
        total = 0.0
        for goal in range(2):
            v = naive_value(found, look, goal, value)
            total += max(v - paid[goal], 0.0) if once else v
            paid[goal] = max(paid[goal], v)
        rewards.append(beta * total)
        paid = [0.0, 0.0] if end else paid
    return rewards


def played(looks, ends):
    """One lane of steps with two letters each."""
    rows = np.array([list(look) for look in looks], np.uint8)[:, None]
    zeros, mask = np.zeros(len(looks), np.float32)[:, None], np.ones((len(looks), 1), bool)
    return rd.Transition(rows, zeros, rows, zeros, np.array(ends)[:, None], ~mask, mask)


@pytest.mark.parametrize(("once", "value"), [(True, "share"), (False, "share"), (True, "count"), (False, "count")])
def test_the_bonus_against_a_naive_loop(once, value):
    rng = np.random.default_rng(3)
    found = judged(rng, 40)
    looks = [bytes([int(i), 1]) for i in rng.integers(8, size=30)]  # two of eight were never judged
    ends = (rng.random(30) < 0.15).tolist()
    reward = subgoal_reward(found, beta=0.5, once=once, value=value, look=lambda t: t.obs)
    rows = played(looks, ends)
    output, _ = reward.unroll(*reward.init(jax.random.key(0), jax.tree.map(lambda x: x[0], rows)), rows)
    expected = naive_bonus(found, looks, ends, 0.5, once, value)
    np.testing.assert_allclose(output.reward[:, 0], expected, rtol=1e-5, atol=1e-6)
    assert sum(expected) > 0.5
    other = naive_bonus(found, looks, ends, 0.5, not once, value)
    assert abs(sum(other) - sum(expected)) > 0.1
    assert sorted(output.terms) == sorted(GOALS)


def test_a_loop_earns_once_and_without_once_for_ever():
    found = programmatic([Step("", "", "", "", "", frozenset({"picked_up"}), key=b"k")])
    rows = played([b"k"] * 9, [False] * 9)
    total = {}
    for once in (True, False):
        reward = subgoal_reward(found, beta=1.0, once=once, look=lambda t: t.obs)
        output, _ = reward.unroll(*reward.init(None, jax.tree.map(lambda x: x[0], rows)), rows)
        total[once] = float(output.reward.sum())
    assert total == {True: 1.0, False: 9.0}


@pytest.mark.parametrize(
    ("steps", "settings", "text"),
    [
        ([KEY], {}, "steps with keys of one length"),
        ([dataclasses.replace(KEY, key=b"ab"), dataclasses.replace(KEY, key=b"a")], {}, r"lengths \[1, 2\]"),
        ([dataclasses.replace(KEY, key=b"a")], {"value": "mean"}, "value must be 'share' or 'count'"),
    ],
)
def test_rewards_need_steps_that_can_be_recognised(steps, settings, text):
    with pytest.raises(ValueError, match=text):
        subgoal_reward(programmatic(steps), **settings)


def test_rewards_need_verdicts_and_fitting_observations():
    silent = annotate(chat_model(lambda messages: "Who knows."), [dataclasses.replace(KEY, key=b"ab")])
    with pytest.raises(ValueError, match="needs verdicts, got none about 1 steps"):
        subgoal_reward(silent)
    with pytest.raises(ValueError, match="programmatic labels need steps"):
        programmatic([])
    rows = jax.tree.map(lambda x: x[0], played([b"ab"], [False]))
    reward = subgoal_reward(programmatic([dataclasses.replace(KEY, key=b"abc")]), look=lambda t: t.obs)
    with pytest.raises(ValueError, match=r"\[B, 3\] uint8.*annotate steps of this task"):
        reward.init(None, rows)
    with pytest.raises(ValueError, match=r"obs\['glyphs'\] and the action; give look="):
        subgoal_reward(programmatic([dataclasses.replace(KEY, key=b"abc")])).init(None, rows)


def test_what_was_recorded_is_recognised_in_play(nethack):
    """All that was labelled in some steps is paid when the same steps are played; nothing at all for other actions."""
    room = task("minihack/KeyRoom-S5")
    steps = record_steps(room, 6, seed=1)
    reward = subgoal_reward(programmatic(steps), beta=1.0)
    raw = np.array([np.frombuffer(step.key, np.uint8) for step in steps]).astype(np.int16)
    tiles = (raw.shape[1] - 1) // 2
    glyphs = (raw[:, :tiles] + 256 * raw[:, tiles:-1]).reshape(len(steps), 9, 9)
    no = np.zeros(len(steps), bool)

    def paid(action):
        batch = rd.Transition({"glyphs": glyphs}, action, None, np.zeros(len(steps), np.float32), no, no, ~no)
        return reward.step(*reward.init(None, batch), batch)[0].reward

    np.testing.assert_array_equal(paid(raw[:, -1].astype(int)), labels(steps, KEYROOM).sum(axis=1))
    assert labels(steps, KEYROOM).sum() == 4
    assert not np.asarray(paid(raw[:, -1].astype(int) + 50)).any()


# --- MiniHack --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["KeyRoom-S5", "Room-Ultimate-15x15", "Quest-Easy", "Sokoban1a"])
def test_maps_are_drawn_as_on_the_terminal(level, nethack):
    from reward_design.envs import task
    from reward_design.llm.annotate_steps import symbol

    env, rng = task(f"minihack/{level}").make(render_mode="ansi"), np.random.default_rng(0)
    env.reset(seed=0)
    compared, drawn = 0, set()
    for _ in range(20):
        *_, terminated, truncated, _ = env.step(int(rng.integers(env.action_space.n)))
        if terminated or truncated:
            env.reset()
        elif not (env.game.arrays["internal"][1:4].any()):  # no menu or question covers the map
            shown = env._shown["tty_chars"][1:22, :79]
            mine = np.vectorize(lambda glyph: ord(symbol(int(glyph))))(env.game.arrays["glyphs"])
            np.testing.assert_array_equal(mine, shown)
            compared += 1
            drawn |= set(mine.ravel().tolist())
    env.close()
    assert compared >= 5
    assert len(drawn) > 4


def test_recorded_steps_are_balanced_labelled_and_repeat(nethack):
    from reward_design.envs import task
    from reward_design.llm.annotate_steps import record_steps

    room = task("minihack/KeyRoom-S5")
    steps = record_steps(room, 9, seed=3)
    assert labels(steps, KEYROOM).sum(axis=0).tolist() == [3, 3]
    assert labels(steps, KEYROOM).any(axis=1).sum() == 6
    for step in steps:
        rows = step.after.split("\n")
        assert (len(rows), rows[4][8]) == (9, "@")
        if KEYROOM["key"].achieved(step):
            assert step.action == "PICKUP"
            assert "key" in step.said
        if KEYROOM["door"].achieved(step):
            assert step.action == "APPLY"
            assert step.before.count("+") == step.after.count("+") + 1
    assert record_steps(room, 9, seed=3) == steps
    assert record_steps(room, 9, seed=4) != steps
    with pytest.raises(ValueError, match=r"50 steps of .* had"):
        record_steps(room, 30, most=50)


def test_natural_steps_come_as_they_are(nethack):
    from reward_design.envs import task
    from reward_design.llm.annotate_steps import record_steps

    steps = record_steps(task("minihack/KeyRoom-S5"), 20, balanced=False)
    assert labels(steps, KEYROOM).sum() < 6


def test_unknown_goals_of_ones_own():
    rats = {"rat": Subgoal("kill a rat", ("killed",), ("kill",))}
    step = Step("@", "@", "", "You kill the rat!", "E", frozenset({"killed"}))
    assert baselines([step, NOTHING], rats)["keyword"]["rat"].f1 == 1
