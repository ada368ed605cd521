"""The search: rounds, repairs, budgets, and a kill at every stage without paying twice."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import reward_design.agents
from reward_design import cli
from reward_design.envs import task
from reward_design.experiments.store import read
from reward_design.llm import Budget, CandidateRefused, Isolation, checking, design, load_reward
from reward_design.llm.build import artifact_of
from reward_design.llm.designers import PRESETS, Parts
from reward_design.llm.designers.answers import sign_scaled, source_of
from reward_design.llm.designers.candidates import Candidate
from reward_design.llm.designers.elo import Proxy
from reward_design.llm.designers.person import Person, best_and_worst
from reward_design.llm.designers.random_search import random_terms
from reward_design.llm.supervisor import Worker
from reward_design.llm.terms import parse_terms
from reward_design.preferences.person import Given
from tests import design_worker
from tests.fault_tools import CACHE

SMALL = design_worker.SMALL
WALLS = ("landlock", "seccomp", "namespaces")


def terms(weight=1.0, factor="distance", shape="progress", direction="decrease"):
    entry = {"factor": factor, "shape": shape, "direction": direction, "weight": weight, "scale": 1.0}
    return json.dumps({"terms": [entry]})


class Script:
    """A model that says what it is told to, in order, and keeps what it was asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), []
        self.__name__ = "script"

    def __call__(self, messages):
        self.asked.append(messages)
        return self.answers[(len(self.asked) - 1) % len(self.answers)]


def search(model, tmp_path, task_name="chain", **settings):
    return design(task_name, model=model, out=tmp_path, **{**SMALL, "language": "terms", **settings})


# --- rounds ---------------------------------------------------------------------------------------------------------


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


# --- presets --------------------------------------------------------------------------------------------------------


def test_every_preset_is_a_set_of_parts():
    assert list(PRESETS) == ["eureka", "auto-mc-reward", "l2r", "icpl", "card", "orso", "revolve", "random"]
    assert all(isinstance(p, Parts) and p.description for p in PRESETS.values())
    assert (PRESETS["icpl"].candidates, PRESETS["auto-mc-reward"].repairs) == (6, 3)


def test_random_search_knows_the_language_and_asks_nobody(tmp_path):
    found = design("chain", preset="random", out=tmp_path, **{**SMALL, "rounds": 1, "candidates": 2})
    assert sum(c.trained for c in found.candidates) == 2
    assert found.used.calls == 0
    rng = np.random.default_rng(0)
    shapes = {t.shape for _ in range(60) for t in parse_terms(random_terms(task("cartpole"), rng), task("cartpole"))}
    assert len(shapes) == 5


def test_l2r_asks_a_descriptor_and_the_coder_sees_what_it_said(tmp_path):
    def model(messages):
        told.append(messages)
        return "- go right, 10" if "Describe the behaviour" in messages[-1]["content"] else terms(len(told))

    told = []
    found = search(model, tmp_path, preset="l2r", rounds=1, candidates=2)
    assert found.best is not None
    assert len(told) == 4
    described = [i for i, messages in enumerate(told) if "Describe the behaviour" in messages[-1]["content"]]
    assert len(described) == 2
    assert all("go right, 10" in told[i][-1]["content"] for i in range(4) if i not in described)


def test_icpl_shows_best_and_worst_and_no_score(tmp_path):
    model = Script(*(terms(w, direction=d) for w in range(1, 9) for d in ("increase", "decrease")))
    judged = []

    def judge(session, number, candidates):
        judged.append([c.id for c in candidates])
        return candidates[1].id, candidates[0].id

    found = search(model, tmp_path, preset="icpl", rounds=2, candidates=2, judge=judge)
    assert judged == [["0.0", "0.1"], ["1.0", "1.1"]]
    text = model.asked[-1][-1]["content"]
    assert text.index(found.candidates[1].source) < text.index(found.candidates[0].source)
    assert "success" not in text.split("The best reward")[1]
    assert found.candidates[-1].parents == ("0.1", "0.0")


def test_a_person_decides_by_pairs():
    three = [Candidate(f"0.{i}", "", "terms", 0) for i in range(3)]
    given = [Given(0, 1, "second", 1.0), Given(2, 1, "second", 1.0), Given(0, 2, "equal", 1.0)]
    assert best_and_worst(three, given) == ("0.1", "0.0")
    assert best_and_worst(three, [Given(0, 1, "skip", 1.0)]) is None


def test_card_sends_a_reward_back_before_training(tmp_path):
    model = Script(*(terms(w, direction="increase") for w in (1.0, 2.0)), terms(1.0), terms(2.0))
    found = search(model, tmp_path, "four_rooms", preset="card", rounds=2)
    held, passed = found.candidates[:2], found.candidates[2:]
    assert [c.refusal.stage for c in held] == ["preference"] * 2
    assert max(c.accuracy or 0 for c in held) < 0.8 <= min(c.accuracy or 0 for c in passed)
    assert [c.trained for c in found.candidates] == [False, False, True, True]
    assert "ranks" in model.asked[-1][-1]["content"]
    assert "A failure that it pays too much" in model.asked[-1][-1]["content"]


def test_orso_hands_out_half_of_the_training(tmp_path):
    model = Script(terms(1.0), terms(1.0, direction="increase"))
    found = search(model, tmp_path, preset="orso", rounds=1, candidates=2)
    full = 2 * 1024
    spent = sum(c.statistics.env_steps for c in found.candidates)
    assert 0.4 * full <= spent <= 0.6 * full
    slices = [r["value"]["arm"] for r in read(tmp_path) if r["kind"] == "slice"]
    assert slices[:2] == [0, 1]
    assert len(slices) == spent / 128


def test_orso_draws_a_new_set_where_none_of_a_round_comes_near_the_best(tmp_path):
    good, poor = ([terms(w, direction=d) for w in range(1, 4)] for d in ("decrease", "increase"))
    model = Script(*good[:2], *poor[:2], terms(4.0), poor[2])
    found = search(model, tmp_path, preset="orso", rounds=2, candidates=2, steps=20480)
    records = read(tmp_path)
    sets = [r["value"] for r in records if r["kind"] == "set"]
    assert [(v["round"], v["first"], v["exhausted"]) for v in sets] == [
        (0, "0.0", False), (1, "1.0", True), (1, "1.2", False),
    ]  # fmt: skip
    assert [v["spent"] + v["left"] for v in sets] == [10, 10, sets[1]["left"]]
    assert sets[1]["spent"] == 4
    slices = [r["name"] for r in records if r["kind"] == "slice"]
    assert slices == [f"{number}/{play}" for number in range(2) for play in range(10)]
    assert [c.id for c in found.candidates] == ["0.0", "0.1", "1.0", "1.1", "1.2", "1.3"]
    winner = max(found.candidates[:4], key=lambda c: c.fitness)
    assert winner.round == 0
    assert {c.parents for c in found.candidates[4:]} == {(winner.id,)}  # the best of all, not of the poor set
    assert sum(c.statistics.env_steps for c in found.candidates) == 20 * 16 * 128
    asked = len(model.asked)
    again = search(model, tmp_path, preset="orso", rounds=2, candidates=2, steps=20480)
    assert len(model.asked) == asked
    assert again.candidates == found.candidates


def test_revolve_crosses_and_mutates(tmp_path):
    model = Script(*(terms(w) for w in range(1, 99)))
    found = search(model, tmp_path, preset="revolve", rounds=3, candidates=2)
    origins = {c.origin for c in found.candidates if c.round > 0}
    assert origins == {"new", "mutation"} or "crossover" in origins
    known = {c.id: c for c in found.candidates}
    for child in found.candidates:
        assert all(known[p].round < child.round for p in child.parents)


def rated(found):
    return {c.id: float(c.rating) for c in found.candidates}


def test_revolve_takes_ratings_of_pairs_for_fitness(tmp_path):
    """With the judge turned round, the islands hold what the task likes least; pairs are asked for once."""

    class Counted(Proxy):
        def compare(self, session, number, candidates):
            asked.append([c.id for c in candidates])
            return super().compare(session, number, candidates)

    asked, found = [], {}
    for error in (0.0, 1.0):
        model = Script(*(terms(w, direction=d) for w in (1.0, 2.0, 3.0) for d in ("decrease", "increase")))
        where = tmp_path / str(error)
        settings = {"preset": "revolve", "rounds": 2, "candidates": 2, "steps": 8192}
        found[error] = search(model, where, judge=Counted(error=error), **settings)
        again = search(model, where, judge=Counted(error=error), **settings)
        assert again.candidates == found[error].candidates
    assert [len(one) for one in asked] == [2, 3, 2, 3]  # the best of the first round is judged in the second again
    for error, result in found.items():
        first = [c for c in result.candidates if c.round == 0]
        assert first[0].fitness != first[1].fitness
        best_rated = max(first, key=lambda c: c.rating or 0.0)
        assert (best_rated is max(first, key=lambda c: c.fitness)) == (error == 0.0)
        assert sum(rated(result).values()) == pytest.approx(4 * 1500, abs=0.1)
        assert '<th class="n">Elo</th>' in (tmp_path / str(error) / "report.html").read_text()


def test_a_person_rates_pairs(tmp_path):
    def answer(page):
        while (question := page.questionnaire.question()) is not None:
            shown.append((question.first, question.second))
            page.questionnaire.give(question.number, "first" if question.first < question.second else "second")

    shown = []
    model = Script(*(terms(w) for w in (1.0, 2.0, 3.0)))
    judge = Person(open_browser=False, wait=answer, num_questions=2)
    found = search(model, tmp_path, preset="revolve", rounds=1, candidates=3, judge=judge)
    assert len(shown) == 2
    values = list(rated(found).values())
    assert sum(values) == pytest.approx(4500, abs=0.1)
    for first, second in shown:
        better, worse = sorted((first, second))
        assert values[better] > values[worse]


def test_what_a_person_says_about_parents_enters_the_prompts_of_their_children(tmp_path):
    def answer(page):
        assert page.status()["words"]
        while (question := page.questionnaire.question()) is not None:
            said = tuple(f"clip {clip} of <b>{question.first + question.second}" for clip in question[1:])
            page.questionnaire.give(question.number, "first", said)

    model = Script(*(terms(w) for w in range(1, 9)))
    judge = Person(open_browser=False, wait=answer)
    settings = {"preset": "revolve", "rounds": 2, "candidates": 3}
    found = search(model, tmp_path, judge=judge, **settings)
    known = {c.id: c for c in found.candidates}
    assert all(set(c.feedback) for c in found.candidates if c.rating != 1500.0)
    children = [c for c in found.candidates if c.parents]
    prompts = [m[-1]["content"] for m in model.asked]
    assert children
    for text in (t for t in prompts if "how an agent did" in t or "how agents did" in t):
        parents = [c for c in known.values() if c.source.strip() in text]
        for parent in parents:
            said = [f"- {words}\n" for words in parent.feedback if words]
            assert any(line in text + "\n" for line in said)
    told = [t for t in prompts if "A person who watched it said:" in t]
    assert told
    assert "clip 0 of &lt;b&gt;1" in (tmp_path / "report.html").read_text()
    asked = len(model.asked)
    assert search(model, tmp_path, judge=judge, **settings).candidates == found.candidates
    assert len(model.asked) == asked


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"preset": "revolve", "judge": lambda *_: None}, TypeError, "needs a judge that has a method compare"),
        ({"preset": "icpl", "judge": Proxy()}, TypeError, "needs a judge that can be called"),
        ({"preset": "eureka", "judge": Proxy()}, ValueError, "asks no judge, got one.*icpl and revolve"),
    ],
)
def test_judges_that_cannot_do_it_are_refused(settings, error, text, tmp_path):
    with pytest.raises(error, match=text):
        search(Script(terms()), tmp_path, **settings)


# --- code -----------------------------------------------------------------------------------------------------------

BAD = """
```python
def reward(obs):
    zero = 0.0 * obs
    return zero, {"sparse": zero, "dense": zero}
```"""
GOOD = """Here:
```python
def reward(obs, next_obs):
    sparse = jnp.where(next_obs == 19, 3.0, 0.0)
    return sparse, {"sparse": sparse, "dense": (next_obs - obs) * 7.0}
```"""


def test_auto_mc_reward_criticises_repairs_and_scales_signs(tmp_path):
    def model(messages):
        told.append(messages[0]["content"][:40])
        last = messages[-1]["content"]
        if messages[0]["content"].startswith("You review"):
            return "It never pays.\nREJECT" if "0.0 * obs" in last else "Fine.\nACCEPT"
        if messages[0]["content"].startswith("You find out"):
            return "It runs out of time: pay for speed."
        if "reviewer rejected" in last:
            return GOOD
        if "failures were analysed" in last:
            return GOOD.replace("7.0", "9.0")
        return BAD

    told = []
    found = search(model, tmp_path, preset="auto-mc-reward", language="code", rounds=2, candidates=1)
    first, second = found.candidates
    assert (first.repairs, len(first.remarks)) == (1, 1)
    assert first.trained
    assert second.parents == (first.id,)
    assert any(text.startswith("You find out") for text in told)
    assert found.path is not None
    reward = load_reward(found.path)
    moves = task("chain").example._replace(obs=np.array([18]), next_obs=np.array([19]), mask=np.array([True]))
    output, _ = reward.unroll(*reward.init(None, moves), _rows(moves))
    assert float(output.reward[0, 0]) == pytest.approx(1.1)
    assert float(output.terms["dense"][0, 0]) == pytest.approx(0.1)


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


def _rows(row):
    import jax

    return jax.tree.map(lambda x: np.asarray(x)[None], row)


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


# --- kill -9 --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    """What the killed processes compile is compiled once."""
    return {**CACHE, "JAX_COMPILATION_CACHE_DIR": str(tmp_path_factory.mktemp("compiled"))}


def killed(out, calls, compiled, *stage):
    """A search in a process that kills itself there."""
    root = Path(__file__).resolve().parent.parent
    worker = [sys.executable, "-m", "tests.design_worker", str(out), str(calls), *stage]
    environment = {**os.environ, **compiled, "PYTHONPATH": str(root)}
    done = subprocess.run(worker, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr


@pytest.mark.parametrize("stage", design_worker.STAGES)
def test_a_kill_at_any_stage_pays_nothing_twice(stage, compiled, tmp_path):
    """Asked at most twice in all for two candidates; a call that was killed while it ran has to be made again."""
    calls, out = tmp_path / "calls", tmp_path / "out"
    killed(out, calls, compiled, stage)
    kinds = [record["kind"] for record in read(out)]
    assert stage in ("answering", "training") or kinds[-1] == stage
    trained = {r["name"]: r["value"] for r in read(out) if r["kind"] == "trained"}
    found = design_worker.run(out, calls)
    assert found.stopped == ""
    assert [c.trained for c in found.candidates] == [True, True]
    assert calls.read_text().count("\n") == 2
    after = [r for r in read(out) if r["kind"] == "trained"]
    assert len(after) == 2
    assert all(r["value"] == trained.get(r["name"], r["value"]) for r in after)


def timeless(candidate):
    return candidate.with_(statistics=dataclasses.replace(candidate.statistics, seconds=0.0))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Searches that nothing kills, each once."""
    known = {}

    def found(search):
        if search not in known:
            folder = tmp_path_factory.mktemp(search)
            known[search] = design_worker.run(folder / "out", folder / "calls", "", search)
        return known[search]

    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "stage", "again"),
    [
        ("orso", "update:5", "update:2"),
        ("orso", "slice:6", "slice:1"),
        ("orso-sets", "set:2", "slice:2"),
        ("host", "step:40", "step:9"),
        ("host", "update:3", "training"),
    ],
)
def test_a_kill_inside_a_slice_or_on_the_host_changes_nothing(search, stage, again, undisturbed, compiled, tmp_path):
    """Also killed twice; the model is asked no more often, and every number is that of the search nothing killed."""
    if search == "host":
        pytest.importorskip("mujoco")
    calls, out = tmp_path / "calls", tmp_path / "out"
    killed(out, calls, compiled, stage, search)
    killed(out, calls, compiled, again, search)
    before = [(r["kind"], r["name"], r["value"]) for r in read(out) if r["kind"] in ("slice", "trained", "answer")]
    found, expected = design_worker.run(out, calls, "", search), undisturbed(search)
    assert calls.read_text().count("\n") == len(expected.candidates)
    after = [(r["kind"], r["name"], r["value"]) for r in read(out) if r["kind"] in ("slice", "trained", "answer")]
    assert after[: len(before)] == before
    assert len({(kind, name) for kind, name, _ in after}) == len(after)  # no step was noted twice
    assert [timeless(c) for c in found.candidates] == [timeless(c) for c in expected.candidates]
    one, two = ([r["value"] for r in read(f.folder) if r["kind"] == "slice"] for f in (found, expected))
    assert one == two
    assert bool(one) == search.startswith("orso")
    assert {r["value"]["exhausted"] for r in read(found.folder) if r["kind"] == "set"} == (
        {"orso": {False}, "orso-sets": {False, True}}.get(search, set())
    )


# --- the command ----------------------------------------------------------------------------------------------------


@pytest.fixture
def one_core(monkeypatch):
    monkeypatch.setattr(reward_design.agents, "use_all_cores", lambda: 1)


COMMAND = [
    *("design", "--task", "chain", "--preset", "random", "--rounds", "1", "--candidates", "2", "--seeds", "1"),
    *("--total-timesteps", "1024", "--set", "num_envs=4", "num_steps=32", "hidden=8", "num_minibatches=1"),
    *("--audits", "none"),
]


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
