"""What models are told: tables, histograms, traces and differences, against small numbers."""

import jax
import numpy as np
import pytest

from reward_design.core import Transition
from reward_design.envs import task
from reward_design.experiments.evaluation import Scorer, play_lanes
from reward_design.llm.designers import episodes as told
from reward_design.llm.designers import reflection
from reward_design.llm.designers.candidates import Candidate, Statistics

CURVES = {
    "success": (0.0, 0.25, 0.5),
    "true_return": (-3.0, -1.0, 2.0),
    "length": (50.0, 40.0, 30.0),
    "term/progress": (0.1, None, 0.3),
    "term/bonus": (7.0, 7.0, 7.0),
}
FOUND = Statistics((0.5, 0.25), (2.0, 1.0), (30.0, 30.0), (100, 200, 300), CURVES)


def test_the_table_has_points_maximum_mean_and_minimum():
    lines = reflection.component_table(FOUND).splitlines()
    assert lines[0] == "progress: [0.1, ?, 0.3], Max: 0.3, Mean: 0.2, Min: 0.1"
    assert lines[1] == "bonus: [7, 7, 7], Max: 7, Mean: 7, Min: 7"
    assert lines[2] == "success: [0, 0.25, 0.5], Max: 0.5, Mean: 0.25, Min: 0"
    assert len(lines) == 5


def test_the_table_without_score_names_nothing_that_judges_the_task():
    text = reflection.component_table(FOUND, score=False)
    assert "success" not in text
    assert "return" not in text
    assert "progress" in text


@pytest.mark.parametrize("length", [1, 9, 10, 11, 57, 200])
def test_about_ten_points_at_equal_distances(length):
    shown = reflection.points(list(range(length)), 10)
    assert len(shown) == min(length, 10)
    assert shown[0] == 0
    assert shown[-1] == length - 1
    gaps = np.diff(shown)
    assert length < 2 or gaps.max() - gaps.min() <= 1


def test_advice_is_given_where_it_applies_only():
    (tip,) = reflection.tips(Statistics((0.0,), (0.0,), (1.0,), (1, 2), {"term/a": (0.0, 1.0), "term/b": (1.0, 2.0)}))
    assert tip.startswith("Success stays near zero")
    assert reflection.tips(Statistics((1.0,), (0.0,), (1.0,), (1, 2), {"term/a": (0.0, 1.0)})) == []
    assert any("bonus hardly changes" in tip for tip in reflection.tips(FOUND))


def test_process_feedback_has_five_points():
    curves = {name: tuple(range(40)) for name in ("true_return", "success", "length", "term/a")}
    found = Statistics((1.0, 1.0), (0.0, 2.0), (1.0, 1.0), tuple(range(0, 400, 10)), curves)
    lines = reflection.process(found).splitlines()
    assert [line.split(":")[0] for line in lines[:5]] == ["step 0", "step 100", "step 200", "step 290", "step 390"]
    assert lines[5] == "spread of the return over seeds: 1"


def test_best_and_worst_with_differences_and_no_score():
    good, bad = (Candidate(n, f"a\n{n}", "code", 1, statistics=FOUND) for n in ("good", "bad"))
    old = Candidate("old", "a\nold", "code", 0)
    values = reflection.best_and_worst(good, bad, [old, good])
    assert values["differences"] == [" a\n-old\n+good"]
    assert values["best"] == "a\ngood"
    assert values["worst"] == "a\nbad"
    assert "success" not in values["best_trace"]


def test_long_differences_are_cut():
    text = reflection.difference("", "\n".join(map(str, range(100))))
    assert text.splitlines()[-1] == f"... and {100 - reflection.MAX_LINES} more lines"
    assert len(text.splitlines()) == reflection.MAX_LINES + 1


def test_the_failure_report_counts_all_episodes_and_shows_few():
    found = Statistics(
        (0.0,), (0.0,), (1.0,), (1,), {}, outcomes={"a": 1, "b": 3}, events={"lava": 2, "key": 0}, traces=("x",) * 5
    )
    text = reflection.failure_report(found, num_traces=2)
    assert "Of 4 episodes" in text
    assert text.index("3 (75 %): b") < text.index("1 (25 %): a")
    assert "lava was raised in 2" in text
    assert "key" not in text
    assert text.count("Episode") == 2


def line(*values):
    """Positions of an episode in which the potential is the position, lanes side by side."""
    length = max(map(len, values)) - 1
    obs = np.zeros((length + 1, len(values)), np.int32)
    mask = np.zeros((length, len(values)), bool)
    for lane, path in enumerate(values):
        obs[: len(path), lane], mask[: len(path) - 1, lane] = path, True
    last = mask & ~np.concatenate([mask[1:], np.zeros_like(mask[:1])])
    no = np.zeros_like(mask)
    return Transition(obs[:-1], no.astype(np.int32), obs[1:], no.astype(np.float32), no, last, mask, {})


def test_outcomes_by_the_potential():
    import dataclasses

    chain = dataclasses.replace(task("chain"), potential=lambda obs: 1.0 * obs)
    played = line([0, 1, 2, 3, 4], [0, 4, 8, 2, 1], [4, 3, 2, 3, 4], [0, 2, 4, 4, 4], [0, 0])
    assert told.outcomes(chain, played) == [told.CLOSER, told.AWAY, told.NEVER, told.STUCK, told.NEVER]
    terminated = played.terminated.copy()
    terminated[-1, 0] = True
    found = told.histogram(chain, played._replace(terminated=terminated))
    assert sum(found.values()) == 5
    assert told.CLOSER not in found


def played_rooms(lanes=12):
    rooms, rng = task("four_rooms"), np.random.default_rng(0)
    return rooms, play_lanes(rooms.env, lambda obs: rng.integers(4, size=len(obs)), lanes, 0)


def test_outcomes_agree_with_the_environment():
    rooms, episodes = played_rooms()
    found = told.outcomes(rooms, episodes)
    success = (np.asarray(rooms.success(episodes)) & episodes.terminated & episodes.mask).any(0)
    assert [how == told.SUCCESS for how in found] == success.tolist()
    assert 0 < sum(success) < len(found)


def test_a_trace_is_short_and_tells_first_last_and_what_was_paid():
    rooms, episodes = played_rooms()
    terms = Scorer(rooms.env, rooms.dense_reward)(episodes).terms
    lane = told.outcomes(rooms, episodes).index(told.SUCCESS)
    text = told.trace(rooms, episodes, lane, terms)
    length = int(episodes.mask[:, lane].sum())
    steps = [int(row.split()[1][:-1]) for row in text.splitlines() if row.startswith("  step")]
    assert len(steps) <= told.MAX_STEPS
    assert (steps[0], steps[-1]) == (0, length - 1)
    skipped = [int(row.split()[1]) for row in text.splitlines() if row.startswith("  ...")]
    assert len(steps) + sum(skipped) == length
    assert all(name in text for name in (*rooms.factors, *terms))


def test_flags_are_counted_once_per_episode():
    _, episodes = played_rooms(2)
    flag = np.zeros_like(episodes.mask)
    flag[:5, 0] = True
    flag[-1, 1] = True  # masked unless the lane lasts to the end
    marked = episodes._replace(info={"lava": flag, "numbers": np.zeros(flag.shape)})
    expected = 1 + int(episodes.mask[-1, 1])
    assert told.events(marked) == {"lava": expected}
    assert jax.tree.leaves(told.events(episodes._replace(info={}))) == []
