"""A person as the teacher: clips, the questionnaire and its file, the page in a real browser, the notebook widget."""

import contextlib
import http.client
import io
import json
import threading
import urllib.request

import jax
import numpy as np
import pytest
from PIL import Image

import reward_design as rd
from reward_design.agents import ppo
from reward_design.envs import task
from reward_design.preferences import (
    PreferenceConfig,
    PreferencePage,
    Questionnaire,
    bradley_terry,
    learn_from_answers,
    preference_widget,
    record_clips,
    space_inputs,
)
from reward_design.preferences.clips import animation, stacked
from tests.browsers import until
from tests.preference_envs import TwoArms

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def clips():
    return record_clips(task("four_rooms").make(render_mode="rgb_array"), num_clips=6, length=4)


# --- clips ------------------------------------------------------------------------------------------------------------


def test_clips_hold_what_happened_and_how_it_looked():
    view = task("cartpole").make(render_mode="rgb_array")
    seen = []

    def policy(obs):
        seen.append((obs, view.render()))
        return np.int64(1)  # falls after about ten steps

    clips = record_clips(view, policy, num_clips=6, length=4)
    moments = iter(seen)
    for clip in clips:
        t = clip.transition
        assert len(clip.frames) == len(t.reward) + 1
        assert not t.terminated[:-1].any()
        assert len(t.reward) == 4 or t.terminated[-1]
        for step in range(len(t.reward)):
            obs, picture = next(moments)
            np.testing.assert_array_equal(t.obs[step], obs)
            np.testing.assert_array_equal(clip.frames[step], picture)
        np.testing.assert_array_equal(t.obs[1:], t.next_obs[:-1])
    assert any(clip.transition.terminated[-1] and len(clip.frames) < 5 for clip in clips)


def test_a_clip_that_a_time_limit_cut_short_is_left_out():
    view = task("four_rooms", horizon=6).make(render_mode="rgb_array")
    clips = record_clips(view, lambda obs: 0, num_clips=3, length=4)  # 4 steps, then 2 that the limit ended
    assert [len(clip.transition.reward) for clip in clips] == [4, 4, 4]
    whole = record_clips(view, lambda obs: 0, num_clips=2, length=10)
    assert [len(clip.transition.reward) for clip in whole] == [6, 6]
    lanes = stacked([*clips, *whole])
    np.testing.assert_array_equal(np.asarray(lanes.mask).sum(0), [4, 4, 4, 6, 6])


def test_animation_is_a_gif_that_repeats():
    frames = [np.full((10, 20, 3), shade, np.uint8) for shade in (0, 100, 200)]
    with Image.open(io.BytesIO(animation(frames, width=60))) as film:
        assert (film.format, film.n_frames, film.size, film.info["loop"]) == ("GIF", 3, (60, 30), 0)
        for number, shade in enumerate((0, 100, 200)):
            film.seek(number)
            assert abs(int(np.asarray(film.convert("RGB")).mean()) - shade) < 8


def test_what_cannot_be_recorded_is_refused():
    with pytest.raises(ValueError, match="render_mode='rgb_array', got None"):
        record_clips(task("four_rooms").make(), num_clips=1, length=1)
    with pytest.raises(ValueError, match="must be at least 1, got 0 and 5"):
        record_clips(task("four_rooms").make(render_mode="rgb_array"), num_clips=0, length=5)


# --- the questionnaire ------------------------------------------------------------------------------------------------


def test_all_pairs_are_asked_once_and_both_ways_round(clips):
    ask = Questionnaire(clips, num_questions=15)
    pairs = [(q.first, q.second) for q in ask.questions]
    assert len({frozenset(pair) for pair in pairs}) == 15
    assert 3 < sum(a < b for a, b in pairs) < 12
    other = Questionnaire(clips, num_questions=15, seed=1)
    assert other.questions != ask.questions
    with pytest.raises(ValueError, match=r"num_questions must be in \[1, 15\], the pairs of 6 clips, got 16"):
        Questionnaire(clips, num_questions=16)


def test_answers_are_kept_at_once_and_asking_goes_on_from_there(clips, tmp_path):
    out = tmp_path / "answers.jsonl"
    ask = Questionnaire(clips, num_questions=4, out=out)
    for number, answer in enumerate(("first", "skip", "equal")):
        ask.give(number, answer)
    ask.give(1, "second")  # a late click on an old question
    ask.take_back()
    again = Questionnaire(clips, num_questions=4, out=out)
    assert [g.answer for g in again.given] == ["first", "skip"]
    assert again.question().number == 2
    assert not again.done.is_set()
    again.give(2, "second")
    again.give(3, "second")
    assert again.done.is_set()
    assert again.question() is None
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [(x["first"], x["second"]) for x in lines[1:]] == [tuple(q[1:]) for q in ask.questions]
    with pytest.raises(ValueError, match="holds answers about other clips"):
        Questionnaire(clips[:5], num_questions=4, out=out)
    with pytest.raises(ValueError, match="an answer must be one of first, second, equal, skip, got 'left'"):
        ask.give(2, "left")


def test_answers_from_many_threads_are_counted_once(clips):
    ask = Questionnaire(clips, num_questions=15)
    threads = [threading.Thread(target=lambda: [ask.give(n, "first") for n in range(15)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(g.first, g.second) for g in ask.given] == [tuple(q[1:]) for q in ask.questions]


# --- learning from answers --------------------------------------------------------------------------------------------


def answered(ask, prefers):
    while (question := ask.question()) is not None:
        ask.give(question.number, prefers(question))
    return ask.given


def test_a_reward_learned_from_answers_trains_an_agent_to_please():
    """Somebody likes action 1; the environment pays for action 2."""
    env = TwoArms()
    view = task_view(env)
    rng = np.random.default_rng(0)
    clips = record_clips(view, lambda obs: rng.integers(3), num_clips=24, length=4)
    liked = [(clip.transition.action == 1).sum() for clip in clips]
    ask = Questionnaire(clips, num_questions=150)

    def prefers(question):
        a, b = liked[question.first], liked[question.second]
        return ("skip" if question.number % 10 == 3 else "equal") if a == b else ("first" if a > b else "second")

    reward = bradley_terry(space_inputs(env), num_members=2)
    config = PreferenceConfig(learning_rate=1e-2, batch_segments=32)
    params, metrics = learn_from_answers(reward, clips, answered(ask, prefers), KEY, config=config)
    assert metrics["accuracy"] > 0.9
    settings = ppo.Config(total_timesteps=4096, num_envs=8, num_steps=32, gamma=0.9, hidden=(16,), entropy_coef=0.001)
    result = ppo.train(settings, env, reward, KEY, reward_params=params)
    actions = ppo.act(settings, env, result.state, np.arange(8.0)[:, None], KEY, deterministic=True)
    assert (np.asarray(actions) == 1).mean() >= 0.75
    with pytest.raises(ValueError, match="at least 2 \\* held_out_every = 20 answers that are not skipped, got 3"):
        learn_from_answers(reward, clips, ask.given[:3], KEY)
    with pytest.raises(TypeError, match="made by bradley_terry or heron, got 'environment'"):
        learn_from_answers(rd.environment_reward(), clips, ask.given, KEY)


def task_view(env):
    from reward_design.envs.gymnasium_view import GymnasiumView

    return GymnasiumView(env, render_mode="rgb_array")


# --- the page ---------------------------------------------------------------------------------------------------------


def request(page, method="GET", path=None, body=None, **headers):
    """Status and body of a reply."""
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)) as connection:
        path = f"/{page.word}/" if path is None else path
        connection.request(method, path, body, {"Host": f"127.0.0.1:{page.port}", **headers})
        reply = connection.getresponse()
        return reply.status, reply.read()


def test_the_page_asks_and_records(clips):
    ask = Questionnaire(clips, num_questions=2)
    with PreferencePage(ask, title="Which way is shorter?") as page:
        status, body = request(page)
        assert status == 200
        assert b"<main>" in body
        state = json.loads(request(page, path=f"/{page.word}/question")[1])
        assert state == {
            "title": "Which way is shorter?", "words": False, "answered": 0, "total": 2, **ask.questions[0]._asdict()
        }  # fmt: skip
        picture = request(page, path=f"/{page.word}/clips/{state['first']}.gif?1")[1]
        assert picture == animation(clips[state["first"]].frames)
        for answer in ('{"number": 0, "answer": "second"}', '{"number": 1, "answer": "equal"}'):
            post = {"Content-Type": "application/json"}
            status, body = request(page, "POST", f"/{page.word}/answer", answer, **post)
            assert status == 200
        assert "number" not in json.loads(body)
        assert [g.answer for g in page.wait(1)] == ["second", "equal"]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(page.url, timeout=2)


def test_words_about_clips_are_kept_where_they_are_asked_for(clips, tmp_path):
    said = {"number": 0, "answer": "first", "words": ["too  slow\nat the door", "x" * 600]}
    post = {"Content-Type": "application/json"}
    for wanted in (True, False):
        ask = Questionnaire(clips, num_questions=2, out=tmp_path / f"{wanted}.jsonl")
        with PreferencePage(ask, words=wanted) as page:
            where = f"/{page.word}/answer"
            if wanted:
                wrong = ([1, 2], ["one"], 3)
                broken = [request(page, "POST", where, json.dumps({**said, "words": w}), **post)[0] for w in wrong]
                assert broken == [400] * 3
            assert request(page, "POST", where, json.dumps(said), **post)[0] == 200
        expected = ("too slow at the door", "x" * 500) if wanted else ("", "")
        assert ask.given[0].words == expected
        assert Questionnaire(clips, num_questions=2, out=ask.out).given == ask.given
    lines = [json.loads(line) for line in ask.out.read_text().splitlines()]
    del lines[1]["words"]  # as files were written before there were words
    ask.out.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert Questionnaire(clips, num_questions=2, out=ask.out).given == ask.given


def test_nobody_else_can_ask_or_answer(clips):
    ask = Questionnaire(clips, num_questions=2)
    good = b'{"number": 0, "answer": "first"}'
    with PreferencePage(ask) as page:
        json_type = {"Content-Type": "application/json"}
        where = f"/{page.word}/answer"
        assert page._server.server_address[0] == "127.0.0.1"
        refused = [
            request(page, path="/"),
            request(page, path="/wrong/question"),
            request(page, Host="example.org"),  # a name that leads here
            request(page, "POST", where, good, Origin="http://example.org", **json_type),
            request(page, "POST", "/wrong/answer", good, **json_type),
        ]
        assert [status for status, _ in refused] == [403] * 5
        broken = [
            request(page, "POST", where, good, **{"Content-Type": "text/plain"}),  # what a form can send
            request(page, "POST", where, b"[]", **json_type),
            request(page, "POST", where, b'{"number": 0, "answer": "x"}', **json_type),
            request(page, "POST", where, b"{" * 20_000, **json_type),
        ]
        assert [status for status, _ in broken] == [400] * 4
        missing = [request(page, path=f"/{page.word}/{name}")[0] for name in ("clips/99.gif", "clips/../x", "secret")]
        assert missing == [404] * 3
        assert ask.given == []
        assert request(page, "POST", where, good, Origin=page.url.rsplit("/", 2)[0], **json_type)[0] == 200
    assert len(ask.given) == 1


def test_a_person_answers_in_a_real_browser(browser, clips, tmp_path):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By
    from selenium.webdriver.common.keys import Keys

    part = lambda name: browser.find_element(By.ID, name)  # noqa: E731
    button = lambda answer: browser.find_element(By.CSS_SELECTOR, f"[data-answer={answer}]")  # noqa: E731
    counted = lambda number: until(browser, lambda: part("count").text == f"{number} of 5")  # noqa: E731
    press = lambda *keys: ActionChains(browser).send_keys(*keys).perform()  # noqa: E731
    ask = Questionnaire(clips, num_questions=5, out=tmp_path / "answers.jsonl")
    with PreferencePage(ask, title="Which way is shorter?") as page:
        browser.get(page.url)
        counted(0)
        assert part("title").text == "Which way is shorter?"
        assert not button("back").is_enabled()
        for side in ("first", "second"):  # both clips are there, side by side
            until(browser, lambda: part(side).get_property("naturalWidth") > 100)  # noqa: B023
            assert f"clips/{getattr(ask.questions[0], side)}.gif" in part(side).get_attribute("src")
        assert part("first").location["x"] < part("second").location["x"]
        assert part("first").location["y"] == part("second").location["y"]

        button("first").click()
        counted(1)
        press(Keys.ARROW_RIGHT)
        counted(2)
        press("=")
        counted(3)
        button("back").click()
        counted(2)
        press("s")
        counted(3)
        before = part("first").get_attribute("src")
        press("r")
        assert part("first").get_attribute("src") != before
        counted(3)
        press(Keys.ARROW_LEFT)
        counted(4)
        assert not part("end").is_displayed()
        button("second").click()
        until(browser, lambda: part("end").is_displayed())
        assert not part("pair").is_displayed()
        given = page.wait(5)
        assert [g.answer for g in given] == ["first", "second", "skip", "first", "second"]
        assert [(g.first, g.second) for g in given] == [(q.first, q.second) for q in ask.questions]
        assert not [x for x in browser.get_log("browser") if x["level"] == "SEVERE" and "favicon" not in x["message"]]
    assert len((tmp_path / "answers.jsonl").read_text().splitlines()) == 6


def test_a_person_writes_words_in_a_real_browser(browser, clips):
    from selenium.webdriver.common.by import By

    part = lambda name: browser.find_element(By.ID, name)  # noqa: E731
    ask = Questionnaire(clips, num_questions=2)
    with PreferencePage(ask, words=True) as page:
        browser.get(page.url)
        until(browser, lambda: part("words-first").is_displayed())
        part("words-first").send_keys("slips, =b")  # keys of answers are letters here
        part("words-second").send_keys("steady")
        assert ask.given == []
        browser.find_element(By.CSS_SELECTOR, "[data-answer=second]").click()
        until(browser, lambda: part("count").text == "1 of 2")
        assert part("words-first").get_property("value") == ""
        browser.find_element(By.CSS_SELECTOR, "[data-answer=equal]").click()
        given = page.wait(5)
    assert [g.words for g in given] == [("slips, =b", "steady"), ("", "")]


def test_the_page_says_so_when_nobody_asks_any_more(browser, clips):
    from selenium.webdriver.common.by import By

    ask = Questionnaire(clips, num_questions=2)
    with PreferencePage(ask) as page:
        browser.get(page.url)
        until(browser, lambda: browser.find_element(By.ID, "count").text == "0 of 2")
        assert not browser.find_element(By.ID, "trouble").is_displayed()
    browser.find_element(By.CSS_SELECTOR, "[data-answer=first]").click()
    until(browser, lambda: browser.find_element(By.ID, "trouble").is_displayed())
    assert ask.given == []


# --- the widget -------------------------------------------------------------------------------------------------------


def test_the_widget_asks_and_records(clips):
    pytest.importorskip("ipywidgets")
    ask = Questionnaire(clips, num_questions=2)
    box = preference_widget(ask, title="Which one?")
    heading, pair, _ = box.children
    assert heading.value == "<b>Which one?</b> 0 of 2"
    assert box.buttons["back"].disabled
    for image, index in zip(pair.children, ask.questions[0][1:]):
        assert image.value == animation(clips[index].frames)
    box.buttons["second"].click()
    assert pair.children[0].value == animation(clips[ask.questions[1].first].frames)
    box.buttons["back"].click()
    assert ask.given == []
    box.buttons["equal"].click()
    box.buttons["first"].click()
    assert [g.answer for g in ask.given] == ["equal", "first"]
    assert heading.value == "<b>All 2 questions answered.</b>"
    assert box.buttons["first"].disabled
    assert not box.buttons["back"].disabled
