"""CALM's sub-goals: the steps that are recorded for them, and the bonus that verdicts earn, against a naive loop."""

import dataclasses
from collections import Counter

import jax
import numpy as np
import pytest

import reward_design as rd
from reward_design.envs import task
from reward_design.llm import annotate, chat_model, subgoal_reward
from reward_design.llm.annotate_calm import Annotations, labels, programmatic
from reward_design.llm.annotate_steps import KEYROOM, Step, Subgoal, record_steps
from tests.annotated_steps import KEY


@pytest.fixture
def nethack():
    pytest.importorskip("nle")


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


def test_equal_parts_need_sub_goals_with_events(nethack):
    goals = {"rest": Subgoal("rest for a while")}
    with pytest.raises(ValueError, match=r"nobody knows when \['rest'\] are achieved .* balanced=False"):
        record_steps(task("minihack/KeyRoom-S5"), 3, subgoals=goals)
    assert len(record_steps("minihack/KeyRoom-S5", 3, subgoals=goals, balanced=False)) == 3


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
