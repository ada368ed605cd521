"""The audit where all is exact: known mistakes are found, harmless designs pass; its page, and tables of distances."""

import itertools
import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import reward_design as rd
from reward_design import cli
from reward_design.agents.dynamic_programming import expected_return, policy_evaluation, policy_iteration
from reward_design.distance import audit, best_loop, reward_table
from reward_design.envs import task
from reward_design.experiments import audit_page, distance_table

ROOMS = task("four_rooms")
GAMMA = ROOMS.gamma


def concerns(found):
    return {finding.check for finding in found.findings if finding.concern}


def evidence(found, check):
    return next(finding.evidence for finding in found.findings if finding.check == check)


def loiter(weight=0.1):
    return rd.pointwise("loiter", lambda p, t: p["weight"] * (t.obs == t.next_obs), params={"weight": weight})


def shaping(gamma=GAMMA):
    return rd.chain(rd.environment_reward(), rd.potential_shaping(ROOMS.potential, gamma=gamma))


def nothing():
    return rd.pointwise("nothing", lambda t: 0.0 * t.reward)


# --- exact ------------------------------------------------------------------------------------------------------------


def test_harmless_shaping_passes():
    found = audit(ROOMS, shaping())
    assert found.exact
    assert found.verdict.startswith("Still the task")
    assert found.distance < 1e-9
    assert found.worst_regret < 1e-8
    assert concerns(found) == set()
    assert found.shares["potential"] == pytest.approx(1)


def test_farming_is_found_with_its_loop():
    found = audit(ROOMS, rd.weighted_sum(task=rd.environment_reward(), bonus=loiter()))
    assert found.verdict.startswith("Not the same task")
    assert {"farming loops", "optimising it", "worst case", "components"} <= concerns(found)
    assert found.loop.designed == pytest.approx(0.1)
    assert found.loop.task == 0
    assert found.loop.advantage > 0
    assert len(found.loop.states) == 1
    assert evidence(found, "optimising it")["regret"] == pytest.approx(1)
    small = audit(ROOMS, rd.weighted_sum(task=rd.environment_reward(), bonus=loiter(1e-6)))
    assert "farming loops" not in concerns(small)


def test_a_design_with_the_same_optimum_is_told_from_one_with_another():
    found = audit(ROOMS, ROOMS.dense_reward)
    assert found.verdict.startswith("Another order of policies with the same optimum")
    assert found.distance > 0.1
    assert found.worst_regret > 0.1


def test_gamma_mismatch_is_found():
    assert evidence(audit(ROOMS, shaping(0.5)), "gamma")["chain/potential_shaping"] == 0.5
    assert "gamma" in concerns(audit(ROOMS, shaping(0.5)))


def test_terminal_potential_is_found():
    def forgets_the_end(t):
        phi = lambda obs: 4.0 + ROOMS.potential(obs)  # noqa: E731
        return t.reward + GAMMA * phi(t.next_obs) - phi(t.obs)

    wrong = audit(ROOMS, rd.pointwise("forgets_the_end", lambda t: forgets_the_end(t) - 9.0 * t.terminated))
    assert "terminal potential" in concerns(wrong)
    assert evidence(wrong, "terminal potential")["potential at the end"] < 0
    assert "terminal potential" not in concerns(audit(ROOMS, rd.pointwise("minus", lambda t: -t.reward)))
    assert "terminal potential" not in concerns(audit(ROOMS, loiter()))


def test_constant_term_is_found():
    living = rd.pointwise("living", lambda t: jnp.full(t.reward.shape, -0.5))
    found = audit(ROOMS, rd.weighted_sum(task=rd.environment_reward(), living=living))
    assert "living" in evidence(found, "saturation")
    assert all("task" not in f.evidence for f in found.findings if f.check == "saturation")


def test_a_design_that_is_indifferent_is_no_task():
    for design in (nothing(), rd.chain(nothing(), rd.potential_shaping(ROOMS.potential, gamma=GAMMA))):
        found = audit(ROOMS, design)
        assert found.verdict.startswith("No task: the design is indifferent to all policies; distance 1 of 2")
        assert "-0 per step" not in str(found)
    assert "the loop" in str(audit(ROOMS, nothing()))


def test_what_was_learned_is_measured_with_its_parameters():
    """A loss for idling of which training made a bonus."""
    reward = rd.weighted_sum(task=rd.environment_reward(), idle=loiter(), weights={"idle": 0.0})
    params, _ = reward.init(jax.random.key(0), ROOMS.example)
    assert audit(ROOMS, reward).distance < 1e-9
    learned = rd.with_params(reward, {**params, "weights": {**params["weights"], "idle": 1.0}})
    expected = audit(ROOMS, rd.weighted_sum(task=rd.environment_reward(), idle=loiter()))
    assert audit(ROOMS, learned).distance == pytest.approx(expected.distance, abs=1e-6)
    learner = rd.Learner(lambda *_: (), lambda params, state, *_: (params, state, {}))
    with pytest.raises(ValueError, match=r"is learned while an agent trains.*give with_params\(reward, params\)"):
        audit(ROOMS, replace(reward, learner=learner))


def test_opposite_and_kinds():
    found = audit(ROOMS, rd.pointwise("minus", lambda t: -t.reward))
    assert found.verdict.startswith("The opposite of the task")
    assert "the design pays against what the task pays for" in str(found)
    assert found.worst_regret == pytest.approx(1)
    whole = rd.from_trajectory("whole", lambda *_: ((), ()), lambda p, s, t: (t.reward, s))
    with pytest.raises(TypeError, match="'whole' has kind TRAJECTORY: what it pays depends on steps that follow"):
        audit(ROOMS, whole)
    with pytest.raises(ValueError, match=r"gamma must be in \[0, 1\), got 1.0"):
        audit(ROOMS, shaping(), gamma=1.0)


def test_the_time_limit_against_enumeration():
    """A near prize now or a far one later: what a limit of three steps changes, by going through all decisions."""
    chain = task("chain", num_states=5, horizon=3)
    model, gamma = chain.tabular(), chain.gamma
    designed = rd.pointwise("prizes", lambda t: jnp.where(t.next_obs == 4, 9.0, 0.0) + jnp.where(t.next_obs == 0, 1, 0))
    tau, start = model.transition, model.initial
    b, a = ((tau * reward_table(r, model)).sum(-1) for r in (designed, rd.environment_reward()))
    num_states, num_actions = b.shape

    def value(paid, plan, steps):
        at, total = start, 0.0
        for t in range(steps):
            chosen = plan[t]
            total += gamma**t * at @ paid[np.arange(num_states), chosen]
            at = at @ tau[np.arange(num_states), chosen]
        return total

    def for_ever(paid, policy):
        rows = np.arange(num_states), policy
        return start @ np.linalg.solve(np.eye(num_states) - gamma * tau[rows], paid[rows])

    moves = list(itertools.product(range(num_actions), repeat=num_states - 1))
    policies = [np.array([*m, 0]) for m in moves]
    stationary = max(policies, key=lambda p: for_ever(b, p))
    best = max(itertools.product(policies, repeat=3), key=lambda plan: round(value(b, plan, 3), 9))
    returns = [for_ever(a, p) for p in policies]
    whole = for_ever(b, stationary)
    found = evidence(audit(chain, designed), "time limit")
    assert found["after the limit"] == pytest.approx(1 - value(b, [stationary] * 3, 3) / whole, abs=1e-6)
    change = (value(a, best, 3) - value(a, [stationary] * 3, 3)) / np.ptp(returns)
    assert found["change"] == pytest.approx(change, abs=1e-9)
    assert found["after the limit"] > 0.05


# --- loops ------------------------------------------------------------------------------------------------------------


def largest_mean_cycle(successor, value):
    """By going through all simple cycles of a deterministic graph, ``[S, A]`` successors and values."""
    num_states, num_actions = successor.shape
    best = -np.inf
    for start in range(num_states):
        stack: list[tuple[int, tuple[int, ...], float]] = [(start, (start,), 0.0)]
        while stack:
            state, seen, total = stack.pop()
            for action in range(num_actions):
                if np.isnan(value[state, action]):
                    continue
                after, paid = successor[state, action], total + value[state, action]
                if after == start:
                    best = max(best, paid / len(seen))
                elif after not in seen:
                    stack.append((after, (*seen, after), paid))
    return best


@pytest.mark.parametrize("seed", range(6))
def test_best_loop_is_the_largest_mean_cycle(seed):
    rng = np.random.default_rng(seed)
    successor = rng.integers(6, size=(6, 2))
    transition = np.eye(6)[successor]
    a = np.where(rng.random((6, 2, 1)) < 0.2, 1.0, 0.0) * np.ones((6, 2, 6))
    b = rng.normal(size=(6, 2, 6))
    found = best_loop(a, b, transition, gamma=0.9)
    policy = policy_iteration(transition, a, gamma=0.9).policy
    values = policy_evaluation(transition, b, policy, gamma=0.9)
    advantage = (transition * (b + 0.9 * values)).sum(-1) - values[:, None]
    advantage[(transition * a).sum(-1) > 0] = np.nan
    expected = largest_mean_cycle(successor, advantage)
    if found is None:
        assert expected == -np.inf
        return
    assert found.advantage == pytest.approx(expected, abs=1e-8)
    steps = itertools.pairwise([*found.states, found.states[0]])
    assert all(successor[s, a] == t for (s, t), a in zip(steps, found.actions, strict=True))


def test_shaping_does_not_change_loops():
    rng = np.random.default_rng(9)
    transition = rng.dirichlet(np.ones(5), (5, 2))
    transition[:, :, 0] = 0
    transition /= transition.sum(-1, keepdims=True)
    a = np.zeros((5, 2, 5))
    a[:, 0, 4] = 1.0
    b, phi = rng.normal(size=(5, 2, 5)), 10 * rng.normal(size=5)
    plain = best_loop(a, b, transition, gamma=0.9)
    shaped = best_loop(a, b + 0.9 * phi - phi[:, None, None], transition, gamma=0.9)
    assert shaped.advantage == pytest.approx(plain.advantage, abs=1e-8)
    assert abs(shaped.designed - plain.designed) > 1e-3
    assert expected_return(transition, a, np.eye(2)[[1] * 5], np.full(5, 0.2), gamma=0.9) == 0


# --- pages and commands -----------------------------------------------------------------------------------------------


def test_the_page_holds_the_evidence(tmp_path):
    reward = rd.weighted_sum(task=rd.environment_reward(), bonus=loiter())
    found = audit(ROOMS, reward)
    page = audit_page.write(found, ROOMS, reward, tmp_path).read_text()
    for word in ("Not the same task", "farming loops", "what the design prefers", "<svg", "weighted_sum"):
        assert word in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") >= 4


def test_commands(tmp_path, capsys):
    assert cli.main(["audit", "--task", "chain", "--reward", "shaping", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "Still the task" in said
    assert (tmp_path / "audit.html").exists()
    words = ["distance", "--task", "four_rooms", "--rewards", "sparse", "shaping", "misaligned", "--out", str(tmp_path)]
    assert cli.main(words) == 0
    said = capsys.readouterr().out
    assert "worst case" in said
    record = json.loads((tmp_path / "distances.json").read_text())
    assert record["names"] == ["true reward", "sparse", "shaping", "misaligned"]
    assert record["matrix"][0][2] < 1e-9 < 0.5 < record["matrix"][0][3]
    assert record["worst_regret"]["misaligned"] == pytest.approx(1)
    assert "<svg" in (tmp_path / "distances.svg").read_text()
    assert cli.main(["distance", "--task", "chain", "--rewards", "sparse", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["settings"]["exact"] is True
    assert cli.main(["distance", "--task", "chain", "--norm", "3"]) == 2
    assert "norm must be one of" in capsys.readouterr().err


def test_the_dendrogram_puts_like_beside_like():
    matrix = np.array([[0, 2, 0.1, 2], [2, 0, 2, 0.1], [0.1, 2, 0, 2], [2, 0.1, 2, 0]], float)
    order, _ = distance_table.order_and_tree(matrix)
    assert {frozenset(order[:2]), frozenset(order[2:])} == {frozenset({0, 2}), frozenset({1, 3})}
    assert distance_table.order_and_tree(np.zeros((1, 1))) == ([0], None)


def test_distances_from_samples_have_intervals():
    pendulum = task("pendulum", horizon=50)
    rewards = {"shaped": rd.chain(rd.environment_reward(), rd.potential_shaping(pendulum.potential, gamma=0.99))}
    found = distance_table.measure(pendulum, {**rewards, "nothing": nothing()}, num_samples=300)
    assert (found.settings["canonicalisation"], found.settings["norm"]) == ("minimal_weighted", "weighted_2")
    assert found.matrix[0, 1] < 1e-4
    assert (found.low <= found.matrix).all()
    assert (found.matrix <= found.high).all()
    assert not found.settings["exact"]
    (note,) = found.notes
    assert note.startswith("On these samples nothing cannot be told from a reward that is indifferent")
    assert found.record()["notes"] == [note]
    with pytest.raises(ValueError, match="norm must be weighted_2 where distances come from samples, as on pendulum"):
        distance_table.measure(pendulum, rewards, num_samples=300, norm=1)
    with pytest.raises(
        ValueError, match="canonicalisation must be one of val, minimal_weighted for samples, got 'epic'"
    ):
        distance_table.measure(pendulum, rewards, num_samples=300, canonicalisation="epic")


def test_exact_distances_name_the_reward_that_is_not_finite_and_what_is_no_starc_metric():
    chain = task("chain")
    bad = rd.pointwise("bad", lambda t: jnp.where(t.reward > 0, jnp.nan, t.reward))
    with pytest.raises(ValueError, match=r"reward 'mine' must be finite, got nan at index \["):
        distance_table.measure(chain, {"mine": bad})
    with pytest.raises(ValueError, match=r"reward 'bad' must be finite, got nan at index \["):
        audit(chain, bad)
    (note,) = distance_table.measure(chain, {"mine": nothing()}, canonicalisation="epic").notes
    assert note.startswith("epic: EPIC's, with uniform states and actions; not a STARC canonicalisation")
    assert distance_table.measure(chain, {"mine": nothing()}).notes == ()
