"""What preferences are given: whole numbers of any size, shapes, and arguments that make no sense."""

# Wrong arguments are what is tested here.
# pyright: reportArgumentType=false

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from reward_design import agents
from reward_design.cli import main
from reward_design.envs import task
from reward_design.experiments import resolve
from reward_design.experiments.ranked_design import unlearned_note
from reward_design.preferences import (
    Factor,
    PreferenceConfig,
    Questionnaire,
    bradley_terry_scores,
    compare_ranked,
    cycle_rate,
    decide,
    factor_sum,
    heron,
    preference_reward,
    preference_widget,
    synthetic_teacher,
    task_factors,
)

pytestmark = pytest.mark.usefixtures("untyped")


# --- scores of items --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "preferred", "message"),
    [
        ([0, 3], [1, 2], [1.0, 1.0], r"first must be in \[0, 3\), the items, got 3 for pair 1"),
        ([0, 1], [-1, 2], [1.0, 1.0], r"second must be in \[0, 3\), the items, got -1 for pair 0"),
        ([0, 1], [1, 2], [1.0, 2.0], r"preferred must be in \[0, 1\], got 2.0 for pair 1"),
        ([0, 1], [1, 2], [float("nan"), 0.0], r"preferred must be in \[0, 1\], got nan for pair 0"),
        ([0, 1], [1, 2], [1.0], r"need an entry for each pair, got shapes \(2,\), \(2,\) and \(1,\)"),
        ([0, 1], [1], [1.0, 0.0], "need an entry for each pair"),
        ([0.5], [1], [1.0], "first must be whole numbers"),
        (["a"], [1], [1.0], "first must be whole numbers"),
    ],
)
def test_pairs_that_make_no_sense_have_no_scores(first, second, preferred, message):
    with pytest.raises((ValueError, TypeError), match=message):
        bradley_terry_scores(first, second, preferred, num_items=3)


def test_scores_inside_jit_are_those_outside():
    pairs = jnp.array([0, 1]), jnp.array([1, 2]), jnp.array([1.0, 0.5])
    inside = jax.jit(lambda *pairs: bradley_terry_scores(*pairs, num_items=3))(*pairs)
    np.testing.assert_allclose(inside, bradley_terry_scores(*pairs, num_items=3), atol=1e-5)
    with pytest.raises(TypeError, match=r"num_items must be a whole number, got 2\.5"):
        bradley_terry_scores(*pairs, num_items=2.5)
    with pytest.raises(ValueError, match="num_steps must be at least 1, got 0"):
        bradley_terry_scores(*pairs, num_items=3, num_steps=0)


# --- ranked comparison ------------------------------------------------------------------------------------------------


def test_large_whole_numbers_are_compared_exactly():
    assert float(compare_ranked(np.array([2000001]), np.array([2000000]), margins=[0.75])) == 1.0
    assert float(compare_ranked(np.array([2000001]), np.array([2000000]), margins=[1])) == 0.5
    assert float(compare_ranked(np.array([16777217]), np.array([16777216]), margins=[0])) == 1.0
    assert float(compare_ranked([2**53], [2**53 + 1], margins=[0])) == 0.0
    assert float(compare_ranked(np.array([2**64 - 1], np.uint64), [0], margins=[1e30])) == 0.5
    assert float(compare_ranked(np.array([2**64 - 1], np.uint64), [-1], margins=[float(2**63)])) == 1.0
    assert float(compare_ranked(np.array([2**63 - 1]), np.array([-(2**63)]), margins=[np.inf])) == 0.5
    np.testing.assert_allclose(cycle_rate(np.array([[2**24], [2**24 + 1], [2**24 + 2]]), margins=[0]), 0.0)
    wheel = 2**26 + np.array([[0, 3], [7, 2], [14, 1]])
    assert float(cycle_rate(wheel, margins=[10, 0])) == 1.0


KINDS = [np.bool_, np.uint8, np.int8, np.int32, np.uint32]


@pytest.mark.parametrize("kind_a", KINDS)
@pytest.mark.parametrize("kind_b", KINDS)
def test_whole_numbers_of_any_two_types_are_compared_as_by_python(kind_a, kind_b):
    rng = np.random.default_rng(0)
    ends = {kind: (0, 1) if kind is np.bool_ else (np.iinfo(kind).min, np.iinfo(kind).max) for kind in KINDS}
    a, b = (
        rng.choice([*ends[kind], *rng.integers(*ends[kind], 20, endpoint=True)], (200, 1)).astype(kind)
        for kind in (kind_a, kind_b)
    )
    for margin in (0, 0.5, 3, 250.0):
        differences = [int(x) - int(y) for x, y in zip(a[:, 0], b[:, 0])]
        expected = [0.5 if abs(d) <= margin else float(d > 0) for d in differences]
        margins = np.array([margin])
        np.testing.assert_array_equal(compare_ranked(a, b, margins=margins), expected)
        inside = jax.jit(compare_ranked)(a, b, margins=margins)
        np.testing.assert_array_equal(inside, expected)


def test_leading_axes_are_broadcast():
    rng = np.random.default_rng(0)
    for one, two in (((5, 2), (2,)), ((2,), (5, 2)), ((5, 1, 2), (1, 4, 2)), ((3, 2), (4, 3, 2))):
        for kind in (np.int32, np.float32):
            a, b = (rng.integers(0, 3, shape).astype(kind) for shape in (one, two))
            verdict = decide(a, b, margins=[1, 0])
            expected = decide(*np.broadcast_arrays(a, b), margins=[1, 0])
            assert verdict.level.shape == np.broadcast_shapes(one, two)[:-1]
            np.testing.assert_array_equal(verdict.preferred, expected.preferred)
            np.testing.assert_array_equal(jax.jit(compare_ranked)(a, b, margins=jnp.array([1, 0])), expected.preferred)
    with pytest.raises(ValueError, match=r"leading axes can be broadcast, got \(5, 2\) and \(4, 2\)"):
        compare_ranked(np.zeros((5, 2)), np.zeros((4, 2)), margins=[0, 0])
    with pytest.raises(ValueError, match="levels in common"):
        compare_ranked(np.zeros((5, 1)), np.zeros((5, 2)), margins=[0, 0])


def test_what_is_no_number_cannot_be_compared():
    with pytest.raises(TypeError, match="margins must be an array of numbers, got None"):
        compare_ranked([1.0], [0.0], margins=None)
    with pytest.raises(TypeError, match="factors_a must be an array of numbers, got 'high'"):
        compare_ranked("high", [0.0], margins=[0.0])
    with pytest.raises(TypeError, match="margins must be an array of numbers"):
        compare_ranked([1.0], [0.0], margins=["0.1"])


# --- factors, teachers, settings --------------------------------------------------------------------------------------

PENDULUM = task("pendulum")
FACTORS = task_factors(PENDULUM, ["tilt", "effort"])


def test_names_of_the_paper_are_understood_on_robots():
    hopper = task("mujoco/Hopper")
    ranking = task_factors(hopper, ["progress", "alive", "energy"], margins=[0.1, 0.2, 0.5])
    assert [(f.name, f.sign, f.margin) for f in ranking] == [
        ("forward_velocity", 1, 0.1), ("healthy", 1, 0.2), ("effort", -1, 0.5)
    ]  # fmt: skip
    assert resolve("heron/progress=0.1,energy", hopper).settings["levels"] == ("forward_velocity", "effort")
    with pytest.raises(ValueError, match=r"no factor 'helthy'; did you mean 'healthy'\?"):
        task_factors(hopper, ["helthy"])
    with pytest.raises(ValueError, match="task 'pendulum' has no factor 'alive'"):
        task_factors(PENDULUM, ["alive"])
    with pytest.raises(ValueError, match=r"names a factor once, got \['energy', 'effort'\]"):
        task_factors(hopper, ["energy", "effort"])


def test_margins_may_be_numbers_of_numpy():
    for margins in (np.float32(0.5), np.array(0.5), np.array([0.5, 0.5]), 0.5, [0.5, np.float64(0.5)]):
        assert [f.margin for f in task_factors(PENDULUM, ["tilt", "speed"], margins=margins)] == [0.5, 0.5]


REFUSED = {
    "a task by name": (
        lambda: task_factors("pendulum"),
        r"got str; envs\.task\('pendulum'\) makes one",
    ),
    "a text of names": (lambda: task_factors(PENDULUM, "tilt"), "must be a sequence of names, got the text 'tilt'"),
    "a name twice": (lambda: task_factors(PENDULUM, ["tilt", "tilt"]), r"a factor once, got \['tilt', 'tilt'\]"),
    "no name": (lambda: task_factors(PENDULUM, []), "at least one factor; task 'pendulum' has "),
    "a margin in words": (
        lambda: task_factors(PENDULUM, margins="wide"),
        "margin of factor '.*' must be a number, got 'wide'",
    ),
    "an infinite margin": (lambda: Factor("x", len, margin=float("inf")), "margin of factor 'x' is infinite"),
    "a text for a margin": (lambda: Factor("x", len, margin="0.1"), "margin of factor 'x' must be a number, got '0.1'"),
    "a factor without a name": (lambda: Factor(None, len), "name of a factor must be a text, got None"),
    "an empty name": (lambda: Factor("", len), "name of a factor must not be empty"),
    "a number as a name": (lambda: Factor(3, len), "name of a factor must be a text, got 3"),
    "a teacher by name": (lambda: preference_reward("oracle"), "expects a Teacher, got 'oracle'; synthetic_teacher"),
    "a task as ranking": (lambda: heron(PENDULUM), "a ranking is a sequence of preferences.Factor"),
    "half a member": (lambda: heron(FACTORS, num_members=1.5), "num_members must be a whole number, got 1.5"),
    "a dictionary": (lambda: heron(FACTORS, config={}), r"config must be a PreferenceConfig, got \{\}"),
    "inputs": (lambda: heron(FACTORS, inputs=3), "inputs must be a function of a transition, .* got 3"),
    "a network": (lambda: heron(FACTORS, network=3), "network must be a flax module, got 3"),
    "gamma": (lambda: heron(FACTORS, gamma="0.9"), "gamma must be a number, got '0.9'"),
    "skip": (lambda: synthetic_teacher(skip=1.0), r"skip must be in \[0, 1\), got 1.0"),
    "mistake": (lambda: synthetic_teacher(mistake="0.1"), "mistake must be a number, got '0.1'"),
    "a negative base": (lambda: factor_sum(FACTORS, base=-1), "base must be above 0, got -1"),
    "no base": (lambda: factor_sum(FACTORS, base=float("nan")), "base must be finite, got nan"),
    "levels in a sum": (lambda: factor_sum([[*FACTORS]]), "got a level of equals; give its factors in a flat sequence"),
    "half a step": (lambda: PreferenceConfig(segment_length=2.5), "segment_length must be a whole number, got 2.5"),
    "learning rate": (lambda: PreferenceConfig(learning_rate=-1), "learning_rate must be above 0, got -1"),
    "weight decay": (lambda: PreferenceConfig(weight_decay=-1), "weight_decay must be at least 0, got -1"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_arguments_that_make_no_sense_are_refused_in_one_sentence(name):
    make, message = REFUSED[name]
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_the_design_heron_builds_where_nothing_is_discounted():
    reward = resolve("heron", task("chain", gamma=1.0))
    assert "gamma" not in reward.settings
    assert resolve("heron", task("chain", gamma=0.9)).settings["gamma"] == 0.9


def test_the_title_of_the_widget_is_text():
    pytest.importorskip("ipywidgets")
    from tests.test_person_file import CLIPS

    box = preference_widget(Questionnaire(CLIPS, num_questions=2), title="<script>")
    assert "<b>&lt;script&gt;</b>" in box.children[0].value


# --- notes of the command line ----------------------------------------------------------------------------------------


def test_a_note_says_when_nothing_was_learned():
    never, late = {"reward/rounds": [[0.0, 0.0]]}, {"reward/rounds": [[0.0, 8.0]]}
    assert "was never learned, so the agent was paid nothing" in (unlearned_note(never) or "")
    assert unlearned_note({"loss": [1.0]}) is None
    assert unlearned_note({**late, "reward/decided/tie": [[None, 0.5]]}) is None
    assert "all pairs are ties" in (unlearned_note({**late, "reward/decided/tie": [[None, 1.0]]}) or "")


def test_train_and_compare_say_when_nothing_was_learned(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(agents, "use_all_cores", lambda: 1)
    length = ["--task", "pendulum", "--total-timesteps", "512", "--set", "num_envs=4", "num_steps=64", "hidden=8"]
    assert main(["train", *length, "--reward", "heron"]) == 0
    assert capsys.readouterr().out.count("note: the reward was never learned") == 1
    out = ["--out", str(tmp_path / "results"), "--quiet", "--seeds", "2"]
    assert main(["compare", *length, "--rewards", "dense", "heron", *out]) == 0
    assert capsys.readouterr().out.count("pendulum, heron: the reward was never learned") == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--factors", ""], "--factors names no factor, got ''"),
        (["--factors", " , ", "--margins", "0.1"], "--factors names no factor"),
        (["--margins", "0.1,0.2"], "--margins 0.1,0.2 needs --factors"),
        (["--factors", "tilt", "--margins", ""], "one number for each of --factors, got 0 for 1"),
    ],
)
def test_the_command_line_says_what_factors_lack(words, message, capsys, monkeypatch):
    monkeypatch.setattr(agents, "use_all_cores", lambda: 1)
    assert main(["train", "--task", "pendulum", "--reward", "heron", *words]) == 2
    assert message in capsys.readouterr().err
