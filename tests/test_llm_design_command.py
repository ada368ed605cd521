"""The command ``design``, and the limits of its checks."""

import pytest

import reward_design.agents
from reward_design import cli
from reward_design.llm import Budget, CandidateRefused, Isolation, checking
from reward_design.llm.build import artifact_of
from reward_design.llm.supervisor import Worker
from tests.scripted_model import GOOD, Script, search

WALLS = ("landlock", "seccomp", "namespaces")

COMMAND = [
    *("design", "--task", "chain", "--preset", "random", "--rounds", "1", "--candidates", "2", "--seeds", "1"),
    *("--total-timesteps", "1024", "--set", "num_envs=4", "num_steps=32", "hidden=8", "num_minibatches=1"),
    *("--audits", "none"),
]


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(reward_design.agents, "use_all_cores", lambda: 1)


@pytest.fixture
def low_walls(monkeypatch):
    """A machine that isolates at level PROCESS, as macOS does."""
    monkeypatch.setattr(checking, "Worker", lambda *, time_limit, skip=(): Worker(time_limit=time_limit, skip=WALLS))


def test_nothing_is_paid_for_code_that_the_machine_cannot_isolate(low_walls, tmp_path):
    model = Script(GOOD)
    with pytest.raises(CandidateRefused, match=r"at level PROCESS .* and CONFINED is required") as refused:
        search(model, tmp_path, language="code", rounds=1, candidates=1)
    assert refused.value.stage == "isolation"
    assert model.asked == []
    found = search(model, tmp_path, language="code", rounds=1, candidates=1, min_isolation=Isolation.PROCESS)
    assert found.reward is not None
    assert artifact_of(found.reward).provenance["isolation"] == "PROCESS"


def test_a_search_that_has_ended_checks_nothing_again(monkeypatch, tmp_path):
    settings = {"language": "code", "rounds": 1, "candidates": 1}
    found = search(Script(GOOD), tmp_path, **settings)
    monkeypatch.setattr(checking, "Worker", None)
    assert search(Script(GOOD), tmp_path, **settings).candidates == found.candidates


def test_the_command_says_how_to_accept_less_isolation(low_walls, tmp_path, capsys, one_core):
    assert cli.main(["design", "--task", "chain", "--language", "code", "--out", str(tmp_path), "--quiet"]) == 2
    assert "accept the risk with --min-isolation PROCESS." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--min-isolation", "confinde"], "unknown isolation 'confinde'; did you mean 'confined'? Known: process"),
        (["--time-limit", "0"], "time_limit must be seconds, above 0 and finite, got 0.0"),
    ],
)
def test_limits_of_the_checks_that_are_none(words, said, tmp_path, capsys, one_core):
    assert cli.main(["design", "--task", "chain", "--out", str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err


def test_the_time_of_the_checks_can_be_set(tmp_path):
    limits = {"time_limit": 0.001, "budget": Budget(calls=1)}
    found = search(Script(GOOD), tmp_path, language="code", rounds=1, candidates=1, **limits)
    assert [c.refusal.stage for c in found.candidates] == ["time"]


def test_the_command_prints_lines_and_leaves_a_page(tmp_path, capsys, one_core):
    assert cli.main([*COMMAND, "--final-seeds", "0", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Best: 0." in said
    assert str(tmp_path / "report.html") in said
    assert (tmp_path / "best.reward").is_file()


def test_the_command_says_that_no_server_was_there(tmp_path, capsys, one_core):
    pytest.importorskip("openai")
    model = ["--preset", "eureka", "--language", "terms", "--model", "m", "--base-url", "http://127.0.0.1:9/v1"]
    assert cli.main([*COMMAND, *model, "--candidates", "1", "--seconds", "0.5", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "nothing answers at 127.0.0.1:9" in said or "limit of 0.5 seconds" in said
    assert "the model proposed none" in said
    assert "No candidate has been trained" in (tmp_path / "report.html").read_text()


@pytest.mark.slow
def test_the_command_compares_with_the_controls(tmp_path, capsys, one_core):
    assert cli.main([*COMMAND, "--final-seeds", "2", "--out", str(tmp_path), "--quiet"]) == 0
    page = (tmp_path / "report.html").read_text()
    assert "Against the controls" in page
    assert all(f'<td class="name">{name}</td>' in page for name in ("sparse", "dense", "random", "found"))
    capsys.readouterr()


def test_the_command_refuses_in_a_sentence(tmp_path, capsys, one_core):
    assert cli.main(["design", "--task", "chain", "--preset", "nobody", "--out", str(tmp_path)]) == 2
    assert "unknown preset 'nobody'" in capsys.readouterr().err
