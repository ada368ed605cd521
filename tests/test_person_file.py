"""The file of a person's answers: what survives a crash, what is refused, and what counts as answered."""

# Wrong arguments are what is tested here.
# pyright: reportArgumentType=false

import contextlib
import http.client
import json

import jax
import numpy as np
import pytest

from reward_design.core import Transition
from reward_design.preferences import PreferencePage, Questionnaire, bradley_terry, learn_from_answers
from reward_design.preferences.answers import AnswerFile, Given
from reward_design.preferences.clips import Clip

KEY = jax.random.key(0)


def clip(shade):
    flags = np.zeros(2, bool)
    steps = Transition(np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32),
                       np.zeros(2, np.float32), flags, flags, ~flags, {})  # fmt: skip
    return Clip(steps, [np.full((4, 4, 3), shade, np.uint8)] * 3)


CLIPS = [clip(shade) for shade in range(6)]


def answered(out, num=3):
    ask = Questionnaire(CLIPS, num_questions=5, out=out)
    for number in range(num):
        ask.give(number, "first", ("quick", "slow"))
    return ask


def test_a_torn_last_line_is_dropped_and_asking_goes_on(tmp_path):
    out = tmp_path / "answers.jsonl"
    whole = answered(out)
    data = out.read_bytes()
    starts = [len(b"".join(data.splitlines(keepends=True)[:n])) for n in range(5)]
    for cut in (1, 15, *range(len(data) - starts[3], len(data) + 1, 7)):
        out.write_bytes(data[: len(data) - cut])
        again = Questionnaire(CLIPS, num_questions=5, out=out)
        complete = sum(start <= len(data) - cut + 1 for start in starts[2:])  # a line that lacks only its end is whole
        assert again.given == whole.given[:complete]
        again.give(complete, "second")
        assert Questionnaire(CLIPS, num_questions=5, out=out).given == again.given
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]


def test_an_empty_file_is_a_new_one(tmp_path):
    out = tmp_path / "answers.jsonl"
    out.touch()
    answered(out, 1)
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize("content", ["[1, 2]\n", "[1, 2]", "hello", "3\n", '{"clips": 3}\n', "\xff\n", "[" * 5000])
def test_a_file_of_something_else_is_refused(content, tmp_path):
    out = tmp_path / "answers.jsonl"
    out.write_text(content, encoding="latin-1")
    with pytest.raises(ValueError, match=r"line 1 of .*answers\.jsonl is not that of a file of answers"):
        Questionnaire(CLIPS, num_questions=5, out=out)
    assert out.read_text(encoding="latin-1") == content


@pytest.mark.parametrize("damage", ["", "{}", "hello", "[]", '{"first": 0, "second": 1, "answer": "left"}'])
def test_damage_in_the_middle_names_the_file_and_the_line(damage, tmp_path):
    out = tmp_path / "answers.jsonl"
    answered(out)
    lines = out.read_text().splitlines()
    out.write_text("\n".join([*lines[:2], damage, *lines[3:]]) + "\n")
    with pytest.raises(ValueError, match=r"line 3 of .*answers\.jsonl is no answer to question 1; delete it"):
        Questionnaire(CLIPS, num_questions=5, out=out)


def test_more_or_other_answers_than_questions_are_damage(tmp_path):
    out = tmp_path / "answers.jsonl"
    answered(out, 5)
    lines = out.read_text().splitlines()
    out.write_text("\n".join([*lines, lines[-1]]) + "\n")
    with pytest.raises(ValueError, match="line 7 of"):
        Questionnaire(CLIPS, num_questions=5, out=out)
    out.write_text("\n".join([lines[0], lines[2]]) + "\n")
    with pytest.raises(ValueError, match="line 2 of"):
        Questionnaire(CLIPS, num_questions=5, out=out)


def test_a_place_that_cannot_be_written_to_shows_before_anything_is_asked(tmp_path):
    answered(tmp_path / "new" / "folder" / "answers.jsonl", 1)
    assert len((tmp_path / "new" / "folder" / "answers.jsonl").read_text().splitlines()) == 2
    with pytest.raises(ValueError, match="out must be a file for the answers"):
        Questionnaire(CLIPS, num_questions=5, out=tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"cannot write answers to .*answers\.jsonl \(.*\); give another out="):
        Questionnaire(CLIPS, num_questions=5, out=tmp_path / "file" / "answers.jsonl")


def full(*_):
    raise OSError(28, "No space left on device")


def test_an_answer_counts_when_it_is_on_disk(tmp_path, monkeypatch):
    out = tmp_path / "answers.jsonl"
    ask = answered(out)
    data = out.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr("reward_design.preferences.answers.os.fsync", full)
        with pytest.raises(OSError, match="No space left"):
            ask.give(3, "first")
        with pytest.raises(OSError, match="No space left"):
            ask.take_back()
    assert (len(ask.given), out.read_bytes()) == (3, data)
    assert [path.name for path in tmp_path.iterdir()] == ["answers.jsonl"]
    out.unlink()  # somebody takes it away: all answers are written anew
    ask.give(3, "equal")
    assert Questionnaire(CLIPS, num_questions=5, out=out).given == ask.given
    ask.take_back()
    assert out.read_bytes() == data


def post(page, body):
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", page.port, timeout=10)) as connection:
        connection.request("POST", f"/{page.word}/answer", body, {"Content-Type": "application/json"})
        reply = connection.getresponse()
        return reply.status, reply.read().decode()


def test_the_page_says_when_an_answer_could_not_be_kept(tmp_path, monkeypatch):
    ask = answered(tmp_path / "answers.jsonl", 0)
    with PreferencePage(ask) as page:
        with monkeypatch.context() as broken:
            broken.setattr(AnswerFile, "add", full)
            status, text = post(page, json.dumps({"number": 0, "answer": "first"}))
        assert status == 500
        assert "The answer was not kept, because its file could not be written" in text
        assert ask.given == []
        for number in ("1e999", "0.7", "NaN", '"0"', "null", "true"):
            assert post(page, f'{{"number": {number}, "answer": "first"}}')[0] == 400
        assert post(page, "[" * 12_000)[0] == 400
        assert ask.given == []
        assert post(page, json.dumps({"number": 0, "answer": "first"}))[0] == 200


@pytest.mark.usefixtures("untyped")
def test_answers_that_make_no_sense_are_refused():
    ask = Questionnaire(CLIPS, num_questions=5)
    with pytest.raises(ValueError, match=r"words must be two texts, .* got \('a',\)"):
        ask.give(0, "first", ("a",))
    with pytest.raises(ValueError, match=r"words must be two texts, .* got 'ab'"):
        ask.give(0, "first", "ab")
    with pytest.raises(ValueError, match="an answer must be one of first, second, equal, skip, got None"):
        ask.give(None, None)
    with pytest.raises(TypeError, match="the number of a question must be a whole number, got None"):
        ask.give(None, "first")
    with pytest.raises(ValueError, match="needs at least two clips, got 0"):
        Questionnaire([], num_questions=1)
    with pytest.raises(TypeError, match=r"num_questions must be a whole number, got 2\.5"):
        Questionnaire(CLIPS, num_questions=2.5)


@pytest.mark.usefixtures("untyped")
def test_answers_about_other_clips_are_not_learned_from():
    given = [Given(0, 1, "first", 1.0)] * 24
    for clip in (7, -1):
        wrong = [*given[:4], Given(0, clip, "skip", 1.0), *given]
        with pytest.raises(ValueError, match=f"answer 4 names clip {clip}, there are 3 clips"):
            learn_from_answers(bradley_terry(), CLIPS[:3], wrong, KEY)
    with pytest.raises(TypeError, match=r"a clip of answer 0 must be a whole number, got 0\.5"):
        learn_from_answers(bradley_terry(), CLIPS, [Given(0.5, 1, "first", 1.0)], KEY)
    with pytest.raises(ValueError, match="answer 0 must be one of first, second, equal, skip, got 'left'"):
        learn_from_answers(bradley_terry(), CLIPS, [Given(0, 1, "left", 1.0)], KEY)
    with pytest.raises(ValueError, match="num_rounds must be at least 1, got 0"):
        learn_from_answers(bradley_terry(), CLIPS, given, KEY, num_rounds=0)
