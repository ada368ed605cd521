"""Selection of candidates: D3RB and islands against loops written from the papers, the gate against enumeration."""

import itertools
import math

import numpy as np
import pytest

from reward_design.combinators import chain, environment_reward
from reward_design.envs import task
from reward_design.experiments.evaluation import play_lanes
from reward_design.llm.designers.bandits import balancing
from reward_design.llm.designers.candidates import Candidate, Fitness, Refusal, Statistics, best, candidate_from
from reward_design.llm.designers.elo import Comparison, elo, unit
from reward_design.llm.designers.gate import preference, preference_of
from reward_design.llm.designers.selection import IslandSettings, Member, empty_islands, ends, greedy, softmax
from reward_design.transforms import scale


def statistics(success, true_return=0.0, **fields):
    return Statistics((success,), (true_return,), (9.0,), (1, 2), {"success": (0.0, success)}, **fields)


def candidate(name, success=None, true_return=0.0):
    found = None if success is None else statistics(success, true_return)
    return Candidate(name, f"source {name}", "terms", 0, statistics=found)


# --- D3RB -----------------------------------------------------------------------------------------------------------


def naive_d3rb(num_arms, scores, delta, c):
    """The formulas, one number at a time; ``scores[t]`` is what play t gives. Returns arms played and estimates."""
    n, total, d = [0] * num_arms, [0.0] * num_arms, [1.0] * num_arms
    order = []
    for score in scores:
        unplayed = [i for i in range(num_arms) if n[i] == 0]
        arm = unplayed[0] if unplayed else min(range(num_arms), key=lambda i: d[i] * math.sqrt(n[i]))
        order.append(arm)
        n[arm] += 1
        total[arm] += score

        def h(i):
            if n[i] < 2:
                return math.inf
            return math.sqrt(math.log(num_arms * math.log(n[i]) / delta) / n[i])

        known = [i for i in range(num_arms) if n[i]]
        lower = max(total[j] / n[j] - c * h(j) for j in known)
        if total[arm] / n[arm] + d[arm] * math.sqrt(n[arm]) / n[arm] + c * h(arm) < lower:
            d[arm] *= 2
    return order, d


class First:
    """Breaks ties in favour of the first."""

    def choice(self, values):
        return values[0]


@pytest.mark.parametrize("seed", range(4))
def test_d3rb_equals_a_naive_loop(seed):
    rng = np.random.default_rng(seed)
    quality = rng.random(4)
    scores = (quality[rng.integers(4, size=300)] + 0.1 * rng.random(300)).clip(0, 1).tolist()
    order, estimates = naive_d3rb(4, scores, 0.1, 0.3)
    arms, played = balancing(4, width=0.3), []
    for score in scores:
        arm = arms.choose(First())
        played.append(arm)
        arms = arms.played(arm, score)
    assert played == order
    np.testing.assert_array_equal(arms.estimate, estimates)


def run_d3rb(quality, plays, **settings):
    arms = balancing(len(quality), **settings)
    rng = np.random.default_rng(0)
    for _ in range(plays):
        arm = arms.choose(rng)
        arms = arms.played(arm, quality[arm])
    return arms


def test_d3rb_trains_the_good_arm_more():
    arms = run_d3rb([0.05, 0.95, 0.05], 400, width=0.2)
    assert arms.pulls[1] > 2 * arms.pulls[[0, 2]].max()
    assert arms.estimate[0] > 1
    assert arms.estimate[1] == 1


def test_d3rb_trains_equal_arms_equally():
    arms = run_d3rb([0.5, 0.5, 0.5], 300, width=0.2)
    assert np.ptp(arms.pulls) <= 1
    assert (arms.estimate == 1).all()


def test_d3rb_has_no_confidence_after_one_play():
    arms = run_d3rb([0.0, 1.0], 2)
    assert np.isinf(arms.radius).all()
    assert (arms.estimate == 1).all()
    assert np.isfinite(run_d3rb([0.0, 1.0], 4).radius).all()


def test_d3rb_plays_open_arms_only():
    arms = run_d3rb([0.1, 0.9, 0.5], 30)
    for _ in range(5):
        assert arms.choose(np.random.default_rng(0), np.array([False, False, True])) == 2
    with pytest.raises(ValueError, match="no arm left"):
        arms.choose(np.random.default_rng(0), np.zeros(3, bool))


@pytest.mark.parametrize("bad", [{"num_arms": 0}, {"num_arms": 2, "delta": 1.0}, {"num_arms": 2, "width": -1.0}])
def test_d3rb_refuses_numbers_without_meaning(bad):
    with pytest.raises(ValueError, match="expected num_arms >= 1"):
        balancing(**bad)


def naive_exhausted(plays, num_arms, best, open_):
    """The test of the notes: m* not reached, and for all arms that are open the mean regret is over m* / sqrt(n)."""
    if not any(open_):
        return True
    if best is None or any(score >= best for _, score in plays):
        return False
    for arm in range(num_arms):
        mine = [score for which, score in plays if which == arm]
        if open_[arm] and (not mine or sum(best - score for score in mine) / len(mine) <= best / math.sqrt(len(mine))):
            return False
    return True


@pytest.mark.parametrize("best", [None, 0.2, 0.6, 1.0])
def test_a_set_is_exhausted_where_a_naive_loop_says_so(best):
    rng, said = np.random.default_rng(0), set()
    for _ in range(60):
        arms, plays = balancing(3), []
        quality = rng.choice([0.0, 0.1, 0.5, 0.9], 3)
        for _ in range(12):
            arm, open_ = int(rng.integers(3)), rng.random(3) < 0.9
            score = float(quality[arm] * (rng.random() < 0.6))
            plays.append((arm, score))
            arms = arms.played(arm, score)
            expected = naive_exhausted(plays, 3, best, open_)
            assert arms.exhausted(-math.inf if best is None else best, open_) == expected
            said.add((expected, bool(open_.any())))
    assert {open_ for verdict, open_ in said if not verdict} == {True}
    assert ((True, True) in said) == (best is not None)


def test_a_set_of_failures_is_exhausted_after_two_plays_each_and_a_good_one_never():
    poor, good = balancing(2), balancing(2)
    for play in range(4):
        assert not poor.exhausted(0.9)
        poor, good = poor.played(play % 2, 0.0), good.played(play % 2, 0.9 * (play % 2))
    assert poor.exhausted(0.9)
    assert not good.exhausted(0.9)  # one arm reached the best
    assert good.exhausted(0.95, np.array([True, False]))  # the other alone cannot
    assert not poor.exhausted(0.0)  # nothing is known to be better


# --- greedy, best and worst -----------------------------------------------------------------------------------------


def test_the_fittest_by_success_then_by_return():
    many = [candidate("a", 0.5, 3.0), candidate("b", 0.5, 4.0), candidate("c", 0.2, 99.0), candidate("d")]
    assert greedy(many, None).id == "b"
    assert best(many).id == "b"
    assert ends(many).best.id == "b"
    assert ends(many).worst.id == "c"


def test_a_round_without_training_keeps_the_parent():
    parent = candidate("p", 0.1)
    assert greedy([candidate("a")], parent) is parent
    assert greedy([candidate("a")], None) is None
    assert ends([candidate("a", 1.0), candidate("b")]) is None
    assert best([candidate("a")]) is None


def test_a_seed_without_episodes_counts_as_a_failure():
    found = Statistics((1.0, float("nan")), (2.0, 2.0), (1.0, 1.0), (1,), {})
    assert found.fitness == Fitness(0.5, 2.0)


def test_candidates_survive_json():
    import json

    one = candidate("1.2", 0.5).with_(
        parents=("0.1", "0.3"), remarks=("no",), refusal=Refusal("lint", "x"), distance=0.25, audit="fine"
    )
    assert candidate_from(json.loads(json.dumps(one.record()))) == one
    assert one.digest == one.with_(id="9.9", source=one.source + "\n").digest
    assert one.digest != one.with_(source="other").digest


# --- islands --------------------------------------------------------------------------------------------------------


def test_parents_follow_the_softmax_of_fitness():
    islands = empty_islands(IslandSettings(num_islands=1, crossover=0.0))
    scores = [0.0, 0.5, 2.0]
    for i, score in enumerate(scores):
        islands = islands.insert(0, Member(str(i), score))
    rng = np.random.default_rng(0)
    drawn = [islands.parents(rng)[1] for _ in range(6000)]
    assert {len(p) for p in drawn} == {1}
    shares = [np.mean([p == (str(i),) for p in drawn]) for i in range(3)]
    expected = [math.exp(s) / sum(map(math.exp, scores)) for s in scores]
    np.testing.assert_allclose(shares, expected, atol=0.02)


def test_crossover_has_two_different_parents_half_of_the_time():
    islands = empty_islands(IslandSettings(num_islands=1))
    islands = islands.insert(0, Member("a", 0.0)).insert(0, Member("b", 0.0))
    rng = np.random.default_rng(1)
    drawn = [islands.parents(rng)[1] for _ in range(2000)]
    assert abs(np.mean([len(p) == 2 for p in drawn]) - 0.5) < 0.05
    assert all(len(set(p)) == len(p) for p in drawn)
    assert empty_islands(IslandSettings()).parents(rng)[1] == ()


def test_insertion_against_a_naive_loop():
    rng = np.random.default_rng(2)
    islands, naive = empty_islands(IslandSettings(num_islands=1, capacity=3)), []
    for i, score in enumerate(rng.random(40).tolist()):
        islands = islands.insert(0, Member(str(i), score))
        if not naive or score >= sum(s for s, _ in naive) / len(naive):
            naive.append((score, str(i)))
            while len(naive) > 3:
                naive.remove(min(naive))
    assert sorted(m.id for m in islands.members[0]) == sorted(name for _, name in naive)


def four_islands(**settings):
    islands = empty_islands(IslandSettings(num_islands=4, **settings))
    for i in range(4):
        islands = islands.insert(i, Member(f"{i}low", float(i))).insert(i, Member(f"{i}high", i + 0.5))
    return islands


def test_a_reset_keeps_the_best_of_weak_islands_and_adds_a_founder_of_a_strong_one():
    before = four_islands(reset=1.0)
    founders = set()
    for seed in range(40):
        after = before.after_generation(np.random.default_rng(seed))
        assert after.members[2:] == before.members[2:]
        for weak in (0, 1):
            names = [m.id for m in after.members[weak]]
            assert len(names) == 2
            assert names[1] == f"{weak}high"
            founders.add(names[0])
    assert founders == {"2low", "2high", "3low", "3high"}


def test_resets_happen_as_often_as_they_should():
    before = four_islands(reset=0.3)
    changed = [before.after_generation(np.random.default_rng(seed)) != before for seed in range(1000)]
    assert abs(np.mean(changed) - 0.3) < 0.05
    never = four_islands(reset=0.0)
    assert never.after_generation(np.random.default_rng(0)) is never


def test_softmax_of_nothing_known_is_uniform():
    assert softmax([-np.inf, -np.inf]).tolist() == [0.5, 0.5]
    np.testing.assert_allclose(softmax([1000.0, 1000.0 + math.log(3)]), [0.25, 0.75])


@pytest.mark.parametrize("bad", [{"num_islands": 0}, {"crossover": 1.5}, {"reset": -0.1}])
def test_island_settings_are_checked(bad):
    with pytest.raises(ValueError, match=next(iter(bad))):
        IslandSettings(**bad)


# --- Elo ------------------------------------------------------------------------------------------------------------


def naive_elo(games, players):
    """The published update, a game at a time, both sides written out."""
    rating = dict.fromkeys(players, 1500.0)
    for a, b, score, *_ in games:
        expects_a = 1 / (1 + 10 ** ((rating[b] - rating[a]) / 400))
        expects_b = 1 / (1 + 10 ** ((rating[a] - rating[b]) / 400))
        rating[a], rating[b] = rating[a] + 32 * (score - expects_a), rating[b] + 32 * ((1 - score) - expects_b)
    return rating


@pytest.mark.parametrize("seed", range(4))
def test_elo_equals_a_naive_loop_and_is_zero_sum(seed):
    rng = np.random.default_rng(seed)
    games = [Comparison(*map(str, rng.choice(5, 2, replace=False)), rng.choice([0.0, 0.5, 1.0])) for _ in range(60)]
    expected_, got = naive_elo(games, "01234"), elo(games, "01234")
    assert got == pytest.approx(expected_)
    assert sum(got.values()) == pytest.approx(5 * 1500)
    assert max(got.values()) - min(got.values()) > 10
    back = naive_elo([(a, b, 1 - s) for a, b, s, *_ in games], "01234")
    assert max(abs(back[name] - got[name]) for name in "01234") > 10


def test_elo_settles_where_it_expects_what_it_sees():
    """In the long run E(r_a, r_b) is the share that a wins: r_a - r_b = 400 log10(p / (1 - p))."""
    games = [Comparison("a", "b", float(i % 4 > 0)) for i in range(4000)]
    found = elo(games, factor=0.5)
    assert found["a"] - found["b"] == pytest.approx(400 * math.log10(3), abs=2.0)


def test_ratings_on_the_unit_interval():
    assert unit({"a": 1400.0, "b": 1600.0, "c": 1550.0}) == {"a": 0.0, "b": 1.0, "c": 0.75}
    assert unit({"a": 1500.0, "b": 1500.0}) == {"a": 0.5, "b": 0.5}
    assert unit({}) == {}


@pytest.mark.parametrize(
    ("games", "factor", "text"),
    [
        ([("a", "a", 1.0)], 32, "expected two candidates"),
        ([("a", "b", 1.5)], 32, "score in"),
        ([], 0, "factor must be"),
    ],
)
def test_elo_refuses_what_is_no_judgement(games, factor, text):
    with pytest.raises(ValueError, match=text):
        elo([Comparison(*game) for game in games], factor=factor)


def test_new_scores_reorder_islands_and_nothing_else():
    islands = four_islands().rescored({"0low": 9.0, "3high": -1.0, "unknown": 5.0})
    assert [m.id for m in islands.members[0]] == ["0low", "0high"]
    assert [m.id for m in islands.members[3]] == ["3low", "3high"]
    assert islands.members[1:3] == four_islands().members[1:3]
    assert islands.members[0][0].score == 9.0


# --- CARD's gate ----------------------------------------------------------------------------------------------------


def test_the_gate_by_enumeration():
    """All orders of up to five different means, and all ways to succeed."""
    for num in range(1, 6):
        for means in itertools.permutations(range(num)):
            for success in itertools.product([False, True], repeat=num):
                found = preference(np.array(means, float), np.array(success))
                won = [m for m, s in zip(means, success, strict=True) if s]
                lost = [m for m, s in zip(means, success, strict=True) if not s]
                above = [all(w > other for other in lost) for w in won]
                assert found.accuracy == (sum(above) / len(above) if won and lost else 1.0)
                assert (found.successes, found.failures) == (len(won), len(lost))
                assert (found.weakest_success is None) == (not won)
                if found.weakest_success is not None:
                    assert means[found.weakest_success] == min(won)
                assert (found.strongest_failure is None) == (not lost)
                if found.strongest_failure is not None:
                    assert means[found.strongest_failure] == max(lost)


def test_ties_with_a_failure_do_not_count():
    assert preference(np.array([1.0, 1.0]), np.array([True, False])).accuracy == 0.0


def test_the_gate_passes_the_task_and_refuses_its_opposite():
    rooms, rng = task("four_rooms"), np.random.default_rng(0)
    episodes = play_lanes(rooms.env, lambda obs: rng.integers(4, size=len(obs)), 24, 0)
    good = preference_of(rooms, environment_reward(), episodes)
    assert good.successes
    assert good.failures
    assert good.accuracy == 1.0
    bad = preference_of(rooms, chain(environment_reward(), scale(-1.0)), episodes)
    assert bad.accuracy == 0.0
