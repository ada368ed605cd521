"""What the published systems add to the search: who is asked what, and what becomes of the answers."""

import numpy as np
import pytest

from reward_design.envs import task
from reward_design.experiments.store import read
from reward_design.llm import design, load_reward
from reward_design.llm.designers import PRESETS, Parts
from reward_design.llm.designers.candidates import Candidate
from reward_design.llm.designers.elo import Proxy
from reward_design.llm.designers.person import Person, best_and_worst
from reward_design.llm.designers.random_search import random_terms
from reward_design.llm.terms import parse_terms
from reward_design.preferences.person import Given
from tests.scripted_model import GOOD, SMALL, Script, search, terms

BAD = """
```python
def reward(obs):
    zero = 0.0 * obs
    return zero, {"sparse": zero, "dense": zero}
```"""


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


def _rows(row):
    import jax

    return jax.tree.map(lambda x: np.asarray(x)[None], row)
